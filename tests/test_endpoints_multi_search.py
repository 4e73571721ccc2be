"""`_msearch`: each item its own outcome, in order; what is not reranked goes on together, byte for byte."""

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from proxy.bounds import BODY_CLAUSES, MSEARCH_ITEMS, OUTCOME_LIST_BYTES
from proxy.settings.config import Config, Semantic
from tests.conftest import OTHER, QUERY, Log, StartProxy
from tests.endpoint_engine import DOCUMENTS, EndpointEngine, lines
from tests.fakes import (
    Client,
    Document,
    FakeModels,
    Message,
    Stream,
    answer,
    breaks_off,
    hangs,
    refuses,
    says,
    waits_for,
)

RERANKED = ["d", "b", "c", "a"]
LEXICAL = ["a", "b", "c"]
NONSENSE = {**QUERY, "nonsense": 1}
SORTED = b'{"query": {"match": {"title": "laptop"}} ,"sort":["price"], "size":10.0}'
BOOST: dict[str, Any] = {"query": {"match_all": {}}}


@pytest.fixture
async def engine() -> AsyncIterator[EndpointEngine]:
    async with EndpointEngine(DOCUMENTS) as server:
        yield server


async def ask(client: Client, content: bytes, target: str = "/products/_msearch", **fields: str) -> Message:
    fields.setdefault("content_type", "application/x-ndjson")
    return await client.ask("POST", target, content, **fields)


def orders(answered: Message) -> list[list[str]]:
    responses = answered.json()["responses"]
    return [[hit["_id"] for hit in each["hits"]["hits"]] if "hits" in each else [] for each in responses]


async def test_each_item_has_its_own_outcome_in_order(client: Client, engine: EndpointEngine) -> None:
    items = lines({}, QUERY, {"index": "logs"}, BOOST, {}, SORTED, {}, NONSENSE, {}, QUERY)
    answered = await ask(client, items)
    assert [RERANKED, LEXICAL, LEXICAL, [], RERANKED] == orders(answered)
    assert [200, 200, 200, 400, 200] == [each["status"] for each in answered.json()["responses"]]
    outcomes = [
        "reranked",
        "unrouted",
        "bypassed;reason=sort",
        'bypassed;reason=unknown_key;key="nonsense"',
        "reranked",
    ]
    assert outcomes == answered.header("x-rerank").split(", ")


async def test_bypassed_items_return_no_vectors_if_their_route_hides_them(
    start_proxy: StartProxy, settings: Config, engine: EndpointEngine
) -> None:
    (route,) = settings.routes
    semantic = Semantic(field="v", dimensions=3, exclude_from_source=True)
    client = await start_proxy(
        msgspec.structs.replace(settings, routes=(msgspec.structs.replace(route, semantic=semantic),))
    )
    await ask(client, lines({}, SORTED, {"index": "logs"}, SORTED))
    _, excluding, _, untouched = engine.requests[-1].content.splitlines()
    assert {"excludes": ["v", "v_hash"]} == json.loads(excluding)["_source"]
    assert lines({}, SORTED).splitlines()[1] == untouched


async def test_items_that_are_not_reranked_are_sent_in_one_msearch(client: Client, engine: EndpointEngine) -> None:
    header = b'{ "index" : "logs", "preference":"x" }'
    await ask(client, lines({}, QUERY, header, BOOST, b"", SORTED))
    (sent,) = engine.of("_msearch")
    assert (lines(header, BOOST, b"", SORTED), "/products/_msearch") == (sent.content, sent.target)
    assert "application/x-ndjson" == sent.header("content-type")


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        (lines({"index": "logs"}, QUERY, {"index": "logs"}, BOOST), ""),
        (lines({}, SORTED), "bypassed;reason=sort"),
        (lines({}, SORTED, {"index": "logs"}, BOOST), "bypassed;reason=sort, unrouted"),
        (lines({}, SORTED + b"\r"), "bypassed;reason=sort"),
        (lines({"nonsense": 1}, QUERY), 'bypassed;reason=unknown_parameter;key="nonsense"'),
        (lines({"index": "products"}, QUERY, b"no JSON", QUERY), "bypassed;reason=not_json"),
        (lines({}, QUERY)[:-1], "bypassed;reason=not_json"),
        (lines({}), "bypassed;reason=not_json"),
        (b"", "bypassed;reason=not_json"),
    ],
)
async def test_without_a_reranked_item_the_clients_bytes_are_passed_on(
    client: Client, engine: EndpointEngine, content: bytes, outcome: str
) -> None:
    answered = await ask(client, content, "/products/_msearch?typed_keys")
    (sent,) = engine.of("_msearch")
    assert (content, "/products/_msearch?typed_keys", outcome) == (
        sent.content,
        sent.target,
        answered.header("x-rerank"),
    )


async def test_items_with_unrepeatable_credentials_report_the_reason(client: Client, engine: EndpointEngine) -> None:
    """The credentials are valid only for the client's own request, which passes through unchanged."""
    content = lines({}, QUERY, {"index": "logs"}, BOOST, {"index": ["logs", "prod*"]}, QUERY)
    answered = await ask(client, content, authorization="Negotiate YII=")
    outcomes = ["bypassed;reason=credentials", "unrouted", "bypassed;reason=credentials"]
    assert (outcomes, [content]) == (
        answered.header("x-rerank").split(", "),
        [request.content for request in engine.requests],
    )
    other = await Client.to(client.writer.get_extra_info("peername")[1])
    logs = await ask(other, lines({"index": "logs"}, BOOST), authorization="Negotiate YII=")
    assert "" == logs.header("x-rerank")
    other.close()


async def test_warnings_of_all_items_appear_once(client: Client, engine: EndpointEngine) -> None:
    """Those of the engine's response, and those of each reranked item."""

    async def warns(stream: Stream, request: Message) -> bytes:
        said = b'Warning: 299 - "of both"\r\nWarning: 299 - "of a search"\r\n'
        return engine.usual(request).replace(b"\r\n", b"\r\n" + said, 1)

    engine.product = (*engine.product, ("Warning", '299 - "of the rest"'), ("Warning", '299 - "of both"'))
    engine.faults["lexical"] = warns
    answered = await ask(client, lines({}, QUERY, {}, SORTED, {}, QUERY))
    assert '299 - "of the rest", 299 - "of both", 299 - "of a search"' == answered.header("warning")


async def test_without_routes_an_msearch_is_passed_through(plain_client: Client, engine: EndpointEngine) -> None:
    content = lines({}, {**QUERY, "ext": {"rerank_proxy": {"window": "no"}}})
    answered = await ask(plain_client, content)
    assert ("", [content]) == (answered.header("x-rerank"), [request.content for request in engine.requests])


async def test_an_unknown_parameter_bypasses_all_items(client: Client, engine: EndpointEngine) -> None:
    answered = await ask(client, lines({}, QUERY), "/products/_msearch?nonsense=1")
    assert ('bypassed;reason=unknown_parameter;key="nonsense"', "/products/_msearch?nonsense=1") == (
        answered.header("x-rerank"),
        engine.requests[-1].target,
    )


@pytest.mark.parametrize("target", ["/_msearch", "/logs/_msearch"])
async def test_a_malformed_msearch_has_a_reason_only_if_the_url_names_a_route(
    client: Client, engine: EndpointEngine, target: str
) -> None:
    answered = await ask(client, lines({"index": "products"}, QUERY)[:-1], target)
    assert ("", 1) == (answered.header("x-rerank"), len(engine.requests))


async def test_an_msearch_rejected_as_a_whole_is_repeated_with_the_clients_bytes(
    client: Client, engine: EndpointEngine
) -> None:
    content = lines({}, QUERY, {"index": "logs"}, BOOST)
    engine.faults["_msearch"] = refuses(400)
    answered = await ask(client, content)
    assert (400, "bypassed;reason=engine_refused, unrouted") == (answered.status, answered.header("x-rerank"))
    assert content == engine.of("_msearch")[-1].content


@pytest.mark.parametrize("said", [b"", b"<html>", b"\xff", b'{"responses":"\xff"}', b'{"responses":[]}'])
async def test_an_msearch_response_without_items_repeats_the_clients_request(
    client: Client, engine: EndpointEngine, log: Log, said: bytes
) -> None:
    content = lines({}, QUERY, {"index": "logs"}, BOOST)
    engine.faults["_msearch"] = says(said)
    answered = await ask(client, content)
    assert (200, said, content) == (answered.status, answered.content, engine.of("_msearch")[-1].content)
    assert [] == [line for line in log if line["event"] == "internal_error"]


async def test_an_item_with_invalid_options_fails_alone(client: Client, engine: EndpointEngine) -> None:
    wrong = {**QUERY, "ext": {"rerank_proxy": {"window": 0}}}
    answered = await ask(client, lines({}, QUERY, {}, wrong))
    good, bad = answered.json()["responses"]
    assert (RERANKED, 400, "illegal_argument_exception") == (
        [hit["_id"] for hit in good["hits"]["hits"]],
        bad["status"],
        bad["error"]["type"],
    )
    assert "reranked, bypassed;reason=steering" == answered.header("x-rerank")


async def test_options_are_removed_from_bypassed_items(client: Client, engine: EndpointEngine) -> None:
    steered = b'{"sort":["price"], "ext" : {"rerank_proxy": {"window": 5}, "own":1},"query":{"match":{"title":"a"}}}'
    other = b'{"ext": {"rerank_proxy": {}}, "query":{"match_all":{}}}'
    await ask(client, lines({}, steered, {"index": "logs"}, other))
    cut = steered.replace(b'"rerank_proxy": {"window": 5}, ', b"")
    assert lines({}, cut, {"index": "logs"}, other) == engine.requests[-1].content


async def test_an_item_whose_options_cannot_be_parsed_is_passed_on(
    client: Client, engine: EndpointEngine, log: Log
) -> None:
    unread = b'{"ext":{"rerank_proxy":{}},"size":1,"size":%s}' % (b"1" * 5000)
    engine.faults["_msearch"] = refuses(400)
    answered = await ask(client, lines({}, unread))
    told = answered.header("x-rerank"), engine.requests[-1].content
    assert ("bypassed;reason=not_json", lines({}, unread)) == told
    assert [] == [line for line in log if line["event"] == "internal_error"]


async def test_items_with_reranking_disabled_are_bypassed(client: Client) -> None:
    off = {**QUERY, "ext": {"rerank_proxy": {"enabled": False}}}
    answered = await ask(client, lines({}, QUERY, {}, off))
    assert [RERANKED, LEXICAL] == orders(answered)
    assert "reranked, bypassed;reason=steered_off" == answered.header("x-rerank")


async def test_parameters_of_item_and_url_apply_to_its_search(client: Client, engine: EndpointEngine) -> None:
    header = {"preference": "mine", "ignore_unavailable": True}
    await ask(client, lines(header, QUERY), "/products/_msearch?typed_keys=true&max_concurrent_searches=3")
    (sent,) = engine.of("lexical")
    assert {"preference=mine", "ignore_unavailable=true", "typed_keys=true"} == set(
        sent.target.split("?")[1].split("&")
    )


async def test_filter_path_applies_to_the_whole_response(client: Client) -> None:
    """`filter_path` and `pretty` apply to reranked items and to the others alike."""
    target = "/products/_msearch?filter_path=responses.hits.hits._id,responses.status&pretty"
    answered = await ask(client, lines({}, QUERY, {"index": "logs"}, BOOST), target)
    assert [{"_id": name} for name in RERANKED] == answered.json()["responses"][0]["hits"]["hits"]
    assert [{"status", "hits"}] * 2 == [set(each) for each in answered.json()["responses"]]
    assert answered.content.startswith(b'{\n  "responses" : [\n    {\n      "hits" : {\n')
    assert answered.content.endswith(b"\n}\n")


async def test_a_filter_path_that_is_too_complex_is_bypassed(client: Client, engine: EndpointEngine) -> None:
    """Found in the URL at once, or only in the response, which is then requested again."""
    content = lines({}, QUERY, {"index": "logs"}, BOOST)
    asked = await ask(client, content, "/products/_msearch?filter_path=" + ".".join(["a"] * 201))
    assert ('bypassed;reason=too_complex;key="filter_path"', [], content) == (
        asked.header("x-rerank"),
        engine.of("lexical"),
        engine.of("_msearch")[-1].content,
    )
    engine.documents[0] = Document("a", "Laptop", lexical=3.0, more={"deep": _nested(100)})
    asked = await ask(client, content, "/products/_msearch?filter_path=**.nothing")
    assert ("bypassed;reason=engine_refused, unrouted", content) == (
        asked.header("x-rerank"),
        engine.of("_msearch")[-1].content,
    )


def _nested(depth: int) -> Any:
    return {"a": _nested(depth - 1)} if depth else {}


async def test_an_item_with_too_many_clauses_is_bypassed_alone(client: Client, engine: EndpointEngine) -> None:
    many = {"query": {"bool": {"should": [{"match": {"title": "a"}}] * (BODY_CLAUSES // 2)}}}
    answered = await ask(client, lines({}, many, {}, QUERY))
    assert "bypassed;reason=too_complex, reranked" == answered.header("x-rerank")


async def test_took_is_that_of_the_slowest_item(client: Client) -> None:
    answered = await ask(client, lines({}, QUERY, {"index": "logs"}, BOOST))
    assert ["took", "responses"] == list(answered.json())
    assert 7 == answered.json()["took"]


async def test_a_compressed_multi_search_is_read(client: Client, engine: EndpointEngine) -> None:
    content = gzip.compress(lines({}, QUERY, {"index": "logs"}, BOOST))
    answered = await ask(client, content, content_encoding="gzip")
    assert ("reranked, unrouted", "") == (
        answered.header("x-rerank"),
        engine.of("_msearch")[0].header("content-encoding"),
    )


async def test_the_outcome_header_of_a_long_msearch_is_truncated(client: Client) -> None:
    answered = await ask(client, lines(*[{}, SORTED] * 500))
    told = answered.header("x-rerank")
    assert (500, True) == (len(orders(answered)), len(told) <= OUTCOME_LIST_BYTES)
    assert re.fullmatch(r"(bypassed;reason=sort, )+more;items=\d+", told)


async def test_the_number_of_reranked_items_is_limited(
    start_proxy: StartProxy, settings: Config, models: FakeModels
) -> None:
    """Bypassed items do not count; those above the limit are the engine's."""
    bound = msgspec.structs.replace(settings.engine, multi_search_reranked=2)
    client = await start_proxy(msgspec.structs.replace(settings, engine=bound))
    answered = await ask(client, lines({}, QUERY, {}, SORTED, {}, QUERY, {}, QUERY, {}, SORTED))
    assert [RERANKED, LEXICAL, RERANKED, LEXICAL, LEXICAL] == orders(answered)
    told = ["reranked", "bypassed;reason=sort", "reranked", "bypassed;reason=too_many", "bypassed;reason=sort"]
    assert (told, 1) == (answered.header("x-rerank").split(", "), len(models.of("rerank")))  # equal searches share it


async def test_an_msearch_with_too_many_items_is_passed_through(client: Client, engine: EndpointEngine) -> None:
    content = lines(*[{}, SORTED] * (MSEARCH_ITEMS + 1))
    answered = await ask(client, content)
    assert ("bypassed;reason=too_many", content) == (answered.header("x-rerank"), engine.of("_msearch")[0].content)


async def test_bypassed_items_are_sent_concurrently_with_reranked_ones(client: Client, engine: EndpointEngine) -> None:
    held = asyncio.Event()
    engine.faults["lexical"] = waits_for(held)
    asking = asyncio.ensure_future(ask(client, lines({}, QUERY, {"index": "logs"}, BOOST, {}, SORTED)))
    await engine.until_asked("lexical")
    await engine.until_asked("_msearch")
    held.set()
    assert [RERANKED, LEXICAL, LEXICAL] == orders(await asking)


async def test_a_malformed_item_is_bypassed_alone(client: Client, engine: EndpointEngine) -> None:
    header = b'{"project_routing":"x"}'
    answered = await ask(client, lines({}, QUERY, header, QUERY))
    told = ["reranked", 'bypassed;reason=unknown_parameter;key="project_routing"']
    assert (told, lines(header, QUERY)) == (answered.header("x-rerank").split(", "), engine.of("_msearch")[0].content)


async def test_an_item_bypassed_late_gets_the_engines_response(client: Client, engine: EndpointEngine) -> None:
    """The engine rejects its widened search, but may accept the client's own; each response stays at its place."""
    large = {"query": {"match": {"title": "large"}}}

    async def refuses_large(stream: Stream, request: Message) -> bytes | None:
        return await refuses(400)(stream, request) if b"large" in request.content else None

    engine.faults["lexical"] = refuses_large
    answered = await ask(client, lines({}, QUERY, {}, large, {"index": "logs"}, BOOST, {}, QUERY))
    told = ["reranked", "bypassed;reason=engine_refused", "unrouted", "reranked"]
    assert told == answered.header("x-rerank").split(", ")
    assert [RERANKED, LEXICAL, LEXICAL, RERANKED] == orders(answered)
    assert [lines({"index": "logs"}, BOOST), lines({}, large)] == [sent.content for sent in engine.of("_msearch")]


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_an_error_for_the_bypassed_items_is_relayed_without_a_second_request(
    client: Client, engine: EndpointEngine, status: int
) -> None:
    engine.faults["_msearch"] = refuses(status)
    answered = await ask(client, lines({}, QUERY, {"index": "logs"}, BOOST))
    straight = await Client.to(engine.port)
    own = await ask(straight, lines({}, QUERY))
    assert (own.status, own.content, 2) == (answered.status, answered.content, len(engine.of("_msearch")))
    assert "bypassed;reason=engine_refused, unrouted" == answered.header("x-rerank")
    straight.close()


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_an_item_that_the_engine_rejects_gets_its_error(
    client: Client, engine: EndpointEngine, status: int
) -> None:
    body = b'{"error":{"type":"no","reason":"told to"},"status":%d}' % status
    engine.faults["lexical"] = refuses(status, body)
    answered = await ask(client, lines({}, QUERY, {"index": "logs"}, BOOST))
    first, second = answered.json()["responses"]
    assert (200, json.loads(body), 200) == (answered.status, first, second["status"])
    assert "bypassed;reason=engine_refused, unrouted" == answered.header("x-rerank")
    assert (1, 1) == (len(engine.of("lexical")), len(engine.of("_msearch")))


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
async def test_an_error_of_one_item_is_not_that_of_the_whole_response(
    client: Client, engine: EndpointEngine, status: int
) -> None:
    """Whatever is its place, and though the proxy answers all items."""

    async def rejects_sleeves(stream: Stream, request: Message) -> bytes | None:
        rejects = b"sleeve" in request.content
        return answer(status, b'{"error":{"type":"no"},"status":%d}' % status) if rejects else None

    engine.faults["lexical"] = rejects_sleeves
    answered = await ask(client, lines({}, OTHER, {}, QUERY))
    assert (200, [status, 200]) == (answered.status, [each["status"] for each in answered.json()["responses"]])
    assert ("Elasticsearch", RERANKED) == (answered.header("x-elastic-product"), orders(answered)[1])


@pytest.mark.parametrize("status", [404, 429, 503])
async def test_errors_of_all_items_are_in_a_successful_response(
    client: Client, engine: EndpointEngine, status: int
) -> None:
    """As the engine sends it."""
    engine.faults["lexical"] = refuses(status, b'{"error":{"type":"no"},"status":%d}' % status)
    answered = await ask(client, lines({}, QUERY, {}, OTHER))
    assert (200, [status] * 2) == (answered.status, [each["status"] for each in answered.json()["responses"]])
    assert ("Elasticsearch", "application/json") == tuple(
        answered.header(name) for name in ("x-elastic-product", "content-type")
    )


@pytest.mark.parametrize("status", [401, 403])
async def test_a_caller_whom_the_engine_rejects_gets_its_own_response(
    client: Client, engine: EndpointEngine, status: int
) -> None:
    """For a multi-search it has another one than for its items."""
    engine.faults["lexical"] = refuses(status)
    engine.faults["_msearch"] = refuses(status, b'{"error":"of a multi-search"}')
    answered = await ask(client, lines({}, QUERY, {}, OTHER))
    assert (status, b'{"error":"of a multi-search"}') == (answered.status, answered.content)
    assert "bypassed;reason=engine_refused, bypassed;reason=engine_refused" == answered.header("x-rerank")


async def test_an_item_lost_with_its_connection_is_not_repeated(client: Client, engine: EndpointEngine) -> None:
    engine.faults["lexical"] = breaks_off(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
    answered = await ask(client, lines({}, QUERY, {"index": "logs"}, BOOST))
    first, second = answered.json()["responses"]
    assert (502, "engine_unreachable", 200) == (first["status"], first["error"]["type"], second["status"])
    assert 1 == len(engine.of("lexical"))


async def test_bypassed_items_lost_with_their_connection_are_not_repeated(
    client: Client, engine: EndpointEngine
) -> None:
    engine.faults["_msearch"] = breaks_off(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
    answered = await ask(client, lines({}, QUERY, {"index": "logs"}, BOOST))
    assert (502, 1) == (answered.status, len(engine.of("_msearch")))


async def test_one_budget_covers_all_items_and_starts_with_the_engines_last_response(
    client: Client, engine: EndpointEngine, models: FakeModels
) -> None:
    """The budget limits what is added to the engine's time, which is that of the slowest item."""
    models.faults["rerank"] = hangs
    held = asyncio.Event()
    engine.faults["_msearch"] = waits_for(held)
    content = lines({}, QUERY, {}, QUERY, {"index": "logs"}, BOOST)
    asking = asyncio.ensure_future(ask(client, content, x_rerank_budget_ms="50"))
    await models.until_asked("rerank")  # by both, which share the call
    await asyncio.wait({asking}, timeout=0.1)
    assert (False, 1) == (asking.done(), len(models.of("rerank")))
    held.set()
    degraded = 'degraded;stages="rerank";reason=timeout'
    assert f"{degraded}, {degraded}, unrouted" == (await asking).header("x-rerank")


async def test_an_item_whose_models_fail_is_degraded_alone(client: Client, models: FakeModels) -> None:
    models.faults["rerank"] = refuses(500)
    answered = await ask(client, lines({}, QUERY, {"index": "logs"}, BOOST))
    assert 'degraded;stages="rerank";reason=server_error, unrouted' == answered.header("x-rerank")


async def test_each_item_has_one_log_line(client: Client, log: Log) -> None:
    await ask(client, lines({}, QUERY, {"index": "logs"}, BOOST, {}, SORTED))
    assert ["bypassed", "reranked"] == sorted(line["outcome"] for line in log)


@pytest.mark.parametrize("depth", [500, 5_000])
async def test_an_item_nested_too_deeply_is_bypassed(client: Client, engine: EndpointEngine, depth: int) -> None:
    deep = b'{"ext":{"rerank_proxy":' + b"[" * depth + b"]" * depth + b"}}"
    engine.faults["_msearch"] = refuses(400)
    for content in (lines(deep, QUERY), lines({}, deep, {}, QUERY)):
        answered = await ask(client, content)
        assert 400 == answered.status or "reranked" in answered.header("x-rerank")


async def test_an_items_indices_override_the_urls(client: Client, engine: EndpointEngine) -> None:
    answered = await ask(client, lines({"index": ["products"]}, QUERY, {"index": "products,logs"}, QUERY), "/_msearch")
    assert "reranked, bypassed;reason=mixed_routes" == answered.header("x-rerank")
    assert "/_msearch" == engine.of("_msearch")[0].target


async def test_templates_are_rendered_by_the_engine_and_reranked(client: Client, engine: EndpointEngine) -> None:
    template = {"source": json.dumps(QUERY), "params": {"a": 1}}
    answered = await ask(client, lines({}, template, {}, {"id": "x", "explain": True}), "/products/_msearch/template")
    assert "reranked, bypassed;reason=template" == answered.header("x-rerank")
    assert (RERANKED, template) == (orders(answered)[0], engine.of("_render/template")[0].json())
    assert lines({}, {"id": "x", "explain": True}) == engine.of("_msearch/template")[0].content


async def test_the_clients_compatible_with_version_is_sent_with_every_request(
    client: Client, engine: EndpointEngine
) -> None:
    """The engine rejects a request if only one of `Accept` and `Content-Type` names a version."""
    said = "application/vnd.elasticsearch+{}; compatible-with=8"
    content = lines({}, {"source": json.dumps(QUERY)}, {"index": "logs"}, {"source": "{}"})
    kinds = {"_render/template": "json", "lexical": "json", "_msearch/template": "x-ndjson"}
    await ask(
        client,
        content,
        "/products/_msearch/template",
        content_type=said.format("x-ndjson"),
        accept=said.format("json"),
    )
    sent: dict[str, Any] = {kind: engine.of(kind)[0].header("content-type") for kind in kinds}
    assert {kind: said.format(form) for kind, form in kinds.items()} == sent
