"""Passages get one finite score each, as DeepInfra's contract says, or the stage has failed."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.bounds import RERANKED_AT_ONCE
from proxy.errors import EqualScores, Malformed, Refused, UpstreamError
from proxy.ranking.planning import Relevance
from proxy.upstream.reranker import Reranker, decode, read
from proxy.upstream.transport import Transport, models_session
from tests.fakes import FakeModels, Message, Stream, answer, refuses, says

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
    relevance = await reranker.score("q" * 20, ["a", "b"], instruction="Judge", model=MODEL)
    asked = {"queries": ["q" * 10], "documents": ["a", "b"], "instruction": "Judge", "fail_fast": True}
    assert Relevance((0.25, 0.75)) == relevance
    assert [(f"/v1/inference/{MODEL}", asked)] == [(one.target, one.json()) for one in models.requests]


async def test_more_passages_than_one_call_takes_are_split_and_come_back_in_their_order(
    reranker: Reranker, models: FakeModels
) -> None:
    passages = [f"p{number}" for number in range(2 * RERANKED_AT_ONCE + 1)]
    models.scores = {passage: number / len(passages) for number, passage in enumerate(passages)}
    relevance = await reranker.score("q", passages, instruction="i", model=MODEL)
    assert tuple(models.scores.values()) == relevance.scores
    assert [1, 1024, 1024] == sorted(len(asked.json()["documents"]) for asked in models.requests)


async def test_one_part_that_fails_fails_the_whole(reranker: Reranker, models: FakeModels) -> None:
    async def refuses_the_last(stream: Stream, asked: Message) -> bytes | None:
        return answer(429, b"{}") if len(asked.json()["documents"]) == 1 else None

    models.faults["rerank"] = refuses_the_last
    with pytest.raises(UpstreamError) as raised:
        await reranker.score("q", ["p"] * (RERANKED_AT_ONCE + 1), instruction="i", model=MODEL)
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
    assert Relevance((0.5, 1.0)) == decode(json.dumps(said).encode(), 2)


@pytest.mark.parametrize(("model", "expected"), [("a-model", "a-model"), (None, None), (7, None), ([], None)])
def test_a_server_may_say_which_model_answers(model: Any, expected: str | None) -> None:
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
def test_anything_but_one_finite_score_for_each_passage_is_malformed(answer: bytes) -> None:
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
async def test_no_response_is_too_odd_to_be_malformed(reranker: Reranker, models: FakeModels, said: bytes) -> None:
    models.faults["rerank"] = says(said)
    with pytest.raises(Malformed):
        await reranker.score("q", ["a", "b"], instruction="i", model=MODEL)


async def test_the_largest_response_that_servers_give_is_read(reranker: Reranker, models: FakeModels) -> None:
    """Every score with all its digits, and the passages sent back."""
    passages = [f"{number}" + "ü" * 2000 for number in range(100)]
    results = [
        {"index": number, "relevance_score": 0.123456789012345678 + number / 1000, "document": {"text": passage}}
        for number, passage in enumerate(passages)
    ]
    models.faults["rerank"] = says(json.dumps({"results": results}, ensure_ascii=False, indent=2).encode())
    relevance = await reranker.score("q", passages, instruction="i", model=MODEL)
    assert 100 == len(relevance.scores)


@pytest.mark.parametrize(
    ("scores", "passages", "says_nothing"),
    [
        ([0.5, 0.5, 0.5], ["a", "b", "c"], True),
        ([-3, -3, -3, -3], ["a", "b", "c", "a"], True),
        ([0.5, 0.5, 0.5], ["a", "b", "b"], False),
        ([0.5, 0.5], ["a", "b"], False),
        ([0.5, 0.5, 0.6], ["a", "b", "c"], False),
        ([1, 1, 1], ["a", "b", "c"], False),
        ([0, 0, 0], ["a", "b", "c"], False),
    ],
)
def test_equal_scores_for_different_passages_say_nothing(
    scores: list[float],
    passages: list[str],
    says_nothing: bool,  # noqa: FBT001
) -> None:
    answer = json.dumps({"scores": scores}).encode()
    if says_nothing:
        with pytest.raises(EqualScores):
            read(answer, passages)
    else:
        assert tuple(scores) == read(answer, passages).scores
