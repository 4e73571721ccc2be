"""Two `rerank-proxy serve` processes with one redis-server serve each other's pages, and go on without it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.conftest import QUERY
from tests.fakes import Client, FakeEngine, FakeModels, Message, ids, refuses
from tests.integration.commands import Running, running
from tests.redis_server import RedisServer, needs_redis, redis_server

pytestmark = needs_redis

KEY = {"RERANK_PROXY_CACHE_KEY": "a-key-that-both-proxies-have"}
ROUTE = {
    "index": "products*",
    "passage": ["title"],
    "semantic": {"field": "embedding", "dimensions": 3},
    "rank_window_size": 10,
    "budget_ms": 60_000,
}


@dataclass
class Member:
    """One of the proxies: its process, and clients of both ports."""

    command: Running
    client: Client
    admin: Client
    port: int

    async def page(self, start: int, size: int = 2, **fields: str) -> Message:
        return await self.client.search("/products/_search", QUERY | {"from": start, "size": size}, **fields)

    async def has_logged(self, event: str) -> None:
        if not any(event in line for line in self.command.lines):
            await self.command.until(event)

    async def ready(self) -> Any:
        await self.admin.send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return (await self.admin.answer("GET")).json()


Start = Callable[..., AbstractAsyncContextManager[Member]]


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def start(tmp_path: Path, engine: FakeEngine, models: FakeModels, redis: RedisServer) -> Start:
    """Start a proxy that shares the redis-server."""
    numbers = count()

    @asynccontextmanager
    async def started(timeout_ms: int = 30_000, scores_mb: int = 0, **sections: Any) -> AsyncIterator[Member]:
        settings = {
            "listen": {"port": 0},
            "admin": {"port": 0},
            "engine": {"url": engine.url, "resolve_timeout_seconds": 30},
            "models": {"url": models.url, "canary": False},
            "cache": {
                "redis_url": f"redis://127.0.0.1:{redis.port}",
                "redis_timeout_ms": timeout_ms,
                "scores_mb": scores_mb,  # none, so that a ranking that is made anew needs its model
            },
            "routes": [ROUTE],
        }
        file = tmp_path / f"{next(numbers)}.yaml"
        file.write_bytes(msgspec.yaml.encode(settings | sections))
        async with AsyncExitStack() as stack:
            command = await stack.enter_async_context(running("serve", "-c", str(file), environment=KEY))
            ports = json.loads(await command.until("listening"))
            numbered = [urlsplit(ports[name]).port or 0 for name in ("address", "admin")]
            clients = [await Client.to(port) for port in numbered]
            for client in clients:
                stack.callback(client.close)
            member = Member(command, clients[0], clients[1], numbered[0])
            await member.has_logged("redis_reachable")
            yield member

    return started


async def test_the_next_page_comes_from_another_proxy_without_a_model_call(start: Start, models: FakeModels) -> None:
    async with start() as one, start() as other:
        first = await one.page(0)
        asked = len(models.requests)
        second = await other.page(2)
        assert ("reranked", "reranked") == (first.header("x-rerank"), second.header("x-rerank"))
        assert ["d", "b", "c", "a"] == ids(first) + ids(second)
        assert asked == len(models.requests)


async def test_proxies_share_query_vectors(start: Start, models: FakeModels) -> None:
    async with start() as one, start() as other:
        await one.page(0)
        await other.page(0)
        assert 1 == len(models.of("embed"))


async def test_proxies_share_scores(start: Start, models: FakeModels) -> None:
    """Including those that another proxy has added since."""
    async with start(scores_mb=1) as one, start(scores_mb=1) as other:
        await one.page(0)
        await other.page(0)
        assert 1 == len(models.of("rerank"))
        narrower = QUERY | {"post_filter": {"ids": {"values": ["a", "b"]}}}
        await other.client.search("/products/_search", narrower)
        asked = len(models.requests)
        await one.client.search("/products/_search", narrower)
        assert asked == len(models.requests)


async def test_proxies_do_not_share_rankings_between_callers(start: Start, models: FakeModels) -> None:
    """Nor with a proxy whose settings result in another order."""
    async with start() as one, start(routes=[ROUTE | {"rank_window_size": 9}]) as other:
        await one.page(0, authorization="Basic b25l")
        models.faults["rerank"] = refuses(400)
        theirs = [await one.page(2, authorization="Basic b3RoZXI="), await other.page(2, authorization="Basic b25l")]
        mine = await one.page(2, authorization="Basic b25l")
        assert ["degraded", "degraded", "reranked"] == [
            page.header("x-rerank").partition(";")[0] for page in (*theirs, mine)
        ]


async def test_a_complete_ranking_is_not_replaced_by_another_proxys_degraded_one(
    start: Start, models: FakeModels
) -> None:
    async with start() as one, start() as other:
        whole = await one.page(0, 4)
        models.faults["rerank"] = refuses(400)
        degraded = await other.page(0, 4)
        assert degraded.header("x-rerank").startswith("degraded")
        assert ids(whole) == ids(degraded)
        assert ids(whole)[2:] == ids(await other.page(2)) == ids(await one.page(2))


@pytest.mark.parametrize("kind", ["killed", "hanging"])
async def test_proxies_work_separately_while_redis_is_unreachable(
    start: Start, models: FakeModels, redis: RedisServer, kind: str
) -> None:
    async with start(timeout_ms=500) as one, start(timeout_ms=500) as other:
        assert "ok" == (await one.ready())["redis"]
        whole = await one.page(0, 4)
        await redis.kill() if kind == "killed" else redis.pause()
        assert ids(whole)[2:] == ids(await one.page(2))
        asked = len(models.requests)
        alone = await other.page(2)
        assert ("reranked", ids(whole)[2:]) == (alone.header("x-rerank"), ids(alone))
        assert asked < len(models.requests)
        await other.has_logged("redis_unreachable")
        assert "unreachable" == (await other.ready())["redis"]
        await redis.start() if kind == "killed" else redis.resume()
        for member in (one, other):
            while (await member.ready())["redis"] != "ok":
                await member.page(2)
        models.requests.clear()
        assert ids(whole) == ids(await other.page(0, 4))
        asked = len(models.requests)
        assert ids(whole)[2:] == ids(await one.page(2))
        assert asked == len(models.requests)


@pytest.mark.parametrize("kind", ["killed", "hanging"])
async def test_no_search_fails_while_redis_is_lost_under_load(
    start: Start, engine: FakeEngine, redis: RedisServer, kind: str
) -> None:
    async with start(timeout_ms=200) as one, AsyncExitStack() as stack:
        whole = await one.page(0, 4)
        clients = [await Client.to(one.port) for _ in range(8)]
        for client in clients:
            stack.callback(client.close)

        async def turn_pages(client: Client) -> list[tuple[str, list[str]]]:
            pages = []
            for number in range(10):
                body = QUERY | {"from": 2 * (number % 2), "size": 2}
                found = await client.search("/products/_search", body)
                pages.append((found.header("x-rerank"), ids(found)))
            return pages

        loading = [asyncio.ensure_future(turn_pages(client)) for client in clients]
        await engine.until_asked("lexical", 20)
        await redis.kill() if kind == "killed" else redis.pause()
        expected = [("reranked", ids(whole)[:2]), ("reranked", ids(whole)[2:])] * 5
        assert [expected] * len(clients) == await asyncio.gather(*loading)
        await one.has_logged("redis_unreachable")
