"""What may be billed is not sent twice, and retries stay a small share of the calls."""

from collections.abc import Sequence

import pytest

from proxy.bounds import RETRY_AFTER_S_MAX
from proxy.errors import (
    Busy,
    EqualScores,
    Lost,
    Malformed,
    Refused,
    TimedOut,
    TooLarge,
    Unreachable,
    UpstreamError,
    Withheld,
)
from proxy.upstream.breaker import Verdict
from proxy.upstream.retries import RetryBudget, may_retry, reason_of, retry_delay, verdict_of


def refused(status: int, *fields: tuple[bytes, bytes]) -> Refused:
    return Refused("reranker", status, b"", fields, reason=reason_of(status))


CASES: Sequence[tuple[UpstreamError, str, Verdict, bool]] = [
    (refused(302), "refused", Verdict.FAILS, False),
    (refused(400), "refused", Verdict.SILENT, False),
    (refused(401), "misconfigured", Verdict.MISCONFIGURED, False),
    (refused(402), "misconfigured", Verdict.MISCONFIGURED, False),
    (refused(403), "misconfigured", Verdict.MISCONFIGURED, False),
    (refused(404), "misconfigured", Verdict.MISCONFIGURED, False),
    (refused(413), "refused", Verdict.SILENT, False),
    (refused(422), "refused", Verdict.SILENT, False),
    (refused(429), "rate_limited", Verdict.FAILS, True),
    (refused(500), "server_error", Verdict.FAILS, True),
    (refused(503), "server_error", Verdict.FAILS, True),
    (Unreachable("reranker"), "unreachable", Verdict.FAILS, True),
    (Lost("reranker"), "unreachable", Verdict.FAILS, False),
    (TimedOut("reranker"), "timeout", Verdict.FAILS, False),
    (Malformed("reranker"), "malformed", Verdict.FAILS, False),
    (TooLarge("reranker"), "malformed", Verdict.FAILS, False),
    (EqualScores("reranker"), "equal_scores", Verdict.FAILS, False),
    (Busy("reranker"), "busy", Verdict.SILENT, False),
    (Withheld("reranker", "breaker_open", ""), "breaker_open", Verdict.SILENT, False),
]


@pytest.mark.parametrize(("error", "reason", "verdict", "again"), CASES, ids=[f"{error!r}" for error, *_ in CASES])
def test_errors_are_classified_for_retries(*, error: UpstreamError, reason: str, verdict: Verdict, again: bool) -> None:
    assert (reason, verdict, again) == (error.reason, verdict_of(error), may_retry(error))


def test_the_budget_allows_one_retry_and_then_one_for_five_calls() -> None:
    budget, retried = RetryBudget(), 0
    for _ in range(500):
        budget.note_call()
        retried += budget.spend()
    assert 101 == retried


def test_unused_retries_accumulate_to_a_limit() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.note_call()
    assert 10 == sum(budget.spend() for _ in range(100))


def test_the_delay_has_jitter() -> None:
    assert 0 < retry_delay(refused(503), 0.0) < retry_delay(refused(503), 1.0) < 0.1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"2", 2),
        (b" 2 ", 2),
        (b"0", 0),
        (b"999", RETRY_AFTER_S_MAX),
        (b"9" * 5000, 0),
        (b"-1", 0),
        (b"nan", 0),
        (b"Sun, 29 Nov 2026 10:00:00 GMT", 0),
        (b"", 0),
    ],
)
def test_retry_after_is_honoured(value: bytes, seconds: float) -> None:
    without = retry_delay(refused(429), 0.5)
    assert without + seconds == retry_delay(refused(429, (b"retry-AFTER", value)), 0.5)
