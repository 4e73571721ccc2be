"""How many searches are added at a time, and what becomes of one more."""

import asyncio

import pytest

from proxy.errors import Busy
from proxy.upstream.added import AddedSearches


async def test_a_search_without_a_free_slot_is_skipped_soon() -> None:
    added = AddedSearches(2, wait_seconds=0.01)
    async with added.turn(), added.turn():
        with pytest.raises(Busy, match="2 searches"):
            async with added.turn():
                pass
    async with added.turn(), added.turn():
        pass


async def test_a_slot_that_becomes_free_in_time_is_used() -> None:
    added, done = AddedSearches(1, wait_seconds=60), []

    async def adds(number: int) -> None:
        async with added.turn():
            await asyncio.sleep(0)
            done.append(number)

    await asyncio.gather(*(adds(number) for number in range(5)))
    assert [0, 1, 2, 3, 4] == done


async def test_a_slot_is_always_released() -> None:
    added = AddedSearches(1, wait_seconds=0.01)
    with pytest.raises(ZeroDivisionError):
        async with added.turn():
            raise ZeroDivisionError
    waiting = asyncio.ensure_future(_waits(added))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    async with added.turn():
        pass


async def _waits(added: AddedSearches) -> None:
    async with added.turn():
        await asyncio.Event().wait()
