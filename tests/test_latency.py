"""A model that is lately too slow is not asked, and is asked again soon after it has recovered."""

from dataclasses import dataclass, field

import pytest

from proxy.upstream.latency import CALLS_TO_JUDGE, ONE_IN, PROBE_S, RECENT_S, Latency

LIMIT = 1.48


@dataclass
class Traffic:
    """Searches at an even rate, and a model that takes so long."""

    rate: float
    now: float = 1000.0
    limit: float = LIMIT
    latency: Latency = field(default_factory=lambda: Latency(1000.0))

    def run(self, seconds: float, model_seconds: float) -> list[bool]:
        """Return of each search whether it asked the model."""
        end = self.now + seconds
        asked = []
        while self.now < end:
            asked.append(self.latency.admit(self.limit, self.now))
            if asked[-1] and model_seconds <= self.limit:
                self.latency.answered(model_seconds, self.now)
            elif asked[-1]:
                self.latency.abandoned(self.limit, self.now)
            self.now += 1 / self.rate
        return asked


RATES = [0.05, 0.3, 1, 10, 300]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("bad", [1.6, 1000.0])
def test_after_an_outage_every_search_calls_again_within_30_seconds(rate: float, bad: float) -> None:
    traffic = Traffic(rate)
    assert all(traffic.run(60, 0.2))
    traffic.run(30, bad)
    traffic.run(30, 0.2)
    assert all(traffic.run(60, 0.2))


@pytest.mark.parametrize(("rate", "at_most"), [(1, 0.6), (10, 0.2), (300, 0.12)])
def test_few_searches_call_a_slow_model(rate: float, at_most: float) -> None:
    traffic = Traffic(rate)
    traffic.run(60, 0.2)
    traffic.run(30, 1000.0)  # where the calls before it no longer count
    asked = traffic.run(30, 1000.0)
    assert 0 < sum(asked) / len(asked) <= at_most


def test_a_fast_model_is_always_called() -> None:
    assert all(Traffic(10).run(120, 1.4))


def slow(calls: int = CALLS_TO_JUDGE) -> Latency:
    latency = Latency()
    for _ in range(calls):
        latency.abandoned(LIMIT, 0.0)
    return latency


def asked(latency: Latency, limit: float = LIMIT, now: float = 0.0, times: int = 100) -> list[bool]:
    return [latency.admit(limit, now) for _ in range(times)]


@pytest.mark.parametrize("late", range(CALLS_TO_JUDGE))
def test_a_few_slow_calls_are_not_enough_to_skip_a_model(late: int) -> None:
    assert all(asked(slow(late)))


def test_a_slow_model_is_probed_by_one_search_in_many() -> None:
    expected = [False] * (ONE_IN - 1) + [True] + [False] * (ONE_IN - 1)
    assert expected == asked(slow(), times=2 * ONE_IN - 1)


def test_with_few_searches_a_slow_model_is_probed_after_a_while() -> None:
    assert [True, False] == asked(slow(), now=PROBE_S, times=2)


def test_only_recent_calls_count() -> None:
    assert all(asked(slow(), now=RECENT_S))


def test_a_timeout_with_little_time_does_not_skip_searches_with_more() -> None:
    """A client's small budget does not show what is possible in the time of other searches."""
    latency = Latency()
    for _ in range(100):
        latency.abandoned(0.05, 0.0)
    assert all(asked(latency))
    assert not all(asked(latency, 0.05))


def test_a_search_with_less_time_than_calls_take_skips_the_model() -> None:
    latency = Latency()
    for _ in range(10):
        latency.answered(0.3, 0.0)
    assert ([True], [False]) == (asked(latency, 0.3, times=1), asked(latency, 0.29, times=1))


def test_a_call_over_twice_the_usual_time_is_slow() -> None:
    latency = Latency()
    assert not latency.is_exceeded_by(100.0)
    latency.answered(0.3, 0.0)
    assert (False, True) == (latency.is_exceeded_by(0.6), latency.is_exceeded_by(0.7))
    for _ in range(100):
        latency.answered(0.7, 0.0)
    assert not latency.is_exceeded_by(0.7)  # it has become usual


def test_an_abandoned_call_does_not_change_the_usual_latency() -> None:
    """Otherwise a stalling model would get more and more time before its timeouts count as failures."""
    latency = slow()
    assert latency.usual is None
    latency.answered(0.3, 0.0)
    latency.abandoned(LIMIT, 0.0)
    assert 0.3 == latency.usual
