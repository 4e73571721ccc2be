"""Every endpoint reads a body the same however it is framed, as often as it needs to, and steering stays here."""

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.http1.exchange import Answer, Exchange
from tests.conftest import QUERY
from tests.endpoint_engine import DOCUMENTS, EndpointEngine, lines
from tests.fakes import Client, Message, chunked
from tests.listening import listening

STEERING: dict[str, Any] = {"ext": {"rerank_proxy": {"window": 3}}}
SEARCH = {**QUERY, **STEERING}
TEMPLATE = {"source": json.dumps(QUERY), **STEERING}
ITEMS = lines({"index": "products"}, SEARCH, {"index": "products"}, {**SEARCH, "sort": ["price"]})
ENDPOINTS = {
    "/_search": json.dumps(SEARCH).encode(),
    "/products/_search": json.dumps(SEARCH).encode(),
    "/_search/template": json.dumps(TEMPLATE).encode(),
    "/products/_search/template": json.dumps(TEMPLATE).encode(),
    "/_async_search": json.dumps(SEARCH).encode(),
    "/products/_async_search": json.dumps(SEARCH).encode(),
    "/_msearch": ITEMS,
    "/products/_msearch": ITEMS,
    "/_msearch/template": lines({"index": "products"}, TEMPLATE),
    "/products/_msearch/template": lines({}, TEMPLATE),
}
FRAMINGS = ("sized", "chunked", "gzip", "gzip in chunks")


@pytest.fixture
async def engine() -> AsyncIterator[EndpointEngine]:
    async with EndpointEngine([document for document in DOCUMENTS if document.index == "products"]) as server:
        yield server


def framed(target: str, content: bytes, framing: str) -> bytes:
    body = gzip.compress(content) if "gzip" in framing else content
    kind = "application/x-ndjson" if "_msearch" in target else "application/json"
    head = [f"POST {target} HTTP/1.1", "Host: proxy.example", f"Content-Type: {kind}"]
    head += ["Content-Encoding: gzip"] if "gzip" in framing else []
    if "chunk" in framing:
        head, body = [*head, "Transfer-Encoding: chunked"], chunked(body[:7], body[7:8], body[8:])
    else:
        head = [*head, f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("target", ENDPOINTS)
async def test_a_body_is_read_the_same_in_every_framing(
    client: Client, engine: EndpointEngine, target: str, framing: str
) -> None:
    await client.send(framed(target, ENDPOINTS[target], framing))
    answered = await client.answer()
    expected = "reranked, bypassed;reason=sort" if target.endswith("/_msearch") else "reranked"
    assert (200, expected) == (answered.status, answered.header("x-rerank"))
    assert [] == [sent.target for sent in engine.requests if b"rerank_proxy" in sent.content]


BYPASSED = {
    "/_search?sort=price": json.dumps(SEARCH).encode(),
    "/products/_search/template?format=yaml": json.dumps(TEMPLATE).encode(),
    "/_async_search?format=yaml": json.dumps(SEARCH).encode(),
    "/products/_async_search?sort=price": json.dumps(SEARCH).encode(),
    "/_msearch": lines({"index": "products"}, {**SEARCH, "sort": ["price"]}),
    "/products/_msearch/template": lines({}, {**TEMPLATE, "unknown": 1}),
}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("target", BYPASSED)
async def test_options_are_removed_from_bypassed_searches(
    client: Client, engine: EndpointEngine, target: str, framing: str
) -> None:
    await client.send(framed(target, BYPASSED[target], framing))
    answered = await client.answer()
    assert (200, "bypassed") == (answered.status, answered.header("x-rerank").partition(";")[0])
    assert [] == [sent.target for sent in engine.requests if b"rerank_proxy" in sent.content]
    sent = engine.requests[-1] if "_async" not in target else engine.of("_async_search")[-1]
    assert (target, "") == (sent.target, sent.header("content-encoding"))


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("limit", [10**6, 40])
async def test_reading_a_body_twice_gives_the_same_bytes(framing: str, limit: int) -> None:
    """Also of a body that was too large: what is left unread is not the body."""
    read: list[bytes | None] = []

    async def reads_twice(exchange: Exchange) -> None:
        read.extend([await exchange.read_body(limit), await exchange.read_body(limit)])
        exchange.send(Answer(200, [], b""))

    listener = await listening(reads_twice)
    client = await Client.to(listener.port)
    await client.send(framed("/", b"x" * 100 if "gzip" not in framing else bytes(range(100)), framing))
    assert 200 == (await client.answer()).status
    assert (2, True) == (len(read), read[0] == read[1])
    if "chunk" in framing:
        assert (read[0] is None) is (limit == 40)
    client.close()
    await listener.close(0)


async def test_a_body_passed_on_after_reading_keeps_its_framing(client: Client, engine: EndpointEngine) -> None:
    sent = framed("/_search", json.dumps({**QUERY, "sort": ["price"]}).encode(), "chunked")
    await client.send(sent)
    answered: Message = await client.answer()
    assert "bypassed;reason=sort" == answered.header("x-rerank")
    assert sent.partition(b"\r\n\r\n")[2] == engine.requests[-1].body
