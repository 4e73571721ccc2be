"""Queries and passages become vectors as DeepInfra's contract says, or the stage has failed."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from proxy.context import Charge, Usage
from proxy.errors import Busy, CapReached, Malformed, Refused, SlowModel, TimedOut
from proxy.ranking.planning import QueryVector
from proxy.ranking.stages import Budget
from proxy.settings.config import SpendCaps
from proxy.store.contract import Kind
from proxy.store.memory import ENTRY_SIZE, memory_region
from proxy.upstream.embedder import Embedder, ServedModel, decode, query_prompt
from proxy.upstream.guard import Clocks, Guards
from proxy.upstream.latency import CALLS_TO_JUDGE
from proxy.upstream.transport import Transport, models_session
from tests.fakes import FakeModels, hangs, refuses, says, waits_for
from tests.purses import Household, purse_with

MODEL = "Qwen/Qwen3-QueryVector-4B"


@pytest.fixture
async def embedder(models: FakeModels) -> AsyncIterator[Embedder]:
    async with models_session(1.0) as session:
        transport = Transport(session, "embedder", models.url, "token")
        vectors = memory_region(Kind.VECTORS, 2 * (16 + ENTRY_SIZE))
        yield Embedder(transport, timeout_seconds=60, query_max_chars=40, vectors=vectors)


async def ask(embedder: Embedder, text: str, *, instruction: str = "Find it", dimensions: int = 3) -> Any:
    """Return the vector of a query, or raise what is in its place."""
    found = await found_by(embedder, text, instruction=instruction, dimensions=dimensions)
    if found.error is not None:
        raise found.error
    return found.vector


async def found_by(
    embedder: Embedder, text: str, *, instruction: str = "Find it", dimensions: int = 3, budget: Budget | None = None
) -> QueryVector:
    return await embedder.embed_query(
        text, instruction=instruction, model=MODEL, dimensions=dimensions, budget=budget or Budget()
    )


async def test_a_query_is_sent_with_instruction_and_dimensions_and_is_not_queued(
    embedder: Embedder, models: FakeModels
) -> None:
    vector = await ask(embedder, "red shoes")
    asked = {
        "model": MODEL,
        "input": ["Instruct: Find it\nQuery:red shoes"],
        "encoding_format": "float",
        "dimensions": 3,
        "fail_fast": True,
    }
    assert ((1.0, 0.0, 0.0), [asked]) == (vector, [request.json() for request in models.requests])


async def test_a_query_is_truncated_at_its_limit_but_not_the_instruction(
    embedder: Embedder, models: FakeModels
) -> None:
    await ask(embedder, "x" * 100, instruction="i" * 100)
    assert [query_prompt("i" * 100, "x" * 40)] == models.requests[0].json()["input"]


async def test_concurrent_equal_queries_share_one_call(embedder: Embedder, models: FakeModels) -> None:
    held = asyncio.Event()
    models.faults["embed"] = waits_for(held)
    asking = [asyncio.ensure_future(ask(embedder, text)) for text in ("a", "a", "b", "a")]
    await models.until_asked("embed", 2)
    held.set()
    vectors = await asyncio.gather(*asking)
    assert (1, 2) == (len(set(vectors)), len(models.requests))


async def test_a_cap_of_the_search_that_began_a_call_does_not_affect_another(
    embedder: Embedder, models: FakeModels
) -> None:
    """For example items of an `_msearch` with the same text, of two routes."""
    home = Household(SpendCaps(max_usd_per_day=1.0))
    purses = (home.purse("a", pays=False), home.purse("b"), home.purse("a", pays=False), home.purse("b"))
    asking = [found_by(embedder, "x", budget=Budget(purse=purse)) for purse in purses]
    capped, paying, *others = await asyncio.gather(*asking)
    assert (CapReached, (1.0, 0.0, 0.0), None) == (type(capped.error), paying.vector, paying.error)
    assert [None, None] == [found.error for found in others]
    assert 1 == len(models.requests)


async def test_a_cancelled_search_does_not_cancel_the_shared_call(embedder: Embedder, models: FakeModels) -> None:
    held = asyncio.Event()
    models.faults["embed"] = waits_for(held)
    leaving, staying = (asyncio.ensure_future(ask(embedder, "a")) for _ in range(2))
    await models.until_asked("embed")
    leaving.cancel()
    held.set()
    assert (1.0, 0.0, 0.0) == await staying
    assert (True, 1) == (leaving.cancelled(), len(models.requests))


async def test_vectors_are_cached_by_prompt_and_dimensions(embedder: Embedder, models: FakeModels) -> None:
    for text, dimensions in [("a", 3), ("a", 3), ("a", 4), ("a", 3), ("b", 3), ("a", 3), ("a", 4)]:
        await ask(embedder, text, dimensions=dimensions)
    assert [("a", 3), ("a", 4), ("b", 3), ("a", 4)] == [
        (asked.json()["input"][0][-1], asked.json()["dimensions"]) for asked in models.requests
    ]


async def test_a_failure_is_not_cached(embedder: Embedder, models: FakeModels) -> None:
    models.faults["embed"] = refuses(429)
    with pytest.raises(Refused):
        await ask(embedder, "a")
    del models.faults["embed"]
    assert (1.0, 0.0, 0.0) == await ask(embedder, "a")


async def test_a_failure_reaches_all_who_wait_for_it(embedder: Embedder, models: FakeModels) -> None:
    models.faults["embed"] = refuses(500)
    found = await asyncio.gather(ask(embedder, "a"), ask(embedder, "a"), return_exceptions=True)
    assert ([Refused, Refused], 1) == ([type(error) for error in found], len(models.requests))


async def test_passages_are_sent_without_instruction_and_may_be_queued(embedder: Embedder, models: FakeModels) -> None:
    vectors = await embedder.embed_passages(["one", "two"], model=MODEL, dimensions=None)
    asked = {"model": MODEL, "input": ["one", "two"], "encoding_format": "float"}
    assert ([asked], (2, 8)) == ([request.json() for request in models.requests], vectors.shape)


async def test_without_passages_no_call_is_made(embedder: Embedder, models: FakeModels) -> None:
    vectors = await embedder.embed_passages([], model=MODEL, dimensions=3)
    assert ((0, 3), []) == (vectors.shape, models.requests)


def embeddings(*entries: tuple[int, list[Any]], **more: Any) -> bytes:
    data = [{"index": index, "embedding": vector} for index, vector in entries]
    return json.dumps({"data": data, **more}).encode()


def test_vectors_are_ordered_by_index_and_normalised() -> None:
    found = decode(embeddings((1, [0, 5]), (0, [3, 4])), 2, MODEL, 2)
    np.testing.assert_allclose([[0.6, 0.8], [0.0, 1.0]], found, rtol=1e-6)


@pytest.mark.parametrize("said", [{}, {"model": None}, {"model": ""}, {"model": MODEL}, {"model": MODEL.lower()}])
def test_a_response_names_the_requested_model_or_none(said: Any) -> None:
    assert decode(embeddings((0, [1, 0]), **said), 1, MODEL, 2).tolist() == [[1, 0]]


def test_vectors_of_another_model_are_rejected() -> None:
    """They would fit the field and return random neighbours."""
    with pytest.raises(Malformed, match=f"vectors of other instead of {MODEL}"):
        decode(embeddings((0, [1, 0]), model="other"), 1, MODEL, 2)


async def test_a_query_is_not_embedded_by_another_model(embedder: Embedder, models: FakeModels) -> None:
    models.faults["embed"] = says(embeddings((0, [1, 0, 0]), model="other"))
    with pytest.raises(Malformed, match="vectors of other"):
        await ask(embedder, "a")


@pytest.mark.parametrize(
    ("said", "model"), [({}, MODEL), ({"model": MODEL.upper()}, MODEL), ({"model": "other"}, "other")]
)
async def test_the_model_behind_a_name_is_determined_by_a_call(
    said: Any, model: str, embedder: Embedder, models: FakeModels
) -> None:
    models.faults["embed"] = says(embeddings((0, [1, 0]), **said))
    assert await embedder.served_model(model=MODEL, dimensions=None) == ServedModel(model, 2)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"data":null}',
        b'{"data":[{"index":0}]}',
        b'{"data":[{"index":0,"embedding":[NaN,1]},{"index":1,"embedding":[1,1]}]}',
        b'{"detail":{"error":"overloaded"}}',
        embeddings((0, [1, 0]), (1, [1, 0]), model="?").replace(b"?", b"\xff"),
        embeddings((0, [1, 0])),
        embeddings((0, [1, 0]), (1, [1, 0]), (2, [1, 0])),
        embeddings((0, [1, 0]), (0, [1, 0])),
        embeddings((1, [1, 0]), (2, [1, 0])),
        embeddings((0, [1, 0]), (1, [1, 0, 0])),
        embeddings((0, [1, 0, 0]), (1, [1, 0, 0])),
        embeddings((0, [1, 0]), (1, [0, 0])),
        embeddings((0, [1, 0]), (1, [1, None])),
        embeddings((0, [1, 0]), (1, [1, "1"])),
        embeddings((0, [1, 0]), (1, [1e39, 0])),
    ],
)
def test_a_response_without_one_vector_per_text_is_malformed(answer: bytes) -> None:
    with pytest.raises(Malformed):
        decode(answer, 2, MODEL, 2)


async def test_a_call_is_cancelled_when_no_search_waits_for_it(embedder: Embedder, models: FakeModels) -> None:
    models.faults["embed"] = hangs
    leaving = [asyncio.ensure_future(ask(embedder, "a")) for _ in range(2)]
    await models.until_asked("embed")
    for asking in leaving:
        asking.cancel()
    await models.until_left()
    del models.faults["embed"]
    assert ((1.0, 0.0, 0.0), 2) == (await ask(embedder, "a"), len(models.requests))


@pytest.mark.parametrize(
    "said",
    [
        b'{"data":[{"index":0,"embedding":[1%s,1,1]}]}' % (b"0" * 400),
        b'{"data":%s}' % (b"[" * 100_000),
        b'{"data":[{"index":1%s,"embedding":[1,1,1]}]}' % (b"0" * 5000),
        b'{"data":[]}' + b" " * 2**20,
    ],
    ids=["large", "deep", "index", "long"],
)
async def test_any_unexpected_response_is_malformed(embedder: Embedder, models: FakeModels, said: bytes) -> None:
    models.faults["embed"] = says(said)
    with pytest.raises(Malformed):
        await ask(embedder, "a")


async def test_a_spent_budget_cancels_the_call_and_is_an_error_value(embedder: Embedder, models: FakeModels) -> None:
    models.faults["embed"] = hangs
    budget = Budget(0.05)
    asking = asyncio.ensure_future(found_by(embedder, "a", budget=budget))
    await models.until_asked("embed")
    budget.begin()
    found = await asking
    assert ((), TimedOut) == (found.vector, type(found.error))
    await models.until_left()


async def test_one_of_equal_queries_pays_and_a_cached_vector_is_free(embedder: Embedder, models: FakeModels) -> None:
    held = asyncio.Event()
    models.faults["embed"] = waits_for(held)
    usages = [Usage() for _ in range(4)]
    budgets = [Budget(purse=purse_with(usage)) for usage in usages]
    asking = [asyncio.ensure_future(found_by(embedder, "a", budget=budget)) for budget in budgets[:3]]
    await models.until_asked("embed")
    held.set()
    await asyncio.gather(*asking)
    await found_by(embedder, "a", budget=budgets[3])
    assert [Charge(1), Charge(), Charge(), Charge()] == [usage.charge for usage in usages]


async def test_malformed_token_counts_do_not_discard_the_vector(embedder: Embedder, models: FakeModels) -> None:
    models.faults["embed"] = says(embeddings((0, [1, 0, 0]), usage=[[]], inference_status="x", input_tokens={}))
    assert (1.0, 0.0, 0.0) == await ask(embedder, "a")


async def test_a_model_that_is_too_slow_is_not_called(models: FakeModels) -> None:
    models.faults["embed"] = hangs
    async with models_session(1.0) as session:
        guards = Guards(200, clocks=Clocks(lambda: 0.0))
        transport = Transport(session, "embedder", models.url, None, guards)
        embedder = Embedder(transport, timeout_seconds=0.02, query_max_chars=40)
        found = [await found_by(embedder, "a") for _ in range(CALLS_TO_JUDGE + 1)]
    assert [TimedOut] * CALLS_TO_JUDGE + [SlowModel] == [type(each.error) for each in found]


async def test_a_search_does_not_queue_longer_than_its_budget(models: FakeModels) -> None:
    """However long the model may take; it then gives up its place in the queue."""
    held, guards = asyncio.Event(), Guards(1)
    async with models_session(1.0) as session:
        transport = Transport(session, "embedder", models.url, None, guards)
        embedder = Embedder(transport, timeout_seconds=60, query_max_chars=40)
        guard = guards.of("embedder", MODEL)
        guard.latency.answered(5.0, 0.0)
        models.faults["embed"] = waits_for(held)
        running = asyncio.ensure_future(found_by(embedder, "a"))
        await models.until_asked("embed")
        assert Busy is type((await found_by(embedder, "b", budget=Budget(9.0))).error)
        assert (1, 0) == (guard.bulkhead.in_flight, guard.bulkhead.waiting)
        shared = asyncio.ensure_future(found_by(embedder, "a", budget=Budget(9.0)))
        held.set()
        assert [None, None] == [(await each).error for each in (running, shared)]
