"""HTTP/1.1 messages: heads as they were received, and where a body ends. No I/O.

A proxy that forwards messages need not understand them, but it must find the end of each one exactly where the engine
finds it (RFC 9112, sections 6 and 11.2: request smuggling). A message whose end is ambiguous is rejected.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple

from proxy.bounds import (
    CHUNK_BYTES,
    CHUNK_LINE_BYTES,
    CHUNK_LINES_A_TURN,
    HEAD_LINES,
    REPEATED_HEAD_BYTES,
    REPEATED_HEADS,
    REPEATED_LINE_BYTES,
)

Field = tuple[bytes, bytes]


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


class Line(NamedTuple):
    """One header field: its name in lower case and as sent, its value, and the whole line including the line end."""

    key: bytes
    name: bytes
    value: bytes
    raw: bytes


Control = Mapping[bytes, Sequence[bytes]]


class RequestHead(NamedTuple):
    """The head of a request; its request line may be one that only the engine rejects."""

    start: bytes
    method: bytes
    target: bytes
    version: bytes
    lines: tuple[Line, ...]
    framing: Framing
    keep_alive: bool
    control: Control
    """Values of the headers that the proxy itself needs, by name in lower case: see `_NOTED`."""

    @property
    def fields(self) -> tuple[Field, ...]:
        return tuple((line.name, line.value) for line in self.lines)

    @property
    def expects_continue(self) -> bool:
        return self.version == b"HTTP/1.1" and b"expect" in self.control


class ResponseHead(NamedTuple):
    """The head of a response."""

    start: bytes
    status: int
    lines: tuple[Line, ...]
    framing: Framing
    keep_alive: bool
    control: Control

    @property
    def interim(self) -> bool:
        """Whether this is a 1xx response, which precedes the final one (RFC 9110, section 15.2)."""
        return 100 <= self.status < 200


TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""Syntax of a header name (RFC 9110, section 5.1)."""
_PLAIN_VALUE = re.compile(rb"[\t -~]*\r?\n")  # not folded, and without whitespace that only some parsers strip
_LINE_END = re.compile(rb"\r?\n")
_METHOD = re.compile(rb"[^\x00- \x7f]+")
_VERSION = re.compile(rb"HTTP/(\d)\.(\d)")
_STATUS = re.compile(rb"HTTP/\d\.\d (\d{3})(?: .*)?")


def head_length(buffer: bytes | bytearray, start: int = 0) -> int | None:
    """Return the length of the head at `buffer`'s front, including its empty line; None if it is incomplete.

    The search begins at `start`: bytes searched before need not be searched again, except for the last three.
    """
    start = max(0, start - 3)
    found = buffer.find(b"\n\r\n", start)
    bare = buffer.find(b"\n\n", start) if found < 0 else buffer.find(b"\n\n", start, found)
    if bare >= 0:
        return bare + 2
    return found + 3 if found >= 0 else None


class _Block(NamedTuple):
    """The header lines of a head, and the values of the headers that decide about framing."""

    lines: tuple[Line, ...]
    control: Control

    def joined(self, key: bytes) -> bytes:
        return b",".join(self.control.get(key, ()))


def read_request_head(raw: bytes) -> RequestHead:
    """Parse the head of a request; raises BadMessage if its framing is ambiguous."""
    first, _, lines = raw.partition(b"\n")
    start = _first_line(first)
    method, target, version = _request_line(start)
    read = _repeated_request_fields if len(lines) <= REPEATED_HEAD_BYTES else _request_fields
    return RequestHead(start, method, target, version, *read(version, lines))


def read_response_head(raw: bytes, method: bytes) -> ResponseHead:
    """Parse the head of a response to a request with this method; raises BadMessage."""
    read = _repeated_response_head if len(raw) <= REPEATED_HEAD_BYTES else _response_head
    return read(raw, method)


def _request_line(start: bytes) -> tuple[bytes, bytes, bytes]:
    """Split a request line into method, target and version, which is empty if there is none; raises BadMessage."""
    method, _, rest = start.partition(b" ")
    if not _METHOD.fullmatch(method):
        # Netty skips such characters before the method, and may split at them: seen on Elasticsearch 8.19.13. It would
        # then know a HEAD, whose response has no body, that is none here.
        raise BadMessage("a blank or a control character next to the method")
    target, _, last = rest.rpartition(b" ")
    version = last.strip()
    if not _VERSION.fullmatch(version):
        return method, rest, b""
    return method, target, version


class _RequestFields(NamedTuple):
    """What the header lines of a request say."""

    lines: tuple[Line, ...]
    framing: Framing
    keep_alive: bool
    control: Control


def _request_fields(version: bytes, raw: bytes) -> _RequestFields:
    block = _read_block(raw)
    if version == b"HTTP/1.1" and b"expect" in block.control and not _is_continue(block.control[b"expect"]):
        raise BadMessage("the only supported expectation is 100-continue", 417)
    framing = _stated_framing(block) or NO_BODY
    if isinstance(framing, Chunked) and version != b"HTTP/1.1":
        raise BadMessage("a chunked message before HTTP/1.1")
    return _RequestFields(block.lines, framing, _keep_alive(version, block), block.control)


_repeated_request_fields = lru_cache(REPEATED_HEADS)(_request_fields)
"""A client repeats its header lines from request to request, whether on one connection or on many."""


def _is_continue(expected: Sequence[bytes]) -> bool:
    """Whether the request expects `100-continue`, the only expectation that an engine accepts.

    To any other one Netty's HttpObjectAggregator responds with 417 and then parses the body as a request: seen on
    Elasticsearch 8.19.13 and OpenSearch 2.19.1. Before HTTP/1.1 there are no expectations (RFC 9110, section 10.1.1).
    """
    return len(expected) == 1 and expected[0].lower() == b"100-continue"


def _response_head(raw: bytes, method: bytes) -> ResponseHead:
    first, _, lines = raw.partition(b"\n")
    start, block = _first_line(first), _read_block(lines)
    found = _STATUS.fullmatch(start)
    if found is None:
        raise BadMessage("not a status line")
    status = int(found[1])
    framing = _response_framing(method, status, block)
    keep_alive = _keep_alive(start[:8], block) and not isinstance(framing, UntilClose)
    return ResponseHead(start, status, block.lines, framing, keep_alive, block.control)


_repeated_response_head = lru_cache(REPEATED_HEADS)(_response_head)


def _first_line(raw: bytes) -> bytes:
    line = raw.removesuffix(b"\r")
    if b"\r" in line or b"\0" in line:
        raise BadMessage(_CONTROL)
    return line


_CONTROL = "a bare CR or NUL in the head"
# Headers that decide about framing, about the connection, and about loops.
_NOTED = frozenset(
    b"authorization connection content-length expect transfer-encoding via www-authenticate x-elastic-product".split(),
)
# Headers by which the end of a message is found. Netty takes a request to end with its head if it does not know the
# expectation, and reads a folded value as another one: seen on Elasticsearch 8.19.13 and OpenSearch 2.19.1.
_FRAMING = frozenset((b"content-length", b"expect", b"transfer-encoding"))


def _read_block(raw: bytes) -> _Block:
    """Split a head into header fields; the continuation lines of a folded field belong to it."""
    if raw.count(b"\n") > HEAD_LINES:
        raise BadMessage("the head has too many lines", 431)
    if b"\0" in raw or raw.count(b"\r") != raw.count(b"\r\n"):
        raise BadMessage(_CONTROL)
    fields = raw.splitlines(keepends=True)[:-1]
    if b"\n " in raw or b"\n\t" in raw:
        fields = _unfolded(fields)
    lines = tuple([_repeated_line(each) if len(each) <= REPEATED_LINE_BYTES else _line(each) for each in fields])
    control: dict[bytes, list[bytes]] = {}
    for key, _, value, _ in lines:
        if key in _NOTED:
            control.setdefault(key, []).append(value)
    return _Block(lines, control)


def _unfolded(lines: Sequence[bytes]) -> list[bytes]:
    fields: list[bytes] = []
    for line in lines:
        if line[:1] in b" \t" and fields:
            fields[-1] += line
        else:
            fields.append(line)
    return fields


def _line(raw: bytes) -> Line:
    name, colon, value = raw.partition(b":")
    stripped = name.strip()
    if colon and name != stripped:
        # RFC 9112, section 5.1: if the blank were removed, the engine would get a header that a firewall did not see.
        raise BadMessage("whitespace next to a header name")
    key = stripped.lower()
    if key in _FRAMING and not (colon and TOKEN.fullmatch(name) and _PLAIN_VALUE.fullmatch(value)):
        raise BadMessage("a malformed framing header (Content-Length, Transfer-Encoding or Expect)")
    folded = value.find(b"\n") != len(value) - 1
    return Line(key, stripped, (_LINE_END.sub(b" ", value) if folded else value).strip(), raw)


_repeated_line = lru_cache(4 * REPEATED_HEADS)(_line)


def _response_framing(method: bytes, status: int, block: _Block) -> Framing:
    """Return how a response ends (RFC 9112, section 6.3)."""
    if method == b"HEAD" or status < 200 or status in {204, 304} or (method == b"CONNECT" and status < 300):
        return NO_BODY
    return _stated_framing(block) or UntilClose()


def _stated_framing(block: _Block) -> Sized | Chunked | None:
    lengths = block.control.get(b"content-length")
    if b"transfer-encoding" in block.control:
        if lengths:
            raise BadMessage("both Transfer-Encoding and Content-Length")
        if block.joined(b"transfer-encoding").lower() != b"chunked":
            raise BadMessage("a transfer coding other than chunked")
        return Chunked()
    if not lengths:
        return None
    stated = {length.strip() for length in block.joined(b"content-length").split(b",")}
    length = stated.pop()
    if stated or not length.isdigit() or len(length) > 18:
        raise BadMessage("Content-Length is not a single number")
    return Sized(int(length))


def _keep_alive(version: bytes, block: _Block) -> bool:
    if b"connection" not in block.control:
        return version == b"HTTP/1.1"
    options = {option.strip().lower() for option in block.joined(b"connection").split(b",")}
    if version == b"HTTP/1.1":
        return b"close" not in options
    return version == b"HTTP/1.0" and b"keep-alive" in options


_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?\r?\n")

MAY_BE_OUT_OF_STEP = frozenset((400, 408, 413, 414, 417, 431))
"""Statuses that the engines (Netty) send for a head that they cannot parse, and then ignore the connection; and 417,
after which they parse the body as a request."""


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


_LINE_ENDS = (b"\r\n", b"\n")


def _chunk_size(line: bytes) -> int:
    found = _CHUNK_SIZE.fullmatch(line)
    size = int(found[1], 16) if found else -1
    if size < 0:
        raise BadMessage("a chunk has no size")
    if size > CHUNK_BYTES:  # seen on all four engines
        raise BadMessage("a chunk is larger than any engine accepts")
    return size
