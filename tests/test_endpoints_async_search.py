"""`_async_search`: the engine's own while it runs, reranked once complete, for the caller alone who submitted it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.bounds import ASYNC_SEARCHES_BYTES, SEARCH_BODY_BYTES
from tests.conftest import QUERY, Log
from tests.endpoint_engine import DOCUMENTS, EndpointEngine, recorded
from tests.fakes import Client, Document, FakeModels, Message, Stream, answer, refuses, request, says

RERANKED = ["d", "b", "c", "a"]
LEXICAL = ["a", "b", "c"]
SUBMIT = "/products/_async_search?wait_for_completion_timeout=200ms&keep_alive=1m"
ID: str = recorded("async_search.json")["id"]
POLL = f"/_async_search/{ID}?wait_for_completion_timeout=200ms"


@pytest.fixture
async def engine() -> AsyncIterator[EndpointEngine]:
    async with EndpointEngine(DOCUMENTS) as server:
        yield server


def order(answered: Any) -> list[str]:
    return [hit["_id"] for hit in answered.json()["response"]["hits"]["hits"]]


async def test_a_search_that_is_complete_at_once_is_reranked(client: Client, engine: EndpointEngine) -> None:
    answered = await client.search(SUBMIT, QUERY)
    assert ("reranked", RERANKED) == (answered.header("x-rerank"), order(answered))
    assert (SUBMIT, QUERY) == (engine.of("_async_search")[0].target, engine.of("_async_search")[0].json())


async def test_the_id_and_other_members_for_polling_are_preserved(client: Client) -> None:
    """The id and the times, in the body and in the headers."""
    answered = await client.search(SUBMIT, QUERY)
    said = answered.json()
    del said["response"]
    assert {"id": ID, **recorded("async_search.json")["complete"]} == said
    assert (ID, "?0") == (
        answered.header("x-elasticsearch-async-id"),
        answered.header("x-elasticsearch-async-is-running"),
    )


async def test_the_response_of_a_running_search_is_relayed(client: Client, engine: EndpointEngine, log: Log) -> None:
    engine.running = True
    straight = await Client.to(engine.port)
    answered = await client.search(SUBMIT, QUERY)
    assert (await straight.search(SUBMIT, QUERY)).content == answered.content
    assert ("bypassed;reason=running", "?1") == (
        answered.header("x-rerank"),
        answered.header("x-elasticsearch-async-is-running"),
    )
    assert ["running"] == [line["reason"] for line in log]
    straight.close()


async def test_a_search_is_reranked_when_a_poll_finds_it_complete(
    client: Client, engine: EndpointEngine, models: FakeModels
) -> None:
    engine.running = True
    await client.search(SUBMIT, QUERY)
    before = await client.ask("GET", POLL)
    engine.running = False
    after = await client.ask("GET", POLL)
    assert ["bypassed;reason=running", "reranked"] == [each.header("x-rerank") for each in (before, after)]
    assert (LEXICAL, RERANKED, "?0") == (
        order(before),
        order(after),
        after.header("x-elasticsearch-async-is-running"),
    )
    assert [POLL, POLL] == [asked.target for asked in engine.of("poll")]


async def test_above_the_memory_limit_the_oldest_running_search_is_not_reranked(
    client: Client, engine: EndpointEngine
) -> None:
    """With one more of the largest bodies than may be kept."""
    engine.running = True
    padded = {**QUERY, "stats": ["x" * (SEARCH_BODY_BYTES - 2**12)]}
    most = ASYNC_SEARCHES_BYTES // SEARCH_BODY_BYTES

    async def numbered(stream: Stream, asked: Message) -> bytes:
        said = engine.usual(asked).replace(ID.encode(), b"id%d" % len(engine.of("_async_search")))
        return answer(200, said.partition(b"\r\n\r\n")[2])

    engine.faults["_async_search"] = numbered
    for _ in range(most + 1):
        await client.search(SUBMIT, padded)
    engine.running = False
    polled = [await client.ask("GET", f"/_async_search/id{number}") for number in (1, 2)]
    assert ["", "reranked"] == [each.header("x-rerank") for each in polled]


@pytest.mark.slow
async def test_headers_of_running_searches_count_towards_the_memory_limit(
    client: Client, engine: EndpointEngine
) -> None:
    engine.running = True
    fields: Any = {f"x_{number}": "x" * 40 for number in range(1000)}

    async def numbered(stream: Stream, asked: Message) -> bytes:
        said = engine.usual(asked).replace(ID.encode(), b"id%d" % len(engine.of("_async_search")))
        return answer(200, said.partition(b"\r\n\r\n")[2])

    engine.faults["_async_search"] = numbered
    most = ASYNC_SEARCHES_BYTES // 200_000
    for _ in range(most + 1):
        await client.search(SUBMIT, QUERY, **fields)
    engine.running = False
    polled = [await client.ask("GET", f"/_async_search/id{number}", **fields) for number in (1, most + 1)]
    assert ["", "reranked"] == [each.header("x-rerank") for each in polled]


async def test_a_poll_of_another_caller_is_passed_through(client: Client, engine: EndpointEngine) -> None:
    await client.search(SUBMIT, QUERY, authorization="Basic bWU=")
    mine = await client.ask("GET", POLL, authorization="Basic bWU=")
    anothers = await client.ask("GET", POLL, authorization="Basic eW91")
    assert ["reranked", ""] == [mine.header("x-rerank"), anothers.header("x-rerank")]
    assert LEXICAL == order(anothers)


@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", "/_async_search/other"), ("GET", f"/_async_search/status/{ID}"), ("DELETE", f"/_async_search/{ID}")],
)
async def test_a_poll_for_an_unknown_search_is_passed_through(
    client: Client, engine: EndpointEngine, method: str, target: str
) -> None:
    await client.search(SUBMIT, QUERY)
    answered = await client.ask(method, target)
    assert ("", method, target) == (
        answered.header("x-rerank"),
        engine.requests[-1].method,
        engine.requests[-1].target,
    )


@pytest.mark.parametrize(
    ("target", "body", "outcome"),
    [
        ("/logs/_async_search", QUERY, ""),
        ("/products,logs/_async_search", QUERY, "bypassed;reason=mixed_routes"),
        ("/products/_async_search", {**QUERY, "sort": ["price"]}, "bypassed;reason=sort"),
        ("/products/_async_search?format=yaml", QUERY, "bypassed;reason=format"),
        ("/products/_async_search?q=a&q=b", QUERY, 'bypassed;reason=unknown_parameter;key="q"'),
    ],
)
async def test_a_bypassed_search_gets_the_engines_response(
    client: Client, engine: EndpointEngine, target: str, body: Any, outcome: str
) -> None:
    straight = await Client.to(engine.port)
    answered = await client.search(target, body)
    assert (outcome, target) == (answered.header("x-rerank"), engine.requests[-1].target)
    assert (await straight.search(target, body)).content == answered.content
    straight.close()


async def test_a_submission_that_the_engine_rejects_gets_its_error(client: Client, engine: EndpointEngine) -> None:
    engine.faults["_async_search"] = refuses(400)
    answered = await client.search(SUBMIT, QUERY)
    assert (400, "bypassed;reason=engine_refused") == (answered.status, answered.header("x-rerank"))


async def test_a_poll_for_a_deleted_search_gets_the_engines_404(client: Client, engine: EndpointEngine) -> None:
    await client.search(SUBMIT, QUERY)
    engine.faults["poll"] = refuses(404)
    answered = await client.ask("GET", POLL)
    assert (404, "bypassed;reason=engine_refused") == (answered.status, answered.header("x-rerank"))


async def test_an_unexpected_response_is_relayed(client: Client, engine: EndpointEngine) -> None:
    engine.faults["_async_search"] = says(b"[]")
    answered = await client.search(SUBMIT, QUERY)
    assert (200, b"[]", "bypassed;reason=engine_refused") == (
        answered.status,
        answered.content,
        answered.header("x-rerank"),
    )


async def test_a_response_nested_too_deeply_is_relayed(client: Client, engine: EndpointEngine) -> None:
    deep = b'{"id":"x","response":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001
    engine.faults["_async_search"] = says(deep)
    answered = await client.search(SUBMIT, QUERY)
    assert (200, deep, "bypassed;reason=too_complex") == (
        answered.status,
        answered.content,
        answered.header("x-rerank"),
    )


async def test_a_poll_in_another_format_than_json_is_passed_through(client: Client, engine: EndpointEngine) -> None:
    await client.search(SUBMIT, QUERY)
    yaml = await client.ask("GET", POLL, accept="application/yaml")
    parameter = await client.ask("GET", f"{POLL}&format=yaml")
    assert ["bypassed;reason=accept", "bypassed;reason=format"] == [
        yaml.header("x-rerank"),
        parameter.header("x-rerank"),
    ]


async def test_filter_path_applies_to_the_whole_response(client: Client, engine: EndpointEngine) -> None:
    target = f"{SUBMIT}&filter_path=is_running,response.hits.hits._id&pretty"
    answered = await client.search(target, QUERY)
    expected = {"is_running": False, "response": {"hits": {"hits": [{"_id": name} for name in RERANKED]}}}
    assert ("reranked", expected) == (answered.header("x-rerank"), answered.json())
    assert answered.content.startswith(b'{\n  "is_running" : false,\n  "response" : {\n    "hits" : {\n')
    engine.running = True
    assert {"is_running": True} == (await client.search(f"{SUBMIT}&filter_path=is_running", QUERY)).json()


async def test_a_filter_path_that_is_too_complex_is_bypassed(client: Client, engine: EndpointEngine) -> None:
    target = f"{SUBMIT}&filter_path={'.'.join(['a'] * 201)}"
    assert "bypassed;reason=too_complex" == (await client.search(target, QUERY)).header("x-rerank")
    deep: Any = {}
    for _ in range(100):
        deep = {"a": deep}
    engine.documents[0] = Document("a", "Laptop", lexical=3.0, more={"deep": deep})
    answered = await client.search(f"{SUBMIT}&filter_path=**.nothing", QUERY)
    assert ("bypassed;reason=too_complex", 200) == (answered.header("x-rerank"), answered.status)


async def test_each_poll_has_its_own_response_format(client: Client, engine: EndpointEngine) -> None:
    engine.running = True
    await client.search(f"{SUBMIT}&typed_keys=true&preference=mine", QUERY)
    engine.running = False
    await client.ask("GET", f"/_async_search/{ID}?rest_total_hits_as_int=true")
    (sent,) = engine.of("lexical")
    assert {"preference=mine", "rest_total_hits_as_int=true"} == set(sent.target.split("?")[1].split("&"))


async def test_options_are_removed_and_apply_until_the_search_completes(
    steered_client: Client, engine: EndpointEngine, models: FakeModels
) -> None:
    engine.running = True
    body = b'{"ext": {"rerank_proxy": {"query": "notebook"}, "a": 1} ,"query":{"match":{"title":"laptop"}}}'
    await steered_client.ask("POST", SUBMIT, body.replace(b', "a": 1', b""), content_type="application/json")
    engine.running = False
    await steered_client.ask("GET", POLL)
    (sent,) = engine.of("_async_search")
    assert b'{"query":{"match":{"title":"laptop"}}}' == sent.content
    assert ["notebook"] == models.of("rerank")[0].json()["queries"]


async def test_a_submission_with_invalid_options_is_rejected(client: Client, engine: EndpointEngine) -> None:
    answered = await client.search(SUBMIT, {**QUERY, "ext": {"rerank_proxy": {"host": "evil"}}})
    assert (400, [], "bypassed;reason=steering") == (
        answered.status,
        engine.of("_async_search"),
        answered.header("x-rerank"),
    )


async def test_the_clients_compatible_with_version_is_sent_to_the_engine(
    client: Client, engine: EndpointEngine
) -> None:
    said = "application/vnd.elasticsearch+json; compatible-with=8"
    answered = await client.search(SUBMIT, QUERY, content_type=said, accept=said)
    assert ("reranked", said) == (
        answered.header("x-rerank"),
        engine.of("_async_search")[0].header("content-type"),
    )


async def test_kibanas_discover_by_relevance_is_reranked(client: Client, engine: EndpointEngine) -> None:
    """Replays a recorded request of Kibana; not run on an engine."""
    said = recorded("kibana_discover.json")
    answered = await client.search(said["target"], said["body"], kbn_xsrf="1")
    assert ("reranked", RERANKED) == (answered.header("x-rerank"), order(answered))
    assert {"match_phrase": {"brand": "acme"}} in engine.of("semantic")[0].json()["knn"]["filter"][0]["bool"]["filter"]


async def test_a_body_that_is_not_json_is_passed_through(client: Client, engine: EndpointEngine) -> None:
    answered = await client.ask("POST", SUBMIT, b"query: {}", content_type="application/yaml")
    assert ("bypassed;reason=content_type", b"query: {}") == (
        answered.header("x-rerank"),
        engine.of("_async_search")[0].content,
    )


async def test_a_caller_with_unusual_headers_is_bypassed(client: Client, engine: EndpointEngine) -> None:
    await client.send(request("POST", SUBMIT, b"{}", x_name="\xe9"))
    answered = await client.answer()
    assert (200, "bypassed;reason=headers") == (answered.status, answered.header("x-rerank"))
    assert LEXICAL == [hit["_id"] for hit in answered.json()["response"]["hits"]["hits"]]
    assert [] == [name for name in ids_of_requests(engine) if name == "lexical"]


def ids_of_requests(engine: EndpointEngine) -> list[str]:
    return [engine.kind(asked) for asked in engine.requests]


async def test_a_search_without_hits_stays_empty(client: Client, engine: EndpointEngine) -> None:
    engine.documents = [document for document in DOCUMENTS if document.lexical is None]
    answered = await client.search(SUBMIT, QUERY)
    assert ("bypassed;reason=zero_hits", []) == (answered.header("x-rerank"), order(answered))
