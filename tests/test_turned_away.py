"""Whoever the engine turns away is forgotten at once, whichever way the 401 or 403 came back."""

import asyncio
import gzip
import json
import random
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from proxy.http1.flow import ReadGate
from proxy.http1.messages import read_response_head
from proxy.http1.rejections import RejectedItems
from tests.conftest import OTHER, QUERY
from tests.endpoint_engine import DOCUMENTS, EndpointEngine, lines
from tests.fakes import Client, FakeModels, Fault, Message, Stream, answer, refuses, waits_for

MINE = "ApiKey mine"


@pytest.fixture
async def engine() -> AsyncIterator[EndpointEngine]:
    async with EndpointEngine(DOCUMENTS) as server:
        yield server


NOTHING, EVERYTHING = (False, False), (True, True)


async def _forgotten(client: Client, engine: EndpointEngine, models: FakeModels, text: str) -> tuple[bool, bool]:
    """Tell whether the names are asked anew, and whether this text is embedded only after the engine's response."""
    names = len(engine.of("resolve"))
    held = asyncio.Event()
    engine.faults = {"lexical": waits_for(held)}
    body = {"query": {"match": {"title": text}}}
    searches = len(engine.of("lexical"))
    asking = asyncio.ensure_future(client.search("/products/_search", body, authorization=MINE))
    await engine.until_asked("lexical", searches + 1)
    other = await Client.to(client.writer.get_extra_info("peername")[1])
    for _ in range(3):  # as long as a call of the model would take to arrive
        await other.ask("GET", "/_cat/health")
    other.close()
    waited = not any(text.encode() in asked.content for asked in models.of("embed"))
    held.set()
    assert "reranked" == (await asking).header("x-rerank")
    return len(engine.of("resolve")) > names, waited


SEARCHES: dict[str, tuple[str, Any]] = {
    "a search made here": ("/products/_search", QUERY),
    "a bypassed search": ("/products/_search", {**QUERY, "size": 0}),
    "a search of no route": ("/logs/_search", QUERY),
    "a scroll": ("/products/_search?scroll=1m", QUERY),
    "a bypassed _msearch": ("/products/_msearch", lines({}, {**QUERY, "size": 0})),
    "an _msearch that is no JSON": ("/products/_msearch", b"no lines"),
    "an asynchronous search": ("/products/_async_search", QUERY),
    "a bypassed asynchronous search": ("/products/_async_search?format=yaml", QUERY),
    "a template": ("/products/_search/template", {"source": json.dumps(QUERY)}),
}


def _refuse_searches(engine: EndpointEngine, fault: Fault) -> None:
    engine.faults = dict.fromkeys(("lexical", "_msearch", "_async_search", "_search/template", "poll", "other"), fault)


async def _ask(client: Client, target: str, body: Any) -> Message:
    if isinstance(body, bytes):
        return await client.ask("POST", target, body, content_type="application/x-ndjson", authorization=MINE)
    return await client.search(target, body, authorization=MINE)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(("target", "body"), SEARCHES.values(), ids=SEARCHES)
async def test_the_cache_of_a_caller_with_a_rejected_search_is_dropped(
    client: Client, engine: EndpointEngine, models: FakeModels, target: str, body: Any, status: int
) -> None:
    await client.search("/products/_search", OTHER, authorization=MINE)
    assert NOTHING == await _forgotten(client, engine, models, "first text")
    _refuse_searches(engine, refuses(status))
    assert status == (await _ask(client, target, body)).status
    assert EVERYTHING == await _forgotten(client, engine, models, "second text")


@pytest.mark.parametrize(("status", "forgotten"), [(401, EVERYTHING), (403, NOTHING)])
async def test_any_401_and_a_403_for_a_search_drop_the_callers_cache(
    client: Client, engine: EndpointEngine, models: FakeModels, status: int, forgotten: tuple[bool, bool]
) -> None:
    await client.search("/products/_search", OTHER, authorization=MINE)
    engine.faults = {"other": refuses(status)}
    assert status == (await client.ask("PUT", "/products/_doc/1", b"{}", authorization=MINE)).status
    assert forgotten == await _forgotten(client, engine, models, "first text")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_rejected_msearch_item_counts_as_a_rejected_search(
    client: Client, engine: EndpointEngine, models: FakeModels, status: int
) -> None:
    await client.search("/products/_search", OTHER, authorization=MINE)
    error = {"error": {"type": "security_exception", "reason": "not for you"}, "status": status}

    async def refuses_the_item(stream: Stream, asked: Message) -> bytes:
        return answer(200, json.dumps({"took": 1, "responses": [error]}).encode())

    engine.faults = {"_msearch": refuses_the_item}
    wrong = {**QUERY, "ext": {"rerank_proxy": {"explain": "perhaps"}}}  # refused here, without a search
    answered = await _ask(client, "/products/_msearch", lines({}, wrong, {}, {**QUERY, "size": 0}))
    assert [400, status] == [item["status"] for item in answered.json()["responses"]]
    assert EVERYTHING == await _forgotten(client, engine, models, "first text")


async def test_a_rejection_does_not_affect_other_callers(
    client: Client, engine: EndpointEngine, models: FakeModels
) -> None:
    await client.search("/products/_search", OTHER, authorization=MINE)
    engine.faults = {"lexical": refuses(401)}
    for body in (QUERY, {**QUERY, "size": 0}):
        assert 401 == (await client.search("/products/_search", body, authorization="ApiKey another")).status
    assert NOTHING == await _forgotten(client, engine, models, "first text")


ITEMS: dict[str, tuple[bytes, bool]] = {
    "refused": (b'{"took":1,"responses":[{"error":{"type":"security_exception"},"status":%d}]}', True),
    "pretty": (b'{\n  "responses" : [\n    {\n      "error" : {\n      },\n      "status" : %d\n    }\n  ]\n}', True),
    "behind others": (b'{"responses":[' + b'{"hits":{},"status":200},' * 9000 + b'{"error":{},"status":%d}]}', True),
    "of a document": (b'{"responses":[{"hits":{"hits":[{"_source":{"status":%d}}]},"status":200}]}', False),
    "of a log entry": (b'{"responses":[{"hits":{"hits":[{"_source":{"url":{},"status":%d}}]},"status":200}]}', False),
    "of a sorted one": (b'{"responses":[{"hits":{"hits":[{"_source":{"url":{},"status":%d},"sort":[1]}]}}]}', False),
    "another status": (b'{"responses":[{"error":{},"status":400},{"error":{},"status":4%d}]}', False),
}


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


CODINGS: dict[str, Callable[[bytes], bytes]] = {"identity": bytes, "gzip": _gzip, "deflate": zlib.compress}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("target", ["/products/_msearch", "/logs/_msearch", "/_msearch/template"])
@pytest.mark.parametrize(("said", "refused"), ITEMS.values(), ids=ITEMS)
async def test_a_rejected_item_of_a_passed_through_msearch_counts(
    client: Client,
    engine: EndpointEngine,
    models: FakeModels,
    target: str,
    said: bytes,
    refused: object,
    status: int,
    coding: str,
) -> None:
    await client.search("/products/_search", OTHER, authorization=MINE)
    body = CODINGS[coding](said % status)

    async def answers(stream: Stream, asked: Message) -> bytes:
        return answer(200, body, ("content-encoding", coding))

    engine.faults = {"_msearch": answers, "other": answers, "_msearch/template": answers}
    own = lines({}, {**QUERY, "size": 0}) if target != "/_msearch/template" else b"no lines"
    assert body == (await _ask(client, target, own)).content
    assert (EVERYTHING if refused else NOTHING) == await _forgotten(client, engine, models, "first text")


REFUSED = b'{"took":1,"responses":[{"error":{},"status":403}]}'


def _chunked(content: bytes, size: int) -> bytes:
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


async def _answered(client: Client, engine: EndpointEngine, *parts: bytes) -> bytes:
    """Return what a client receives if the engine sends this response to its `_msearch` in these parts."""

    async def answers(stream: Stream, asked: Message) -> bytes:
        for part in parts[:-1]:
            await stream.send(part)
            await asyncio.sleep(0)
        return parts[-1]

    engine.faults = {"_msearch": answers, "other": answers}
    return (await _ask(client, "/logs/_msearch", lines({}, QUERY))).content


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("at", range(1, 40, 4))
async def test_an_items_status_may_arrive_in_two_parts(
    client: Client, engine: EndpointEngine, models: FakeModels, at: int, coding: str
) -> None:
    await client.search("/products/_search", OTHER, authorization=MINE)
    body = CODINGS[coding](REFUSED)
    whole = answer(200, body, ("content-encoding", coding))
    assert body == await _answered(client, engine, whole[:-at], whole[-at:])
    assert EVERYTHING == await _forgotten(client, engine, models, "first text")


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [1, 7, 16, 1000])
async def test_an_items_status_may_span_several_chunks(
    client: Client, engine: EndpointEngine, models: FakeModels, size: int, coding: str
) -> None:
    await client.search("/products/_search", OTHER, authorization=MINE)
    body = CODINGS[coding](REFUSED)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: %b\r\ntransfer-encoding: chunked\r\n\r\n" % coding.encode()
    assert body == await _answered(client, engine, head + _chunked(body, size))
    assert EVERYTHING == await _forgotten(client, engine, models, "first text")


def _hits(count: int) -> bytes:
    """Return items that compress about as well as those of an engine."""
    numbers = random.Random(1)  # noqa: S311  not for security
    hits = (b'{"_id":"%d","_score":%f,"_source":{"title":"laptop"}}' % (n, numbers.random()) for n in range(count))
    return b'{"hits":{"hits":[%b]},"status":200}' % b",".join(hits)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_large_compressed_response_is_read_to_its_end(
    client: Client, engine: EndpointEngine, models: FakeModels, coding: str
) -> None:
    await client.search("/products/_search", OTHER, authorization=MINE)
    body = CODINGS[coding](b'{"responses":[' + _hits(120_000) + b',{"error":{},"status":403}]}')
    assert len(body) > 2**19  # several reads of the connection
    assert body == await _answered(client, engine, answer(200, body, ("content-encoding", coding)))
    assert body == await _answered(client, engine, answer(200, body, ("content-encoding", coding)))
    assert EVERYTHING == await _forgotten(client, engine, models, "first text")


_ZEROS = b"0" * 2**26
UNREADABLE: dict[str, tuple[str, bytes]] = {
    "not compressed": ("gzip", b"{}" + REFUSED),
    "broken": ("gzip", _gzip(b"x" * 999)[:18] + REFUSED),
    "cut off": ("gzip", _gzip(REFUSED)[:20]),
    "a bomb": ("gzip", _gzip(_ZEROS + REFUSED)),
    "a bomb, deflated": ("deflate", zlib.compress(_ZEROS + REFUSED)),
    "beyond its end": ("gzip", _gzip(b"{}") + _gzip(REFUSED)),
    "another coding": ("br", REFUSED),
    "compressed twice": ("gzip, gzip", _gzip(_gzip(REFUSED))),
}


@pytest.mark.parametrize(("coding", "body"), UNREADABLE.values(), ids=UNREADABLE)
async def test_a_response_that_cannot_be_decompressed_is_passed_on(
    client: Client, engine: EndpointEngine, models: FakeModels, coding: str, body: bytes
) -> None:
    await client.search("/products/_search", OTHER, authorization=MINE)
    assert body == await _answered(client, engine, answer(200, body, ("content-encoding", coding)))
    assert body == await _answered(client, engine, answer(200, body, ("content-encoding", coding)))
    assert NOTHING == await _forgotten(client, engine, models, "first text")


@pytest.mark.parametrize("ends", [False, True])
async def test_reading_pauses_while_a_response_is_decompressed(client: Client, *, ends: bool) -> None:
    transport = cast("asyncio.Transport", client.writer.transport)
    head = read_response_head(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", b"POST")
    rejected = asyncio.get_running_loop().create_future()
    items = RejectedItems(head, ReadGate(transport), rejected.set_result)
    items.read([_gzip(b'{"responses":[' + _hits(20_000) + b',{"error":{},"status":403}]}')])
    assert not transport.is_reading()
    if ends:
        items.ended()
        assert transport.is_reading()
    assert 403 == await rejected
    assert transport.is_reading()
