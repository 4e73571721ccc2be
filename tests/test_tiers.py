"""With `tier: auto` a route has a larger reranker while it is quiet, and a faster one under load."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from proxy.ranking.load import CALM_S, RATE_S, AutoTier
from proxy.settings.config import Config
from proxy.settings.profiles import TIERS
from proxy.upstream.latency import CALLS_TO_JUDGE
from tests.conftest import QUERY, Log, StartProxy
from tests.fakes import Client, FakeEngine, FakeModels, Message, Stream, answer, hangs, ids, refuses

LARGE, FAST = TIERS["balanced"].rerank, TIERS["fast"].rerank
LIMIT = 100.0


def run(tier: AutoTier, rate: float, since: float, seconds: float) -> list[bool]:
    """Search at an even rate; return of each search whether it calls the faster model."""
    found = []
    for number in range(int(rate * seconds)):
        tier.note(since + number / rate)
        found.append(tier.is_fast)
    return found


@pytest.mark.parametrize(("rate", "fast"), [(1, False), (99, False), (110, True), (2000, True)])
def test_above_a_rate_the_faster_model_is_called(rate: float, fast: bool) -> None:  # noqa: FBT001
    assert fast is run(AutoTier(LIMIT), rate, 0.0, 3 * RATE_S)[-1]


def test_a_short_burst_does_not_change_the_model() -> None:
    assert not any(run(AutoTier(LIMIT), 400, 0.0, 1.0))


def test_the_larger_model_returns_after_a_quiet_period() -> None:
    tier = AutoTier(LIMIT)
    run(tier, 200, 0.0, 10)
    found = run(tier, 10, 10.0, 60)
    change = found.index(False)
    assert CALM_S <= change / 10 <= CALM_S + RATE_S + 1
    assert not any(found[change:])


@pytest.mark.parametrize("rate", [81, 99])
def test_a_rate_near_the_limit_changes_nothing(rate: float) -> None:
    """Otherwise equal searches would alternate between two orders."""
    quiet, busy = AutoTier(LIMIT), AutoTier(LIMIT)
    run(busy, 200, 0.0, 10)
    assert not any(run(quiet, rate, 10.0, 120))
    assert all(run(busy, rate, 10.0, 120))


def test_a_change_is_logged_once() -> None:
    tier = AutoTier(LIMIT)
    assert 1 == sum(tier.note(number / 200) for number in range(4000))
    assert 1 == sum(tier.note(20 + number) for number in range(100))
    assert not AutoTier(LIMIT).note(0.0)


def test_only_the_last_seconds_count() -> None:
    tier = AutoTier(LIMIT)
    run(tier, 5, 0.0, 1000)
    assert len(tier._seconds) <= RATE_S  # noqa: SLF001  what it takes of memory


# In the proxy


@pytest.fixture
def settings(settings: Config) -> Config:
    """A route that chooses, without kNN; its models' own order counts alone."""
    return with_route(settings, tier="auto", semantic=None, blend=0)


def with_route(settings: Config, **changes: Any) -> Config:
    return msgspec.structs.replace(settings, routes=(msgspec.structs.replace(settings.routes[0], **changes),))


def models_of(models: FakeModels) -> list[str]:
    return [asked.path.removeprefix("/v1/inference/") for asked in models.of("rerank")]


async def search(client: Client, start: int = 0, **fields: str) -> Message:
    return await client.search("/products/_search", {**QUERY, "from": start, "size": 1}, **fields)


async def test_a_quiet_route_uses_and_reports_the_larger_model(client: Client, models: FakeModels, log: Log) -> None:
    answered = await search(client, x_rerank_explain="on")
    (line,) = log
    explained = answered.json()["hits"]["hits"][0]["_rerank"]
    assert ([LARGE], "balanced", "balanced") == (models_of(models), line["tier"], explained["tier"])


async def test_a_busy_route_uses_and_reports_the_faster_model(
    start_proxy: StartProxy, settings: Config, models: FakeModels, log: Log
) -> None:
    client = await start_proxy(with_route(settings, fast_above_rate=1 / RATE_S))
    await search(client)
    answered = await search(client, x_rerank_explain="on")
    assert ([LARGE, FAST], "fast") == (models_of(models), answered.json()["hits"]["hits"][0]["_rerank"]["tier"])
    assert ["search", "tier_changed", "search"] == [line["event"] for line in log]
    assert ("fast", "products*") == (log[1]["tier"], log[1]["route"])
    assert ["balanced", "fast"] == [line["tier"] for line in log if line["event"] == "search"]


async def test_pages_of_a_search_use_one_model(
    start_proxy: StartProxy, settings: Config, models: FakeModels, log: Log
) -> None:
    """Even if the route has changed to the other model, whose order is the reverse."""
    turned = {LARGE: 1, FAST: -1}

    async def scores(stream: object, asked: Message) -> bytes:
        sign = turned[asked.path.removeprefix("/v1/inference/")]
        said = {"scores": [0.5 + sign * number / 10 for number, _ in enumerate(asked.json()["documents"])]}
        return answer(body=msgspec.json.encode(said))

    models.faults["rerank"] = scores
    client = await start_proxy(with_route(settings, fast_above_rate=2 / RATE_S))
    found = [ids(await search(client, start)) for start in range(3)]
    assert ([LARGE], [["c"], ["b"], ["a"]]) == (models_of(models), found)
    await search(client)
    assert [LARGE, FAST] == models_of(models)


async def test_a_ranking_of_the_other_model_is_not_reused(
    start_proxy: StartProxy, settings: Config, models: FakeModels, log: Log
) -> None:
    """Even if the engine returns the same hits."""
    client = await start_proxy(with_route(settings, fast_above_rate=3 / RATE_S))
    for _ in range(4):
        await search(client)
    assert [LARGE, FAST] == models_of(models)
    assert "fast" == log[-1]["tier"]


async def test_the_faster_model_is_used_if_the_budget_is_too_short(
    start_proxy: StartProxy, settings: Config, models: FakeModels, log: Log
) -> None:
    async def hangs_if_large(stream: Stream, asked: Message) -> None:
        if asked.path.endswith(LARGE):
            await hangs(stream, asked)

    models.faults["rerank"] = hangs_if_large
    impatient = msgspec.structs.replace(settings.models, rerank_timeout_seconds=0.2)
    client = await start_proxy(msgspec.structs.replace(settings, models=impatient))
    headers = [(await search(client)).header("x-rerank") for _ in range(CALLS_TO_JUDGE + 1)]
    assert [*['degraded;stages="rerank";reason=timeout'] * CALLS_TO_JUDGE, "reranked"] == headers
    assert [*[LARGE] * CALLS_TO_JUDGE, FAST] == models_of(models)
    assert "fast" == log[-1]["tier"]


async def test_cached_scores_do_not_prevent_using_the_faster_model(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, models: FakeModels
) -> None:
    """Otherwise the passages without a cached score would keep the engine's order."""

    async def hangs_if_large(stream: Stream, asked: Message) -> None:
        if asked.path.endswith(LARGE):
            await hangs(stream, asked)

    impatient = msgspec.structs.replace(settings.models, rerank_timeout_seconds=0.05)
    client = await start_proxy(msgspec.structs.replace(settings, models=impatient))
    assert "reranked" == (await search(client)).header("x-rerank")
    first, *others = sorted(engine.documents, key=lambda document: -(document.lexical or 0))
    engine.documents = [first, *(replace(each, title=f"{each.title} (new)") for each in others)]
    models.faults["rerank"] = hangs_if_large
    headers = [(await search(client)).header("x-rerank") for _ in range(CALLS_TO_JUDGE + 1)]
    assert ("reranked", FAST) == (headers[-1], models_of(models)[-1])


async def test_a_failed_call_is_not_repeated_with_the_faster_model(
    client: Client, models: FakeModels, log: Log
) -> None:
    models.faults["rerank"] = refuses(422)
    assert 'degraded;stages="rerank";reason=refused' == (await search(client)).header("x-rerank")
    assert [LARGE] == models_of(models)
