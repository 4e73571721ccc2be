"""The engine's nodes: which one is used next, and connections to them.

As in elastic-transport's NodePool: live nodes are used in rotation. A node that is unreachable is not used for a time
that doubles with each consecutive failure; it is tried earlier only if no live node is left. A node that is silent is
used last, and pinged until it says anything: no client has to wait for it to find out.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import structlog

from proxy.bounds import BACK_OFF_S_MAX
from proxy.errors import Unreachable, connection_error
from proxy.http1.headers import header_lines
from proxy.http1.messages import ResponseHead
from proxy.http1.outbound import EngineConnection, Node
from proxy.http1.pulse import Pulse
from proxy.settings.config import Engine
from proxy.settings.tls import towards_engine
from proxy.upstream.addresses import Addresses

SERVICE = "engine"
_LEAST_SHARE = 1 / 3
"""Of the time to connect, for each of many addresses: a distant one needs some for TLS."""
PING_S = 1.0
"""Seconds between two pings of a silent node, and for which a response is waited for."""
BACK_OFF_S = 1.0
"""Seconds for which a node is not used after its first failure."""

_log = structlog.get_logger("proxy")


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
    """Selects nodes; times are seconds of a monotonic clock, which `now` returns."""

    def __init__(self, nodes: Sequence[Node], now: Callable[[], float] = time.monotonic) -> None:
        self._nodes = tuple(nodes)
        self._turn = 0
        self._dead: dict[Node, _Dead] = {}
        cluster: list[Pulse] = []
        self.pulses = {node: Pulse(cluster, now) for node in nodes}

    def next_order(self, now: float) -> list[Node]:
        """Return all nodes in the order to try them, and advance the rotation.

        Live nodes come first, then the others by the time of their next attempt, and then the silent ones.
        """
        count = len(self._nodes)
        turned = [self._nodes[(self._turn + place) % count] for place in range(count)]
        self._turn = (self._turn + 1) % count
        return sorted(turned, key=lambda node: (self.pulses[node].is_silent, self._revival(node, now)))

    def _revival(self, node: Node, now: float) -> float:
        dead = self._dead.get(node)
        return dead.until if dead is not None and dead.until > now else 0.0

    def failed(self, node: Node, now: float) -> bool:
        """Mark a node as unreachable, and return whether it was reachable; failures while it is marked count once."""
        dead = self._dead.get(node)
        if dead is None:
            self._dead[node] = _Dead(1, now + BACK_OFF_S)
        elif dead.until <= now:
            pause = min(BACK_OFF_S_MAX, BACK_OFF_S * 2**dead.failures)
            self._dead[node] = _Dead(dead.failures + 1, now + pause)
        return dead is None

    def reachable(self) -> Mapping[Node, bool]:
        return {node: node not in self._dead for node in self._nodes}

    def reached(self, node: Node) -> bool:
        """Mark a node as reachable, and return whether it was unreachable."""
        return self._dead.pop(node, None) is not None


class _Ping:
    """Receives the response to a ping: any byte of it shows that the node is there."""

    reads_content = False

    def __init__(self) -> None:
        self.over = asyncio.Event()

    def interim(self, head: ResponseHead) -> None:
        """Do nothing: the response follows."""

    def response(self, head: ResponseHead) -> None:  # noqa: ARG002
        self.over.set()

    def body(self, raw: bytes, content: list[bytes]) -> None:
        """Do nothing: a response to HEAD has none."""

    def end(self, *, clean: bool) -> None:
        """Do nothing, see `response`."""

    def lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self.over.set()

    def pause(self) -> None:
        """Do nothing: the request is small."""

    def resume(self) -> None:
        """Do nothing, see `pause`."""


class Nodes:
    """Opens connections to the engine's nodes."""

    def __init__(
        self, settings: Engine, addresses: Addresses | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._addresses = addresses or Addresses()
        self._pool = NodePool([read_node(url, settings.host) for url in settings.urls], now)
        self._timeout = settings.connect_timeout_seconds
        self._tls = towards_engine(settings)
        self._are_several = len(settings.urls) > 1
        self._watched: dict[Node, asyncio.Task[None]] = {}
        self._silent: set[Node] = set()
        """Those that do not even answer a ping."""

    def secure_by(self, tls: ssl.SSLContext | None) -> None:
        """Use other certificates for new connections."""
        self._tls = tls

    def reachable(self) -> Mapping[Node, bool]:
        """Return for each node whether the last attempt to reach it succeeded, or there was none, and it responds."""
        return {node: reached and node not in self._silent for node, reached in self._pool.reachable().items()}

    def next_order(self) -> list[Node]:
        """Return all nodes in the order in which to try them now, and advance the rotation."""
        if self._are_several:
            self._watch_silent()
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
        """Open a connection to one node; raises Unreachable.

        A node that does not even refuse it, because its machine is gone, is silent.
        """
        pulse = self._pool.pulses[node]
        pulse.asked()
        try:
            connection = await self._open(node)
        except OSError as error:  # includes TimeoutError and TLS errors
            self._addresses.forget(node.host)
            detail = connection_error(error) or "no connection in time"
            if self._pool.failed(node, time.monotonic()) and self._are_several:
                _log.warning("node_unreachable", node=str(node), detail=f"{detail}. The other nodes are used")
            raise Unreachable(SERVICE, f"{node}: {detail}") from error
        finally:
            pulse.ended()
        if self._pool.reached(node) and self._are_several:
            _log.info("node_reachable", node=str(node))
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
            lambda: EngineConnection(node, self._pool.pulses[node]),
            address,
            node.port,
            ssl=self._tls if node.tls else None,
            server_hostname=node.host if node.tls else None,
        )
        return connection

    # -- silent nodes

    def _watch_silent(self) -> None:
        """Begin to ping the nodes that are silent."""
        for node, pulse in self._pool.pulses.items():
            if pulse.is_silent and node not in self._watched:
                task = asyncio.get_running_loop().create_task(self._until_heard(node, pulse))
                self._watched[node] = task
                task.add_done_callback(partial(self._unwatched, node))

    def _unwatched(self, node: Node, _: asyncio.Task[None]) -> None:
        self._silent.discard(node)
        del self._watched[node]

    async def _until_heard(self, node: Node, pulse: Pulse) -> None:
        """Ping a node until anything is heard from it; one that only computes a response says so at once."""
        await self._ping(node)
        if not pulse.is_silent:
            return
        self._silent.add(node)
        _log.warning("node_silent", node=str(node), detail="It does not respond. The other nodes are used")
        while pulse.is_silent:
            await asyncio.sleep(PING_S)
            await self._ping(node)
        _log.info("node_responds", node=str(node))

    async def _ping(self, node: Node) -> None:
        """Send what the clients' `ping` sends, without credentials, and wait a moment for the response."""
        ping = _Ping()
        try:
            async with asyncio.timeout(PING_S):
                connection = await self._open(node)
                try:
                    head = b"HEAD %s/ HTTP/1.1\r\n" % node.prefix + header_lines([(b"Host", node.authority)]) + b"\r\n"
                    connection.send(ping, b"HEAD", head)
                    await ping.over.wait()
                finally:
                    connection.close()
        except OSError:  # includes TimeoutError and TLS errors
            return

    def close(self) -> None:
        """Stop pinging."""
        for task in self._watched.values():
            task.cancel()
