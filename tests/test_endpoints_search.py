"""`_search` and `_search/template`: what the endpoint itself does, before and after a search of a route."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from proxy.settings.config import Config, Semantic
from tests.conftest import OTHER, QUERY, Log, StartProxy
from tests.endpoint_engine import DOCUMENTS, EndpointEngine
from tests.fakes import Client, Document, FakeModels, Message, answer, hangs, ids, refuses, request, says, waits_for

RERANKED = ["d", "b", "c", "a"]
LEXICAL = ["a", "b", "c"]
TEMPLATE = {"source": json.dumps(QUERY), "params": {"a": 1}}


@pytest.fixture
async def engine() -> AsyncIterator[EndpointEngine]:
    async with EndpointEngine(DOCUMENTS) as server:
        yield server


async def post(client: Client, target: str, body: bytes, **fields: str) -> Message:
    return await client.ask("POST", target, body, content_type="application/json", **fields)


LONG = b"1" * 5000
"""A number with more digits than Python reads."""


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b'{"ext": {"rerank_proxy": {"window": 5}} ,"sort": ["a"]}', b'{"sort": ["a"]}'),
        (b'{"sort": ["a"],"ext":{"rerank_proxy":{"enabled":false}, "o":1}}', b'{"sort": ["a"],"ext":{"o":1}}'),
        (b'{"ext":{"o":1e0 ,"rerank_proxy":{}},"sort":["a"]}', b'{"ext":{"o":1e0},"sort":["a"]}'),
        (b'{"ext":{"rerank_proxy":null},"sort":["a"]}', b'{"sort":["a"]}'),
        (
            rb'{"ext":{"rerank_proxy":{}},"query":{"match":{"title":"\ud83d"}}}',
            rb'{"query":{"match":{"title":"\ud83d"}}}',
        ),
        pytest.param(b'{"ext":{"rerank_proxy":{}},"size":%s}' % LONG, b'{"size":%s}' % LONG, id="a long number"),
        pytest.param(*[b'{"ext":{"rerank_proxy":{}},"size":1,"size":%s}' % LONG] * 2, id="a number that is not read"),
    ],
)
async def test_options_are_removed_from_bypassed_searches(
    client: Client, engine: EndpointEngine, body: bytes, left: bytes
) -> None:
    await post(client, "/products/_search", body)
    assert (left, str(len(left))) == (engine.requests[-1].content, engine.requests[-1].header("content-length"))


@pytest.mark.parametrize(
    ("target", "body", "expected"),
    [
        ("", b'{"sort": ["a"]}', ("", b'{"sort": ["a"],"_source":{"excludes":["v","v_hash"]}}')),
        ("", b'{"_source":["a","v"],"sort":["a"]}', ("", b'{"includes":["a","v"],"excludes":["v_hash"]}}')),
        ("", b'{"_source":["v","v_hash"],"sort":["a"]}', ("", None)),
        ("", b'{"_source":["a"],"sort":["a"]}', ("", None)),
        ("", b'{"_source":["*"],"sort":["a"]}', ("", b'{"includes":["*"],"excludes":["v","v_hash"]}}')),
        ("", b'{"sort":["a"],"_source":"t*"}', ("", b'"_source":"t*"}')),
        ("", b'{"sort":["a"],"_source":false}', ("", None)),
        ("", b'{"sort":["a"],"stored_fields":["a"]}', ("", None)),
        ("", b'{"sort":["a"],"slice":{"id":0,"max":2}}', ("", None)),
        ("?scroll=1m", b'{"sort":["_doc"]}', ("?scroll=1m", None)),
        ("?q=a+b&sort=a", b"", ("?q=a+b&sort=a&_source_excludes=v%2Cv_hash", b"")),
        ("?_source=a", b'{"sort":["a"]}', ("?_source=a", None)),
        ("?_source=true", b'{"sort":["a"]}', ("?_source_excludes=v%2Cv_hash", None)),
        ("?_source_includes=v", b'{"sort":["a"]}', ("?_source_includes=v&_source_excludes=v_hash", None)),
        ("", b'{"sort":["a"', ("", None)),
    ],
)
async def test_a_bypassed_search_returns_no_vectors_if_its_route_hides_them(
    start_proxy: StartProxy, settings: Config, engine: EndpointEngine, target: str, body: bytes, expected: Any
) -> None:
    semantic = {"field": "v", "dimensions": 3, "exclude_from_source": True}
    client = await start_proxy(with_semantic(settings, semantic))
    answered = await post(client, f"/products/_search{target}", body)
    assert answered.header("x-rerank").startswith("bypassed")
    asked, (query, sent) = engine.requests[-1], expected
    assert f"/products/_search{query}" == asked.target
    if sent is None:
        assert body == asked.content
    else:
        assert asked.content.endswith(sent)
        assert (sent == b"") == (asked.content == b"")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("body", [b'{"sort": ["a"]}', b""])
async def test_without_that_option_a_bypassed_search_keeps_its_bytes(
    client: Client, engine: EndpointEngine, method: str, body: bytes
) -> None:
    await client.ask(method, "/products/_search?q=a+b&sort=a", body, content_type="application/json")
    assert ("/products/_search?q=a+b&sort=a", body) == (engine.requests[-1].target, engine.requests[-1].content)


def with_semantic(settings: Config, semantic: dict[str, Any]) -> Config:
    (route,) = settings.routes
    changed = msgspec.structs.replace(route, semantic=msgspec.convert(semantic, Semantic))
    return msgspec.structs.replace(settings, routes=(changed,))


async def test_without_a_matching_route_nothing_is_changed(client: Client, engine: EndpointEngine) -> None:
    body = b'{"ext": {"rerank_proxy": {"nonsense": 5}}}'
    answered = await post(client, "/logs/_search", body, x_rerank_window="no")
    assert (200, "", body) == (answered.status, answered.header("x-rerank"), engine.requests[-1].content)
    assert "no" == engine.requests[-1].header("x-rerank-window")


@pytest.mark.parametrize(
    ("member", "fields"),
    [
        ({"window": 0}, {}),
        ({"host": "x"}, {}),
        ([], {}),
        ({"query": "\ud83d"}, {}),
        ({}, {"x_rerank_window": "many"}),
    ],
)
async def test_invalid_options_are_rejected_in_the_engines_format(
    client: Client, engine: EndpointEngine, log: Log, member: Any, fields: dict[str, str]
) -> None:
    answered = await client.search("/products/_search", {**QUERY, "ext": {"rerank_proxy": member}}, **fields)
    error = answered.json()["error"]
    assert (400, 400, "illegal_argument_exception") == (answered.status, answered.json()["status"], error["type"])
    assert [{"type": error["type"], "reason": error["reason"]}] == error["root_cause"]
    assert ("application/json", "bypassed;reason=steering") == (
        answered.header("content-type").partition(";")[0],
        answered.header("x-rerank"),
    )
    assert ([], "Elasticsearch") == (engine.of("lexical"), answered.header("x-elastic-product"))


async def test_a_disallowed_option_is_rejected(start_proxy: StartProxy, settings: Config) -> None:
    client = await start_proxy(msgspec.structs.replace(settings, steering=("enabled",)))
    refused = await client.ask("GET", "/products/_search?q=laptop", x_rerank_window="5")
    allowed = await client.ask("GET", "/products/_search?q=laptop", x_rerank_enabled="off")
    assert (400, 200, "bypassed;reason=steered_off") == (refused.status, allowed.status, allowed.header("x-rerank"))


async def test_a_request_may_set_query_text_instruction_and_window(steered_client: Client, models: FakeModels) -> None:
    said = {"query": "notebook", "instruction": "Judge.", "window": 2}
    answered = await steered_client.search("/products/_search", {**QUERY, "ext": {"rerank_proxy": said}})
    (asked,) = models.of("rerank")
    assert (["notebook"], "Judge.", 2) == (
        asked.json()["queries"],
        asked.json()["instruction"],
        len(asked.json()["documents"]),
    )
    assert 'reranked;stages="semantic";reason=given_text' == answered.header("x-rerank")


@pytest.mark.parametrize(
    ("stage", "skipped", "ms", "order"),
    [("rerank", "rerank", 150, ["a", "b", "d", "c"]), ("embed", "semantic", 75, ["b", "c", "a"])],
)
async def test_a_hanging_model_delays_a_search_by_the_requests_budget_at_most(
    client: Client, models: FakeModels, log: Log, stage: str, skipped: str, ms: int, order: list[str]
) -> None:
    """And not by the model's own, longer timeout; the embedder leaves half of the budget to the reranker."""
    models.faults[stage] = hangs
    answered = await client.search("/products/_search", QUERY, x_rerank_budget_ms="150")
    assert (200, f'degraded;stages="{skipped}";reason=timeout') == (answered.status, answered.header("x-rerank"))
    assert order == ids(answered)
    (line,) = [event for event in log if event["event"] == "search"]
    details = {detail.partition(" (")[0] for detail in line["detail"].split("; ")}
    assert {f"budget: no response within {ms} ms"} == details


def with_budget(settings: Config, budget_ms: int) -> Config:
    """The same proxy with this budget of its route, and far more time for each stage."""
    (route,) = settings.routes
    assert route.semantic is not None
    semantic = msgspec.structs.replace(route.semantic, timeout_seconds=1000.0)
    return msgspec.structs.replace(
        settings,
        engine=msgspec.structs.replace(settings.engine, added_timeout_seconds=1000.0),
        models=msgspec.structs.replace(settings.models, embed_timeout_seconds=1000.0, rerank_timeout_seconds=1000.0),
        routes=(msgspec.structs.replace(route, budget_ms=budget_ms, semantic=semantic),),
    )


@pytest.mark.parametrize(
    ("hanging", "order"),
    [
        ({"rerank"}, ["a", "b", "d", "c"]),
        ({"embed"}, ["b", "c", "a"]),  # they leave the reranker its part of the budget
        ({"semantic"}, ["b", "c", "a"]),
        ({"embed", "rerank", "semantic", "render"}, LEXICAL),
        ({"render", "rerank"}, ["a", "b", "c"]),
    ],
    ids=lambda value: " ".join(sorted(value)),
)
async def test_a_hanging_service_delays_a_search_by_the_routes_budget_at_most(
    start_proxy: StartProxy,
    settings: Config,
    engine: EndpointEngine,
    models: FakeModels,
    hanging: set[str],
    order: list[str],
) -> None:
    """The request sets no budget: the response has the best order known by then, and the reason."""
    client = await start_proxy(with_budget(settings, 700))
    for server in (engine, models):
        server.faults |= dict.fromkeys(hanging, hangs)
    answered = await client.search("/products/_search", QUERY)
    assert (200, True) == (answered.status, answered.header("x-rerank").endswith("reason=timeout"))
    assert order == ids(answered)


@pytest.mark.parametrize(
    ("url", "body"), [("", {"timeout": "700ms"}), ("?timeout=700ms", {}), ("?timeout=700ms", {"timeout": "1h"})]
)
async def test_the_clients_timeout_lowers_the_budget_and_is_sent_to_the_engine(
    start_proxy: StartProxy, settings: Config, engine: EndpointEngine, models: FakeModels, url: str, body: Any, log: Log
) -> None:
    client = await start_proxy(with_budget(settings, 600_000))
    models.faults["rerank"] = hangs
    answered = await client.search(f"/products/_search{url}", QUERY | body)
    assert 'degraded;stages="rerank";reason=timeout' == answered.header("x-rerank")
    (sent,) = engine.of("lexical")
    assert (url, body.get("timeout")) == (sent.target.removeprefix("/products/_search"), sent.json().get("timeout"))
    (line,) = [event for event in log if event["event"] == "search"]
    assert "no response within 700 ms" in line["detail"]


async def test_the_engines_time_does_not_count_towards_the_budget(
    client: Client, engine: EndpointEngine, models: FakeModels
) -> None:
    """While the client's own search runs, a model may take as long as that does."""
    await client.search("/products/_search", OTHER)
    held = asyncio.Event()
    engine.faults["lexical"] = models.faults["embed"] = waits_for(held)
    asking = asyncio.ensure_future(client.search("/products/_search", QUERY, x_rerank_budget_ms="60000"))
    await engine.until_asked("lexical", 2)
    await models.until_asked("embed", 2)
    held.set()
    assert ("reranked", RERANKED) == ((answered := await asking).header("x-rerank"), ids(answered))


async def test_the_explain_option_explains_each_hit(client: Client) -> None:
    answered = await client.search("/products/_search", {**QUERY, "ext": {"rerank_proxy": {"explain": True}}})
    first, *_, last = answered.json()["hits"]["hits"]
    assert ({"semantic": {"rank": 1, "score": 0.95}, "rerank": 0.9, "final": 2.0}) == {
        name: first["_rerank"][name] for name in ("semantic", "rerank", "final")
    }
    assert ("lexical" not in first["_rerank"], {"rank": 1, "score": 3.0}) == (True, last["_rerank"]["lexical"])
    assert len("Mobile workstation") == first["_rerank"]["passage"]["characters"]


async def test_a_template_is_rendered_by_the_engine_and_reranked(client: Client, engine: EndpointEngine) -> None:
    answered = await client.search("/products/_search/template?size=1&preference=p&typed_keys=true", TEMPLATE)
    assert ("reranked", RERANKED) == (answered.header("x-rerank"), ids(answered))
    (rendered,) = engine.of("_render/template")
    assert ("/_render/template", TEMPLATE) == (rendered.target, rendered.json())
    (sent,) = engine.of("lexical")
    assert {"preference=p", "typed_keys=true"} == set(sent.target.partition("?")[2].split("&"))


@pytest.mark.parametrize(
    "body", [{**TEMPLATE, "explain": True}, {**TEMPLATE, "profile": True}, {"id": "x"}, {"source": "{"}, []]
)
async def test_a_template_that_does_not_render_to_a_search_is_passed_through(
    client: Client, engine: EndpointEngine, body: Any
) -> None:
    engine.faults["_render/template"] = refuses(404)
    answered = await client.search("/products/_search/template", body)
    assert ("bypassed;reason=template", body) == (answered.header("x-rerank"), engine.requests[-1].json())
    assert "/products/_search/template" == engine.requests[-1].target


async def test_a_403_for_rendering_a_template_does_not_drop_the_callers_cache(
    client: Client, engine: EndpointEngine
) -> None:
    await client.search("/products/_search", QUERY)
    asked = len(engine.of("resolve"))
    engine.faults["_render/template"] = refuses(403)
    outcomes = [
        (await client.search(target, body)).header("x-rerank")
        for target, body in (("/products/_search/template", TEMPLATE), ("/products/_search", QUERY))
    ]
    assert (["bypassed;reason=template", "reranked"], asked) == (outcomes, len(engine.of("resolve")))


async def test_a_template_nested_too_deeply_is_passed_through(client: Client, engine: EndpointEngine) -> None:
    body = b'{"source":"{}","params":%s%s}' % (b"[" * 50_000, b"]" * 50_000)
    answered = await post(client, "/products/_search/template", body)
    assert ("bypassed;reason=template", body) == (answered.header("x-rerank"), engine.requests[-1].content)


async def test_a_template_that_renders_to_size_zero_is_bypassed(client: Client, engine: EndpointEngine) -> None:
    body = {"source": json.dumps({**QUERY, "size": 0})}
    answered = await client.search("/products/_search/template", body)
    assert ("bypassed;reason=size_zero", body) == (answered.header("x-rerank"), engine.requests[-1].json())


async def test_opensearch_template_responses_contain_the_status(client: Client, engine: EndpointEngine) -> None:
    engine.product, engine.version = (), {"distribution": "opensearch", "number": "2.19.1"}
    answered = await client.search("/products/_search/template", TEMPLATE)
    pretty = await client.search("/products/_search/template?pretty", TEMPLATE)
    assert [("reranked", 200), ("reranked", 200)] == [
        (each.header("x-rerank"), each.json()["status"]) for each in (answered, pretty)
    ]
    assert (b'},"status":200}', b'  "status" : 200\n}\n') == (answered.content[-15:], pretty.content[-19:])
    hidden, shown = [
        await client.search(f"/products/_search/template?filter_path={said}", TEMPLATE) for said in ("took", "status")
    ]
    assert (["took"], {"status": 200}) == (list(hidden.json()), shown.json())


@pytest.mark.parametrize("said", [".".join(["a"] * 201), "**.nothing"])
@pytest.mark.parametrize("path", ["_search", "_search/template"])
async def test_a_filter_path_that_is_too_complex_is_bypassed(
    client: Client, engine: EndpointEngine, path: str, said: str
) -> None:
    """Found in the URL at once, or only in the response, which is then requested again."""
    deep: Any = {}
    for _ in range(100):
        deep = {"a": deep}
    engine.documents[0] = Document("a", "Laptop", lexical=3.0, more={"deep": deep})
    body = TEMPLATE if path == "_search/template" else QUERY
    answered = await client.search(f"/products/{path}?filter_path={said}", body)
    assert ("bypassed;reason=too_complex", body) == (answered.header("x-rerank"), engine.requests[-1].json())


@pytest.mark.parametrize("field", ["title", "source"])
async def test_a_search_with_too_many_clauses_is_bypassed(client: Client, engine: EndpointEngine, field: str) -> None:
    query = json.dumps({"query": {"bool": {"should": [{"match": {"title": "a"}}] * 10_001}}})
    template = field == "source"
    target = "/products/_search/template" if template else "/products/_search"
    answered = await client.search(target, {"source": query} if template else json.loads(query))
    assert "bypassed;reason=too_complex" == answered.header("x-rerank")


async def test_options_apply_to_templates(client: Client, engine: EndpointEngine) -> None:
    """The `ext`, which a template must not have, is removed."""
    member = {"ext": {"rerank_proxy": {"enabled": False}}}
    answered = await client.search("/products/_search/template", {**TEMPLATE, **member})
    assert ("bypassed;reason=steered_off", TEMPLATE) == (answered.header("x-rerank"), engine.requests[-1].json())
    explained = await client.search(
        "/products/_search/template", {**TEMPLATE, "ext": {"rerank_proxy": {"explain": True}}}
    )
    assert "reranked" == explained.header("x-rerank")
    assert all("_rerank" in hit for hit in explained.json()["hits"]["hits"])


async def test_repeated_headers_are_joined_in_added_searches(client: Client, engine: EndpointEngine) -> None:
    answered = await client.search("/products/_search", QUERY, x_opaque_id="a\r\n b")
    assert ("reranked", "a  b") == (answered.header("x-rerank"), engine.requests[-1].header("x-opaque-id"))


async def test_a_caller_with_unusual_headers_is_bypassed_within_a_route(client: Client) -> None:
    outcomes = []
    for target in ("/products/_search", "/logs/_search"):
        await client.send(request("POST", target, b"{}", x_name="\xe9"))
        outcomes.append((await client.answer()).header("x-rerank"))
    assert ["bypassed;reason=headers", ""] == outcomes


@pytest.mark.parametrize("depth", [300, 3_000, 100_000])
async def test_a_search_nested_too_deeply_is_bypassed(client: Client, engine: EndpointEngine, depth: int) -> None:
    body = b'{"pit":{"id":"x"},"ext":{"rerank_proxy":{}},"query":' + b'{"bool":' * depth + b"{}" + b"}" * depth + b"}"
    engine.faults["lexical"] = engine.faults["too deep"] = refuses(400)
    routed = await post(client, "/products/_search", body)
    of_a_pit = await post(client, "/_search", body)
    assert (400, "bypassed", 400) == (routed.status, routed.header("x-rerank").partition(";")[0], of_a_pit.status)


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/products/_search", b'{"\xff":1}'),
        ("/products/_search", b'{"ext":{"rerank_proxy":{}},"\xff":1}'),
        ("/products/_search/template", b'{"\xff":1}'),
        ("/_search", b'{"pit":{"id":"\xff"}}'),
        ("/products/_msearch", b'{"\xff":1}\n{}\n'),
    ],
)
async def test_a_body_that_is_not_utf_8_is_passed_through(
    client: Client, engine: EndpointEngine, log: Log, target: str, body: bytes
) -> None:
    engine.faults |= dict.fromkeys(("lexical", "_search/template", "_msearch"), refuses(400))
    answered = await client.ask("POST", target, body, content_type="application/json")
    assert (400, body) == (answered.status, engine.requests[-1].content)
    assert [] == [line for line in log if line["event"] == "internal_error"]


async def test_a_point_in_time_is_routed_by_its_indices(client: Client, engine: EndpointEngine) -> None:
    buckets = {"aggregations": {"indices": {"buckets": [{"key": "products"}]}}}
    hits: dict[str, Any] = {"hits": {"total": {"value": 0, "relation": "eq"}, "max_score": None, "hits": []}}

    async def holds(stream: Any, asked: Message) -> bytes | None:
        said = asked.json()
        return answer(200, msgspec.json.encode(buckets | hits)) if said.get("size") == 0 else None

    engine.faults["lexical"] = holds
    answered = await client.search("/_search", {**QUERY, "pit": {"id": "p", "keep_alive": "1m"}})
    assert ("reranked", RERANKED) == (answered.header("x-rerank"), ids(answered))
    assert {"/_search"} == {sent.path for kind in ("lexical", "semantic", "render") for sent in engine.of(kind)}


@pytest.mark.parametrize(
    "empty",
    [
        b'{"pit_id":"p","took":0,"hits":{"hits":[]},"aggregations":{"indices":{"buckets":[]}}}',
        b'{"pit_id":"p","took":0,"_shards":{"total":0},"hits":{"hits":[]}}',
    ],
    ids=["no document", "no index that the caller may search"],
)
async def test_a_point_in_time_without_documents_has_no_route(
    client: Client, engine: EndpointEngine, empty: bytes
) -> None:
    engine.faults["lexical"] = says(empty)
    answered = await client.search("/_search", {**QUERY, "pit": {"id": "p"}})
    assert (200, "", empty) == (answered.status, answered.header("x-rerank"), answered.content)


@pytest.mark.parametrize("depth", [30, 150, 170, 200, 245, 300, 2000])
@pytest.mark.parametrize("said", ["", "laptop"])
async def test_a_query_nested_too_deeply_is_no_internal_error(
    client: Client, engine: EndpointEngine, log: Log, depth: int, said: str
) -> None:
    deep = b'{"query":' + b'{"bool":{"must":[' * depth + b'{"match":{"title":"laptop"}}' + b"]}}" * depth + b"}"
    engine.faults["lexical"] = engine.faults["too deep"] = refuses(400)
    fields = {"x_rerank_query": said} if said else {}
    answered = await client.ask("POST", "/products/_search", deep, content_type="application/json", **fields)
    assert "internal_error" not in answered.header("x-rerank") + str(log)


async def test_the_cost_header_needs_permission_in_the_settings(
    start_proxy: StartProxy, settings: Config, models: FakeModels
) -> None:
    models.cost = 2.0**-10
    client = await start_proxy(settings)
    refused = await client.search("/products/_search", {**QUERY, "ext": {"rerank_proxy": {"cost": True}}})
    silent = await client.search("/products/_search", QUERY)
    assert (400, "") == (refused.status, silent.header("x-rerank-cost"))
    client = await start_proxy(msgspec.structs.replace(settings, steering=("cost",)))
    said = [await client.search("/products/_search", QUERY, x_rerank_cost="on") for _ in range(2)]
    assert ["0.000976562", "0.000000000"] == [message.header("x-rerank-cost") for message in said]
    assert "" == (await client.search("/products/_search", QUERY)).header("x-rerank-cost")
