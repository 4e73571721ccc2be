"""Flow control: a connection is read only while nobody wants it to wait."""

import asyncio
import socket
import struct
from enum import IntFlag, auto


class Hold(IntFlag):
    """Why a connection is not read."""

    TURN = auto()
    """What came is being read, a part in each turn of the loop."""
    BODY = auto()
    """Nobody has asked for the rest of the body."""
    NEXT = auto()
    """The next request waits until the present one has its response."""
    PEER = auto()
    """The other side reads more slowly."""


class ReadGate:
    """Pauses and resumes the reading of one connection."""

    __slots__ = ("_held", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held = 0
        """The holds; a plain number, since most releases find none, and a flag's own arithmetic is slow."""

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
"""Seconds of silence: less than the 350 after which a balancer's or a firewall's memory of a connection may end."""


def probed(sock: socket.socket) -> None:
    """Let the system probe a silent connection (RFC 9293, section 3.8.4), as the engine does with its own.

    So one that waits for hours is not forgotten on its way, and an end that has vanished is noticed. What is accepted
    by a listening socket has that socket's options.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # not on every system
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBED_AFTER_S)


def reset(transport: asyncio.Transport) -> None:
    """Break a connection off by a reset: an ordinary end would make half a response without a length look whole."""
    if not transport.is_closing():
        linger_no_time = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_no_time)
    transport.abort()
