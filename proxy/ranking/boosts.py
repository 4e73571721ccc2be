"""What the client's query says beyond its words, measured by the engine and kept in the order of the candidates.

A model reads text alone: of margins, stock, campaigns and pins it knows nothing. The engine scores the candidates by
the query with its words made a constant, in one search beside the reranker, and the ratio of a score to the median
counts beside the reranker's odds. Where neighbouring ratios are far apart there is a pin, and no odds pass it.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from proxy.errors import Failure, Refused, UpstreamError
from proxy.ranking.explaining import Boost
from proxy.ranking.hits import DocKey, Hit, Ranking, Scored, keys
from proxy.ranking.searches import boost_search
from proxy.ranking.stages import Run

STEP = 8.0
"""Between neighbouring ratios: there ends a tier. 10 would miss pins of 10,000 above others of 1,000, with the words
added to both (279.8 and 27.98: ratio 9.999); 5 would make a tier of what an application multiplies by 0.2."""
LEAST_ODDS, GREATEST_ODDS = 0.01, 0.99
"""Relevance beyond these is not told apart: a boost of 100 is not lost to a score of 0.0001."""
LEAST_RATIO = 1e-4
"""Of what the query scores 0."""
_ALIKE = 0.005
"""Differences of a ratio's logarithm from none that are float noise."""

PROBLEMS: Mapping[str, str] = {
    "random_score": "`random_score` without a seed gives other numbers in each search: it counts for nothing, other "
    "boosts do",
}
"""Why a part of what a query says beyond its words cannot count."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The boosts of candidates, empty where they do not differ; or why they are not known."""

    boosts: Mapping[DocKey, Boost] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()

    @property
    def is_missing(self) -> bool:
        return any(not failure.by_design for failure in self.failures)


async def measure(run: Run, candidates: Sequence[DocKey], own: Mapping[DocKey, Hit]) -> Measured:
    """Have the engine score the candidates without the words; asks nothing where there is nothing to ask.

    `own` are the hits that the client's query matches.
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
    """Score the candidates; None where shards fail.

    A function of a field that only kNN's documents lack fails their shard, so they are left out then.
    """
    matched = [key for key in candidates if key in own]
    fewer = [matched] if 0 < len(matched) < len(candidates) else []
    for asked in (candidates, *fewer):
        try:
            answer = await run.search("boosts", boost_search(run.plan, asked, words))
        except Refused as refusal:
            if asked is matched or not fewer or refusal.status not in _OF_SHARDS:
                raise
        else:
            if answer.whole:
                return {hit.key: hit.score for hit in answer.hits}
    return None


_OF_SHARDS = frozenset({400, 500})
"""Statuses by which the engine says that all of its shards failed."""


def constant_of(scores: Collection[float]) -> float:
    """Say what the words count for: the median of the client's own scores, as a boost that every engine takes."""
    typical = median(scores) if scores else 0.0
    return min(typical, _GREATEST_BOOST) if typical > 0 else 1.0


_GREATEST_BOOST = 1e30


def boosts_of(scores: Mapping[DocKey, float], own: Collection[DocKey]) -> Mapping[DocKey, Boost]:
    """Compare scores without the words to their median over what the client's query matches.

    What only kNN found is never raised. Empty where all are alike.
    """
    positive = [score for key, score in scores.items() if key in own and score > 0]
    if not positive:
        return {}
    typical = median([scores[key] for key in scores if key in own]) or min(positive)
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
    """Order a ranking by tiers, and inside each by the reranker's odds times the ratio to this power.

    The odds are those of the places: a fused order stays what it is where ratios are alike. What has no score keeps
    its place in its tier. Where boosts are not known, the client's own order of its hits (`lexical`) has them.
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
    """What stands for a document that was not measured: the median, with the tier of what is nearest to it."""
    nearest = min(boosts.values(), key=lambda boost: abs(math.log(boost.ratio)))
    return Boost(1.0, nearest.tier)


def _log_odds(score: float) -> float:
    clamped = min(max(score, LEAST_ODDS), GREATEST_ODDS)
    return math.log(clamped / (1.0 - clamped))


def _on_places(order: Sequence[DocKey], ranking: Ranking) -> Ranking:
    """Give each place the score that it had before: scores say no more than the order."""
    return tuple(Scored(key, place.score) for key, place in zip(order, ranking, strict=True))
