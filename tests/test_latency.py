"""A model that is lately too slow is not asked, and is asked again soon after it has recovered."""

import itertools
from dataclasses import dataclass, field

import pytest

from proxy.bounds import TIMED_MODELS
from proxy.upstream.latency import CALLS_TO_JUDGE, ONE_IN, PROBE_S, RECENT_S, Latencies

MODEL = "m"
LIMIT = 1.48


@dataclass
class FakeClock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Traffic:
    """Searches at an even rate, and a model that takes so long."""

    rate: float
    clock: FakeClock = field(default_factory=FakeClock)
    limit: float = LIMIT

    def __post_init__(self) -> None:
        self.latencies = Latencies(self.clock)

    def run(self, seconds: float, model_seconds: float) -> list[bool]:
        """Return of each search whether it asked the model."""
        end = self.clock.now + seconds
        asked = []
        while self.clock.now < end:
            asked.append(self.latencies.allows(MODEL, self.limit))
            if asked[-1]:
                is_answered = model_seconds <= self.limit
                self.latencies.note(MODEL, min(model_seconds, self.limit), is_answered=is_answered)
            self.clock.now += 1 / self.rate
        return asked


RATES = [0.05, 0.3, 1, 10, 300]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("bad", [1.6, 1000.0])
def test_after_a_bad_half_minute_every_search_asks_again_within_30_seconds(rate: float, bad: float) -> None:
    traffic = Traffic(rate)
    assert all(traffic.run(60, 0.2))
    traffic.run(30, bad)
    traffic.run(30, 0.2)
    assert all(traffic.run(60, 0.2))


@pytest.mark.parametrize(("rate", "at_most"), [(1, 0.6), (10, 0.2), (300, 0.12)])
def test_a_slow_model_is_asked_by_few_searches(rate: float, at_most: float) -> None:
    traffic = Traffic(rate)
    traffic.run(60, 0.2)
    traffic.run(30, 1000.0)  # where the calls before it no longer count
    asked = traffic.run(30, 1000.0)
    assert 0 < sum(asked) / len(asked) <= at_most


def test_a_model_that_is_fast_enough_is_always_asked() -> None:
    assert all(Traffic(10).run(120, 1.4))


@pytest.mark.parametrize("late", range(CALLS_TO_JUDGE))
def test_a_few_slow_calls_say_too_little(late: int) -> None:
    latencies = Latencies(FakeClock())
    for _ in range(late):
        latencies.note(MODEL, LIMIT, is_answered=False)
    assert all(latencies.allows(MODEL, LIMIT) for _ in range(100))


def slow(clock: FakeClock) -> Latencies:
    latencies = Latencies(clock)
    for _ in range(CALLS_TO_JUDGE):
        latencies.note(MODEL, LIMIT, is_answered=False)
    return latencies


def test_one_search_in_so_many_asks_a_slow_model() -> None:
    latencies = slow(FakeClock())
    assert [False] * (ONE_IN - 1) + [True] + [False] * (ONE_IN - 1) == [
        latencies.allows(MODEL, LIMIT) for _ in range(2 * ONE_IN - 1)
    ]


def test_where_searches_are_few_the_next_one_after_a_while_asks() -> None:
    clock = FakeClock()
    latencies = slow(clock)
    clock.now += PROBE_S
    assert (True, False) == (latencies.allows(MODEL, LIMIT), latencies.allows(MODEL, LIMIT))


def test_calls_count_no_longer_than_recently() -> None:
    clock = FakeClock()
    latencies = slow(clock)
    clock.now += RECENT_S
    assert all(latencies.allows(MODEL, LIMIT) for _ in range(100))


def test_more_time_than_a_call_was_given_may_be_enough() -> None:
    """A client with a small budget of its own says nothing of what the others have time for."""
    latencies = Latencies(FakeClock())
    for _ in range(100):
        latencies.note(MODEL, 0.05, is_answered=False)
    assert all(latencies.allows(MODEL, LIMIT) for _ in range(100))
    assert not all(latencies.allows(MODEL, 0.05) for _ in range(100))


def test_less_time_than_calls_took_is_not_enough() -> None:
    latencies = Latencies(FakeClock())
    for seconds in itertools.repeat(0.3, 10):
        latencies.note(MODEL, seconds, is_answered=True)
    assert (True, False) == (latencies.allows(MODEL, 0.3), latencies.allows(MODEL, 0.29))


def test_each_model_has_latencies_of_its_own_and_the_oldest_are_forgotten() -> None:
    latencies = slow(FakeClock())
    assert all(latencies.allows("other", LIMIT) for _ in range(100))
    for number in range(TIMED_MODELS):
        latencies.note(f"m{number}", LIMIT, is_answered=True)
    assert all(latencies.allows(MODEL, LIMIT) for _ in range(100))
