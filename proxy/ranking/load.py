"""Adapts a new search to the load of its route and of the rerankers, before any search loses reranking.

It gets fewer candidates, and with `tier: auto` a faster reranker above a rate of searches. Nothing here has a clock:
the methods take the current time, in seconds.
"""

from collections import deque
from collections.abc import Sequence
from typing import Protocol


class LiveModels(Protocol):
    """The load and latency of the rerankers, from their calls so far."""

    def pressure(self, model: str) -> float:
        """Return a model's calls in flight and waiting, divided by the limit of concurrent calls."""
        ...

    def usual_seconds(self, model: str) -> float | None:
        """Return how long a model usually takes; None before its first call."""
        ...


class UncalledModels:
    """The rerankers as commands see them that call none."""

    def pressure(self, model: str) -> float:  # noqa: ARG002
        return 0.0

    def usual_seconds(self, model: str) -> float | None:  # noqa: ARG002
        return None


_STEPS: Sequence[tuple[float, int]] = ((1.0, 20), (0.85, 50), (0.7, 100))
"""The maximum window from each load upwards; if even 20 candidates wait too long, the bulkhead rejects the call."""


def narrowed(window: int, pressure: float) -> int:
    """Return the window of a new search under this load; later pages keep the window of their first page."""
    return min(window, next((most for least, most in _STEPS if pressure >= least), window))


_FAIR_SHARE = 0.5
_USUAL_FACTOR = 1.5


def reserved_seconds(budget_seconds: float, usual_seconds: float | None) -> float:
    """Return the part of a budget that embedding and kNN leave to the reranker: half, or what it usually takes."""
    half = _FAIR_SHARE * budget_seconds
    return half if usual_seconds is None else min(half, _USUAL_FACTOR * usual_seconds)


RATE_S = 5
"""The rate is the mean over this many seconds."""
_CALM = 0.8
"""The larger model is used again below this share of the rate..."""
CALM_S = 30.0
"""... if the rate has been below it for this many seconds."""


class AutoTier:
    """Which reranker a route with `tier: auto` calls first."""

    def __init__(self, fast_above_rate: float) -> None:
        self._limit = fast_above_rate
        self._seconds: deque[list[int]] = deque()
        """Recent seconds, each with its number of searches."""
        self._busy_at: float | None = None
        """When the rate was last too high for the larger model; None while that is in use."""

    @property
    def is_fast(self) -> bool:
        return self._busy_at is not None

    def note(self, now: float) -> bool:
        """Count a search; returns whether the tier has changed."""
        before, rate = self.is_fast, self._rate(int(now))
        if rate > self._limit or (before and rate > _CALM * self._limit):
            self._busy_at = now
        elif self._busy_at is not None and now - self._busy_at >= CALM_S:
            self._busy_at = None
        return self.is_fast != before

    def _rate(self, second: int) -> float:
        """Count a search in this second, and return the searches per second."""
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0])
        self._seconds[-1][1] += 1
        while self._seconds[0][0] <= second - RATE_S:
            self._seconds.popleft()
        return sum(count for _, count in self._seconds) / RATE_S
