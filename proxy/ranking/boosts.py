"""Preserves the boosts and pins of the client's query in the reranked order.

A reranker sees text only, not margins, stock, campaigns or pins. One search parallel to the reranker scores the
candidates by the client's query with its text clauses replaced by a constant. The ratio of each score to the median is
combined with the reranker's odds. A large gap between neighbouring ratios is a pin, which reranking never crosses.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median_low

from proxy.errors import Failure, Refused, UpstreamError
from proxy.ranking.explaining import Boost
from proxy.ranking.hits import DocKey, Hit, Ranking, Scored, keys
from proxy.ranking.searches import boost_search
from proxy.ranking.stages import Run

STEP = 8.0
"""Gap between neighbouring ratios that separates two tiers. 10 would miss pins of 10,000 above others of 1,000, because
the constant is added to both (279.8 and 27.98: ratio 9.999); 5 would make a tier of a common multiplier of 0.2."""
LEAST_ODDS, GREATEST_ODDS = 0.01, 0.99
"""Reranker scores are clamped to this range, so that a boost of 100 still outweighs a score of 0.0001."""
LEAST_RATIO = 1e-4
"""The ratio of a document to which the query gives the score 0."""
_ALIKE = 0.005
"""Ratios whose logarithm is this close to 0 count as 1: the difference is floating-point noise."""

PROBLEMS: Mapping[str, str] = {
    "random_score": "`random_score` without a seed gives other numbers in each search: it counts for nothing, other "
    "boosts do",
}
"""Parts of a query that cannot be measured as boosts, and why."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The boosts of the candidates (empty if they are all equal), or why they are unknown."""

    boosts: Mapping[DocKey, Boost] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()

    @property
    def is_missing(self) -> bool:
        return any(not failure.by_design for failure in self.failures)


async def measure(run: Run, candidates: Sequence[DocKey], own: Mapping[DocKey, Hit]) -> Measured:
    """Search for the candidates' scores without query text, unless there are no boosts to measure.

    `own` holds the hits that match the client's query.
    """
    plan = run.plan
    boosts, reorders = plan.user_query.boosts, plan.route.rerank_model is not None or plan.vectors is not None
    says_more = boosts is not None or "indices_boost" in plan.request.members
    if not plan.route.boost_power or not says_more or not reorders or len(candidates) < 2:
        return Measured()
    problems = ["random_score"] if boosts is not None and boosts.random else []
    notes = tuple(Failure("boosts", reason, PROBLEMS[reason], by_design=True) for reason in problems)
    words = constant_of([own[key].score for key in candidates if key in own])
    try:
        scores = await _scores(run, candidates, own, words)
    except UpstreamError as error:
        return Measured(failures=(Failure("boosts", error.reason, str(error)), *notes))
    if scores is None:
        return Measured(failures=(Failure("boosts", "partial"), *notes))
    return Measured(boosts_of(scores, own), notes)


async def _scores(
    run: Run, candidates: Sequence[DocKey], own: Collection[DocKey], words: float
) -> Mapping[DocKey, float] | None:
    """Return the candidates' scores; None if shards failed.

    A function score over a field that is missing in documents found by kNN only fails the shard: the search is then
    repeated without them.
    """
    matched = [key for key in candidates if key in own]
    fewer = [matched] if 0 < len(matched) < len(candidates) else []
    for asked in (candidates, *fewer):
        try:
            answer = await run.search("boosts", boost_search(run.plan, asked, words), asked, words)
        except Refused as refusal:
            if asked is matched or not fewer or refusal.status not in _OF_SHARDS:
                raise
        else:
            if answer.whole:
                return {hit.key: hit.score for hit in answer.hits}
    return None


_OF_SHARDS = frozenset({400, 500})
"""Statuses that the engine returns if all of its shards failed."""


def constant_of(scores: Collection[float]) -> float:
    """Return the constant score of the text clauses: the median of the client's own scores, in every engine's range.

    Of two it is the lower one, since the other may be a pin's.
    """
    typical = median_low(scores) if scores else 0.0
    return min(typical, _GREATEST_BOOST) if typical > 0 else 1.0


_GREATEST_BOOST = 1e30


def boosts_of(scores: Mapping[DocKey, float], own: Collection[DocKey]) -> Mapping[DocKey, Boost]:
    """Return each score's ratio to the median over the documents that match the client's query; empty if all are equal.

    Documents found by kNN only never get a ratio above 1.
    """
    positive = [score for key, score in scores.items() if key in own and score > 0]
    if not positive:
        return {}
    typical = median_low([scores[key] for key in scores if key in own]) or min(positive)
    ratios = {key: _ratio(score / typical, raised=key in own) for key, score in scores.items()}
    if len(set(ratios.values())) < 2:
        return {}
    tiers = _tiers(ratios.values())
    return {key: Boost(ratio, tiers[ratio]) for key, ratio in ratios.items()}


def _ratio(ratio: float, *, raised: bool) -> float:
    bounded = max(ratio, LEAST_RATIO) if raised else min(max(ratio, LEAST_RATIO), 1.0)
    return 1.0 if abs(math.log(bounded)) <= _ALIKE else bounded


def _tiers(ratios: Collection[float]) -> Mapping[float, int]:
    ordered = sorted(set(ratios), reverse=True)
    tiers, tier = {ordered[0]: 1}, 1
    for above, below in pairwise(ordered):
        tier += above >= STEP * below
        tiers[below] = tier
    return tiers


def boosted(
    ranking: Ranking, measured: Measured, scores: Mapping[DocKey, float], lexical: Sequence[DocKey], power: float
) -> Ranking:
    """Order a ranking by tiers, and within each tier by the reranker's odds times the ratio to the power of `power`.

    The odds belong to the ranks, so that equal ratios leave the order unchanged. A document without a score keeps its
    rank within its tier. If the boosts are unknown, the engine's order of the client's own hits (`lexical`) is kept
    instead.
    """
    order = keys(ranking)
    if measured.is_missing:
        place = {key: number for number, key in enumerate(lexical)}
        return _on_places(sorted(order, key=lambda key: place.get(key, len(place))), ranking)
    if not measured.boosts:
        return ranking
    neutral = _neutral(measured.boosts)
    of = {key: measured.boosts.get(key, neutral) for key in order}
    by_place = sorted((scores[key] for key in order if key in scores), reverse=True)
    odds = dict(zip((key for key in order if key in scores), map(_log_odds, by_place), strict=True))
    worth = {key: odds[key] + power * math.log(of[key].ratio) for key in odds}
    found: list[DocKey] = []
    for tier in sorted({boost.tier for boost in of.values()}):
        members = [key for key in order if of[key].tier == tier]
        ranked = iter(sorted((key for key in members if key in worth), key=lambda key: -worth[key]))
        found += [next(ranked) if key in worth else key for key in members]
    return _on_places(found, ranking)


def _neutral(boosts: Mapping[DocKey, Boost]) -> Boost:
    """Return the boost of documents that were not measured: the median ratio, in the tier nearest to it."""
    nearest = min(boosts.values(), key=lambda boost: abs(math.log(boost.ratio)))
    return Boost(1.0, nearest.tier)


def _log_odds(score: float) -> float:
    clamped = min(max(score, LEAST_ODDS), GREATEST_ODDS)
    return math.log(clamped / (1.0 - clamped))


def _on_places(order: Sequence[DocKey], ranking: Ranking) -> Ranking:
    """Give the scores, best first, to the documents in their new order."""
    return tuple(Scored(key, place.score) for key, place in zip(order, ranking, strict=True))
