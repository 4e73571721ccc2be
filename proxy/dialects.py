"""How each engine spells a kNN search, and what its scores say about similarity: one table.

Sources: Elasticsearch, "kNN search", "dense_vector" and "script_score"; OpenSearch, "k-NN query" and "Spaces".
"""

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
    in_nested: bool = True
    """Vectors of nested documents are searched like others."""

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
    there = {"bool": {"filter": [*search.filters, {"exists": {"field": search.field}}]}}
    source = f"cosineSimilarity(params.vector, '{search.field}') + 1.0"
    return {
        "query": {"script_score": {"query": there, "script": {"source": source, "params": {"vector": search.vector}}}}
    }


def _in_query(search: KnnSearch) -> Mapping[str, Any]:
    clause: dict[str, Any] = {"vector": search.vector, "k": search.k}
    if search.filters:
        clause["filter"] = {"bool": {"filter": list(search.filters)}}
    if search.oversample:
        clause["rescore"] = {"oversample_factor": search.oversample}
    return {"query": {"knn": {search.field: clause}}}


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
    in_nested=False,
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
