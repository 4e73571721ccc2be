"""A connection to one of the engine's nodes: one request at a time, and its response.

Data or a close that arrives while no request is in progress belongs to no response. It closes the connection at once,
so it can never be taken for the next response (RFC 9112, section 9.2, "Associating a Response to a Request").
"""

import asyncio
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from proxy.bounds import INTERIM_RESPONSES, RESPONSE_HEAD_BYTES, WRITE_BUFFER_BYTES
from proxy.http1.flow import Hold, ReadGate, frees_its_port, probed
from proxy.http1.framing import BadMessage, BodyReader
from proxy.http1.messages import ResponseHead, head_length, read_response_head
from proxy.http1.pulse import Pulse


@dataclass(frozen=True, slots=True)
class Node:
    """The address of one engine node."""

    host: str
    port: int
    tls: bool
    authority: bytes
    prefix: bytes
    """The path of the node's URL, prefixed to every target."""

    def __str__(self) -> str:
        return self.authority.decode()


IdleEnd = Callable[[], object]
AGE_S = 600.0
"""Maximum age of a connection that is used again, in seconds, so that nodes and addresses are chosen anew."""


class Receiver(Protocol):
    """Receives one response. After `end` or `lost` nothing more is called."""

    @property
    def reads_content(self) -> bool:
        """Whether `body` needs the content."""

    def interim(self, head: ResponseHead) -> None: ...

    def response(self, head: ResponseHead) -> None: ...

    def body(self, raw: bytes, content: list[bytes]) -> None:
        """Take a part of the body as received; `content` has it without chunk framing, if the receiver reads it."""

    def end(self, *, clean: bool) -> None:
        """Handle the end of the response; `clean` is false if the connection cannot be reused."""

    def lost(self, error: Exception | None) -> None:
        """Handle a connection that closed before the response was complete."""

    def pause(self) -> None:
        """Stop sending: the node reads more slowly than the request arrives."""

    def resume(self) -> None: ...


class EngineConnection(asyncio.Protocol):
    """A connection to a node."""

    __slots__ = (
        "_buffer",
        "_interims",
        "_looked_at",
        "_loop",
        "_method",
        "_poll",
        "_reading",
        "_receiver",
        "closed",
        "gate",
        "idle_since",
        "node",
        "on_idle_end",
        "opened",
        "pulse",
        "transport",
        "was_idle",
    )

    def __init__(self, node: Node, pulse: Pulse | None = None) -> None:
        self.node = node
        self.pulse = pulse or Pulse()
        self.transport: asyncio.Transport
        self.gate: ReadGate
        self.opened = self.idle_since = time.monotonic()
        self.was_idle = False
        """Whether it was idle before the current request: the node may have closed it at the same moment."""
        self.closed = False
        self.on_idle_end: IdleEnd | None = None
        """Called if the node closes the connection, or sends data, while it is idle."""
        self._loop = asyncio.get_running_loop()
        self._receiver: Receiver | None = None
        self._method = b""
        self._buffer = bytearray()
        self._looked_at = 0
        self._reading: BodyReader | None = None
        self._interims = 0
        self._poll: select.poll | None = None

    # -- the request

    def send(self, receiver: Receiver, method: bytes, request: bytes) -> None:
        """Start a request; more of its body may follow by `write`."""
        self._receiver, self._method = receiver, method
        self._reading, self._interims = None, 0
        self.pulse.asked()
        self.transport.write(request)

    def write(self, piece: bytes) -> None:
        if not self.closed:
            self.transport.write(piece)

    @property
    def flushed(self) -> bool:
        """Whether everything written has been sent."""
        return not self.transport.get_write_buffer_size()

    @property
    def is_avoided(self) -> bool:
        """Whether its node is silent, and another is not."""
        return self.pulse.is_avoided

    def usable(self) -> bool:
        """Whether it can carry a request: open, idle, no unrequested data has arrived, and no other node is better.

        Such data may not have been read yet, so the socket itself is checked.
        """
        if self.closed or self._receiver is not None or self.transport.is_closing():
            return False
        if self.is_avoided:
            return False
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not self._poll.poll(0)

    def close(self) -> None:
        """Close the connection at once, with a reset (see `connection_made`); a response in progress is dropped.

        It is aborted: no sent data matters any more, and a TLS shutdown would take several turns of the event loop.
        """
        self._released()
        self.closed = True
        self.transport.abort()

    def _released(self) -> Receiver | None:
        """End the request in progress, and return its receiver; None if there is none."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            self.pulse.ended()
        return receiver

    # -- the response

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.gate = ReadGate(self.transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        sock = _borrowed(transport)
        try:
            probed(sock)
            frees_its_port(sock)
        except OSError:  # the node has reset the connection already, as `connection_lost` will tell
            return
        finally:
            sock.detach()  # the transport still owns the descriptor

    def data_received(self, data: bytes) -> None:
        if self._receiver is None:
            self._end_while_idle()
            return
        self.pulse.heard()
        if self._reading is not None:
            self._body(data, 0)
            return
        if self._buffer:
            self._buffer += data
            length = head_length(self._buffer, self._looked_at)
            if length is not None:
                data = bytes(self._buffer)
                self._buffer.clear()
        else:
            length = head_length(data)
        if length is None:
            self._keep(data)
        elif length > RESPONSE_HEAD_BYTES:
            self._fail(BadMessage("the head is too large"))
        else:
            self._heads(data, length)

    def _keep(self, data: bytes) -> None:
        """Keep the start of an incomplete head."""
        self._buffer = self._buffer or bytearray(data)
        self._looked_at = len(self._buffer)
        if self._looked_at > RESPONSE_HEAD_BYTES:
            self._fail(BadMessage("the head is too large"))

    def _heads(self, data: bytes, length: int) -> None:
        """Parse the response's head, and the interim responses before it."""
        receiver, position = self._receiver, 0
        while receiver is not None:
            try:
                head = read_response_head(data[position : position + length], self._method)
            except BadMessage as error:
                self._fail(error)
                return
            position += length
            if not head.interim:
                self._reading = BodyReader(head.framing)
                receiver.response(head)
                if self._receiver is receiver:
                    self._body(data, position)
                return
            self._interims += 1
            if head.status == 101 or self._interims > INTERIM_RESPONSES:
                self._fail(BadMessage("too many interim responses"))
                return
            receiver.interim(head)
            if position == len(data):
                return
            found = head_length(data[position:])
            if found is None:
                self._keep(data[position:])
                return
            length = found

    def _body(self, data: bytes, position: int) -> None:
        receiver, reading = self._receiver, self._reading
        if receiver is None or reading is None:  # closed in the meantime
            return
        content: list[bytes] = []
        if not reading.done:
            try:
                stop = reading.feed(data, position, content if receiver.reads_content else None)
            except BadMessage as error:
                self._fail(error)
                return
            receiver.body(data[position:stop] if stop - position < len(data) else data, content)
            position = stop
        if reading.done:
            self._end(clean=position == len(data))
        elif position < len(data):
            self.gate.hold(Hold.TURN)
            self._loop.call_soon(self._go_on, data[position:])

    def _go_on(self, data: bytes) -> None:
        """Continue reading in a later turn of the event loop."""
        if not self.closed:
            self.gate.release(Hold.TURN)
            self._body(data, 0)

    def _end(self, *, clean: bool) -> None:
        receiver = self._released()
        self.idle_since, self.was_idle = time.monotonic(), True
        if not clean:
            self.close()
        if receiver is not None:
            receiver.end(clean=clean)

    def _fail(self, error: Exception | None) -> None:
        receiver = self._receiver
        self.close()
        if receiver is not None:
            receiver.lost(error)

    def _end_while_idle(self) -> None:
        ended, self.on_idle_end = self.on_idle_end, None
        if not self.closed:
            self.close()
            if ended is not None:
                ended()

    def _read_rest(self) -> None:
        """Read what the node sent before it closed: it may respond, with 413 for example, to half a request.

        After a failed write, the event loop reads no more. Over TLS, such a response is lost.
        """
        if self.transport.get_extra_info("ssl_object") is not None:
            return
        sock = _borrowed(self.transport)
        try:
            sock.setblocking(False)  # noqa: FBT003  the socket module's own signature
            while self._receiver is not None and (data := sock.recv(2**16)):
                self.data_received(data)
        except OSError:
            return
        finally:
            sock.detach()  # the transport still owns the descriptor

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._read_rest()
        receiver = self._released()
        if receiver is None:
            self._end_while_idle()
            return
        self.closed = True
        if self._reading is not None and self._reading.ends_with_connection and exc is None:
            receiver.end(clean=False)
        else:
            receiver.lost(exc)

    def pause_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.pause()

    def resume_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.resume()


def _borrowed(transport: asyncio.BaseTransport) -> socket.socket:
    """Return the transport's socket; it must be detached after use, because the transport owns the descriptor."""
    opened = transport.get_extra_info("socket")
    # With its family, type and protocol given, Python does not ask the kernel for them.
    return socket.socket(opened.family, opened.type, opened.proto, opened.fileno())
