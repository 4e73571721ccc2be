"""A client's connection: its requests one after the other, each an Exchange; the rest waits unread.

A connection of its own because a proxy must take what its engine would take: every method, every target, raw. One
client connection may carry many callers (a balancer's pool), so it has at most one request under way, and at most one
connection to the engine, which no other client connection ever uses.
"""

import asyncio
import re
import time
from typing import TYPE_CHECKING, Protocol, cast

from proxy.bounds import REQUEST_HEAD_BYTES, WRITE_BUFFER_BYTES
from proxy.context import Ended, RequestRecord
from proxy.http1.exchange import Broken, Exchange, Work
from proxy.http1.flow import Hold, ReadGate, reset
from proxy.http1.headers import REASONS, HeadWriter, own_error, written
from proxy.http1.messages import BadMessage, RequestHeadReader, head_length

if TYPE_CHECKING:
    from proxy.http1.outbound import EngineConnection


class Owner(Protocol):
    """What a client's connection belongs to."""

    closing: bool

    def handle(self, exchange: Exchange) -> Work | None:
        """Answer a request; None where that has been begun without a task, as a relay."""

    def failed(self, exchange: Exchange, error: Exception) -> None:
        """Answer a request whose handler raised what nobody expected."""

    def refused(self, why: BadMessage) -> None: ...

    def concluded(self, record: RequestRecord | None, ended: Ended) -> None:
        """Take note of a request's end, once for each; None for one that was handed on."""

    def joined(self, client: "ClientConnection") -> None: ...

    def left(self, client: "ClientConnection") -> None: ...


class ClientConnection(asyncio.Protocol):
    """A client's connection and, while it needs one, its own connection to the engine."""

    __slots__ = (
        "_drains",
        "_exchange",
        "_heads",
        "_looked_at",
        "_loop",
        "_lost",
        "_owner",
        "_paused",
        "_pending",
        "ended",
        "engine",
        "gate",
        "lingering",
        "peer",
        "request_writer",
        "response_writer",
        "since",
        "transport",
    )

    def __init__(self, owner: Owner) -> None:
        self.transport: asyncio.Transport
        self.gate: ReadGate
        self.peer = ""
        self.engine: EngineConnection | None = None
        self.since = time.monotonic()
        """When it began to wait for what it waits for: a head, its rest, or the client's leaving."""
        self.lingering = False
        """Whether the last response has been sent, and what still comes is dropped."""
        self.ended = False
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._exchange: Exchange | None = None
        self._heads = RequestHeadReader()
        self.request_writer = HeadWriter()
        self.response_writer = HeadWriter()
        self._pending = b""
        """What has come and belongs to no request yet: the beginning of a head, or what waits behind a request."""
        self._looked_at = 0
        self._paused = False
        self._lost = False
        self._drains: list[asyncio.Future[None]] = []

    @property
    def closing(self) -> bool:
        """Whether no further request is taken."""
        return self.ended or self.lingering or self._owner.closing

    @property
    def busy(self) -> Exchange | None:
        """The request that is being answered."""
        return self._exchange

    @property
    def in_head(self) -> bool:
        """Whether a head has begun to come and is not whole."""
        return self._exchange is None and bool(self._pending)

    # -- the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.gate = ReadGate(self.transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.peer = str((transport.get_extra_info("peername") or ("",))[0])
        self._owner.joined(self)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            if not self.closing:
                self._head(data)
        elif exchange.whole:
            self._keep(data)
        else:
            self._body(exchange, data)

    def eof_received(self) -> bool:
        """Take the end of what a client sends for its leaving, as the engine does (Netty's half-closure is off)."""
        self._leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio.Protocol's own signature
        self._lost = True
        self._leave()
        for waiting in self._drains:
            if not waiting.done():
                waiting.set_exception(Broken())
        self._owner.left(self)

    def pause_writing(self) -> None:
        self._paused = True
        if self._exchange is not None and self._exchange.relay is not None:
            self._exchange.relay.client_paused()

    def resume_writing(self) -> None:
        self._paused = False
        for waiting in self._drains:
            if not waiting.done():
                waiting.set_result(None)
        self._drains.clear()
        if self._exchange is not None and self._exchange.relay is not None:
            self._exchange.relay.client_resumed()

    # -- requests

    def _head(self, data: bytes) -> None:
        """Look for a whole head, and begin the exchange that it opens."""
        if self._pending:
            data = self._pending + data
        data = _without_blank_lines(data)
        length = head_length(data, self._looked_at)
        if length is None:
            self._wait_for_head(data)
            return
        self._pending, self._looked_at = b"", 0
        if length > REQUEST_HEAD_BYTES:
            self.refuse(BadMessage("the head is too large", 431))
            return
        try:
            head = self._heads.read(data[:length])
        except BadMessage as error:
            self.refuse(error)
            return
        exchange = self._exchange = Exchange(head, self)
        if length < len(data):
            self._behind_head(exchange, data[length:])
        if self._exchange is exchange:
            self._begin(exchange)

    def _behind_head(self, exchange: Exchange, data: bytes) -> None:
        if exchange.whole:
            self._keep(data)
        else:
            self._body(exchange, data)

    def _keep(self, data: bytes) -> None:
        """Keep what belongs to a later request, and read no more before that one's turn."""
        self._pending += data
        self.gate.hold(Hold.NEXT)

    def _wait_for_head(self, begun: bytes) -> None:
        if begun and not self._pending:
            self.since = time.monotonic()
        self._pending, self._looked_at = begun, len(begun)
        if len(begun) > REQUEST_HEAD_BYTES:
            self.refuse(BadMessage("the head is too large", 431))

    def _body(self, exchange: Exchange, data: bytes) -> None:
        """Take bytes of a request's body."""
        try:
            stop = exchange.take(data)
        except BadMessage as error:
            self._bad_body(exchange, error)
            return
        if stop < len(data):
            if exchange.whole:
                self._keep(data[stop:])
                if self._exchange is None:  # its response came before its end, and that was all it waited for
                    self._loop.call_soon(self._take_pending)
            else:
                self.gate.hold(Hold.TURN)
                self._loop.call_soon(self._go_on, exchange, data[stop:])
        if exchange.answered:
            self.done(exchange)

    def _go_on(self, exchange: Exchange, data: bytes) -> None:
        """Read on in another turn of the loop."""
        if self._exchange is exchange and not self.ended:
            self.gate.release(Hold.TURN)
            self._body(exchange, data)

    def _bad_body(self, exchange: Exchange, error: BadMessage) -> None:
        exchange.reusable = False
        if exchange.fail(error):
            return
        self._exchange = None  # what worked at it ends, and has no say in what becomes of the connection
        if exchange.relay is not None:
            exchange.relay.give_up()
        if exchange.task is not None:
            exchange.task.cancel()
        if exchange.begun:
            self.conclude(exchange, Ended.BROKEN_OFF)
            self.abort()
        else:
            self.refuse(error, exchange)

    def _begin(self, exchange: Exchange) -> None:
        try:
            work = self._owner.handle(exchange)
        except Exception as error:  # noqa: BLE001  the last resort: whatever it is, it costs this request alone
            self._owner.failed(exchange, error)
            return
        if work is not None:
            exchange.task = self._loop.create_task(work)
            exchange.task.add_done_callback(lambda task: self._worked(exchange, task))

    def _worked(self, exchange: Exchange, task: "asyncio.Task[None]") -> None:
        exchange.task = None
        error = None if task.cancelled() else task.exception()
        if self._exchange is not exchange:
            return
        if task.cancelled() or isinstance(error, OSError):  # among them what TLS finds wrong
            self.abort()
        elif isinstance(error, BadMessage) and not exchange.begun:
            self.refuse(error, exchange)
        elif isinstance(error, BadMessage):
            self.abort()
        elif isinstance(error, Exception):
            self._owner.failed(exchange, error)
        elif exchange.relay is None:
            self.done(exchange)

    def done(self, exchange: Exchange) -> None:
        """Go on after a response: to the next request, or to the connection's end."""
        if self._exchange is not exchange or self.ended:
            return
        self.conclude(exchange, Ended.ANSWERED)
        if not (exchange.reusable and exchange.head.keep_alive) or self.closing:
            self._close_gently(exchange)
        elif exchange.whole:
            self._next()
        elif not exchange.discard_rest():
            self._close_gently(exchange)

    def conclude(self, exchange: Exchange, ended: Ended) -> None:
        """Report a request's end, the first time that it is called for it."""
        if not exchange.concluded:
            exchange.concluded = True
            self._owner.concluded(exchange.record, ended)

    def _next(self) -> None:
        self._exchange = None
        self.since = time.monotonic()
        if self._pending:
            self._loop.call_soon(self._take_pending)

    def _take_pending(self) -> None:
        if self._exchange is not None or self.ended:
            return
        data, self._pending = self._pending, b""
        self.gate.release(Hold.NEXT)
        self._head(data)

    # -- responses

    def write(self, piece: bytes) -> None:
        if not (self.ended or self.lingering):
            self.transport.write(piece)

    @property
    def paused(self) -> bool:
        """Whether the client reads more slowly than is written."""
        return self._paused

    async def drained(self) -> None:
        """Wait until the client has taken most of what was written; raises Broken where it leaves."""
        if self.ended or self._lost:
            raise Broken
        if self._paused:
            waiting = self._loop.create_future()
            self._drains.append(waiting)
            await waiting

    def refuse(self, error: BadMessage, exchange: Exchange | None = None) -> None:
        """Answer what cannot be read, and end the connection; None where its head is what cannot be read."""
        self._owner.refused(error)
        if exchange is None:
            self._owner.concluded(None, Ended.REFUSED)
        else:
            self.conclude(exchange, Ended.REFUSED)
        body = own_error(error.status, "bad_http_message", str(error))
        fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        start = b"HTTP/1.1 %d %s\r\n" % (error.status, REASONS.get(error.status, b""))
        self.write(start + written([*fields, (b"connection", b"close")]) + b"\r\n" + body)
        self._close_gently(None)

    # -- ends

    def _close_gently(self, exchange: Exchange | None) -> None:
        """Close in a way that the last response survives: what the client still sends is read and dropped for a while.

        A socket closed with unread bytes is reset, which takes away what the client has not read (RFC 9112, 9.6).
        """
        self._exchange = None
        self.drop_engine()
        transport = self.transport
        last = exchange is not None and exchange.whole and not exchange.head.keep_alive and not self._pending
        if last or self._owner.closing or transport.is_closing() or not transport.can_write_eof():
            self.ended = True
            transport.close()
            return
        self._pending = b""
        self.lingering, self.since = True, time.monotonic()
        transport.write_eof()
        self.gate.release(Hold.BODY | Hold.NEXT | Hold.PEER | Hold.TURN)

    def close(self) -> None:
        """End the connection after what is written."""
        self.ended = True
        self.drop_engine()
        self.transport.close()

    def abort(self) -> None:
        """Break the connection off."""
        self.ended = True
        self.drop_engine()
        reset(self.transport)

    def cut(self) -> None:
        """Break off whatever goes on, and the connection."""
        if self._exchange is not None:
            self._exchange.broken = True
        self._leave()
        reset(self.transport)

    def drop_engine(self) -> None:
        """Close the connection to the engine, without touching the client."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()

    def engine_ended(self) -> None:
        """End with the engine, which left, or talked, while nothing was asked of it."""
        self.engine = None
        if self._exchange is None:
            self.close()
        else:
            self._exchange.reusable = False

    def _leave(self) -> None:
        """End what was going on for a client that has left."""
        exchange, self._exchange = self._exchange, None
        self.ended = True
        if exchange is not None:
            exchange.reusable = False
            if exchange.task is not None:
                exchange.task.cancel()
            exchange.fail(Broken())
            self.conclude(exchange, Ended.BROKEN_OFF if exchange.broken else Ended.CLIENT_LEFT)
            if exchange.relay is not None:
                exchange.relay.client_left()
        self.drop_engine()


_BLANK_LINES = re.compile(rb"(?:\r?\n)+")


def _without_blank_lines(data: bytes) -> bytes:
    """Drop the empty lines before a head: they are to be ignored (RFC 9112, section 2.2)."""
    if data[:1] not in b"\r\n":
        return data
    found = _BLANK_LINES.match(data)
    return data[found.end() :] if found else data
