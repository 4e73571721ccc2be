"""Limits the searches that the proxy adds to its clients' own; one that finds no free slot in time is skipped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.errors import Busy

SERVICE = "engine"
WAIT_S = 0.25
"""Seconds for which an added search waits for a slot."""


class AddedSearches:
    """The slots of added searches; a client's own search needs none."""

    def __init__(self, limit: int, wait_seconds: float = WAIT_S) -> None:
        self._limit = limit
        self._wait_seconds = wait_seconds
        self._turns = asyncio.Semaphore(limit)
        self.running = 0
        self.waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a slot, and release it at the end; raises Busy if none becomes free in time."""
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._turns.acquire()
        except TimeoutError as error:
            raise Busy(SERVICE, f"{self._limit} searches added by the proxy are running already") from error
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._turns.release()
