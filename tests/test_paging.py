"""One ranking in pages: together they are the whole, scores fall, and the best score is the same on each."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Failure
from proxy.parsing.sort_values import Walk, head_value, tail_value
from proxy.ranking.fusion import reorder
from proxy.ranking.hits import DocKey, Hit, Ranking, Scored, keys
from proxy.ranking.paging import (
    PINNED_SCORE,
    TOP_SCORE,
    Cut,
    Head,
    fuse,
    head_page,
    pinned_first,
    tail_page,
    tail_score,
)
from proxy.ranking.search_response import Page, SearchAnswer, Shown, Total
from proxy.settings.config import Fusion, RouteSettings
from proxy.settings.routes import build_route
from tests import strategies

ROUTE = build_route(RouteSettings(index="i"))
FAILURES = (Failure("rerank", "timeout"),)
A, B, C, D = (DocKey("i", name) for name in "abcd")


def test_two_rankings_are_fused_and_cut_to_the_window() -> None:
    assert (B, A, D) == keys(fuse(ROUTE, [A, B, C], [B, D], 3))


def test_a_single_ranking_keeps_its_order() -> None:
    assert (A, B) == keys(fuse(ROUTE, [A, B, C], [], 2))


def test_documents_that_knn_cannot_find_count_as_if_it_ranked_them_as_the_engine_did() -> None:
    """In the first half of the window; in the second, those that only kNN found are before them."""
    bare = [DocKey("bare", name) for name in "abcd"]
    lexical = [bare[0], A, bare[1], B, bare[2], bare[3]]
    fused = keys(fuse(ROUTE, lexical, [B, C, A], 8, frozenset({"bare"})))
    assert (bare[0], B, A, bare[1], C, bare[2], bare[3]) == fused
    assert (B, A, bare[0]) == keys(fuse(ROUTE, lexical, [B, C, A], 8))[:3]


def test_a_group_that_knn_found_has_one_vote_of_it() -> None:
    """Its document may be in an index that kNN does not search."""
    one = DocKey("bare", "a")
    expected = fuse(ROUTE, [one, A], [A, one], 4)
    assert expected == fuse(ROUTE, [one, A], [A, one], 4, frozenset({"bare"}))


def test_the_routes_weights_are_used() -> None:
    route = build_route(RouteSettings(index="i", fusion=Fusion(lexical_weight=0.1, semantic_weight=1)))
    assert (C, A) == keys(fuse(route, [A], [C], 5))


def test_pinned_documents_are_first_in_the_engines_order() -> None:
    """Whatever the reranker's scores are; documents outside the ranking are not added."""
    ranking = (Scored(A, 0.9), Scored(B, 0.8), Scored(C, 0.7))
    hits = [hit(C, PINNED_SCORE + 2), hit(D, PINNED_SCORE + 1), hit(B, PINNED_SCORE), hit(A, PINNED_SCORE / 2)]
    assert (Scored(C, 0.9), Scored(B, 0.9), Scored(A, 0.9)) == pinned_first(ranking, hits)
    assert ranking == pinned_first(ranking, hits[3:])
    assert () == pinned_first((), hits)


def hit(key: DocKey, score: float) -> Hit:
    return Hit(key, score, {})


@given(strategies.scores, strategies.scores)
def test_scores_beyond_the_window_are_below_1_and_keep_the_order(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= tail_score(low) <= tail_score(high) <= 1


@given(strategies.rankings().filter(bool))
def test_scores_within_the_window_descend_from_2_to_1(ranking: Ranking) -> None:
    head = Head(ranking, None, 0, untouched=False, failures=())
    scores = [head.score(place) for place in range(len(ranking))]
    assert TOP_SCORE == scores[0]
    assert sorted(scores, reverse=True) == scores
    assert scores[-1] >= 1.0


def test_an_empty_ranking_has_no_keys() -> None:
    assert () == Head((), None, 0, untouched=False, failures=()).keys


# A small engine: an index at rest, in the order that the client's own query gives.


@dataclass(frozen=True)
class Index:
    """Documents that the client's query matches, best first, and those that only kNN finds."""

    matching: tuple[DocKey, ...]
    others: tuple[DocKey, ...]
    limit: bool | int = True

    def search(self, start: int, size: int, without: tuple[DocKey, ...] = ()) -> SearchAnswer:
        left = [key for key in self.matching if key not in without]
        hits = [self.hit(key) for key in left[start : start + size]]
        return strategies.answer_of(hits, self.total(len(left)), self.score(left[0]) if left else None)

    def total(self, matching: int) -> Total | None:
        """As the engine counts: to `track_total_hits` and no farther."""
        if self.limit is False:
            return None
        if self.limit is not True and matching > self.limit:
            return Total(self.limit, "gte")
        return Total(matching)

    def hit(self, key: DocKey) -> Hit:
        return strategies.hit(key, self.score(key))

    def score(self, key: DocKey) -> float:
        return 30.0 - self.matching.index(key) if key in self.matching else 0.0


@dataclass(frozen=True)
class Searched:
    """A search that was made once: its index, its window, and the head that came out."""

    index: Index
    window: int
    head: Head

    def page(self, start: int, size: int) -> Page:
        """Cut a page as the pipeline does: of the head, or of the engine's own order behind it."""
        if start < self.window:
            lexical = self.index.search(0, max(self.window, start + size))
            known = lexical.by_key
            rendered = {key: self.index.hit(key) for key in self.head.keys if key not in known}
            return head_page(self.head, lexical, rendered, Cut(start, size), self.head.total)
        excluded = () if self.head.untouched else self.head.keys
        answer = self.index.search(start - len(excluded), size, excluded)
        return tail_page(self.head, answer, most=self.index.limit)

    @property
    def whole(self) -> tuple[DocKey, ...]:
        return (*self.head.keys, *(key for key in self.index.matching if key not in self.head.keys))


@st.composite
def searches(draw: st.DrawFn) -> Searched:
    names = draw(st.permutations("abcdefghijkl"))
    matching = tuple(DocKey("i", name) for name in names[: draw(st.integers(0, 9))])
    others = tuple(DocKey("i", name) for name in names[9:])
    limit = draw(st.sampled_from([True, False, 3, 10_000]))
    window = draw(st.integers(1, 12))
    index = Index(matching, others, limit)
    if draw(st.booleans()):
        first = tuple(Scored(key, 1.0) for key in matching[:window])
        total = index.total(len(matching))
        return Searched(index, window, Head(first, total, 0, untouched=True, failures=FAILURES))
    semantic = draw(st.lists(st.sampled_from(names), unique=True).map(lambda chosen: [DocKey("i", n) for n in chosen]))
    semantic = [key for key in semantic if key in {*matching, *others}]
    fused = keys(fuse(ROUTE, matching[:window], semantic, window))
    scores = draw(st.dictionaries(st.sampled_from(fused), st.floats(-1, 1))) if fused else {}
    ranking = reorder(fused, scores)
    extras = sum(key not in matching for key in fused)
    own = index.total(len(matching))
    total = own.plus(extras, most=limit) if own else None
    return Searched(index, window, Head(ranking, total, extras, untouched=False, failures=()))


def score_of(shown: Shown) -> float:
    return shown.hit.score if shown.score is None else shown.score


@given(searches(), st.lists(st.integers(1, 9), min_size=1))
def test_pages_of_any_size_add_up_to_the_whole(searched: Searched, sizes: list[int]) -> None:
    seen: list[DocKey] = []
    start = 0
    while start < 20:
        size = sizes[start % len(sizes)]
        seen += [shown.hit.key for shown in searched.page(start, size).hits]
        start += size
    assert searched.whole == tuple(seen)


@given(searches(), st.integers(0, 16), st.integers(1, 16))
def test_every_page_is_a_slice_of_the_whole(searched: Searched, start: int, size: int) -> None:
    assert searched.whole[start : start + size] == tuple(shown.hit.key for shown in searched.page(start, size).hits)


@given(searches(), st.integers(1, 6))
def test_scores_descend_over_all_pages_and_are_never_negative(searched: Searched, size: int) -> None:
    pages = [searched.page(start, size) for start in range(0, 18, size)]
    scores = [score_of(shown) for page in pages for shown in page.hits]
    assert sorted(scores, reverse=True) == scores
    assert all(score >= 0 for score in scores)


@given(searches(), st.integers(0, 16), st.integers(1, 16))
def test_max_score_is_the_rankings_highest_on_every_page(searched: Searched, start: int, size: int) -> None:
    first = searched.page(0, 1)
    expected = first.max_score
    assert expected == searched.page(start, size).max_score
    assert (expected is None) is (not searched.whole)
    for shown in first.hits:
        assert expected == score_of(shown)


@given(searches(), st.integers(0, 16), st.integers(1, 16))
def test_the_total_counts_the_ranking_and_is_the_same_on_every_page(searched: Searched, start: int, size: int) -> None:
    own = searched.index.total(len(searched.index.matching))
    expected = own.plus(searched.head.extras, most=searched.index.limit) if own else None
    assert expected == searched.page(start, size).total


def test_deleted_documents_leave_no_gap() -> None:
    head = Head((Scored(A, 3.0), Scored(B, 2.0), Scored(C, 1.0)), Total(3), 0, untouched=False, failures=())
    lexical = Index((A, C, D), ()).search(0, 10)
    assert (A, C, D) == tuple(shown.hit.key for shown in head_page(head, lexical, {}, Cut(0, 10), None).hits)


@pytest.mark.parametrize("limit", [True, 10_000])
def test_a_page_without_any_hit_has_no_max_score(limit: bool | int) -> None:  # noqa: FBT001
    answer = Index((), (), limit).search(50, 10)
    page = tail_page(Head((), None, 0, untouched=False, failures=()), answer, most=limit)
    assert Page([], Total(0), None) == page


def test_without_a_cached_ranking_a_deep_page_is_the_engines_with_mapped_scores() -> None:
    answer = Index((A, B, C), ()).search(1, 1)
    expected = Page([Shown(answer.hits[0], 29 / 30, value=tail_value(29))], Total(3), TOP_SCORE)
    assert expected == tail_page(Head((), None, 0, untouched=False, failures=()), answer, most=True)


def test_the_total_of_a_deep_page_of_groups_is_that_of_the_first_page() -> None:
    """A group has more documents than the one that the head shows."""
    head = Head((Scored(A, 1.0), Scored(D, 0.5)), Total(9), 1, untouched=False, failures=(), groups={A: b"1", D: b"2"})
    assert Total(9) == tail_page(head, strategies.answer_of([], Total(1), None), most=True).total


@pytest.mark.parametrize(("most", "total"), [(True, Total(3)), (10, Total(3)), (2, Total(2, "gte")), (False, None)])
def test_the_total_of_a_deep_page_is_counted_by_its_own_response(most: bool | int, total: Total | None) -> None:  # noqa: FBT001
    """Matches that the caller may no longer see are not counted from the cached ranking."""
    head = Head((Scored(A, 1.0), Scored(D, 0.5)), Total(90), 1, untouched=False, failures=())
    answer = strategies.answer_of([], None if most is False else Total(1), None)
    assert total == tail_page(head, answer, most=most).total


@pytest.mark.parametrize(("keeps_places", "pages"), [(True, [["a"], ["c", "d"], []]), (False, [["a", "c"], ["d"], []])])
def test_unavailable_documents_keep_their_position_but_deleted_ones_do_not(
    keeps_places: bool,  # noqa: FBT001
    pages: list[list[str]],
) -> None:
    """Otherwise the next page would repeat or skip a document."""
    ranking = tuple(Scored(key, 1.0) for key in (A, B, C))
    head = Head(ranking, Total(4), 1, untouched=False, failures=())
    answer = Index((A, C, D), (B,)).search(0, 10)
    shown = [head_page(head, answer, {}, Cut(start, 2), head.total, keeps_places=keeps_places) for start in (0, 2, 4)]
    assert pages == [[one.hit.key.id for one in page.hits] for page in shown]
    assert {(Total(4), TOP_SCORE)} == {(page.total, page.max_score) for page in shown}


def walked(walk: Walk, *, untouched: bool = False, gone: tuple[DocKey, ...] = ()) -> tuple[DocKey, ...]:
    """Where a walk goes on in a ranking whose head is C, A, B, with D behind it."""
    head = Head((Scored(C, 3.0), Scored(A, 3.0), Scored(B, 1.0)), Total(4), 0, untouched=untouched, failures=())
    lexical = Index(tuple(key for key in (A, B, C, D) if key not in gone), ()).search(0, 10)
    return tuple(shown.hit.key for shown in head_page(head, lexical, {}, Cut(0, 2, walk), None).hits)


def test_search_after_continues_after_the_last_hit() -> None:
    first, second, third = head_value(2.0, 0), head_value(2.0, 1), head_value(1 + 1 / 3, 2)
    assert [(A, B), (B, D), (D,), (C, A)] == [walked(Walk(value)) for value in (first, second, third, 2.0)]


def test_a_deleted_hit_does_not_hide_later_ones() -> None:
    assert (B, D) == walked(Walk(head_value(2.0, 1)), gone=(C,))


def test_search_after_starts_over_in_an_engine_ordered_ranking() -> None:
    assert (A, B) == walked(Walk(1.5), untouched=True)
