"""Turns of the event loop: at most one search is parsed per turn, whether one request has many or many have one."""

import asyncio
from collections import deque
from typing import Any


class Turns:
    """Runs steps that take CPU one task at a time, so that connections are served between two tasks."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[None], asyncio.Task[Any] | None]] = deque()
        self._is_taken = False
        self._owner: asyncio.Task[Any] | None = None
        """The task that took this turn; its further steps in the same turn do not wait."""

    async def take(self) -> None:
        """Return at once if no other task took this turn of the loop, otherwise in a later one, in order of arrival."""
        task = asyncio.current_task()
        if not self._is_taken:
            self._is_taken, self._owner = True, task
            asyncio.get_running_loop().call_soon(self._next)
        elif task is not self._owner:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append((waiting, task))
            await waiting

    def _next(self) -> None:
        while self._waiting:
            waiting, self._owner = self._waiting.popleft()
            if not waiting.done():  # not cancelled
                waiting.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._is_taken, self._owner = False, None
