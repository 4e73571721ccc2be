"""An open port: accepts connections up to a limit, closes those that exceed a timeout, and shuts down gracefully.

The limit follows from the number of open files that the system allows, since each client may need two descriptors.
At the limit no connection is accepted until another one closes; new ones wait in the system's backlog. A port for few
clients (admin) closes the connection that has waited longest instead, so that idle ones keep nobody out.
"""

import asyncio
import resource
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import structlog

from proxy.context import Ended, RequestRecord
from proxy.http1.exchange import Exchange, Work
from proxy.http1.flow import probed
from proxy.http1.framing import BadMessage
from proxy.http1.inbound import ClientConnection
from proxy.http1.outbound import AGE_S
from proxy.http1.relay import Upstream, internal_error

_BACKLOG = 1024
_BACKLOG_MIN = 128
_LINGER_S = 2.0
_DESCRIPTORS_A_CLIENT = 2
_RESERVED = 256
"""Descriptors reserved for the proxy's own connections and files; at most half of all."""

_ROOM_AGAIN = 0.9
"""Accepting resumes when the number of clients falls below this share of the limit."""

_log = structlog.get_logger("proxy")


@dataclass(frozen=True, slots=True)
class Patience:
    """Timeouts of connections, in seconds."""

    handshake: float = 10.0
    """For the TLS handshake."""
    head: float = 60.0
    """To receive the rest of a head."""
    idle: float = 3600.0
    """Between the requests of a client's connection, and for it to read, or to send more of a body.

    The engine has no such timeouts.
    """
    engine_idle: float = 30.0
    """Between the requests on a client's connection to the engine."""
    engine_age: float = AGE_S
    """Maximum age of a connection to the engine."""
    quiet: float = 1.0
    """Without a request before the shutdown closes a client's connection."""

    @property
    def sweep(self) -> float:
        """Seconds between two checks of the timeouts."""
        return min(1.0, self.head / 4, self.idle / 4, self.engine_idle / 4)


Handler = Callable[[Exchange], Work | None]
Conclude = Callable[[RequestRecord | None, Ended], None]


class Listener:
    """An open port and its client connections."""

    def __init__(  # noqa: PLR0913
        self,
        handler: Handler,
        conclude: Conclude,
        upstream: Upstream,
        patience: Patience,
        room: int,
        *,
        makes_room: bool = False,
    ) -> None:
        self._handler = handler
        self._conclude = conclude
        self._upstream = upstream
        self._patience = patience
        self._room = room
        self._makes_room = makes_room
        self._backlog = min(_BACKLOG, max(_BACKLOG_MIN, room))
        """How many connections wait in the system, and may be accepted in one turn, before any of them is counted."""
        self._sockets: list[socket.socket] = []
        self._tls: ssl.SSLContext | None = None
        self._servers: list[asyncio.Server] = []
        """The accepting servers; empty while the limit is reached."""
        self._reopening: asyncio.Task[None] | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._clients: set[ClientConnection] = set()
        self._arriving: dict[ClientConnection, float] = {}
        """Accepted connections whose TLS handshake is not done, and since when; one that fails is not reported."""
        self._changed = asyncio.Event()
        self.closing = False
        upstream.outlived = self._freed

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        """Start to listen; raises OSError."""
        self._tls = tls
        self._sockets = await _bound(host, port, self._backlog)
        await self._accept(tls)
        self._sweeping = asyncio.get_running_loop().call_later(self._patience.sweep, self._sweep)

    async def _accept(self, tls: ssl.SSLContext | None) -> None:
        """Accept connections with new servers; raises OSError, and then those before continue.

        Each server closes only its duplicate of a socket's descriptor.
        """
        loop = asyncio.get_running_loop()
        with ExitStack() as opened:
            servers = []
            for each in self._sockets:
                server = await loop.create_server(
                    self._accepted,
                    sock=each.dup(),
                    backlog=self._backlog,
                    ssl=tls,
                    ssl_handshake_timeout=self._patience.handshake if tls else None,
                )
                opened.callback(server.close)
                servers.append(server)
            if not self.closing:
                opened.pop_all()
                self._stop_accepting()
                self._servers = servers

    def _accepted(self) -> ClientConnection:
        """Create the protocol of a connection that has been accepted."""
        client = ClientConnection(self)
        self._arriving[client] = client.since
        if not self._makes_room and self._held >= self._room:
            asyncio.get_running_loop().call_soon(self._pause)
        return client

    def _pause(self) -> None:
        """Accept no more connections until others end."""
        if self._servers:
            _log.error(
                "accepting_paused",
                clients=len(self._clients),
                detail="all file descriptors are in use; raise the limit on open files (ulimit -n, LimitNOFILE)",
            )
            self._stop_accepting()

    async def secure_by(self, tls: ssl.SSLContext | None) -> None:
        """Use another certificate for new connections; those in the accept queue are kept. Raises OSError."""
        if self._servers and (tls or self._tls):
            await self._accept(tls)
        self._tls = tls

    @property
    def clients(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    def _stop_accepting(self) -> None:
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    # -- called by the client connections

    def joined(self, client: ClientConnection) -> None:
        self._arriving.pop(client, None)
        self._clients.add(client)
        if self._makes_room:
            self._make_room(client)

    def _make_room(self, newest: ClientConnection) -> None:
        """Reset the connection that has waited longest, one without a request in progress if there is any."""
        others = [each for each in self._clients if each is not newest and not each.ended]
        if len(others) >= self._room:
            min(others, key=lambda each: (each.is_served, each.since)).cut()

    def left(self, client: ClientConnection) -> None:
        self._clients.discard(client)
        if not self.closing:
            self._upstream.nodes.left()
        self._freed()

    @property
    def _held(self) -> int:
        """Number of clients that hold descriptors: also those in a handshake, and those whose write outlives them."""
        return len(self._clients) + len(self._arriving) + len(self._upstream.outliving)

    def _freed(self) -> None:
        if self.closing:
            self._changed.set()
        elif not self._servers and self._reopening is None and self._held < self._room * _ROOM_AGAIN:
            self._reopening = asyncio.get_running_loop().create_task(self._resume())

    async def _resume(self) -> None:
        """Accept connections again; without a descriptor for it, the next sweep tries again."""
        with suppress(OSError):
            await self._accept(self._tls)
            _log.info("accepting_resumed", clients=len(self._clients))
        self._reopening = None

    def handle(self, exchange: Exchange) -> Work | None:
        return self._handler(exchange)

    def refused(self, why: BadMessage) -> None:
        _log.warning("refused", why=str(why), status=why.status)

    def concluded(self, record: RequestRecord | None, ended: Ended) -> None:
        """Report the end of a request; an error in doing so does not affect the connection."""
        try:
            self._conclude(record, ended)
        except Exception:  # noqa: BLE001  any error: the request itself has ended
            with suppress(Exception):
                _log.exception("internal_error")

    def failed(self, exchange: Exchange, error: Exception) -> None:
        """Respond to an unexpected error in the engine's format, or reset a response that has begun."""
        _log.error("internal_error", exc_info=error)
        if exchange.begun or exchange.relay is not None:
            if exchange.relay is not None:
                exchange.relay.give_up()
            exchange.abort()
            return
        exchange.send(internal_error(self._upstream.product))
        exchange.client.done(exchange)

    # -- timeouts and shutdown

    def _sweep(self) -> None:
        """Close connections that exceed a timeout."""
        now = time.monotonic()
        for client in tuple(self._clients):
            _tidy(client, now, self._patience)
        latest = now - self._patience.handshake
        self._arriving = {each: since for each, since in self._arriving.items() if since > latest}
        self._freed()
        self._sweeping = asyncio.get_running_loop().call_later(self._patience.sweep, self._sweep)

    def shut(self) -> None:
        """Accept no more connections and requests; those in progress continue."""
        self.closing = True
        for pending in (self._sweeping, self._reopening):
            if pending is not None:
                pending.cancel()
        self._stop_accepting()
        for each in self._sockets:
            each.close()

    async def close(self, grace: float) -> None:
        """Accept no more connections, wait up to `grace` seconds for requests in progress, then abort them."""
        self.shut()
        self._close_idle()
        try:
            async with asyncio.timeout(grace):
                await self._all_ended()
        except TimeoutError:
            for client in tuple(self._clients):
                client.cut()
            for relay in tuple(self._upstream.outliving):
                relay.give_up()
            await asyncio.sleep(0)

    def _close_idle(self) -> None:
        """Close connections without a request.

        One that was in use a moment ago is closed after its next request, which may be under way, or a moment later.
        """
        latest = time.monotonic() - self._patience.quiet
        for client in tuple(self._clients):
            if client.busy is None and client.since <= latest:
                client.close()
        if self._clients:
            self._sweeping = asyncio.get_running_loop().call_later(self._patience.quiet / 10, self._close_idle)

    async def _all_ended(self) -> None:
        """Wait until all clients are gone and all writes of disconnected clients are delivered."""
        while self._clients or self._upstream.outliving:
            self._changed.clear()
            await self._changed.wait()


def _tidy(client: ClientConnection, now: float, patience: Patience) -> None:
    """Close a client's connection, or its connection to the engine, if it exceeds a timeout."""
    if (client.paused or client.in_body) and now - client.since > patience.idle:
        client.cut()
        return
    if client.ended:
        return
    if client.lingering:
        if now - client.since > _LINGER_S:
            client.close()
        return
    if client.busy is None:
        if client.in_head and now - client.since > patience.head:
            client.refuse(BadMessage("the head arrived too slowly", 408))
        elif not client.in_head and now - client.since > patience.idle:
            client.close()
    engine = client.engine
    if engine is None:
        return
    if now - engine.idle_since > patience.engine_idle or now - engine.opened > patience.engine_age:
        client.drop_engine()


async def _bound(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Bind a listening socket for each address of a host; raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sockets.append(sock := socket.socket(family, kind, protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probed(sock)
            sock.setblocking(False)  # noqa: FBT003  the socket module's own signature
            sock.bind(address)
            sock.listen(backlog)
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


def room_for_clients() -> int:
    """Raise the limit on open files as far as allowed; return the number of clients it is enough for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = hard if hard != resource.RLIM_INFINITY else 2**20
    return max(1, (limit - min(_RESERVED, limit // 2)) // _DESCRIPTORS_A_CLIENT)


async def serve(  # noqa: PLR0913
    handler: Handler,
    upstream: Upstream,
    host: str,
    port: int,
    *,
    conclude: Conclude = lambda _, __: None,
    tls: ssl.SSLContext | None = None,
    patience: Patience = Patience(),
    room: int | None = None,
    makes_room: bool = False,
) -> Listener:
    """Open a port and return its listener; port 0 selects a free one.

    `room` limits its clients; `makes_room` closes the one that has waited longest for each that is too many.
    """
    listener = Listener(handler, conclude, upstream, patience, room or room_for_clients(), makes_room=makes_room)
    await listener.open(host, port, tls)
    return listener
