"""Scores of the canary's known pairs, for fake models."""

from proxy.upstream.canary import KNOWN


def known_scores(relevant: float, irrelevant: float) -> dict[str, float]:
    """Return a score for each passage of the known pairs."""
    found = {passage: relevant for known in KNOWN for passage in known.relevant}
    return found | {passage: irrelevant for known in KNOWN for passage in known.irrelevant}
