"""Stop a load at SIGTERM or Ctrl-C, after the documents that are already embedded have been written."""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from proxy.commands.loading.errors import CannotLoad

GRACE_S = 20.0
"""Time for running model calls to finish; containers are killed after 30 s."""


T = TypeVar("T")


class Stopped(CannotLoad):
    """The load was stopped by a signal."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(f"stopped by {number.name}; what was written is kept. Run the same command again to continue")
        self.exit_code = 128 + number
        """The exit code that shells use for a process ended by this signal."""


class Stopping:
    """Whether a signal has come. The first lets the load write what it has, the second ends it at once."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self._number = signal.SIGTERM
        self._writing = False
        self._then: list[Callable[[], None]] = []

    def raise_if_requested(self) -> None:
        if self.requested.is_set():
            raise Stopped(self._number)

    async def in_time(self, work: Coroutine[Any, Any, T], grace: float = GRACE_S) -> T:
        """Finish work that is already paid for; raises Stopped if it takes too long after a signal."""
        task, requested = asyncio.ensure_future(work), asyncio.ensure_future(self.requested.wait())
        try:
            await asyncio.wait({task, requested}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({task}, timeout=grace)
            if not task.done():
                raise Stopped(self._number)
            return task.result()
        finally:
            requested.cancel()
            task.cancel()
            await asyncio.gather(requested, task, return_exceptions=True)

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Handle the signals; raises Stopped if one comes while nothing is being written."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._tell, number, task)
        try:
            yield
        except asyncio.CancelledError:
            self.raise_if_requested()
            raise
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _tell(self, number: signal.Signals, task: "asyncio.Task[Any] | None") -> None:
        if task and (self.requested.is_set() or not self._writing):
            task.cancel()
        self._number = number
        self.requested.set()
        for act in self._then:
            act()

    @contextmanager
    def writing(self, then: Callable[[], None] | None = None) -> Iterator[None]:
        """While inside, a signal only sets `requested` and calls `then`, instead of stopping at once."""
        self._writing, self._then = True, [then] if then else []
        try:
            yield
        finally:
            self._writing, self._then = False, []
