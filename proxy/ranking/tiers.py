"""`tier: auto`: a larger reranker while a route is quiet, a faster one above a rate of searches.

A state machine without a clock: the methods take the current time, in seconds.
"""

from collections import deque

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
