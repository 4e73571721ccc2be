"""What the log of a shadow run says of two orders."""

from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ranking.rank_changes import RankChange, rank_change

ORDERS = st.lists(st.integers(0, 30), unique=True, max_size=25)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("abc", "abc", RankChange(1.0, 0, 0, 1.0)),
        ("abc", "cba", RankChange(1.0, 2, 0, -1.0)),
        ("abc", "dbca", RankChange(0.75, 1, 1, -1 / 3)),
        ("abc", "xyz", RankChange(0.0, 0, 3, None)),
        ("", "", RankChange(1.0, 0, 0, None)),
        ("a", "", RankChange(0.0, 0, 0, None)),
        ("abcdefghijk", "kabcdefghij", RankChange(0.9, 9, 1, 35 / 55)),
        ("abcdefghijkl", "abcdefghijlk", RankChange(1.0, 0, 0, 64 / 66)),
    ],
)
def test_two_orders_are_compared_in_the_top_ten_and_as_a_whole(before: str, after: str, expected: RankChange) -> None:
    assert expected == rank_change(before, after)


@given(ORDERS)
def test_an_order_does_not_differ_from_itself(order: list[int]) -> None:
    assert RankChange(1.0, 0, 0, 1.0 if len(order) > 1 else None) == rank_change(order, order)


@given(ORDERS.filter(lambda order: len(order) > 1))
def test_the_reverse_of_an_order_differs_the_most(order: list[int]) -> None:
    assert -1.0 == rank_change(order, order[::-1]).kendall_tau


@given(ORDERS, ORDERS)
def test_every_number_is_in_its_range(before: list[int], after: list[int]) -> None:
    change = rank_change(before, after)
    in_both = len(set(before[:10]) & set(after[:10]))
    assert 0.0 <= change.overlap <= 1.0
    assert change.kendall_tau is None or -1.0 <= change.kendall_tau <= 1.0
    assert in_both == len(after[:10]) - change.entered
    assert change.moved <= in_both


@given(ORDERS, ORDERS)
def test_agreement_is_symmetric(before: list[int], after: list[int]) -> None:
    there, back = rank_change(before, after), rank_change(after, before)
    assert (there.overlap, there.moved, there.kendall_tau) == (back.overlap, back.moved, back.kendall_tau)


@given(ORDERS, ORDERS)
def test_tau_follows_its_definition(before: list[int], after: list[int]) -> None:
    expected = tau_by_definition(before, after)
    assert (None if expected is None else pytest.approx(expected)) == rank_change(before, after).kendall_tau


def tau_by_definition(before: Sequence[int], after: Sequence[int]) -> float | None:
    """Concordant pairs less discordant ones, by all pairs."""
    pairs = list(combinations([each for each in before if each in after], 2))
    agree = sum(after.index(one) < after.index(other) for one, other in pairs)
    return (2 * agree - len(pairs)) / len(pairs) if pairs else None
