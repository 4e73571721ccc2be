"""The engine's nodes: which one is used next, and connections to them.

As in elastic-transport's NodePool: live nodes are used in rotation. A node that is unreachable is not used for a time
that doubles with each consecutive failure; it is tried earlier only if no live node is left.
"""

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from proxy.bounds import BACK_OFF_S_MAX
from proxy.errors import Unreachable, connection_error
from proxy.http1.outbound import EngineConnection, Node
from proxy.settings.config import Engine
from proxy.settings.tls import towards_engine
from proxy.upstream.addresses import Addresses

SERVICE = "engine"
_LEAST_SHARE = 1 / 3
"""Of the time to connect, for each of many addresses: a distant one needs some for TLS."""
BACK_OFF_S = 1.0
"""Seconds for which a node is not used after its first failure."""


def read_node(url: str, host: str | None = None) -> Node:
    """Parse a node's URL; its path is prefixed to every target, and `host` overrides the Host header."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return Node(
        host=parts.hostname or "",
        port=parts.port or (443 if tls else 80),
        tls=tls,
        authority=(host or parts.netloc.rpartition("@")[2]).encode(),
        prefix=parts.path.rstrip("/").encode(),
    )


@dataclass(slots=True)
class _Dead:
    """A node that was unreachable."""

    failures: int
    until: float


class NodePool:
    """Selects nodes; times are seconds of a monotonic clock."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = tuple(nodes)
        self._turn = 0
        self._dead: dict[Node, _Dead] = {}

    def next_order(self, now: float) -> list[Node]:
        """Return all nodes in the order to try them, and advance the rotation.

        Live nodes come first, then the others by the time of their next attempt.
        """
        count = len(self._nodes)
        turned = [self._nodes[(self._turn + place) % count] for place in range(count)]
        self._turn = (self._turn + 1) % count
        return sorted(turned, key=lambda node: self._revival(node, now))

    def _revival(self, node: Node, now: float) -> float:
        dead = self._dead.get(node)
        return dead.until if dead is not None and dead.until > now else 0.0

    def failed(self, node: Node, now: float) -> None:
        """Mark a node as unreachable; failures while it is marked count as the same failure."""
        dead = self._dead.get(node)
        if dead is None:
            self._dead[node] = _Dead(1, now + BACK_OFF_S)
        elif dead.until <= now:
            pause = min(BACK_OFF_S_MAX, BACK_OFF_S * 2**dead.failures)
            self._dead[node] = _Dead(dead.failures + 1, now + pause)

    def reachable(self) -> Mapping[Node, bool]:
        return {node: node not in self._dead for node in self._nodes}

    def reached(self, node: Node) -> None:
        self._dead.pop(node, None)


class Nodes:
    """Opens connections to the engine's nodes."""

    def __init__(self, settings: Engine, addresses: Addresses | None = None) -> None:
        self._addresses = addresses or Addresses()
        self._pool = NodePool([read_node(url, settings.host) for url in settings.urls])
        self._timeout = settings.connect_timeout_seconds
        self._tls = towards_engine(settings)

    def secure_by(self, tls: ssl.SSLContext | None) -> None:
        """Use other certificates for new connections."""
        self._tls = tls

    def reachable(self) -> Mapping[Node, bool]:
        """Return for each node whether the last attempt to reach it succeeded; true if there was none."""
        return self._pool.reachable()

    def next_order(self) -> list[Node]:
        """Return all nodes in the order in which to try them now, and advance the rotation."""
        return self._pool.next_order(time.monotonic())

    async def connect(self) -> EngineConnection:
        """Open a connection to the first node that accepts one; raises Unreachable if none does."""
        failures: list[str] = []
        for node in self.next_order():
            try:
                return await self.open(node)
            except Unreachable as error:
                failures.append(error.detail)
        raise Unreachable(SERVICE, "; ".join(failures))

    async def open(self, node: Node) -> EngineConnection:
        """Open a connection to one node; raises Unreachable."""
        try:
            connection = await self._open(node)
        except OSError as error:  # includes TimeoutError and TLS errors
            self._addresses.forget(node.host)
            self._pool.failed(node, time.monotonic())
            raise Unreachable(SERVICE, f"{node}: {connection_error(error) or 'no connection in time'}") from error
        self._pool.reached(node)
        return connection

    async def _open(self, node: Node) -> EngineConnection:
        """Open a connection to the first address of a node that accepts one; raises OSError if none does.

        Each address has a share of the time, so that one that is silent leaves some to the others.
        """
        until, failure = time.monotonic() + self._timeout, OSError("no address")
        async with asyncio.timeout(self._timeout):
            addresses = await self._addresses.of(node.host, time.monotonic())
        for number, address in enumerate(addresses):
            if (now := time.monotonic()) >= until:
                break
            share = max((until - now) / (len(addresses) - number), self._timeout * _LEAST_SHARE)
            try:
                async with asyncio.timeout(min(share, until - now)):
                    return await self._open_at(node, address)
            except OSError as error:
                failure = error
                self._addresses.failed(node.host, address, now)
        raise failure

    async def _open_at(self, node: Node, address: str) -> EngineConnection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: EngineConnection(node),
            address,
            node.port,
            ssl=self._tls if node.tls else None,
            server_hostname=node.host if node.tls else None,
        )
        return connection
