"""Host names are looked up once a second, not once for each connection, and their addresses take turns."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from proxy.errors import Unreachable
from proxy.settings.config import Engine as Settings
from proxy.upstream.addresses import AVOIDED_FOR_S, RESOLVED_FOR_S, STALE_FOR_S, Addresses
from proxy.upstream.nodes import Nodes
from tests.fakes import FakeServer, closed_port

HOST = "engine.test"


class NameServer:
    """Knows the addresses of one host, and counts how often it was asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] = addresses
        self.asked: list[str] = []
        self.failure: OSError | None = None
        self.is_silent = False

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        await asyncio.sleep(0)
        if self.is_silent:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.addresses


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as server:
        yield server


async def test_a_name_is_resolved_again_after_a_second() -> None:
    names = NameServer("192.0.2.1")
    addresses = Addresses(names)
    for now in (0.0, RESOLVED_FOR_S / 2, RESOLVED_FOR_S, RESOLVED_FOR_S * 1.5):
        assert ["192.0.2.1"] == await addresses.of(HOST, now)
    assert [HOST] * 2 == names.asked


async def test_concurrent_connections_share_one_lookup() -> None:
    names = NameServer("192.0.2.1")
    addresses = Addresses(names)
    assert [["192.0.2.1"]] * 5 == await asyncio.gather(*(addresses.of(HOST, 0) for _ in range(5)))
    assert [HOST] == names.asked


async def test_connections_waiting_for_one_lookup_are_spread_over_its_addresses() -> None:
    addresses = Addresses(NameServer("192.0.2.1", "192.0.2.2"))
    tried = await asyncio.gather(*(addresses.of(HOST, 0) for _ in range(4)))
    assert ["192.0.2.1", "192.0.2.2"] * 2 == [first for first, _ in tried]


async def test_a_failed_lookup_is_not_cached() -> None:
    names = NameServer()
    addresses = Addresses(names)
    with pytest.raises(socket.gaierror):
        await addresses.of(HOST, 0)
    names.addresses = ["192.0.2.1"]
    assert ["192.0.2.1"] == await addresses.of(HOST, 0)


async def test_the_addresses_of_the_preferred_family_are_used_in_rotation() -> None:
    """Each gets the same number of connections, even of those that are opened within one second."""
    addresses = Addresses(NameServer("192.0.2.1", "2001:db8::1", "192.0.2.2"))
    assert [
        ["192.0.2.1", "192.0.2.2", "2001:db8::1"],
        ["192.0.2.2", "192.0.2.1", "2001:db8::1"],
        ["192.0.2.1", "192.0.2.2", "2001:db8::1"],
    ] == [await addresses.of(HOST, 0) for _ in range(3)]


async def test_the_rotation_continues_after_the_next_lookup() -> None:
    """Otherwise connections that are opened more than a second apart would all begin with the same address."""
    addresses = Addresses(NameServer("192.0.2.1", "192.0.2.2"))
    tried = [(await addresses.of(HOST, RESOLVED_FOR_S * number))[0] for number in range(4)]
    assert ["192.0.2.1", "192.0.2.2"] * 2 == tried


async def test_names_are_resolved_by_the_operating_system() -> None:
    assert "127.0.0.1" in await Addresses().of("localhost", 0)
    assert ["::1"] == await Addresses().of("::1", 0)


@pytest.mark.parametrize("kind", ["fails", "is silent"])
async def test_while_the_resolver_is_away_the_last_addresses_are_used_for_a_minute(kind: str) -> None:
    names = NameServer("192.0.2.1")
    addresses = Addresses(names)
    assert ["192.0.2.1"] == await addresses.of(HOST, 0)
    names.failure = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    names.is_silent = kind == "is silent"
    assert ["192.0.2.1"] == await addresses.of(HOST, RESOLVED_FOR_S)
    assert ["192.0.2.1"] == await addresses.of(HOST, RESOLVED_FOR_S * 1.5)
    assert [HOST] * 2 == names.asked, "it is not looked up for each connection meanwhile"
    addresses.forget(HOST)
    names.is_silent = False
    with pytest.raises(socket.gaierror):
        await addresses.of(HOST, RESOLVED_FOR_S + STALE_FOR_S)
    names.failure = None
    assert ["192.0.2.1"] == await addresses.of(HOST, RESOLVED_FOR_S + STALE_FOR_S)


async def test_the_addresses_of_a_host_that_is_gone_are_not_used() -> None:
    """Somebody else may have them by now."""
    names = NameServer("192.0.2.1")
    addresses = Addresses(names)
    await addresses.of(HOST, 0)
    names.addresses = ()
    with pytest.raises(socket.gaierror):
        await addresses.of(HOST, RESOLVED_FOR_S)
    names.failure = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    with pytest.raises(socket.gaierror):
        await addresses.of(HOST, RESOLVED_FOR_S)


async def test_an_address_that_could_not_be_reached_is_tried_last_for_a_while() -> None:
    addresses = Addresses(NameServer("192.0.2.1", "192.0.2.2"))
    addresses.failed(HOST, "192.0.2.1", 0)
    assert {"192.0.2.2"} == {(await addresses.of(HOST, AVOIDED_FOR_S / 2))[0] for _ in range(4)}
    assert {"192.0.2.1", "192.0.2.2"} == {(await addresses.of(HOST, AVOIDED_FOR_S))[0] for _ in range(4)}


@contextmanager
def silent(port: int) -> Iterator[str]:
    """Listen on an address whose queue is full, so that it does not respond to new connections, as one that is gone."""
    with ExitStack() as opened:
        listening = opened.enter_context(socket.socket())
        listening.bind(("127.0.0.2", port))
        listening.listen(0)
        waiting = opened.enter_context(socket.socket())
        waiting.connect(("127.0.0.2", port))
        yield "127.0.0.2"


async def test_an_address_that_is_silent_leaves_time_for_the_others(server: FakeServer) -> None:
    with silent(server.port) as address:
        names = NameServer(address, "127.0.0.1")
        settings = Settings(url=f"http://{HOST}:{server.port}", connect_timeout_seconds=1.0)
        connection = await Nodes(settings, Addresses(names)).connect()
        assert "127.0.0.1" == connection.transport.get_extra_info("peername")[0]
        connection.close()


async def test_connections_to_a_node_share_one_lookup(server: FakeServer) -> None:
    """Otherwise each request with its own connection would also need a look-up in a thread."""
    names = NameServer("127.0.0.1")
    nodes = Nodes(Settings(url=f"http://{HOST}:{server.port}"), Addresses(names))
    for _ in range(20):
        (await nodes.connect()).close()
    assert len(names.asked) <= 2


async def test_an_address_that_refuses_connections_is_skipped_and_resolved_again(server: FakeServer) -> None:
    """The first connection that fails shows that a host has moved."""
    names = NameServer("127.0.0.2", "127.0.0.1")  # the fake server listens on 127.0.0.1 alone
    nodes = Nodes(Settings(url=f"http://{HOST}:{server.port}"), Addresses(names))
    connection = await nodes.connect()
    assert "127.0.0.1" == connection.transport.get_extra_info("peername")[0]
    connection.close()


async def test_an_unreachable_host_is_resolved_again() -> None:
    names = NameServer("127.0.0.1")
    nodes = Nodes(Settings(url=f"http://{HOST}:{closed_port()}"), Addresses(names))
    for _ in range(2):
        with pytest.raises(Unreachable, match=HOST):
            await nodes.connect()
    assert [HOST] * 2 == names.asked


async def test_an_unknown_name_makes_the_node_unreachable() -> None:
    with pytest.raises(Unreachable, match=r"engine\.test:9200: .*not known"):
        await Nodes(Settings(url=f"http://{HOST}:9200"), Addresses(NameServer())).connect()
