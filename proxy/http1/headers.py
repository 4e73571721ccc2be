"""Hop-by-hop headers, the headers that the proxy adds, and the error responses that it makes itself."""

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

from proxy.bounds import PROXY_HOPS
from proxy.http1.messages import Control, Line, RequestHead, ResponseHead, connection_options

Field = tuple[bytes, bytes]

# RFC 9110, section 7.6.1: meant for the next hop only. Transfer-Encoding is not listed, because chunks are
# forwarded as they are.
HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"))


def end_to_end(lines: Sequence[Line]) -> Iterator[Line]:
    """Yield the end-to-end headers: without hop-by-hop fields and those that Connection names."""
    named: set[bytes] = set()
    for line in lines:
        if line.key == b"connection" and line.value.lower() not in _PLAIN_OPTIONS:
            named |= connection_options(line.value)
    dropped = HOP_BY_HOP | (named - _KEPT) if named else HOP_BY_HOP
    return (line for line in lines if line.key not in dropped)


_PLAIN_OPTIONS = frozenset((b"keep-alive", b"close"))
_KEPT = frozenset((b"content-length", b"transfer-encoding", b"host"))


_BINDING = re.compile(rb"(?:^|,)\s*(?:negotiate|ntlm)\b", re.IGNORECASE)


def binds_connection(control: Control) -> bool:
    """Whether the credentials authenticate the whole connection and not one request (RFC 4559, section 6)."""
    if b"authorization" not in control and b"www-authenticate" not in control:
        return False
    values = (*control.get(b"authorization", ()), *control.get(b"www-authenticate", ()))
    return any(map(_BINDING.search, values))


# Headers that describe the original body, and are wrong for a body that replaces it.
_OF_THE_BODY = frozenset((b"content-length", b"transfer-encoding", b"content-encoding", b"content-md5", b"trailer"))


def request_lines(
    lines: Sequence[Line], authority: bytes, *, replayed: bool, length: int | None = None
) -> Iterator[bytes]:
    """Return a request's headers for the engine: with the node's Host, the others as the client sent them.

    Expect is removed if the body has already been read. `length` is the length of a body that replaces the client's.
    """
    for line in end_to_end(lines):
        if line.key == b"host":
            yield line.name + b": " + authority + b"\r\n"
        elif not (replayed and line.key == b"expect") and (length is None or line.key not in _OF_THE_BODY):
            yield line.raw
    if length is not None:
        yield b"content-length: %d\r\n" % length


PRODUCT = b"rerank-proxy-"
_PSEUDONYM = re.compile(PRODUCT + rb"[0-9a-f]{8}\b")


def new_pseudonym() -> bytes:
    """Return this process's random name in Via (RFC 9110, section 7.6.3): it detects loops and reveals no host name."""
    return PRODUCT + secrets.token_hex(4).encode()


@dataclass(frozen=True, slots=True)
class Hop:
    """The headers that are added to a request on its way through this proxy."""

    pseudonym: bytes | None = None
    """This process's name in Via; None adds no Via."""
    forwarded_for: bool = False
    """Whether the client's address is added to X-Forwarded-For."""

    def fields(self, peer: str) -> tuple[Field, ...]:
        """Return the headers that are added to a client's request."""
        return (*_via(self.pseudonym), *self.forwarded(peer))

    def forwarded(self, peer: str) -> tuple[Field, ...]:
        """Return the header with the client's address, by which an engine may decide what the client may see."""
        return ((b"x-forwarded-for", peer.encode()),) if self.forwarded_for and peer else ()

    def is_loop(self, control: Control) -> bool:
        """Whether a request has passed this process before, or more proxies of this product than PROXY_HOPS."""
        if b"via" not in control:
            return False
        passed = [name for value in control[b"via"] for name in _PSEUDONYM.findall(value)]
        return len(passed) > PROXY_HOPS or self.pseudonym in passed


@lru_cache(maxsize=1)
def _via(pseudonym: bytes | None) -> tuple[Field, ...]:
    return ((b"via", b"1.1 " + pseudonym),) if pseudonym else ()


NO_HOP = Hop()


class HeadWriter:
    """Writes the request heads, or the response heads, of one connection for the next hop.

    Header lines that are the same objects as in the last head (see `read_request_head`) are not written again.
    """

    __slots__ = ("_how", "_lines", "_written")

    def __init__(self) -> None:
        self._lines: tuple[Line, ...] | None = None
        self._how: object = None
        self._written = b""

    def request(self, head: RequestHead, authority: bytes, prefix: bytes, added: Sequence[Field]) -> bytes:
        """Return the head of a request whose body is forwarded unchanged."""
        if head.lines is not self._lines or self._how != (authority, added, head.version):
            self._written = _request_fields(head, authority, added, replayed=False, length=None)
            self._lines, self._how = head.lines, (authority, added, head.version)
        return _start_line(head.start, prefix) + self._written

    def response(self, head: ResponseHead, added: Sequence[Field]) -> bytes:
        """Return the head of a response, with the headers `added`."""
        if head.lines is not self._lines or self._how != added:
            self._written = response_head(head, added)[len(head.start) :]
            self._lines, self._how = head.lines, added
        return head.start + self._written


def request_head(  # noqa: PLR0913  a head is made of these
    head: RequestHead, authority: bytes, prefix: bytes, added: Sequence[Field], *, replayed: bool, length: int | None
) -> bytes:
    """Return the head of a request for one of the engine's nodes."""
    return _start_line(head.start, prefix) + _request_fields(head, authority, added, replayed=replayed, length=length)


def _start_line(start: bytes, prefix: bytes) -> bytes:
    """Prefix the target with the path of the engine's URL, if the target is a path."""
    if not prefix:
        return start
    method, blank, rest = start.partition(b" ")
    return method + blank + prefix + rest if rest.startswith(b"/") else start


def _request_fields(
    head: RequestHead, authority: bytes, added: Sequence[Field], *, replayed: bool, length: int | None
) -> bytes:
    lines = b"".join(request_lines(head.lines, authority, replayed=replayed, length=length))
    if head.version == b"HTTP/1.0" and head.keep_alive:
        lines += b"connection: keep-alive\r\n"
    return b"\r\n" + lines + header_lines(added) + b"\r\n"


def response_head(head: ResponseHead, added: Sequence[Field]) -> bytes:
    """Return the head of a response for the client."""
    lines = b"".join([line.raw for line in end_to_end(head.lines)])
    return head.start + b"\r\n" + lines + header_lines(added) + b"\r\n"


def header_lines(fields: Sequence[Field]) -> bytes:
    return b"".join(name + b": " + value + b"\r\n" for name, value in fields)


REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


def own_error(status: int, kind: str, reason: str) -> bytes:
    """Return an error body in the engine's format, so that clients can parse it."""
    cause = {"type": kind, "reason": reason}
    return json.dumps({"error": {"root_cause": [cause], **cause}, "status": status}).encode()


def own_fields(product: bytes | None) -> list[Field]:
    """Return the headers of a response that the proxy makes itself."""
    named: list[Field] = [(b"X-elastic-product", product)] if product else []
    return [*named, (b"content-type", b"application/json")]
