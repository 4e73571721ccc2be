"""One client request and its response, which is made here or relayed from the engine.

Beyond a limit the body is not read from the client's connection until an endpoint reads it or a relay forwards it.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.bounds import SEARCH_RAW_FACTOR, UNREAD_BODY_BYTES, WAITING_BODY_BYTES
from proxy.context import Ended, RequestRecord
from proxy.http1.flow import Hold, ReadGate
from proxy.http1.framing import NO_BODY, BodyReader, Chunked, Sized
from proxy.http1.headers import REASONS, Field, HeadWriter, header_lines
from proxy.http1.messages import RequestHead
from proxy.http1.outbound import EngineConnection


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response made by the proxy."""

    status: int
    fields: Sequence[Field]
    body: bytes


class Relaying(Protocol):
    """An exchange that is being relayed to the engine."""

    takes_body: bool
    """Whether the request body is forwarded while it arrives."""

    def request_body(self, raw: bytes) -> None: ...

    def client_left(self) -> None: ...

    def client_paused(self) -> None: ...

    def client_resumed(self) -> None: ...

    def give_up(self) -> None: ...


class Broken(ConnectionError):
    """The connection closed in the middle of a message."""


class Client(Protocol):
    """The client's connection, as exchanges and relays use it."""

    gate: ReadGate
    engine: EngineConnection | None
    """This client's own connection to the engine, while it is idle and kept for the next request."""
    request_writer: HeadWriter
    response_writer: HeadWriter
    ended: bool

    @property
    def peer(self) -> str: ...

    @property
    def closing(self) -> bool:
        """Whether no further request is accepted."""

    @property
    def paused(self) -> bool:
        """Whether the client reads more slowly than the proxy writes."""

    def write(self, piece: bytes) -> None: ...

    def done(self, exchange: "Exchange") -> None:
        """Continue when most of a response has been sent: read the next request, or close the connection."""

    def conclude(self, exchange: "Exchange", ended: Ended) -> None:
        """Report the end of a request; only the first call for a request has an effect."""

    def abort(self) -> None:
        """Reset the connection."""

    def engine_ended(self) -> None:
        """Close after the engine closed its idle connection or sent data on it."""


class Exchange:
    """One client request, its body, and the means to respond to it."""

    __slots__ = (
        "_content",
        "_discarded",
        "_limit",
        "_raw",
        "_reader",
        "_size",
        "_waiting",
        "begun",
        "broken",
        "client",
        "concluded",
        "head",
        "new_length",
        "record",
        "relay",
        "reusable",
        "task",
        "was_read",
        "whole",
    )

    def __init__(self, head: RequestHead, client: Client) -> None:
        self.head = head
        self.client = client
        self.begun = False
        """Whether any part of the response has been sent to the client."""
        self.record: RequestRecord | None = None
        """The record for log and counters; None for a request that is passed through."""
        self.concluded = False
        self.broken = False
        """Whether the proxy aborted the response."""
        self.reusable = True
        """Whether the client's connection can carry another request after this one."""
        self.was_read = False
        """Whether the body was read here, so that a client that sent `Expect: 100-continue` has received 100."""
        self.new_length: int | None = None
        """Length in bytes of the body that replaces the client's; None if the client's is forwarded unchanged."""
        self.relay: Relaying | None = None
        self.task: asyncio.Task[None] | None = None
        self._reader = None if head.framing is NO_BODY else BodyReader(head.framing)
        self.whole = self._reader is None or self._reader.done
        """Whether the whole request has been received."""
        self._raw: list[bytes] = []
        self._size = 0
        self._limit = WAITING_BODY_BYTES
        self._content: bytes | None = None
        self._discarded: int | None = None
        self._waiting: asyncio.Future[None] | None = None

    @property
    def peer(self) -> str:
        return self.client.peer

    @property
    def answered(self) -> bool:
        """Whether the exchange is finished: no task and no relay works on it."""
        return self.begun and self.relay is None and self.task is None

    # -- the request body

    def take(self, data: bytes) -> int:
        """Take bytes of the body; return how many belong to it. Raises BadMessage."""
        if self._reader is None:
            return 0
        stop = self._reader.feed(data)
        self.whole = self._reader.done
        raw = data if stop == len(data) else data[:stop]
        if self.relay is not None and self.relay.takes_body:
            self.relay.request_body(raw)
        elif self._discarded is not None:
            self._discarded += stop
        else:
            self._raw.append(raw)
            self._size += stop
            if self._size > self._limit and not self.whole:
                self.client.gate.hold(Hold.BODY)
        if self._waiting is not None and (self.whole or self._size > self._limit):
            self._wake(None)
        return stop

    def fail(self, error: Exception) -> bool:
        """Report an error to the task that waits for the body; return whether a task was waiting."""
        if self._waiting is None:
            return False
        self._wake(error)
        return True

    def _wake(self, error: Exception | None) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None or waiting.done():
            return
        if error is None:
            waiting.set_result(None)
        else:
            waiting.set_exception(error)

    async def read_body(self, limit: int) -> bytes | None:
        """Return the body without its chunk framing; None if it is larger than `limit`.

        The body is kept either way: it can be forwarded, or read again. One whose stated length is larger is not waited
        for, since the engine may reject it by its head. Raises BadMessage and Broken.
        """
        if self._content is not None:
            return self._content if len(self._content) <= limit else None
        framing = self.head.framing
        if isinstance(framing, Sized) and framing.length > limit:
            return None
        chunked = isinstance(framing, Chunked)
        self._limit = limit * SEARCH_RAW_FACTOR if chunked else limit
        if not self.whole:
            if self.head.expects_continue and not self.was_read:
                self.client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.was_read = True
            self.client.gate.release(Hold.BODY)
            if self._size <= self._limit:
                self._waiting = asyncio.get_running_loop().create_future()
                await self._waiting
        if self._size > self._limit:
            return None
        raw = b"".join(self._raw)
        content = await _unchunked(raw, self.head) if chunked else raw
        if len(content) > limit:
            return None
        self._content = content
        return content

    def replace_body(self, body: bytes) -> None:
        """Forward another body, not chunked, in place of the client's, which has already been read."""
        self._raw, self.new_length = [body], len(body)

    def replace_query(self, query: str) -> None:
        """Forward another query string in place of the client's."""
        target = self.head.target.partition(b"?")[0] + b"?" + query.encode("ascii")
        start = self.head.start.replace(self.head.target, target, 1)
        self.head = self.head._replace(start=start, target=target)

    def take_raw(self) -> bytes:
        """Return the body bytes received so far, to be forwarded; later bytes go to the relay."""
        raw = self._raw[0] if len(self._raw) == 1 else b"".join(self._raw)
        self._raw = []
        self.client.gate.release(Hold.BODY)
        return raw

    # -- the response

    def send(self, answer: Answer) -> None:
        """Send a response made here.

        A client that sent `Expect: 100-continue` and received no 100 may next send the body or a new request. The two
        cannot be distinguished, so the connection is closed (RFC 9110, section 10.1.1).
        """
        self.began(answer.status)
        if not self.whole and self.head.expects_continue and not self.was_read:
            self.reusable = False
        version = b"HTTP/1.0" if self.head.version == b"HTTP/1.0" else b"HTTP/1.1"  # as the engine does
        start = b"%s %d %s\r\n" % (version, answer.status, REASONS.get(answer.status, b""))
        length: list[Field] = [(b"content-length", b"%d" % len(answer.body))]
        head = start + header_lines([*answer.fields, *length, *self.connection_fields()]) + b"\r\n"
        self.client.write(head if self.head.method == b"HEAD" else head + answer.body)

    def began(self, status: int) -> None:
        """Note that the response has begun, with this status."""
        self.begun = True
        if self.record is not None and self.record.access is not None:
            self.record.access.status = status

    def connection_fields(self) -> tuple[Field, ...]:
        """Return the Connection header, if the HTTP version of the request does not imply it.

        The connection is closed after this response if the header says so, and only then.
        """
        self.reusable &= not self.client.closing
        if not (self.reusable and self.head.keep_alive):
            return ((b"connection", b"close"),)
        return ((b"connection", b"keep-alive"),) if self.head.version == b"HTTP/1.0" else ()

    def abort(self) -> None:
        """Reset the connection, so that a partial response is not taken for a complete one."""
        self.reusable = False
        self.broken = True
        self.client.abort()

    def discard_rest(self) -> bool:
        """Discard the rest of the body; return whether it is short enough to wait for."""
        if self._discarded is None:
            self._discarded = 0
            self._raw = []
            self.client.gate.release(Hold.BODY)
        return self._discarded <= UNREAD_BODY_BYTES


async def _unchunked(raw: bytes, head: RequestHead) -> bytes:
    """Return the content of a chunked body, decoded in parts so that other connections have their turn."""
    reader, content, position = BodyReader(head.framing), list[bytes](), 0
    while not reader.done and position < len(raw):
        position = reader.feed(raw, position, content)
        if not reader.done:
            await asyncio.sleep(0)
    return b"".join(content)


Work = Coroutine[Any, Any, None]
"""The coroutine that responds to one request."""
