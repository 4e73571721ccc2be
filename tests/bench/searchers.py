"""A process that searches: `python -m tests.bench.searchers`, told over stdin what to do; through a proxy or by hand.

Its CPU is the application's: by hand that of the whole search, through a proxy that of one request and its response.
"""

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

import aiohttp
import uvloop

from tests.bench.by_hand import ByHand, Shop
from tests.bench.processes import used_by

_WORDS = ("laptop", "phone", "camera", "headphones", "video", "sound", "travel", "office", "children", "box")


@dataclass(frozen=True, slots=True)
class Task:
    """Searches to make, each with other words."""

    count: int
    concurrency: int
    first: int = 0
    """The number of the first query, so that none is repeated."""


@dataclass(frozen=True, slots=True)
class Searched:
    """The searches of one task."""

    milliseconds: Sequence[float]
    seconds: float
    errors: int
    outcomes: Mapping[str, int]
    """How many had each outcome, by the start of `X-Rerank`."""
    cpu_seconds: float = 0.0
    """Of the searching process."""

    @property
    def rate(self) -> float:
        return len(self.milliseconds) / self.seconds


Search = Callable[[str], Awaitable[str]]
"""Searches for words, and returns the outcome."""


def query_of(words: str) -> dict[str, Any]:
    return {"multi_match": {"query": words, "fields": ["title^2", "description"]}}


def words_of(number: int) -> str:
    """Return the words of a query: another one for each number below 5040, and then with a number in it."""
    again, place = divmod(number, 5040)
    words = next(itertools.islice(itertools.permutations(_WORDS, 4), place, None))
    return " ".join([*words, *([f"no {again}"] if again else [])])


def _through(session: aiohttp.ClientSession, url: str) -> Search:
    async def search(words: str) -> str:
        async with session.post(url, json={"query": query_of(words)}) as response:
            found = await response.json()
            if response.status != 200 or len(found["hits"]["hits"]) != 10:
                raise ValueError(f"{response.status} {found}")
            return response.headers.get("X-Rerank", "none").partition(";")[0]

    return search


def _by_hand(session: aiohttp.ClientSession, shop: Shop) -> Search:
    searching = ByHand(session, shop)

    async def search(words: str) -> str:
        hits = await searching.search(words, query_of(words))
        if len(hits) != 10:
            raise ValueError(f"{len(hits)} hits")
        return "reranked"

    return search


async def _run(task: Task, search: Search) -> Searched:
    numbers = iter([words_of(number) for number in range(task.first, task.first + task.count)])
    times: list[float] = []
    outcomes: dict[str, int] = {}
    errors = 0

    async def keep_searching(numbers: Iterator[str]) -> None:
        nonlocal errors
        for words in numbers:
            begun = time.perf_counter()
            try:
                outcome = await search(words)
            except (aiohttp.ClientError, ValueError, KeyError, TimeoutError) as error:
                errors += 1
                outcome = repr(error)[:200]
            times.append((time.perf_counter() - begun) * 1000)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1

    begun = time.perf_counter()
    await asyncio.gather(*(keep_searching(numbers) for _ in range(task.concurrency)))
    return Searched(times, time.perf_counter() - begun, errors, outcomes)


async def _serve(asked: Mapping[str, Any]) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=True) as session:
        shop = asked.get("by_hand")
        search = _by_hand(session, Shop(**shop)) if shop else _through(session, asked["through"])
        while line := await asyncio.to_thread(sys.stdin.readline):
            done = await _run(Task(**json.loads(line)), search)
            sys.stdout.write(json.dumps(asdict(done)) + "\n")
            sys.stdout.flush()


class Searcher:
    """A searching process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._searched = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    def search(self, count: int, concurrency: int) -> Searched:
        """Make searches, with words that this process has not used yet."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        task = Task(count, concurrency, self._searched)
        self._searched += count
        before = used_by(self.pid).cpu_seconds
        self._process.stdin.write(json.dumps(asdict(task)) + "\n")
        self._process.stdin.flush()
        done = json.loads(self._process.stdout.readline())
        return Searched(**done | {"cpu_seconds": used_by(self.pid).cpu_seconds - before})

    @classmethod
    @contextmanager
    def through(cls, url: str) -> Iterator[Self]:
        """Search through a proxy, or an engine, at the URL of an index's searches."""
        with cls._running({"through": url}) as searcher:
            yield searcher

    @classmethod
    @contextmanager
    def by_hand(cls, shop: Shop) -> Iterator[Self]:
        with cls._running({"by_hand": asdict(shop)}) as searcher:
            yield searcher

    @classmethod
    @contextmanager
    def _running(cls, asked: Mapping[str, Any]) -> Iterator[Self]:
        command = [sys.executable, "-m", "tests.bench.searchers", json.dumps(asked)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield cls(process)
            assert process.stdin is not None
            process.stdin.close()


if __name__ == "__main__":
    uvloop.run(_serve(json.loads(sys.argv[1])))
