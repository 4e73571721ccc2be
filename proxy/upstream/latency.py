"""Tracks the recent latency of models: one that is slower than the time left is skipped, with occasional probes."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cachetools import LRUCache

from proxy.bounds import TIMED_CALLS, TIMED_MODELS
from proxy.errors import SlowModel

RECENT_S = 20.0
"""How long a call counts, in seconds; older ones say little about the current latency."""
CALLS_TO_JUDGE = 5
"""The minimum number of recent calls for a decision."""
ONE_IN = 10
"""One in so many searches calls a slow model anyway, to detect its recovery."""
PROBE_S = 2.0
"""Seconds after the last call, the next search calls a slow model anyway."""


@dataclass(frozen=True, slots=True)
class TimedCall:
    """The latency of a call, or the time after which it was abandoned."""

    at: float
    seconds: float
    is_answered: bool

    def exceeds(self, limit_seconds: float) -> bool | None:
        """Whether the call took longer than this; None if it was abandoned too early to tell.

        An abandoned call counts as twice its time, since its actual latency is unknown.
        """
        if self.is_answered:
            return self.seconds > limit_seconds
        return True if 2 * self.seconds >= limit_seconds else None


@dataclass(slots=True)
class _Model:
    calls: deque[TimedCall] = field(default_factory=lambda: deque(maxlen=TIMED_CALLS))
    asked_at: float = 0.0
    skipped: int = 0
    """The number of searches since the last call."""


class Latencies:
    """The recent calls of each model."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self.timer = timer
        self._models: LRUCache[str, _Model] = LRUCache(TIMED_MODELS)

    def note(self, model: str, seconds: float, *, is_answered: bool) -> None:
        """Record the latency of a call, or the time after which it was abandoned."""
        self._of(model).calls.append(TimedCall(self.timer(), seconds, is_answered))

    def allows(self, model: str, limit_seconds: float) -> bool:
        """Whether to call a model: it usually responds within this time, or a probe is due.

        A model is too slow if more than half of its recent calls took longer.
        """
        known, now = self._of(model), self.timer()
        exceeding = list(_exceeding(known.calls, now - RECENT_S, limit_seconds))
        is_slow = len(exceeding) >= CALLS_TO_JUDGE and 2 * sum(exceeding) > len(exceeding)
        known.skipped += 1
        if is_slow and known.skipped < ONE_IN and now - known.asked_at < PROBE_S:
            return False
        known.skipped, known.asked_at = 0, now
        return True

    def _of(self, model: str) -> _Model:
        if model not in self._models:
            self._models[model] = _Model(asked_at=self.timer())
        return self._models[model]


def slow(service: str, model: str, limit_seconds: float) -> SlowModel:
    """Return the error for a model that is skipped."""
    return SlowModel(service, f"{model} has lately taken longer than the {limit_seconds * 1000:.0f} ms that are left")


def _exceeding(calls: deque[TimedCall], since: float, limit_seconds: float) -> Iterator[bool]:
    for call in calls:
        if call.at > since and (exceeds := call.exceeds(limit_seconds)) is not None:
            yield exceeds
