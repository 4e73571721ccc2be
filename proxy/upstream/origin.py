"""The engine's nodes as plain connections: what is handed on goes by these, byte for byte."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

from proxy.config import Engine
from proxy.errors import Unreachable
from proxy.http1.wire import PIECE, Incoming, probed
from proxy.tls import towards_engine

SERVICE = "engine"


@dataclass(frozen=True, slots=True)
class Node:
    """Where one node listens."""

    host: str
    port: int
    tls: bool
    authority: bytes
    prefix: bytes


class _Protocol(asyncio.StreamReaderProtocol):
    """A stream that ends by what comes unasked: it would be taken for the next request's answer."""

    idle = False
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.idle:
            self.transport.abort()
        else:
            super().data_received(data)


@dataclass(slots=True)
class Connection:
    """A connection to a node."""

    node: Node
    incoming: Incoming
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    protocol: _Protocol
    reused: bool = False
    idle_since: float = field(default_factory=time.monotonic)

    @property
    def usable(self) -> bool:
        """Whether it can take another request: still open, and nothing came that belongs to no answer."""
        buffered = bool(self.reader._buffer)  # type: ignore[attr-defined]  # noqa: SLF001  nothing public tells
        ended = self.reader.at_eof() or self.writer.is_closing()
        return not (ended or buffered) and self.incoming.empty

    def abort(self) -> None:
        self.writer.transport.abort()


def read_node(url: str, host: str | None = None) -> Node:
    """Read a node's URL; its path is put before every target, and `host` is what it is called by, if not by that."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return Node(
        host=parts.hostname or "",
        port=parts.port or (443 if tls else 80),
        tls=tls,
        authority=(host or parts.netloc.rpartition("@")[2]).encode(),
        prefix=parts.path.rstrip("/").encode(),
    )


class Origin:
    """The nodes of one cluster and the connections to them that wait for their next request."""

    def __init__(self, settings: Engine) -> None:
        self._nodes = [read_node(url, settings.host) for url in settings.urls]
        self._idle: dict[Node, deque[Connection]] = {node: deque() for node in self._nodes}
        self._connect_timeout = settings.connect_timeout_seconds
        self._idle_limit = settings.idle_connection_seconds
        self._tls = towards_engine(settings)
        self.product: bytes | None = None
        """X-Elastic-Product as the engine sends it; the answers made in its place carry it too."""
        self.outliving: set[asyncio.Task[None]] = set()
        """Writes whose client has left, and which go on all the same."""

    async def connect(self, *, fresh: bool = False) -> Connection:
        """Return a connection: one that waits, else a new one to the first node that takes it.

        Raises Unreachable where none does.
        """
        failures: list[str] = []
        for node in tuple(self._nodes):
            if not fresh and (waiting := self._waiting(node)):
                return waiting
            try:
                return await self._open(node)
            except OSError as error:  # TimeoutError is one
                failures.append(f"{node.authority.decode()}: {str(error) or 'no connection in time'}")
                self._nodes.append(self._nodes.pop(0))
        raise Unreachable(SERVICE, "; ".join(failures))

    def _waiting(self, node: Node) -> Connection | None:
        idle = self._idle[node]
        while idle:
            connection = idle.pop()
            if connection.usable and time.monotonic() - connection.idle_since < self._idle_limit:
                connection.reused = True
                connection.protocol.idle = False
                return connection
            connection.abort()
        return None

    async def _open(self, node: Node) -> Connection:
        async with asyncio.timeout(self._connect_timeout):
            loop = asyncio.get_running_loop()
            reader = asyncio.StreamReader(limit=PIECE)
            transport, protocol = await loop.create_connection(
                lambda: _Protocol(reader), node.host, node.port, ssl=self._tls if node.tls else None
            )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        probed(writer.get_extra_info("socket"))
        return Connection(node, Incoming(reader), reader, writer, protocol)

    def release(self, connection: Connection) -> None:
        """Keep a connection, whose answer has been read to its end, for the next request.

        The last one kept is the first one used, so those that are left of a busy hour are closed here.
        """
        connection.idle_since = now = time.monotonic()
        connection.protocol.idle = True
        idle = self._idle[connection.node]
        while idle and now - idle[0].idle_since > self._idle_limit:
            idle.popleft().abort()
        idle.append(connection)

    def outlived(self, write: asyncio.Task[None]) -> None:
        """Forget a write whose client had left, once it has ended; nobody is there to hear how."""
        self.outliving.discard(write)
        if not write.cancelled():
            write.exception()

    async def finish(self, grace: float) -> None:
        """Let the writes end whose clients have left; what takes longer than `grace` seconds is broken off."""
        if self.outliving:
            await asyncio.wait(tuple(self.outliving), timeout=grace)

    def close(self) -> None:
        for idle in self._idle.values():
            while idle:
                idle.pop().abort()
