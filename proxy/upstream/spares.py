"""Connections to the engine's nodes that are opened in advance, each for the first request of one client.

A client that opens a connection for each request, as PHP applications do, otherwise waits for two connections. A spare
connection has carried no request, and is given to one client only. It is opened when a client leaves, so that opening
it delays nobody. Soon after the last client has come, no spare connection is left.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from proxy.bounds import SPARE_CONNECTIONS
from proxy.errors import Unreachable
from proxy.http1.outbound import EngineConnection
from proxy.upstream.nodes import Nodes

KEPT_S = 2.0
"""Seconds for which a spare connection is kept: load balancers close one that sends nothing after 5 or more (HAProxy's
`timeout http-request`)."""
OFTEN_S = 1.0
"""Connections are opened in advance if the last two clients that needed one came within this many seconds."""


class Spares:
    """The spare connections, and new ones where there is none: a `Connector`."""

    def __init__(
        self, nodes: Nodes, *, kept_seconds: float = KEPT_S, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._nodes = nodes
        self._kept_seconds = kept_seconds
        self._timer = timer
        self._spares: deque[EngineConnection] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._needed_at = self._needed_before = float("-inf")
        self._there = 0
        """The number of clients that needed a connection and have not left."""

    def take(self) -> EngineConnection | None:
        """Return the oldest spare connection for a client that needs one; None if there is none."""
        self._needed_before, self._needed_at = self._needed_at, self._timer()
        self._there += 1
        while self._spares:
            connection = self._spares.popleft()
            if connection.usable():
                connection.was_idle = True
                return connection
            connection.close()
        return None

    def left(self) -> None:
        """Open a connection for the next client, if clients come often; a client that needed none does not count."""
        if not self._there:
            return
        self._there -= 1
        is_often = self._needed_at - self._needed_before < OFTEN_S and self._timer() - self._needed_at < OFTEN_S
        if is_often and len(self._spares) + len(self._opening) < SPARE_CONNECTIONS:
            task = asyncio.get_running_loop().create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def connect(self) -> EngineConnection:
        """Open a connection to one of the nodes; raises Unreachable."""
        return await self._nodes.connect()

    async def _open(self) -> None:
        try:
            self._spares.append(await self._nodes.connect())
        except Unreachable:
            return  # the next request that needs a connection is told
        if self._sweeping is None:
            self._sweep()

    def _sweep(self) -> None:
        """Close the connections that are too old, and schedule the next sweep for the others."""
        oldest_allowed, self._sweeping = time.monotonic() - self._kept_seconds, None
        while self._spares and self._spares[0].opened <= oldest_allowed:
            self._spares.popleft().close()
        if self._spares:
            left = self._spares[0].opened - oldest_allowed
            self._sweeping = asyncio.get_running_loop().call_later(left, self._sweep)

    def drop(self) -> None:
        """Close all of them: they were opened with earlier certificates, or the proxy ends."""
        for task in self._opening:
            task.cancel()
        while self._spares:
            self._spares.popleft().close()
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
