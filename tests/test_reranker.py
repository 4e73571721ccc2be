"""Passages get one finite score each, as DeepInfra's contract says, or the stage has failed."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.errors import Malformed, Refused, UpstreamError
from proxy.upstream.reranker import DOCUMENTS_MAX, Reranker, decode
from proxy.upstream.transport import Transport, models_session
from tests.fakes import FakeModels, Message, Stream, answer, refuses

MODEL = "Qwen/Qwen3-Reranker-4B"


@pytest.fixture
async def reranker(models: FakeModels) -> AsyncIterator[Reranker]:
    async with models_session(1.0) as session:
        transport = Transport(session, "reranker", models.url, "token")
        yield Reranker(transport, timeout_seconds=60, query_max_chars=10)


async def test_one_query_is_sent_for_all_passages_and_a_refusal_at_once_asked_for(
    reranker: Reranker, models: FakeModels
) -> None:
    models.scores = {"a": 0.25, "b": 0.75}
    scores = await reranker.score("q" * 20, ["a", "b"], instruction="Judge", model=MODEL)
    asked = {"queries": ["q" * 10], "documents": ["a", "b"], "instruction": "Judge", "fail_fast": True}
    assert (0.25, 0.75) == scores
    assert [(f"/v1/inference/{MODEL}", asked)] == [(one.target, one.json()) for one in models.requests]


async def test_more_passages_than_one_call_takes_are_split_and_come_back_in_their_order(
    reranker: Reranker, models: FakeModels
) -> None:
    passages = [f"p{number}" for number in range(2 * DOCUMENTS_MAX + 1)]
    models.scores = {passage: number / len(passages) for number, passage in enumerate(passages)}
    scores = await reranker.score("q", passages, instruction="i", model=MODEL)
    assert tuple(models.scores.values()) == scores
    assert [1, 1024, 1024] == sorted(len(asked.json()["documents"]) for asked in models.requests)


async def test_one_part_that_fails_fails_the_whole(reranker: Reranker, models: FakeModels) -> None:
    async def refuses_the_last(stream: Stream, asked: Message) -> bytes | None:
        return answer(429, b"{}") if len(asked.json()["documents"]) == 1 else None

    models.faults["rerank"] = refuses_the_last
    with pytest.raises(UpstreamError) as raised:
        await reranker.score("q", ["p"] * (DOCUMENTS_MAX + 1), instruction="i", model=MODEL)
    assert Refused is type(raised.value)


async def test_nothing_is_sent_twice(reranker: Reranker, models: FakeModels) -> None:
    models.faults["rerank"] = refuses(503)
    with pytest.raises(Refused):
        await reranker.score("q", ["a"], instruction="i", model=MODEL)
    assert 1 == len(models.requests)


@pytest.mark.parametrize(
    "said",
    [
        {"scores": [0.5, 1], "input_tokens": 1},
        {"scores": [[0.5, 1]]},
        {"results": [{"index": 1, "relevance_score": 1}, {"index": 0, "relevance_score": 0.5}]},
    ],
)
def test_three_forms_of_answers_are_read(said: Any) -> None:
    assert (0.5, 1.0) == decode(json.dumps(said).encode(), 2)


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
def test_anything_but_one_finite_score_for_each_passage_is_malformed(answer: bytes) -> None:
    with pytest.raises(Malformed):
        decode(answer, 2)
