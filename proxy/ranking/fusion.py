"""Reciprocal rank fusion: merges rankings by rank alone.

Source: Cormack, Clarke and Büttcher, SIGIR 2009; Elasticsearch's `rrf` retriever has the same formula.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from operator import attrgetter

from proxy.ranking.hits import DocKey, Ranking, Scored, keys


@dataclass(frozen=True, slots=True)
class Weighted:
    """The documents of a ranking, best first, and its weight; None is a place without a document."""

    keys: Sequence[DocKey | None]
    weight: float = 1.0


def reciprocal_rank_fusion(rankings: Sequence[Weighted], rank_constant: int = 60) -> Ranking:
    """Merge rankings by the sum of weight / (rank_constant + rank), with ranks from 1.

    Ties are broken in favour of the document that appears in an earlier ranking.
    """
    scores: dict[DocKey, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking.keys, start=1):
            if key is not None:
                scores[key] = scores.get(key, 0.0) + ranking.weight / (rank_constant + rank)
    return by_score(scores)


def by_score(scores: Mapping[DocKey, float]) -> Ranking:
    """Order by descending score; ties keep their order."""
    return tuple(sorted(starmap(Scored, scores.items()), key=attrgetter("score"), reverse=True))


def reorder(candidates: Sequence[DocKey], scores: Mapping[DocKey, float]) -> Ranking:
    """Order candidates by the reranker's scores.

    Ties keep the order of the candidates, since scores saturate near 1. Candidates without a score (the reranker had no
    time for them) follow in their order, with score 0.
    """
    scored = by_score({key: scores[key] for key in candidates if key in scores})
    return (*scored, *(Scored(key, 0.0) for key in candidates if key not in scores))


def completed(ranking: Ranking, candidates: Sequence[DocKey]) -> Ranking:
    """Insert the candidates that are missing in a ranking, each at its rank among all candidates."""
    if not ranking or len(ranking) == len(candidates):
        return ranking
    ranked, rest = set(keys(ranking)), iter(ranking)
    found: list[Scored] = []
    for key in candidates:
        found.append(next(rest) if key in ranked else Scored(key, found[-1].score if found else ranking[0].score))
    return tuple(found)


def blend(reranked: Ranking, candidates: Sequence[DocKey], weight: float, rank_constant: int = 60) -> Ranking:
    """Fuse the reranked order with that of the candidates, which has this weight."""
    if not weight:
        return reranked
    both = (Weighted(keys(reranked)), Weighted(candidates, weight))
    return reciprocal_rank_fusion(both, rank_constant)
