"""The first stage: both searches, what becomes of a failing one, and who stands for a group."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, cast

import msgspec
import pytest

from proxy.errors import Failure, Refused, TimedOut
from proxy.parsing.query_text import UserQuery
from proxy.ranking.hits import DocKey
from proxy.ranking.planning import Plan, QueryVector
from proxy.ranking.retrieval import SemanticHits, confirmed, covered, group, lexical, retrieve
from proxy.ranking.search_response import SearchAnswer, read_answer
from proxy.ranking.searches import lexical_search
from proxy.ranking.stages import Budget, Embeds, Run
from proxy.store.contract import CacheRegion, Keys, Kind
from proxy.store.memory import MemoryStore
from tests.fakes import Document, FakeEngine, FakeModels, Message, Stream, answer, hangs, refuses, says
from tests.plans import SETTINGS, plan_of
from tests.runs import run_of

BODY = {"query": {"match": {"title": "laptop"}}}
SPENT = "budget: no response within 10 ms"
NOTHING = b'{"hits":{"total":{"value":0,"relation":"eq"},"max_score":null,"hits":[]}}'
UNAVAILABLE = Failure("semantic", "no_vector_field", "v")


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


def names(hits: Any) -> list[str]:
    return [hit.key.id for hit in hits]


async def test_both_searches_return_their_hits(engine: FakeEngine, models: FakeModels, stack: AsyncExitStack) -> None:
    run = await run_of(plan_of("", BODY, window=3), engine, models, stack)
    found, semantic = await retrieve(run, lexical(run, lexical_search(run.plan)))
    assert (["a", "b", "c"], ["d", "b", "a"]) == (names(found.answer.hits), names(semantic.hits))
    assert {"lexical", "embed", "semantic"} == set(run.clock.stages)


@pytest.mark.parametrize(
    ("changes", "failures"),
    [
        ({"vectors": None}, ()),
        ({"vectors": None, "unavailable": UNAVAILABLE}, (UNAVAILABLE,)),
        ({"user_query": UserQuery("laptop", None)}, ()),
    ],
)
async def test_without_knn_no_model_is_called(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack, changes: Any, failures: tuple[Failure, ...]
) -> None:
    plan = dataclasses.replace(plan_of("", BODY), **changes)
    run = await run_of(plan, engine, models, stack)
    _, semantic = await retrieve(run, lexical(run, lexical_search(plan)))
    assert (SemanticHits(failures=failures), [], []) == (semantic, models.requests, engine.of("semantic"))


@pytest.mark.parametrize("place", ["embed", "semantic"])
async def test_a_failing_retriever_does_not_affect_the_other(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack, place: str
) -> None:
    (models if place == "embed" else engine).faults[place] = refuses(400)
    run = await run_of(plan_of("", BODY), engine, models, stack)
    found, semantic = await retrieve(run, lexical(run, lexical_search(run.plan)))
    assert (["a", "b", "c"], ()) == (names(found.answer.hits), semantic.hits)
    assert [("semantic", "refused")] == [(failure.stage, failure.reason) for failure in semantic.failures]


async def test_several_fields_are_searched_and_the_nearest_vector_counts(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    plan = plan_of("", BODY, window=3)
    assert plan.vectors is not None
    plan = dataclasses.replace(plan, vectors=dataclasses.replace(plan.vectors, fields={"v": None, "w": None}))
    run = await run_of(plan, engine, models, stack)
    _, semantic = await retrieve(run, lexical(run, lexical_search(plan)))
    asked = [json.loads(request.body)["knn"]["field"] for request in engine.of("semantic")]
    scores = [hit.score for hit in semantic.hits]
    assert (["v", "w"], ["d", "b", "a"]) == (sorted(asked), names(semantic.hits))
    assert sorted(scores, reverse=True) == scores
    assert 1 == len(models.requests)


async def test_a_partial_knn_result_is_dropped(engine: FakeEngine, models: FakeModels, stack: AsyncExitStack) -> None:
    engine.faults["semantic"] = says(b'{"timed_out":true,"hits":{"hits":[]}}')
    run = await run_of(plan_of("", BODY), engine, models, stack)
    _, semantic = await retrieve(run, lexical(run, lexical_search(run.plan)))
    assert SemanticHits(failures=(Failure("semantic", "partial"),)) == semantic


async def test_a_spent_budget_skips_knn(engine: FakeEngine, models: FakeModels, stack: AsyncExitStack) -> None:
    models.faults["embed"] = hangs
    run = dataclasses.replace(await run_of(plan_of("", BODY), engine, models, stack), budget=Budget(0.01))
    _, semantic = await retrieve(run, lexical(run, lexical_search(run.plan)))
    assert [("semantic", "timeout", SPENT)] == [
        (failure.stage, failure.reason, failure.detail) for failure in semantic.failures
    ]
    await models.until_left()


@pytest.mark.parametrize("place", ["embed", "semantic"])
async def test_a_search_without_hits_does_not_wait_for_knn(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack, place: str
) -> None:
    """Both searches start at once, because the engine accepted one before; the model, or kNN, never answers."""
    slow, left = (models if place == "embed" else engine), asyncio.Event()

    async def hangs_until_left(stream: Stream, request: Message) -> None:
        await stream.left()
        left.set()
        raise ConnectionError

    async def finds_nothing_once_kNN_runs(stream: Stream, request: Message) -> bytes:  # noqa: N802
        await slow.until_asked(place)
        return answer(body=NOTHING)

    slow.faults[place] = hangs_until_left
    engine.faults["lexical"] = finds_nothing_once_kNN_runs
    run = await run_of(plan_of("", BODY), engine, models, stack)
    run.stages.accepted.note()
    found, semantic = await retrieve(run, lexical(run, lexical_search(run.plan)))
    assert (True, SemanticHits()) == (found.answer.found_nothing, semantic)
    await left.wait()


async def test_a_search_without_hits_needs_no_vector(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    engine.faults["lexical"] = says(NOTHING)
    run = await run_of(plan_of("", BODY), engine, models, stack)
    await retrieve(run, lexical(run, lexical_search(run.plan)))
    assert [] == models.requests


@pytest.mark.parametrize(("accepted", "lookups"), [(True, 1), (False, 2)])
async def test_a_vector_is_looked_up_once_unless_the_search_waits(
    engine: FakeEngine,
    models: FakeModels,
    stack: AsyncExitStack,
    *,
    accepted: bool,
    lookups: int,
) -> None:
    """In Redis, a look-up takes a round trip. After the wait, another search may have cached the vector."""
    store = MemoryStore(2**20)
    vectors = CacheRegion(Kind.VECTORS, store, Keys(b"secret"), 60)
    run = await run_of(plan_of("", BODY), engine, models, stack, vectors=vectors)
    if accepted:
        run.stages.accepted.note()
    await retrieve(run, lexical(run, lexical_search(run.plan)))
    assert (lookups, 1) == (store.counts.misses, len(models.of("embed")))


async def test_knn_can_answer_a_search_without_hits(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    engine.faults["lexical"] = says(NOTHING)
    settings = msgspec.structs.replace(SETTINGS, on_zero_hits="semantic")
    run = await run_of(plan_of("", BODY, settings=settings, window=3), engine, models, stack)
    _, semantic = await retrieve(run, lexical(run, lexical_search(run.plan)))
    assert ["d", "b", "a"] == names(semantic.hits)


async def test_a_failure_of_the_clients_search_is_raised(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    engine.faults["lexical"] = refuses(400)
    models.faults["embed"] = hangs
    run = await run_of(plan_of("", BODY), engine, models, stack)
    with pytest.raises(Refused):
        await retrieve(run, lexical(run, lexical_search(run.plan)))


class DefectiveEmbedder:
    """An embedder with a bug."""

    async def remembers(self, *_: object, **__: object) -> bool:
        return True

    async def embed_query(self, *_: object, **__: object) -> QueryVector:
        raise ArithmeticError


async def test_an_internal_error_in_knn_drops_only_its_hits(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    run = await run_of(plan_of("", BODY), engine, models, stack)
    defective = cast("Embeds", DefectiveEmbedder())
    run = dataclasses.replace(run, stages=dataclasses.replace(run.stages, embedder=defective))
    found, semantic = await retrieve(run, lexical(run, lexical_search(run.plan)))
    assert (200, (Failure("semantic", "internal_error", "ArithmeticError"),)) == (found.reply.status, semantic.failures)


async def test_hits_outside_the_route_are_dropped(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    engine.documents.append(Document("x", "Secret", cosine=1.0, index="logs"))
    run = await run_of(plan_of("", BODY), engine, models, stack)
    _, semantic = await retrieve(run, lexical(run, lexical_search(run.plan)))
    assert {"products"} == {hit.key.index for hit in covered(run, semantic).hits}


def answer_of(**groups: Any) -> SearchAnswer:
    hits = [
        {"_index": "products", "_id": name, "_score": 1.0} | ({} if value is None else {"fields": {"family": [value]}})
        for name, value in groups.items()
    ]
    return read_answer(json.dumps({"hits": {"hits": hits}}).encode())


def grouped() -> Plan:
    return plan_of("", {**BODY, "collapse": {"field": "family"}})


async def run_grouped(engine: FakeEngine, models: FakeModels, stack: AsyncExitStack) -> Run:
    return await run_of(grouped(), engine, models, stack)


def key(name: str) -> DocKey:
    return DocKey("products", name)


async def test_a_group_is_represented_by_the_clients_own_hit(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    run = await run_grouped(engine, models, stack)
    _, groups = await group(run, answer_of(a=1, b=2, c=None), SemanticHits(answer_of(d=2, e=None).hits))
    assert {b"1": key("a"), b"2": key("b"), None: key("c")} == groups.representative
    assert (b"2", None, []) == (groups.of[key("d")], groups.of[key("e")], engine.requests)


async def test_representatives_of_groups_only_knn_found_are_requested(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    hit = {"_index": "products", "_id": "own", "_score": 1.0, "fields": {"family": [9]}}
    engine.faults["lexical"] = engine.faults["passages"] = says(json.dumps({"hits": {"hits": [hit]}}).encode())
    run = await run_grouped(engine, models, stack)
    _, groups = await group(run, answer_of(a=1), SemanticHits(answer_of(d=9, e=8).hits))
    assert {b"1": key("a"), b"9": key("own"), b"8": key("e")} == groups.representative
    assert [key("own")] == list(groups.adopted)


async def test_groups_without_a_known_representative_are_dropped(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    engine.faults["lexical"] = engine.faults["passages"] = refuses(400)
    run = await run_grouped(engine, models, stack)
    semantic, groups = await group(run, answer_of(a=1), SemanticHits(answer_of(d=9, e=1).hits))
    assert (["e"], {b"1": key("a")}) == (names(semantic.hits), groups.representative)
    assert ["refused"] == [failure.reason for failure in semantic.failures]


async def test_the_budget_limits_the_search_for_representatives(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    engine.faults["lexical"] = engine.faults["passages"] = hangs
    run = dataclasses.replace(await run_grouped(engine, models, stack), budget=Budget(0.01))
    run.budget.begin()
    semantic, _ = await group(run, answer_of(a=1), SemanticHits(answer_of(d=9, e=1).hits))
    assert (["e"], [SPENT]) == (names(semantic.hits), [failure.detail for failure in semantic.failures])


async def test_the_budget_limits_resolving_indices_again(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    async def never() -> frozenset[str]:
        await asyncio.Event().wait()
        return frozenset()

    run = await run_of(plan_of("", BODY), engine, models, stack, covered_now=never)
    run = dataclasses.replace(run, budget=Budget(0.01))
    run.budget.begin()
    elsewhere = read_answer(b'{"hits":{"hits":[{"_index":"archive","_id":"a","_score":1.0}]}}')
    async with asyncio.timeout(30):
        with pytest.raises(TimedOut, match=SPENT):
            await confirmed(run, elsewhere.hits)


async def test_ungrouped_hits_represent_themselves(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    run = await run_of(plan_of("", BODY), engine, models, stack)
    found = await lexical(run, lexical_search(run.plan))
    semantic = SemanticHits(found.answer.hits)
    same, groups = await group(run, found.answer, semantic)
    assert (semantic, {}, {}) == (same, groups.of, groups.representative)
