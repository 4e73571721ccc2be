"""What the same search costs again, and what the proxy's memory is: `python -m tests.bench.repeated`.

The engine and the models are stand-ins that respond after a fixed delay, so that what is longer than they take is the
proxy's own.
"""

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import aiohttp

from demo.services import Service
from tests.bench.processes import used_by
from tests.bench.reranked import Site, proxy_before, stand_ins
from tests.bench.searchers import Searcher, query_of
from tests.bench.stand_ins import CONTROL

ADDED_MS_MOST = 1.5
IDLE_MB_MOST, SEARCHING_MB_MOST, BULK_MB_MOST = 100, 250, 20
_AT_ONCE, _WIDE = 64, 200
_BULK_BYTES = 2**30
_RENDER = re.compile(r"render;dur=([\d.]+)")
_CHUNK = b'{"index":{}}\n{"title":"%s"}\n' % (b"a product " * 6000)


@dataclass(frozen=True, slots=True)
class Again:
    """A search that was made before."""

    name: str
    straight_ms: float
    """The median of BM25 and kNN side by side, without the proxy."""
    through_ms: float
    render_ms: float
    """The median of one more engine search, which renders the documents that only kNN has found."""
    cpu_ms: float
    """CPU time of the proxy for one search, which a busy machine does not change much."""
    model_calls: int

    @property
    def added_ms(self) -> float:
        return self.through_ms - self.straight_ms

    def line(self) -> str:
        return (
            f"{self.name:<28} {self.straight_ms:6.2f} ms straight, {self.through_ms:6.2f} ms through: "
            f"{self.added_ms:+.2f} ms (at most {ADDED_MS_MOST}), of which {self.render_ms:.2f} ms rendering; "
            f"{self.cpu_ms:.2f} ms CPU; "
            f"{self.model_calls} model calls"
        )


@dataclass(frozen=True, slots=True)
class Memory:
    """Of the proxy and its children, in megabytes."""

    name: str
    megabytes: float
    most: float

    def line(self) -> str:
        return f"{self.name:<28} {self.megabytes:6.1f} MB (at most {self.most:g})"


def _calls(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url + CONTROL, timeout=30) as response:  # noqa: S310  an address of our own
        found: dict[str, int] = json.load(response)
        return found


@dataclass(frozen=True, slots=True)
class _Timed:
    milliseconds: float
    render_ms: float = 0.0


async def _timed(session: aiohttp.ClientSession, url: str, *bodies: Any) -> _Timed:
    """Time searches side by side."""

    async def search(body: Any) -> float:
        async with session.post(url, json=body) as response:
            await response.read()
            if response.status != 200:
                raise ValueError(f"{response.status}")
            found = _RENDER.search(response.headers.get("Server-Timing", ""))
            return float(found[1]) if found else 0.0

    begun = time.perf_counter()
    render = await asyncio.gather(*map(search, bodies))
    return _Timed((time.perf_counter() - begun) * 1000, max(render))


async def again(site: Site, service: Service, count: int) -> AsyncIterator[Again]:
    """Repeat one search, and then its next pages, by turns with BM25 and kNN straight."""
    path, proxy, pid = f"/{site.index}/_search", service.url, service.process.pid
    body = {"query": query_of("laptop camera box")}
    lexical, knn = {**body, "size": 50}, {"knn": {"field": "embedding"}, "size": 50}
    async with aiohttp.ClientSession() as session:
        for _ in range(5):
            await _timed(session, proxy + path, body)
        for name, start in (("the same search", 0), ("its second page", 10), ("its third page", 20)):
            straight, through = [], []
            before, used = _calls(site.models), used_by(pid).cpu_seconds
            for _ in range(count):
                straight.append((await _timed(session, site.engine + path, lexical, knn)).milliseconds)
                through.append(await _timed(session, proxy + path, {**body, "from": start}))
            after = _calls(site.models)
            yield Again(
                name,
                statistics.median(straight),
                statistics.median(each.milliseconds for each in through),
                statistics.median(each.render_ms for each in through),
                1000 * (used_by(pid).cpu_seconds - used) / count,
                sum(after.get(kind, 0) - before.get(kind, 0) for kind in ("embed", "rerank")),
            )


class Peak:
    """The most memory that a process takes during a block."""

    def __init__(self, pid: int) -> None:
        self.megabytes = 0.0
        self._pid = pid
        self._ended = Event()
        self._thread = Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.megabytes = max(self.megabytes, _megabytes(self._pid))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _megabytes(pid: int) -> float:
    return used_by(pid).resident_bytes / 2**20


def memory(site: Site, folder: Path, searches: int) -> Iterator[Memory]:
    """Measure a proxy that has just started, one that searches, and one that passes a bulk on."""
    with proxy_before(site, folder, _WIDE) as service, Peak(service.process.pid) as peak:
        yield Memory("idle", _megabytes(service.process.pid), IDLE_MB_MOST)
        with Searcher.through(f"{service.url}/{site.index}/_search") as searcher:
            done = searcher.search(searches, _AT_ONCE)
        if set(done.outcomes) - {"reranked", "degraded"}:
            raise ValueError(f"searches were not reranked: {done.outcomes}")
    yield Memory(f"{_AT_ONCE} at a time, window {_WIDE}", peak.megabytes, SEARCHING_MB_MOST)
    with _sink() as sink, proxy_before(Site(sink, site.models), folder) as service:
        before = _megabytes(service.process.pid)
        with Peak(service.process.pid) as peak:
            asyncio.run(_bulk(service))
    yield Memory("added by a bulk of 1 GB", peak.megabytes - before, BULK_MB_MOST)


async def _bulk(service: Service) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(_BULK_BYTES // len(_CHUNK)):
            yield _CHUNK

    fields = {"Content-Type": "application/x-ndjson"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{service.url}/sink/_bulk", data=chunks(), headers=fields) as response,
    ):
        await response.read()
        if response.status != 200:
            raise ValueError(f"{response.status}")


@contextmanager
def _sink() -> Iterator[str]:
    """Run an engine in a thread that reads a request and answers at its end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tail = b""
        while piece := await reader.read(2**18):
            tail = (tail + piece)[-64:]
            if tail.endswith((b"0\r\n\r\n", b"HTTP/1.1\r\n\r\n")) or b"\r\n\r\n" in tail[-4:]:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20))
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()


async def _say_again(site: Site, folder: Path, count: int) -> bool:
    is_fine = True
    with proxy_before(site, folder) as service:
        async for found in again(site, service, count):
            sys.stdout.write(found.line() + "\n")
            is_fine &= found.added_ms <= ADDED_MS_MOST and not found.model_calls
    return is_fine


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.repeated", description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="how often the search is repeated (%(default)s)")
    parser.add_argument("--searches", type=int, default=1280, help="of the memory's measure (%(default)s)")
    options = parser.parse_args(arguments)
    is_fine = True
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        site, _ = stack.enter_context(stand_ins(folder))
        is_fine &= asyncio.run(_say_again(site, folder, options.count))
        for found in memory(site, folder, options.searches):
            sys.stdout.write(found.line() + "\n")
            is_fine &= found.megabytes <= found.most
    return 0 if is_fine else 1


if __name__ == "__main__":
    sys.exit(main())
