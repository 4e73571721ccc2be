"""Documents are put together, worked on a few at a time, and told apart by what they are made of."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.bounds import LOADED_BYTES
from proxy.commands.loading import index
from proxy.commands.loading.documents import BadLine, Document
from proxy.commands.loading.errors import CannotLoad
from proxy.commands.loading.index import AHEAD, BATCH, ahead, json_vectors

sizes = st.lists(st.integers(1, LOADED_BYTES * 2) | st.just(0), max_size=300)


@given(sizes)
def test_batches_contain_everything_once_within_their_limits(entries: list[int]) -> None:
    items: list[Document | BadLine] = [
        Document(str(number), {}, None, size) if size else BadLine(f"line {number}", "")
        for number, size in enumerate(entries)
    ]
    batches = list(index._batches(iter(items)))  # noqa: SLF001
    assert [item for batch in batches for item in batch] == items
    for batch in batches:
        held = [item.size for item in batch if isinstance(item, Document)]
        assert 0 < len(batch) <= BATCH
        assert sum(held[:-1]) < LOADED_BYTES


def test_documents_before_a_read_error_form_a_batch() -> None:
    document = Document("a", {}, None, 1)

    def breaks_off() -> Iterator[Document | BadLine]:
        yield document
        raise CannotLoad("the file breaks off")

    batches = index._batches(breaks_off())  # noqa: SLF001
    assert [document] == next(batches)
    with pytest.raises(CannotLoad):
        next(batches)


class Counted:
    """Items that say how many were taken."""

    def __init__(self, count: int) -> None:
        self.taken = 0
        self._count = count

    def __iter__(self) -> Iterator[int]:
        for number in range(self._count):
            self.taken += 1
            yield number


async def test_concurrent_work_is_ordered_and_bounded() -> None:
    """However fast the source is, only a few items are read ahead."""
    items = Counted(20)
    last_first = [asyncio.Event() for _ in range(20)]

    async def work(number: int) -> int:
        if number % AHEAD != AHEAD - 1:
            await last_first[number + 1].wait()
        last_first[number].set()
        return number

    found = []
    async for number in ahead(iter(items), work, asyncio.Event()):
        found.append(number)
        assert items.taken <= number + AHEAD
    assert found == list(range(20))


async def test_a_failure_cancels_the_other_work() -> None:
    """If the models are gone, all calls fail: one error is enough."""
    begun, ended = [], []

    async def work(number: int) -> int:
        begun.append(number)
        try:
            if number < 2:
                raise CannotLoad(f"no {number}")
            await asyncio.Event().wait()
        finally:
            ended.append(number)
        return number

    with pytest.raises(CannotLoad, match="no 0"):
        async for _ in ahead(iter(range(9)), work, asyncio.Event()):
            pass
    assert set(ended) == set(begun) >= {0, 1}
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_finished_work_is_returned_before_a_failure_is_raised() -> None:
    """It has been paid for."""
    done = asyncio.Event()

    async def work(number: int) -> int:
        if number == 0:
            await done.wait()
            raise CannotLoad("no 0")
        if number == AHEAD - 1:
            done.set()
        return number

    found = []

    async def gather() -> None:
        async for number in ahead(iter(range(9)), work, asyncio.Event()):
            found.append(number)  # noqa: PERF401  an error comes behind them

    with pytest.raises(CannotLoad, match="no 0"):
        await gather()
    assert list(range(1, AHEAD)) == found


async def test_after_a_stop_running_work_is_finished() -> None:
    stop, begun = asyncio.Event(), []
    last = asyncio.Event()

    async def work(number: int) -> int:
        begun.append(number)
        if number == AHEAD - 1:
            last.set()
        await last.wait()
        stop.set()
        return number

    assert list(range(AHEAD)) == [number async for number in ahead(iter(range(9)), work, stop)]
    assert list(range(AHEAD)) == begun


async def test_after_a_stop_slow_work_is_cancelled() -> None:
    stop = asyncio.Event()

    async def work(number: int) -> int:
        if number == AHEAD - 1:
            stop.set()
        if number == 1:
            await asyncio.Event().wait()
        return number

    assert [0, 2, 3] == [number async for number in ahead(iter(range(9)), work, stop, grace=0.01)]
    assert asyncio.all_tasks() == {asyncio.current_task()}


def breaks_off(count: int) -> Iterator[int]:
    yield from range(count)
    raise CannotLoad("the file breaks off")


async def test_items_before_a_source_error_are_returned_first() -> None:
    found = []

    async def work(number: int) -> int:
        return number

    async def gather() -> None:
        async for number in ahead(breaks_off(AHEAD + 1), work, asyncio.Event()):
            found.append(number)  # noqa: PERF401  an error comes behind them

    with pytest.raises(CannotLoad, match="the file breaks off"):
        await gather()
    assert list(range(AHEAD + 1)) == found


async def test_a_file_truncated_by_the_stop_is_no_error() -> None:
    stop = asyncio.Event()

    async def work(number: int) -> int:
        stop.set()
        return number

    assert [0] == [number async for number in ahead(breaks_off(1), work, stop)]


async def test_a_stop_before_the_start_starts_nothing() -> None:
    stop = asyncio.Event()
    stop.set()

    async def work(number: int) -> int:
        return number

    assert [] == [number async for number in ahead(iter(range(9)), work, stop)]


def test_vectors_are_written_with_float_precision() -> None:
    vectors = np.array([[1 / 3, -2 / 3, 2 / 3]], dtype=np.float32)
    assert json_vectors(vectors) == [[0.3333333, -0.6666667, 0.6666667]]
