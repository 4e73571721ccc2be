"""How each engine spells a kNN search, and what its scores say about similarity: one table.

Sources: Elasticsearch, "kNN search", "dense_vector" and "script_score"; OpenSearch, "k-NN query" and "Spaces".
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KnnSearch:
    """What is asked for: the nearest to a vector, among what fulfils the filters."""

    field: str
    vector: Sequence[float]
    k: int
    num_candidates: int
    filters: Sequence[Any]
    oversample: float | None = None
    path: str | None = None
    """The nested documents that hold the vectors; what is found is the document around them, by its nearest."""
    similarity: str = ""
    """As the mapping says."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a kNN search is spelled, and what differs besides."""

    name: str
    knn: Callable[[KnnSearch], Mapping[str, Any]]
    similarity: Mapping[str, Callable[[float], float]]
    """From a `_score` back to the cosine of unit vectors, by the mapping's similarity."""
    default_similarity: str
    filters_aliases: bool = True
    """An alias's filter holds before the k nearest are taken, and not only after."""

    def cosine_of(self, score: float, similarity: str) -> float | None:
        """Turn a kNN `_score` back into the cosine of unit vectors; None for a similarity that has none."""
        to_cosine = self.similarity.get(similarity)
        return to_cosine(score) if to_cosine and score > 0 else None


def _half(score: float) -> float:
    return 2 * score - 1


def _of_distance(score: float) -> float:
    # vectors are unit length here, so |a-b|² = 2 - 2cos, and _score = 1 / (1 + |a-b|²)
    return 1 - (1 / score - 1) / 2


def _of_inner_product(score: float) -> float:
    return score - 1 if score >= 1 else 1 - 1 / score


def _top_level(search: KnnSearch) -> Mapping[str, Any]:
    knn: dict[str, Any] = {"field": search.field, "query_vector": search.vector}
    knn |= {"k": search.k, "num_candidates": search.num_candidates}
    if search.filters:
        knn["filter"] = list(search.filters)
    if search.oversample:
        knn["rescore_vector"] = {"oversample": search.oversample}
    return {"knn": knn}


def _by_script(search: KnnSearch) -> Mapping[str, Any]:
    """Before there was a kNN search: each document that passes the filters is compared."""
    source = f"cosineSimilarity(params.vector, '{search.field}') + 1.0"
    return _compared(search, {"source": source, "params": {"vector": search.vector}})


def _compared(search: KnnSearch, script: Mapping[str, Any]) -> Mapping[str, Any]:
    """Score by a script what passes the filters and has a vector."""
    there = {"exists": {"field": search.field}}
    if search.path is None:
        held = {"bool": {"filter": [*search.filters, there]}}
        return {"query": {"script_score": {"query": held, "script": script}}}
    scored = _nearest_inside(search.path, {"script_score": {"query": there, "script": script}})
    return {"query": {"bool": {"must": [scored], "filter": list(search.filters)}}}


def _nearest_inside(path: str, query: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"nested": {"path": path, "score_mode": "max", "query": query}}


_MOST_NEIGHBOURS = 10_000
"""OpenSearch's limit of `k`."""


def _in_query(search: KnnSearch) -> Mapping[str, Any]:
    """A query among others, in which vectors of nested documents cannot be searched under filters.

    There a filter is held against the nested documents wherever it might match one, so `must_not` lets all of them
    through, and `nested` finds nothing: each document that passes is compared instead, with the scores of kNN.
    """
    params = {"field": search.field, "query_value": search.vector, "space_type": search.similarity}
    script = {"lang": "knn", "source": "knn_score", "params": params}
    if search.path is not None and search.filters:
        return _compared(search, script)
    k = min(math.ceil(search.k * (search.oversample or 1)), _MOST_NEIGHBOURS)
    clause: dict[str, Any] = {"vector": search.vector, "k": k}
    if search.filters:
        clause["filter"] = {"bool": {"filter": list(search.filters)}}
    nearest: Mapping[str, Any] = {"knn": {search.field: clause}}
    if search.oversample:  # by the script, since Lucene's engine takes `rescore` and does nothing of it
        nearest = {"script_score": {"query": nearest, "script": script}}
    return {"query": nearest if search.path is None else _nearest_inside(search.path, nearest)}


ELASTICSEARCH = Dialect(
    "elasticsearch",
    _top_level,
    {"cosine": _half, "dot_product": _half, "l2_norm": _of_distance, "max_inner_product": _of_inner_product},
    "cosine",
)
ELASTICSEARCH_BEFORE_KNN = Dialect(
    "elasticsearch before 8.4",
    _by_script,
    dict.fromkeys(("cosine", "dot_product", "l2_norm"), lambda score: score - 1),
    "cosine",
)
OPENSEARCH = Dialect(
    "opensearch",
    _in_query,
    {"cosinesimil": _half, "l2": _of_distance, "innerproduct": _of_inner_product},
    "cosinesimil",
    filters_aliases=False,
)

_KNN_SINCE: Version = (8, 4)


@dataclass(frozen=True, slots=True)
class EngineKind:
    """Which engine answers, as far as it says so."""

    product: str
    version: Version | None = None

    @property
    def own_parameters(self) -> tuple[tuple[str, str], ...]:
        """What the proxy's own searches say in the URL, so that no pipeline of the client's changes them."""
        return (("search_pipeline", "_none"),) if self.product == "opensearch" else ()

    @property
    def keeps_empty(self) -> bool:
        """Whether what is empty stays where the excludes of a `filter_path` pass through it."""
        return self.product != "opensearch"


def read_kind(answer: Mapping[str, Any]) -> EngineKind:
    """Read `GET /`."""
    said = answer["version"]
    numbers = tuple(int(part) for part in str(said["number"]).split("-")[0].split("."))
    return EngineKind(str(said.get("distribution", "elasticsearch")), numbers)


def dialect_of(kind: str, version: Version | None) -> Dialect | None:
    """Choose by the vector field's type, and by Elasticsearch's version where that is known."""
    match kind:
        case "dense_vector":
            return ELASTICSEARCH_BEFORE_KNN if version is not None and version < _KNN_SINCE else ELASTICSEARCH
        case "knn_vector":
            return OPENSEARCH
        case _:
            return None
