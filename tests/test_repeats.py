"""The same search again: what its ranking needs is sent early, and only what differs is ranked anew."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from proxy.context import Clock
from proxy.ranking.heads import Heads
from proxy.ranking.hits import DocKey, Scored
from proxy.ranking.paging import Head, Proof, Recipe
from proxy.ranking.pipeline import Answered, run_search
from proxy.ranking.repeats import RENDER, looking_ahead
from proxy.ranking.searches import render_search
from proxy.ranking.stages import Run
from proxy.settings.config import Cache, Config
from proxy.store.contract import CacheRegion, Keys, Kind
from proxy.store.memory import MemoryStore, memory_region
from proxy.upstream.added import AddedSearches
from proxy.upstream.engine import EngineOfCaller
from tests.conftest import OTHER, QUERY, SCORES, Log, StartProxy
from tests.fakes import Client, Document, FakeEngine, FakeModels, Fault, Message, Stream, hangs, ids, refuses, waits_for
from tests.plans import SETTINGS, plan_of
from tests.runs import run_of
from tests.test_pipeline import RERANKED, with_route

BOOSTED = {"query": {"function_score": {**QUERY, "field_value_factor": {"field": "stock"}}}}
HIDDEN = QUERY | {"_source": False}
FACETED = QUERY | {"aggs": {"brands": {"terms": {"field": "brand"}}}}
KINDS = ("lexical", "semantic", "render", "passages", "boosts", "facets")


def counts(engine: FakeEngine) -> Mapping[str, int]:
    return {kind: len(engine.of(kind)) for kind in KINDS}


async def searched(client: Client, body: Any, times: int = 1) -> Message:
    for _ in range(times - 1):
        await client.search("/products/_search", body)
    return await client.search("/products/_search", body)


def was_ranked_anew(answered: Message) -> bool:
    return "rerank;dur=" in answered.header("server-timing")


@pytest.mark.parametrize(
    ("body", "added"),
    [
        (QUERY, ["render"]),
        (HIDDEN, ["render", "passages"]),
        (BOOSTED, ["render", "boosts"]),
        (FACETED, ["render"]),
        (QUERY | {"explain": True}, ["render"]),
    ],
)
async def test_a_repeated_search_sends_its_added_searches_early(
    client: Client, engine: FakeEngine, body: Any, added: list[str]
) -> None:
    """Even if the first one had to call the reranker: only its documents matter."""
    first = await searched(client, body)
    before, held = counts(engine), asyncio.Event()
    engine.faults["lexical"] = waits_for(held)
    asking = asyncio.ensure_future(searched(client, body))
    for kind in added:
        await engine.until_asked(kind, before[kind] + 1)
    held.set()
    again = await asking
    assert dict.fromkeys(["lexical", "semantic", *added], 1) == {
        kind: count - before[kind] for kind, count in counts(engine).items() if count > before[kind]
    }
    assert (first.json(), "reranked") == (again.json(), again.header("x-rerank"))


@pytest.mark.parametrize("body", [QUERY, HIDDEN, BOOSTED, FACETED, QUERY | {"explain": True}])
async def test_equal_hits_are_ranked_once(client: Client, body: Any, log: Log) -> None:
    """The second search finds the scores in the cache; the third one reuses the ranking."""
    answers = [await searched(client, body) for _ in range(3)]
    assert [True, True, False] == list(map(was_ranked_anew, answers))
    assert answers[0].json() == answers[1].json() == answers[2].json()
    told = [
        (line["outcome"], line["candidates"], line.get("passages_cached"), line.get("tokens_saved")) for line in log
    ]
    assert (told[1], True) == (told[2], told[1][2] > 0)


async def test_explanations_are_cached_with_the_ranking(steered_client: Client) -> None:
    fields = {"x_rerank_explain": "true"}
    answers = [await steered_client.search("/products/_search", QUERY, **fields) for _ in range(3)]
    assert "_rerank" in answers[2].content.decode()
    assert answers[1].json() == answers[2].json()


def _changed(engine: FakeEngine, name: str, **changes: Any) -> None:
    engine.documents = [
        dataclasses.replace(document, **changes) if document.id == name else document for document in engine.documents
    ]


CHANGES: Mapping[str, tuple[Any, Callable[[FakeEngine], object]]] = {
    "a text that the client sees": (QUERY, lambda engine: _changed(engine, "c", title="Laptop of gold")),
    "a text that the client does not see": (HIDDEN, lambda engine: _changed(engine, "c", title="Laptop of gold")),
    "a text that only kNN found": (QUERY, lambda engine: _changed(engine, "d", title="Laptop of gold")),
    "a score": (QUERY, lambda engine: _changed(engine, "c", lexical=2.5)),
    "a distance": (QUERY, lambda engine: _changed(engine, "b", cosine=0.7)),
    "a document more": (QUERY, lambda engine: engine.documents.append(Document("f", "Laptop of gold", lexical=0.5))),
    "a document less": (QUERY, lambda engine: engine.documents.pop(2)),
    "one less that only kNN found": (QUERY, lambda engine: engine.documents.pop(3)),
    "a boost": (BOOSTED, lambda engine: _changed(engine, "c", boost=5.0)),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_any_difference_is_ranked_again(
    client: Client, start_proxy: StartProxy, settings: Config, engine: FakeEngine, models: FakeModels, change: str
) -> None:
    """The response is that of a proxy with empty caches."""
    models.scores = SCORES | {"Laptop of gold": 0.95}
    body, apply = CHANGES[change]
    assert not was_ranked_anew(await searched(client, body, times=3))
    apply(engine)
    again = await searched(client, body)
    fresh = await searched(await start_proxy(settings), body)
    assert (True, fresh.json()) == (was_ranked_anew(again), again.json())


async def test_displayed_documents_are_never_cached(client: Client, engine: FakeEngine) -> None:
    """A document that only kNN found has changed, but not its passage."""
    await searched(client, QUERY, times=3)
    _changed(engine, "d", more={"price": 7})
    again = await searched(client, QUERY)
    shown = {hit["_id"]: hit["_source"].get("price") for hit in again.json()["hits"]["hits"]}
    assert (7, RERANKED) == (shown["d"], ids(again))


async def test_totals_are_never_cached(client: Client, engine: FakeEngine) -> None:
    await searched(client, QUERY, times=3)
    _changed(engine, "d", lexical=0.1)
    await searched(client, QUERY)
    again = await searched(client, QUERY)
    assert {"value": 4, "relation": "eq"} == again.json()["hits"]["total"]


def _for_one_search(engine: FakeEngine, documents: Sequence[Document]) -> Fault:
    """Answer from other documents than those of the other searches, as if something had been written in between."""

    async def fault(stream: Stream, request: Message) -> bytes:
        before, engine.documents = engine.documents, list(documents)
        try:
            return engine.usual(request)
        finally:
            engine.documents = before

    return fault


async def test_a_document_deleted_before_rendering_is_not_returned(
    client: Client, start_proxy: StartProxy, settings: Config, engine: FakeEngine
) -> None:
    """The hits of both searches are the same as before; the next search computes a new ranking."""
    await searched(client, QUERY, times=3)
    engine.faults["render"] = _for_one_search(engine, [each for each in engine.documents if each.id != "d"])
    again = await searched(client, QUERY)
    fresh = await searched(await start_proxy(settings), QUERY)
    assert ("reranked", ["b", "c", "a"]) == (again.header("x-rerank"), ids(again))
    assert fresh.json() == again.json()
    engine.faults.clear()
    assert RERANKED == ids(await searched(client, QUERY))


async def test_a_hanging_render_search_drops_only_its_documents(steered_client: Client, engine: FakeEngine) -> None:
    await searched(steered_client, QUERY, times=3)
    engine.faults["render"] = hangs
    again = await steered_client.search("/products/_search", QUERY, x_rerank_budget_ms="300")
    assert ('degraded;stages="semantic";reason=timeout', ["b", "c", "a"]) == (again.header("x-rerank"), ids(again))
    engine.faults.clear()
    whole = await searched(steered_client, QUERY)
    assert ("reranked", RERANKED) == (whole.header("x-rerank"), ids(whole))


class SlowHeads:
    """A shared cache that answers when the test says so."""

    def __init__(self, head: Head) -> None:
        self.head, self.answered = head, asyncio.Event()

    async def get(self, key: bytes) -> Head | None:
        await self.answered.wait()
        return self.head

    def keep(self, key: bytes, head: Head) -> None: ...


async def test_a_slow_cache_lookup_sends_no_search_twice(engine: FakeEngine, models: FakeModels) -> None:
    """A shared cache may be slower than the engine."""
    document = DocKey("products", "d")
    heads = SlowHeads(
        Head((Scored(document, 1.0),), None, 0, untouched=False, failures=(), recipe=Recipe({RENDER: (document,)}))
    )
    async with AsyncExitStack() as stack:
        run = await run_of(plan_of("", QUERY), engine, models, stack)
        run = dataclasses.replace(run, stages=dataclasses.replace(run.stages, heads=heads))
        run.stages.accepted.note()
        with looking_ahead(run, b"", None) as informed:
            await informed.search(RENDER, render_search(run.plan, [document], {}))
            heads.answered.set()
            for _ in range(5):  # turns of the loop, in which another search would be sent
                await asyncio.sleep(0)
        await run.search(RENDER, render_search(run.plan, [document], {}))
    assert 2 == len(engine.of("render"))


async def test_an_early_search_without_a_slot_is_sent_when_it_is_needed(engine: FakeEngine, models: FakeModels) -> None:
    """It has not reached the engine, and a slot may be free by then."""
    document = DocKey("products", "d")
    head = Head((Scored(document, 1.0),), None, 0, untouched=False, failures=(), recipe=Recipe({RENDER: (document,)}))
    async with AsyncExitStack() as stack:
        run = await run_of(plan_of("", QUERY), engine, models, stack)
        caller = run.stages.engine
        assert isinstance(caller, EngineOfCaller)
        caller.engine.added = AddedSearches(1, wait_seconds=0.01)
        run.stages.accepted.note()
        with looking_ahead(run, b"", head) as informed:
            async with caller.engine.added.turn():
                for _ in range(5):  # turns of the loop, until it waits
                    await asyncio.sleep(0)
                assert 1 == caller.engine.added.waiting
                assert informed.ahead is not None
                assert await informed.ahead.answers([RENDER]) is None
            answer = await informed.search(RENDER, render_search(run.plan, [document], {}))
    assert (["d"], 1) == ([hit.key.id for hit in answer.hits], len(engine.of("render")))


async def test_passages_in_the_response_are_not_fetched_early(client: Client, engine: FakeEngine) -> None:
    """The earlier search did not return them, and had to fetch them."""
    await searched(client, HIDDEN)
    before = counts(engine)
    assert RERANKED == ids(await searched(client, QUERY))
    assert before["passages"] == counts(engine)["passages"]


async def test_without_cached_scores_a_ranking_is_made_again(
    start_proxy: StartProxy, settings: Config, models: FakeModels
) -> None:
    client = await start_proxy(msgspec.structs.replace(settings, cache=Cache(scores_mb=0)))
    assert was_ranked_anew(await searched(client, QUERY, times=4))
    assert 4 == len(models.of("rerank"))


async def test_a_degraded_ranking_is_made_again(client: Client, models: FakeModels) -> None:
    models.faults["rerank"] = refuses(429)
    await searched(client, QUERY, times=3)
    models.faults.clear()
    _, again = await searched(client, QUERY | {"size": 9}), await searched(client, QUERY | {"size": 9})
    assert ("reranked", RERANKED) == (again.header("x-rerank"), ids(again))


@pytest.mark.parametrize("kind", ["render", "passages", "boosts"])
async def test_an_early_search_that_fails_is_not_sent_again(client: Client, engine: FakeEngine, kind: str) -> None:
    body = {"render": QUERY, "passages": HIDDEN, "boosts": BOOSTED}[kind]
    await searched(client, body, times=2)
    before = counts(engine)
    engine.faults[kind] = refuses(429)
    again = await searched(client, body)
    assert (before[kind] + 1, 200) == (counts(engine)[kind], again.status)
    assert again.header("x-rerank").startswith("degraded")


async def test_the_next_page_is_rendered_concurrently_with_the_clients_search(
    client: Client, engine: FakeEngine
) -> None:
    first, held = await searched(client, QUERY | {"size": 2}), asyncio.Event()
    engine.faults["lexical"] = waits_for(held)
    asking = asyncio.ensure_future(searched(client, QUERY | {"from": 2, "size": 2}))
    await engine.until_asked("render", 2)
    held.set()
    assert (RERANKED, 2) == (ids(first) + ids(await asking), counts(engine)["render"])


async def test_no_search_is_sent_early_for_a_rejected_caller(client: Client, engine: FakeEngine) -> None:
    await searched(client, QUERY, times=2)
    engine.faults["lexical"] = refuses(401)
    await searched(client, QUERY)
    before = counts(engine)
    assert 401 == (await searched(client, QUERY)).status
    assert {"lexical": 1} == {
        kind: count - before[kind] for kind, count in counts(engine).items() if count > before[kind]
    }


async def test_another_callers_ranking_is_not_reused(client: Client, engine: FakeEngine) -> None:
    await searched(client, QUERY, times=3)
    before, held = counts(engine)["render"], asyncio.Event()
    await client.search("/products/_search", OTHER, authorization="Basic YTph")
    engine.faults["lexical"] = waits_for(held)
    asking = asyncio.ensure_future(client.search("/products/_search", QUERY, authorization="Basic YTph"))
    await engine.until_asked("semantic", counts(engine)["semantic"] + 1)
    assert before + 1 == counts(engine)["render"]  # of OTHER
    held.set()
    assert was_ranked_anew(await asking)


class SlowStore:
    """A store that can be read and written when the test says so."""

    def __init__(self) -> None:
        self.stored, self.readable, self.writable = MemoryStore(2**20), asyncio.Event(), asyncio.Event()
        self.readable.set()
        self.writable.set()

    async def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        await self.readable.wait()
        return await self.stored.get(keys)

    async def put(self, entries: Mapping[bytes, bytes], seconds: float) -> None:
        await self.writable.wait()
        await self.stored.put(entries, seconds)


async def runs_with(
    store: SlowStore, bodies: Sequence[Any], engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> list[Run]:
    """Return runs of a route without reranker, with one store for their rankings."""
    heads = Heads(CacheRegion(Kind.RANKINGS, store, Keys(b"secret"), 60.0))
    plans = [plan_of("", body, settings=msgspec.structs.replace(SETTINGS, rerank=False)) for body in bodies]
    run = await run_of(plans[0], engine, models, stack)
    stages = dataclasses.replace(run.stages, heads=heads)
    return [Run(plan, stages, Clock()) for plan in plans]


async def test_a_repeated_search_does_not_wait_for_the_cache_write(engine: FakeEngine, models: FakeModels) -> None:
    store = SlowStore()
    async with AsyncExitStack() as stack:
        first, *again = await runs_with(store, [QUERY] * 3, engine, models, stack)
        made = await run_search(first, b"")
        store.writable.clear()
        assert isinstance(made, Answered)
        for run in again:
            repeated = await run_search(run, b"")
            assert isinstance(repeated, Answered)
            assert (made.body, []) == (repeated.body, run.added[1:])


async def test_a_later_page_is_searched_before_its_ranking_is_looked_up(engine: FakeEngine, models: FakeModels) -> None:
    store = SlowStore()
    async with AsyncExitStack() as stack:
        bodies = [QUERY | {"size": 2}, QUERY | {"size": 2, "from": 2}]
        first, second = await runs_with(store, bodies, engine, models, stack)
        await run_search(first, b"")
        store.readable.clear()
        asking = asyncio.ensure_future(run_search(second, b""))
        await engine.until_asked("lexical", 2)
        store.readable.set()
        assert isinstance(await asking, Answered)
        assert 1 == len(engine.of("semantic"))


async def test_a_reused_ranking_expires_with_the_cached_one() -> None:
    """However often it is used, so that the scores behind it expire, too."""
    heads = Heads(memory_region(Kind.RANKINGS, 10_000))
    key = DocKey("i", "1")
    proof = Proof(b"h", int(time.time()), "m", 1, 2, 3, "fast")
    head = Head(
        (Scored(key, 1.0),), None, 0, untouched=False, failures=(), recipe=Recipe({"render": (key,)}, 1.0, proof)
    )
    await heads.put(b"a", head)
    assert head == await heads.get(b"a")
    for made in (0, int(time.time()) + 10_000):  # the latter by another proxy, whose clock is wrong
        old = msgspec.structs.replace(proof, made=made)
        await heads.put(b"a", dataclasses.replace(head, recipe=dataclasses.replace(head.recipe, proof=old)))
        found = await heads.get(b"a")
        assert found is not None
        assert Recipe({"render": (key,)}, 1.0, None) == found.recipe


async def test_rankings_without_a_reranker_are_reused(start_proxy: StartProxy, settings: Config) -> None:
    client = await start_proxy(with_route(settings, rerank=False))
    answers = [await searched(client, QUERY) for _ in range(3)]
    assert answers[0].json() == answers[1].json() == answers[2].json()
