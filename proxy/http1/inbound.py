"""A client's connection: its requests are handled one after the other, each as an Exchange; the rest waits unread.

The HTTP parser is the proxy's own, because the proxy must accept whatever the engine accepts: every method and every
target, byte for byte. One client connection may carry requests of many callers (a load balancer's pool). So it has at
most one request in progress, and at most one connection to the engine, which no other client connection ever uses.
"""

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, cast

from proxy.bounds import WRITE_BUFFER_BYTES
from proxy.context import Ended, RequestRecord
from proxy.http1.exchange import Broken, Exchange, Work
from proxy.http1.flow import Hold, ReadGate, reset
from proxy.http1.framing import BadMessage
from proxy.http1.headers import REASONS, HeadWriter, header_lines, own_error
from proxy.http1.messages import read_request_head
from proxy.http1.unread import UnreadBytes

if TYPE_CHECKING:
    from proxy.http1.outbound import EngineConnection


class Owner(Protocol):
    """The listener that a client's connection belongs to."""

    closing: bool

    def handle(self, exchange: Exchange) -> Work | None:
        """Return the coroutine that responds to a request; None if a relay has been started instead."""

    def failed(self, exchange: Exchange, error: Exception) -> None:
        """Respond to a request whose handler raised an unexpected exception."""

    def refused(self, why: BadMessage) -> None: ...

    def concluded(self, record: RequestRecord | None, ended: Ended) -> None:
        """Report the end of a request, once for each; the record is None if it was passed through."""

    def joined(self, client: "ClientConnection") -> None: ...

    def left(self, client: "ClientConnection") -> None: ...


class ClientConnection(asyncio.Protocol):
    """A client's connection and its own connection to the engine, if it needs one."""

    __slots__ = (
        "_exchange",
        "_is_answered",
        "_loop",
        "_outliving",
        "_owner",
        "_paused",
        "_unread",
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
        """Monotonic time since which the client is to send a head or a body or its rest, to read, or to leave."""
        self.lingering = False
        """Whether the last response has been sent, and further input is discarded."""
        self.ended = False
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._exchange: Exchange | None = None
        self._outliving: Exchange | None = None
        """A write that is still being delivered although the client has left."""
        self.request_writer = HeadWriter()
        self.response_writer = HeadWriter()
        self._unread = UnreadBytes()
        self._paused = False
        self._is_answered = False
        """Whether the exchange in progress ends when the client has read most of its response."""

    @property
    def closing(self) -> bool:
        """Whether no further request is accepted."""
        return self.ended or self.lingering or self._owner.closing

    @property
    def busy(self) -> Exchange | None:
        """The exchange in progress."""
        return self._exchange

    @property
    def is_served(self) -> bool:
        """Whether a request is in progress, and the connection is not just waiting for its client."""
        return self._exchange is not None and not self._exchange.answered

    @property
    def in_head(self) -> bool:
        """Whether a head has been received in part."""
        return self._exchange is None and bool(self._unread.kept)

    @property
    def in_body(self) -> bool:
        """Whether the rest of a body is read as soon as the client sends it."""
        return self._exchange is not None and not self._exchange.whole and not self.gate.is_held

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
            if not (self.ended or self.lingering):
                self._head(data)
        elif exchange.whole:
            self._keep(data)
        else:
            self._body(exchange, data)

    def eof_received(self) -> bool:
        """Treat the end of the client's input as a disconnect, as the engine does (Netty without half-closure)."""
        self._leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio.Protocol's own signature
        self._leave()
        self._owner.left(self)

    def pause_writing(self) -> None:
        self._paused, self.since = True, time.monotonic()
        if self._exchange is not None and self._exchange.relay is not None:
            self._exchange.relay.client_paused()

    def resume_writing(self) -> None:
        self._paused = False
        if self._exchange is None:
            return
        if self._exchange.relay is not None:
            self._exchange.relay.client_resumed()
        elif self._is_answered:
            self.done(self._exchange)

    # -- requests

    def _head(self, data: bytes = b"") -> None:
        """Look for a complete head, and start its exchange."""
        try:
            found = self._unread.take_head(data)
            if found is None:
                if 0 < len(self._unread.kept) <= len(data):  # it began with these bytes
                    self.since = time.monotonic()
                return
            head = read_request_head(found[0])
        except BadMessage as error:
            self.refuse(error)
            return
        exchange = self._exchange = Exchange(head, self)
        self.since = time.monotonic()
        if behind := found[1]:
            self._behind_head(exchange, behind)
        if self._exchange is exchange:
            self._begin(exchange)

    def _behind_head(self, exchange: Exchange, data: bytes) -> None:
        if exchange.whole:
            self._keep(data)
        else:
            self._body(exchange, data)

    def _keep(self, data: bytes) -> None:
        """Keep bytes of later requests, and beyond a limit pause reading until it is their turn.

        Until then, it is noticed that the client leaves.
        """
        self._unread.keep(data)
        if self._unread.is_full:
            self.gate.hold(Hold.NEXT)

    def _body(self, exchange: Exchange, data: bytes) -> None:
        """Process bytes of a request body."""
        self.since = time.monotonic()
        try:
            stop = exchange.take(data)
        except BadMessage as error:
            self._bad_body(exchange, error)
            return
        if stop < len(data):
            if exchange.whole:
                self._keep(data[stop:])
                if self._exchange is None:  # the response was sent earlier, and only the rest of the body was missing
                    self._loop.call_soon(self._take_pending)
            else:
                self.gate.hold(Hold.TURN)
                self._loop.call_soon(self._go_on, exchange, data[stop:])
        if exchange.answered:
            self.done(exchange)

    def _go_on(self, exchange: Exchange, data: bytes) -> None:
        """Continue reading in a later turn of the event loop."""
        if self._exchange is exchange and not self.ended:
            self.gate.release(Hold.TURN)
            self._body(exchange, data)

    def _bad_body(self, exchange: Exchange, error: BadMessage) -> None:
        exchange.reusable = False
        if exchange.fail(error):
            return
        self._exchange = None  # the cancelled task must no longer decide what happens to the connection
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
        except Exception as error:  # noqa: BLE001  the last resort: any error costs this request alone
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
        if task.cancelled() or isinstance(error, OSError):  # OSError includes TLS errors
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
        """Continue when most of a response has been sent: read the next request, or close the connection."""
        if exchange is self._outliving:
            self._deliver_next()
        if self._exchange is not exchange or self.ended:
            return
        self._is_answered = self._paused
        if self._paused:  # otherwise the responses to pipelined requests of a client that does not read would pile up
            return
        self.conclude(exchange, Ended.ANSWERED)
        if not (exchange.reusable and exchange.head.keep_alive):
            self._close_gently(exchange)
        elif exchange.whole:
            self._next()
        elif not exchange.discard_rest():
            self._close_gently(exchange)

    def conclude(self, exchange: Exchange, ended: Ended) -> None:
        """Report the end of a request; only the first call for a request has an effect."""
        if not exchange.concluded:
            exchange.concluded = True
            self._owner.concluded(exchange.record, ended)

    def _next(self) -> None:
        self._exchange = None
        self.since = time.monotonic()
        if self._unread.kept:
            self._loop.call_soon(self._take_pending)

    def _take_pending(self) -> None:
        if self._exchange is not None or self.ended:
            return
        self.since = time.monotonic()
        self.gate.release(Hold.NEXT)
        self._head()

    # -- responses

    def write(self, piece: bytes) -> None:
        if not (self.ended or self.lingering):
            self.transport.write(piece)

    @property
    def paused(self) -> bool:
        """Whether the client reads more slowly than the proxy writes."""
        return self._paused

    def refuse(self, error: BadMessage, exchange: Exchange | None = None) -> None:
        """Respond to a malformed message with an error, and close; `exchange` is None if the head is malformed."""
        self._owner.refused(error)
        if exchange is None:
            self._owner.concluded(None, Ended.REFUSED)
        else:
            self.conclude(exchange, Ended.REFUSED)
        body, fields = b"", [(b"content-length", b"0")]
        if error.status != 417:  # whose response has no body: seen on Elasticsearch 8.19.13
            body = own_error(error.status, "bad_http_message", str(error))
            fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        start = b"HTTP/1.1 %d %s\r\n" % (error.status, REASONS.get(error.status, b""))
        self.write(start + header_lines([*fields, (b"connection", b"close")]) + b"\r\n" + body)
        self._close_gently(None)

    # -- closing

    def _close_gently(self, exchange: Exchange | None) -> None:
        """Close so that the client can still read the last response: discard its further input for a while.

        Closing a socket with unread input resets it, and the client may lose the response (RFC 9112, section 9.6).
        """
        self._exchange = None
        self.drop_engine()
        transport = self.transport
        last = exchange is not None and exchange.whole and not exchange.head.keep_alive and not self._unread.kept
        if last or self._owner.closing or transport.is_closing() or not transport.can_write_eof():
            self.ended = True
            transport.close()
            return
        self._unread.clear()
        self.lingering, self.since = True, time.monotonic()
        transport.write_eof()
        self.gate.release(Hold.BODY | Hold.NEXT | Hold.PEER | Hold.TURN)

    def close(self) -> None:
        """Close the connection after everything has been written."""
        self.ended, self.since = True, time.monotonic()
        self.drop_engine()
        self.transport.close()

    def abort(self) -> None:
        """Reset the connection."""
        self.ended = True
        self.drop_engine()
        reset(self.transport)

    def cut(self) -> None:
        """Abort the exchange in progress and reset the connection."""
        if self._exchange is not None:
            self._exchange.broken = True
        self._leave()
        reset(self.transport)

    def drop_engine(self) -> None:
        """Close the connection to the engine; the client's stays open."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()

    def engine_ended(self) -> None:
        """Close after the engine closed its idle connection or sent unrequested data on it."""
        self.engine = None
        if self._exchange is None:
            self.close()
        else:
            self._exchange.reusable = False

    def _leave(self) -> None:
        """Stop the exchange in progress after the client disconnected, and deliver the writes behind it.

        The engine itself would have begun them at once: seen on Elasticsearch 8.19.13.
        """
        exchange, self._exchange = self._exchange, None
        goes_on = not self.closing
        self.ended = True
        if exchange is not None:
            goes_on &= exchange.whole and exchange.reusable and exchange.head.keep_alive
            self._stop(exchange)
        self.drop_engine()
        if goes_on and self._unread.kept and self._outliving is None:
            self._deliver_next()

    def _stop(self, exchange: Exchange) -> None:
        """Cancel the work on an exchange, except for the delivery of a write."""
        exchange.reusable = False
        if exchange.task is not None:
            exchange.task.cancel()
        exchange.fail(Broken())
        self.conclude(exchange, Ended.BROKEN_OFF if exchange.broken else Ended.CLIENT_LEFT)
        if exchange.relay is not None:
            exchange.relay.client_left()
        self._outliving = exchange if exchange.relay is not None else None

    def _deliver_next(self) -> None:
        """Begin the next request of a client that has left, one after the other, as if it left only then."""
        self._outliving = None
        if self._owner.closing:
            return
        with suppress(BadMessage):
            if found := self._unread.take_head():
                self._deliver(Exchange(read_request_head(found[0]), self), found[1])

    def _deliver(self, exchange: Exchange, data: bytes) -> None:
        """Begin a request once its body is whole; it is read in parts, one in each turn of the event loop."""
        try:
            stop = exchange.take(data)
        except BadMessage:
            return
        if exchange.whole:
            if exchange.head.keep_alive:
                self._unread.keep(data[stop:])
            self._begin(exchange)
            self._stop(exchange)
            if self._outliving is None:
                self._loop.call_soon(self._deliver_next)
        elif stop < len(data):
            self._loop.call_soon(self._deliver, exchange, data[stop:])
