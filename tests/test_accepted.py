"""Whose searches may cost money: those of callers whom the engine has accepted lately."""

import pytest

from proxy.bounds import ACCEPTED_CALLERS, ACCEPTED_INDICES
from proxy.upstream.accepted import ANONYMOUS, LATELY_S, Accepted, AcceptedSearch


class Timer:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def accepted(timer: Timer) -> Accepted:
    return Accepted(timer)


def test_an_accepted_search_is_remembered_for_its_caller_and_indices(accepted: Accepted, timer: Timer) -> None:
    accepted.note(b"me", b"products")
    known = [accepted.lately(*pair) for pair in ((b"me", b"products"), (b"you", b"products"), (b"me", b"logs"))]
    assert [True, False, False] == known
    timer.now += LATELY_S - 1
    assert accepted.lately(b"me", b"products")
    timer.now += 1
    assert not accepted.lately(b"me", b"products")


def test_a_search_accepted_without_credentials_counts_for_every_caller(accepted: Accepted) -> None:
    accepted.note(ANONYMOUS, b"products")
    assert (True, False) == (accepted.lately(b"you", b"products"), accepted.lately(b"you", b"logs"))


def test_only_the_rejected_caller_is_forgotten(accepted: Accepted) -> None:
    for caller in (b"me", b"you"):
        accepted.note(caller, b"products")
    accepted.forget(b"me")
    accepted.forget(b"nobody")
    assert (False, True) == (accepted.lately(b"me", b"products"), accepted.lately(b"you", b"products"))


def test_callers_and_their_indices_are_bounded(accepted: Accepted) -> None:
    accepted.note(b"first", b"products")
    for number in range(ACCEPTED_INDICES):
        accepted.note(b"me", b"%d" % number)
    accepted.note(b"me", b"one more")
    assert not accepted.lately(b"me", b"0")
    for number in range(ACCEPTED_CALLERS):
        accepted.note(b"%d" % number, b"products")
    assert not accepted.lately(b"first", b"products")


def test_the_order_of_index_names_does_not_matter(accepted: Accepted) -> None:
    AcceptedSearch.of(accepted, b"me", ["b", "a"]).note()
    assert AcceptedSearch.of(accepted, b"me", frozenset({"a", "b"})).lately()
    assert not AcceptedSearch.of(accepted, b"me", ["a", "b", "c"]).lately()
