"""Writes rankings as TREC run files, for other tools."""

import re
from collections.abc import Iterable, Iterator

from proxy.commands.evaluation.outcomes import FailedSearch, Found

_BLANK = re.compile(r"\s")


def run_lines(replies: Iterable[tuple[str, Found | FailedSearch]], tag: str) -> Iterator[str]:
    """Return one line of six columns per hit.

    The score is derived from the rank: trec_eval sorts by score, and the engine's may be equal for several hits.
    """
    for query, reply in replies:
        documents = reply.documents if isinstance(reply, Found) else ()
        for rank, document in enumerate(documents, 1):
            yield f"{_column(query)} Q0 {_column(document)} {rank} {len(documents) - rank + 1} {tag}\n"


def _column(name: str) -> str:
    """Escape white space as in a URL, because it separates columns."""
    return _BLANK.sub(lambda found: f"%{ord(found[0]):02X}", name)
