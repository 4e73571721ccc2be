"""Pagination: a ranking is the reranked head, followed by the client's own order without the head's documents.

Scores express the order only. Those of the head are in [1, 2], its first document always has 2; those after it are the
engine's, mapped below 1 by `s/(1+s)`. So every page has the same `max_score`, and scores descend across pages, in
whatever sequence the pages are requested.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import chain, islice

import msgspec

from proxy.errors import Failure
from proxy.parsing.sort_values import Walk, head_value, tail_value
from proxy.ranking.explaining import Explanation
from proxy.ranking.fusion import Weighted, reciprocal_rank_fusion
from proxy.ranking.hits import DocKey, Hit, RankedDocument, Ranking, Scored, keys
from proxy.ranking.search_response import Page, SearchAnswer, Shown, Total
from proxy.settings.routes import Route

TOP_SCORE = 2.0
PINNED_SCORE = 1.7e38
"""Elasticsearch gives documents of `pinned` and `rule` queries scores near the largest float, and others far lower
ones."""


class Proof(msgspec.Struct, frozen=True, array_like=True):
    """What a ranking was made of, and the model calls that its reuse saves."""

    hash: bytes
    """Hash of the engine's responses that determine the ranking."""
    made: int
    """Unix time in seconds."""
    model: str
    """The reranker whose scores were cached."""
    passages: int
    """The number of these scores."""
    tokens: int
    """The tokens that they saved, as estimated."""
    without_text: int
    """Candidates without text for the reranker."""
    tier: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a head was made, for the same search if it is made again: see `repeats`."""

    documents: Mapping[str, tuple[DocKey, ...]] = field(default_factory=dict)
    """The documents that the added search of each stage asked for."""
    words: float = 0.0
    """The constant score of the query text in the search for boosts."""
    proof: Proof | None = None
    """None if the next search must compute its ranking again."""


NO_RECIPE = Recipe()


@dataclass(frozen=True, slots=True)
class Head:
    """The reranked top of a ranking; the documents after it are in the engine's order."""

    ranking: Ranking
    total: Total | None
    """The total of the ranking: the matches of the client's own query plus `extras`."""
    extras: int
    """The number of documents in the head that do not match the client's own query."""
    untouched: bool
    """Every stage failed: the head is the start of the engine's own order."""
    failures: tuple[Failure, ...]
    groups: Mapping[DocKey, bytes | None] = field(default_factory=dict)
    """The collapse value of each document, if hits are collapsed."""
    explanations: Mapping[DocKey, Explanation] = field(default_factory=dict)
    counted: bool | int | None = None
    """The `track_total_hits` with which the total was counted."""
    recipe: Recipe = NO_RECIPE

    def counts(self, track_total_hits: bool | int) -> bool:  # noqa: FBT001  a value of the engine's API
        """Whether its total was counted with this `track_total_hits`; 1 and true differ: 1 counts a single hit."""
        counted = type(self.counted), self.counted
        return track_total_hits is False or counted == (type(track_total_hits), track_total_hits)

    @property
    def keys(self) -> tuple[DocKey, ...]:
        return keys(self.ranking)

    @property
    def places(self) -> tuple[RankedDocument, ...]:
        return tuple(RankedDocument(scored.key, self.groups.get(scored.key)) for scored in self.ranking)

    def score(self, place: int) -> float:
        """Return the score in the response of the document at a place, counted from 0."""
        top = self.ranking[0].score
        return 1.0 + (max(self.ranking[place].score, 0.0) / top if top > 0 else 1.0)

    def value(self, place: int) -> float:
        """Return its sort value in the response, in place of the score."""
        return head_value(self.score(place), place)


def fuse(
    route: Route,
    lexical: Sequence[DocKey],
    semantic: Sequence[DocKey],
    window: int,
    unseen: AbstractSet[str] = frozenset(),
) -> Ranking:
    """Fuse the documents of two retrievers, and return the window.

    In the first half of the window, documents of indices that kNN does not search (`unseen`) count as if it ranked them
    as the engine did: otherwise those that both retrievers can find would all precede them. In the second half they
    compete with those that only kNN found. Measured on the demo's catalogue, half of it without vectors, without a
    reranker: 1 of 22 searches is worse than the engine's, 8 without this rule; with it in the whole window, kNN adds
    less.
    """
    rankings = [Weighted(lexical, route.fusion.lexical_weight)]
    if semantic:
        rankings.append(Weighted(semantic, route.fusion.semantic_weight))
        if unseen:
            near = set(semantic)
            places = [key if key.index in unseen and key not in near else None for key in lexical[: window // 2]]
            rankings.append(Weighted(places, route.fusion.semantic_weight))
    return reciprocal_rank_fusion(rankings, route.fusion.rank_constant)[:window]


def pinned_first(ranking: Ranking, lexical: Sequence[Hit]) -> Ranking:
    """Move the documents that the engine pinned back to the top, in the engine's order."""
    pinned = [hit.key for hit in lexical if hit.score >= PINNED_SCORE]
    if not pinned:
        return ranking
    top = ranking[0].score if ranking else 0.0
    others = tuple(scored for scored in ranking if scored.key not in pinned)
    return (*(Scored(key, top) for key in pinned if key in keys(ranking)), *others)


def tail_score(score: float) -> float:
    """Map a score of the engine below the scores of the head, preserving the order."""
    positive = max(score, 0.0)
    return positive / (1.0 + positive)


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of a ranking that is the page."""

    start: int
    size: int
    walk: Walk | None = None
    """The hit after which the page begins, before `start` is counted (`search_after`)."""


def _in_head(head: Head, place: int, hit: Hit) -> Shown:
    return Shown(hit, head.score(place), head.explanations.get(hit.key), head.value(place))


def _in_tail(hit: Hit) -> Shown:
    return Shown(hit, tail_score(hit.score), value=tail_value(hit.score))


def head_page(  # noqa: PLR0913  the parts of a page
    head: Head,
    lexical: SearchAnswer,
    rendered: Mapping[DocKey, Hit],
    cut: Cut,
    total: Total | None,
    *,
    keeps_places: bool = False,
) -> Page:
    """Cut a page that begins in the head; documents deleted since then leave no gap.

    `total` counts the matches of the client's own query, and the head's documents that do not match it.
    `keeps_places`: documents that could not be fetched leave gaps, so that the pages before and after still fit. If the
    head is in the engine's order, its values do not continue a `walk`, which therefore starts over.
    """
    start, size = cut.start, cut.size
    if head.untouched:
        own = [Shown(hit) for hit in lexical.hits[start : start + size]]
        return Page(own, lexical.total, lexical.max_score)
    known = {**rendered, **lexical.by_key}
    places = {scored.key: place for place, scored in enumerate(head.ranking)}
    in_head = (key for key in places if keeps_places or key in known)
    everything = chain(in_head, (hit.key for hit in lexical.hits if hit.key not in places))
    order = list(everything if cut.walk else islice(everything, start + size))
    best = TOP_SCORE if order else None
    if cut.walk:
        after = cut.walk.value
        order = [
            key for key in order if (head.value(places[key]) if key in places else tail_value(known[key].score)) < after
        ]
    page = [key for key in order[start : start + size] if key in known]
    shown = [_in_head(head, places[key], known[key]) if key in places else _in_tail(known[key]) for key in page]
    return Page(shown, total, best)


def tail_page(head: Head, answer: SearchAnswer, *, most: bool | int) -> Page:
    """Turn the engine's own page after the head into a page of the ranking.

    An empty head excludes no documents: the engine's total and `max_score` then hold for the whole ranking, and only
    the scores are mapped. `most` is the `track_total_hits` of the search.
    """
    if head.untouched:
        return Page([Shown(hit) for hit in answer.hits], answer.total, answer.max_score)
    shown = [_in_tail(hit) for hit in answer.hits]
    best = TOP_SCORE if head.ranking or answer.max_score is not None else None
    return Page(shown, answer.total and _total(head, answer.total, most=most), best)


def _total(head: Head, others: Total, *, most: bool | int) -> Total:
    """Count the documents of the head and the others.

    The others are counted by this response: since the head was cached, documents may have been deleted, or the caller
    may have lost rights. Those in the head keep their places, and are counted. Groups of collapsed hits have more
    documents than the head, so that its own total is used.
    """
    return head.total or others if head.groups else others.plus(len(head.ranking), most=most)
