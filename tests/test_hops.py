"""The proxy between two others: what it costs the engine, what it still delivers, and whether it meets itself."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from demo.engine import free_ports
from proxy.settings.config import Config, Engine, Listen
from tests.conftest import StartProxy
from tests.fakes import Client, FakeEngine, FakeServer, Message, Stream, chunked, hangs, request, waits_for
from tests.isolation import PATIENCE_S, connected

Serve = Callable[..., Awaitable[int]]
_BUFFERED = 2**20
"""What is sent whole before anybody has read it."""


@pytest.fixture
async def serve(start_proxy: StartProxy) -> Serve:
    """Start a proxy without routes in front of an engine, and return its port."""

    async def start(url: str, *, port: int = 0, via: bool = True) -> int:
        client = await start_proxy(Config(listen=Listen(port=port), engine=Engine(url=url, via=via)))
        return int(client.writer.get_extra_info("peername")[1])

    return start


async def test_idle_clients_hold_no_engine_connection(engine: FakeEngine, serve: Serve) -> None:
    port = await serve(engine.url)
    async with AsyncExitStack() as stack:
        for _ in range(50):
            await stack.enter_async_context(connected(port))
        client = await stack.enter_async_context(connected(port))
        assert 200 == (await client.ask("GET", "/")).status
        assert 1 == engine.connections


class SlowReader(FakeServer):
    """An engine that reads nothing until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = asyncio.Event()
        self.delivered: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def _talk(self, stream: Stream) -> None:
        await self.reads.wait()
        head = Message(await stream.head(), b"")
        self.delivered.set_result(len(await stream.body(head)))


@pytest.mark.parametrize("size", [2, 200_000, 4_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("target", ["/library/_doc/1", "/library/_doc/research-7", "/_bulk", "/a/_alias/search"])
async def test_a_complete_write_is_delivered_though_its_client_disconnected(
    target: str, *, chunked: bool, size: int, serve: Serve
) -> None:
    """The engine reads it only after the client has left."""
    async with SlowReader() as engine:
        port = await serve(engine.url)
        async with connected(port) as client:
            framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
            client.writer.write(f"PUT {target} HTTP/1.1\r\nHost: p\r\n{framing}\r\n\r\n".encode())
            client.writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (size, b" " * size) if chunked else b" " * size)
        if size < _BUFFERED:
            await client.writer.wait_closed()
        engine.reads.set()
        async with asyncio.timeout(PATIENCE_S):
            assert await engine.delivered >= size


async def test_a_proxy_in_front_of_itself_reports_a_loop(serve: Serve) -> None:
    """As an error in the engine's format, for the first request that comes back."""
    (port,) = free_ports(1)
    await serve(f"http://127.0.0.1:{port}", port=port)
    async with connected(port) as client:
        response = await client.ask("GET", "/_cluster/health")
    error = response.json()
    assert (508, 508, "proxy_loop") == (response.status, error["status"], error["error"]["type"])
    assert "proxy_loop" == error["error"]["root_cause"][0]["type"]


async def test_two_proxies_in_front_of_each_other_report_a_loop(serve: Serve) -> None:
    first, second = free_ports(2)
    await serve(f"http://127.0.0.1:{second}", port=first)
    await serve(f"http://127.0.0.1:{first}", port=second)
    async with connected(first) as client:
        assert 508 == (await client.ask("GET", "/")).status


async def test_a_chain_of_up_to_four_proxies_works(engine: FakeEngine, serve: Serve) -> None:
    """A request that has passed more than three proxies of this kind counts as a loop."""
    statuses, url = [], engine.url
    for _ in range(5):
        port = await serve(url)
        url = f"http://127.0.0.1:{port}"
        async with connected(port) as client:
            statuses.append((await client.ask("GET", "/")).status)
    assert [200, 200, 200, 200, 508] == statuses
    names = [re.findall(r"rerank-proxy-[0-9a-f]+", asked.header("via")) for asked in engine.requests]
    assert [1, 2, 3, 4] == [len(set(each)) for each in names]


async def test_with_via_disabled_no_header_is_added(engine: FakeEngine, serve: Serve) -> None:
    port = await serve(engine.url, via=False)
    async with connected(port) as client:
        await client.ask("GET", "/", via="1.1 another")
        await client.ask("GET", "/")
    assert ["1.1 another", ""] == [asked.header("via") for asked in engine.requests]


@pytest.mark.parametrize("ends", [Client.close, Client.break_off])
async def test_behind_a_search_whose_client_leaves_its_writes_are_delivered_in_order(
    engine: FakeEngine, serve: Serve, ends: Callable[[Client], None]
) -> None:
    """Elasticsearch 8.19.13 begins pipelined requests at once; searches and other reads end with the client."""
    engine.faults["lexical"] = hangs
    async with connected(await serve(engine.url)) as client:
        behind = [
            request("PUT", "/library/_doc/1", b"{}"),
            request("POST", "/library/_search", b"{}"),
            request("POST", "/_bulk", transfer_encoding="chunked") + chunked(b'{"delete":{"_id":"1"}}'),
            request("DELETE", "/library/_doc/2"),
            request("PUT", "/library/_doc/3", b"{}")[:-1],
        ]
        await client.send(request("POST", "/library/_search", b"{}"))
        await engine.until_asked("lexical")
        await client.send(b"".join(behind))
        ends(client)
        await engine.until_asked("other", 3)
        await engine.until_left()
    assert ["/library/_doc/1", "/_bulk", "/library/_doc/2"] == [asked.path for asked in engine.of("other")]


async def test_behind_a_write_whose_client_leaves_the_next_one_is_sent_when_that_has_its_response(
    engine: FakeEngine, serve: Serve
) -> None:
    held = asyncio.Event()
    engine.faults["other"] = waits_for(held)
    async with connected(await serve(engine.url)) as client:
        await client.send(b"".join(request("PUT", f"/library/_doc/{number}", b"{}") for number in range(3)))
        await engine.until_asked("other")
    held.set()
    await engine.until_asked("other", 3)
    await engine.until_left()
    assert ["/library/_doc/0", "/library/_doc/1", "/library/_doc/2"] == [asked.path for asked in engine.of("other")]


@pytest.mark.parametrize("search", [b"", request("POST", "/library/_search", b"{}")], ids=["running", "waiting"])
async def test_behind_a_request_that_closes_the_connection_nothing_is_delivered(
    engine: FakeEngine, serve: Serve, search: bytes
) -> None:
    held = asyncio.Event()
    engine.faults |= {"other": waits_for(held), "lexical": hangs}
    async with connected(await serve(engine.url)) as client:
        last = request("PUT", "/library/_doc/0", b"{}", connection="close")
        await client.send(search + last + request("PUT", "/library/_doc/1", b"{}"))
        await engine.until_asked("lexical" if search else "other")
    held.set()
    await engine.until_asked("other")
    await engine.until_left()
    assert ["/library/_doc/0"] == [asked.path for asked in engine.of("other")]


async def test_behind_a_search_whose_client_leaves_a_write_of_tiny_chunks_is_delivered(
    engine: FakeEngine, serve: Serve
) -> None:
    engine.faults["lexical"] = hangs
    async with connected(await serve(engine.url)) as client:
        await client.send(request("POST", "/library/_search", b"{}"))
        await engine.until_asked("lexical")
        body = chunked(*[b" "] * 9000, b"{}")
        await client.send(request("POST", "/_bulk", transfer_encoding="chunked") + body)
    await engine.until_asked("other")
    assert [body] == [asked.body for asked in engine.of("other")]
