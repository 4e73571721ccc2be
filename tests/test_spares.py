"""Clients that open a connection for each request find one to the engine that is open already, and is nobody else's."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial

import msgspec
import pytest

from proxy.app import listen
from proxy.bounds import SPARE_CONNECTIONS
from proxy.http1.outbound import EngineConnection
from proxy.settings.config import Config
from proxy.settings.config import Engine as Settings
from proxy.upstream.nodes import Nodes
from proxy.upstream.spares import KEPT_S, OFTEN_S, Spares
from tests.conftest import TOKEN
from tests.fakes import Client, FakeEngine, FakeServer, Stream, answer, closed_port, request


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as server:
        yield server


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until something holds; the test's timeout ends what never does."""
    while not holds():  # noqa: ASYNC110  connections have no event
        await asyncio.sleep(0)


def spares_of(server: FakeServer, kept_seconds: float = KEPT_S) -> Spares:
    return Spares(Nodes(Settings(url=server.url)), kept_seconds=kept_seconds)


def has_connections(server: FakeServer, count: int) -> bool:
    return server.connections == count


async def turns() -> None:
    """Let the loop turn a few times, in which whatever is under way arrives."""
    for _ in range(20):
        await asyncio.sleep(0)


def come_and_leave(spares: Spares, clients: int) -> list[EngineConnection | None]:
    """Let clients come one after the other, each when the one before has left; return what they were given."""
    given = []
    for _ in range(clients):
        given.append(spares.take())
        spares.left()
    return given


async def test_infrequent_clients_cause_no_spare_connection(server: FakeServer) -> None:
    now = 0.0
    spares = Spares(Nodes(Settings(url=server.url)), timer=lambda: now)
    given = []
    for _ in range(3):
        given += come_and_leave(spares, 1)
        now += OFTEN_S
    await turns()
    assert ([None] * 3, 0) == (given, server.connections)


async def test_only_clients_that_leave_after_a_request_cause_spare_connections(server: FakeServer) -> None:
    spares = spares_of(server)
    for _ in range(10):
        spares.left()
    for _ in range(10):
        spares.take()
    await turns()
    assert 0 == server.connections


async def test_each_spare_connection_is_used_once_and_replaced(server: FakeServer) -> None:
    spares = spares_of(server)
    assert [None, None] == come_and_leave(spares, 2)
    given = []
    for count in range(1, 4):
        await until(partial(has_connections, server, count))
        await turns()
        given += come_and_leave(spares, 1)
    assert (3, True) == (len({id(each) for each in given}), all(each and each.was_idle for each in given))
    spares.drop()
    for each in given:
        assert each is not None
        each.close()


async def test_spare_connections_are_bounded(server: FakeServer) -> None:
    spares = spares_of(server)
    come_and_leave(spares, 10 * SPARE_CONNECTIONS)
    await until(lambda: server.connections == SPARE_CONNECTIONS)
    await turns()
    assert SPARE_CONNECTIONS == server.connections
    spares.drop()
    await server.until_left()


async def test_unused_spare_connections_are_closed(server: FakeServer) -> None:
    spares = spares_of(server, kept_seconds=0.01)
    come_and_leave(spares, 4)
    await until(lambda: server.connections > 0)
    await server.until_left()
    assert spares.take() is None
    spares.drop()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"])
async def test_a_spare_connection_closed_or_written_to_by_the_node_is_not_used(server: FakeServer, sent: bytes) -> None:
    async def ends(stream: Stream) -> None:
        await stream.send(sent)

    server.script = ends
    spares = spares_of(server)
    come_and_leave(spares, 3)
    await until(lambda: server.connections == 2)
    await server.until_left()
    await turns()
    assert spares.take() is None
    spares.drop()


async def test_an_unreachable_engine_is_not_reported_twice(caplog: pytest.LogCaptureFixture) -> None:
    spares = Spares(Nodes(Settings(url=f"http://127.0.0.1:{closed_port()}")))
    assert [None] * 3 == come_and_leave(spares, 3)
    await turns()
    assert (None, []) == (spares.take(), caplog.records)
    spares.drop()


async def test_each_client_gets_its_own_spare_connection(settings: Config, engine: FakeEngine) -> None:
    """Also clients that arrive at the same time, and those that keep their connection."""
    async with AsyncExitStack() as stack:
        listener = await listen(msgspec.structs.replace(settings, routes=()), TOKEN, {}, stack)
        for turn in range(3):
            clients = [await Client.to(listener.port) for _ in range(8)]
            for _ in range(2):
                asking = [client.ask("GET", f"/{turn}.{number}") for number, client in enumerate(clients)]
                assert {200} == {answered.status for answered in await asyncio.gather(*asking)}
            for client in clients:
                client.close()
    carried: dict[int, list[str]] = {}
    for asked in engine.requests:
        carried.setdefault(asked.connection, []).append(asked.path)
    assert ([2] * 24, 24) == ([len(paths) for paths in carried.values()], len({each for (each, _) in carried.values()}))
    assert all(one == other for one, other in carried.values())


@pytest.mark.parametrize(("method", "times", "sent"), [("GET", 2, b"HTTP/1.1 200"), ("POST", 1, b"")])
async def test_a_read_on_a_dead_spare_connection_is_sent_once_more(
    settings: Config, engine: FakeEngine, method: str, times: int, sent: bytes
) -> None:
    """As on a kept connection: the node may have closed it at the same moment."""

    async def script(stream: Stream) -> None:
        while asked := await stream.request():
            await engine.remember(asked)
            if asked.path == "/ends" and len(engine.requests) == 4:
                return
            await stream.send(answer(200, b"{}"))

    engine.script = script
    async with AsyncExitStack() as stack:
        listener = await listen(msgspec.structs.replace(settings, routes=()), TOKEN, {}, stack)
        clients = [await Client.to(listener.port) for _ in range(4)]
        for each in clients:
            stack.callback(each.close)
        for each in clients[:3]:
            await each.ask("GET", "/")
            each.close()
            await turns()
        client = clients[3]
        await client.send(request(method, "/ends", b"{}"))
        assert (sent, times) == (
            (await client.head())[: len(sent)],
            [each.path for each in engine.requests].count("/ends"),
        )
