"""The heads of HTTP/1.1 messages, as they were received; no I/O.

A proxy that forwards messages need not understand them, except for the headers that decide where a body ends.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from proxy.bounds import (
    HEAD_LINES,
    REPEATED_HEAD_BYTES,
    REPEATED_HEADS,
    REPEATED_LINE_BYTES,
)
from proxy.http1.framing import NO_BODY, TOKEN, BadMessage, Chunked, Framing, Sized, UntilClose

Field = tuple[bytes, bytes]


class Line(NamedTuple):
    """One header field: its name in lower case and as sent, its value, and the whole line including the line end."""

    key: bytes
    name: bytes
    value: bytes
    raw: bytes


Control = Mapping[bytes, Sequence[bytes]]
"""Immutable, as all of a head: heads that are repeated are shared by all connections."""


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
    """Whether the request expects `100-continue`, once or more: the only expectation that an engine accepts.

    To any other one Netty's HttpObjectAggregator responds with 417 and then parses the body as a request: seen on
    Elasticsearch 8.19.13 and OpenSearch 2.19.1. Before HTTP/1.1 there are no expectations (RFC 9110, section 10.1.1).
    """
    return all(each.lower() == b"100-continue" for each in expected)


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
    return _Block(lines, MappingProxyType({key: tuple(values) for key, values in control.items()}))


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
    options = connection_options(block.joined(b"connection"))
    if version == b"HTTP/1.1":
        return b"close" not in options
    return version == b"HTTP/1.0" and b"keep-alive" in options


def connection_options(value: bytes) -> set[bytes]:
    """Return the options in a Connection header, in lower case (RFC 9110, section 7.6.1)."""
    # without a Python loop, because a head has room for a hundred thousand of them
    return set(map(bytes.strip, value.lower().split(b","))) - {b""}


MAY_BE_OUT_OF_STEP = frozenset((400, 408, 413, 414, 417, 431))
"""Statuses that the engines (Netty) send for a head that they cannot parse, and then ignore the connection; and 417,
after which they parse the body as a request."""
