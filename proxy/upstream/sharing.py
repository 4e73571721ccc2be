"""Equal concurrent requests share one call and its response."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


@dataclass(slots=True)
class _Call(Generic[_T]):
    """A call in progress, and the number of callers that wait for it."""

    task: asyncio.Task[_T]
    waiting: int = 0


class Shared(Generic[_T]):
    """The calls in progress, by their request."""

    def __init__(self) -> None:
        self._calls: dict[Hashable, _Call[_T]] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether such a call is in progress."""
        call = self._calls.get(key)
        return call is not None and not call.task.done()

    async def ask(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Return the result of the call in progress, or of a new one; an error is raised for everyone who waits.

        The call is cancelled when nobody waits for it any more.
        """
        call = self._calls.get(key)
        if call is None or call.task.done():
            call = self._calls[key] = _Call(asyncio.ensure_future(ask()))
        call.waiting += 1
        try:
            return await asyncio.shield(call.task)
        finally:
            call.waiting -= 1
            if not call.waiting:
                call.task.cancel()
                if self._calls.get(key) is call:
                    del self._calls[key]
