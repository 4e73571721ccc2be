"""Connections to the engine's nodes: kept while they are fit, opened to the next node where one is not there."""

from collections.abc import AsyncIterator

import pytest

from proxy.config import Engine as Settings
from proxy.errors import Unreachable
from proxy.upstream.origin import Node, Origin, read_node
from tests.fakes import FakeServer, Stream, closed_port


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
def test_a_node_is_read_from_its_url(url: str, node: Node) -> None:
    assert node == read_node(url)


async def test_a_connection_that_was_given_back_is_used_again(server: FakeServer) -> None:
    origin = Origin(Settings(url=server.url))
    first = await origin.connect()
    origin.release(first)
    second = await origin.connect()
    assert (first, True) == (second, second.reused)
    origin.release(second)
    fresh = await origin.connect(fresh=True)
    assert (False, False) == (fresh is second, fresh.reused)
    fresh.abort()
    origin.close()


async def test_a_connection_that_the_node_closed_is_not_used_again(server: FakeServer) -> None:
    async def leaves(_: Stream) -> None:
        """End the connection at once."""

    server.script = leaves
    origin = Origin(Settings(url=server.url))
    first = await origin.connect()
    assert b"" == await first.reader.read()
    origin.release(first)
    second = await origin.connect()
    assert (False, False) == (second is first, second.reused)
    second.abort()
    origin.close()


async def test_a_connection_that_waited_too_long_is_not_used_again(server: FakeServer) -> None:
    origin = Origin(Settings(url=server.url, idle_connection_seconds=1e-9))
    first = await origin.connect()
    origin.release(first)
    second = await origin.connect()
    assert second is not first
    second.abort()
    origin.close()


async def test_connections_that_nobody_needs_any_more_are_closed(server: FakeServer) -> None:
    origin = Origin(Settings(url=server.url, idle_connection_seconds=1e-9))
    first, second = await origin.connect(), await origin.connect()
    origin.release(first)
    origin.release(second)
    assert (True, False) == (first.writer.is_closing(), second.writer.is_closing())
    origin.close()


async def test_a_connection_with_bytes_nobody_asked_for_is_not_fit(server: FakeServer) -> None:
    """They would be taken for the next request's answer."""

    async def talks(stream: Stream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await stream.left()

    server.script = talks
    origin = Origin(Settings(url=server.url))
    connection = await origin.connect()
    await connection.incoming.begins()
    assert not connection.usable
    connection.abort()


async def test_a_node_that_is_not_there_is_passed_over_from_then_on(server: FakeServer) -> None:
    missing = f"http://127.0.0.1:{closed_port()}"
    origin = Origin(Settings(url=[missing, server.url]))
    connections = [await origin.connect(fresh=True) for _ in range(3)]
    assert {server.port} == {connection.node.port for connection in connections}
    for connection in connections:
        connection.abort()


async def test_where_no_node_is_there_each_is_named() -> None:
    urls = [f"http://127.0.0.1:{closed_port()}" for _ in range(2)]
    with pytest.raises(Unreachable) as unreachable:
        await Origin(Settings(url=urls)).connect()
    assert all(url.removeprefix("http://") in str(unreachable.value) for url in urls)
