"""Passages get one finite score each, as DeepInfra's contract says, or the stage has failed."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.context import Charge
from proxy.errors import EqualScores, Malformed, Refused, SlowModel, TimedOut
from proxy.ranking.planning import Relevance
from proxy.ranking.stages import Budget
from proxy.upstream.guard import Clocks, Guards
from proxy.upstream.latency import CALLS_TO_JUDGE
from proxy.upstream.reranker import Reranker, batches_of, decode, joined
from proxy.upstream.transport import Transport, models_session
from tests.fakes import FakeModels, Fault, Message, Stream, hangs, refuses, says

MODEL = "Qwen/Qwen3-Reranker-4B"


BATCH = 3


class Noting(Transport):
    """Notes each response that was read."""

    def __init__(self, *where: Any) -> None:
        super().__init__(*where)
        self.answered = asyncio.Semaphore(0)
        self.seconds = 0.0

    async def ask(self, *asked: Any, model: str) -> Any:
        self.seconds = asked[2]
        found = await super().ask(*asked, model=model)
        self.answered.release()
        return found


@pytest.fixture
async def transport(models: FakeModels) -> AsyncIterator[Noting]:
    async with models_session(1.0) as session:
        yield Noting(session, "reranker", models.url, "token")


@pytest.fixture
async def guarded(models: FakeModels) -> AsyncIterator[Transport]:
    """A transport as `serve` has it; its clock stands still."""
    async with models_session(1.0) as session:
        yield Transport(session, "reranker", models.url, "token", Guards(200, clocks=Clocks(lambda: 0.0)))


@pytest.fixture
def reranker(transport: Transport) -> Reranker:
    return Reranker(transport, timeout_seconds=1000, query_max_chars=10, batch_size=BATCH)


async def score(reranker: Reranker, passages: list[str], budget: Budget | None = None, query: str = "q") -> Relevance:
    return await reranker.score(query, passages, instruction="Judge", model=MODEL, budget=budget or Budget())


async def test_one_query_is_sent_for_all_passages_and_a_refusal_at_once_asked_for(
    reranker: Reranker, models: FakeModels
) -> None:
    models.scores = {"a": 0.25, "b": 0.75}
    relevance = await score(reranker, ["a", "b"], query="q" * 20)
    asked = {"queries": ["q" * 10], "documents": ["a", "b"], "instruction": "Judge", "fail_fast": True}
    assert Relevance((0.25, 0.75), charge=Charge(42)) == relevance
    assert [(f"/v1/inference/{MODEL}", asked)] == [(one.target, one.json()) for one in models.requests]


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [
        (0, 50, []),
        (1, 50, [1]),
        (50, 50, [50]),
        (51, 50, [26, 25]),
        (200, 50, [50] * 4),
        (7, 3, [3, 3, 1]),
        (2, 1, [1, 1]),
    ],
)
def test_passages_are_cut_into_as_few_batches_as_there_may_be(count: int, size: int, sizes: list[int]) -> None:
    passages = [f"p{number}" for number in range(count)]
    batches = batches_of(passages, size)
    assert (sizes, passages) == ([len(batch) for batch in batches], [each for batch in batches for each in batch])


async def test_many_passages_are_scored_in_parallel_calls_and_come_back_in_their_order(
    reranker: Reranker, models: FakeModels
) -> None:
    """Each call waits until all have come."""
    passages = [f"p{number}" for number in range(2 * BATCH + 1)]
    models.scores = {passage: number / len(passages) for number, passage in enumerate(passages)}

    async def waits_for_all(stream: Stream, asked: Message) -> None:
        await models.until_asked("rerank", 3)

    models.faults["rerank"] = waits_for_all
    relevance = await score(reranker, passages)
    assert (tuple(models.scores.values()), None, Charge(3 * 42)) == (
        relevance.scores,
        relevance.error,
        relevance.charge,
    )


PASSAGES = ["a", "b", "c", "d", "e", "f", "g", "h", "i"]
"""Three batches."""


def failing_from(passage: str, fault: Fault) -> Fault:
    """Fail the batch that begins with this passage."""

    async def fails(stream: Stream, asked: Message) -> bytes | None:
        return await fault(stream, asked) if asked.json()["documents"][0] == passage else None

    return fails


@pytest.mark.parametrize(("first", "scored"), [("a", 0), ("d", 3), ("g", 6)])
async def test_a_batch_that_fails_leaves_the_scores_of_those_before_it(
    reranker: Reranker, models: FakeModels, first: str, scored: int
) -> None:
    models.faults["rerank"] = failing_from(first, refuses(429))
    relevance = await score(reranker, PASSAGES)
    assert (scored, Refused) == (len(relevance.scores), type(relevance.error))


@pytest.mark.parametrize(("first", "scored"), [("a", 0), ("d", 3), ("g", 6)])
async def test_a_budget_that_ends_leaves_the_longest_scored_prefix_and_ends_the_calls(
    transport: Noting, reranker: Reranker, models: FakeModels, first: str, scored: int
) -> None:
    """What was scored behind it is of no use, and was paid for."""
    models.scores = dict.fromkeys("abcdefghi", 0.1) | {"b": 0.9, "e": 0.8}
    models.faults["rerank"] = failing_from(first, hangs)
    budget = Budget(0.01)
    asking = asyncio.ensure_future(score(reranker, PASSAGES, budget))
    for _ in range(2):
        await transport.answered.acquire()
    budget.begin()
    relevance = await asking
    assert (tuple(models.scores.values())[:scored], TimedOut) == (relevance.scores, type(relevance.error))
    assert Charge(2 * 42) == relevance.charge


async def test_a_time_limit_of_its_own_leaves_the_scored_prefix(transport: Transport, models: FakeModels) -> None:
    models.faults["rerank"] = failing_from("d", hangs)
    reranker = Reranker(transport, timeout_seconds=0.3, query_max_chars=10, batch_size=BATCH)
    relevance = await score(reranker, PASSAGES)
    assert (TimedOut, True) == (type(relevance.error), len(relevance.scores) <= BATCH)


async def test_a_spent_budget_asks_no_model(reranker: Reranker, models: FakeModels) -> None:
    budget = Budget(0.0)
    budget.begin()
    relevance = await score(reranker, PASSAGES, budget)
    assert ((), TimedOut, []) == (relevance.scores, type(relevance.error), models.requests)


@pytest.mark.parametrize(("budget", "at_most"), [(Budget(), 1000.0), (Budget(0.5), 0.5), (Budget(5000.0), 1000.0)])
async def test_a_call_is_told_how_much_time_there_is(
    transport: Noting, reranker: Reranker, budget: Budget, at_most: float
) -> None:
    """So that it is not sent, or sent again, where it cannot end in time."""
    await score(reranker, ["a"], budget)
    assert pytest.approx(at_most, rel=0.1) == transport.seconds


async def test_a_client_that_leaves_ends_every_call(reranker: Reranker, models: FakeModels) -> None:
    models.faults["rerank"] = hangs
    asking = asyncio.ensure_future(score(reranker, PASSAGES))
    await models.until_asked("rerank", 3)
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
    relevance = await score(reranker, ["a", "b"])
    assert ((), True) == (relevance.scores, isinstance(relevance.error, Malformed))


async def test_the_largest_response_that_servers_give_is_read(transport: Transport, models: FakeModels) -> None:
    """Every score with all its digits, and the passages sent back."""
    passages = [f"{number}" + "ü" * 2000 for number in range(100)]
    results = [
        {"index": number, "relevance_score": 0.123456789012345678 + number / 1000, "document": {"text": passage}}
        for number, passage in enumerate(passages)
    ]
    models.faults["rerank"] = says(json.dumps({"results": results}, ensure_ascii=False, indent=2).encode())
    relevance = await score(Reranker(transport, timeout_seconds=60, query_max_chars=10), passages)
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
@pytest.mark.parametrize("batch", [1, 2, 9])
def test_equal_scores_for_different_passages_say_nothing(
    scores: list[float],
    passages: list[str],
    says_nothing: bool,  # noqa: FBT001
    batch: int,
) -> None:
    """However many calls they came from."""
    answers = [Relevance(tuple(scores[start : start + batch])) for start in range(0, len(scores), batch)]
    relevance = joined(answers, passages)
    assert (says_nothing, () if says_nothing else tuple(scores)) == (
        isinstance(relevance.error, EqualScores),
        relevance.scores,
    )


async def test_a_model_that_is_too_slow_for_the_time_left_is_not_asked(guarded: Transport, models: FakeModels) -> None:
    models.faults["rerank"] = hangs
    reranker = Reranker(guarded, timeout_seconds=60, query_max_chars=10)
    for _ in range(CALLS_TO_JUDGE):
        budget = Budget(0.02)
        budget.begin()
        assert TimedOut is type((await score(reranker, ["a", "b"], budget)).error)
    budget = Budget(0.02)
    budget.begin()
    relevance = await score(reranker, ["a", "b"], budget)
    assert ((), SlowModel) == (relevance.scores, type(relevance.error))
    assert len(models.requests) <= CALLS_TO_JUDGE
    del models.faults["rerank"]
    assert 2 == len((await score(reranker, ["a", "b"])).scores)


async def test_a_refusal_says_nothing_of_how_long_a_model_takes(guarded: Transport, models: FakeModels) -> None:
    models.faults["rerank"] = refuses(422)
    reranker = Reranker(guarded, timeout_seconds=60, query_max_chars=10)
    found = [await score(reranker, ["a", "b"], Budget(0.02)) for _ in range(2 * CALLS_TO_JUDGE)]
    assert {Refused} == {type(each.error) for each in found}
