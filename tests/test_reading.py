"""The texts of documents: read once, and in part while another response is awaited."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from proxy.ranking.reading import read_ahead, read_documents
from proxy.ranking.search_response import SearchAnswer, read_answer
from proxy.ranking.stages import Run
from tests.fakes import FakeEngine, FakeModels
from tests.plans import plan_of
from tests.runs import run_of

WINDOW = 100


@pytest.fixture
async def run(engine: FakeEngine, models: FakeModels) -> AsyncIterator[Run]:
    async with AsyncExitStack() as stack:
        yield await run_of(plan_of("", {"query": {"match": {"title": "lamp"}}}, window=WINDOW), engine, models, stack)


def answer_of(texts: dict[str, Any]) -> SearchAnswer:
    hits = [{"_index": "products", "_id": name, "_source": {"title": text}} for name, text in texts.items()]
    return read_answer(json.dumps({"hits": {"hits": hits}}).encode())


LAMPS = answer_of({str(number): f"lamp {number}" for number in range(WINDOW + 10)})


def awaited() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


async def test_half_of_the_window_is_read_while_another_response_is_awaited(run: Run) -> None:
    await read_ahead(run, LAMPS, awaited())
    assert [hit.key for hit in LAMPS.hits[: WINDOW // 2]] == list(run.read)


async def test_reading_ahead_stops_as_soon_as_the_response_is_there(run: Run) -> None:
    arrives = awaited()
    asyncio.get_running_loop().call_soon(arrives.set_result, None)
    await read_ahead(run, LAMPS, arrives)
    assert 0 < len(run.read) < WINDOW // 2


async def test_what_was_read_ahead_is_not_read_again(run: Run) -> None:
    await read_ahead(run, LAMPS, awaited())
    others = answer_of({str(number): f"other {number}" for number in range(WINDOW)})
    read = await read_documents(run, others.hits, others)
    assert [("lamp 49",), ("other 50",)] == [each.passages for each in list(read.values())[49:51]]


async def test_a_search_without_reranker_reads_nothing_ahead(run: Run) -> None:
    plain = replace(run.plan.route, rerank_model=None)
    await read_ahead(replace(run, plan=replace(run.plan, route=plain)), LAMPS, awaited())
    assert {} == run.read


async def test_an_error_while_reading_ahead_is_left_to_the_reading_proper(run: Run) -> None:
    run = replace(run, plan=replace(run.plan, route=replace(run.plan.route, redaction=None)))  # type: ignore[arg-type]
    await read_ahead(run, LAMPS, awaited())
    with pytest.raises(AttributeError):
        await read_documents(run, LAMPS.hits, LAMPS)


async def test_documents_are_returned_in_the_order_of_the_hits(run: Run) -> None:
    await read_ahead(run, LAMPS, awaited())
    turned = LAMPS.hits[::-1]
    assert [hit.key for hit in turned] == list(await read_documents(run, turned, LAMPS))
