"""Where the body of an HTTP/1.1 message ends, and its content; no I/O.

A proxy must find the end of each message exactly where the engine finds it (RFC 9112, sections 6 and 11.2: request
smuggling). A message whose end is ambiguous is rejected.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto

from proxy.bounds import CHUNK_BYTES, CHUNK_LINE_BYTES, CHUNK_LINES_A_TURN


class BadMessage(Exception):
    """A head or body whose end is ambiguous; `status` is the status of the response."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class NoBody:
    """The message ends with its head."""


@dataclass(frozen=True, slots=True)
class Sized:
    """The body has this many bytes."""

    length: int


@dataclass(frozen=True, slots=True)
class Chunked:
    """The body is chunked, and its last chunk marks the end."""


@dataclass(frozen=True, slots=True)
class UntilClose:
    """The body ends with the connection."""


Framing = NoBody | Sized | Chunked | UntilClose
NO_BODY = NoBody()

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""Syntax of a header name (RFC 9110, section 5.1)."""
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?\r?\n")


class _Expects(Enum):
    """What comes next in a chunked body."""

    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILER = auto()


class BodyReader:
    """Follows a body through the received bytes and finds its end."""

    __slots__ = ("_chunked", "_endless", "_expects", "_left", "_line", "done")

    def __init__(self, framing: Framing) -> None:
        self._chunked = isinstance(framing, Chunked)
        self._endless = isinstance(framing, UntilClose)
        self._left = framing.length if isinstance(framing, Sized) else 0
        self._expects = _Expects.SIZE
        self._line = b""
        self.done = not (self._chunked or self._endless or self._left)

    @property
    def ends_with_connection(self) -> bool:
        """Whether the body ends with the connection (RFC 9112, section 6.3)."""
        return self._endless

    def feed(self, received: bytes, position: int = 0, content: list[bytes] | None = None) -> int:
        """Read from `position`; return the position after the body, after the received bytes, or where this turn ends.

        The content, without chunk framing, is appended to `content`. Raises BadMessage if a chunk is malformed
        (RFC 9112, section 7.1).
        """
        if self._chunked:
            return self._feed_chunks(received, position, content)
        end = len(received)
        if not self._endless:
            end = min(end, position + self._left)
            self._left -= end - position
            self.done = not self._left
        if content is not None and end > position:
            content.append(received[position:end])
        return end

    def _feed_chunks(self, received: bytes, position: int, content: list[bytes] | None) -> int:
        end, lines = len(received), 0
        while position < end and lines < CHUNK_LINES_A_TURN and not self.done:
            if self._expects is _Expects.DATA:
                stop = min(end, position + self._left)
                if content is not None:
                    content.append(received[position:stop])
                self._left -= stop - position
                position = stop
                if not self._left:
                    self._expects = _Expects.DATA_END
            else:
                position = self._feed_line(received, position)
                lines += 1
        return position

    def _feed_line(self, received: bytes, position: int) -> int:
        """Process a line of a chunked body: a chunk size, the end of a chunk, or a trailer."""
        found = received.find(b"\n", position, position + CHUNK_LINE_BYTES)
        stop = found + 1 if found >= 0 else min(len(received), position + CHUNK_LINE_BYTES)
        line = self._line + received[position:stop] if self._line else received[position:stop]
        if len(line) > CHUNK_LINE_BYTES:
            raise BadMessage("a line between chunks is too long")
        self._line = b"" if found >= 0 else line
        if found >= 0:
            self._end_of_line(line)
        return stop

    def _end_of_line(self, line: bytes) -> None:
        match self._expects:
            case _Expects.SIZE:
                self._left = _chunk_size(line)
                self._expects = _Expects.DATA if self._left else _Expects.TRAILER
            case _Expects.DATA_END:
                if line not in _LINE_ENDS:
                    raise BadMessage("a chunk is longer than its size")
                self._expects = _Expects.SIZE
            case _:
                self.done = line in _LINE_ENDS
                if not (self.done or _TRAILER.fullmatch(line)):
                    raise BadMessage("a malformed trailer")


_LINE_ENDS = (b"\r\n", b"\n")
_TRAILER = re.compile(TOKEN.pattern + rb":[^\x00\r\n]*\r?\n")
"""Netty reads no further after another one, so a request behind it is never answered: seen on Elasticsearch 9.4.3."""


def _chunk_size(line: bytes) -> int:
    found = _CHUNK_SIZE.fullmatch(line)
    size = int(found[1], 16) if found else -1
    if size < 0:
        raise BadMessage("a chunk has no size")
    if size > CHUNK_BYTES:  # seen on all four engines
        raise BadMessage("a chunk is larger than any engine accepts")
    return size
