"""A connection to a node that ends while a request is being sent."""

import asyncio
import gc
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from proxy.http1.messages import ResponseHead
from proxy.http1.outbound import EngineConnection, Node
from tests.fakes import answer

NODE = Node("127.0.0.1", 9200, tls=False, authority=b"engine", prefix=b"")
HEAD = b"POST /_bulk HTTP/1.1\r\nhost: engine\r\ntransfer-encoding: chunked\r\n\r\n"
TOO_LARGE = answer(413, b'{"status": 413}')


@dataclass(slots=True)
class Received:
    """What a relay was told, in order."""

    told: list[str] = field(default_factory=list)
    content: bytes = b""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    reads_content: bool = False

    def interim(self, head: ResponseHead) -> None:
        self.told.append(f"interim {head.status}")

    def response(self, head: ResponseHead) -> None:
        self.told.append(f"response {head.status}")

    def body(self, raw: bytes, content: list[bytes]) -> None:
        self.content += raw

    def end(self, *, clean: bool) -> None:
        self.told.append("end")
        self.over.set()

    def lost(self, error: Exception | None) -> None:
        self.told.append("lost")
        self.over.set()

    def pause(self) -> None: ...

    def resume(self) -> None: ...


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


async def ended_early(listening: socket.socket, response: bytes) -> Received:
    """Send a request to a node that sends this, and closes without having read the body, before it is sent whole.

    Nothing is awaited in between, so that the connection is found to be closed by writing to it, and not by reading.
    """
    loop, received = asyncio.get_running_loop(), Received()
    _, connection = await loop.create_connection(lambda: EngineConnection(NODE), *listening.getsockname())
    connection.send(received, b"POST", HEAD)
    await asyncio.sleep(0)
    node, _ = listening.accept()
    node.recv(10)
    node.sendall(response)
    node.close()
    while not received.told:
        connection.write(b"5\r\nabcde\r\n")
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await received.over.wait()
    return received


async def test_a_response_sent_before_the_node_closed_is_received_although_the_request_cannot_be_sent(
    listening: socket.socket,
) -> None:
    received = await ended_early(listening, TOO_LARGE)
    assert (["response 413", "end"], b'{"status": 413}') == (received.told, received.content)


@pytest.mark.parametrize("cut", [1, 20, len(TOO_LARGE) - 1])
async def test_a_truncated_response_is_an_error(listening: socket.socket, cut: int) -> None:
    assert "lost" == (await ended_early(listening, TOO_LARGE[:cut])).told[-1]


async def test_a_node_that_closes_without_a_response_is_an_error(listening: socket.socket) -> None:
    assert ["lost"] == (await ended_early(listening, b"")).told


_CONNECTIONS = Path("/proc/net/tcp")
_TIME_WAIT = "06"


def waiting_towards(address: str, port: int) -> list[str]:
    """Return the connections to this address that the kernel keeps in TIME-WAIT."""
    _, *rows = _CONNECTIONS.read_text().splitlines()
    spelled = f"{socket.inet_aton(address)[::-1].hex().upper()}:{port:04X}"
    return [row for row in rows if row.split()[2:4] == [spelled, _TIME_WAIT]]


def own_address() -> str:
    """Return an address of this machine besides loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no network")
        return str(sock.getsockname()[0])


@pytest.mark.skipif(not _CONNECTIONS.exists(), reason="the kernel's table of connections is read")
async def test_a_connection_that_is_closed_does_not_keep_its_local_port() -> None:
    """Otherwise clients with a connection for each request use up the 28,000 ports, each blocked for a minute."""
    with socket.create_server((own_address(), 0)) as server:
        address = server.getsockname()
        _, connection = await asyncio.get_running_loop().create_connection(lambda: EngineConnection(NODE), *address)
        node, _ = server.accept()
        connection.close()
        await asyncio.sleep(0)
        with suppress(ConnectionResetError):
            assert not node.recv(1)
        node.close()
    assert not waiting_towards(*address)


async def test_a_connection_that_the_node_resets_at_once_is_closed_by_its_transport_alone(
    listening: socket.socket,
) -> None:
    """If anything else closed the descriptor, the next connection could get its number and be closed, too."""
    loop, errors = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    sock = socket.create_connection(listening.getsockname())
    node, _ = listening.accept()
    node.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    node.close()
    descriptor = sock.fileno()
    _, connection = await loop.create_connection(lambda: EngineConnection(NODE), sock=sock)
    ended = asyncio.Event()
    connection.on_idle_end = ended.set
    gc.collect()
    os.fstat(descriptor)
    async with asyncio.timeout(10):
        await ended.wait()
    assert not errors
