"""Merging rankings: nothing lost, nothing twice, and better places never hurt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ranking.fusion import Weighted, blend, by_score, completed, reciprocal_rank_fusion, reorder
from proxy.ranking.hits import DocKey, Scored, keys
from tests import strategies

A, B, C = (DocKey("i", name) for name in "abc")

weighted = st.builds(Weighted, strategies.orders, strategies.weights)
rank_constants = st.integers(1, 100)


def test_a_score_is_the_sum_of_weight_over_constant_plus_rank() -> None:
    fused = reciprocal_rank_fusion([Weighted([A, B]), Weighted([B], 0.5)], rank_constant=10)
    assert (Scored(B, 1 / 12 + 0.5 / 11), Scored(A, 1 / 11)) == fused


@pytest.mark.parametrize(("first", "second"), [([A, B], [B, A]), ([A], [B])])
def test_ties_go_to_the_document_of_the_earlier_ranking(first: list[DocKey], second: list[DocKey]) -> None:
    assert (A, B) == keys(reciprocal_rank_fusion([Weighted(first), Weighted(second)]))
    assert (B, A) == keys(reciprocal_rank_fusion([Weighted(second), Weighted(first)]))


@given(st.lists(weighted, max_size=4), rank_constants)
def test_every_document_is_kept_once(merged: list[Weighted], rank_constant: int) -> None:
    fused = keys(reciprocal_rank_fusion(merged, rank_constant))
    assert len(set(fused)) == len(fused)
    assert {key for ranking in merged for key in ranking.keys} == set(fused)


@given(weighted)
def test_a_single_ranking_keeps_its_order(ranking: Weighted) -> None:
    assert tuple(ranking.keys) == keys(reciprocal_rank_fusion([ranking]))


@given(st.lists(weighted, max_size=3), strategies.weights, st.integers(0, 3))
def test_an_empty_ranking_changes_nothing(merged: list[Weighted], weight: float, place: int) -> None:
    with_empty = [*merged[:place], Weighted((), weight), *merged[place:]]
    assert reciprocal_rank_fusion(merged) == reciprocal_rank_fusion(with_empty)


@given(strategies.orders.filter(lambda order: len(order) > 1), st.lists(weighted, max_size=3), st.data())
def test_moving_a_document_up_never_lowers_it(
    order: tuple[DocKey, ...], others: list[Weighted], data: st.DataObject
) -> None:
    old = data.draw(st.integers(1, len(order) - 1))
    new = data.draw(st.integers(0, old - 1))
    moved = order[old]
    raised = [*order[:new], moved, *order[new:old], *order[old + 1 :]]
    before = keys(reciprocal_rank_fusion([Weighted(order), *others])).index(moved)
    after = keys(reciprocal_rank_fusion([Weighted(raised), *others])).index(moved)
    assert after <= before


@given(st.dictionaries(strategies.doc_keys, strategies.scores))
def test_by_score_orders_descending(scores: dict[DocKey, float]) -> None:
    ranking = [scored.score for scored in by_score(scores)]
    assert sorted(scores.values(), reverse=True) == ranking


def test_equal_scores_keep_the_candidates_order() -> None:
    assert (Scored(C, 1.0), Scored(A, 0.5), Scored(B, 0.5)) == reorder([A, B, C], {B: 0.5, A: 0.5, C: 1.0})


def test_candidates_without_a_score_follow_in_their_order() -> None:
    assert (Scored(B, -3.0), Scored(A, 0.0), Scored(C, 0.0)) == reorder([A, B, C], {B: -3.0})


def test_candidates_without_text_keep_their_rank() -> None:
    ranking = (Scored(C, 0.9), Scored(B, 0.4))
    assert (Scored(A, 0.9), *ranking) == completed(ranking, [A, B, C])
    assert (Scored(C, 0.9), Scored(A, 0.9), Scored(B, 0.4)) == completed(ranking, [B, A, C])
    assert () == completed((), [A, B])


@given(strategies.orders, st.data())
def test_a_completed_ranking_has_each_document_once(order: tuple[DocKey, ...], data: st.DataObject) -> None:
    read = data.draw(st.permutations([key for key in order if data.draw(st.booleans())]))
    found = keys(completed(by_score({key: -float(place) for place, key in enumerate(read)}), order))
    if not read:
        assert found == ()
        return
    assert sorted(order) == sorted(found)
    assert read == [key for key in found if key in read]
    assert {key: order.index(key) for key in order if key not in read} == {
        key: found.index(key) for key in found if key not in read
    }


@given(strategies.orders, st.data(), strategies.weights)
def test_candidates_after_the_scored_prefix_keep_their_order(
    order: tuple[DocKey, ...], data: st.DataObject, weight: float
) -> None:
    """Whatever the weight of the fused order: an unscored candidate overtakes none."""
    scored = data.draw(st.integers(0, len(order)))
    scores = {key: data.draw(strategies.scores) for key in order[:scored]}
    blended = keys(blend(reorder(order, scores), order, weight))
    assert (sorted(order[:scored]), order[scored:]) == (sorted(blended[:scored]), blended[scored:])


@given(strategies.orders, st.dictionaries(strategies.doc_keys, strategies.scores))
def test_reorder_is_a_permutation(order: tuple[DocKey, ...], scores: dict[DocKey, float]) -> None:
    assert sorted(order) == sorted(keys(reorder(order, scores)))


@given(strategies.orders, st.dictionaries(strategies.doc_keys, strategies.scores), strategies.weights)
def test_blend_is_a_permutation(order: tuple[DocKey, ...], scores: dict[DocKey, float], weight: float) -> None:
    assert sorted(order) == sorted(keys(blend(reorder(order, scores), order, weight)))


def test_a_blend_with_weight_0_is_the_rerankers_order() -> None:
    reranked = reorder([A, B], {B: 0.9, A: 0.1})
    assert reranked == blend(reranked, [A, B], 0.0)


def test_a_blend_with_a_large_weight_is_the_first_stages_order() -> None:
    assert (A, B, C) == keys(blend(reorder([A, B, C], {C: 0.9, B: 0.5, A: 0.1}), [A, B, C], 100.0))
