"""Retries for loading: wait for a busy engine or model server."""

import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

A = TypeVar("A")

_SAID_AT_RETRY = 3
"""Shorter waits are not reported."""


async def patiently(ask: Callable[[], Awaitable[A]], is_passing: Callable[[Exception], bool], seconds: float) -> A:
    """Retry a call while its error `is_passing`, for at most `seconds`; then raise the last error."""
    async for attempt in stamina.retry_context(on=is_passing, attempts=None, timeout=seconds, wait_max=20):
        with attempt:
            return await ask()
    raise AssertionError("a retry ends by its answer or its error")


def say_what_is_waited_for() -> None:
    """Report the reason of a long wait to the user, instead of the log lines of the retry library."""
    set_on_retry_hooks([_say])


def _say(details: RetryDetails) -> None:
    if details.retry_num == _SAID_AT_RETRY:
        sys.stderr.write(f"waiting and retrying: {details.caused_by}\n")
