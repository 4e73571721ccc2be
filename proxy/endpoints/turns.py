"""Turns of the event loop: at most one search is parsed per turn, whether one request has many or many have one."""

import asyncio
from collections import deque
from contextvars import ContextVar
from typing import Any

requester: ContextVar[object] = ContextVar("requester", default=None)
"""The request that a task works for."""


class Turns:
    """Runs steps that take CPU one task at a time, so that connections are served between two tasks.

    Requests are served in rotation: one with a thousand searches delays another one by one of them, not by all.
    """

    def __init__(self) -> None:
        self._waiting: dict[object, deque[tuple[asyncio.Future[None], asyncio.Task[Any] | None]]] = {}
        """The waiting tasks of each request, in order of arrival; the request that is next comes first."""
        self._is_taken = False
        self._owner: asyncio.Task[Any] | None = None
        """The task that took this turn; its further steps in the same turn do not wait."""

    async def take(self) -> None:
        """Return at once if no other task took this turn of the loop, otherwise in a later one."""
        task = asyncio.current_task()
        if not self._is_taken:
            self._is_taken, self._owner = True, task
            asyncio.get_running_loop().call_soon(self._next)
        elif task is not self._owner:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(requester.get() or task, deque()).append((waiting, task))
            await waiting

    def _next(self) -> None:
        while self._waiting:
            request, tasks = next(iter(self._waiting.items()))
            waiting, self._owner = tasks.popleft()
            del self._waiting[request]
            if tasks:
                self._waiting[request] = tasks  # behind the others
            if not waiting.done():  # not cancelled
                waiting.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._is_taken, self._owner = False, None
