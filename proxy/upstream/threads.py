"""Work that may block without end, such as with a file on a server that is gone; it never keeps the process alive.

At its end, Python waits for the threads of `asyncio.to_thread`, however long they take.
"""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")
_APART = "apart"
"""The name of these threads."""


async def apart(work: Callable[[], _T]) -> _T:
    """Do work in a thread of its own, which goes on if the wait is cancelled, and ends with the process.

    Raises what the work raises, and OSError if no thread can be started.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(found: _T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(found)  # type: ignore[arg-type]  # what `work` returned

    def run() -> None:
        found, failed = None, None
        try:
            found = work()
        except BaseException as error:  # noqa: BLE001  raised where it is awaited
            failed = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, found, failed)

    try:
        threading.Thread(target=run, name=_APART, daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    return await done


def join_within(seconds: float) -> bool:
    """Wait for this work; returns whether all of it has ended.

    Beside work that has not, Python must not end the process in its usual way: OpenSSL would free what it shares
    between threads while one still reads certificates, which is a crash. `os._exit` leaves all to the system.
    """
    until = time.monotonic() + seconds
    working = [thread for thread in threading.enumerate() if thread.name == _APART]
    for thread in working:
        thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in working)


def end_within(seconds: float) -> Callable[[], None]:
    """End the process after this time, whatever its threads wait for; returns a function that calls this off."""
    ending = threading.Timer(seconds, os._exit, (1,))
    ending.daemon = True
    ending.start()
    return ending.cancel
