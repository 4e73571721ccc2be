"""HTTP/1.1 messages as bytes: heads kept as they were sent, and where a body ends. No sockets here.

A proxy hands messages on; it need not understand them, but it must know, and know the same as the engine does,
where each one ends (RFC 9112, sections 6 and 11.2: request smuggling). What is ambiguous there is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

Field = tuple[bytes, bytes]


class BadMessage(Exception):
    """A head or body whose end cannot be told for certain; `status` is the answer that it deserves."""

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
    """The body comes in chunks, and says itself when it ends."""


@dataclass(frozen=True, slots=True)
class UntilClose:
    """The body ends with the connection."""


Framing = NoBody | Sized | Chunked | UntilClose


@dataclass(frozen=True, slots=True)
class Line:
    """One header field: its name and value, and its line as it was sent, with its line end."""

    name: bytes
    value: bytes
    raw: bytes

    @property
    def key(self) -> bytes:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request's head. The request line may be one that only the engine knows how to refuse."""

    start: bytes
    method: bytes
    target: bytes
    version: bytes
    lines: tuple[Line, ...]
    framing: Framing
    keep_alive: bool

    @property
    def fields(self) -> tuple[Field, ...]:
        return tuple((line.name, line.value) for line in self.lines)

    @property
    def expects_continue(self) -> bool:
        return self.version == b"HTTP/1.1" and any(line.key == b"expect" for line in self.lines)


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """An answer's head."""

    start: bytes
    status: int
    lines: tuple[Line, ...]
    framing: Framing
    keep_alive: bool

    @property
    def interim(self) -> bool:
        """Whether the answer proper is yet to come (RFC 9110, section 15.2)."""
        return 100 <= self.status < 200


_HEAD_END = re.compile(rb"\r?\n\r?\n")
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""How a header's name is written (RFC 9110, section 5.1)."""
_PLAIN_VALUE = re.compile(rb"[\t -~]*\r?\n")  # not folded, and no space that only some would strip
_LINE_END = re.compile(rb"\r?\n")
_VERSION = re.compile(rb"HTTP/(\d)\.(\d)")


def head_length(buffer: bytearray, start: int = 0) -> int | None:
    """Return how many bytes the head at the front has, its empty line included; None while it is not whole.

    `start` is where to begin to look: what was looked at before needs no second look, but for three bytes.
    """
    found = _HEAD_END.search(buffer, max(0, start - 3))
    return found.end() if found else None


def read_request_head(raw: bytes) -> RequestHead:
    """Read a request's head; raises BadMessage where its framing is not certain."""
    start, lines = _lines(raw)
    method, _, rest = start.partition(b" ")
    target, _, last = rest.rpartition(b" ")
    version = last.strip()
    if not _VERSION.fullmatch(version):
        target, version = rest, b""
    if _expects_otherwise(version, lines):
        raise BadMessage("the only expectation there is, is 100-continue", 417)
    return RequestHead(
        start=start,
        method=method,
        target=target,
        version=version,
        lines=lines,
        framing=_request_framing(version, lines),
        keep_alive=_keep_alive(version, lines),
    )


def _expects_otherwise(version: bytes, lines: Sequence[Line]) -> bool:
    """Whether a request expects what no engine does: Netty answers 417 and takes its body for the next request.

    Seen on Elasticsearch 8.19.13 and OpenSearch 2.19.1 (Netty's HttpObjectAggregator). Before HTTP/1.1 there are no
    expectations (RFC 9110, section 10.1.1).
    """
    expected = [line.value.lower() for line in lines if line.key == b"expect"]
    return version == b"HTTP/1.1" and expected not in ([], [b"100-continue"])


def read_response_head(raw: bytes, method: bytes) -> ResponseHead:
    """Read the head of the answer to a request of this method; raises BadMessage."""
    start, lines = _lines(raw)
    version, _, rest = start.partition(b" ")
    status = rest[:3]
    if not _VERSION.fullmatch(version) or not re.fullmatch(rb"\d{3}", status) or rest[3:4].strip():
        raise BadMessage("not a status line")
    code = int(status)
    framing = _response_framing(method, code, lines)
    keep_alive = _keep_alive(version, lines) and not isinstance(framing, UntilClose)
    return ResponseHead(start, code, lines, framing, keep_alive)


def _lines(raw: bytes) -> tuple[bytes, tuple[Line, ...]]:
    """Split a head into its first line and its fields, a folded one's lines together."""
    if b"\0" in raw or b"\r" in raw.replace(b"\r\n", b""):
        raise BadMessage("a bare CR or NUL in the head")
    start, *rest = raw.splitlines(keepends=True)
    fields: list[bytes] = []
    for line in rest[:-1]:
        if line[:1] in b" \t" and fields:
            fields[-1] += line
        else:
            fields.append(line)
    return start.rstrip(b"\r\n"), tuple(_line(field) for field in fields)


def _line(raw: bytes) -> Line:
    name, colon, value = raw.partition(b":")
    if (
        colon and name != name.strip()
    ):  # RFC 9112, section 5.1: trimmed, it would be a header that whoever guards us has not seen
        raise BadMessage("a blank beside a header's name")
    if _decides_framing(name) and not (colon and TOKEN.fullmatch(name) and _PLAIN_VALUE.fullmatch(value)):
        raise BadMessage("a header that decides the body's length is not written as it must be")
    return Line(name.strip(), _LINE_END.sub(b" ", value).strip(), raw)


def _decides_framing(name: bytes) -> bool:
    return name.strip().lower() in {b"content-length", b"transfer-encoding"}


def _joined(lines: Sequence[Line], key: bytes) -> bytes:
    return b",".join(line.value for line in lines if line.key == key)


def _request_framing(version: bytes, lines: Sequence[Line]) -> Framing:
    framing = _stated_framing(lines)
    if isinstance(framing, Chunked) and version != b"HTTP/1.1":
        raise BadMessage("chunks in a message before HTTP/1.1")
    return framing or NoBody()


def _response_framing(method: bytes, status: int, lines: Sequence[Line]) -> Framing:
    """Tell an answer's end, as RFC 9112, section 6.3, has it."""
    if method == b"HEAD" or status < 200 or status in {204, 304}:
        return NoBody()
    return _stated_framing(lines) or UntilClose()


def _stated_framing(lines: Sequence[Line]) -> Sized | Chunked | None:
    codings, lengths = _joined(lines, b"transfer-encoding"), _joined(lines, b"content-length")
    if any(line.key == b"transfer-encoding" for line in lines):
        if any(line.key == b"content-length" for line in lines):
            raise BadMessage("both Transfer-Encoding and Content-Length")
        if codings.lower() != b"chunked":
            raise BadMessage("a transfer coding other than chunked")
        return Chunked()
    if not any(line.key == b"content-length" for line in lines):
        return None
    stated = {length.strip() for length in lengths.split(b",")}
    length = stated.pop()
    if stated or not length.isdigit() or len(length) > 18:
        raise BadMessage("Content-Length is not one number")
    return Sized(int(length))


def _keep_alive(version: bytes, lines: Sequence[Line]) -> bool:
    options = {option.strip().lower() for option in _joined(lines, b"connection").split(b",")}
    if version == b"HTTP/1.1":
        return b"close" not in options
    return version == b"HTTP/1.0" and b"keep-alive" in options


_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?\r?\n")
_LINE_MAX = 16 * 1024
_CHUNK_MAX = 2**31 - 1
"""Netty keeps a chunk's size in 32 bits: what is larger is another size there (seen on all four engines)."""


MAY_BE_OUT_OF_STEP = frozenset((400, 408, 413, 414, 431))
"""Elasticsearch (Netty) answers a head that it cannot read, and then reads nothing more from that connection."""


class BodyReader:
    """Follows a body through the bytes that come, to its end: what is raw is kept, what it says is told apart."""

    def __init__(self, framing: Framing) -> None:
        self._chunked = isinstance(framing, Chunked)
        self._left = framing.length if isinstance(framing, Sized) else 0
        self._line = bytearray()
        self._state = "size"
        self.done = isinstance(framing, NoBody) or framing == Sized(0)
        self._endless = isinstance(framing, UntilClose)

    def feed(self, received: bytes | memoryview) -> tuple[int, list[bytes]]:
        """Take what came; return how much of it is the body's, and the content therein.

        Raises BadMessage where a chunk is not written as one (RFC 9112, section 7.1).
        """
        if self._endless:
            return len(received), [bytes(received)]
        if not self._chunked:
            taken = min(self._left, len(received))
            self._left -= taken
            self.done = not self._left
            return taken, [bytes(received[:taken])] if taken else []
        return self._feed_chunks(memoryview(received))

    def _feed_chunks(self, received: memoryview) -> tuple[int, list[bytes]]:
        position, content = 0, []
        while position < len(received) and not self.done:
            if self._state == "data":
                piece = received[position : position + self._left]
                content.append(bytes(piece))
                position += len(piece)
                self._left -= len(piece)
                self._state = "data" if self._left else "data end"
            else:
                position += self._feed_line(received[position:])
        return position, content

    def _feed_line(self, received: memoryview) -> int:
        """Complete one line of a chunked body: a size, the end of a chunk, or a trailer."""
        found = bytes(received[:_LINE_MAX]).find(b"\n")
        taken = found + 1 if found >= 0 else min(len(received), _LINE_MAX)
        self._line += received[:taken]
        if len(self._line) > _LINE_MAX:
            raise BadMessage("an endless line between chunks")
        if found >= 0:
            line = bytes(self._line)
            self._line.clear()
            self._end_of_line(line)
        return taken

    def _end_of_line(self, line: bytes) -> None:
        match self._state:
            case "size":
                size = _CHUNK_SIZE.fullmatch(line)
                if size is None:
                    raise BadMessage("a chunk without a size")
                self._left = int(size[1], 16)
                if self._left > _CHUNK_MAX:
                    raise BadMessage("a chunk larger than any engine reads")
                self._state = "data" if self._left else "trailers"
            case "data end":
                if line.rstrip(b"\r\n"):
                    raise BadMessage("a chunk longer than its size")
                self._state = "size"
            case _:
                self.done = not line.rstrip(b"\r\n")
