"""A model that no longer ranks known pairs is called no more until it does; other scores than earlier are a warning."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.app import listen_for, open_proxy
from proxy.app.process import Process
from proxy.bounds import CANARY_FILE_BYTES
from proxy.errors import CapReached, EqualScores, Unreachable, UpstreamError
from proxy.ranking.planning import Relevance
from proxy.ranking.stages import Purse
from proxy.settings.config import Config
from proxy.upstream.breaker import BreakerHold
from proxy.upstream.canary import (
    INSTRUCTION,
    KNOWN,
    PAUSES_S,
    Canary,
    CanaryReport,
    CanaryScores,
    CanaryVerdict,
    judged,
)
from proxy.upstream.guard import Guards
from proxy.upstream.state_files import locked, replace_state
from tests.canaries import known_scores
from tests.conftest import QUERY, TOKEN, Log
from tests.fakes import Client, FakeModels, hangs, refuses

MODEL = "m"


@dataclass
class Model:
    """A reranker that scores as told: relevant passages, then the others, or fails."""

    scores: tuple[float, float] | UpstreamError = (0.9, 0.1)
    asked: int = 0

    async def warm_up(self) -> None: ...

    async def score(
        self,
        query: str,
        passages: Any,
        *,
        instruction: str,
        model: str,
        is_typical: bool,
        purse: Purse,
    ) -> Relevance:
        assert not is_typical, "a window of a search takes longer"
        self.asked += 1
        if isinstance(self.scores, UpstreamError):
            return Relevance((), error=self.scores)
        known = known_scores(*self.scores)
        return Relevance(tuple(known[passage] for passage in passages))


def of_all(relevant: float, irrelevant: float) -> list[list[float]]:
    known = known_scores(relevant, irrelevant)
    return [[known[passage] for passage in each.passages] for each in KNOWN]


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        ((0.9, 0.1), CanaryVerdict.OK),
        ((0.1, 0.9), CanaryVerdict.WRONG),
        ((1.0, 1.0), CanaryVerdict.WRONG),
        ((0.0, 0.0), CanaryVerdict.WRONG),
        ((0.9995, 0.9994), CanaryVerdict.WRONG),
        ((3.5, -7.0), CanaryVerdict.OK),
    ],
)
def test_inverted_and_degenerate_pairs_are_wrong(scores: tuple[float, float], verdict: CanaryVerdict) -> None:
    assert verdict is judged(of_all(*scores)).verdict


@pytest.mark.parametrize("query", range(len(KNOWN)))
def test_each_pair_of_each_query_counts(query: int) -> None:
    for place, _ in enumerate(KNOWN[query].passages):
        scores = of_all(0.9, 0.1)
        scores[query][place] = 0.5 if scores[query][place] == 0.9 else 0.8
        assert CanaryVerdict.OK is judged(scores).verdict
        scores[query][place] = 0.05 if KNOWN[query].passages[place] in KNOWN[query].relevant else 0.95
        report = judged(scores)
        assert (CanaryVerdict.WRONG, True) == (report.verdict, KNOWN[query].query in report.detail)


def test_scores_by_position_are_wrong() -> None:
    ways = [[1 - place / 10 for place, _ in enumerate(known.passages)] for known in KNOWN]
    for scores in (ways, [list(reversed(each)) for each in ways]):
        assert CanaryVerdict.WRONG is judged(scores).verdict


@pytest.mark.parametrize(
    ("now", "verdict", "drift"),
    [(0.9, CanaryVerdict.OK, 0.0), (0.92, CanaryVerdict.OK, 0.02), (0.84, CanaryVerdict.DRIFTED, 0.06)],
)
def test_scores_that_change_more_than_usual_have_drifted(now: float, verdict: CanaryVerdict, drift: float) -> None:
    before = [score for of_query in of_all(0.9, 0.1) for score in of_query]
    report = judged(of_all(now, 0.1), before)
    assert verdict is report.verdict
    assert pytest.approx(drift) == report.drift


def test_a_canary_costs_next_to_nothing() -> None:
    """Counted with the model's prompt, one character per token, and the price of the largest reranker."""
    prompt, price = 70, 0.05 / 1e6
    words = (known.query + passage + INSTRUCTION for known in KNOWN for passage in known.passages)
    assert sum(prompt + len(each) / 2 for each in words) * price < 1e-4


# When it runs


@dataclass
class Place:
    """A canary and its model."""

    model: Model = field(default_factory=Model)
    unguarded: Model = field(default_factory=Model)
    guards: Guards = field(default_factory=lambda: Guards(200))
    slept: list[float] = field(default_factory=list)
    woken: asyncio.Queue[None] = field(default_factory=asyncio.Queue)
    sleeping: asyncio.Queue[float] = field(default_factory=asyncio.Queue)

    def canary(self, scores: CanaryScores | None = None) -> Canary:
        return Canary(self.model, self.unguarded, self.guards, scores or CanaryScores(), self._sleep)

    async def _sleep(self, seconds: float) -> None:
        await self.sleeping.put(seconds)
        await self.woken.get()

    async def failed(self) -> float:
        """Wait for a canary to fail; return its pause."""
        return await self.sleeping.get()

    @property
    def opened(self) -> str | None:
        opened = self.guards.of("reranker", MODEL).breaker.opened
        return opened.reason if opened else None


async def done(canary: Canary) -> CanaryReport:
    """Wait for the canaries to end."""
    await asyncio.gather(*(watched.task for watched in canary._watched.values()))  # noqa: SLF001
    return canary.reports[MODEL]


async def test_a_model_that_ranks_correctly_is_called_once(log: Log) -> None:
    place = Place()
    canary = place.canary()
    canary.watch([MODEL])
    assert {MODEL: CanaryReport()} == canary.reports
    assert CanaryReport(CanaryVerdict.OK) == await done(canary)
    canary.watch([MODEL, MODEL])
    await done(canary)
    assert (len(KNOWN), 0, None, []) == (place.model.asked, place.unguarded.asked, place.opened, log)


@pytest.mark.parametrize("scores", [(0.1, 0.9), EqualScores("reranker", "the score 0.5 for each of 4 passages")])
async def test_a_model_that_does_not_rank_is_suspended_until_it_does(log: Log, scores: Any) -> None:
    place = Place(Model(scores), Model(scores))
    canary = place.canary()
    canary.watch([MODEL])
    pauses = [await place.failed()]
    assert ("model_misconfigured", "error", MODEL) == (log[0]["event"], log[0]["log_level"], log[0]["model"])
    assert "known pairs" in log[0]["detail"]
    guard = place.guards.of("reranker", MODEL)
    assert "misconfigured" == place.opened
    for _ in range(len(PAUSES_S)):
        await place.woken.put(None)
        pauses.append(await place.failed())
    assert [*PAUSES_S, PAUSES_S[-1]] == pauses
    assert guard.breaker.refusal(1e12) is not None  # no search is the probe
    place.unguarded.scores = (0.9, 0.1)
    await place.woken.put(None)
    assert CanaryVerdict.OK is (await done(canary)).verdict
    assert ["model_misconfigured", "model_available"] == [line["event"] for line in log]
    assert guard.breaker.opened is None


async def test_an_unreachable_model_is_not_judged_and_called_again(log: Log) -> None:
    place = Place(Model(Unreachable("reranker", "nowhere")))
    canary = place.canary()
    canary.watch([MODEL])
    assert PAUSES_S[0] == await place.failed()
    report = canary.reports[MODEL]
    assert (CanaryVerdict.UNKNOWN, "reranker: nowhere", None) == (report.verdict, report.detail, place.opened)
    place.model.scores = (0.9, 0.1)
    await place.woken.put(None)
    assert CanaryVerdict.OK is (await done(canary)).verdict


async def test_unused_models_are_no_longer_called() -> None:
    place = Place(Model((0.1, 0.9)), Model((0.1, 0.9)))
    canary = place.canary()
    canary.watch([MODEL])
    await place.failed()
    canary.watch([])
    assert {} == canary.reports
    canary.watch([MODEL])
    await place.failed()
    await canary.close()


@pytest.mark.parametrize("hold", BreakerHold)
async def test_a_breaker_forced_by_an_operator_stays_forced(hold: BreakerHold) -> None:
    place = Place(Model((0.1, 0.9)))
    canary = place.canary()
    breaker = place.guards.of("reranker", MODEL).breaker
    breaker.hold(hold)
    canary.watch([MODEL])
    await place.failed()
    assert ("breaker_open" if hold is BreakerHold.OPEN else None) == place.opened
    breaker.hold(None)
    assert "misconfigured" == place.opened
    await canary.close()


# What is remembered


async def test_a_drift_is_a_warning_and_the_first_scores_stay(log: Log, tmp_path: Path) -> None:
    file = str(tmp_path / "canary.json")
    reports = []
    for scores in ((0.9, 0.1), (0.84, 0.1), (0.84, 0.1)):
        place = Place(Model(scores))
        canary = place.canary(CanaryScores(file))
        canary.watch([MODEL])
        reports.append(await done(canary))
        assert place.opened is None
    assert ["ok", "drifted", "drifted"] == [report.verdict for report in reports]
    assert pytest.approx(0.06) == reports[-1].drift
    assert [("canary_drift", MODEL, 0.06)] * 2 == [(line["event"], line["model"], line["drift"]) for line in log]


async def test_without_a_file_scores_are_kept_in_memory(log: Log) -> None:
    known: dict[str, tuple[float, ...]] = {}
    drifts = []
    for scores in ((0.9, 0.1), (0.9, 0.2)):
        canary = Place(Model(scores)).canary(CanaryScores(None, known))
        canary.watch([MODEL])
        drifts.append((await done(canary)).drift)
    assert [None, pytest.approx(0.1)] == drifts


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"m": ["x"]}', b" " * (CANARY_FILE_BYTES + 1)])
async def test_an_unreadable_file_is_not_replaced(log: Log, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "canary.json"
    file.write_bytes(content)
    canary = Place().canary(CanaryScores(str(file)))
    canary.watch([MODEL])
    assert CanaryReport(CanaryVerdict.OK) == await done(canary)
    assert (["canary_file_unusable"], content) == ([line["event"] for line in log], file.read_bytes())


async def test_two_processes_do_not_replace_each_others_scores(tmp_path: Path) -> None:
    file = tmp_path / "canary.json"
    with locked(file):  # as another process that is adding a model
        adding = asyncio.ensure_future(CanaryScores(str(file)).remember_first("m1", (0.5,)))
        assert not (await asyncio.wait({adding}, timeout=0.2))[0]
        replace_state(file, b'{"m2": [0.5]}')
    assert await adding is None
    assert ["m1", "m2"] == sorted(name.split()[0] for name in msgspec.json.decode(file.read_bytes()))


async def test_the_file_has_scores_by_model_and_no_text(tmp_path: Path) -> None:
    file = tmp_path / "canary.json"
    scores, models = CanaryScores(str(file)), [f"m{number}" for number in range(20)]
    assert {None} == set(await asyncio.gather(*(scores.remember_first(model, (0.5, 0.25)) for model in models)))
    held = msgspec.json.decode(file.read_bytes())
    assert (models, [[0.5, 0.25]] * 20) == ([name.split()[0] for name in held], list(held.values()))


# In the process


@pytest.fixture
async def served(settings: Config, log: Log) -> AsyncIterator[tuple[Process, Client]]:
    async with AsyncExitStack() as stack:
        proxy = await open_proxy(settings, TOKEN, {}, stack)
        process = Process(proxy, lambda: settings, {"DEEPINFRA_TOKEN": TOKEN})
        process.serves_on(await listen_for(proxy, stack))
        client = await Client.to(process._listener.port if process._listener else 0)  # noqa: SLF001
        stack.callback(client.close)
        yield process, client


@pytest.fixture
def settings(settings: Config) -> Config:
    return msgspec.structs.replace(settings, models=msgspec.structs.replace(settings.models, canary=True))


async def until_done(process: Process) -> None:
    canary = process._proxy.generation.models.canary  # noqa: SLF001
    await asyncio.gather(*(watched.task for watched in canary._watched.values()))  # noqa: SLF001


async def test_searches_skip_a_model_that_does_not_rank(
    served: tuple[Process, Client], models: FakeModels, log: Log
) -> None:
    process, client = served
    models.scores |= known_scores(0.1, 0.9)
    process._proxy.generation.watch_models()  # noqa: SLF001
    while (await client.search("/products/_search", QUERY)).header("x-rerank") == "reranked":
        pass  # it runs beside the searches
    answered = await client.search("/products/_search", QUERY)
    assert 'degraded;stages="rerank";reason=misconfigured' == answered.header("x-rerank")
    verdicts = msgspec.to_builtins(process.verdicts())
    (canary,) = verdicts["canary"].values()
    assert ("wrong", True) == (canary["verdict"], "known query" not in canary["detail"] and bool(canary["detail"]))
    assert ["misconfigured"] == [state for name, state in verdicts["models"].items() if name.startswith("reranker")]
    assert b'rerank_proxy_canary_ok{model="Qwen/Qwen3-Reranker-4B"} 0.0' in process.metrics()
    assert TOKEN not in repr(log)


async def test_canary_calls_are_counted_as_spend(served: tuple[Process, Client], models: FakeModels) -> None:
    process, _ = served
    models.scores |= known_scores(0.9, 0.1)
    process._proxy.generation.watch_models()  # noqa: SLF001
    await until_done(process)
    days = process._proxy.generation.front.searching.spending.costs().days  # noqa: SLF001
    assert [("_canary", "Qwen/Qwen3-Reranker-4B", len(KNOWN))] == [(day.route, day.model, day.calls) for day in days]


async def test_a_reached_cap_does_not_suspend_the_model() -> None:
    place = Place(Model(CapReached("reranker", "a cap")))
    canary = place.canary()
    canary.watch([MODEL])
    await place.failed()
    assert (CanaryVerdict.UNKNOWN, None) == (canary.reports[MODEL].verdict, place.opened)
    await canary.close()


async def test_a_reload_with_the_same_models_calls_none(served: tuple[Process, Client], models: FakeModels) -> None:
    process, _ = served
    models.scores |= known_scores(0.9, 0.1)
    process._proxy.generation.watch_models()  # noqa: SLF001
    await until_done(process)
    assert "" == (await process.reload()).error
    await until_done(process)
    assert len(KNOWN) == len(models.of("rerank"))
    changed = process._proxy.generation.config  # noqa: SLF001
    other = msgspec.structs.replace(changed.models, rerank_timeout_seconds=9.0)
    process._read = lambda: msgspec.structs.replace(changed, models=other)  # noqa: SLF001
    models.scores |= known_scores(0.9, 0.15)
    await process.reload()
    await until_done(process)
    assert 2 * len(KNOWN) == len(models.of("rerank"))
    assert b'rerank_proxy_canary_drift{model="Qwen/Qwen3-Reranker-4B"} 0.04' in process.metrics()


@pytest.mark.parametrize("changes", [{"models": {"canary": False}}, {"routes": {"mode": "off"}}])
async def test_the_canary_can_be_disabled(settings: Config, models: FakeModels, changes: Any) -> None:
    of_models = msgspec.structs.replace(settings.models, **changes.get("models", {}))
    (route,) = settings.routes
    routes = (msgspec.structs.replace(route, **changes.get("routes", {})),)
    async with AsyncExitStack() as stack:
        proxy = await open_proxy(msgspec.structs.replace(settings, models=of_models, routes=routes), TOKEN, {}, stack)
        proxy.generation.watch_models()
        assert {} == proxy.generation.models.canary.reports


@pytest.mark.parametrize("fault", [hangs, refuses(401)])
async def test_the_canary_delays_neither_start_nor_stop(
    settings: Config, models: FakeModels, log: Log, fault: Any
) -> None:
    models.faults["rerank"] = fault
    async with AsyncExitStack() as stack:
        proxy = await open_proxy(settings, TOKEN, {}, stack)
        proxy.generation.watch_models()
        await models.until_asked("rerank")
