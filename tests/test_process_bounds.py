"""`rerank-proxy serve` as a process before a raw engine: what it holds in memory, and of descriptors."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.fakes import Client, FakeServer, Message, Stream, answer, request
from tests.integration.commands import Running, serving
from tests.isolation import PATIENCE_S, connected, response_to, sent
from tests.redis_server import free_port

_FLOOD_BYTES = 64 * 1024 * 1024
"""How much is sent of what should end soon."""
_HELD_MAX_BYTES = 40 * 1024 * 1024
"""How much the process may grow by it: a few of the largest bodies that are read, 8 MB each."""
_PIECE = 256 * 1024
_STILL_S = 1.0
"""After how long a flood that is not taken any more is given up."""


class Sink(FakeServer):
    """An engine that drops bodies as they come, and floods those who ask for it."""

    def __init__(self) -> None:
        super().__init__()
        self.flood: Iterator[bytes] = iter(())
        self.heads: list[Message] = []
        self.content = b"{}"

    async def _talk(self, stream: Stream) -> None:
        while head := await stream.head():
            self.heads.append(Message(head, b""))
            await self._answer(stream, self.heads[-1])

    async def _answer(self, stream: Stream, head: Message) -> None:
        if "/_search" in head.path and self.flood is not None:
            for piece in self.flood:
                await stream.send(piece)
        if "/_resolve/" in head.path:
            await stream.send(answer(200, b'{"indices":[{"name":"products","attributes":["open"]}]}'))
        elif head.header("transfer-encoding"):
            await stream.left()
        else:
            await stream.body(head)
            await stream.send(answer(200, self.content))


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as server:
        yield server


Serve = Callable[..., Awaitable[tuple[Running, int]]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Run a proxy in front of an engine, and return it with its port."""
    async with AsyncExitStack() as stack:

        async def start(engine: str, **more: Any) -> tuple[Running, int]:
            within = more.pop("within", ())
            settings = {"engine": {"url": engine}, **more}
            command, url = await stack.enter_async_context(serving(tmp_path, settings, within=within))
            stack.push_async_callback(_read_log, command)
            return command, urlsplit(url).port or 0

        yield start


async def _read_log(command: Running) -> None:
    with suppress(ProcessLookupError):
        command.process.kill()
    await command.ended()


def _most_bytes(command: Running) -> int:
    """Return the most that the process has held in memory so far."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{command.process.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


_ROUTES: Mapping[str, Any] = {
    "routes": [{"index": "products*", "passage": ["title"]}],
    "models": {"url": "http://127.0.0.1:9"},
}
_EXTENSION = b"1;" + b"x" * 10_000 + b"\r\na\r\n"
_TRAILER = b"a: " + b"x" * 10_000 + b"\r\n"
_CHUNKED_SEARCH = request("POST", "/products/_search", content_type="application/json", transfer_encoding="chunked")
FLOODS: Mapping[str, tuple[bytes, bytes]] = {
    "chunk extensions": (_CHUNKED_SEARCH, _EXTENSION),
    "trailers": (_CHUNKED_SEARCH + b"2\r\n{}\r\n0\r\n", _TRAILER),
    "one-byte chunks": (_CHUNKED_SEARCH, b"1\r\n \r\n"),
    "leading zeros": (_CHUNKED_SEARCH, b"0" * 10_000 + b"1\r\na\r\n"),
    "a line that does not end": (_CHUNKED_SEARCH + b"1;", b"x"),
    "a head that does not end": (b"GET /products/_search HTTP/1.1\r\n", _TRAILER),
    "a header that does not end": (b"GET /products/_search HTTP/1.1\r\na: ", b"x"),
    "requests": (b"", b"GET /products/_doc/1 HTTP/1.1\r\nHost: p\r\n\r\n"),
    "requests behind one that is not answered": (
        b"PUT /held HTTP/1.1\r\nHost: p\r\nContent-Length: 9\r\n\r\n",
        b"GET /a HTTP/1.1\r\n\r\n",
    ),
}


def _flood(begin: bytes, unit: bytes) -> Iterator[bytes]:
    yield begin
    piece = unit * max(1, _PIECE // len(unit))
    for _ in range(_FLOOD_BYTES // len(piece)):
        yield piece


@pytest.mark.parametrize("routed", [False, True], ids=["no route", "a route"])
async def test_memory_is_bounded_whatever_a_client_sends(*, routed: bool, sink: Sink, serve: Serve) -> None:
    command, port = await serve(sink.url, **(_ROUTES if routed else {}))
    await _assert_serves(port)
    grown = {}
    for name, flood in FLOODS.items():
        before = _most_bytes(command)
        async with connected(port) as client:
            for piece in _flood(*flood):
                if not await _taken(client, piece):
                    break
        grown[name] = _most_bytes(command) - before
    await _assert_serves(port)
    assert [] == [name for name, size in grown.items() if size > _HELD_MAX_BYTES], grown


async def test_responses_to_a_client_that_does_not_read_do_not_pile_up(sink: Sink, serve: Serve) -> None:
    sink.content = b" " * 100_000
    command, port = await serve(sink.url)
    await _assert_serves(port)
    before = _most_bytes(command)
    async with connected(port) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport reads, too
        for piece in _flood(*FLOODS["requests"]):
            if not await _taken(client, piece):
                break
    await _assert_serves(port)
    assert _most_bytes(command) - before < _HELD_MAX_BYTES


async def _assert_serves(port: int) -> None:
    async with connected(port) as client:
        await client.send(request("GET", "/"))
        assert await response_to(client, "GET", PATIENCE_S)


async def _taken(client: Client, piece: bytes) -> bool:
    """Send bytes; tell whether they are taken, now or while we wait a little."""
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(_STILL_S):
            await client.send(piece)
            return True
    return False


_SEARCH = request("POST", "/products/_search", b'{"query":{"match":{"title":"a"}}}', content_type="application/json")
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
ENGINE_FLOODS: Mapping[str, tuple[bytes, bytes]] = {
    "chunk extensions": (_OK + b"transfer-encoding: chunked\r\n\r\n", _EXTENSION),
    "trailers": (_OK + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", _TRAILER),
    "one-byte chunks": (_OK + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a body without an end": (_OK + b"\r\n", b" "),
    "a head that does not end": (_OK, _TRAILER),
    "interim responses": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
}


@pytest.mark.parametrize("routed", [False, True], ids=["no route", "a route"])
async def test_memory_is_bounded_whatever_an_engine_sends(*, routed: bool, sink: Sink, serve: Serve) -> None:
    """The client reads nothing of the response."""
    command, port = await serve(sink.url, **(_ROUTES if routed else {}))
    await _assert_serves(port)
    grown = {}
    for name, flood in ENGINE_FLOODS.items():
        before, stopped = _most_bytes(command), asyncio.Event()
        sink.flood = _with_end(flood, stopped)
        async with connected(port) as client:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport reads, too
            await sent(client, _SEARCH)
            with suppress(TimeoutError):
                async with asyncio.timeout(_STILL_S):
                    await stopped.wait()
            grown[name] = _most_bytes(command) - before
    sink.flood = iter(())
    await _assert_serves(port)
    assert [] == [name for name, size in grown.items() if size > 2 * _HELD_MAX_BYTES], grown  # 64 MB are read of it


def _with_end(flood: tuple[bytes, bytes], stopped: asyncio.Event) -> Iterator[bytes]:
    try:
        yield from _flood(*flood)
    finally:
        stopped.set()


async def test_at_the_limit_of_descriptors_accepting_waits_and_goes_on(sink: Sink, serve: Serve) -> None:
    """Connected clients are served, new ones wait, and the log says so."""
    command, port = await serve(sink.url, within=("prlimit", "--nofile=64:64"))
    asked = b"GET / HTTP/1.1\r\nHost: p\r\n\r\n"
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(port)) for _ in range(60)]
        paused = json.loads(await command.until("accepting_paused"))
        assert "ulimit" in paused["message"]
        for client in clients[:5]:
            await client.send(asked)
            assert await response_to(client, "GET", PATIENCE_S)
        await clients[-1].send(asked)
        for client in clients[:-1]:
            client.close()
        assert await response_to(clients[-1], "GET", PATIENCE_S)
    await _assert_serves(port)


async def test_connections_to_the_admin_port_leave_descriptors_for_searches(sink: Sink, serve: Serve) -> None:
    """However many there are, and whether they send nothing or half a request; the port itself still answers."""
    admin = free_port()
    command, port = await serve(
        sink.url, within=("prlimit", "--nofile=128:128"), admin={"host": "127.0.0.1", "port": admin}
    )
    async with AsyncExitStack() as stack:
        for number in range(200):
            client = await stack.enter_async_context(connected(admin))
            await sent(client, b"GET /readyz HTTP/1.1\r\nHo" if number % 2 else b"")
            await asyncio.sleep(0)
        await _assert_serves(port)
        async with connected(admin) as client:
            await client.send(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answered = await response_to(client, "GET", PATIENCE_S)
        assert answered is not None
        assert 200 == answered.status
        assert len(os.listdir(f"/proc/{command.process.pid}/fd")) < 100  # noqa: PTH208  names only
    await _assert_serves(port)


async def test_sighup_does_not_end_the_process(sink: Sink, serve: Serve) -> None:
    command, port = await serve(sink.url)
    command.process.send_signal(signal.SIGHUP)
    await command.until('"reloaded"')
    await _assert_serves(port)
