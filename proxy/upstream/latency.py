"""Estimates the latency of a model: one that is slower than the time left is skipped, with occasional probes.

A state machine without a clock: the methods take the current time, in seconds.
"""

from collections import deque
from dataclasses import dataclass

from proxy.bounds import TIMED_CALLS

RECENT_S = 20.0
"""How long a call counts, in seconds; older ones say little about the current latency."""
CALLS_TO_JUDGE = 5
"""The minimum number of recent calls for a decision."""
ONE_IN = 10
"""One of this many searches calls a slow model anyway, to detect its recovery."""
PROBE_S = 2.0
"""Seconds after the last call, the next search calls a slow model anyway."""
_WEIGHT = 0.1
"""The weight of a call in the moving average."""
_NOTICEABLE_S = 0.05


@dataclass(frozen=True, slots=True)
class TimedCall:
    """The latency of a call, or the time after which it was abandoned."""

    at: float
    seconds: float
    is_answered: bool


class Latency:
    """The latency of one model, from its calls; the time that a call waits in the proxy does not count."""

    def __init__(self, now: float = 0.0) -> None:
        self.usual: float | None = None
        """A moving average of successful calls, in seconds; None before the first."""
        self._calls: deque[TimedCall] = deque(maxlen=TIMED_CALLS)
        self._called_at = now
        self._skipped = 0

    def answered(self, seconds: float, now: float) -> None:
        """Record the latency of a successful call."""
        self._calls.append(TimedCall(now, seconds, is_answered=True))
        before = seconds if self.usual is None else self.usual
        self.usual = before + _WEIGHT * (seconds - before)

    def abandoned(self, seconds: float, now: float) -> None:
        """Record the time after which a search gave up waiting."""
        self._calls.append(TimedCall(now, seconds, is_answered=False))

    def is_exceeded_by(self, seconds: float) -> bool:
        """Whether a call took so much longer than usual that it was probably queued at the provider."""
        return self.usual is not None and seconds > 2 * self.usual + _NOTICEABLE_S

    def exceeds(self, limit_seconds: float, now: float) -> bool:
        """Whether more than half of the recent calls took longer than this.

        The actual latency of an abandoned call is unknown: twice its time is assumed, and below the limit it does not
        count.
        """
        since = now - RECENT_S
        telling = [
            call for call in self._calls if call.at > since and (call.is_answered or 2 * call.seconds >= limit_seconds)
        ]
        exceeding = [call for call in telling if not call.is_answered or call.seconds > limit_seconds]
        return len(telling) >= CALLS_TO_JUDGE and 2 * len(exceeding) > len(telling)

    def admit(self, limit_seconds: float, now: float) -> bool:
        """Whether a search with this much time left may call the model: it is usually in time, or a probe is due.

        Counts the search: one in `ONE_IN` that were not admitted is the probe.
        """
        self._skipped += 1
        is_probe_due = self._skipped >= ONE_IN or now - self._called_at >= PROBE_S
        if not is_probe_due and self.exceeds(limit_seconds, now):
            return False
        self._skipped, self._called_at = 0, now
        return True
