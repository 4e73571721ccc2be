"""Turns of the event loop: the searches of one large request, or of many, are parsed one in each turn."""

import asyncio
from collections import deque


class Turns:
    """Lets one task at a time begin a step that takes CPU, so that connections are served between two such steps."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_taken = False

    async def take(self) -> None:
        """Return at once if no other task took this turn of the loop, otherwise in a later one, first come first."""
        loop = asyncio.get_running_loop()
        if not self._is_taken:
            self._is_taken = True
            loop.call_soon(self._next)
            return
        waiting = loop.create_future()
        self._waiting.append(waiting)
        await waiting

    def _next(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():  # not cancelled
                waiting.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._is_taken = False
