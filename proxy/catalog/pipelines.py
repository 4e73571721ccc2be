"""OpenSearch's search pipelines: which of them leave hits and their order as a search makes them.

Source: OpenSearch, "Search pipelines". A request processor may change the query, the size or the window, and a
response processor sees the engine's order before it is changed here, so only what merges the scores of a `hybrid`
query is known to be harmless.
"""

from collections.abc import Mapping
from typing import Any

NONE = "_none"
_HARMLESS: Mapping[str, frozenset[str]] = {
    "request_processors": frozenset(),
    "response_processors": frozenset(),
    "phase_results_processors": frozenset({"normalization-processor", "score-ranker-processor"}),
}


def is_harmless(pipeline: Mapping[str, Any]) -> bool:
    """Whether each of a pipeline's processors is one of those known here."""
    for place, processors in pipeline.items():
        known = _HARMLESS.get(place)
        if known is None:
            if place not in {"description", "version"}:
                return False
        elif not all(isinstance(each, dict) and each.keys() <= known for each in processors):
            return False
    return True
