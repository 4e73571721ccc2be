"""What an operator sees of the models' circuit breakers, and does to them."""

from contextlib import AsyncExitStack

import msgspec
import pytest

from proxy.app import listen_for, open_proxy
from proxy.app.breakers import ModelBreakers
from proxy.app.control import BreakerAction
from proxy.app.process import Process
from proxy.settings.config import Config
from proxy.upstream.breaker import Breaker, BreakerHold, BreakerState, Opened, Reason, Verdict
from proxy.upstream.guard import Guards
from tests.conftest import QUERY, TOKEN, Log
from tests.fakes import Client, FakeModels

A_DAY = 86_400.0


def failing(verdict: Verdict, times: int = 5) -> Breaker:
    breaker = Breaker()
    for _ in range(times):
        admission = breaker.admit(0.0)
        if not isinstance(admission, Opened):
            breaker.conclude(admission, verdict, 0.0)
    return breaker


@pytest.mark.parametrize(
    ("breaker", "now", "state"),
    [
        (Breaker(), 0.0, BreakerState.CLOSED),
        (failing(Verdict.FAILS), 0.0, BreakerState.OPEN),
        (failing(Verdict.FAILS), A_DAY, BreakerState.HALF_OPEN),
        (failing(Verdict.MISCONFIGURED, 1), 0.0, BreakerState.MISCONFIGURED),
    ],
)
def test_breakers_report_their_state(breaker: Breaker, now: float, state: BreakerState) -> None:
    assert state == breaker.state(now)


def test_a_breaker_forced_open_admits_no_call() -> None:
    breaker = Breaker()
    breaker.hold(BreakerHold.OPEN)
    for now in (0.0, A_DAY, 1000 * A_DAY):
        assert isinstance(breaker.admit(now), Opened)
        assert BreakerState.HELD_OPEN == breaker.state(now)
    assert Reason.BREAKER_OPEN == (breaker.opened or Opened(Reason.MISCONFIGURED, 0)).reason


@pytest.mark.parametrize("verdict", [Verdict.FAILS, Verdict.MISCONFIGURED])
def test_a_breaker_forced_closed_admits_every_call(verdict: Verdict) -> None:
    breaker = failing(verdict)
    breaker.hold(BreakerHold.CLOSED)
    for _ in range(20):
        admission = breaker.admit(0.0)
        assert not isinstance(admission, Opened)
        breaker.conclude(admission, verdict, 0.0)
    assert BreakerState.HELD_CLOSED == breaker.state(0.0)


@pytest.mark.parametrize("hold", BreakerHold)
def test_a_released_breaker_starts_closed(hold: BreakerHold) -> None:
    breaker = failing(Verdict.FAILS)
    breaker.hold(hold)
    breaker.hold(None)
    assert BreakerState.CLOSED == breaker.state(0.0)
    for _ in range(5):
        admission = breaker.admit(0.0)
        assert not isinstance(admission, Opened)
        breaker.conclude(admission, Verdict.FAILS, 0.0)
    assert BreakerState.OPEN == breaker.state(0.0)


def test_a_call_begun_before_it_was_forced_does_not_count_afterwards() -> None:
    breaker = Breaker()
    begun = breaker.admit(0.0)
    breaker.hold(BreakerHold.CLOSED)
    breaker.hold(None)
    assert not isinstance(begun, Opened)
    breaker.conclude(begun, Verdict.MISCONFIGURED, 0.0)
    assert BreakerState.CLOSED == breaker.state(0.0)


def test_an_unknown_breaker_is_an_error() -> None:
    guards = Guards(1)
    guards.of("reranker", "m")
    breakers = ModelBreakers(lambda: guards)
    assert {"reranker m": "closed"} == breakers.states()
    with pytest.raises(KeyError):
        breakers.control("reranker", BreakerAction.OPEN)


async def test_searches_continue_without_a_model_forced_open(settings: Config, models: FakeModels, log: Log) -> None:
    """Until an operator resets it; a reload with the same models keeps the breaker."""
    async with AsyncExitStack() as stack:
        proxy = await open_proxy(settings, TOKEN, {}, stack)
        process = Process(proxy, lambda: msgspec.structs.replace(settings, steering=()), {"DEEPINFRA_TOKEN": TOKEN})
        client = await Client.to((await listen_for(proxy, stack)).port)
        stack.callback(client.close)

        async def outcome(text: str) -> str:
            body = {"query": {"match": {"title": text}}}
            return (await client.search("/products/_search", body)).header("x-rerank")

        assert "reranked" == (await client.search("/products/_search", QUERY)).header("x-rerank")
        (name,) = (name for name in process.breakers.states() if name.startswith("reranker "))
        process.breakers.control(name, BreakerAction.OPEN)
        asked = len(models.of("rerank"))
        assert 'degraded;stages="rerank";reason=breaker_open' == await outcome("sleeve")
        await process.reload()
        assert "held_open" == process.breakers.states()[name]
        assert 'degraded;stages="rerank";reason=breaker_open' == await outcome("stand")
        assert asked == len(models.of("rerank"))
        assert f'rerank_proxy_breaker_open{{breaker="{name}"}} 1.0'.encode() in process.metrics()
        assert "held_open" == process.verdicts()["models"][name]
        process.breakers.control(name, BreakerAction.AUTO)
        assert "reranked" == await outcome("editing")
