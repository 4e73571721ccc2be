"""Classifies the errors of model calls: the reason to report, the breaker's verdict, and whether to retry."""

from collections.abc import Mapping

from proxy.bounds import RETRY_AFTER_S_MAX
from proxy.errors import Lost, Malformed, Refused, TimedOut, Unreachable, UpstreamError
from proxy.upstream.breaker import Verdict

REASONS: Mapping[int, str] = {
    401: "misconfigured",
    402: "misconfigured",
    403: "misconfigured",
    404: "misconfigured",
    429: "rate_limited",
}
"""The degrade reason by status of the response."""
_REQUEST_IS_WRONG = frozenset({400, 413, 422})


def reason_of(status: int) -> str:
    """Return the degrade reason for a status."""
    return "server_error" if status >= 500 else REASONS.get(status, "refused")


def verdict_of(error: UpstreamError) -> Verdict:
    """Return the breaker's verdict on a call that failed although it had enough time."""
    match error:
        case Refused(status=status) if status in _REQUEST_IS_WRONG:
            return Verdict.SILENT
        case Refused(reason="misconfigured"):
            return Verdict.MISCONFIGURED
        case Refused() | Unreachable() | TimedOut() | Malformed():
            return Verdict.FAILS
        case _:
            return Verdict.SILENT


def may_retry(error: UpstreamError) -> bool:
    """Whether a call may be retried: not if it may have been executed, and billed, although its response was lost."""
    match error:
        case Refused(status=status):
            return status == 429 or status >= 500
        case Lost():
            return False
        case _:
            return isinstance(error, Unreachable)


def retry_delay(error: UpstreamError, draw: float) -> float:
    """Return the delay before a retry in seconds: jitter by `draw`, from 0 to 1, after any Retry-After."""
    jitter = _DELAY_S * (0.5 + draw)
    return jitter + (retry_after(error) if isinstance(error, Refused) else 0.0)


_DELAY_S = 0.05


def retry_after(error: Refused) -> float:
    """Read Retry-After in seconds (RFC 9110, section 10.2.3); a date counts as 0."""
    value = next((value for name, value in error.fields if name.lower() == b"retry-after"), b"").strip()
    return float(min(int(value), RETRY_AFTER_S_MAX)) if value.isdigit() and len(value) < _DIGITS else 0.0


_DIGITS = 10


class RetryBudget:
    """Permits one retry per `calls_per_retry` calls, so that retries never double the load of a failing provider."""

    def __init__(self, calls_per_retry: int = 5, saved_max: int = 10) -> None:
        self._price = calls_per_retry
        self._credit_max = calls_per_retry * saved_max
        self._credit = calls_per_retry

    def note_call(self) -> None:
        self._credit = min(self._credit + 1, self._credit_max)

    def spend(self) -> bool:
        """Take one retry from the budget; returns False if it is exhausted."""
        if self._credit < self._price:
            return False
        self._credit -= self._price
        return True
