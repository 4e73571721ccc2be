"""Shadow mode: the client gets the engine's response, and the log says what reranking would have changed."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from proxy.app import open_proxy
from proxy.bounds import SHADOW_RUNS
from proxy.context import SearchRecord, Shadow
from proxy.endpoints.answering import Searching
from proxy.endpoints.shadowing import Shadows
from proxy.http1.listener import serve
from proxy.outcomes import Outcome
from proxy.ranking.load import UncalledModels
from proxy.settings.config import Config
from tests.conftest import QUERY, TOKEN, Log, StartProxy
from tests.endpoint_engine import DOCUMENTS, EndpointEngine, lines
from tests.fakes import Client, FakeModels, Message, hangs, ids, refuses, waits_for

LEXICAL = ["a", "b", "c"]
TEMPLATE = {"source": json.dumps(QUERY)}
Lines = asyncio.Queue[Any]


@pytest.fixture
async def engine() -> AsyncIterator[EndpointEngine]:
    async with EndpointEngine(DOCUMENTS) as server:
        yield server


@pytest.fixture
def settings(settings: Config) -> Config:
    return with_route(settings, mode="shadow")


@pytest.fixture
def searched(log: Log) -> Lines:
    """The log's lines of searches, each to be waited for."""
    found = Lines()

    def note(_: Any, __: str, event: Any) -> Any:
        if event["event"] == "search":
            found.put_nowait(dict(event))
        return event

    structlog.get_config()["processors"].insert(0, note)
    return found


def with_route(settings: Config, **changes: Any) -> Config:
    return msgspec.structs.replace(settings, routes=(msgspec.structs.replace(settings.routes[0], **changes),))


async def test_the_client_gets_the_engines_bytes_and_the_log_the_comparison(
    searched: Lines, client: Client, engine: EndpointEngine
) -> None:
    body = json.dumps(QUERY, indent=3).encode()
    answered = await client.ask("POST", "/products/_search?pretty", body, content_type="application/json")
    line = await searched.get()
    own, again = engine.of("lexical")
    assert ("bypassed;reason=shadow", LEXICAL, body) == (answered.header("x-rerank"), ids(answered), own.content)
    assert engine.usual(own).endswith(answered.content)
    assert ("bypassed", "shadow", 10, 4) == (line["outcome"], line["reason"], line["window"], line["candidates"])
    shadow = line["shadow"]
    assert {"outcome": "reranked", "overlap_at_10": 0.75, "kendall_tau": -0.333, "moved": 1, "entered": 1} == {
        name: shadow[name] for name in ("outcome", "overlap_at_10", "kendall_tau", "moved", "entered")
    }
    assert {"lexical", "semantic", "embed", "rerank", "total"} <= shadow["ms"].keys()
    assert len(engine.of("semantic")) + len(engine.of("render")) + len([again]) == shadow["engine_searches"]
    assert "rerank" not in line["ms"]


async def test_every_field_of_a_shadow_is_documented(searched: Lines, client: Client, models: FakeModels) -> None:
    models.faults["rerank"] = refuses(500)
    await client.search("/products/_search", QUERY)
    shadow = (await searched.get())["shadow"]
    page = (Path(__file__).parent.parent / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page.partition("`shadow` contains:")[2].partition("\n\n`tokens`")[0]
    names = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in table.splitlines() if row.startswith("|")]
    assert shadow.keys() == {name for row in names for name in row}


async def test_no_search_is_added_before_the_response_was_sent(
    searched: Lines, client: Client, engine: EndpointEngine, models: FakeModels
) -> None:
    held = asyncio.Event()
    engine.faults["lexical"] = waits_for(held)
    asking = asyncio.ensure_future(client.search("/products/_search", QUERY))
    await engine.until_asked("lexical")
    (own,) = engine.of("lexical")
    assert (QUERY, [], []) == (own.json(), models.requests, engine.of("semantic"))
    held.set()
    assert LEXICAL == ids(await asking)
    assert "reranked" == (await searched.get())["shadow"]["outcome"]


@pytest.mark.parametrize("stage", ["embed", "rerank"])
async def test_a_hanging_model_does_not_delay_the_response(
    searched: Lines, client: Client, models: FakeModels, stage: str
) -> None:
    held = asyncio.Event()
    models.faults[stage] = waits_for(held)
    for _ in range(2):
        assert LEXICAL == ids(await client.search("/products/_search", QUERY))
    await models.until_asked(stage)
    assert searched.empty()
    held.set()
    assert "reranked" == (await searched.get())["shadow"]["outcome"]


async def test_concurrent_shadows_are_limited_and_others_dropped(
    searched: Lines, client: Client, models: FakeModels
) -> None:
    held = asyncio.Event()
    models.faults["embed"] = waits_for(held)
    for _ in range(SHADOW_RUNS + 3):
        assert LEXICAL == ids(await client.search("/products/_search", QUERY))
    dropped = [(await searched.get())["shadow"] for _ in range(3)]
    assert [{"outcome": "cancelled", "reason": "busy"}] * 3 == dropped
    held.set()
    assert {"reranked"} == {(await searched.get())["shadow"]["outcome"] for _ in range(SHADOW_RUNS)}


async def test_a_model_failure_is_reported_only_in_the_log(
    searched: Lines, client: Client, models: FakeModels, log: Log
) -> None:
    models.faults["rerank"] = refuses(500)
    answered = await client.search("/products/_search", QUERY)
    shadow = (await searched.get())["shadow"]
    assert ("bypassed;reason=shadow", LEXICAL) == (answered.header("x-rerank"), ids(answered))
    assert ("degraded", "server_error", ["rerank"]) == (shadow["outcome"], shadow["reason"], shadow["stages"])


@pytest.mark.parametrize(
    ("changes", "body", "reason"),
    [
        ({}, {**QUERY, "sort": ["price"]}, "sort"),
        ({}, {**QUERY, "from": 1}, "later_page"),
        ({}, {**QUERY, "size": 0}, "size_zero"),
        ({}, {"query": {"match": {"title": "XPS-13-9310"}}}, "identifier"),
        ({"share": "0%"}, QUERY, "share"),
    ],
)
async def test_a_search_that_would_be_bypassed_is_logged_with_its_reason(
    searched: Lines, start_proxy: StartProxy, settings: Config, models: FakeModels, changes: Any, body: Any, reason: str
) -> None:
    client = await start_proxy(with_route(settings, **changes))
    answered = await client.search("/products/_search", body)
    shadow = (await searched.get())["shadow"]
    assert ("bypassed;reason=shadow", "bypassed", reason) == (
        answered.header("x-rerank"),
        shadow["outcome"],
        shadow["reason"],
    )
    assert ([], False) == (models.requests, "overlap_at_10" in shadow)


async def test_a_query_without_hits_would_stay_empty(searched: Lines, client: Client, engine: EndpointEngine) -> None:
    engine.documents = [document for document in engine.documents if document.lexical is None]
    await client.search("/products/_search", QUERY)
    shadow = (await searched.get())["shadow"]
    assert ("bypassed", "zero_hits") == (shadow["outcome"], shadow["reason"])


async def test_the_comparison_has_ids_even_if_filter_path_hides_them(searched: Lines, client: Client) -> None:
    await client.search("/products/_search?filter_path=took", QUERY)
    assert 0.75 == (await searched.get())["shadow"]["overlap_at_10"]


async def test_a_request_that_switches_reranking_off_has_no_shadow(
    searched: Lines, client: Client, models: FakeModels
) -> None:
    answered = await client.search("/products/_search", QUERY, x_rerank_enabled="off")
    line = await searched.get()
    assert ("bypassed;reason=steered_off", False, []) == (
        answered.header("x-rerank"),
        "shadow" in line,
        models.requests,
    )


async def test_a_disconnected_client_has_no_shadow(
    searched: Lines, client: Client, engine: EndpointEngine, models: FakeModels
) -> None:
    engine.faults["lexical"] = hangs
    await client.send(b"POST /products/_search HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n")
    body = json.dumps(QUERY).encode()
    await client.send(b"content-length: %d\r\n\r\n%s" % (len(body), body))
    await engine.until_asked("lexical")
    client.break_off()
    line = await searched.get()
    assert (False, [], 1) == ("shadow" in line, models.requests, len(engine.of("lexical")))


async def test_shadow_searches_use_the_callers_credentials(
    searched: Lines, client: Client, engine: EndpointEngine, models: FakeModels
) -> None:
    await client.search("/products/_search", QUERY, authorization="Basic abc", x_rerank_window="5")
    assert 5 == (await searched.get())["window"]
    added = [sent for kind in ("semantic", "render") for sent in engine.of(kind)] + engine.of("lexical")[1:]
    assert {"Basic abc"} == {sent.header("authorization") for sent in added}
    assert not any(b"abc" in sent.head for sent in models.requests)


async def test_a_search_that_the_engine_rejects_has_no_shadow(
    searched: Lines, client: Client, engine: EndpointEngine, models: FakeModels
) -> None:
    engine.faults["lexical"] = refuses(403)
    answered = await client.search("/products/_search", QUERY)
    shadow = (await searched.get())["shadow"]
    assert (403, "bypassed", "engine_refused", []) == (
        answered.status,
        shadow["outcome"],
        shadow["reason"],
        models.requests,
    )


Ask = Callable[[Client], Awaitable[Message]]


def multi(client: Client) -> Awaitable[Message]:
    body = lines({"index": "products"}, QUERY, {"index": "logs"}, QUERY)
    return client.ask("POST", "/_msearch", body, content_type="application/x-ndjson")


@pytest.mark.parametrize(
    ("ask", "header"),
    [
        (lambda client: client.search("/products/_search/template", TEMPLATE), "bypassed;reason=shadow"),
        (lambda client: client.search("/products/_async_search", QUERY), "bypassed;reason=shadow"),
        (multi, "bypassed;reason=shadow, unrouted"),
    ],
    ids=["template", "async", "multi"],
)
async def test_every_endpoint_supports_shadow_mode(searched: Lines, client: Client, ask: Ask, header: str) -> None:
    answered = await ask(client)
    shadow = (await searched.get())["shadow"]
    assert (header, "reranked", 0.75) == (answered.header("x-rerank"), shadow["outcome"], shadow["overlap_at_10"])


@pytest.fixture
async def pressed(settings: Config, log: Log) -> AsyncIterator[tuple[Searching, Client]]:
    """The searching of a proxy, and a client of it."""
    async with AsyncExitStack() as stack:
        proxy = await open_proxy(settings, TOKEN, {}, stack)
        listener = await serve(proxy.handle, proxy.upstream, "127.0.0.1", 0, conclude=proxy.telemetry.conclude)
        stack.push_async_callback(listener.close, 5)
        client = await Client.to(listener.port)
        stack.callback(client.close)
        yield proxy.generation.front.searching, client


@dataclass
class Pressed(UncalledModels):
    """Models under such a load."""

    load: float

    def pressure(self, model: str) -> float:
        return self.load


@pytest.mark.parametrize(("pressure", "outcome"), [(0.4, "reranked"), (0.5, "cancelled")])
async def test_shadows_are_skipped_under_load(
    searched: Lines, pressed: tuple[Searching, Client], models: FakeModels, pressure: float, outcome: str
) -> None:
    searching, client = pressed
    searching.models = Pressed(pressure)
    await client.search("/products/_search", QUERY)
    shadow = (await searched.get())["shadow"]
    assert (outcome, outcome == "reranked") == (shadow["outcome"], bool(models.requests))


# The runs themselves


def begun(shadows: Shadows, run: Callable[[], Awaitable[Shadow]]) -> tuple[SearchRecord, "asyncio.Future[None]"]:
    record, ended = SearchRecord(""), asyncio.get_running_loop().create_future()
    shadows.begin(record, run, lambda: ended.set_result(None))
    return record, ended


async def _hangs() -> Shadow:
    await asyncio.Event().wait()
    raise AssertionError


async def test_an_internal_error_affects_only_the_shadow(log: Log) -> None:
    async def fails() -> Shadow:
        raise ArithmeticError

    record, ended = begun(Shadows(), fails)
    await ended
    assert Shadow(Outcome("failed", reason="internal_error")) == record.shadow
    assert ["internal_error"] == [event["event"] for event in log]


async def test_a_shadow_has_a_time_limit() -> None:
    record, ended = begun(Shadows(seconds=0.01), _hangs)
    await ended
    assert Shadow(Outcome("failed", reason="timeout")) == record.shadow


async def test_shadows_running_at_shutdown_are_cancelled_and_logged() -> None:
    shadows = Shadows()
    running, ended = begun(shadows, _hangs)
    await shadows.close()
    late, dropped = begun(shadows, _hangs)
    await asyncio.gather(ended, dropped)
    assert [Shadow(Outcome("cancelled", reason="stopping"))] * 2 == [running.shadow, late.shadow]


async def test_no_shadow_runs_while_the_models_are_suspended(
    searched: Lines, client: Client, engine: EndpointEngine, models: FakeModels
) -> None:
    models.faults = dict.fromkeys(("embed", "rerank"), refuses(401))
    lines = []
    for words in ("first", "second"):
        await client.search("/products/_search", {"query": {"match": {"title": words}}})
        lines.append(await searched.get())
    assert ["degraded", "degraded"] == [line["shadow"]["outcome"] for line in lines]
    assert 3 == len(engine.of("lexical"))
