"""OpenSearch search pipelines: which ones leave the hits and their order unchanged.

Source: OpenSearch, "Search pipelines". A request processor may change the query, the size or the window, and a
response processor runs before the proxy changes the order. So only processors that merge the scores of a `hybrid`
query are harmless.
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
    """Whether every processor of a pipeline is known to be harmless."""
    for place, processors in pipeline.items():
        known = _HARMLESS.get(place)
        if known is None:
            if place not in {"description", "version"}:
                return False
        elif not all(isinstance(each, dict) and each.keys() <= known for each in processors):
            return False
    return True
