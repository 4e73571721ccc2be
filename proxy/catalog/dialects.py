"""How each engine expresses a kNN search, and how its scores are converted to cosine similarity: one table.

Sources: Elasticsearch, "kNN search", "dense_vector" and "script_score"; OpenSearch, "k-NN query" and "Spaces".
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KnnSearch:
    """A kNN search: the nearest neighbours of a vector among the documents that match the filters."""

    field: str
    vector: Sequence[float]
    k: int
    num_candidates: int
    filters: Sequence[Any]
    oversample: float | None = None
    path: str | None = None
    """Path of the nested documents that hold the vectors; a hit is the parent document, by its nearest vector."""
    similarity: str = ""
    """The similarity in the mapping."""
    indices: Sequence[str] = ()
    """The indices to which the search is restricted; empty: all that it reaches."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an engine expresses a kNN search, and its other differences."""

    name: str
    knn: Callable[[KnnSearch], Mapping[str, Any]]
    similarity: Mapping[str, Callable[[float], float]]
    """Functions from a kNN `_score` to the cosine of unit vectors, by the similarity in the mapping."""
    default_similarity: str
    filters_aliases: bool = True
    """Whether an alias's filter applies before the k nearest are selected, and not only afterwards."""

    def cosine_of(self, score: float, similarity: str) -> float | None:
        """Convert a kNN `_score` to the cosine of unit vectors; None for an unknown similarity."""
        to_cosine = self.similarity.get(similarity)
        return to_cosine(score) if to_cosine and score > 0 else None


def _half(score: float) -> float:
    return 2 * score - 1


def _of_distance(score: float) -> float:
    # all vectors have unit length, so |a-b|² = 2 - 2cos, and _score = 1 / (1 + |a-b|²)
    return 1 - (1 / score - 1) / 2


def _of_inner_product(score: float) -> float:
    return score - 1 if score >= 1 else 1 - 1 / score


def _top_level(search: KnnSearch) -> Mapping[str, Any]:
    knn: dict[str, Any] = {"field": search.field, "query_vector": search.vector}
    knn |= {"k": search.k, "num_candidates": search.num_candidates}
    if filters := [*search.filters, *_in_indices(search)]:
        knn["filter"] = filters
    if search.oversample:
        knn["rescore_vector"] = {"oversample": search.oversample}
    return {"knn": knn}


def _in_indices(search: KnnSearch) -> Sequence[Any]:
    """Return a filter of the indices: a shard of another index matches nothing, whatever its mapping."""
    return [{"terms": {"_index": list(search.indices)}}] if search.indices else []


def _restricted(search: KnnSearch, query: Any) -> Mapping[str, Any]:
    """Restrict a query to the indices: in a `bool` around it, so that shards of others do not parse it."""
    there = _in_indices(search)
    return {"query": {"bool": {"must": [query], "filter": there}} if there else query}


def _by_script(search: KnnSearch) -> Mapping[str, Any]:
    """Before kNN search existed: an exact comparison with each document that matches the filters."""
    source = f"cosineSimilarity(params.vector, '{search.field}') + 1.0"
    return _compared(search, {"source": source, "params": {"vector": search.vector}})


def _compared(search: KnnSearch, script: Mapping[str, Any]) -> Mapping[str, Any]:
    """Score by a script the documents that match the filters and have a vector."""
    there = {"exists": {"field": search.field}}
    if search.path is None:
        held = {"bool": {"filter": [*search.filters, there]}}
        return _restricted(search, {"script_score": {"query": held, "script": script}})
    scored = _nearest_inside(search.path, {"script_score": {"query": there, "script": script}})
    return _restricted(search, {"bool": {"must": [scored], "filter": list(search.filters)}})


def _nearest_inside(path: str, query: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"nested": {"path": path, "score_mode": "max", "query": query}}


_K_MAX = 10_000
"""OpenSearch's maximum `k`."""


def _in_query(search: KnnSearch) -> Mapping[str, Any]:
    """Build a `knn` query; for nested vectors with filters, an exact comparison by script with the same scores.

    OpenSearch applies the filter of a nested `knn` query to the nested documents if it might match one. `must_not`
    then excludes nothing, and a `nested` filter matches nothing.
    """
    params = {"field": search.field, "query_value": search.vector, "space_type": search.similarity}
    script = {"lang": "knn", "source": "knn_score", "params": params}
    if search.path is not None and search.filters:
        return _compared(search, script)
    k = min(math.ceil(search.k * (search.oversample or 1)), _K_MAX)
    clause: dict[str, Any] = {"vector": search.vector, "k": k}
    if search.filters:
        clause["filter"] = {"bool": {"filter": list(search.filters)}}
    nearest: Mapping[str, Any] = {"knn": {search.field: clause}}
    if search.oversample:  # by script, since the Lucene engine accepts `rescore` and ignores it
        nearest = {"script_score": {"query": nearest, "script": script}}
    return _restricted(search, nearest if search.path is None else _nearest_inside(search.path, nearest))


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
    """The engine and its version, as far as it reports them."""

    product: str
    version: Version | None = None

    @property
    def own_parameters(self) -> tuple[tuple[str, str], ...]:
        """URL parameters of the proxy's own searches: no default pipeline may change them."""
        return (("search_pipeline", "_none"),) if self.product == "opensearch" else ()

    @property
    def keeps_empty(self) -> bool:
        """Whether an empty object or array is kept where the excludes of a `filter_path` pass through it."""
        return self.product != "opensearch"


def read_kind(answer: Mapping[str, Any]) -> EngineKind:
    """Read the response of `GET /`."""
    said = answer["version"]
    numbers = tuple(int(part) for part in str(said["number"]).split("-")[0].split("."))
    return EngineKind(str(said.get("distribution", "elasticsearch")), numbers)


def dialect_of(kind: str, version: Version | None) -> Dialect | None:
    """Select the dialect by the vector field's type, and by Elasticsearch's version if it is known."""
    match kind:
        case "dense_vector":
            return ELASTICSEARCH_BEFORE_KNN if version is not None and version < _KNN_SINCE else ELASTICSEARCH
        case "knn_vector":
            return OPENSEARCH
        case _:
            return None
