"""Pairs of requests by turns: what disturbs one side disturbs the other, so their ratio holds on a busy machine."""

import asyncio
import re
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from tests.bench.processes import used_by
from tests.fakes import Client, Message, request

_STAGE = re.compile(r"(\w+);dur=([\d.]+)")


@dataclass(frozen=True, slots=True)
class Figure:
    """What one case cost."""

    name: str
    meaning: str
    unit: str
    """Of both numbers: "ms", less is better, or "requests/s"."""
    baseline: float
    through: float
    pairs: int

    @property
    def ratio(self) -> float:
        return self.through / self.baseline


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and the index it means."""

    method: str
    target: str
    body: bytes | None = None
    content_type: str = "application/json"

    def wire(self) -> bytes:
        return request(self.method, self.target, self.body, content_type=self.content_type, host="bench")


class Side:
    """One connection to one of the two sides."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @classmethod
    async def of(cls, url: str) -> Self:
        return cls(await Client.to(urlsplit(url).port or 0))

    async def ask(self, asked: Asked) -> Message:
        await self._client.send(asked.wire())
        answer = await self._client.answer(asked.method)
        if answer.status != 200:
            raise ValueError(f"{asked.method} {asked.target}: {answer.status} {answer.body[:300]!r}")
        return answer

    async def milliseconds(self, asked: Asked) -> float:
        began = time.perf_counter()
        await self.ask(asked)
        return 1000 * (time.perf_counter() - began)

    async def process(self) -> int:
        """Return the process id of an engine on this machine."""
        nodes = (await self.ask(Asked("GET", "/_nodes/process"))).json()["nodes"]
        return int(next(iter(nodes.values()))["process"]["id"])

    async def cpu_milliseconds(self, process: int, asked: Sequence[Asked]) -> float:
        """Return the CPU time that a process uses for each of these requests."""
        before = used_by(process).cpu_seconds
        for each in asked:
            await self.ask(each)
        return 1000 * (used_by(process).cpu_seconds - before) / max(len(asked), 1)

    def close(self) -> None:
        self._client.close()


Questions = Iterator[Asked]
Ask = Callable[[Side, Asked], Awaitable[float]]


async def by_turns(straight: Side, through: Side, asked: Sequence[Asked]) -> tuple[list[float], list[float]]:
    """Time every request on both sides, the first side being another each time."""
    times: dict[Side, list[float]] = {straight: [], through: []}
    for number, each in enumerate(asked):
        for side in (straight, through) if number % 2 else (through, straight):
            times[side].append(await side.milliseconds(each))
    return times[straight], times[through]


async def critical_paths(through: Side, asked: Sequence[Asked]) -> tuple[list[float], list[float]]:
    """Tell what had to be waited for, engine and models alone, and how long it took, in milliseconds.

    As the answers' Server-Timing has it: the client's own search beside embedding and kNN, then reranking beside
    rendering.
    """
    waited, took = [], []
    for each in asked:
        stages = dict(_stages(await through.ask(each)))
        first = max(stages.get("lexical", 0), stages.get("embed", 0) + stages.get("semantic", 0))
        waited.append(first + max(stages.get("rerank", 0), stages.get("render", 0)))
        took.append(stages["total"])
    return waited, took


def _stages(answer: Message) -> Iterator[tuple[str, float]]:
    return ((name, float(spent)) for name, spent in _STAGE.findall(answer.header("server-timing")))


async def per_second(url: str, asked: Asked, *, connections: int, seconds: float) -> float:
    """Count the requests that so many connections get answered in a second."""
    sides = [await Side.of(url) for _ in range(connections)]
    end = time.perf_counter() + seconds

    async def keep_asking(side: Side) -> int:
        count = 0
        while time.perf_counter() < end:
            await side.ask(asked)
            count += 1
        return count

    try:
        return sum(await asyncio.gather(*map(keep_asking, sides))) / seconds
    finally:
        for side in sides:
            side.close()


def middle(times: Sequence[float]) -> float:
    return statistics.median(times)
