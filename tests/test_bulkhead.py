"""No more calls of a model than its provider takes; the others wait in order, and only while that may help."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.bounds import MODEL_CALLS_WAITING
from proxy.errors import Busy
from proxy.upstream.bulkhead import AdaptiveLimit, Bulkhead, Load
from proxy.upstream.latency import Latency

LONG, SOON = 60.0, 0.02


def one_at_a_time(usual: float | None = None) -> Bulkhead:
    latency = Latency()
    if usual is not None:
        latency.answered(usual, 0.0)
    return Bulkhead("reranker", 1, latency)


def test_the_limit_is_halved_once_for_the_calls_that_ran_together() -> None:
    limit = AdaptiveLimit(200)
    for _ in range(100):
        limit.adapt(Load.TOO_MANY, in_flight=100, epoch=0)
    assert (50, 1) == (limit.value, limit.epoch)
    limit.adapt(Load.TOO_MANY, in_flight=50, epoch=1)
    assert 25 == limit.value


def test_the_limit_falls_slowly_for_slow_calls_and_only_while_it_is_in_use() -> None:
    limit = AdaptiveLimit(200)
    limit.adapt(Load.SLOW, in_flight=10, epoch=0)
    assert 200 == limit.value
    limit.adapt(Load.SLOW, in_flight=200, epoch=0)
    assert 180 == limit.value


def test_the_limit_rises_with_each_successful_call_while_it_is_in_use() -> None:
    limit = AdaptiveLimit(200)
    limit.adapt(Load.TOO_MANY, in_flight=8, epoch=0)
    assert 4 == limit.value
    limit.adapt(Load.FINE, in_flight=1, epoch=1)
    assert 4 == limit.value
    for _ in range(500):
        limit.adapt(Load.FINE, in_flight=limit.value, epoch=1)
    assert 200 == limit.value


@given(st.integers(1, 300), st.lists(st.tuples(st.sampled_from(Load), st.integers(1, 300), st.integers(0, 50))))
def test_the_limit_stays_within_its_bounds(most: int, ends: list[tuple[Load, int, int]]) -> None:
    limit = AdaptiveLimit(most)
    for load, in_flight, epoch in ends:
        limit.adapt(load, in_flight, epoch)
        assert min(4, most) <= limit.value <= most


async def test_calls_above_the_limit_wait_in_order() -> None:
    bulkhead, order = one_at_a_time(), []

    async def call(number: int) -> None:
        async with bulkhead.turn(LONG):
            order.append(number)

    async with bulkhead.turn(LONG):
        calls = [asyncio.ensure_future(call(number)) for number in range(5)]
        await asyncio.sleep(0)
        assert (6.0, []) == (bulkhead.load, order)
    await asyncio.gather(*calls)
    assert (0.0, [0, 1, 2, 3, 4]) == (bulkhead.load, order)


async def test_the_queue_is_bounded() -> None:
    bulkhead = one_at_a_time()
    async with bulkhead.turn(LONG):
        waiting = [asyncio.ensure_future(_pass(bulkhead)) for _ in range(MODEL_CALLS_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="1 calls in flight, and 64 waiting"):
            await _pass(bulkhead)
    await asyncio.gather(*waiting)


async def test_a_call_that_cannot_finish_in_time_does_not_wait() -> None:
    bulkhead = one_at_a_time(usual=0.5)
    async with bulkhead.turn(LONG):
        with pytest.raises(Busy):
            await _pass(bulkhead, seconds=0.9)
        assert 1.0 == bulkhead.load


async def test_a_call_waits_only_while_a_response_in_time_is_possible() -> None:
    bulkhead = one_at_a_time()
    async with bulkhead.turn(LONG):
        with pytest.raises(Busy, match="no turn"):
            await _pass(bulkhead, seconds=SOON)
    await _pass(bulkhead)
    assert 0 == bulkhead.in_flight


@pytest.mark.parametrize("granted", [False, True])
async def test_a_cancelled_call_frees_its_slot(*, granted: bool) -> None:
    bulkhead = one_at_a_time()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(bulkhead.turn(LONG))
        first, second = (asyncio.ensure_future(_pass(bulkhead)) for _ in range(2))
        await asyncio.sleep(0)
        if granted:
            await stack.aclose()  # its place is given to the first before that is cancelled
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    await second
    assert 0.0 == bulkhead.load


async def _pass(bulkhead: Bulkhead, seconds: float = LONG) -> None:
    async with bulkhead.turn(seconds):
        pass
