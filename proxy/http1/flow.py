"""Flow control: a connection is read only while there is no reason to pause it."""

import asyncio
import socket
import struct
from enum import IntFlag, auto


class Hold(IntFlag):
    """Reasons to pause reading a connection."""

    TURN = auto()
    """Received bytes are still being processed, a part in each turn of the event loop."""
    BODY = auto()
    """The rest of the body is not needed yet."""
    NEXT = auto()
    """The next request waits until the current one has its response."""
    PEER = auto()
    """The other side reads more slowly than this one sends."""
    ITEMS = auto()
    """A compressed response to an `_msearch` is being read for rejected searches, a part in each turn."""


class ReadGate:
    """Pauses and resumes reading of one connection."""

    __slots__ = ("_held", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held = 0
        """The holds, as a plain int: most releases find none, and arithmetic on IntFlag is slow."""

    @property
    def is_held(self) -> bool:
        return bool(self._held)

    def hold(self, why: Hold) -> None:
        if not self._held and not self._transport.is_closing():
            self._transport.pause_reading()
        self._held |= why.value

    def release(self, why: Hold) -> None:
        if not (self._held and self._held & why.value):
            return
        self._held &= ~why.value
        if not self._held and not self._transport.is_closing():
            self._transport.resume_reading()


PROBED_AFTER_S = 300
"""Idle seconds before the first TCP keepalive probe: below 350, after which load balancers and firewalls may drop
an idle connection."""


def probed(sock: socket.socket) -> None:
    """Enable TCP keepalive (RFC 9293, section 3.8.4), as the engine does on its own connections.

    Idle connections then survive firewalls, and a vanished peer is noticed. Accepted sockets inherit the options of the
    listening socket.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # not on every platform
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBED_AFTER_S)


def reset(transport: asyncio.Transport) -> None:
    """Close a connection with a reset: after a normal close, half a response without a length would look complete."""
    if not transport.is_closing():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER_TIME)
    transport.abort()


def frees_its_port(sock: socket.socket) -> None:
    """Let the socket's close reset the connection, so that its local port is free at once.

    After a normal close, the port is in TIME-WAIT for a minute, and Linux has 28,000 of them for an address: enough for
    470 connections a second. For loopback addresses, it reuses them by itself (`net.ipv4.tcp_tw_reuse`, since 4.19).
    """
    if not sock.getpeername()[0].startswith(_LOOPBACK):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER_TIME)


_NO_LINGER_TIME = struct.pack("ii", 1, 0)
_LOOPBACK = ("127.", "::1", "::ffff:127.")
