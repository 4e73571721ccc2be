"""How an engine spells a kNN search, and what its scores say about similarity.

Sources: Elasticsearch, "kNN search" and "dense_vector" reference (`similarity` and its `_score`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_TO_SIMILARITY: Mapping[str, Callable[[float], float]] = {
    "cosine": lambda score: 2 * score - 1,
    "dot_product": lambda score: 2 * score - 1,
    # vectors are unit length here, so |a-b|² = 2 - 2cos, and _score = 1 / (1 + |a-b|²)
    "l2_norm": lambda score: 1 - (1 / score - 1) / 2,
    "max_inner_product": lambda score: score - 1 if score >= 1 else 1 - 1 / score,
}


def cosine_of(score: float, similarity: str) -> float | None:
    """Turn a kNN `_score` back into the cosine of unit vectors; None for a similarity that has none."""
    to_similarity = _TO_SIMILARITY.get(similarity)
    return to_similarity(score) if to_similarity and score > 0 else None


def elasticsearch_knn(
    field: str, vector: Sequence[float], k: int, num_candidates: int, filters: Sequence[Any]
) -> Mapping[str, Any]:
    """Spell a kNN search as Elasticsearch 8.4 and later take it: top-level `knn`, filtered while it searches."""
    knn = {"field": field, "query_vector": vector, "k": k, "num_candidates": num_candidates}
    return {"knn": knn | ({"filter": list(filters)} if filters else {})}
