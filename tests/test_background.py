"""Searches with the option `background`: slow, cheap calls that no other search waits for or suffers from."""

import asyncio
from typing import Any

import msgspec

from proxy.bounds import BACKGROUND_CALLS
from proxy.settings.config import Config
from proxy.upstream.breaker import BreakerRules
from tests.conftest import OTHER, QUERY, Log, StartProxy
from tests.fakes import Client, FakeModels, Fault, Message, Stream, refuses, waits_for

BACKGROUND = {"ext": {"rerank_proxy": {"background": True}}}


def is_flex(asked: Message) -> bool:
    return b'"service_tier":"flex"' in asked.content


def of_flex(fault: Fault) -> Fault:
    """Disturb only the calls on the cheap tier."""

    async def decide(stream: Stream, asked: Message) -> bytes | None:
        return await fault(stream, asked) if is_flex(asked) else None

    return decide


def with_background(settings: Config, **route: Any) -> Config:
    routes = tuple(msgspec.structs.replace(each, **route) for each in settings.routes)
    return msgspec.structs.replace(settings, steering=("background", "budget_ms"), routes=routes)


async def search(client: Client, body: Any) -> str:
    return (await client.search("/products/_search", body)).header("x-rerank")


async def another(client: Client) -> Client:
    """Open a second connection to the same proxy."""
    return await Client.to(client.writer.get_extra_info("peername")[1])


async def test_background_calls_use_the_cheap_tier_and_queue(
    start_proxy: StartProxy, settings: Config, models: FakeModels
) -> None:
    client = await start_proxy(with_background(settings))
    assert ["reranked", "reranked"] == [await search(client, QUERY | BACKGROUND), await search(client, QUERY)]
    assert ["embed", "rerank"] == [models.kind(asked) for asked in models.requests]
    assert [("flex", None)] * 2 == [
        (asked.json()["service_tier"], asked.json().get("fail_fast")) for asked in models.requests
    ]


async def test_the_background_option_is_not_allowed_by_default(start_proxy: StartProxy, settings: Config) -> None:
    client = await start_proxy(settings)
    assert "bypassed;reason=steering" == await search(client, QUERY | BACKGROUND)


async def test_a_background_search_has_more_time_than_its_routes_budget(
    start_proxy: StartProxy, settings: Config, models: FakeModels
) -> None:
    short = msgspec.structs.replace(settings.models, rerank_timeout_seconds=0.001, embed_timeout_seconds=0.001)
    client = await start_proxy(msgspec.structs.replace(with_background(settings, budget_ms=1), models=short))
    own = {"ext": {"rerank_proxy": {"background": True, "budget_ms": 1}}}
    assert "degraded" == (await search(client, OTHER | own)).partition(";")[0]
    assert "reranked" == await search(client, QUERY | BACKGROUND)


async def test_an_equal_search_does_not_wait_for_background_calls(
    start_proxy: StartProxy, settings: Config, models: FakeModels
) -> None:
    held = asyncio.Event()
    for kind in ("embed", "rerank"):
        models.faults[kind] = of_flex(waits_for(held))
    client = await start_proxy(with_background(settings))
    waiting = await another(client)
    behind = asyncio.ensure_future(search(waiting, QUERY | BACKGROUND))
    await models.until_asked("embed", 1)
    assert "reranked" == await search(client, QUERY)
    held.set()
    assert "reranked" == await behind
    waiting.close()


async def test_background_failures_do_not_open_the_breaker_of_searches(
    start_proxy: StartProxy, settings: Config, models: FakeModels
) -> None:
    models.faults["rerank"] = of_flex(refuses(500))
    client = await start_proxy(with_background(settings))
    for number in range(2 * BreakerRules().failures_min):
        body = {"query": {"match": {"title": f"laptop {number}"}}}
        await search(client, body | BACKGROUND)
        assert "reranked" == await search(client, {"query": {"match": {"title": f"stand {number}"}}})
    last = await search(client, QUERY | BACKGROUND)
    assert 'degraded;stages="rerank";reason=breaker_open' == last


async def test_background_calls_skip_a_model_whose_breaker_is_open(
    start_proxy: StartProxy, settings: Config, models: FakeModels
) -> None:
    models.faults["rerank"] = refuses(500)
    client = await start_proxy(with_background(settings))
    for number in range(2 * BreakerRules().failures_min):
        await search(client, {"query": {"match": {"title": f"laptop {number}"}}})
    asked = len(models.of("rerank"))
    assert 'degraded;stages="rerank";reason=breaker_open' == await search(client, QUERY | BACKGROUND)
    assert asked == len(models.of("rerank"))


async def test_few_background_calls_run_at_a_time(
    start_proxy: StartProxy, settings: Config, models: FakeModels
) -> None:
    held = asyncio.Event()
    models.faults["rerank"] = of_flex(waits_for(held))
    client = await start_proxy(with_background(settings))
    count = BACKGROUND_CALLS + 3
    clients = [await another(client) for _ in range(count)]
    bodies = [{"query": {"match": {"title": f"laptop {number}"}}} | BACKGROUND for number in range(count)]
    asking = [asyncio.ensure_future(search(*each)) for each in zip(clients, bodies, strict=True)]
    await models.until_asked("embed", count)
    await models.until_asked("rerank", BACKGROUND_CALLS)
    assert "reranked" == await search(client, QUERY)
    assert BACKGROUND_CALLS == sum(map(is_flex, models.of("rerank")))
    held.set()
    assert {"reranked"} == set(await asyncio.gather(*asking))
    for each in clients:
        each.close()


async def test_background_latency_is_not_counted_with_that_of_searches(
    start_proxy: StartProxy, settings: Config, log: Log
) -> None:
    client = await start_proxy(with_background(settings))
    await search(client, QUERY | BACKGROUND)
    await search(client, OTHER)
    assert [True, None] == [line.get("background") for line in log]


async def test_an_api_without_service_tiers_is_not_sent_one(
    start_proxy: StartProxy, settings: Config, models: FakeModels
) -> None:
    models.faults |= {"embed": refuses(400), "rerank": refuses(400)}
    other = msgspec.structs.replace(settings.models, embed_api="openai", rerank_api="cohere")
    client = await start_proxy(msgspec.structs.replace(with_background(settings), models=other))
    await search(client, QUERY | BACKGROUND)
    sent = b"".join(asked.content for asked in models.requests)
    assert (2, False, False) == (len(models.requests), b"service_tier" in sent, b"fail_fast" in sent)


async def test_the_background_option_has_no_effect_in_shadow_mode(
    start_proxy: StartProxy, settings: Config, models: FakeModels
) -> None:
    client = await start_proxy(with_background(settings, mode="shadow"))
    assert "bypassed;reason=shadow" == await search(client, QUERY | BACKGROUND)
    await models.until_asked("rerank", 1)
    assert [False, False] == [is_flex(asked) for asked in models.requests]
