"""One request of a client and the way to answer it: by a response made here, or by a relay to the engine.

Its body stays with the client, unread beyond a bound, until somebody reads it here or hands it on.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.bounds import SEARCH_RAW_FACTOR, UNREAD_BODY_BYTES, WAITING_BODY_BYTES
from proxy.context import Ended, RequestRecord
from proxy.http1.flow import Hold, ReadGate
from proxy.http1.headers import REASONS, Field, HeadWriter, written
from proxy.http1.messages import NO_BODY, BodyReader, Chunked, RequestHead
from proxy.http1.outbound import EngineConnection


@dataclass(frozen=True, slots=True)
class Answer:
    """A response made here, whole."""

    status: int
    fields: Sequence[Field]
    body: bytes


class Relaying(Protocol):
    """An exchange on its way to the engine."""

    takes_body: bool
    """Whether the request's body is handed on as it comes."""

    def request_body(self, raw: bytes) -> None: ...

    def client_left(self) -> None: ...

    def client_paused(self) -> None: ...

    def client_resumed(self) -> None: ...

    def give_up(self) -> None: ...


class Broken(ConnectionError):
    """The connection ended in the middle of a message."""


class Client(Protocol):
    """The client's connection, as far as an exchange and its relay use it."""

    gate: ReadGate
    engine: EngineConnection | None
    """Its own connection to the engine, while it is idle and kept for the next request."""
    request_writer: HeadWriter
    response_writer: HeadWriter
    ended: bool

    @property
    def peer(self) -> str: ...

    @property
    def closing(self) -> bool:
        """Whether no further request is taken."""

    @property
    def paused(self) -> bool:
        """Whether the client reads more slowly than is written."""

    def write(self, piece: bytes) -> None: ...

    async def drained(self) -> None:
        """Wait until the client has taken most of what was written; raises Broken where it leaves."""

    def done(self, exchange: "Exchange") -> None:
        """Go on after a response: to the next request, or to the connection's end."""

    def conclude(self, exchange: "Exchange", ended: Ended) -> None:
        """Report a request's end, the first time that it is called for it."""

    def abort(self) -> None:
        """Break the connection off."""

    def engine_ended(self) -> None:
        """End with the engine, which closed its connection or sent something while it was idle."""


class Exchange:
    """One request of a client, and the way to answer it."""

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
        """Whether the client has got any of the response."""
        self.record: RequestRecord | None = None
        """The facts for the log and the counters; None for a request that is handed on."""
        self.concluded = False
        self.broken = False
        """Whether its response was broken off here."""
        self.reusable = True
        """Whether the client's connection can take another request after this one."""
        self.was_read = False
        """Whether the body was asked for here, so that a client that waits to be asked has been."""
        self.new_length: int | None = None
        """Bytes of the body that stands in place of the client's; None where that goes on as it came."""
        self.relay: Relaying | None = None
        self.task: asyncio.Task[None] | None = None
        self._reader = None if head.framing is NO_BODY else BodyReader(head.framing)
        self.whole = self._reader is None or self._reader.done
        """Whether the request has come to its end."""
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
        """Whether nobody works at it any more."""
        return self.begun and self.relay is None and self.task is None

    # -- the body, as it comes

    def take(self, data: bytes) -> int:
        """Take bytes of the body; return how many were its own. Raises BadMessage."""
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
        """Tell whoever waits for the body that it does not come; return whether anybody did."""
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
        """Return the body's content, out of its chunks; None where it is larger than `limit`.

        Either way it stays there to be handed on, and may be read again. Raises BadMessage and Broken.
        """
        if self._content is not None:
            return self._content if len(self._content) <= limit else None
        chunked = isinstance(self.head.framing, Chunked)
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
        """Hand on another body, plain and whole, in place of the client's, which has been read."""
        self._raw, self.new_length = [body], len(body)

    def take_raw(self) -> bytes:
        """Return the bytes that are here, to be handed on; what still comes goes to the relay."""
        raw = self._raw[0] if len(self._raw) == 1 else b"".join(self._raw)
        self._raw = []
        self.client.gate.release(Hold.BODY)
        return raw

    # -- the response

    def send(self, answer: Answer) -> None:
        """Send a response made here.

        A client that waited to be asked for its body, and was not, may send it or its next request: which of the
        two cannot be told, so the connection ends (RFC 9110, section 10.1.1).
        """
        self.began(answer.status)
        if not self.whole and self.head.expects_continue and not self.was_read:
            self.reusable = False
        start = b"HTTP/1.1 %d %s\r\n" % (answer.status, REASONS.get(answer.status, b""))
        length: list[Field] = [(b"content-length", b"%d" % len(answer.body))]
        head = start + written([*answer.fields, *length, *self.connection_fields()]) + b"\r\n"
        self.client.write(head if self.head.method == b"HEAD" else head + answer.body)

    def began(self, status: int) -> None:
        """Note that the response has begun, with this status."""
        self.begun = True
        if self.record is not None and self.record.access is not None:
            self.record.access.status = status

    async def answer(self, answer: Answer) -> None:
        """Send a response made here, and wait until the client has taken most of it."""
        self.send(answer)
        await self.client.drained()

    def connection_fields(self) -> tuple[Field, ...]:
        """Say whether the connection stays open, where the request's version does not imply it."""
        if not (self.reusable and self.head.keep_alive and not self.client.closing):
            return ((b"connection", b"close"),)
        return ((b"connection", b"keep-alive"),) if self.head.version == b"HTTP/1.0" else ()

    def abort(self) -> None:
        """Break the connection off, so that half a response is not taken for a whole one."""
        self.reusable = False
        self.broken = True
        self.client.abort()

    def discard_rest(self) -> bool:
        """Drop what is left of the body; tell whether that is little enough to wait for."""
        if self._discarded is None:
            self._discarded = 0
            self._raw = []
            self.client.gate.release(Hold.BODY)
        return self._discarded <= UNREAD_BODY_BYTES


async def _unchunked(raw: bytes, head: RequestHead) -> bytes:
    """Return the content of a chunked body, a part in each turn of the loop."""
    reader, content, position = BodyReader(head.framing), list[bytes](), 0
    while not reader.done and position < len(raw):
        position = reader.feed(raw, position, content)
        if not reader.done:
            await asyncio.sleep(0)
    return b"".join(content)


Work = Coroutine[Any, Any, None]
"""The answering of one request."""
