"""The bytes that come by one connection, cut into heads and bodies."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator

from proxy.http1.messages import BadMessage, BodyReader, Framing, NoBody, Sized, UntilClose, head_length

HEAD_MAX = 256 * 1024
PIECE = 64 * 1024


class Broken(ConnectionError):
    """The connection ended in the middle of a message."""


class TlsBroken(Broken):
    """The other end broke the connection off by TLS, mostly since it does not take our certificate."""


class Incoming:
    """One direction of a connection: what was received and not yet read."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._buffer = bytearray()

    @property
    def empty(self) -> bool:
        return not self._buffer

    async def begins(self) -> bool:
        """Wait for the first bytes of the next message; False where the connection ends instead."""
        self._drop_blank_lines()
        while not self._buffer:
            if not await self._more():
                return False
            self._drop_blank_lines()
        return True

    async def head(self) -> bytes:
        """Return the next head whole; empty where the connection ends instead. Raises BadMessage and Broken."""
        self._drop_blank_lines()
        looked_at = 0
        while (length := head_length(self._buffer, looked_at)) is None:
            looked_at = len(self._buffer)
            if looked_at > HEAD_MAX:
                raise BadMessage("the head is too large", 431)
            if not await self._more():
                if self._buffer:
                    raise Broken
                return b""
            self._drop_blank_lines()
        return self._take(length)

    def _drop_blank_lines(self) -> None:
        """Empty lines before a message are to be ignored (RFC 9112, section 2.2)."""
        while self._buffer.startswith((b"\r\n", b"\n")):
            del self._buffer[: 2 if self._buffer.startswith(b"\r\n") else 1]

    def at_hand(self, framing: Framing) -> bytes | None:
        """Return a body that is here whole already, without waiting; None where it is not."""
        if isinstance(framing, NoBody):
            return b""
        if isinstance(framing, Sized) and framing.length <= min(len(self._buffer), PIECE):
            return self._take(framing.length)
        return None

    async def body(self, framing: Framing) -> AsyncIterator[tuple[bytes, list[bytes]]]:
        """Yield a body as it comes: the bytes as they are, and the content among them."""
        reading = BodyReader(framing)
        while not reading.done:
            if not self._buffer and not await self._more():
                if isinstance(framing, UntilClose):
                    return
                raise Broken
            taken, content = reading.feed(bytes(self._buffer))
            yield self._take(taken), content

    async def _more(self) -> bool:
        try:
            received = await self._reader.read(PIECE)
        except ssl.SSLError as error:
            raise TlsBroken(error.reason or "TLS failed") from error
        self._buffer += received
        return bool(received)

    def _take(self, length: int) -> bytes:
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken


PROBED_AFTER_S = 300
"""Seconds of silence: less than the 350 after which a balancer's or a firewall's memory of a connection may end."""


def probed(sock: socket.socket) -> socket.socket:
    """Let the system probe a silent connection (RFC 9293, section 3.8.4), as the engine does with its own.

    So one that waits for hours is not forgotten on its way, and an end that has vanished is noticed.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):  # not on every system
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBED_AFTER_S)
    return sock


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection off by a reset: an ordinary end would make half an answer without a length look whole."""
    if not writer.is_closing():
        linger_no_time = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_no_time)
    writer.transport.abort()
