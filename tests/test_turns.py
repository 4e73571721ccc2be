"""No client and no engine can hold up the others: what one turn of the loop may cost, whatever the bytes.

Measured in CPU of the thread, beside decoding and encoding as many bytes of JSON, so that it holds on any machine.
"""

import asyncio
import gc
import gzip
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress

import msgspec
import pytest

from proxy.bounds import MSEARCH_ITEMS
from proxy.settings.config import Config, Engine, Listen, Models, RouteSettings
from tests.conftest import StartProxy
from tests.fakes import FakeServer, Stream, answer, request
from tests.isolation import PATIENCE_S, connected, response_to, sent

TIMES_JSON = 5
_MB = 1_000_000
_HEAD = 250_000
"""Near the largest head that is read."""


class Sink(FakeServer):
    """Drops what it is sent; answers `/_resolve`, and whoever asks for a flood."""

    def __init__(self) -> None:
        super().__init__()
        self.flood = b""

    async def _talk(self, stream: Stream) -> None:
        last = b""
        while piece := await stream.reader.read(2**18):
            last = (last + piece)[-2000:]
            if b"/_resolve/" in piece[:200]:
                await stream.send(answer(200, b'{"indices":[{"name":"products","attributes":["open"]}]}'))
            elif piece.startswith(b"GET /flood"):
                await stream.send(self.flood)
            elif last.endswith((b"\r\n\r\n", b"{}")):
                await stream.send(answer(200, b"{}"))


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as server:
        yield server


@pytest.fixture
async def port(sink: Sink, start_proxy: StartProxy) -> int:
    route = RouteSettings(index="products*", passage=["title"])
    engine, models = Engine(url=sink.url), Models(url="http://127.0.0.1:9")
    client = await start_proxy(Config(listen=Listen(port=0), engine=engine, models=models, routes=(route,)))
    return int(client.writer.get_extra_info("peername")[1])


async def longest_turn(work: Awaitable[object]) -> float:
    """Return the most CPU seconds that the thread used in one turn of the loop."""
    longest, task = 0.0, asyncio.ensure_future(work)
    gc.collect()
    gc.disable()  # a collection is nobody's turn
    try:
        last = time.thread_time()
        while not task.done():
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, last = max(longest, now - last), now
    finally:
        gc.enable()
    await task
    return longest


def json_seconds(size: int) -> float:
    """Return how long decoding and encoding so many bytes of ordinary JSON takes: the shortest of some times.

    What is smaller than a megabyte may cost as much as one: a turn has other work, too.
    """
    size = max(size, _MB)
    row = {"title": "laptop for video", "price": 129, "tags": ["a", "b"], "in_stock": True}
    encoded = msgspec.json.encode([row] * (size // len(msgspec.json.encode(row))))
    times = []
    for _ in range(5):
        began = time.thread_time()
        msgspec.json.encode(msgspec.json.decode(encoded))
        times.append(time.thread_time() - began)
    return min(times)


def _chunked(target: str) -> bytes:
    return request("POST", target, content_type="application/json", transfer_encoding="chunked")


def _search(fields: bytes) -> bytes:
    head = b"POST /products/_search HTTP/1.1\r\nHost: p\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    return head + fields + b"\r\n{}"


def _get(target: bytes, fields: bytes = b"") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\nHost: p\r\n" + fields + b"\r\n"


Made = Callable[[int], bytes]
BODIES: Mapping[str, Made] = {
    f"{name}, {target}": lambda size, target=target, begin=begin, unit=unit, end=end: (
        _chunked(target) + begin + unit * (size // len(unit)) + end
    )
    for target in ("/products/_doc", "/products/_search")
    for name, begin, unit, end in (
        ("one-byte chunks", b"", b"1\r\n \r\n", b"0\r\n\r\n"),
        ("extensions", b"", b"1;\r\n \r\n", b"0\r\n\r\n"),
        ("trailers", b"2\r\n{}\r\n0\r\n", b"a:b\r\n", b"\r\n"),
    )
} | {
    "blank lines": lambda size: b"\r\n" * (size // 2) + _get(b"/"),
    "requests": lambda size: _get(b"/") * (size // 30),
}
HEADS: Mapping[str, Made] = {
    "headers": lambda size: _get(b"/", b"a:b\r\n" * (size // 5)),
    "headers of a search": lambda size: _search(b"a:b\r\n" * (size // 5)),
    "different headers of a search": lambda size: _search(b"".join(b"a%d:b\r\n" % n for n in range(size // 10))),
    "folds": lambda size: _get(b"/", b"a:" + b"\r\n b" * (size // 4) + b"\r\n"),
    "connection options": lambda size: _get(b"/", b"Connection: " + b"a," * (size // 2) + b"b\r\n"),
    "connection headers": lambda size: _get(b"/", b"Connection: a,b,c,d\r\n" * (size // 21)),
    "lengths": lambda size: b"POST / HTTP/1.1\r\nContent-Length: " + b"2," * (size // 2) + b"2\r\n\r\n{}",
    "via": lambda size: _get(b"/", b"Via: 1.1 rerank-proxy-,\r\n" * (size // 24)),
    "login": lambda size: _get(b"/", b"Authorization: " + b", " * (size // 2) + b"a\r\n"),
    "media types": lambda size: _search(b"Accept: " + b"a/b," * (size // 4) + b"\r\n"),
    "escapes in the target": lambda size: _get(b"/products/_doc/" + b"%2F" * (size // 3)),
    "parameters of a search": lambda size: _get(b"/products/_search?" + b"a=b&" * (size // 4)),
    "names of a search": lambda size: _get(b"/" + b"products," * (size // 9) + b"products/_search"),
    "parts of a path": lambda size: _get(b"/products" * (size // 9)),
}


async def _exchange(port: int, sent_bytes: bytes) -> None:
    async with connected(port) as client:
        await sent(client, sent_bytes)
        await response_to(client, "GET", PATIENCE_S)


@pytest.mark.parametrize("size", [_MB // 2, 2 * _MB])
@pytest.mark.parametrize("name", BODIES)
async def test_a_body_blocks_the_event_loop_in_proportion_to_its_size(name: str, size: int, port: int) -> None:
    made = BODIES[name](size)
    assert await longest_turn(_exchange(port, made)) < TIMES_JSON * json_seconds(size)


@pytest.mark.parametrize("name", HEADS)
async def test_a_head_blocks_the_event_loop_in_proportion_to_its_size(name: str, port: int) -> None:
    made = HEADS[name](_HEAD)
    assert await longest_turn(_exchange(port, made)) < TIMES_JSON * json_seconds(_HEAD)


ITEMS: Mapping[str, object] = {
    "query strings": {
        "bool": {
            "should": [
                {"query_string": {"query": text}} for text in ("(a OR b) AND " * 130 + "c", "title:x~ +b -c " * 110)
            ]
        }
    },
    "match clauses": {
        "bool": {"should": [{"match": {f"title{number}": f"red shoes {number % 3}"}} for number in range(150)]}
    },
}


@pytest.mark.parametrize("name", ITEMS)
async def test_an_msearch_blocks_the_event_loop_in_proportion_to_its_items(name: str, port: int) -> None:
    item = b'{"index":"products"}\n' + msgspec.json.encode({"query": ITEMS[name]}) + b"\n"
    body = item * (MSEARCH_ITEMS // 2)
    made = request("POST", "/_msearch", body, content_type="application/x-ndjson")
    assert await longest_turn(_exchange(port, made)) < TIMES_JSON * json_seconds(len(body))


_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
_OK_CHUNKED = _OK + b"transfer-encoding: chunked\r\n\r\n"
_OK_GZIP = _OK + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"


def _inflating(content: bytes) -> bytes:
    compressed = gzip.compress(content, compresslevel=1)
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(compressed), compressed)


RESPONSES: Mapping[str, tuple[int, Made]] = {
    "one-byte chunks": (2 * _MB, lambda size: _OK_CHUNKED + b"1\r\n \r\n" * (size // 6) + b"0\r\n\r\n"),
    "trailers": (2 * _MB, lambda size: _OK_CHUNKED + b"0\r\n" + b"a:b\r\n" * (size // 5) + b"\r\n"),
    "headers": (_HEAD, lambda size: _OK + b"a:b\r\n" * (size // 5) + b"content-length: 0\r\n\r\n"),
    "a gzip bomb": (2 * _MB, lambda size: _OK_GZIP + _inflating(b"}" * 100 * size)),
    "gzip": (2 * _MB, lambda size: _OK_GZIP + _inflating(b'{"hits":{},"status":403,' * (size // 24))),
    "folds": (_HEAD, lambda size: _OK + b"a:" + b"\r\n b" * (size // 4) + b"\r\ncontent-length: 0\r\n\r\n"),
}


@pytest.mark.parametrize("target", [b"/flood", b"/flood/_msearch"])
@pytest.mark.parametrize("name", RESPONSES)
async def test_a_response_blocks_the_event_loop_in_proportion_to_its_size(
    name: str, target: bytes, sink: Sink, port: int
) -> None:
    size, made = RESPONSES[name]
    sink.flood = made(size)

    async def exchange() -> None:
        async with connected(port) as client:
            await client.send(_get(target))
            last = b""
            with suppress(ConnectionError):
                while not last.endswith(b"\r\n\r\n"):
                    piece = await client.reader.read(2**18)
                    if not piece:
                        return
                    last = (last + piece)[-4:]

    assert await longest_turn(exchange()) < TIMES_JSON * json_seconds(size)
