"""One step in each turn of the loop, in the order in which they came."""

import asyncio
from contextlib import suppress

from proxy.endpoints.turns import Turns, requester


class Steps:
    """Steps of several tasks, each noted with the turn of the loop in which it ran."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.turn = 0
        self.ran: list[tuple[str, int]] = []

    async def run(self, name: str) -> None:
        await self.turns.take()
        self.ran.append((name, self.turn))

    async def watch(self, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
            self.turn += 1


async def test_concurrent_steps_run_one_per_turn_in_order() -> None:
    steps = Steps()
    await asyncio.gather(steps.watch(10), *(steps.run(name) for name in "abcd"))
    assert (["a", "b", "c", "d"], 4) == ([name for name, _ in steps.ran], len({turn for _, turn in steps.ran}))


async def test_a_step_alone_does_not_wait() -> None:
    steps = Steps()
    await steps.run("a")
    await steps.watch(2)
    taking = steps.run("b")
    with suppress(StopIteration):
        taking.send(None)
    assert [("a", 0), ("b", 2)] == steps.ran


async def test_requests_get_equal_turns_however_many_tasks_they_have() -> None:
    """Otherwise other searches would wait for all thousand items of an `_msearch`."""
    steps = Steps()

    async def ask(*names: str) -> None:
        requester.set(names)
        await asyncio.gather(*(steps.run(name) for name in names))

    await asyncio.gather(ask("a1", "a2", "a3", "a4"), ask("b1"), ask("c1", "c2"))
    assert ["a1", "a2", "b1", "c1", "a3", "c2", "a4"] == [name for name, _ in steps.ran]


async def test_a_cancelled_task_does_not_block_the_others() -> None:
    steps = Steps()
    tasks = [asyncio.ensure_future(steps.run(name)) for name in "abc"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert ["a", "c"] == [name for name, _ in steps.ran]


async def test_several_steps_of_one_task_run_in_one_turn() -> None:
    steps = Steps()

    async def run(name: str) -> None:
        for _ in range(3):
            await steps.run(name)

    await asyncio.gather(steps.watch(10), run("a"), run("b"))
    (of_a,), (of_b,) = ({turn for each, turn in steps.ran if each == name} for name in "ab")
    assert (["a"] * 3 + ["b"] * 3, True) == ([name for name, _ in steps.ran], of_a != of_b)
