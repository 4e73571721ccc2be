"""Limits the concurrent calls of one model to what the provider handles, with a short queue.

The limit is adapted by additive increase and multiplicative decrease (AIMD). Gradient controllers would probe for the
minimum latency, which costs money with a remote model.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

from proxy.bounds import MODEL_CALLS_WAITING
from proxy.errors import Busy
from proxy.upstream.latency import Latency


class Load(StrEnum):
    """What the result of a call says about the provider's capacity."""

    FINE = "fine"
    SLOW = "slow"
    TOO_MANY = "too_many"
    UNKNOWN = "unknown"


class AdaptiveLimit:
    """A limit that increases by one with each successful call, and decreases when the provider is overloaded.

    It increases only while at least half of it is in use, and decreases once for all calls that ran at the time.
    """

    def __init__(self, most: int, least: int = 4) -> None:
        self._most = most
        self._least = min(least, most)
        self.value = most
        self.epoch = 0
        """Increases with each decrease of the limit; every call remembers the epoch in which it began."""

    def adapt(self, load: Load, in_flight: int, epoch: int) -> None:
        """Adapt the limit to the result of a call, which is included in `in_flight`."""
        used = 2 * in_flight >= self.value
        match load:
            case Load.FINE if used:
                self.value = min(self.value + 1, self._most)
            case Load.SLOW if used and epoch == self.epoch:
                self._fall(self.value * 9 // 10)
            case Load.TOO_MANY if epoch == self.epoch:
                self._fall(min(self.value, in_flight) // 2)
            case _:
                pass

    def _fall(self, value: int) -> None:
        self.value = max(value, self._least)
        self.epoch += 1


class Bulkhead:
    """The calls of one model that are in flight, and a queue of waiting calls, first in, first out."""

    def __init__(self, service: str, most: int, latency: Latency) -> None:
        self.limit = AdaptiveLimit(most)
        self._latency = latency
        self._service = service
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def load(self) -> float:
        """The calls in flight and waiting, divided by the limit."""
        return (self._in_flight + len(self._waiting)) / self.limit.value

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, seconds: float) -> AsyncIterator[int]:
        """Wait for a free slot; yields the limit's epoch. Raises Busy if no response is possible within `seconds`."""
        await self._wait(seconds)
        try:
            yield self.limit.epoch
        finally:
            self._in_flight -= 1
            self._admit()

    def _admit(self) -> None:
        """Admit the calls that have waited longest to the free slots."""
        while self._waiting and self._in_flight < self.limit.value:
            waiting = self._waiting.popleft()
            if not waiting.done():
                self._in_flight += 1
                waiting.set_result(None)

    def refusal(self, seconds: float) -> Busy | None:
        """Return the error for a call that cannot be answered within `seconds`, because it would wait too long."""
        if not self._is_full:
            return None
        if len(self._waiting) < MODEL_CALLS_WAITING and self._expected_wait() <= self._patience(seconds):
            return None
        return Busy(self._service, f"{self._in_flight} calls in flight, and {len(self._waiting)} waiting")

    @property
    def _is_full(self) -> bool:
        return bool(self._waiting) or self._in_flight >= self.limit.value

    def _patience(self, seconds: float) -> float:
        """Return how long a call can wait for its turn, if its response must be there within `seconds`."""
        return seconds - (self._latency.usual or 0.0)

    async def _wait(self, seconds: float) -> None:
        if not self._is_full:
            self._in_flight += 1
            return
        if refusal := self.refusal(seconds):
            raise refusal
        patience = self._patience(seconds)
        admitted = asyncio.get_running_loop().create_future()
        self._waiting.append(admitted)
        try:
            async with asyncio.timeout(max(patience, 0.0)):
                await admitted
        except BaseException as error:
            self._give_up(admitted)
            if isinstance(error, TimeoutError):
                raise Busy(self._service, f"no turn in {patience:.2f} s") from error
            raise

    def _expected_wait(self) -> float:
        return (self._latency.usual or 0.0) * (len(self._waiting) + 1) / self.limit.value

    def _give_up(self, admitted: asyncio.Future[None]) -> None:
        """Leave the queue; if a slot was assigned meanwhile, the next call gets it."""
        if admitted.done() and not admitted.cancelled():
            self._in_flight -= 1
            self._admit()
            return
        admitted.cancel()
        if admitted in self._waiting:
            self._waiting.remove(admitted)
