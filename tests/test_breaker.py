"""A model that fails too often is not called, one that is misconfigured neither, until one probe succeeds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.breaker import Admission, Breaker, BreakerRules, Opened, Reason, Verdict

RULES = BreakerRules()
WORKS, FAILS, SILENT, MISCONFIGURED = Verdict.WORKS, Verdict.FAILS, Verdict.SILENT, Verdict.MISCONFIGURED


def call(breaker: Breaker, verdict: Verdict, now: float, detail: str = "") -> None:
    admission = breaker.admit(now)
    assert isinstance(admission, Admission)
    breaker.conclude(admission, verdict, now, detail)


def opened_breaker(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(RULES.failures_min):
        call(breaker, FAILS, now, "status 503: gone")
    return breaker


def reason_of(breaker: Breaker, now: float) -> Reason | None:
    refusal = breaker.refusal(now)
    return refusal.reason if refusal else None


def test_it_opens_when_half_of_the_last_calls_failed() -> None:
    breaker = Breaker()
    for number in range(2 * RULES.failures_min - 1):
        assert breaker.opened is None
        call(breaker, FAILS if number % 2 == 0 else WORKS, now=number / 10)
    assert breaker.opened is not None
    assert Reason.BREAKER_OPEN is reason_of(breaker, 1.0)


def test_some_failures_among_many_calls_do_not_open_it() -> None:
    """One call in twenty may stall."""
    breaker = Breaker()
    for number in range(1000):
        call(breaker, FAILS if number % 20 == 19 else WORKS, now=number / 100)
    assert breaker.opened is None


def test_few_failures_do_not_open_it() -> None:
    breaker = Breaker()
    for _ in range(RULES.failures_min - 1):
        call(breaker, FAILS, 0.0)
    assert breaker.opened is None


def test_old_failures_are_forgotten() -> None:
    breaker = Breaker()
    for number in range(4 * RULES.failures_min):
        call(breaker, FAILS, now=number * RULES.window_seconds / 2)
    assert breaker.opened is None


def test_inconclusive_calls_change_nothing() -> None:
    breaker = Breaker()
    for _ in range(100):
        call(breaker, SILENT, 0.0)
    assert breaker.opened is None


def test_it_is_probed_by_one_call_at_a_time() -> None:
    breaker = opened_breaker()
    first = breaker.admit(RULES.pauses_seconds[0])
    assert Admission(1) == first
    assert isinstance(breaker.admit(RULES.pauses_seconds[0]), Opened)


def test_a_probe_that_succeeds_closes_it_and_forgets_the_failures() -> None:
    breaker = opened_breaker()
    call(breaker, WORKS, 5.0)
    assert breaker.opened is None
    call(breaker, FAILS, 5.1)
    assert breaker.opened is None


def test_after_an_inconclusive_probe_the_next_call_probes() -> None:
    breaker = opened_breaker()
    call(breaker, SILENT, 5.0)
    assert Admission(1) == breaker.admit(5.0)


def test_the_pause_grows_with_each_probe_that_fails_but_stays_below_the_time_to_recover() -> None:
    breaker, now, pauses = opened_breaker(), 0.0, []
    for _ in range(5):
        assert breaker.opened is not None
        pauses.append(breaker.opened.until - now)
        now = breaker.opened.until
        call(breaker, FAILS, now)
    assert [5.0, 10.0, 20.0, 20.0, 20.0] == pauses
    assert max(pauses) < 30


def test_a_call_begun_before_it_opened_does_not_count() -> None:
    breaker = Breaker()
    early = breaker.admit(0.0)
    assert isinstance(early, Admission)
    for _ in range(RULES.failures_min):
        call(breaker, FAILS, 0.0)
    before = breaker.opened
    breaker.conclude(early, WORKS, 1.0)
    breaker.conclude(early, MISCONFIGURED, 1.0)
    assert before == breaker.opened


def test_one_configuration_error_opens_it_until_a_probe_succeeds() -> None:
    breaker = Breaker()
    call(breaker, MISCONFIGURED, 0.0, "status 401: no such token")
    assert breaker.opened is not None
    assert (Reason.MISCONFIGURED, "status 401: no such token") == (breaker.opened.reason, breaker.opened.detail)
    call(breaker, MISCONFIGURED, RULES.misconfigured_pause_seconds)
    call(breaker, FAILS, 2 * RULES.misconfigured_pause_seconds)
    assert Reason.MISCONFIGURED is reason_of(breaker, 2 * RULES.misconfigured_pause_seconds)
    call(breaker, WORKS, 3 * RULES.misconfigured_pause_seconds)
    assert breaker.opened is None


def test_a_probe_may_find_that_a_failing_model_is_misconfigured() -> None:
    breaker = opened_breaker()
    call(breaker, MISCONFIGURED, 5.0)
    assert Reason.MISCONFIGURED is reason_of(breaker, 5.0)


@given(st.lists(st.tuples(st.sampled_from(Verdict), st.floats(0, 10)), max_size=200))
def test_a_call_is_always_admitted_within_the_longest_pause(steps: list[tuple[Verdict, float]]) -> None:
    breaker, now = Breaker(), 0.0
    for verdict, pause in steps:
        now += pause
        admission = breaker.admit(now)
        if isinstance(admission, Admission):
            breaker.conclude(admission, verdict, now)
    longest = max(*RULES.pauses_seconds, RULES.misconfigured_pause_seconds)
    assert isinstance(breaker.admit(now + longest), Admission)


@pytest.mark.parametrize("now", [0.0, 4.9])
def test_no_call_is_admitted_during_the_pause(now: float) -> None:
    assert isinstance(opened_breaker().admit(now), Opened)
