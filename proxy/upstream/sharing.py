"""Equal questions that come while one is being asked: one call answers all of them."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


@dataclass(slots=True)
class _Call(Generic[_T]):
    """A question that is being asked, and how many wait for its answer."""

    task: asyncio.Task[_T]
    waiting: int = 0


class Shared(Generic[_T]):
    """The calls that are on their way, by what they ask for."""

    def __init__(self) -> None:
        self._calls: dict[Hashable, _Call[_T]] = {}

    async def ask(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Return the answer of the call on its way, or of a new one; its error is everyone's who waits.

        It goes on while one of them is left, and no longer.
        """
        if key not in self._calls:
            self._calls[key] = _Call(asyncio.ensure_future(ask()))
        call = self._calls[key]
        call.waiting += 1
        try:
            return await asyncio.shield(call.task)
        finally:
            call.waiting -= 1
            if not call.waiting:
                call.task.cancel()
                del self._calls[key]
