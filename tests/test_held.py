"""Responses of the engine are bounded together, and released with their requests."""

import asyncio
from contextlib import AsyncExitStack

from proxy.app import Proxy, open_proxy
from proxy.http1.listener import serve
from proxy.settings.config import Config
from proxy.upstream.held import Held, HeldForRequest
from tests.conftest import QUERY, TOKEN, Log
from tests.fakes import Client, Document, FakeEngine, ids, request, waits_for

LONG = 50_000


async def opened(settings: Config, stack: AsyncExitStack, limit: int) -> tuple[Proxy, Client, Client]:
    proxy = await open_proxy(settings, TOKEN, {}, stack)
    proxy._held.limit = limit  # noqa: SLF001
    listener = await serve(proxy.handle, proxy.upstream, "127.0.0.1", 0, conclude=proxy.telemetry.conclude)
    stack.push_async_callback(listener.close, 5)
    clients = await Client.to(listener.port), await Client.to(listener.port)
    for client in clients:
        stack.callback(client.close)
    return proxy, *clients


async def test_a_response_that_is_too_large_beside_those_of_other_searches_is_passed_on(
    settings: Config, engine: FakeEngine, log: Log
) -> None:
    engine.documents.append(Document("l", "Laptop", lexical=9.0, more={"long": "x" * LONG}))
    wait = asyncio.Event()
    engine.faults["passages"] = engine.faults["render"] = waits_for(wait)
    async with AsyncExitStack() as stack:
        proxy, one, other = await opened(settings, stack, limit=LONG * 3 // 2)
        first = asyncio.ensure_future(one.search("/products/_search", QUERY))
        await engine.until_asked("render")
        second = await other.search("/products/_search", QUERY)
        assert (200, "bypassed;reason=too_large", "l") == (second.status, second.header("x-rerank"), ids(second)[0])
        wait.set()
        assert "reranked" == (await first).header("x-rerank")
        assert "reranked" == (await other.search("/products/_search", QUERY)).header("x-rerank")
        assert 0 == proxy._held.size  # noqa: SLF001
    assert ["too_large"] == [line["reason"] for line in log if line.get("outcome") == "bypassed"]


async def test_what_is_held_is_released_when_the_client_leaves(settings: Config, engine: FakeEngine) -> None:
    engine.faults["passages"] = engine.faults["render"] = waits_for(asyncio.Event())
    async with AsyncExitStack() as stack:
        proxy, one, _ = await opened(settings, stack, limit=LONG)
        asking = asyncio.ensure_future(one.search("/products/_search", QUERY))
        await engine.until_asked("render")
        assert proxy._held.size  # noqa: SLF001
        asking.cancel()
        one.writer.transport.abort()
        await until_released(proxy)


async def until_released(proxy: Proxy) -> None:
    async with asyncio.timeout(60):
        while proxy._held.size:  # noqa: ASYNC110, SLF001  nothing else tells it
            await asyncio.sleep(0)


async def test_a_response_that_its_client_does_not_read_is_held_until_it_leaves(
    settings: Config, engine: FakeEngine
) -> None:
    engine.documents.append(Document("l", "Laptop", lexical=9.0, more={"long": "x" * 2**24}))
    async with AsyncExitStack() as stack:
        proxy, one, _ = await opened(settings, stack, limit=2**26)
        one.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a connection
        body = b'{"query":{"match":{"title":"laptop"}}}'
        await one.send(request("POST", "/products/_search", body, content_type="application/json"))
        async with asyncio.timeout(60):
            while not (engine.of("lexical") and not proxy.generation.running):  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert proxy._held.size > 2**24  # noqa: SLF001
        one.writer.transport.abort()
        await until_released(proxy)


async def test_a_response_is_held_until_the_client_has_read_it() -> None:
    held, unread = Held(100), True
    mine = HeldForRequest(held)
    assert (True, False, True) == (mine.take(60), mine.take(41), mine.take(40))
    mine.end(lambda: unread)
    assert 100 == held.size
    unread = False
    mine.end(lambda: unread)
    assert (0, True, 0) == (held.size, mine.take(1000), held.size)
