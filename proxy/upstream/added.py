"""How many searches the proxy adds to its clients' own at a time: what finds no room is left out, and soon."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.errors import Busy

SERVICE = "engine"
WAIT_S = 0.25
"""How long an added search waits for its turn."""


class AddedSearches:
    """The turns of searches that the proxy adds; a client's own search needs none."""

    def __init__(self, limit: int, wait_seconds: float = WAIT_S) -> None:
        self._limit = limit
        self._wait_seconds = wait_seconds
        self._turns = asyncio.Semaphore(limit)
        self.running = 0
        self.waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and give it back in the end; raises Busy where none comes in time."""
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._turns.acquire()
        except TimeoutError as error:
            raise Busy(SERVICE, f"{self._limit} searches of the proxy's own are running") from error
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._turns.release()
