"""How many bytes of the engine's responses are held in memory for all requests that are answered here together.

Each response has its own limit, but a hundred requests may have one each.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from proxy.bounds import HELD_RESPONSES_BYTES

RELEASED_S = 1.0
"""Seconds between two looks whether a client has read its response."""


class Held:
    """The bytes of the responses of all current requests."""

    def __init__(self, limit: int = HELD_RESPONSES_BYTES) -> None:
        self.limit = limit
        self.size = 0


class HeldForRequest:
    """Those of one request, until it has ended and its client has read the response."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._size = 0
        self._ended = False

    def take(self, size: int) -> bool:
        """Count bytes of a response; returns false if they are too many together, so that they must be dropped."""
        if self._ended:  # a run in the background, which has other limits
            return True
        if self._held.size + size > self._held.limit:
            return False
        self._held.size += size
        self._size += size
        return True

    def end(self, is_unread: Callable[[], bool]) -> None:
        """Release the bytes once the client has read its response."""
        if self._size and is_unread():
            asyncio.get_running_loop().call_later(RELEASED_S, self.end, is_unread)
            return
        self._ended = True
        self._held.size -= self._size
        self._size = 0


of_request: ContextVar[HeldForRequest | None] = ContextVar("held", default=None)
"""That of the request that a task works for."""


@contextmanager
def held_for_request(held: Held, is_unread: Callable[[], bool]) -> Iterator[None]:
    """Count the bytes of the responses that this task, and those that it starts, receive in the block."""
    mine = HeldForRequest(held)
    token = of_request.set(mine)
    try:
        yield
    finally:
        of_request.reset(token)
        mine.end(is_unread)
