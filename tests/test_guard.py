"""A search's calls of a model: at most one retry, none while the model fails, and all of them counted."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest
import structlog

from proxy.errors import Busy, Malformed, Refused, SlowModel, TimedOut, Unreachable, UpstreamError, Withheld
from proxy.upstream.guard import CANCELLED, Clocks, Guard, GuardedModels, Guards
from proxy.upstream.latency import CALLS_TO_JUDGE
from proxy.upstream.retries import reason_of

SECONDS = 2.0
LIMIT = 1.48
"""What a search has left of the default budget."""
LogLines = list[structlog.typing.EventDict]


@dataclass
class Model:
    """Answers as told, one error or None after the other, and the last one for ever; has a clock of its own."""

    ends: list[UpstreamError | None]
    takes: float = 0.0
    now: float = 0.0
    calls: int = 0
    slept: list[float] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)

    async def attempt(self, seconds: float) -> str:
        self.calls += 1
        self.now += min(self.takes, seconds)
        error = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0]
        if error is not None:
            raise error
        return "scores"

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    @property
    def clocks(self) -> Clocks:
        return Clocks(lambda: self.now, self.sleep, lambda: 0.5)

    def guard(self) -> Guard:
        return Guards(200, lambda *labels: self.counted.update(labels[2:]), self.clocks).of("reranker", "qwen")


def refused(status: int, *fields: tuple[bytes, bytes]) -> Refused:
    return Refused("reranker", status, b"", fields, reason=reason_of(status), message="in its own words")


async def end(guard: Guard, model: Model, seconds: float = SECONDS) -> str:
    """Call a model and return the reason of its failure, or its response."""
    try:
        return await guard.call(model.attempt, seconds)
    except UpstreamError as error:
        return error.reason


@pytest.mark.parametrize("error", [refused(429), refused(500), refused(503), Unreachable("reranker")])
async def test_transient_errors_are_retried_once(error: UpstreamError) -> None:
    model = Model([error, None])
    assert "scores" == await end(model.guard(), model)
    assert ([0.05], {error.reason: 1, "retried": 1, "ok": 1}) == (model.slept, model.counted)


async def test_a_call_is_retried_at_most_once() -> None:
    model = Model([refused(503)])
    assert ("server_error", 2) == (await end(model.guard(), model), model.calls)


@pytest.mark.parametrize(
    "error", [TimedOut("reranker"), Malformed("reranker"), refused(400), refused(401), refused(413), refused(422)]
)
async def test_billed_or_permanent_errors_are_not_retried(error: UpstreamError) -> None:
    model = Model([error, None])
    assert (error.reason, 1) == (await end(model.guard(), model), model.calls)


async def test_retry_after_is_respected() -> None:
    model = Model([refused(429, (b"Retry-After", b"1")), None])
    assert ("scores", [1.05]) == (await end(model.guard(), model), model.slept)


async def test_there_is_no_retry_without_the_time_for_it() -> None:
    late = Model([refused(429, (b"Retry-After", b"2")), None])
    assert ("rate_limited", 1) == (await end(late.guard(), late), late.calls)
    slow = Model([None, refused(503), None], takes=1.1)
    guard = slow.guard()
    await end(guard, slow)
    assert ("server_error", 2) == (await end(guard, slow), slow.calls)


async def test_at_most_a_fifth_of_the_calls_is_retried() -> None:
    model = Model([error for _ in range(100) for error in (None, None, None, refused(503))])
    guard = model.guard()
    for _ in range(300):
        await end(guard, model)
    assert model.counted["retried"] <= 61


async def test_a_failing_model_is_suspended_with_one_log_line(log: LogLines) -> None:
    model = Model([refused(503)])
    guard = model.guard()
    ends = [await end(guard, model) for _ in range(20)]
    assert ("server_error", "breaker_open", 5) == (ends[0], ends[-1], model.calls)
    (line,) = log
    assert ("breaker_open", "warning", "reranker", "qwen") == tuple(
        line[key] for key in ("event", "log_level", "service", "model")
    )
    assert "in its own words" in line["detail"]
    with pytest.raises(Withheld, match="in its own words"):
        await guard.call(model.attempt, SECONDS)


async def test_a_recovered_model_is_called_again_within_30_seconds(log: LogLines) -> None:
    """After half a minute of failures, at ten searches per second."""
    model = Model([refused(503)])
    guard = model.guard()
    while model.now < 30:
        await end(guard, model)
        model.now += 0.1
    model.ends = [None]
    while await end(guard, model) != "scores":
        model.now += 0.1
    assert model.now < 60
    assert "model_available" == log[-1]["event"]
    assert "scores" == await end(guard, model)


@pytest.mark.parametrize("rate", [0.1, 1, 10, 300])
@pytest.mark.parametrize("fault", [TimedOut("reranker"), refused(503), refused(429), Unreachable("reranker")])
async def test_after_a_bad_half_minute_every_search_is_scored_again_within_30_seconds(
    log: LogLines, rate: float, fault: UpstreamError
) -> None:
    """With breaker, latency and bulkhead together, as in a search."""
    model = Model([None], takes=0.2)
    guard = model.guard()

    async def search() -> str:
        if why := guard.reject_if_late(LIMIT):
            return why.reason
        reason = await end(guard, model, LIMIT)
        if reason == "timeout":
            guard.abandoned(LIMIT)
        return reason

    async def searches(until: float) -> list[str]:
        found = []
        while model.now < until:
            found.append(await search())
            model.now += 1 / rate
        return found

    await searches(60)
    model.ends, model.takes = [fault], 10.0 if isinstance(fault, TimedOut) else 0.01
    assert "scores" not in await searches(90)
    model.ends, model.takes = [None], 0.2
    await searches(120)
    assert {"scores"} == set(await searches(150))


async def test_a_misconfigured_model_is_logged_once_and_probed(log: LogLines) -> None:
    model = Model([refused(401)])
    guard = model.guard()
    ends = []
    for _ in range(100):
        ends.append(await end(guard, model))
        model.now += 1
    assert ({"misconfigured"}, 4) == (set(ends), model.calls)
    (line,) = log
    assert ("model_misconfigured", "error") == (line["event"], line["log_level"])
    assert "status 401: in its own words" in line["detail"]
    model.ends, model.now = [None], model.now + 30
    assert "scores" == await end(guard, model)
    assert "model_available" == log[-1]["event"]


async def test_a_rejected_request_does_not_open_the_breaker(log: LogLines) -> None:
    model = Model([refused(422)])
    guard = model.guard()
    assert {"refused"} == {await end(guard, model) for _ in range(50)}
    assert ([], {"refused": 50}, 50) == (log, model.counted, model.calls)


async def test_a_timeout_with_too_little_time_does_not_count_as_failure() -> None:
    """Otherwise a client with `budget_ms: 1` could open the breaker for everybody."""
    model = Model([TimedOut("reranker")], takes=10)
    guard = model.guard()
    for _ in range(50):
        await end(guard, model, seconds=0.1)
    assert guard.breaker.opened is None
    for _ in range(5):
        await end(guard, model)
    assert guard.breaker.opened is not None


async def test_a_slow_model_gets_its_usual_time_before_a_timeout_counts() -> None:
    model = Model([None, TimedOut("reranker")], takes=1.0)
    guard = model.guard()
    await end(guard, model)
    for _ in range(50):
        await end(guard, model, seconds=1.0)
    assert guard.breaker.opened is None


async def test_too_many_requests_lower_the_limit_of_concurrent_calls() -> None:
    model = Model([refused(429), None])
    guard = model.guard()
    await end(guard, model)
    assert guard.bulkhead.limit.value < 200


async def cancelled(guard: Guard, model: Model, after: float) -> None:
    """Call a model that hangs, and cancel the call."""
    called, never = asyncio.Event(), asyncio.Event()

    async def hangs(_: float) -> str:
        called.set()
        await never.wait()
        return ""

    call = asyncio.ensure_future(guard.call(hangs, SECONDS))
    await called.wait()
    model.now += after
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_call_cancelled_early_does_not_count_and_frees_its_slot() -> None:
    model = Model([None])
    guard = model.guard()
    for _ in range(50):
        await cancelled(guard, model, after=0.1)
    assert (0, None) == (guard.bulkhead.in_flight, guard.breaker.opened)


async def test_calls_that_end_with_the_budget_of_their_search_are_failures() -> None:
    """A budget below the model's timeout cancels every call to a model that stalls."""
    model = Model([None])
    guard = model.guard()
    for _ in range(5):
        await cancelled(guard, model, after=1.0)
    assert guard.breaker.opened is not None
    assert "no answer in 1 s" in guard.breaker.opened.detail


async def test_cancelled_calls_are_counted_while_running_or_waiting() -> None:
    model = Model([None])
    guard = Guards(1, lambda *labels: model.counted.update(labels[2:]), model.clocks).of("reranker", "qwen")
    async with guard.bulkhead.turn(SECONDS):
        waiting = asyncio.ensure_future(guard.call(model.attempt, SECONDS))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await cancelled(guard, model, after=0.1)
    assert ({CANCELLED: 2}, 0) == (model.counted, guard.bulkhead.waiting)


async def test_a_search_that_cannot_be_answered_in_time_makes_no_call_and_is_counted() -> None:
    """It neither waits for a slot in vain nor takes a place in the queue."""
    model = Model([None], takes=0.5)
    guard = Guards(1, lambda *labels: model.counted.update(labels[2:]), model.clocks).of("reranker", "qwen")
    await end(guard, model)
    async with guard.bulkhead.turn(SECONDS):
        assert (None, Busy) == (guard.reject_if_late(1.0), type(guard.reject_if_late(0.9)))
        assert guard.reject_if_late(0.9, is_new=False) is None  # a call for the same query is running
        assert 0 == guard.bulkhead.waiting
    assert guard.reject_if_late(0.9) is None
    for _ in range(CALLS_TO_JUDGE):
        guard.abandoned(0.9)
    assert SlowModel is type(guard.reject_if_late(0.9))
    assert {"ok": 1, "busy": 1, "slow_model": 1} == model.counted


async def test_a_probe_that_is_cancelled_lets_the_next_call_probe() -> None:
    model = Model([refused(401)])
    guard = model.guard()
    await end(guard, model)
    model.now += 30
    await cancelled(guard, model, after=0.1)
    model.ends = [None]
    assert "scores" == await end(guard, model)


def test_each_model_of_each_service_has_a_guard_of_its_own() -> None:
    guards = Guards(200)
    named = [("reranker", "a"), ("embedder", "a"), ("reranker", "b")]
    made = [guards.of(*name) for name in named]
    assert made == [guards.of(*name) for name in named]
    assert dict(zip(named, made, strict=True)) == dict(guards.all)


def test_the_number_of_guards_is_bounded() -> None:
    """The mapping of an index can name any embedding model."""
    guards = Guards(200)
    for number in range(1000):
        guards.of("embedder", f"model-{number}")
    assert 64 == len(guards.all)


async def test_reading_the_state_of_a_model_creates_no_guard() -> None:
    model = Model([None], takes=0.5)
    guards = Guards(2, clocks=model.clocks)
    live = GuardedModels(guards, "reranker")
    assert (0.0, None, ()) == (live.pressure("qwen"), live.usual_seconds("qwen"), guards.all)
    guard = guards.of("reranker", "qwen")
    await end(guard, model)
    async with guard.bulkhead.turn(SECONDS):
        assert (0.5, 0.5) == (live.pressure("qwen"), live.usual_seconds("qwen"))


async def test_background_calls_obey_the_breaker_but_do_not_open_it() -> None:
    model = Model([refused(500)])
    others = Guards(200, clocks=model.clocks)
    behind = Guards(2, lambda *labels: model.counted.update(labels[:1]), model.clocks, leading=others)
    guard, other = behind.of("reranker", "qwen"), others.of("reranker", "qwen")
    for _ in range(20):
        await end(guard, model)
    assert (True, None) == (guard.breaker.opened is not None, other.breaker.opened)
    assert (None, {"reranker_background"}) == (other.latency.usual, set(model.counted))
    other.suspend("the canary fails")
    fresh = Guards(2, clocks=model.clocks, leading=others).of("reranker", "qwen")
    calls = model.calls
    assert ("misconfigured", calls) == (await end(fresh, model), model.calls)
    other.resume()
    assert "server_error" == await end(fresh, model)
