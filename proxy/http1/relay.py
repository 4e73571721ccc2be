"""Relays one exchange to the engine and its response back; only hop-by-hop headers are changed.

The client's connection and its connection to the engine close together unless both are provably in step: the request
was sent completely before its response began, both had unambiguous framing, and no data followed. A request is never
sent twice, except a GET or HEAD whose kept connection closed before the first byte of the response.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from proxy.bounds import REPEATED_BYTES
from proxy.errors import Unreachable
from proxy.http1.exchange import Answer, Client, Exchange
from proxy.http1.flow import Hold
from proxy.http1.framing import BadMessage, UntilClose
from proxy.http1.headers import Field, Hop, binds_connection, own_error, own_fields, request_head, response_head
from proxy.http1.messages import MAY_BE_OUT_OF_STEP, ResponseHead
from proxy.http1.outbound import EngineConnection
from proxy.http1.rejections import RejectedItems

READS_ON = frozenset((405,))
"""Statuses of early responses after which the engine still reads the whole request, so the connection stays in step.

405: Elasticsearch 9.4.3, which rejects a method before the body has arrived.
"""
TURNED_AWAY = frozenset((401, 403))
"""Statuses with which the engine rejects a caller's credentials or rights."""

_log = structlog.get_logger("proxy")


class Connector(Protocol):
    """Opens connections to the engine's nodes."""

    def take(self) -> EngineConnection | None:
        """Return a connection that was opened in advance and has carried no request; None if there is none."""

    def left(self) -> None:
        """Note that a client has left, after which another one may come."""

    async def connect(self) -> EngineConnection:
        """Open a connection to one of the nodes; raises Unreachable."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a request is relayed."""

    repeatable: bool
    """Whether it may be sent again if its kept connection closed before the first byte of the response."""
    ends_with_client: bool
    """Whether it is aborted when the client disconnects; otherwise it is still delivered to the engine."""
    added: Sequence[Field] = ()
    """Headers that are added to the response."""
    has_items: bool = False
    """Whether the response is a list of responses, each of which has a status."""


@dataclass(slots=True)
class Upstream:
    """State shared by all relays."""

    nodes: Connector
    hop: Hop
    product: bytes | None = None
    """X-Elastic-Product as the engine sends it; responses made by the proxy have it too."""
    outliving: "set[Relay]" = field(default_factory=set)
    """Writes that are still being delivered although their client disconnected."""
    outlived: Callable[[], object] | None = None
    """Called when one of them has ended."""
    turned_away: Callable[[Exchange, int], object] | None = None
    """Called with the request and the status of each 401 or 403 of the engine."""


class Relay:
    """One exchange that is relayed to the engine."""

    __slots__ = (
        "_answered",
        "_connecting",
        "_engine",
        "_exchange",
        "_got_continue",
        "_head",
        "_items",
        "_keeps_engine",
        "_on_end",
        "_over",
        "_received",
        "_sent",
        "_terms",
        "_upstream",
        "client_gone",
        "takes_body",
    )

    def __init__(self, exchange: Exchange, upstream: Upstream, terms: Terms, on_end: Callable[[], object]) -> None:
        self._exchange = exchange
        self._upstream = upstream
        self._terms = terms
        self._on_end = on_end
        self._engine: EngineConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._sent: bytes | None = None
        """The request as sent, while it may be sent again."""
        self._items: RejectedItems | None = None
        self._head: bytes | None = None
        """The response's head, until it is written together with the first bytes of the body."""
        self._got_continue = exchange.was_read
        """Whether a client that sent `Expect: 100-continue` has received 100."""
        self._received = False
        self._answered = False
        self._keeps_engine = False
        self._over = False
        self.client_gone = False
        self.takes_body = False
        """Whether the request body is forwarded while it arrives."""

    @property
    def _client(self) -> Client:
        return self._exchange.client

    # -- the request

    def start(self) -> None:
        """Send the request on the client's own connection to the engine, or on a new one."""
        self._exchange.relay = self
        engine, self._client.engine = self._client.engine, None
        if engine is not None and engine.usable():
            self._send(engine)
            return
        if engine is not None:
            engine.close()
        if spare := self._upstream.nodes.take():
            self._send(spare)
        else:
            self._connect()

    def _connect(self) -> None:
        self._connecting = asyncio.get_running_loop().create_task(self._connected())

    async def _connected(self) -> None:
        try:
            engine = await self._upstream.nodes.connect()
        except Unreachable as error:
            self._fail(error)
            return
        finally:
            self._connecting = None
        if self._over:
            engine.close()
        elif self._sent is None:
            self._send(engine)
        else:
            self._engine = engine
            engine.send(self, self._exchange.head.method, self._sent)
            self._sent = None

    def _send(self, engine: EngineConnection) -> None:
        exchange = self._exchange
        node, added = engine.node, self._upstream.hop.fields(exchange.peer)
        if exchange.was_read or exchange.new_length is not None:
            head = request_head(
                exchange.head,
                node.authority,
                node.prefix,
                added,
                replayed=exchange.was_read,
                length=exchange.new_length,
            )
        else:
            head = self._client.request_writer.request(exchange.head, node.authority, node.prefix, added)
        request = head + exchange.take_raw()
        self._engine, self.takes_body = engine, True
        if self._terms.repeatable and engine.was_idle and exchange.whole and len(request) <= REPEATED_BYTES:
            self._sent = request
        engine.send(self, exchange.head.method, request)

    def request_body(self, raw: bytes) -> None:
        """Forward a part of the request body."""
        if self._engine is not None:
            self._engine.write(raw)
        if self._answered and self._exchange.whole:
            self._conclude()

    def client_left(self) -> None:
        """Abort the request because its client disconnected, or let it be delivered (see Terms)."""
        self.client_gone = True
        if self._terms.ends_with_client or not self._exchange.whole:
            self.give_up()
        else:
            self._upstream.outliving.add(self)
            if self._engine is not None:
                self._engine.gate.release(Hold.PEER)

    def give_up(self) -> None:
        """End the request without its response."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._engine is not None:
            self._engine.close()
        self._finish()

    def client_paused(self) -> None:
        if self._engine is not None and not self._engine.closed:
            self._engine.gate.hold(Hold.PEER)

    def client_resumed(self) -> None:
        if self._engine is not None and not self._engine.closed:
            self._engine.gate.release(Hold.PEER)

    # -- the response

    def pause(self) -> None:
        if not self.client_gone:
            self._client.gate.hold(Hold.PEER)

    def resume(self) -> None:
        if not self.client_gone:
            self._client.gate.release(Hold.PEER)

    def interim(self, head: ResponseHead) -> None:
        self._got_continue = self._received = True
        self._sent = None
        if self._exchange.head.version == b"HTTP/1.1" and not self._exchange.was_read and not self.client_gone:
            self._client.write(response_head(head, ()))

    def response(self, head: ResponseHead) -> None:
        exchange = self._exchange
        self._received, self._sent = True, None
        if head.status in TURNED_AWAY:
            self._turned_away(head.status)
        elif self._terms.has_items and self._engine is not None:
            self._items = RejectedItems(head, self._engine.gate, self._turned_away)
        if self.client_gone:  # the request has been delivered, and nobody can receive the response
            self.give_up()
            return
        if self._upstream.product is None:
            self._upstream.product = next(iter(head.control.get(b"x-elastic-product", ())), None)
        sent = exchange.whole and self._engine is not None and self._engine.flushed
        reads_on = head.status in READS_ON and self._will_send_body
        in_step = self._stays_open(head) and (sent or reads_on) and exchange.head.method != b"CONNECT"
        in_step = in_step and not binds_connection(exchange.head.control) and not binds_connection(head.control)
        self._keeps_engine = in_step and head.status not in MAY_BE_OUT_OF_STEP
        exchange.reusable &= in_step
        exchange.began(head.status)
        added = (*self._terms.added, *exchange.connection_fields())
        self._head = self._client.response_writer.response(head, added)

    def _stays_open(self, head: ResponseHead) -> bool:
        """Whether the engine keeps its connection open after this response.

        Elasticsearch and OpenSearch answer HTTP/1.0 with HTTP/1.0 and without Connection, and keep the connection if
        the request asked for it: seen on Elasticsearch 8.19.13.
        """
        if head.keep_alive:
            return True
        asked = self._exchange.head.version == b"HTTP/1.0" and self._exchange.head.keep_alive
        return asked and b"connection" not in head.control and not isinstance(head.framing, UntilClose)

    def _turned_away(self, status: int) -> None:
        if self._upstream.turned_away is not None:
            self._upstream.turned_away(self._exchange, status)

    @property
    def _will_send_body(self) -> bool:
        """Whether the client sends its body without waiting for 100; otherwise it may never send it."""
        return self._got_continue or not self._exchange.head.expects_continue

    @property
    def reads_content(self) -> bool:
        return self._items is not None

    def body(self, raw: bytes, content: list[bytes]) -> None:
        """Forward a part of the response, its chunks as received."""
        if self._items is not None:
            self._items.read(content)
        if self._head is not None:
            raw, self._head = self._head + raw, None
        if not self.client_gone:
            self._client.write(raw)
            if self._client.paused:
                self.client_paused()

    def end(self, *, clean: bool) -> None:
        self._no_more_items()
        if self._head is not None:
            self.body(b"", [])
        self._exchange.reusable &= clean
        self._keeps_engine &= clean
        if self._keeps_engine and not self._exchange.whole:
            self._answered = True  # the engine reads the rest of the request
            if self._engine is not None:
                self._engine.on_idle_end = self._left_early
        else:
            self._conclude()

    def lost(self, error: Exception | None) -> None:
        self._no_more_items()
        engine, self._engine = self._engine, None
        if self._received:
            self._break_off()
        elif self._sent is not None and not self.client_gone:
            self._connect()
        elif isinstance(error, ssl.SSLError):  # usually because the node rejects the proxy's certificate
            node = str(engine.node) if engine is not None else ""
            self._fail(Unreachable("engine", f"{node}: {error.reason or 'TLS failed'}"))
        elif isinstance(error, BadMessage):
            self._exchange.reusable = False
            self._fail(Unreachable("engine", f"its response is not HTTP: {error}"))
        else:
            self._break_off()  # as the engine did

    def _no_more_items(self) -> None:
        items, self._items = self._items, None
        if items is not None:
            items.ended()

    # -- the end

    def _left_early(self) -> None:
        """Finish after the engine closed the connection while the rest of the request was being sent."""
        self._exchange.reusable = self._keeps_engine = False
        self._conclude()

    def _conclude(self) -> None:
        engine, self._engine = self._engine, None
        client = self._client
        if not client.ended:
            client.gate.release(Hold.PEER)
        if engine is not None and not engine.closed:
            # a client that has not read the whole response must not slow down the engine's connection
            engine.gate.release(Hold.PEER)
        if engine is not None and self._keeps_engine and not self.client_gone and not client.ended:
            client.engine = engine
            engine.on_idle_end = client.engine_ended
        elif engine is not None:
            engine.close()
        self._finish()

    def _break_off(self) -> None:
        if self._engine is not None:
            self._engine.close()
        if not self.client_gone:
            self._exchange.abort()
        self._finish()

    def _fail(self, error: Unreachable) -> None:
        if not self.client_gone:
            self._exchange.relay = None
            self._exchange.send(bad_gateway(error, self._upstream.product, self._terms.added))
        self._finish()

    def _finish(self) -> None:
        if not self._over:
            self._over = True
            self._exchange.relay = None
            if self in self._upstream.outliving:
                self._upstream.outliving.discard(self)
                if self._upstream.outlived is not None:
                    self._upstream.outlived()
            self._on_end()


def bad_gateway(error: Unreachable, product: bytes | None, added: Sequence[Field] = ()) -> Answer:
    """Return a 502 in the engine's format; the engine's address is only logged."""
    _log.error("engine_unreachable", detail=str(error))
    body = own_error(502, "engine_unreachable", "the proxy cannot reach the engine; see the log of the proxy")
    return Answer(502, [*own_fields(product), *added], body)


def internal_error(product: bytes | None, added: Sequence[Field] = ()) -> Answer:
    """Return a 500 in the engine's format, for a request that failed in the proxy and can no longer be relayed."""
    body = own_error(500, "proxy_internal_error", "the proxy failed on this request; see the log of the proxy")
    return Answer(500, [*own_fields(product), *added], body)


def loop_detected(product: bytes | None) -> Answer:
    """Return a 508 in the engine's format: the proxy's engine URL leads back to the proxy."""
    reason = "the request has passed this proxy before: engine.url must lead to the engine, not back to the proxy"
    return Answer(508, own_fields(product), own_error(508, "proxy_loop", reason))
