"""One ranking, cut into pages: the reranked head, then the client's own order without the head's documents.

Scores say no more than the order: the head's lie in [1, 2] and its first document always has 2, the tail's
follow below 1 as `s/(1+s)` of the engine's. So `max_score` and monotony hold on every page by themselves,
whichever page is asked for first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proxy.errors import Failure
from proxy.parsing.sort_values import Walk, head_values, tail_value
from proxy.ranking.explaining import Explanation
from proxy.ranking.fusion import Weighted, reciprocal_rank_fusion
from proxy.ranking.hits import DocKey, Hit, RankedDocument, Ranking, Scored, keys
from proxy.ranking.search_response import Page, SearchAnswer, Shown, Total
from proxy.settings.routes import Route

TOP_SCORE = 2.0
PINNED_SCORE = 1.7e38
"""Elasticsearch scores what its `pinned` and `rule` queries put on top at the far end of a float, others far below."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first documents of a ranking: all that differs from the client's own order."""

    ranking: Ranking
    total: Total | None
    """The whole ranking's: what the client's own query matches, and the head's documents that it does not."""
    extras: int
    """How many of the head's documents the client's own query does not match."""
    untouched: bool
    """They are the client's own first documents in the client's own order, since every stage failed."""
    failures: tuple[Failure, ...]
    groups: Mapping[DocKey, bytes | None] = field(default_factory=dict)
    """Which group each document stands for, where hits are grouped."""
    explanations: Mapping[DocKey, Explanation] = field(default_factory=dict)
    counted: bool | int | None = None
    """How far the total was counted, in the words of `track_total_hits`."""

    def counts(self, track_total_hits: bool | int) -> bool:  # noqa: FBT001  the engine's own word
        """Whether its total is the one that is asked for; 1 is no `true`: it counts no further than that."""
        told = type(self.counted), self.counted
        return track_total_hits is False or told == (type(track_total_hits), track_total_hits)

    @property
    def keys(self) -> tuple[DocKey, ...]:
        return keys(self.ranking)

    @property
    def places(self) -> tuple[RankedDocument, ...]:
        return tuple(RankedDocument(scored.key, self.groups.get(scored.key)) for scored in self.ranking)

    @property
    def scores(self) -> dict[DocKey, float]:
        """Each document's score as it is shown."""
        top = self.ranking[0].score if self.ranking else 0.0
        return {scored.key: 1.0 + (max(scored.score, 0.0) / top if top > 0 else 1.0) for scored in self.ranking}

    @property
    def values(self) -> dict[DocKey, float]:
        """Each document's value in the place of its score among sort values."""
        return dict(zip(self.keys, head_values(list(self.scores.values())), strict=True))


def fuse(route: Route, lexical: Sequence[DocKey], semantic: Sequence[DocKey], window: int) -> Ranking:
    """Merge what two retrievers found, and keep the window."""
    rankings = [Weighted(lexical, route.fusion.lexical_weight)]
    if semantic:
        rankings.append(Weighted(semantic, route.fusion.semantic_weight))
    return reciprocal_rank_fusion(rankings, route.fusion.rank_constant)[:window]


def pinned_first(ranking: Ranking, lexical: Sequence[Hit]) -> Ranking:
    """Put back on top what the engine was told to put there, in its order, above every score there is."""
    pinned = [hit.key for hit in lexical if hit.score >= PINNED_SCORE]
    if not pinned:
        return ranking
    top = ranking[0].score if ranking else 0.0
    others = tuple(scored for scored in ranking if scored.key not in pinned)
    return (*(Scored(key, top) for key in pinned if key in keys(ranking)), *others)


def tail_score(score: float) -> float:
    """Map a score of the engine's below those of the head, keeping the order."""
    positive = max(score, 0.0)
    return positive / (1.0 + positive)


@dataclass(frozen=True, slots=True)
class Cut:
    """Which part of a ranking is a page."""

    start: int
    size: int
    walk: Walk | None = None
    """Behind which hit it begins, before `start` is counted."""


def _in_tail(hit: Hit) -> Shown:
    return Shown(hit, tail_score(hit.score), value=tail_value(hit.score))


def head_page(
    head: Head,
    lexical: SearchAnswer,
    rendered: Mapping[DocKey, Hit],
    cut: Cut,
    *,
    keeps_places: bool = False,
) -> Page:
    """Cut a page that begins in the head; documents that have gone since leave no gap.

    With `keeps_places` those that could not be fetched do, so that the page before and the page behind still fit.
    In the engine's own order a walk finds no place of its own values, and begins anew.
    """
    start, size = cut.start, cut.size
    if head.untouched:
        own = [Shown(hit) for hit in lexical.hits[start : start + size]]
        return Page(own, lexical.total, lexical.max_score)
    known = {**rendered, **lexical.by_key}
    scores, values = head.scores, head.values
    places = [(key, values[key]) for key in head.keys if keeps_places or key in known]
    places += [(hit.key, tail_value(hit.score)) for hit in lexical.hits if hit.key not in scores]
    best = TOP_SCORE if places else None
    if cut.walk:
        places = [place for place in places if place[1] < cut.walk.value]
    shown = [
        Shown(known[key], scores[key], head.explanations.get(key), value) if key in scores else _in_tail(known[key])
        for key, value in places[start : start + size]
        if key in known
    ]
    total = lexical.total.plus(head.extras) if lexical.total else None
    return Page(shown, total, best)


def tail_page(head: Head, answer: SearchAnswer) -> Page:
    """Give the engine's own page behind the head its place in the ranking.

    An empty head excludes nothing: then the engine's total and its null for no best score are the whole's, and
    only scores are mapped.
    """
    if head.untouched:
        return Page([Shown(hit) for hit in answer.hits], answer.total, answer.max_score)
    shown = [_in_tail(hit) for hit in answer.hits]
    total = answer.total and (head.total if head.ranking else answer.total)
    return Page(shown, total, TOP_SCORE if head.ranking or answer.max_score is not None else None)
