"""One call for equal questions: who leaves it, and what becomes of it then."""

import asyncio

import pytest

from proxy.upstream.sharing import Shared


class Source:
    """Answers with the number of the call, when it may."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = 0
        self.may_end = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.calls += 1
        number = self.calls
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return number


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def shared() -> Shared[int]:
    return Shared()


async def asking(shared: Shared[int], source: Source, *keys: str) -> list[asyncio.Task[int]]:
    tasks = [asyncio.ensure_future(shared.ask(key, source)) for key in keys]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_concurrent_equal_requests_share_one_call(shared: Shared[int], source: Source) -> None:
    tasks = await asking(shared, source, "a", "a", "b", "a")
    source.may_end.set()
    assert [1, 1, 2, 1] == await asyncio.gather(*tasks)


async def test_results_are_not_cached(shared: Shared[int], source: Source) -> None:
    source.may_end.set()
    assert [1, 2] == [await shared.ask("a", source) for _ in range(2)]


async def test_an_error_is_raised_for_all_waiters(shared: Shared[int], source: Source) -> None:
    source.error = ValueError("no")
    tasks = await asking(shared, source, "a", "a")
    source.may_end.set()
    assert [source.error] * 2 == await asyncio.gather(*tasks, return_exceptions=True)
    assert 1 == source.calls


@pytest.mark.parametrize(("leaving", "cancelled"), [(1, 0), (2, 1)])
async def test_a_call_is_cancelled_with_its_last_waiter(
    shared: Shared[int], source: Source, leaving: int, cancelled: int
) -> None:
    tasks = await asking(shared, source, "a", "a")
    for task in tasks[:leaving]:
        task.cancel()
    await asyncio.wait(tasks[:leaving])
    source.may_end.set()
    await asyncio.wait(tasks)
    assert (leaving, cancelled) == (sum(task.cancelled() for task in tasks), source.cancelled)


async def test_a_finished_call_is_not_joined(shared: Shared[int], source: Source) -> None:
    source.error = ValueError("no")
    (first,) = await asking(shared, source, "a")
    source.may_end.set()
    await asyncio.sleep(0)  # the call ends in this turn, and is told to those who wait in the next one
    assert ("a" in shared, first.done()) == (False, False)
    (second,) = await asking(shared, source, "a")
    await asyncio.wait([first, second])
    assert 2 == source.calls
