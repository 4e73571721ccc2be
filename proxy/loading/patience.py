"""Asking again what cannot be answered just now, for as long as a load may wait."""

import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import stamina
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

A = TypeVar("A")

_SAID_AT_RETRY = 3
"""What passes by sooner is not worth a word."""


async def patiently(ask: Callable[[], Awaitable[A]], is_passing: Callable[[Exception], bool], seconds: float) -> A:
    """Ask until there is an answer, an error that does not pass, or no patience left: then its last error."""
    async for attempt in stamina.retry_context(on=is_passing, attempts=None, timeout=seconds, wait_max=20):
        with attempt:
            return await ask()
    raise AssertionError("a retry ends by its answer or its error")


def say_what_is_waited_for() -> None:
    """Have a load that stands still say why, instead of the log lines that the library would write."""
    set_on_retry_hooks([_say])


def _say(details: RetryDetails) -> None:
    if details.retry_num == _SAID_AT_RETRY:
        sys.stderr.write(f"waiting, and asking again: {details.caused_by}\n")
