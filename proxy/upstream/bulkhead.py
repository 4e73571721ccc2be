"""How many calls of one model run at a time: as many as the provider takes, and a short queue for the others.

The limit is adapted by additive increase and multiplicative decrease (AIMD). For a remote model no minimum latency is
probed as gradient controllers do it, since each probe would cost money.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum

from proxy.bounds import MODEL_CALLS_WAITING
from proxy.errors import Busy


class Load(StrEnum):
    """What the end of a call says about how many calls a provider takes."""

    FINE = "fine"
    SLOW = "slow"
    TOO_MANY = "too_many"
    UNKNOWN = "unknown"


class AdaptiveLimit:
    """A number of calls that rises by one with each that ends well, and falls when the provider is overloaded.

    It changes only while it is in use, and falls at most once for the calls that ran when it fell.
    """

    def __init__(self, most: int, least: int = 4) -> None:
        self._most = most
        self._least = min(least, most)
        self.value = most
        self.epoch = 0
        """Rises each time that the limit falls; a call remembers in which epoch it began."""

    def adapt(self, load: Load, in_flight: int, epoch: int) -> None:
        """Note how a call ended; `in_flight` counts it."""
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


class TypicalLatency:
    """A moving average of the seconds that successful calls take; None before the first."""

    def __init__(self, weight: float = 0.1) -> None:
        self._weight = weight
        self.seconds: float | None = None

    def add(self, seconds: float) -> None:
        before = seconds if self.seconds is None else self.seconds
        self.seconds = before + self._weight * (seconds - before)

    def is_exceeded_by(self, seconds: float) -> bool:
        """Whether a call took so much longer that it probably waited in a queue at the provider."""
        return self.seconds is not None and seconds > 2 * self.seconds + _NOTICEABLE_S


_NOTICEABLE_S = 0.05


class Bulkhead:
    """The calls of one model: those in flight, and those that wait for their turn in the order they came."""

    def __init__(self, service: str, most: int) -> None:
        self.limit = AdaptiveLimit(most)
        self.latency = TypicalLatency()
        self._service = service
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def load(self) -> float:
        """Calls in flight and waiting, as a share of those that may run at a time."""
        return (self._in_flight + len(self._waiting)) / self.limit.value

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, seconds: float) -> AsyncIterator[int]:
        """Wait for a turn; yields the limit's epoch. Raises Busy where a response in so many seconds is impossible."""
        await self._wait(seconds - (self.latency.seconds or 0.0))
        try:
            yield self.limit.epoch
        finally:
            self._in_flight -= 1
            self._admit()

    def _admit(self) -> None:
        """Give free places to those that have waited longest."""
        while self._waiting and self._in_flight < self.limit.value:
            waiting = self._waiting.popleft()
            if not waiting.done():
                self._in_flight += 1
                waiting.set_result(None)

    async def _wait(self, patience: float) -> None:
        if not self._waiting and self._in_flight < self.limit.value:
            self._in_flight += 1
            return
        if len(self._waiting) >= MODEL_CALLS_WAITING or self._expected_wait() > patience:
            raise Busy(self._service, f"{self._in_flight} calls in flight, and {len(self._waiting)} waiting")
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
        return (self.latency.seconds or 0.0) * (len(self._waiting) + 1) / self.limit.value

    def _give_up(self, admitted: asyncio.Future[None]) -> None:
        """Leave the queue; a place that was given meanwhile goes to the next."""
        if admitted.done() and not admitted.cancelled():
            self._in_flight -= 1
            self._admit()
            return
        admitted.cancel()
        if admitted in self._waiting:
            self._waiting.remove(admitted)
