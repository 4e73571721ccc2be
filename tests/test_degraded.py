"""A stage that fails is left out: the search is answered all the same, and header and log say so."""

import asyncio
import dataclasses
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from proxy.bounds import SEARCH_RESPONSE_BYTES
from proxy.errors import UpstreamError, Withheld
from proxy.ranking.pipeline import Answered, Unserved, run_search, why_unserved
from proxy.settings.config import Cache, Config, RouteSettings, Semantic
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
    breaks_off,
    closed_port,
    hangs,
    ids,
    refuses,
    says,
)
from tests.plans import plan_of
from tests.runs import run_of

SOON = 0.03
SECRET = "Basic c2VjcmV0"
RERANKED, FUSED, LEXICAL = ["d", "b", "c", "a"], ["a", "b", "d", "c"], ["a", "b", "c"]
WITHOUT_SEMANTIC = ["b", "c", "a"]


def impatient(settings: Config, kind: str) -> Config:
    """The same proxy, with so little time for one stage that it is soon left out when it never answers."""
    if kind != "semantic":
        models = msgspec.structs.replace(settings.models, **{f"{kind}_timeout_seconds": SOON})
        return msgspec.structs.replace(settings, models=models)
    (route,) = settings.routes
    assert route.semantic is not None
    semantic = msgspec.structs.replace(route.semantic, timeout_seconds=SOON)
    return msgspec.structs.replace(settings, routes=(msgspec.structs.replace(route, semantic=semantic),))


@dataclass(frozen=True)
class Case:
    kind: str
    """The request that fails: of the models or of the engine."""
    fault: Fault
    reason: str


def embedded(*vectors: list[Any]) -> bytes:
    data = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return msgspec.json.encode({"data": data})


def partial() -> bytes:
    return (
        b'{"took":1,"timed_out":true,"_shards":{"total":2,"successful":1,"failed":1},'
        b'"hits":{"total":{"value":0,"relation":"eq"},"max_score":null,"hits":[]}}'
    )


SEMANTIC_CASES = {
    "embed overloaded": Case("embed", refuses(429), "rate_limited"),
    "embed refused": Case("embed", refuses(422), "refused"),
    "embed redirected": Case("embed", refuses(307), "refused"),
    "embed timed out": Case("embed", hangs, "timeout"),
    "embed broke off": Case("embed", breaks_off(), "unreachable"),
    "embed malformed": Case("embed", says(b"<html>"), "malformed"),
    "embed no UTF-8": Case("embed", says(b'{"model":"\xff"}'), "malformed"),
    "embed wrong count": Case("embed", says(embedded([1, 0, 0], [1, 0, 0])), "malformed"),
    "embed wrong dimensions": Case("embed", says(embedded([1, 0])), "malformed"),
    "embed not a number": Case("embed", says(b'{"data":[{"index":0,"embedding":[NaN,0,1]}]}'), "malformed"),
    "embed zero": Case("embed", says(embedded([0, 0, 0])), "malformed"),
    "knn refused": Case("semantic", refuses(400), "refused"),
    "knn timed out": Case("semantic", hangs, "timeout"),
    "knn broke off": Case("semantic", breaks_off(), "unreachable"),
    "knn malformed": Case("semantic", says(b"{}"), "malformed"),
    "knn in part": Case("semantic", says(partial()), "partial"),
    "render refused": Case("render", refuses(400), "refused"),
    "render broke off": Case("render", breaks_off(), "unreachable"),
    "render malformed": Case("render", says(b"[]"), "malformed"),
    "render without count": Case("render", says(partial()), "malformed"),
    "mapping refused": Case("facts", refuses(403), "mapping_unreadable"),
    "mapping malformed": Case("facts", says(b'{"products":[]}'), "mapping_unreadable"),
}
BOOST_CASES = {
    "boosts refused": Case("boosts", refuses(503), "refused"),
    "boosts broke off": Case("boosts", breaks_off(), "unreachable"),
    "boosts malformed": Case("boosts", says(b"[]"), "malformed"),
    "boosts in part": Case("boosts", says(partial()), "partial"),
}
BOOSTED = {"query": {"function_score": {"query": QUERY["query"], "field_value_factor": {"field": "n"}}}}
RERANK_CASES = {
    "rerank failed": Case("rerank", refuses(500), "server_error"),
    "rerank refused": Case("rerank", refuses(400), "refused"),
    "rerank timed out": Case("rerank", hangs, "timeout"),
    "rerank broke off": Case("rerank", breaks_off(), "unreachable"),
    "rerank malformed": Case("rerank", says(b"{"), "malformed"),
    "rerank wrong count": Case("rerank", says(b'{"scores":[0.1,0.2]}'), "malformed"),
    "rerank not a number": Case("rerank", says(b'{"scores":[0.1,0.2,NaN,0.3]}'), "malformed"),
    "rerank no number": Case("rerank", says(b'{"scores":[0.1,0.2,null,0.3]}'), "malformed"),
}


async def search_failing(
    start: StartProxy, settings: Config, servers: tuple[FakeEngine, FakeModels], case: Case, body: Any = QUERY
) -> Message:
    engine, models = servers
    (models if case.kind in {"embed", "rerank"} else engine).faults[case.kind] = case.fault
    client = await start(impatient(settings, case.kind) if case.fault is hangs else settings)
    return await client.search("/products/_search", body, authorization=SECRET, x_opaque_id="mine")


def check(answered: Message, log: Log, stages: list[str], reason: str) -> None:
    """Header, timing and log say the same, and nothing that is nobody's business."""
    told = f'degraded;stages="{" ".join(stages)}";reason={reason}'
    assert (200, told) == (answered.status, answered.header("x-rerank"))
    assert "total;dur=" in answered.header("server-timing")
    (line,) = log
    assert ("search", "warning", "degraded", "mine") == tuple(
        line[key] for key in ("event", "log_level", "outcome", "id")
    )
    assert (stages, reason, "products*") == (line["stages"], line["reason"], line["route"])
    said = repr(log) + repr(answered)
    assert [] == [secret for secret in (TOKEN, SECRET, "c2VjcmV0") if secret in said]
    assert "laptop" not in repr(log)


@pytest.mark.parametrize("case", BOOST_CASES.values(), ids=BOOST_CASES)
async def test_if_the_boost_search_fails_the_clients_order_stays(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, models: FakeModels, log: Log, case: Case
) -> None:
    answered = await search_failing(start_proxy, settings, (engine, models), case, BOOSTED)
    check(answered, log, ["boosts"], case.reason)
    assert (["a", "b", "c", "d"], 4) == (ids(answered), answered.json()["hits"]["total"]["value"])


@pytest.mark.parametrize("case", SEMANTIC_CASES.values(), ids=SEMANTIC_CASES)
async def test_without_knn_the_lexical_hits_are_reranked(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, models: FakeModels, log: Log, case: Case
) -> None:
    answered = await search_failing(start_proxy, settings, (engine, models), case)
    check(answered, log, ["semantic"], case.reason)
    assert (WITHOUT_SEMANTIC, 3) == (ids(answered), answered.json()["hits"]["total"]["value"])


@pytest.mark.parametrize("case", RERANK_CASES.values(), ids=RERANK_CASES)
async def test_without_the_reranker_the_fused_order_is_returned(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, models: FakeModels, log: Log, case: Case
) -> None:
    answered = await search_failing(start_proxy, settings, (engine, models), case)
    check(answered, log, ["rerank"], case.reason)
    assert (FUSED, 4) == (ids(answered), answered.json()["hits"]["total"]["value"])


async def test_without_any_model_the_response_is_the_engines(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, log: Log
) -> None:
    """The hits, scores, total and `max_score` of BM25 alone, byte for byte."""
    nowhere = msgspec.structs.replace(settings.models, url=f"http://127.0.0.1:{closed_port()}")
    client = await start_proxy(msgspec.structs.replace(settings, models=nowhere))
    answered = await client.search("/products/_search", QUERY, x_opaque_id="mine", authorization=SECRET)
    straight = await Client.to(engine.port)
    check(answered, log, ["semantic", "rerank"], "unreachable")
    assert (await straight.search("/products/_search", QUERY)).body == answered.body
    straight.close()


async def test_if_passages_cannot_be_fetched_reranking_is_skipped(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, models: FakeModels, log: Log
) -> None:
    case = Case("passages", refuses(400), "refused")
    body = {**QUERY, "_source": False}
    answered = await search_failing(start_proxy, settings, (engine, models), case, body)
    check(answered, log, ["rerank"], "refused")
    assert (FUSED, []) == (ids(answered), models.of("rerank"))


@pytest.mark.parametrize(
    ("semantic", "reason"),
    [
        (Semantic(field="other", dimensions=3), "no_vector_field"),
        (Semantic(field="title", dimensions=3), "no_vector_field"),
        (Semantic(field="embedding", dimensions=4), "other_dimensions"),
    ],
)
async def test_a_mapping_without_fitting_vectors_is_reported_and_no_query_embedded(
    start_proxy: StartProxy, settings: Config, models: FakeModels, log: Log, semantic: Semantic, reason: str
) -> None:
    route = msgspec.structs.replace(settings.routes[0], semantic=semantic)
    client = await start_proxy(msgspec.structs.replace(settings, routes=(route,)))
    answered = await client.search("/products/_search", QUERY, x_opaque_id="mine", authorization=SECRET)
    check(answered, log, ["semantic"], reason)
    assert (WITHOUT_SEMANTIC, []) == (ids(answered), models.of("embed"))


@pytest.mark.parametrize(
    ("held", "named", "reason"),
    [("Qwen/Other", "Qwen/Qwen3-Embedding-0.6B", "other_model"), (None, None, "unknown_model")],
)
async def test_vectors_of_another_or_an_unknown_model_are_not_searched(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, log: Log, held: str, named: str, reason: str
) -> None:
    engine.model = held
    route = msgspec.structs.replace(settings.routes[0], embedding_model=named)
    client = await start_proxy(msgspec.structs.replace(settings, routes=(route,)))
    answered = await client.search("/products/_search", QUERY, x_opaque_id="mine", authorization=SECRET)
    check(answered, log, ["semantic"], reason)
    assert [] == engine.of("semantic")


ENGINE_CASES = {
    "lexical refused": Case("lexical", refuses(400, b'{"error":"of the engine"}'), "engine_refused"),
    "lexical malformed": Case("lexical", says(b'{"hits": 1}'), "engine_refused"),
    "lexical in part": Case("lexical", says(partial()), "engine_refused"),
    "lexical too large": Case("lexical", says(b" " * (SEARCH_RESPONSE_BYTES + 1)), "too_large"),
    "names refused": Case("resolve", refuses(404), "unresolved"),
    "names malformed": Case("resolve", says(b'{"indices":[{}]}'), "unresolved"),
    "names not JSON": Case("resolve", says(b"<html>"), "unresolved"),
}


@pytest.mark.parametrize("case", ENGINE_CASES.values(), ids=ENGINE_CASES)
async def test_if_the_engine_fails_the_clients_request_is_passed_on(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, models: FakeModels, log: Log, case: Case
) -> None:
    answered = await search_failing(start_proxy, settings, (engine, models), case)
    straight = await Client.to(engine.port)
    own = await straight.search("/products/_search", QUERY)
    assert (own.start, own.body) == (answered.start, answered.body)
    assert f"bypassed;reason={case.reason}" == answered.header("x-rerank")
    (line,) = log
    assert ("bypassed", case.reason) == (line["outcome"], line["reason"])
    assert msgspec.json.encode(QUERY) == msgspec.json.format(engine.of("lexical")[-1].body, indent=-1)
    straight.close()


AWAY = {"type": "no_shard_available_action_exception", "reason": None}
IN_PART = {
    "Elasticsearch lacks a shard": {
        "_shards": {
            "total": 3,
            "successful": 2,
            "skipped": 0,
            "failed": 1,
            "failures": [{"shard": 0, "reason": AWAY}],
        }
    },
    "OpenSearch lacks a shard": {"_shards": {"total": 3, "successful": 2, "skipped": 0, "failed": 0}},
    "its time was up": {"timed_out": True},
}


@pytest.mark.parametrize("partly", IN_PART.values(), ids=IN_PART)
async def test_a_partial_response_that_would_be_the_same_again_is_the_engines_and_its_only_search_is_the_clients(
    client: Client, engine: FakeEngine, models: FakeModels, log: Log, partly: dict[str, Any]
) -> None:
    """To search twice would double the wait, and the load of a cluster that is overloaded, or recovers."""

    async def lacking(_: Stream, asked: Message) -> bytes:
        whole = engine.usual(asked).partition(b"\r\n\r\n")[2]
        return answer(200, json.dumps(json.loads(whole) | partly).encode())

    engine.faults["lexical"] = lacking
    answered = await client.search("/products/_search", QUERY | {"size": 2})
    assert "bypassed;reason=engine_refused" == answered.header("x-rerank")
    assert (LEXICAL[:2], partly) == (ids(answered), {name: answered.json()[name] for name in partly})
    assert (1, []) == (len(engine.of("lexical")), models.of("rerank"))
    assert "partial results: see `_shards`" in log[-1]["detail"]


async def test_the_log_reports_partial_results_of_the_engine(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, models: FakeModels, log: Log
) -> None:
    await search_failing(start_proxy, settings, (engine, models), ENGINE_CASES["lexical in part"])
    assert "partial results: see `_shards`" in log[-1]["detail"]


async def test_without_the_right_to_resolve_names_a_plain_name_is_matched_literally(
    client: Client, engine: FakeEngine
) -> None:
    engine.faults["resolve"] = refuses(403)
    answered = await client.search("/products/_search", QUERY)
    assert ("reranked", RERANKED) == (answered.header("x-rerank"), ids(answered))
    assert "bypassed;reason=unresolved" == (await client.search("/products-*/_search", QUERY)).header("x-rerank")


async def test_an_unreachable_engine_is_a_502_with_the_reason(
    start_proxy: StartProxy, settings: Config, log: Log
) -> None:
    nowhere = msgspec.structs.replace(settings.engine, url=f"http://127.0.0.1:{closed_port()}")
    client = await start_proxy(msgspec.structs.replace(settings, engine=nowhere))
    answered = await client.search("/products/_search", QUERY)
    assert (502, "bypassed;reason=unresolved") == (answered.status, answered.header("x-rerank"))
    assert "engine_unreachable" == answered.json()["error"]["type"]


async def test_a_recovered_stage_is_used_again(client: Client, models: FakeModels) -> None:
    models.faults["rerank"] = refuses(429)
    degraded = await client.search("/products/_search", QUERY)
    del models.faults["rerank"]
    again = await client.search("/products/_search", QUERY)
    assert (FUSED, RERANKED) == (ids(degraded), ids(again))


@pytest.mark.parametrize(("kind", "stage"), [("rerank", "rerank"), ("embed", "semantic")])
async def test_few_searches_call_a_hanging_model_until_it_recovers(
    start_proxy: StartProxy, settings: Config, models: FakeModels, kind: str, stage: str
) -> None:
    impatient = msgspec.structs.replace(settings.models, **{f"{kind}_timeout_seconds": 0.2})
    no_cache = Cache(vectors_mb=0)
    client = await start_proxy(msgspec.structs.replace(settings, models=impatient, cache=no_cache))
    models.faults[kind] = hangs
    slow = f'degraded;stages="{stage}";reason=slow_model'
    searched = 1
    while (await client.search("/products/_search", QUERY)).header("x-rerank") != slow:
        searched += 1
    assert len(models.of(kind)) < searched
    del models.faults[kind]
    while (await client.search("/products/_search", QUERY)).header("x-rerank") != "reranked":
        pass


async def test_a_route_without_models_is_never_degraded_by_them(
    start_proxy: StartProxy, settings: Config, models: FakeModels
) -> None:
    route = RouteSettings(index="products", rerank=False, semantic=settings.routes[0].semantic)
    client = await start_proxy(msgspec.structs.replace(settings, routes=(route,)))
    models.faults["rerank"] = answers_nothing
    answered = await client.search("/products/_search", QUERY)
    assert ("reranked", FUSED, []) == (answered.header("x-rerank"), ids(answered), models.of("rerank"))


async def answers_nothing(*_: object) -> bytes:
    return answer(500, b"")


async def _suspended(client: Client, models: FakeModels) -> None:
    """Let a first search find that the token is wrong, after which the models are not called for some time."""
    models.faults = dict.fromkeys(("embed", "rerank"), refuses(401))
    await client.search("/products/_search", {"query": {"match": {"title": "first"}}})


async def test_if_no_stage_can_run_the_clients_search_is_passed_on(
    client: Client, engine: FakeEngine, models: FakeModels, log: Log
) -> None:
    """Unchanged, except that it returns no vectors; there is no added search and no model call."""
    await _suspended(client, models)
    asked, called = len(engine.requests), len(models.requests)
    answered = await client.search("/products/_search", QUERY | {"size": 2, "explain": False})
    (own,) = engine.requests[asked:]
    assert QUERY | {"size": 2, "explain": False, "_source": {"excludes": ["embedding", "embedding_hash"]}} == own.json()
    assert (LEXICAL[:2], called) == (ids(answered), len(models.requests))
    assert answered.header("x-rerank").startswith('degraded;stages="semantic rerank";reason=')
    assert ("degraded", "warning", 1) == tuple(log[-1][name] for name in ("outcome", "log_level", "engine_searches"))
    assert "is not called" in log[-1]["detail"]


async def test_caches_are_used_while_the_models_are_suspended(client: Client, models: FakeModels) -> None:
    assert RERANKED == ids(await client.search("/products/_search", QUERY))
    await _suspended(client, models)
    again = await client.search("/products/_search", QUERY | {"size": 9})
    assert ("reranked", RERANKED) == (again.header("x-rerank"), ids(again))
    second = await client.search("/products/_search", QUERY | {"from": 1, "size": 2})
    assert ("reranked", RERANKED[1:3]) == (second.header("x-rerank"), ids(second))


async def test_a_cached_ranking_is_used_while_the_models_are_suspended(
    start_proxy: StartProxy, settings: Config, models: FakeModels
) -> None:
    """Even if the scores and the vector have expired before it, so that the first page fits the later ones."""
    client = await start_proxy(msgspec.structs.replace(settings, cache=Cache(scores_mb=0, vectors_mb=0)))
    assert RERANKED == ids(await client.search("/products/_search", QUERY))
    await _suspended(client, models)
    first, second = [await client.search("/products/_search", QUERY | {"from": at, "size": 2}) for at in (0, 2)]
    assert (RERANKED[:2], RERANKED[2:]) == (ids(first), ids(second))
    assert first.header("x-rerank").startswith('degraded;stages="semantic rerank";reason=misconfigured')


async def test_a_stage_runs_while_another_is_suspended(client: Client, engine: FakeEngine, models: FakeModels) -> None:
    models.faults = {"rerank": refuses(401)}
    await client.search("/products/_search", {"query": {"match": {"title": "first"}}})
    answered = await client.search("/products/_search", QUERY)
    assert (FUSED, 2) == (ids(answered), len(engine.of("semantic")))


async def test_a_later_page_without_a_cached_ranking_is_degraded(client: Client, models: FakeModels) -> None:
    await _suspended(client, models)
    answered = await client.search("/products/_search", QUERY | {"from": 1})
    assert (LEXICAL[1:], True) == (ids(answered), answered.header("x-rerank").startswith("degraded"))


async def test_msearch_items_are_passed_on_while_the_models_are_suspended(
    client: Client, engine: FakeEngine, models: FakeModels, log: Log
) -> None:
    await _suspended(client, models)
    lines = [{"index": "products"}, QUERY, {"index": "products"}, QUERY | {"size": 1}]
    body = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    answered = await client.ask("POST", "/_msearch", body, content_type="application/x-ndjson")
    found = [[hit["_id"] for hit in item["hits"]["hits"]] for item in answered.json()["responses"]]
    assert [LEXICAL, LEXICAL[:1]] == found
    assert ["degraded", "degraded"] == [line["outcome"] for line in log[-2:]]
    assert all(
        "embedding" in str(asked) for asked in map(msgspec.json.decode, engine.of("multi")[-1].body.splitlines()[1::2])
    )


class _NotCalled:
    """Models of which nothing is cached, and which are not called at present."""

    async def unavailable(self, *_: object, **__: object) -> UpstreamError:
        return Withheld("models", "breaker_open", "down")

    def not_called(self, model: str, why: UpstreamError) -> None: ...


@pytest.mark.parametrize("start", [1, 50])
async def test_later_pages_fit_an_engine_ordered_first_page_after_recovery(
    engine: FakeEngine, models: FakeModels, start: int
) -> None:
    engine.documents += [Document(f"t{number}", f"Tail {number}", lexical=0.1) for number in range(60)]
    async with AsyncExitStack() as stack:
        run = await run_of(plan_of("", QUERY), engine, models, stack)
        down: Any = _NotCalled()
        stages = dataclasses.replace(run.stages, embedder=down, reranker=down)
        assert isinstance(await why_unserved(run.plan, stages, b"key"), Unserved)
        await asyncio.sleep(0)  # the response is written, and then its order is stored
        page = await run_of(plan_of("", QUERY | {"from": start, "size": 2}), engine, models, stack)
        page = dataclasses.replace(page, stages=dataclasses.replace(page.stages, heads=stages.heads))
        result = await run_search(page, b"key")
    assert isinstance(result, Answered)
    own = sorted((doc for doc in engine.documents if doc.lexical is not None), key=lambda doc: -(doc.lexical or 0.0))
    shown = [hit["_id"] for hit in msgspec.json.decode(result.body)["hits"]["hits"]]
    assert ([doc.id for doc in own[start : start + 2]], []) == (shown, models.requests)


async def test_a_search_that_needs_no_model_does_not_depend_on_the_models(
    engine: FakeEngine, models: FakeModels
) -> None:
    plan = plan_of("", QUERY, settings=RouteSettings(index="products", rerank=False, passage=["title"]))
    plan = dataclasses.replace(plan, user_query=dataclasses.replace(plan.user_query, relaxed=None))
    async with AsyncExitStack() as stack:
        run = await run_of(plan, engine, models, stack)
        assert await why_unserved(run.plan, run.stages, b"key") is None
