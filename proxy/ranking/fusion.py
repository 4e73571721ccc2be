"""Merging rankings into one order, by rank alone.

Reciprocal rank fusion: Cormack, Clarke and Büttcher, SIGIR 2009;
Elasticsearch's `rrf` retriever spells it the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proxy.ranking.hits import DocKey, Ranking, Scored


@dataclass(frozen=True, slots=True)
class Weighted:
    """A ranking's documents, best first, and how much it counts."""

    keys: Sequence[DocKey]
    weight: float = 1.0


def reciprocal_rank_fusion(rankings: Sequence[Weighted], rank_constant: int = 60) -> Ranking:
    """Merge by the sum of weight/(rank_constant + rank), ranks from 1.

    Ties go to the document that an earlier ranking names first.
    """
    scores: dict[DocKey, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking.keys, start=1):
            scores[key] = scores.get(key, 0.0) + ranking.weight / (rank_constant + rank)
    return by_score(scores)


def by_score(scores: Mapping[DocKey, float]) -> Ranking:
    """Order by score, best first; ties stay as they come."""
    ordered = sorted(scores.items(), key=lambda item: -item[1])
    return tuple(Scored(key, score) for key, score in ordered)


def reorder(candidates: Sequence[DocKey], scores: Mapping[DocKey, float]) -> Ranking:
    """Order candidates by the reranker's scores.

    Ties go to the earlier candidate: scores saturate near 1. One without a score (it has no text) follows
    all that have one, in the order given, with score 0.
    """
    scored = by_score({key: scores[key] for key in candidates if key in scores})
    return (*scored, *(Scored(key, 0.0) for key in candidates if key not in scores))


def blend(reranked: Ranking, candidates: Sequence[DocKey], weight: float, rank_constant: int = 60) -> Ranking:
    """Let the first stage's order count beside the reranker's, by fusing the two at this weight."""
    if not weight:
        return reranked
    both = (Weighted([scored.key for scored in reranked]), Weighted(candidates, weight))
    return reciprocal_rank_fusion(both, rank_constant)
