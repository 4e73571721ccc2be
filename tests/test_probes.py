"""Silent connections are probed, so that none is forgotten on its way while an engine works for hours."""

import asyncio
from pathlib import Path

import pytest

from proxy.http1.flow import PROBED_AFTER_S
from tests.conftest import QUERY
from tests.fakes import Client, FakeEngine

TABLE = Path("/proc/net/tcp")
pytestmark = pytest.mark.skipif(not TABLE.exists(), reason="only Linux says which connections it probes")

ESTABLISHED = "01"
PROBING = 2
"""Linux, Documentation/networking/proc_net_tcp.rst: which timer is active; 1 is that of bytes on their way."""
JIFFIES = 100
"""A second's, as that file counts them on every machine."""


def probed_after(place: int, port: int) -> list[float]:
    """Say of each connection with this port on one side (1: here, 2: there) when it is probed; 0: not now."""
    rows = [line.split() for line in TABLE.read_text().splitlines()[1:]]
    found = [row[5].split(":") for row in rows if row[3] == ESTABLISHED and row[place].endswith(f":{port:04X}")]
    return [int(when, 16) / JIFFIES if int(timer, 16) == PROBING else 0.0 for timer, when in found]


async def test_both_connections_use_tcp_keepalive(client: Client, engine: FakeEngine) -> None:
    await client.ask("GET", "/")
    await client.search("/products/_search", QUERY)
    port = client.writer.get_extra_info("peername")[1]
    while not all(found := [*probed_after(1, port), *probed_after(2, engine.port)]):  # noqa: ASYNC110  a table has no event
        await asyncio.sleep(0)
    assert len(found) > 2  # the client's, one handed on by, and those of searches
    assert max(found) <= PROBED_AFTER_S
