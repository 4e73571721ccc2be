"""The proxy's own requests to the engine, on connections that carry no client's bytes.

A request is never sent twice, except a GET that is not a search, if its kept connection closed before the first byte of
the response, or its node is silent.
"""

import asyncio
import re
import time
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from proxy.bounds import SEARCH_RESPONSE_BYTES
from proxy.errors import Lost, Malformed, TooLarge, Unreachable
from proxy.http1.framing import BadMessage
from proxy.http1.headers import Hop, header_lines
from proxy.http1.messages import MAY_BE_OUT_OF_STEP, ResponseHead
from proxy.http1.outbound import AGE_S, EngineConnection, Node
from proxy.http1.pulse import SILENT_S
from proxy.ranking.planning import EngineReply
from proxy.upstream.held import of_request
from proxy.upstream.nodes import SERVICE, Nodes

CarriedFields = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One request, for any node."""

    method: str
    target: str
    fields: CarriedFields
    body: bytes | None = None

    def written(self, node: Node, hop: Hop) -> bytes:
        """Return the request as bytes for a node."""
        added = hop.fields("")
        length = [] if self.body is None else [(b"content-length", b"%d" % len(self.body))]
        fields = [(name.encode(), value.encode("latin-1")) for name, value in _accepting_gzip(self.fields)]
        start = b"%s %s%s HTTP/1.1\r\n" % (self.method.encode(), node.prefix, self.target.encode())
        head = start + header_lines([(b"Host", node.authority), *fields, *added, *length]) + b"\r\n"
        return head + (self.body or b"")

    @property
    def repeatable(self) -> bool:
        return self.method == "GET" and "/_search" not in self.target and "_async_search" not in self.target


def _accepting_gzip(fields: CarriedFields) -> list[tuple[str, str]]:
    """Request gzip if the caller accepts it, and no other coding: the proxy could not decode it."""
    kept = [(name, value) for name, value in fields if name.lower() != "accept-encoding"]
    accepted = ",".join(value for name, value in fields if name.lower() == "accept-encoding")
    return [*kept, ("Accept-Encoding", "gzip")] if accepts_gzip(accepted) else kept


def accepts_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding header accepts gzip (RFC 9110, section 12.5.3)."""
    for each in accepted.split(","):
        coding, _, parameters = each.partition(";")
        if coding.strip().lower() in {"gzip", "x-gzip"}:
            return re.fullmatch(r"\s*q\s*=\s*0(?:\.0*)?\s*", parameters) is None
    return False


class _Collected:
    """Collects one response, decompressed, up to SEARCH_RESPONSE_BYTES bytes."""

    reads_content = True

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection
        self.done: asyncio.Future[EngineReply] = asyncio.get_running_loop().create_future()
        self.begun = False
        self.clean = False
        self._head: ResponseHead | None = None
        self._content: list[bytes] = []
        self._received = 0
        self._size = 0
        self._inflating: zlib._Decompress | None = None
        self._held = of_request.get()

    def interim(self, head: ResponseHead) -> None:  # noqa: ARG002
        self.begun = True

    def response(self, head: ResponseHead) -> None:
        self.begun, self._head = True, head
        coding = b",".join(line.value for line in head.lines if line.key == b"content-encoding").strip().lower()
        if coding == b"gzip":
            self._inflating = zlib.decompressobj(wbits=31)
        elif coding not in {b"", b"identity"}:
            self._fail(Malformed(SERVICE, f"its response has the unsupported content coding {coding[:20]!r}"))

    def body(self, raw: bytes, content: list[bytes]) -> None:
        self._received += len(raw)
        if self._received > 2 * SEARCH_RESPONSE_BYTES:
            self._fail(_too_large())
        for piece in content:
            self._add(piece)

    def _add(self, piece: bytes) -> None:
        if self.done.done():
            return
        if self._inflating is not None:
            try:
                piece = self._inflating.decompress(piece, SEARCH_RESPONSE_BYTES + 1 - self._size)
            except zlib.error as error:
                self._fail(Malformed(SERVICE, f"its response is not gzip: {error}"))
                return
        self._size += len(piece)
        if self._size > SEARCH_RESPONSE_BYTES:
            self._fail(_too_large())
        elif self._held is not None and not self._held.take(len(piece)):
            self._fail(TooLarge(SERVICE, "its responses to the searches in progress are too large together"))
        else:
            self._content.append(piece)

    def end(self, *, clean: bool) -> None:
        head = self._head
        if self.done.done() or head is None:
            return
        if self._inflating is not None and self._size and not self._inflating.eof:
            self._fail(Malformed(SERVICE, "its gzip response is truncated"))
            return
        in_step = self._connection.flushed and head.status not in MAY_BE_OUT_OF_STEP
        self.clean = clean and head.keep_alive and in_step
        fields = tuple((line.name, line.value) for line in head.lines)
        self.done.set_result(EngineReply(head.status, fields, b"".join(self._content)))

    def lost(self, error: Exception | None) -> None:
        if isinstance(error, BadMessage):
            self._fail(Malformed(SERVICE, f"its response is not HTTP: {error}"))
        else:
            detail = f"{self._connection.node}: the connection closed before the response"
            self._fail(Lost(SERVICE, f"{detail}: {error}" if error else detail))

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
        if not self._connection.closed:
            self._connection.close()

    def pause(self) -> None:
        """Do nothing: the whole request was handed over; a response before its end closes the connection."""

    def resume(self) -> None:
        """Do nothing, see `pause`."""


async def _unless_silent(connection: EngineConnection, collected: _Collected) -> None:
    """Wait for a response; raises Lost if its node is silent instead, and another is not."""
    while not collected.done.done():
        await asyncio.wait({collected.done}, timeout=SILENT_S)
        if not collected.done.done() and connection.is_avoided:
            raise Lost(SERVICE, f"{connection.node}: it does not respond")


def _too_large() -> TooLarge:
    return TooLarge(SERVICE, f"its response has more than {SEARCH_RESPONSE_BYTES // 2**20} MB")


_NONE: Mapping[Node, deque[EngineConnection]] = MappingProxyType({})


class EnginePool:
    """The connections for the proxy's own requests."""

    def __init__(self, nodes: Nodes, hop: Hop, idle_seconds: float, age_seconds: float = AGE_S) -> None:
        self._nodes = nodes
        self._hop = hop
        self._idle_seconds = idle_seconds
        self._age_seconds = age_seconds
        self._idle: dict[Node, deque[EngineConnection]] = {}

    async def send(self, asked: EngineRequest) -> EngineReply:
        """Send one request, and return its response whatever its status; raises UpstreamError."""
        connection = await self._opened(self._idle)
        kept = connection.was_idle
        collected = _Collected(connection)
        try:
            return await self._answer(connection, collected, asked)
        except Lost:
            if not (asked.repeatable and not collected.begun and (kept or connection.is_avoided)):
                raise
        connection = await self._opened()
        return await self._answer(connection, _Collected(connection), asked)

    async def _answer(self, connection: EngineConnection, collected: _Collected, asked: EngineRequest) -> EngineReply:
        connection.send(collected, asked.method.encode(), asked.written(connection.node, self._hop))
        try:
            if asked.repeatable:
                await _unless_silent(connection, collected)
            reply = await collected.done
        except BaseException:
            connection.close()
            raise
        if collected.clean:
            self._keep(connection)
        else:
            connection.close()
        return reply

    async def _opened(self, idle: Mapping[Node, deque[EngineConnection]] = _NONE) -> EngineConnection:
        """Return a connection to the next node in rotation: a usable idle one, or a new one."""
        failures: list[str] = []
        for node in self._nodes.next_order():
            if kept := self._usable(idle.get(node)):
                return kept
            try:
                return await self._nodes.open(node)
            except Unreachable as error:
                failures.append(error.detail)
        raise Unreachable(SERVICE, "; ".join(failures))

    def _usable(self, idle: deque[EngineConnection] | None) -> EngineConnection | None:
        while idle:
            connection = idle.pop()
            if self._is_recent(connection, time.monotonic()) and connection.usable():
                return connection
            connection.close()
        return None

    def _is_recent(self, connection: EngineConnection, now: float) -> bool:
        return now - connection.idle_since < self._idle_seconds and now - connection.opened < self._age_seconds

    def _keep(self, connection: EngineConnection) -> None:
        """Keep a connection for the next request.

        The connection kept last is used first. Those at the front are no longer needed after a while, and are closed.
        """
        idle = self._idle.setdefault(connection.node, deque())
        while idle and (idle[0].closed or connection.idle_since - idle[0].idle_since > self._idle_seconds):
            idle.popleft().close()
        idle.append(connection)

    async def close(self) -> None:
        """Close all idle connections."""
        for idle in self._idle.values():
            while idle:
                idle.pop().close()
        await asyncio.sleep(0)
