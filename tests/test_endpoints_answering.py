"""From names and bytes to a plan: which route, whose rights, which pipeline, and what ends a search before."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from proxy.bounds import INDEX_NAMES_BYTES
from proxy.settings.config import BypassRules, Config, QueryFrom
from tests.conftest import QUERY, Log, StartProxy
from tests.endpoint_engine import DOCUMENTS, EndpointEngine
from tests.fakes import (
    MODEL,
    Client,
    FakeEngine,
    FakeModels,
    Fault,
    Message,
    Stream,
    answer,
    breaks_off,
    hangs,
    refuses,
    says,
    waits_for,
)

RERANKED = "reranked"


def with_route(settings: Config, **changes: Any) -> Config:
    return msgspec.structs.replace(settings, routes=(msgspec.structs.replace(settings.routes[0], **changes),))


def without_knn(reason: str) -> str:
    return f'reranked;stages="semantic";reason={reason}'


NORMALIZES: dict[str, Any] = {"phase_results_processors": [{"normalization-processor": {}}]}
RERANKS: dict[str, Any] = {"response_processors": [{"rerank": {}}]}


@pytest.fixture
async def engine() -> AsyncIterator[EndpointEngine]:
    async with EndpointEngine(DOCUMENTS) as server:
        yield server


async def outcome(client: Client, target: str = "/products/_search", body: Any = None, **fields: str) -> str:
    return (await client.search(target, QUERY if body is None else body, **fields)).header("x-rerank")


@pytest.mark.parametrize(
    ("status", "target", "expected"),
    [
        (403, "/products/_search", RERANKED),
        (403, "/products*/_search", "bypassed;reason=unresolved"),
        (403, "/product*/_search", "bypassed;reason=unresolved"),
        (403, "/*/_search", "bypassed;reason=unresolved"),
        (403, "/_all/_search", "bypassed;reason=unresolved"),
        (403, "/%3Cproducts-%7Bnow%2Fd%7D%3E/_search", "bypassed;reason=unresolved"),
        (403, "/_search", "bypassed;reason=unresolved"),
        (403, "/logs/_search", ""),
        (403, "/logs*,-products/_search", ""),
        (404, "/products/_search", "bypassed;reason=unresolved"),
        (500, "/products/_search", "bypassed;reason=unresolved"),
    ],
)
async def test_without_the_right_to_resolve_names_a_plain_name_is_matched_literally(
    client: Client, engine: EndpointEngine, status: int, target: str, expected: str
) -> None:
    engine.faults["resolve"] = refuses(status)
    assert expected == await outcome(client, target)


async def test_mappings_a_caller_may_not_read_are_read_with_the_proxys_credentials(
    client: Client, engine: EndpointEngine
) -> None:
    """Without any, only the types of the fields are read, and kNN is skipped because the model is unknown."""
    engine.faults["facts"] = refuses(403)
    assert 'degraded;stages="semantic"' == (await outcome(client)).partition(";reason")[0]


async def test_passage_fields_that_documents_cannot_have_are_logged_once(
    start_proxy: StartProxy, settings: Config, engine: EndpointEngine, log: Log
) -> None:
    client = await start_proxy(with_route(settings, passage=["title", "titel"]))
    assert [RERANKED, RERANKED] == [await outcome(client), await outcome(client)]
    (warned,) = [event for event in log if event["event"] == "passage_field_missing"]
    assert ["products"] == warned["indices"]
    assert warned["detail"].startswith("titel is not in the mapping, did you mean `title`?: correct `passage` of the ")
    engine.faults["facts"] = refuses(403)
    limited = await start_proxy(with_route(settings, passage=["title", "body"], embedding_model=MODEL))
    assert RERANKED == await outcome(limited)
    assert [warned] == [event for event in log if event["event"] == "passage_field_missing"], "only types are known"


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [(NORMALIZES, RERANKED), (RERANKS, "bypassed;reason=pipeline"), (None, "bypassed;reason=pipeline")],
)
@pytest.mark.parametrize("place", ["parameter", "body", "spelled out"])
async def test_a_search_with_a_pipeline_is_reranked_only_if_it_is_harmless(
    client: Client, engine: EndpointEngine, pipeline: Any, expected: str, place: str
) -> None:
    async def knows(stream: Stream, asked: Message) -> bytes:
        assert "/_search/pipeline/p" == asked.path
        return answer(404 if pipeline is None else 200, msgspec.json.encode({"p": pipeline}))

    engine.faults["other"] = knows
    spelled = RERANKS if pipeline is None else pipeline
    said: Any = {"body": {"search_pipeline": "p"}, "spelled out": {"search_pipeline": spelled}}.get(place, {})
    target = "/products/_search?search_pipeline=p" if place == "parameter" else "/products/_search"
    assert expected == await outcome(client, target, {**QUERY, **said})


@pytest.mark.parametrize("readable", [True, False])
async def test_a_default_pipeline_that_is_unknown_applies_to_added_searches_too(
    start_proxy: StartProxy, settings: Config, engine: EndpointEngine, *, readable: bool
) -> None:
    """It may filter; where the settings can be read, there is none, or the search is bypassed."""
    engine.version = {"distribution": "opensearch", "number": "9.0.0"}
    if not readable:
        engine.faults["facts"] = refuses(403)
    client = await start_proxy(with_route(settings, embedding_model=MODEL))
    assert RERANKED == await outcome(client)
    (asked,) = engine.of("semantic")
    assert readable == ("search_pipeline=_none" in asked.target)


async def test_a_disabled_pipeline_is_no_pipeline(client: Client) -> None:
    assert RERANKED == await outcome(client, "/products/_search?search_pipeline=_none")


@pytest.mark.parametrize(
    ("rules", "body", "expected"),
    [
        (BypassRules(identifiers=True), {"query": {"match": {"title": "XPS-13-9310"}}}, "bypassed;reason=identifier"),
        (BypassRules(identifiers=True), QUERY, RERANKED),
        (BypassRules(phrases=["Laptop"]), QUERY, "bypassed;reason=navigational"),
        (
            BypassRules(autocomplete=True),
            {"query": {"match_bool_prefix": {"title": "la"}}},
            "bypassed;reason=autocomplete",
        ),
    ],
)
async def test_a_route_bypasses_what_its_rules_match(
    start_proxy: StartProxy, settings: Config, models: FakeModels, rules: BypassRules, body: Any, expected: str
) -> None:
    route = msgspec.structs.replace(settings.routes[0], bypass=rules)
    client = await start_proxy(msgspec.structs.replace(settings, routes=(route,)))
    assert (expected, expected == RERANKED) == (await outcome(client, body=body), bool(models.requests))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({**QUERY, "ext": {"rerank_proxy": {"query": "notebook"}}}, "notebook"),
        ({**QUERY, "ext": {"rerank": {"query_context": {"query_text": "ultrabook"}}}}, "ultrabook"),
        (
            {**QUERY, "ext": {"rerank_proxy": {"query": "a"}, "rerank": {"query_context": {"query_text": "b"}}}},
            "a",
        ),
        (QUERY, "laptop"),
    ],
)
async def test_the_query_text_option_overrides_the_query(
    steered_client: Client, models: FakeModels, body: Any, words: str
) -> None:
    await outcome(steered_client, body=body)
    assert [words] == models.of("rerank")[0].json()["queries"]


async def test_a_query_text_option_not_in_the_query_skips_knn(
    steered_client: Client, engine: EndpointEngine, models: FakeModels
) -> None:
    """It is not known which clause has this text, and so not which clauses kNN must fulfil."""
    body = {"query": {"match_all": {}}, "ext": {"rerank_proxy": {"query": "notebook"}}}
    expected: Any = (without_knn("given_text"), [], [])
    assert expected == (await outcome(steered_client, body=body), engine.of("semantic"), models.of("embed"))


@pytest.mark.parametrize(("profile", "word"), [("legal", "legal question"), ("support", "customer")])
async def test_a_profile_sets_its_instruction(
    steered_client: Client, models: FakeModels, profile: str, word: str
) -> None:
    await outcome(steered_client, x_rerank_profile=profile)
    assert word in models.of("rerank")[0].json()["instruction"]


async def test_a_search_that_no_stage_fits_is_bypassed(start_proxy: StartProxy, settings: Config) -> None:
    client = await start_proxy(with_route(settings, rerank=False))
    assert "bypassed;reason=no_stage" == await outcome(client, body={**QUERY, "min_score": 0.5})


BOOSTED: Any = {
    "query": {"function_score": {"query": QUERY["query"], "weight": 2, "field_value_factor": {"field": "n"}}}
}
BY_BOOST: Any = {"query": {"function_score": {**BOOSTED["query"]["function_score"], "boost_mode": "replace"}}}


@pytest.mark.parametrize(
    ("body", "power", "expected", "asked"),
    [
        (BOOSTED, 1.0, "reranked", 1),
        (BOOSTED, 0.0, "reranked", 0),
        (BY_BOOST, 1.0, "bypassed;reason=boost_alone", 0),
        (BY_BOOST, 0.0, "reranked", 0),
        (QUERY, 1.0, "reranked", 0),
    ],
)
async def test_a_boost_search_is_sent_only_for_enabled_boosts(
    start_proxy: StartProxy,
    settings: Config,
    engine: FakeEngine,
    body: Any,
    power: float,
    expected: str,
    asked: int,
) -> None:
    client = await start_proxy(with_route(settings, boost_power=power))
    assert (expected, asked) == (await outcome(client, body=body), len(engine.of("boosts")))


TWO_TEXTS: Any = {"bool": {"must": [{"match": {"title": "acme"}}, {"match": {"body": "laptop bag"}}]}}


@pytest.mark.parametrize(
    ("place", "more", "headers"),
    [
        (QueryFrom(header="X-Search-Text"), {}, {"x_search_text": "laptop bag"}),
        (QueryFrom(body="suggest.spelling.text"), {"suggest": {"spelling": {"text": " laptop bag "}}}, {}),
        (QueryFrom(name="typed"), {}, {}),
        (QueryFrom(header="X-Search-Text", body="aggs.0.text", name="typed"), {}, {}),
    ],
)
async def test_a_route_may_set_where_the_query_text_is_read(
    start_proxy: StartProxy, settings: Config, engine: EndpointEngine, place: QueryFrom, more: Any, headers: Any
) -> None:
    client = await start_proxy(with_route(settings, query_from=place, passage=["title", "body"]))
    words = {"match": {"body": {"query": "laptop bag", "_name": "typed"}}}
    body = {"query": {"bool": {"must": [{"match": {"title": "acme"}}, words]}}, **more}
    assert RERANKED == await outcome(client, body=body, **headers)
    (asked,) = engine.of("semantic")
    assert b'"acme"' in asked.body
    assert b"laptop" not in asked.body


@pytest.mark.parametrize(
    ("place", "more", "headers"),
    [
        (QueryFrom(), {}, {"x_search_text": "laptop bag"}),
        (QueryFrom(header="X-Search-Text"), {}, {}),
        (QueryFrom(header="X-Search-Text"), {}, {"x_search_text": "x" * 2001}),
        (QueryFrom(body="suggest.text.0"), {"suggest": {"text": "laptop bag"}}, {}),
        (QueryFrom(name="other"), {}, {}),
    ],
)
async def test_without_text_in_that_place_the_query_is_read(
    start_proxy: StartProxy, settings: Config, place: QueryFrom, more: Any, headers: Any
) -> None:
    client = await start_proxy(with_route(settings, query_from=place, passage=["title", "body"]))
    assert without_knn("ambiguous_text") == await outcome(client, body={"query": TWO_TEXTS, **more}, **headers)


async def test_min_score_skips_knn(client: Client, engine: EndpointEngine) -> None:
    expected: Any = (without_knn("own_scores"), [])
    assert expected == (await outcome(client, body={**QUERY, "min_score": 0.5}), engine.of("semantic"))


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"bool": {"must": [{"match": {"title": "laptop bag"}}, {"match": {"title": "acme case"}}]}}, "ambiguous_text"),
        ({"bool": {"must": [{"match_all": {}}, {"match": {"tenant": "laptop"}}]}}, "ambiguous_text"),
        ({"bool": {"filter": [{"match": {"title": "laptop"}}]}}, "text_in_filter"),
        ({"query_string": {"query": "laptop OR brand:acme"}}, "query_syntax"),
        ({"hybrid": {"queries": [{"match": {"title": "laptop"}}]}}, "own_scores"),
    ],
)
async def test_the_header_reports_why_knn_was_skipped(
    client: Client, engine: EndpointEngine, query: Any, reason: str
) -> None:
    assert (without_knn(reason), []) == (await outcome(client, body={"query": query}), engine.of("semantic"))


@pytest.mark.parametrize(("asked", "window"), [(None, 3), (2, 2), (3, 3), (4, 3), (10**12, 3)])
async def test_a_request_may_lower_but_not_raise_the_window(
    start_proxy: StartProxy, settings: Config, models: FakeModels, asked: int | None, window: int
) -> None:
    """The route limits what a search may cost: here to four candidates."""
    route = msgspec.structs.replace(settings.routes[0], rank_window_size=3)
    client = await start_proxy(msgspec.structs.replace(settings, routes=(route,)))
    steering = {} if asked is None else {"ext": {"rerank_proxy": {"window": asked}}}
    assert RERANKED == await outcome(client, body={**QUERY, **steering})
    assert window == len(models.of("rerank")[0].json()["documents"])


@pytest.mark.parametrize("option", ["query", "profile", "instruction"])
async def test_instructions_of_a_request_need_permission_in_the_settings(
    client: Client, models: FakeModels, option: str
) -> None:
    answered = await client.search("/products/_search", QUERY, **{f"x_rerank_{option}": "legal"})
    assert (400, "bypassed;reason=steering", []) == (answered.status, answered.header("x-rerank"), models.requests)
    assert b"is not allowed: remove it, or add" in answered.content


@pytest.mark.parametrize("kind", ["resolve", "facts"])
async def test_a_search_does_not_wait_for_slow_name_resolution(
    start_proxy: StartProxy, settings: Config, engine: EndpointEngine, log: Log, kind: str
) -> None:
    held = asyncio.Event()
    engine.faults[kind] = waits_for(held)
    client = await start_proxy(settings_with(settings, resolve_timeout_seconds=0.03))
    assert "bypassed;reason=unresolved" == await outcome(client)
    assert ("warning", True) == (log[-1]["log_level"], "yet" in log[-1]["detail"])
    assert (1, QUERY) == (len(engine.of("lexical")), engine.of("lexical")[0].json())
    held.set()
    while (told := await outcome(client)) != RERANKED:
        assert "bypassed;reason=unresolved" == told
    assert 1 == len(engine.of(kind))


@pytest.mark.parametrize("target", ["/logs/_search", "/some-alias/_search", "/products/_search", "/_search"])
async def test_later_searches_do_not_wait_for_the_same_slow_lookup(
    start_proxy: StartProxy, settings: Config, engine: EndpointEngine, target: str
) -> None:
    """One search waits for its patience; others with this name continue at once, since waiting would not help them."""
    engine.faults["resolve"] = hangs
    client = await start_proxy(settings_with(settings, resolve_timeout_seconds=0.03))
    for _ in range(20):
        assert 200 == (await client.search(target, QUERY)).status
    assert (1, 20) == (len(engine.of("resolve")), len(engine.of("lexical")))


def settings_with(settings: Config, **changes: Any) -> Config:
    return msgspec.structs.replace(settings, engine=msgspec.structs.replace(settings.engine, **changes))


async def test_lookups_for_one_search_run_concurrently(client: Client, engine: EndpointEngine) -> None:
    """The engine's version and the mapping are requested at the same time."""
    held = asyncio.Event()
    engine.faults["facts"] = engine.faults["version"] = waits_for(held)
    asking = asyncio.ensure_future(outcome(client))
    await engine.until_asked("facts")
    await engine.until_asked("version")
    held.set()
    assert RERANKED == await asking


@pytest.fixture
async def forwarding_client(start_proxy: StartProxy, settings: Config) -> Client:
    """A client of a proxy that tells the engine its clients' addresses."""
    return await start_proxy(
        msgspec.structs.replace(settings, engine=msgspec.structs.replace(settings.engine, forwarded_for=True))
    )


async def test_added_searches_carry_x_forwarded_for_if_configured(
    forwarding_client: Client, engine: EndpointEngine
) -> None:
    """What the client may see may depend on it (OpenSearch: `hosts` of a role mapping)."""
    assert RERANKED == await outcome(forwarding_client, x_forwarded_for="10.0.0.1")
    told = {engine.kind(asked): asked.all("x-forwarded-for") for asked in engine.requests}
    assert {"resolve", "facts", "lexical", "semantic"} <= told.keys()
    assert {("10.0.0.1", "127.0.0.1")} == set(map(tuple, told.values()))


async def test_with_x_forwarded_for_clients_of_two_addresses_are_two_callers(
    forwarding_client: Client, engine: EndpointEngine
) -> None:
    port = forwarding_client.writer.get_extra_info("peername")[1]
    other = Client(*await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0)))
    for client in (forwarding_client, other, forwarding_client, other):
        assert RERANKED == await outcome(client)
    other.close()
    assert [["127.0.0.1"], ["127.0.0.2"]] == [asked.all("x-forwarded-for") for asked in engine.of("resolve")]


async def test_with_x_forwarded_for_a_rejected_callers_cache_is_dropped(
    forwarding_client: Client, engine: EndpointEngine
) -> None:
    """Also if the rejected request was one that passes through."""
    assert RERANKED == await outcome(forwarding_client)
    engine.faults["other"] = refuses(401)
    await forwarding_client.ask("GET", "/_cat/health")
    engine.faults.clear()
    assert RERANKED == await outcome(forwarding_client)
    assert 2 == len(engine.of("resolve"))


@pytest.mark.parametrize("name", ["products,", "{", ":{", "logs,"])
async def test_a_search_with_more_names_than_engines_accept_is_passed_on(
    client: Client, engine: EndpointEngine, name: str
) -> None:
    target = f"/{name * (INDEX_NAMES_BYTES // len(name) + 1)}/_search"
    assert "bypassed;reason=too_complex" == await outcome(client, target)
    assert [target] == [asked.target for asked in engine.requests]


async def test_names_of_remote_clusters_are_not_resolved(client: Client, engine: EndpointEngine) -> None:
    assert ("", []) == (await outcome(client, "/eu:products/_search"), engine.of("resolve"))


async def test_a_search_without_a_route_resolves_its_name_once(client: Client, engine: EndpointEngine) -> None:
    outcomes = {await outcome(client, "/logs/_search") for _ in range(3)}
    assert ({""}, 1, []) == (outcomes, len(engine.of("resolve")), engine.of("facts"))


@pytest.mark.parametrize("status", [401, 403])
async def test_a_rejected_callers_cache_is_dropped(client: Client, engine: EndpointEngine, status: int) -> None:
    assert RERANKED == await outcome(client)
    asked = {kind: len(engine.of(kind)) for kind in ("resolve", "facts")}
    engine.faults["lexical"] = refuses(status)
    await outcome(client)
    engine.faults.clear()
    assert RERANKED == await outcome(client)
    assert {kind: count + 1 for kind, count in asked.items()} == {kind: len(engine.of(kind)) for kind in asked}


@pytest.mark.parametrize(
    ("fault", "level", "found"),
    [
        (refuses(404), "info", "status 404"),
        (refuses(503), "warning", "status 503"),
        (breaks_off(), "warning", "engine"),
        (says(b"<html>"), "warning", "cannot be read"),
    ],
)
async def test_the_log_reports_why_names_could_not_be_resolved(
    client: Client, engine: EndpointEngine, log: Log, fault: Fault, level: str, found: str
) -> None:
    engine.faults["resolve"] = fault
    assert "bypassed;reason=unresolved" == await outcome(client)
    assert (level, True) == (log[-1]["log_level"], found in log[-1]["detail"])
