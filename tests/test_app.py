"""Which requests are searches of a route, what becomes of the others, and whose credentials go where."""

import asyncio
import gzip
import json
import os
import signal
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from proxy.app import listen, listen_for, open_proxy
from proxy.app.process import serve_until_stopped
from proxy.bounds import SEARCH_BODY_BYTES
from proxy.http1.callers import SAMPLE
from proxy.settings.config import Callers, Config, RouteSettings
from proxy.settings.config import Log as LogSettings
from proxy.settings.credentials import token_of
from proxy.settings.yaml_file import ConfigError
from tests.conftest import QUERY, TOKEN, Log, StartProxy
from tests.fakes import (
    Client,
    Document,
    FakeEngine,
    FakeModels,
    Fault,
    Message,
    Stream,
    answer,
    chunked,
    ids,
    refuses,
    request,
    waits_for,
)

RERANKED = ["d", "b", "c", "a"]
QUERY_BYTES = json.dumps(QUERY).encode()


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/products/_search"),
        ("GET", "/products/_search"),
        ("POST", "/products/_search?size=10"),
        ("POST", "/product*/_search"),
        ("POST", "/prod%75cts/_search"),
        ("POST", "/_search"),
        ("POST", "/_all/_search"),
        ("POST", "/*/_search"),
        ("POST", "/shop/_search"),
    ],
)
async def test_a_search_within_one_route_is_reranked(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, method: str, target: str
) -> None:
    engine.aliases = {"shop": ["products"]}
    client = await start_proxy(settings)
    answered = await client.ask(method, target, QUERY_BYTES, content_type="application/json")
    assert ("reranked", RERANKED) == (answered.header("x-rerank"), ids(answered))


async def test_a_search_by_the_q_parameter_is_reranked(client: Client) -> None:
    answered = await client.ask("GET", "/products/_search?q=laptop")
    assert ("reranked", RERANKED) == (answered.header("x-rerank"), ids(answered))


@pytest.mark.parametrize(
    "target",
    [
        "/logs/_search",
        "/products%2F_search",
        "/products//_search",
        "/products/_search/scroll",
        "/logs/_search/template",
        "/logs/_msearch",
        "/logs/_async_search",
        "/products/_search_shards",
        "/products/_count",
        "/products/_doc/_search",
    ],
)
async def test_other_requests_are_passed_through_without_a_header(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, log: Log, target: str
) -> None:
    engine.documents.append(Document("x", "Laptop", lexical=1.0, index="logs"))
    client = await start_proxy(settings)
    answered = await client.ask("POST", target, QUERY_BYTES, content_type="application/json")
    assert (200, "", "") == (answered.status, answered.header("x-rerank"), answered.header("server-timing"))
    assert (target, QUERY_BYTES, []) == (engine.requests[-1].target, engine.requests[-1].body, log)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/products,logs/_search", "mixed_routes"),
        ("/_search", "mixed_routes"),
        ("/both/_search", "mixed_routes"),
        ("/products-gone/_search", "unresolved"),
    ],
)
async def test_a_search_beyond_its_route_is_bypassed_without_a_model_call(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, models: FakeModels, target: str, reason: str
) -> None:
    engine.documents.append(Document("x", "Laptop", lexical=1.0, index="logs"))
    engine.aliases = {"both": ["products", "logs"]}
    if reason == "unresolved":
        engine.faults["resolve"] = refuses(404)
    client = await start_proxy(settings)
    answered = await client.ask("POST", target, QUERY_BYTES, content_type="application/json")
    assert (f"bypassed;reason={reason}", QUERY_BYTES) == (answered.header("x-rerank"), engine.requests[-1].body)
    assert [] == models.requests


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({**QUERY, "sort": ["price"]}, "sort"),
        ({**QUERY, "size": 0}, "size_zero"),
        ({**QUERY, "rescore": {"query": {}}, "from": 991}, "rescore"),
        ({**QUERY, "search_after": [1]}, "search_after"),
        ({**QUERY, "nonsense": 1}, "unknown_key"),
        ({"query": {"term": {"brand": "acme"}}}, "no_query_text"),
        ({"query": {"match_all": {}}}, "no_query_text"),
        ({}, "no_query_text"),
        ([], "not_json"),
        ({**QUERY, "from": 9999, "size": 10}, "depth"),
    ],
)
async def test_a_bypassed_search_is_passed_through_with_its_reason(
    client: Client, engine: FakeEngine, log: Log, body: Any, reason: str
) -> None:
    straight = await Client.to(engine.port)
    sent = json.dumps(body).encode() + b" \n"
    engine.faults["lexical"] = _echo
    answered = await client.ask("POST", "/products/_search?typed_keys=", sent, content_type="application/json")
    own = await straight.ask("POST", "/products/_search?typed_keys=", sent, content_type="application/json")
    assert (own.start, own.body, sent) == (answered.start, answered.body, answered.body)
    key = ';key="nonsense"' if reason == "unknown_key" else ""
    assert f"bypassed;reason={reason}{key}" == answered.header("x-rerank")
    assert [("bypassed", reason)] == [(line["outcome"], line["reason"]) for line in log]
    straight.close()


async def _echo(stream: Any, asked: Message) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(asked.body) + asked.body


@pytest.mark.parametrize(
    ("fields", "body", "reason"),
    [
        ({"content_type": "application/yaml"}, b"query: {}", "content_type"),
        ({"content_type": "application/json", "accept": "application/cbor"}, QUERY_BYTES, "accept"),
        ({"content_type": "application/json", "content_encoding": "gzip"}, b"no gzip", "content_encoding"),
        ({"content_type": "application/json", "content_encoding": "br"}, QUERY_BYTES, "content_encoding"),
    ],
)
async def test_a_body_in_another_format_is_passed_through(
    client: Client, engine: FakeEngine, fields: dict[str, str], body: bytes, reason: str
) -> None:
    engine.faults["lexical"] = _echo
    answered = await client.ask("POST", "/products/_search", body, **fields)
    assert (f"bypassed;reason={reason}", body) == (answered.header("x-rerank"), answered.body)


async def test_a_body_above_the_limit_is_streamed_through(client: Client, engine: FakeEngine) -> None:
    body = QUERY_BYTES + b" " * SEARCH_BODY_BYTES
    engine.faults["lexical"] = _lengths
    answered = await client.ask("POST", "/products/_search", body, content_type="application/json")
    assert ("bypassed;reason=too_large", b"%d" % len(body)) == (answered.header("x-rerank"), answered.body)


async def _lengths(stream: Any, asked: Message) -> bytes:
    length = b"%d" % len(asked.body)
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(length) + length


async def test_a_chunked_search_with_expect_100_continue_is_reranked(client: Client) -> None:
    head = b"POST /products/_search HTTP/1.1\r\nHost: p\r\nContent-Type: application/json\r\n"
    await client.send(head + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
    asked = await client.answer()
    await client.send(chunked(QUERY_BYTES[:5], QUERY_BYTES[5:]))
    assert (100, RERANKED) == (asked.status, ids(await client.answer()))


async def test_a_bypassed_search_with_expect_100_continue_gets_one_100(client: Client, engine: FakeEngine) -> None:
    body = json.dumps({**QUERY, "sort": ["price"]}).encode()
    head = b"POST /products/_search HTTP/1.1\r\nHost: p\r\nContent-Type: application/json\r\n"
    await client.send(head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
    asked = await client.answer()
    await client.send(body)
    answered = await client.answer()
    assert (100, 200, body) == (asked.status, answered.status, engine.requests[-1].body)
    assert [] == engine.requests[-1].all("expect")


async def test_gzip_is_supported_for_the_request_and_the_response(client: Client, engine: FakeEngine) -> None:
    engine.faults["lexical"] = _zips(engine)
    body = gzip.compress(QUERY_BYTES)
    fields = {"content_type": "application/json", "content_encoding": "gzip", "accept_encoding": "gzip"}
    answered = await client.ask("POST", "/products/_search", body, **fields)
    found = json.loads(gzip.decompress(answered.body))
    assert ("gzip", RERANKED) == (answered.header("content-encoding"), [hit["_id"] for hit in found["hits"]["hits"]])


def _zips(engine: FakeEngine) -> Fault:
    async def fault(stream: Stream, asked: Message) -> bytes:
        head, _, body = engine.usual(asked).partition(b"\r\n\r\n")
        said = Message(head + b"\r\n\r\n", body)
        return answer(200, gzip.compress(said.body), ("content-encoding", "gzip"), ("X-elastic-product", "E"))

    return fault


async def test_the_response_has_the_engines_headers_and_the_proxys(client: Client) -> None:
    answered = await client.search("/products/_search", QUERY)
    names = [name.decode() for name, _ in answered.fields]
    assert ["x-elastic-product", "content-type", "x-rerank", "server-timing", "content-length"] == names


async def test_added_searches_carry_the_callers_credentials_but_model_calls_do_not(
    client: Client, engine: FakeEngine, models: FakeModels
) -> None:
    fields = {"authorization": "ApiKey mine", "es_security_runas_user": "sue", "cookie": "sid=1"}
    await client.search("/products/_search", {**QUERY, "_source": False}, **fields)
    kinds = {engine.kind(asked) for asked in engine.requests}
    assert {"version", "resolve", "facts", "lexical", "semantic", "render", "passages"} == kinds
    carried = {(one.header("authorization"), one.header("es-security-runas-user")) for one in engine.requests}
    assert {("ApiKey mine", "sue")} == carried
    assert {f"Bearer {TOKEN}"} == {asked.header("authorization") for asked in models.requests}
    said = repr(models.requests)
    assert [] == [secret for secret in ("ApiKey mine", "sue", "sid=1") if secret in said]
    assert TOKEN not in repr(engine.requests)


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_every_search_carries_the_trace_and_the_log_has_its_id(
    client: Client, engine: FakeEngine, models: FakeModels, log: Log
) -> None:
    """W3C Trace Context. The models belong to another company, and get no header of a client."""
    await client.search("/products/_search", {**QUERY, "_source": False}, traceparent=TRACE, tracestate="es=s:1")
    await client.ask("GET", "/_cat/health", traceparent=TRACE, tracestate="es=s:1")
    assert {"lexical", "semantic", "render", "passages", "other"} <= {engine.kind(asked) for asked in engine.requests}
    carried = {(asked.header("traceparent"), asked.header("tracestate")) for asked in engine.requests}
    assert ({(TRACE, "es=s:1")}, {""}) == (carried, {asked.header("traceparent") for asked in models.requests})
    assert ["0af7651916cd43dd8448eb211c80319c"] == [line["trace"] for line in log if line["event"] == "search"]


@pytest.mark.parametrize("given", ["", "nonsense", "00-XYZ-1-01", "\x1b[2J", TRACE.upper(), "0" * 10_000])
async def test_an_invalid_traceparent_is_not_logged(client: Client, log: Log, given: str) -> None:
    await client.search("/products/_search", QUERY, traceparent=given)
    assert [None] == [line.get("trace") for line in log if line["event"] == "search"]


async def test_resolved_names_and_mappings_are_requested_for_each_caller(client: Client, engine: FakeEngine) -> None:
    for caller in ("ApiKey a", "ApiKey b", "ApiKey a"):
        await client.search("/products/_search", QUERY, authorization=caller)
    for kind in ("resolve", "facts"):
        assert ["ApiKey a", "ApiKey b"] == [asked.header("authorization") for asked in engine.of(kind)]


async def test_mappings_a_caller_may_not_read_are_read_with_the_proxys_credentials(
    settings: Config, engine: FakeEngine, log: Log
) -> None:
    async def only_for_discovery(stream: Stream, asked: Message) -> bytes | None:
        return None if asked.header("authorization") == "ApiKey discovery" else answer(403, b"{}")

    engine.faults["facts"] = only_for_discovery
    settings = msgspec.structs.replace(
        settings, engine=msgspec.structs.replace(settings.engine, authorization_env="DISCOVERY")
    )
    async with AsyncExitStack() as stack:
        listener = await listen(settings, TOKEN, {"DISCOVERY": "ApiKey discovery"}, stack)
        client = await Client.to(listener.port)
        stack.callback(client.close)
        answered = await client.search("/products/_search", QUERY, authorization="ApiKey mine")
    assert ("reranked", RERANKED) == (answered.header("x-rerank"), ids(answered))
    others = {one.header("authorization") for one in engine.requests if engine.kind(one) != "facts"}
    assert {"ApiKey mine"} == others


async def test_the_log_has_the_clients_opaque_id_or_a_generated_one(client: Client, log: Log) -> None:
    await client.search("/products/_search", QUERY, x_opaque_id="mine")
    await client.search("/products/_search", QUERY)
    named, own = (line["id"] for line in log)
    assert ("mine", 32) == (named, len(own))


@pytest.mark.parametrize(("allowed", "said"), [(False, None), (True, "laptop")])
async def test_query_text_is_logged_only_if_the_settings_allow_it(
    start_proxy: StartProxy, settings: Config, log: Log, said: str | None, *, allowed: bool
) -> None:
    noted = msgspec.structs.replace(settings, log=LogSettings(query_text=allowed))
    client = await start_proxy(noted)
    await client.search("/products/_search", QUERY)
    assert said == log[0].get("query")


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/products/_search", QUERY_BYTES),
        ("/products/_search/template", QUERY_BYTES),
        ("/_search", QUERY_BYTES),
        ("/products/_msearch", b"{}\n" + QUERY_BYTES + b"\n"),
    ],
)
async def test_the_kill_switch_stops_reranking_and_model_calls(
    settings: Config, engine: FakeEngine, models: FakeModels, log: Log, target: str, body: bytes
) -> None:
    """The engine gets a look-up of the names and the client's own bytes, and the response has the reason."""
    async with AsyncExitStack() as stack:
        proxy = await open_proxy(settings, TOKEN, {}, stack)
        client = await Client.to((await listen_for(proxy, stack)).port)
        stack.callback(client.close)
        proxy.fixed.switches.reranking = False
        engine.faults = dict.fromkeys(("lexical", "multi", "other"), _echo)
        content_type = "application/x-ndjson" if target.endswith("_msearch") else "application/json"
        answered = await client.ask("POST", target, body, content_type=content_type)
        unrouted = await client.ask("POST", "/logs/_search", QUERY_BYTES, content_type="application/json")
        assert (body, "bypassed;reason=switched_off") == (answered.body, answered.header("x-rerank"))
        assert (QUERY_BYTES, "") == (unrouted.body, unrouted.header("x-rerank"))
        searches = [asked.target for asked in engine.requests if "/_resolve/" not in asked.target]
        assert ([target, "/logs/_search"], []) == (searches, models.requests)
        assert {("products*", "bypassed", "switched_off"): 1} == proxy.telemetry.counters.searches
        proxy.fixed.switches.reranking = True
        engine.faults = {}
        again = await client.search("/products/_search", QUERY)
        assert "reranked" == again.header("x-rerank")


async def test_sigterm_closes_the_port_and_finishes_running_requests(
    settings: Config, engine: FakeEngine, models: FakeModels, log: Log
) -> None:
    held = asyncio.Event()
    models.faults["rerank"] = waits_for(held)
    serving = asyncio.ensure_future(serve_until_stopped(settings, TOKEN, {}))
    while not log:  # noqa: ASYNC110  a log gives no event
        await asyncio.sleep(0)
    client = await Client.to(int(log[0]["address"].rpartition(":")[2]))
    await client.send(request("POST", "/products/_search", QUERY_BYTES, content_type="application/json"))
    await models.until_asked("rerank")
    os.kill(os.getpid(), signal.SIGHUP)  # a terminal that closes ends no server
    os.kill(os.getpid(), signal.SIGTERM)
    while "stopping" not in [event["event"] for event in log]:  # noqa: ASYNC110
        await asyncio.sleep(0)
    held.set()
    answered = await client.answer()
    await serving
    assert ("reranked", "close") == (answered.header("x-rerank"), answered.header("connection"))
    client.close()


@pytest.mark.parametrize("routes", [True, False])
async def test_connections_to_the_models_are_opened_at_startup_if_there_is_a_route(
    settings: Config, models: FakeModels, log: Log, *, routes: bool
) -> None:
    """The first search uses them."""
    config = settings if routes else msgspec.structs.replace(settings, routes=())
    async with AsyncExitStack() as stack:
        listener = await listen(config, TOKEN, {}, stack, warms_up=True)
        client = await Client.to(listener.port)
        if routes:
            await models.until_asked("warm_up", 2)
        await client.search("/products/_search", QUERY)
        client.close()
    assert (2 if routes else 0) == len(models.of("warm_up")) == models.connections


async def test_stopping_waits_for_a_write_whose_client_disconnected(
    settings: Config, engine: FakeEngine, log: Log
) -> None:
    held = asyncio.Event()
    engine.faults["other"] = waits_for(held)
    stack = AsyncExitStack()
    listener = await listen(settings, TOKEN, {}, stack)
    client = await Client.to(listener.port)
    await client.send(request("PUT", "/products/_doc/1", b"{}"))
    await engine.until_asked("other")
    client.break_off()
    stopping = asyncio.ensure_future(stack.aclose())
    for _ in range(100):
        await asyncio.sleep(0)
    assert (False, 1) == (stopping.done(), len(engine.open))
    held.set()
    await stopping
    assert 1 == len(engine.of("other"))


def test_a_remote_provider_without_a_token_is_an_error_naming_the_variable() -> None:
    remote = Config(routes=(RouteSettings(index="products"),))
    with pytest.raises(ConfigError, match="DEEPINFRA_TOKEN"):
        token_of(remote, {})
    assert "t" == token_of(remote, {"DEEPINFRA_TOKEN": "t"})


@pytest.mark.parametrize(("ignored", "asked"), [((), 2), (("cf-ray",), 1)])
async def test_an_unknown_header_distinguishes_callers_unless_ignored(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, ignored: tuple[str, ...], asked: int
) -> None:
    client = await start_proxy(msgspec.structs.replace(settings, callers=Callers(ignore=ignored)))
    for number in range(2):
        assert "reranked" == (await client.search("/products/_search", QUERY, cf_ray=f"ray{number}")).header("x-rerank")
    assert asked == len(engine.of("resolve"))
    assert ["ray0", "ray1"] == [request.header("cf-ray") for request in engine.of("lexical")]


async def test_a_header_that_makes_every_request_a_new_caller_is_logged(client: Client, log: Log) -> None:
    for number in range(SAMPLE):
        await client.search("/logs/_search", QUERY, cf_ray=f"ray{number}")
    (warned,) = [event for event in log if event["event"] == "new_callers"]
    assert ("warning", "cf-ray") == (warned["log_level"], warned["header"])
    assert "callers.ignore" in warned["detail"]
