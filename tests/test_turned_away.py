"""Whoever the engine turns away is forgotten at once, whichever way the 401 or 403 came back."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

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
async def test_a_caller_whose_search_is_refused_is_forgotten(
    client: Client, engine: EndpointEngine, models: FakeModels, target: str, body: Any, status: int
) -> None:
    await client.search("/products/_search", OTHER, authorization=MINE)
    assert NOTHING == await _forgotten(client, engine, models, "first text")
    _refuse_searches(engine, refuses(status))
    assert status == (await _ask(client, target, body)).status
    assert EVERYTHING == await _forgotten(client, engine, models, "second text")


@pytest.mark.parametrize(("status", "forgotten"), [(401, EVERYTHING), (403, NOTHING)])
async def test_any_request_says_whether_a_caller_is_known_and_only_a_search_whether_it_may_search(
    client: Client, engine: EndpointEngine, models: FakeModels, status: int, forgotten: tuple[bool, bool]
) -> None:
    await client.search("/products/_search", OTHER, authorization=MINE)
    engine.faults = {"other": refuses(status)}
    assert status == (await client.ask("PUT", "/products/_doc/1", b"{}", authorization=MINE)).status
    assert forgotten == await _forgotten(client, engine, models, "first text")


@pytest.mark.parametrize("status", [401, 403])
async def test_an_item_of_an_msearch_that_is_refused_is_a_search_that_is_refused(
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


async def test_another_callers_refusal_forgets_nothing(
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
    "another status": (b'{"responses":[{"error":{},"status":400},{"error":{},"status":4%d}]}', False),
}


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("target", ["/products/_msearch", "/logs/_msearch", "/_msearch/template"])
@pytest.mark.parametrize(("said", "refused"), ITEMS.values(), ids=ITEMS)
async def test_an_item_of_an_msearch_that_is_passed_on_is_a_search(
    client: Client, engine: EndpointEngine, models: FakeModels, target: str, said: bytes, refused: object, status: int
) -> None:
    await client.search("/products/_search", OTHER, authorization=MINE)
    body = said % status

    async def answers(stream: Stream, asked: Message) -> bytes:
        return answer(200, body)

    engine.faults = {"_msearch": answers, "other": answers, "_msearch/template": answers}
    own = lines({}, {**QUERY, "size": 0}) if target != "/_msearch/template" else b"no lines"
    assert body == (await _ask(client, target, own)).content
    assert (EVERYTHING if refused else NOTHING) == await _forgotten(client, engine, models, "first text")


@pytest.mark.parametrize("at", range(1, 40, 4))
async def test_the_end_of_an_item_may_arrive_in_two_parts(
    client: Client, engine: EndpointEngine, models: FakeModels, at: int
) -> None:
    await client.search("/products/_search", OTHER, authorization=MINE)
    body = b'{"took":1,"responses":[{"error":{},"status":403}]}'

    async def answers(stream: Stream, asked: Message) -> bytes:
        whole = answer(200, body)
        await stream.send(whole[:-at])
        await asyncio.sleep(0)
        return whole[-at:]

    engine.faults = {"_msearch": answers, "other": answers}
    assert body == (await _ask(client, "/logs/_msearch", lines({}, QUERY))).content
    assert EVERYTHING == await _forgotten(client, engine, models, "first text")
