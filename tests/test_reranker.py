"""Passages get one finite score each, as DeepInfra's contract says, or an error."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.context import Charge, Usage
from proxy.errors import Malformed, Refused, SlowModel, TimedOut
from proxy.ranking.planning import Relevance
from proxy.upstream.guard import Clocks, Guards
from proxy.upstream.latency import CALLS_TO_JUDGE
from proxy.upstream.reranker import Reranker, decode
from proxy.upstream.transport import Transport, models_session
from tests.fakes import FakeModels, hangs, refuses, says
from tests.purses import purse_with

MODEL = "Qwen/Qwen3-Reranker-4B"


@pytest.fixture
async def transport(models: FakeModels) -> AsyncIterator[Transport]:
    async with models_session(1.0) as session:
        yield Transport(session, "reranker", models.url, "token")


@pytest.fixture
async def guarded(models: FakeModels) -> AsyncIterator[Transport]:
    """A transport as `serve` has it; its clock stands still."""
    async with models_session(1.0) as session:
        yield Transport(session, "reranker", models.url, "token", Guards(200, clocks=Clocks(lambda: 0.0)))


@pytest.fixture
def reranker(transport: Transport) -> Reranker:
    return Reranker(transport, timeout_seconds=1000)


async def score(reranker: Reranker, passages: list[str], query: str = "q") -> Relevance:
    return await reranker.score(query, passages, instruction="Judge", model=MODEL)


async def test_one_query_is_sent_with_all_passages_and_is_not_queued(reranker: Reranker, models: FakeModels) -> None:
    models.scores = {"a": 0.25, "b": 0.75}
    relevance = await score(reranker, ["a", "b"], query="query")
    asked = {"queries": ["query"], "documents": ["a", "b"], "instruction": "Judge", "fail_fast": True}
    assert Relevance((0.25, 0.75)) == relevance
    assert [(f"/v1/inference/{MODEL}", asked)] == [(one.target, one.json()) for one in models.requests]


async def test_a_cancelled_call_closes_its_connection(reranker: Reranker, models: FakeModels) -> None:
    models.faults["rerank"] = hangs
    asking = asyncio.ensure_future(score(reranker, ["a"]))
    await models.until_asked("rerank", 1)
    asking.cancel()
    await models.until_left()


async def test_nothing_is_sent_twice(reranker: Reranker, models: FakeModels) -> None:
    models.faults["rerank"] = refuses(503)
    relevance = await score(reranker, ["a"])
    assert (Refused, 1) == (type(relevance.error), len(models.requests))


@pytest.mark.parametrize(
    "said",
    [
        {"scores": [0.5, 1], "input_tokens": 0},
        {"scores": [[0.5, 1]]},
        {"results": [{"index": 1, "relevance_score": 1}, {"index": 0, "relevance_score": 0.5}]},
    ],
)
def test_three_response_formats_are_read(said: Any) -> None:
    assert Relevance((0.5, 1.0)) == decode(json.dumps(said).encode(), 2)


@pytest.mark.parametrize(("model", "expected"), [("a-model", "a-model"), (None, None), (7, None), ([], None)])
def test_a_server_may_name_the_model_that_responds(model: Any, expected: str | None) -> None:
    assert Relevance((0.5, 1.0), expected) == decode(json.dumps({"scores": [0.5, 1], "model": model}).encode(), 2)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b"null",
        b"[0.5, 1]",
        b"{}",
        b'{"scores":null}',
        b'{"\xff":1}',
        b'{"scores":[]}',
        b'{"scores":[0.5]}',
        b'{"scores":[0.5,1,1]}',
        b'{"scores":[0.5,NaN]}',
        b'{"scores":[0.5,null]}',
        b'{"scores":[0.5,true]}',
        b'{"scores":[0.5,"1"]}',
        b'{"scores":[[0.5],[1]]}',
        b'{"scores":[0.5,1e999]}',
        b'{"results":[{"index":0,"relevance_score":1}]}',
        b'{"results":[{"index":0,"relevance_score":1},{"index":0,"relevance_score":1}]}',
        b'{"results":[{"index":0,"relevance_score":1},{"index":2,"relevance_score":1}]}',
        b'{"results":[{"index":0,"relevance_score":1},{"index":1}]}',
        b'{"results":[{"index":0,"relevance_score":1},{"index":[1],"relevance_score":1}]}',
        b'{"error":{"code":"engine_overloaded"}}',
    ],
)
def test_a_response_without_one_finite_score_per_passage_is_malformed(answer: bytes) -> None:
    with pytest.raises(Malformed):
        decode(answer, 2)


@pytest.mark.parametrize(
    "said",
    [
        b'{"scores":[0.5,1%s]}' % (b"0" * 400),
        b'{"scores":[0.5,-1%s]}' % (b"0" * 400),
        b'{"scores":%s0.5,0.7%s}' % (b"[" * 2000, b"]" * 2000),
        b'{"scores":[0.5,0.7],"x":%s}' % (b"[" * 100_000),
        b'{"results":[{"index":1%s,"relevance_score":1}]}' % (b"0" * 5000),
    ],
    ids=["large", "small", "deep", "deep beside", "index"],
)
async def test_any_unexpected_response_is_malformed(reranker: Reranker, models: FakeModels, said: bytes) -> None:
    models.faults["rerank"] = says(said)
    relevance = await score(reranker, ["a", "b"])
    assert ((), True) == (relevance.scores, isinstance(relevance.error, Malformed))


async def test_the_largest_response_of_known_servers_is_read(transport: Transport, models: FakeModels) -> None:
    """With all digits of every score, and with the passages returned."""
    passages = [f"{number}" + "ü" * 2000 for number in range(100)]
    results = [
        {"index": number, "relevance_score": 0.123456789012345678 + number / 1000, "document": {"text": passage}}
        for number, passage in enumerate(passages)
    ]
    models.faults["rerank"] = says(json.dumps({"results": results}, ensure_ascii=False, indent=2).encode())
    relevance = await score(Reranker(transport, timeout_seconds=60), passages)
    assert 100 == len(relevance.scores)


async def test_a_model_too_slow_for_the_remaining_time_is_not_called(guarded: Transport, models: FakeModels) -> None:
    models.faults["rerank"] = hangs
    reranker = Reranker(guarded, timeout_seconds=0.02)
    for _ in range(CALLS_TO_JUDGE):
        assert reranker.reject_if_late(MODEL, 0.02, is_new=True) is None
        assert TimedOut is type((await score(reranker, ["a", "b"])).error)
    assert isinstance(reranker.reject_if_late(MODEL, 0.02, is_new=True), SlowModel)
    assert reranker.reject_if_late(MODEL, 60, is_new=True) is None


async def test_rejected_calls_do_not_count_as_latency(guarded: Transport, models: FakeModels) -> None:
    models.faults["rerank"] = refuses(429)
    reranker = Reranker(guarded, timeout_seconds=60)
    for _ in range(2 * CALLS_TO_JUDGE):
        await score(reranker, ["a", "b"])
    assert reranker.reject_if_late(MODEL, 0.0001, is_new=False) is None


async def test_a_call_is_charged_to_the_purse(reranker: Reranker) -> None:
    usage = Usage()
    await reranker.score("q", ["a"], instruction="Judge", model=MODEL, purse=purse_with(usage))
    assert Charge(42) == usage.charge


async def test_calls_with_few_passages_do_not_count_as_latency(models: FakeModels) -> None:
    seconds = itertools.count()
    async with models_session(1.0) as session:
        guards = Guards(200, clocks=Clocks(lambda: next(seconds) / 1000))
        reranker = Reranker(Transport(session, "reranker", models.url, None, guards), timeout_seconds=60)
        for _ in range(2 * CALLS_TO_JUDGE):
            await reranker.score("q", ["a"], instruction="Judge", model=MODEL, is_typical=False)
        assert reranker.reject_if_late(MODEL, 0.0001, is_new=True) is None
        for _ in range(2 * CALLS_TO_JUDGE):
            await score(reranker, ["a"])
        assert isinstance(reranker.reject_if_late(MODEL, 0.0001, is_new=True), SlowModel)
