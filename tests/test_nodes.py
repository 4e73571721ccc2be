"""The engine's nodes take turns, and one that cannot be reached is left alone for a while."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from proxy.bounds import BACK_OFF_S_MAX
from proxy.errors import Unreachable
from proxy.http1.headers import NO_HOP
from proxy.http1.outbound import Node
from proxy.http1.pulse import SILENT_S
from proxy.settings.config import Engine as Settings
from proxy.upstream.nodes import BACK_OFF_S, PING_S, NodePool, Nodes, read_node
from proxy.upstream.pool import EnginePool, EngineRequest
from tests.fakes import FakeServer, closed_port, hangs

A, B, C = (read_node(f"http://{name}:9200") for name in "abc")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as server:
        yield server


@pytest.mark.parametrize(
    ("url", "node"),
    [
        ("http://es", Node("es", 80, tls=False, authority=b"es", prefix=b"")),
        ("http://es:9200/", Node("es", 9200, tls=False, authority=b"es:9200", prefix=b"")),
        ("https://es/a/b/", Node("es", 443, tls=True, authority=b"es", prefix=b"/a/b")),
        ("http://[::1]:9200", Node("::1", 9200, tls=False, authority=b"[::1]:9200", prefix=b"")),
    ],
)
def test_a_nodes_address_is_parsed_from_its_url(url: str, node: Node) -> None:
    assert node == read_node(url)


def test_live_nodes_are_used_in_rotation() -> None:
    pool = NodePool([A, B, C])
    assert [A, B, C, A] == [pool.next_order(0)[0] for _ in range(4)]


def test_a_failed_node_is_tried_last_for_a_while() -> None:
    pool = NodePool([A, B, C])
    pool.failed(A, 0)
    assert [{B, C}] * 3 == [set(pool.next_order(BACK_OFF_S / 2)[:2]) for _ in range(3)]
    assert A in [pool.next_order(BACK_OFF_S)[0] for _ in range(3)]


def test_the_waiting_time_doubles_with_consecutive_failures() -> None:
    pool, now, pauses = NodePool([A, B]), 0.0, []
    for _ in range(7):
        pool.failed(A, now)
        begun = now
        while pool.next_order(now)[0] == pool.next_order(now)[0] == B:
            now += BACK_OFF_S
        pauses.append(now - begun)
    assert [1, 2, 4, 8, 16, BACK_OFF_S_MAX, BACK_OFF_S_MAX] == pauses


def test_concurrent_failures_count_once() -> None:
    """A hundred requests that find a node down increase its pause once, and not a hundred times."""
    pool = NodePool([A, B])
    for _ in range(100):
        pool.failed(A, 0)
    assert A in [pool.next_order(BACK_OFF_S)[0] for _ in range(2)]


def test_a_recovered_node_is_used_as_before() -> None:
    pool = NodePool([A, B])
    pool.failed(A, 0)
    pool.reached(A)
    assert {A, B} == {pool.next_order(0)[0] for _ in range(2)}


def test_if_every_node_failed_the_next_to_be_revived_is_tried_first() -> None:
    pool = NodePool([A, B])
    pool.failed(B, 0)
    pool.failed(A, 0.5)
    assert [[B, A]] * 2 == [pool.next_order(0.6) for _ in range(2)]


def test_a_silent_node_is_tried_after_one_that_refuses_connections(clock: Clock) -> None:
    """The one costs a client its whole timeout, the other nothing."""
    pool = NodePool([A, B, C], clock)
    pool.pulses[A].asked()
    clock.now += SILENT_S
    pool.failed(B, SILENT_S)
    assert [[C, B, A]] * 3 == [pool.next_order(SILENT_S) for _ in range(3)]


async def test_an_unreachable_node_is_skipped(server: FakeServer) -> None:
    nodes = Nodes(Settings(url=[f"http://127.0.0.1:{closed_port()}", server.url]))
    connections = [await nodes.connect() for _ in range(3)]
    assert {server.port} == {connection.node.port for connection in connections}
    for connection in connections:
        connection.close()


async def test_if_no_node_is_reachable_each_is_named() -> None:
    urls = [f"http://127.0.0.1:{closed_port()}" for _ in range(2)]
    with pytest.raises(Unreachable) as unreachable:
        await Nodes(Settings(url=urls)).connect()
    assert "engine: " + "; ".join(f"{url[7:]}: Connection refused" for url in urls) == str(unreachable.value)


async def test_an_unreachable_node_is_logged_once_and_when_it_is_back() -> None:
    async with FakeServer() as other:
        gone = FakeServer()
        async with gone:
            nodes = Nodes(Settings(url=[gone.url, other.url]))
        with capture_logs() as lines:
            for _ in range(4):
                (await nodes.connect()).close()
            async with gone:
                (await nodes.open(read_node(gone.url))).close()
    assert ["node_unreachable", "node_reachable"] == [line["event"] for line in lines]
    assert {f"127.0.0.1:{gone.port}"} == {line["node"] for line in lines}


async def test_a_node_that_hangs_is_not_used_until_it_answers_a_ping(server: FakeServer, clock: Clock) -> None:
    """It accepts connections, so that nothing but its silence tells."""
    async with FakeServer() as hung:
        hung.faults = {"/": hangs, "/_cat/nodes": hangs}
        nodes = Nodes(Settings(url=[hung.url, server.url]), now=clock)
        pool = EnginePool(nodes, NO_HOP, 60.0)
        given_up = asyncio.create_task(pool.send(EngineRequest("POST", "/_cat/nodes", ())))
        await hung.until_asked("/_cat/nodes")
        clock.now += SILENT_S
        given_up.cancel()
        with capture_logs() as lines:
            for _ in range(4):
                await pool.send(EngineRequest("POST", "/shop", ()))
            await hung.until_asked("/", 2)
            seen = dict(nodes.reachable())
            hung.faults = {}
            async with asyncio.timeout(20 * PING_S):
                while not all(nodes.reachable().values()):  # noqa: ASYNC110  nothing says when a ping is answered
                    await asyncio.sleep(PING_S / 10)
            for _ in range(4):
                await pool.send(EngineRequest("POST", "/shop", ()))
        assert (4 + 2, 2) == (len(server.of("/shop")), len(hung.of("/shop")))
        assert [False, True] == list(seen.values())
        assert ["node_silent", "node_responds"] == [line["event"] for line in lines]
        await pool.close()
        nodes.close()


async def test_a_node_that_only_computes_a_response_says_so_and_is_used(server: FakeServer, clock: Clock) -> None:
    async with FakeServer() as slow:
        slow.faults = {"/_forcemerge": hangs}
        nodes = Nodes(Settings(url=[slow.url, server.url]), now=clock)
        pool = EnginePool(nodes, NO_HOP, 60.0)
        merging = asyncio.create_task(pool.send(EngineRequest("POST", "/_forcemerge", ())))
        await slow.until_asked("/_forcemerge")
        clock.now += SILENT_S
        with capture_logs() as lines:
            await pool.send(EngineRequest("POST", "/shop", ()))
            async with asyncio.timeout(20 * PING_S):
                while len(slow.of("/shop")) < 2:
                    await pool.send(EngineRequest("POST", "/shop", ()))
        assert [] == lines
        merging.cancel()
        await pool.close()
        nodes.close()


async def test_metadata_is_read_from_another_node_if_one_hangs(server: FakeServer, clock: Clock) -> None:
    async with FakeServer() as hung:
        hung.faults = {"/_resolve/index/shop": hangs, "/": hangs}
        nodes = Nodes(Settings(url=[hung.url, server.url]), now=clock)
        pool = EnginePool(nodes, NO_HOP, 60.0)
        reading = asyncio.create_task(pool.send(EngineRequest("GET", "/_resolve/index/shop", ())))
        await hung.until_asked("/_resolve/index/shop")
        clock.now += SILENT_S
        async with asyncio.timeout(20 * SILENT_S):
            reply = await reading
        assert (200, 1) == (reply.status, len(server.of("/_resolve/index/shop")))
        await pool.close()
        nodes.close()


async def test_a_kept_connection_to_a_node_that_hangs_is_not_used_again(server: FakeServer, clock: Clock) -> None:
    async with FakeServer() as hung:
        hung.faults = {"/hang": hangs, "/": hangs}
        nodes = Nodes(Settings(url=[hung.url, server.url]), now=clock)
        kept = await nodes.open(read_node(hung.url))
        pool = EnginePool(nodes, NO_HOP, 60.0)
        assert kept.usable()
        hanging = asyncio.create_task(pool.send(EngineRequest("POST", "/hang", ())))
        await hung.until_asked("/hang")
        clock.now += SILENT_S
        assert not kept.usable()
        hanging.cancel()
        kept.close()
        await pool.close()
        nodes.close()


async def test_a_node_whose_machine_is_gone_delays_only_the_first_connections(server: FakeServer, clock: Clock) -> None:
    """Nobody refuses a connection to it: after a second, further ones go to another node at once."""
    gone = socket.create_server(("127.0.0.1", 0), backlog=0)
    filling = [socket.socket() for _ in range(3)]
    for each in filling:
        each.setblocking(False)  # noqa: FBT003  the socket module's own signature
        each.connect_ex(gone.getsockname())
    nodes = Nodes(
        Settings(url=[f"http://127.0.0.1:{gone.getsockname()[1]}", server.url], connect_timeout_seconds=30), now=clock
    )
    waiting = asyncio.create_task(nodes.connect())
    await asyncio.sleep(0)
    clock.now += SILENT_S
    async with asyncio.timeout(10):
        for _ in range(4):
            (await nodes.connect()).close()
    assert not waiting.done()
    waiting.cancel()
    nodes.close()
    for each in (gone, *filling):
        each.close()
