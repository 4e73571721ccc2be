"""Listens for clients: each connection's requests one after the other, each as an Exchange for the handler.

A server of its own because a proxy must take what its engine would take: every method, every target, raw. A
client that leaves takes its handler along, so that nobody works, or pays, for an answer that no one reads.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog

from proxy.http1.headers import REASONS, Field, own_error, written
from proxy.http1.messages import BadMessage, RequestHead, read_request_head
from proxy.http1.wire import PIECE, Incoming, probed, reset

IDLE_S = 3600.0
"""How long a connection may wait between requests; the engine itself waits for ever."""
HEAD_S = 60.0
"""How long a client may take to send a head that it has begun."""
_LINGER_S = 2.0
_SMALL_REST = 256 * 1024

_log = structlog.get_logger("proxy")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer made here, whole."""

    status: int
    fields: Sequence[Field]
    body: bytes


@dataclass(slots=True)
class Exchange:
    """One request of a client, and the way to answer it."""

    head: RequestHead
    peer: str
    _incoming: Incoming
    _writer: asyncio.StreamWriter
    _raw: list[bytes] = field(default_factory=list)
    _rest: AsyncIterator[tuple[bytes, list[bytes]]] | None = None
    _whole: bool = False
    _content: bytes | None = None
    """The body out of its chunks, once it has been read."""
    _too_large: bool = False
    begun: bool = False
    reusable: bool = True
    """Whether the connection can take another request after this one."""
    was_read: bool = False
    """Whether some of the body was read here, so that a client that waits to be asked has been."""
    new_length: int | None = None
    """How long the body is that stands in place of the client's; None where that goes on as it came."""

    def __post_init__(self) -> None:
        at_hand = self._incoming.at_hand(self.head.framing)
        if at_hand is not None:
            self._raw, self._whole = [at_hand], True
        else:
            self._rest = self._incoming.body(self.head.framing)

    @property
    def replayable(self) -> bool:
        """Whether the whole body is here, to be sent as often as needed."""
        return self._whole

    async def read_body(self, limit: int) -> bytes | None:
        """Return the body's content, out of its chunks; None where it is larger than `limit`.

        Either way it stays there to be handed on, and may be read again. Raises BadMessage and Broken.
        """
        if self._too_large or self._content is not None:
            return self._content
        if self._rest is None:
            return b"".join(self._raw)
        if self.head.expects_continue and not self.was_read:
            await self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.was_read = True
        content: list[bytes] = []
        size = 0
        async for raw, pieces in self._rest:
            self._raw.append(raw)
            content += pieces
            size += sum(map(len, pieces))
            if size > limit:
                self._too_large = True
                return None
        self._whole, self._rest = True, None
        self._content = b"".join(content)
        return self._content

    def replace_body(self, body: bytes) -> None:
        """Hand on another body, plain and whole, in place of the client's, which has been read."""
        self._raw, self.new_length = [body], len(body)

    async def body_pieces(self) -> AsyncIterator[bytes]:
        """Yield the body's bytes as they were sent: those that are here, then the others as they come."""
        for piece in tuple(self._raw):
            yield piece
        if self._rest is not None:
            async for raw, _ in self._rest:
                yield raw
            self._whole, self._rest, self._raw = True, None, []

    async def write(self, piece: bytes) -> None:
        """Send bytes of an answer, no faster than the client reads."""
        self._writer.write(piece)
        await self._writer.drain()

    async def answer(self, answer: Answer) -> None:
        """Send an answer made here.

        A client that waited to be asked for its body, and was not, may send it or its next request: which of the
        two cannot be told, so the connection ends (RFC 9110, section 10.1.1).
        """
        self.begun = True
        if self._rest is not None and self.head.expects_continue and not self.was_read:
            self.reusable = False
        start = b"HTTP/1.1 %d %s\r\n" % (answer.status, REASONS.get(answer.status, b""))
        length: list[Field] = [(b"content-length", b"%d" % len(answer.body))]
        head = start + written([*answer.fields, *length, *self.connection_fields()]) + b"\r\n"
        await self.write(head if self.head.method == b"HEAD" else head + answer.body)

    def connection_fields(self) -> list[Field]:
        """Say whether the connection stays open, where the request's version does not imply it."""
        if not (self.reusable and self.head.keep_alive):
            return [(b"connection", b"close")]
        return [(b"connection", b"keep-alive")] if self.head.version == b"HTTP/1.0" else []

    def abort(self) -> None:
        """Break the connection off, so that half an answer is not taken for a whole one."""
        self.reusable = False
        reset(self._writer)

    async def finish(self) -> bool:
        """Read what little is left of the request; tell whether the connection can take another one."""
        if not (self.reusable and self.head.keep_alive):
            return False
        left = 0
        if self._rest is not None:
            async for raw, _ in self._rest:
                left += len(raw)
                if left > _SMALL_REST:
                    return False
        return True


Handler = Callable[[Exchange], Awaitable[None]]


class _Protocol(asyncio.StreamReaderProtocol):
    """A stream whose other end, when it leaves, is noticed at once."""

    gone: Callable[[], object] | None = None

    def eof_received(self) -> bool:
        keeps_open = super().eof_received()  # not where there is TLS, which has no half of a connection
        if self.gone:
            self.gone()
        return bool(keeps_open)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.gone:
            self.gone()


class Listener:
    """An open port and the connections that came by it."""

    def __init__(self, handler: Handler, head_seconds: float = HEAD_S) -> None:
        self._handler = handler
        self._head_seconds = head_seconds
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], Exchange | None] = {}
        """Each connection's task, and the request that it is busy with."""
        self._closing = False

    @property
    def port(self) -> int:
        assert self._server is not None  # noqa: S101  there is no Listener without, see `serve`
        return int(self._server.sockets[0].getsockname()[1])

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, host, port, backlog=1024, ssl=tls)

    def _protocol(self) -> _Protocol:
        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Awaitable[None]:
            return self._connection(protocol, reader, writer)

        protocol = _Protocol(asyncio.StreamReader(limit=PIECE), connected)
        return protocol

    async def _connection(
        self, protocol: _Protocol, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  a coroutine runs in a task
        self._connections[task] = None
        try:
            probed(writer.get_extra_info("socket"))
            await self._requests(protocol, Incoming(reader), writer, task)
            self._connections[task] = None
            if not self._closing:
                await _linger(reader, writer)
        except (OSError, asyncio.CancelledError):  # among them ConnectionError, TimeoutError and what TLS finds wrong
            reset(writer)
        finally:
            protocol.gone = None
            del self._connections[task]
            writer.close()

    async def _requests(
        self, protocol: _Protocol, incoming: Incoming, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> None:
        peer = str((writer.get_extra_info("peername") or ("",))[0])
        while not self._closing:
            self._connections[task] = None
            try:
                raw = await self._next_head(incoming)
                if not raw:
                    return
                head = read_request_head(raw)
            except BadMessage as error:
                await _refuse(writer, error)
                return
            self._connections[task] = exchange = Exchange(head, peer, incoming, writer)
            protocol.gone = task.cancel
            try:
                if not await self._answered(exchange, writer):
                    return
            finally:
                protocol.gone = None

    async def _next_head(self, incoming: Incoming) -> bytes:
        async with asyncio.timeout(IDLE_S):
            if not await incoming.begins():
                return b""
        try:
            async with asyncio.timeout(self._head_seconds):
                return await incoming.head()
        except TimeoutError:
            raise BadMessage("the head came too slowly", 408) from None

    async def _answered(self, exchange: Exchange, writer: asyncio.StreamWriter) -> bool:
        """Let the handler answer; tell whether the connection goes on."""
        try:
            await self._handler(exchange)
            return await exchange.finish() and not self._closing
        except BadMessage as error:
            if exchange.begun:
                exchange.abort()
            else:
                await _refuse(writer, error)
        return False

    async def close(self, grace: float) -> None:
        """Take no more requests, let the running ones end, and after `grace` seconds break them off."""
        self._closing = True
        if self._server is not None:
            self._server.close()
        for task, exchange in tuple(self._connections.items()):
            if exchange is None:
                task.cancel()
            else:
                exchange.reusable = False
        if self._connections:
            _, late = await asyncio.wait(tuple(self._connections), timeout=grace)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)


async def _refuse(writer: asyncio.StreamWriter, error: BadMessage) -> None:
    body = own_error(error.status, "bad_http_message", str(error))
    fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    start = b"HTTP/1.1 %d %s\r\n" % (error.status, REASONS.get(error.status, b""))
    _log.warning("refused", why=str(error), status=error.status)
    writer.write(start + written([*fields, (b"connection", b"close")]) + b"\r\n" + body)
    await writer.drain()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close in a way that the last answer survives: what the client still sends is read and dropped for a while.

    A socket closed with unread bytes is reset, which takes away what the client has not read (RFC 9112, section 9.6).
    """
    if writer.can_write_eof() and not writer.is_closing():
        writer.write_eof()
        async with asyncio.timeout(_LINGER_S):
            while await reader.read(PIECE):
                pass


async def serve(
    handler: Handler, host: str, port: int, *, tls: ssl.SSLContext | None = None, head_seconds: float = HEAD_S
) -> Listener:
    """Open a port; 0 takes a free one."""
    listener = Listener(handler, head_seconds)
    await listener.open(host, port, tls)
    return listener
