"""The engine's nodes take turns, and one that cannot be reached is left alone for a while."""

from collections.abc import AsyncIterator

import pytest

from proxy.bounds import BACK_OFF_S_MAX
from proxy.errors import Unreachable
from proxy.http1.outbound import Node
from proxy.settings.config import Engine as Settings
from proxy.upstream.nodes import BACK_OFF_S, NodePool, Nodes, read_node
from tests.fakes import FakeServer, closed_port

A, B, C = (read_node(f"http://{name}:9200") for name in "abc")


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
