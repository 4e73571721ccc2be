"""Sort values of reranked hits: they fit the order, are told from an engine's, and lead back to its own."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.parsing.sort_values import (
    BY_SCORE,
    HEAD_FROM,
    Sort,
    Walk,
    engine_score,
    engine_values,
    head_value,
    is_own,
    read_sort,
    tail_value,
    walk_of,
)

engine_scores = st.floats(2**-20, 1e8, width=32)
TIED = Sort((0,))


def printed(score: float) -> float:
    """A float as an engine prints one, with as few digits as tell it from its neighbours."""
    for digits in range(1, 10):
        short = float(f"{score:.{digits}g}")
        if struct.pack("<f", short) == struct.pack("<f", score):
            return short
    return score


@given(engine_scores)
def test_a_tail_value_can_be_converted_back_to_the_engines_score(score: float) -> None:
    back = engine_score(tail_value(printed(score)))
    assert (struct.pack("<f", score), False) == (struct.pack("<f", back), is_own(back))


@given(engine_scores)
def test_engine_scores_are_not_taken_for_the_proxys_values(score: float) -> None:
    assert (False, True) == (is_own(printed(score)), is_own(tail_value(score)))


@given(st.lists(engine_scores, min_size=2, max_size=20, unique=True).map(lambda found: sorted(found, reverse=True)))
def test_tail_values_descend_with_the_scores(scores: list[float]) -> None:
    assert all(one > other for one, other in pairwise(map(tail_value, scores)))


def test_hits_without_a_score_come_last() -> None:
    assert (True, 0.0) == (is_own(tail_value(0.0)), engine_score(tail_value(0.0)))
    assert tail_value(0.0) < tail_value(1e-6)


@given(st.lists(st.floats(1, 2), max_size=1000).map(lambda found: sorted(found, reverse=True)))
def test_head_values_descend_strictly_above_the_tail_values(scores: list[float]) -> None:
    values = [head_value(score, place) for place, score in enumerate(scores)]
    assert all(one > other for one, other in pairwise(values))
    assert all(is_own(value) and Walk(value).in_head for value in values)
    assert tail_value(1e8) < HEAD_FROM


@pytest.mark.parametrize(
    ("after", "found"),
    [
        ([tail_value(3.5), 1], Walk(tail_value(3.5))),
        ([3.5, 1], "engine"),
        ([], "engine"),
        ("x", "engine"),
        (None, "engine"),
    ],
)
def test_search_after_is_recognised_by_the_scores_sort_value(after: object, found: object) -> None:
    assert found == walk_of(after, TIED)


def test_mixed_sort_values_are_not_recognised() -> None:
    assert walk_of([tail_value(3.5), 3.5], Sort((0, 1))) is None
    assert "engine" == walk_of([tail_value(3.5)], BY_SCORE)


def test_values_of_other_sort_keys_are_unchanged() -> None:
    walk = Walk(tail_value(3.5))
    after = [1, walk.value, walk.value, "x", 2**60]
    assert [1, 3.5, 3.5, "x", 2**60] == engine_values(after, Sort((1, 2)), walk)


@pytest.mark.parametrize(("sort", "leading"), [(["_score", "a"], 0), (["a", "_score"], 1), (["a", "b", "_score"], 2)])
def test_sort_keys_before_the_score_group_the_hits(sort: list[str], leading: int) -> None:
    found = read_sort(sort)
    assert found is not None
    assert (leading, True) == (found.leading, found.is_shown)
