"""From names and bytes to a plan: which route, whose rights, which pipeline, and what ends a search before."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from proxy.config import BypassRules, Config, QueryFrom
from tests.conftest import QUERY, StartProxy
from tests.endpoint_engine import DOCUMENTS, EndpointEngine
from tests.fakes import Client, FakeModels, Message, Stream, answer, refuses

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
async def test_a_name_that_may_not_be_asked_for_is_taken_by_its_letters_where_it_is_plain(
    client: Client, engine: EndpointEngine, status: int, target: str, expected: str
) -> None:
    engine.faults["resolve"] = refuses(status)
    assert expected == await outcome(client, target)


async def test_what_a_caller_may_not_read_of_the_mapping_is_read_with_the_rights_meant_for_it(
    client: Client, engine: EndpointEngine
) -> None:
    """Without such rights the types alone are asked for, and kNN, whose model nobody names, is left out."""
    engine.faults["facts"] = refuses(403)
    assert 'degraded;stages="semantic"' == (await outcome(client)).partition(";reason")[0]


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [(NORMALIZES, RERANKED), (RERANKS, "bypassed;reason=pipeline"), (None, "bypassed;reason=pipeline")],
)
@pytest.mark.parametrize("place", ["parameter", "body", "spelled out"])
async def test_a_search_runs_a_pipeline_only_where_that_is_known_to_be_harmless(
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


async def test_a_pipeline_that_is_switched_off_is_none(client: Client) -> None:
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
async def test_a_route_leaves_out_what_its_rules_say(
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
async def test_the_words_are_the_requests_own_before_those_in_its_query(
    client: Client, models: FakeModels, body: Any, words: str
) -> None:
    await outcome(client, body=body)
    assert [words] == models.of("rerank")[0].json()["queries"]


async def test_words_that_have_no_place_in_the_query_leave_kNN_out(  # noqa: N802
    client: Client, engine: EndpointEngine, models: FakeModels
) -> None:
    """Where they stand is not known, and so not what must be fulfilled besides them."""
    body = {"query": {"match_all": {}}, "ext": {"rerank_proxy": {"query": "notebook"}}}
    expected: Any = (without_knn("given_text"), [], [])
    assert expected == (await outcome(client, body=body), engine.of("semantic"), models.of("embed"))


@pytest.mark.parametrize(("profile", "word"), [("legal", "legal question"), ("support", "customer")])
async def test_a_profile_gives_its_instruction(client: Client, models: FakeModels, profile: str, word: str) -> None:
    await outcome(client, x_rerank_profile=profile)
    assert word in models.of("rerank")[0].json()["instruction"]


async def test_where_the_only_stage_does_not_fit_the_search_it_is_the_engines(
    start_proxy: StartProxy, settings: Config
) -> None:
    client = await start_proxy(with_route(settings, rerank=False))
    assert "bypassed;reason=no_stage" == await outcome(client, body={**QUERY, "min_score": 0.5})


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
async def test_a_route_may_say_where_a_search_gives_its_text(
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
async def test_where_it_gives_none_there_the_query_is_read(
    start_proxy: StartProxy, settings: Config, place: QueryFrom, more: Any, headers: Any
) -> None:
    client = await start_proxy(with_route(settings, query_from=place, passage=["title", "body"]))
    assert without_knn("ambiguous_text") == await outcome(client, body={"query": TWO_TEXTS, **more}, **headers)


async def test_minimal_scores_leave_kNN_out(client: Client, engine: EndpointEngine) -> None:  # noqa: N802
    expected: Any = (without_knn("own_scores"), [])
    assert expected == (await outcome(client, body={**QUERY, "min_score": 0.5}), engine.of("semantic"))


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"bool": {"must": [{"match": {"title": "laptop bag"}}, {"match": {"title": "acme case"}}]}}, "ambiguous_text"),
        ({"bool": {"filter": [{"match": {"title": "laptop"}}]}}, "text_in_filter"),
        ({"query_string": {"query": "laptop OR brand:acme"}}, "query_syntax"),
        ({"hybrid": {"queries": [{"match": {"title": "laptop"}}]}}, "own_scores"),
    ],
)
async def test_where_kNN_does_not_fit_the_search_the_header_says_why(  # noqa: N802
    client: Client, engine: EndpointEngine, query: Any, reason: str
) -> None:
    assert (without_knn(reason), []) == (await outcome(client, body={"query": query}), engine.of("semantic"))
