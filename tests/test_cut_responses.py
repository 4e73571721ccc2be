"""Each request to the engine fails in the middle of its response: the search is answered in time, and by its own hits.

A caller of its own for each fault, so that nothing is cached; many at once on the same connections to the engine. Each
hit says in its title whose search it answers.
"""

import asyncio
import gzip
import itertools
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import msgspec
import pytest

from proxy.app import Proxy, open_proxy
from proxy.http1.listener import serve
from proxy.settings.config import Config, Semantic
from tests.conftest import CATALOGUE, QUERY, TOKEN, Log
from tests.fakes import Client, FakeEngine, Message, Stream, answer, chunked

_STEP = 29
"""Each so many bytes of the response."""
_AT_ONCE = 24
_SOON_S, _HANGS_S, _IN_TIME_S = 0.3, 1.0, 6.0

SEARCHES: dict[str, Any] = {
    "resolve": QUERY,
    "facts": QUERY,
    "types": QUERY,
    "lexical": QUERY,
    "semantic": QUERY,
    "render": QUERY,
    "passages": {**QUERY, "_source": False},
    "boosts": {"query": {"function_score": {**QUERY, "functions": [{"field_value_factor": {"field": "sold"}}]}}},
    "facets": {**QUERY, "from": 12, "aggs": {"brand": {"terms": {"field": "brand"}}}},
}
"""A search that needs the request of each kind."""
WAYS = ("cut", "reset", "hangs", "trickles")
FRAMINGS = ("sized", "chunked", "gzip", "gzip chunked")


def framed(framing: str, plain: bytes) -> bytes:
    """Send a response in another framing."""
    head, _, body = plain.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    if "gzip" in framing:
        body = gzip.compress(body, 1, mtime=0)
        lines.append(b"content-encoding: gzip")
    if "chunked" in framing:
        size = len(body) // 3
        body = chunked(*[body[at : at + size] for at in range(0, len(body), size)], trailers=b"x: 1\r\n")
        lines.append(b"transfer-encoding: chunked")
    else:
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + body


class Faulty(FakeEngine):
    """Does to a response what the X-Opaque-Id of its search says: `kind/way/framing/byte`."""

    def __init__(self) -> None:
        super().__init__([document for document in CATALOGUE if document.index == "products"])
        self.lengths: dict[tuple[str, str], int] = {}
        self.left = 0
        """How many connections the proxy ended while a response hung."""

    async def _talk(self, stream: Stream) -> None:
        while request := await stream.request():
            await self.remember(request)
            opaque_id, kind = request.header("x-opaque-id"), self.kind(request)
            said = self._of(request, opaque_id, kind)
            told = opaque_id.split("/")
            if told[0] != kind:
                await stream.send(said)
                continue
            _, way, framing, place = told
            sent = framed(framing, said)
            self.lengths[kind, framing] = len(sent)
            if not await self._faulty(stream, way, sent, int(place)):
                return

    def _of(self, request: Message, opaque_id: str, kind: str) -> bytes:
        """Return the usual response, with the name of the search in each title."""
        if kind == "facts" and opaque_id.startswith("types/"):
            return answer(403, b'{"error":{"type":"security_exception"},"status":403}')
        body = self.usual(request).partition(b"\r\n\r\n")[2].replace(b'"title":"', b'"title":"%s ' % opaque_id.encode())
        return answer(200, body, ("X-elastic-product", "Elasticsearch"))

    async def _faulty(self, stream: Stream, way: str, sent: bytes, place: int) -> bool:
        """Send a response up to a place; return whether the connection goes on."""
        await stream.send(sent[:place])
        if place >= len(sent):  # a shorter one than that which was measured
            return True
        if way == "trickles":
            for at in range(place, min(place + 8, len(sent))):
                await stream.send(sent[at : at + 1])
                await asyncio.sleep(0)
            await stream.send(sent[place + 8 :])
            return True
        if way == "hangs":
            with suppress(TimeoutError):
                await asyncio.wait_for(stream.left(), _HANGS_S)
                self.left += 1
        if way != "cut":
            await asyncio.sleep(0)
            stream.break_off()
        return False


@pytest.fixture
async def engine() -> AsyncIterator[Faulty]:
    async with Faulty() as server:
        yield server


@pytest.fixture
async def opened(settings: Config, log: Log) -> AsyncIterator[tuple[Proxy, int]]:
    """A proxy that waits for nothing long, and its port."""
    (route,) = settings.routes
    semantic = Semantic(field="embedding", dimensions=3, timeout_seconds=_SOON_S)
    impatient = msgspec.structs.replace(
        settings,
        engine=msgspec.structs.replace(settings.engine, resolve_timeout_seconds=_SOON_S, added_timeout_seconds=_SOON_S),
        routes=(msgspec.structs.replace(route, semantic=semantic, budget_ms=3000),),
    )
    async with AsyncExitStack() as stack:
        proxy = await open_proxy(impatient, TOKEN, {}, stack)
        listener = await serve(proxy.handle, proxy.upstream, "127.0.0.1", 0, conclude=proxy.telemetry.conclude)
        stack.push_async_callback(listener.close, 1.0)
        yield proxy, listener.port


async def ask(port: int, kind: str, way: str, framing: str, place: int) -> str:
    """Search, and then ask something else on the same connection; return what is wrong with the response."""
    opaque_id = f"{kind}/{way}/{framing}/{place}"
    fields = {"accept_encoding": "gzip"} if "gzip" in framing else {}
    client = await Client.to(port)
    try:
        async with asyncio.timeout(_IN_TIME_S):
            fields |= {"x_opaque_id": opaque_id, "authorization": f"Basic {opaque_id}"}
            answered = await client.search("/products/_search", SEARCHES[kind], **fields)
            wrong = _wrong(kind, way, opaque_id, answered)
            after = await client.ask("GET", "/_cat/health")
            return wrong or ("" if after.json() == {"acknowledged": True} else f"then {after.body!r}")
    except TimeoutError:
        return "" if (kind, way) == ("lexical", "hangs") else "no response in time"
    except (ConnectionError, EOFError) as broken:  # the client's own search was passed through, and is as broken
        return "" if kind == "lexical" and way != "trickles" else repr(broken)
    finally:
        client.close()


def _wrong(kind: str, way: str, opaque_id: str, answered: Message) -> str:
    if answered.status == 502 and kind == "lexical" and way != "trickles":
        return ""
    body = answered.content
    body = gzip.decompress(body) if answered.header("content-encoding") == "gzip" else body
    if answered.status != 200:
        return f"{answered.status} {answered.header('x-rerank')} {body!r}"
    found = {hit["_id"] for hit in json.loads(body)["hits"]["hits"]}
    titles = set(re.findall(r'"title":"(\S+ ?\S*/\d+) ', body.decode()))
    complete = kind == "facets" or {"a", "b", "c"} <= found
    return "" if complete and titles <= {opaque_id} else f"{answered.header('x-rerank')} {found} {titles}"


@pytest.mark.parametrize("way", WAYS)
async def test_a_response_that_ends_anywhere_is_no_ones_but_its_own(
    way: str, engine: Faulty, opened: tuple[Proxy, int], log: Log
) -> None:
    """Only the client's own search may fail with it; nothing of the memory for responses stays taken."""
    proxy, port = opened
    for kind, framing in itertools.product(SEARCHES, FRAMINGS):
        assert "" == await ask(port, kind, "trickles", framing, 0), (kind, framing)
    places = [
        (kind, way, framing, place)
        for (kind, framing), length in engine.lengths.items()
        if (kind, way) != ("lexical", "hangs")  # its client waits as long as it likes
        for place in range(0, length, _STEP)
    ]
    turns, failing = asyncio.Semaphore(_AT_ONCE), []

    async def one(*fault: Any) -> None:
        async with turns:
            if wrong := await ask(port, *fault):
                failing.append((fault, wrong))

    await asyncio.gather(*(one(*fault) for fault in places))
    assert [] == failing
    assert len(SEARCHES) * len(FRAMINGS) == len(engine.lengths)
    assert [] == [line for line in log if line["event"] == "internal_error"]
    assert 0 == proxy._held.size  # noqa: SLF001


async def test_a_client_that_leaves_ends_its_search_wherever_the_response_hangs(
    engine: Faulty, opened: tuple[Proxy, int]
) -> None:
    """At once, and no memory stays taken."""
    proxy, port = opened
    assert "" == await ask(port, "lexical", "trickles", "sized", 0)
    clients = [await Client.to(port) for _ in range(0, engine.lengths["lexical", "sized"], _STEP)]
    for number, client in enumerate(clients):
        opaque_id = f"lexical/hangs/sized/{number * _STEP}"
        body = json.dumps(QUERY).encode()
        lines = f"content-type: application/json\r\nx-opaque-id: {opaque_id}\r\ncontent-length: {len(body)}\r\n\r\n"
        await client.send(f"POST /products/_search HTTP/1.1\r\nhost: p\r\n{lines}".encode() + body)
    await engine.until_asked("lexical", 1 + len(clients))
    for client in clients:
        client.writer.transport.abort()
    async with asyncio.timeout(_IN_TIME_S):
        while engine.left < len(clients) or proxy._held.size:  # noqa: ASYNC110, SLF001  nothing else tells it
            await asyncio.sleep(0)
