"""What the steps of a search share: a clock that adds up, and a deadline that breaks off."""

import asyncio

import pytest

from proxy.ranking.stages import Clock, Deadline


async def test_a_stages_time_is_added_up_also_where_it_fails() -> None:
    clock = Clock({"embed": 1000.0})
    async with clock.stage("embed"):
        pass
    with pytest.raises(ValueError, match="no"):
        async with clock.stage("rerank"):
            raise ValueError("no")
    assert (["embed", "rerank"], True) == (list(clock.stages), clock.stages["embed"] >= 1000.0)


async def test_a_deadline_that_has_passed_breaks_off_what_is_awaited() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline.after(0).limit():
            await asyncio.Event().wait()


async def test_a_deadline_breaks_off_nothing_that_is_done_in_time() -> None:
    async with Deadline.after(60).limit() as limit:
        await asyncio.sleep(0)
    assert (False, Deadline()) == (limit.expired(), Deadline.after(None))


async def test_without_a_deadline_there_is_no_limit() -> None:
    async with Deadline().limit() as limit:
        await asyncio.sleep(0)
    assert (None, False) == (limit.when(), limit.expired())
