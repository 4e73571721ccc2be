"""Which headers belong to one connection only, and the answers this proxy gives of its own accord."""

import json
import re
from collections.abc import Iterator, Sequence
from http import HTTPStatus

from proxy.http1.messages import Line

Field = tuple[bytes, bytes]

# RFC 9110, section 7.6.1: meant for the next hop alone. Transfer-Encoding is not among them here, since the
# body's chunks are handed on as they are.
HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"))


def end_to_end(lines: Sequence[Line]) -> Iterator[Line]:
    """Leave out what belongs to the connection it came by, and what its Connection header names."""
    named = {option.strip().lower() for line in lines if line.key == b"connection" for option in line.value.split(b",")}
    kept = frozenset((b"content-length", b"transfer-encoding", b"host"))
    dropped = HOP_BY_HOP | (named - kept)
    return (line for line in lines if line.key not in dropped)


_BINDING = re.compile(rb"(?:^|,)\s*(?:negotiate|ntlm)\b", re.IGNORECASE)


def binds_connection(lines: Sequence[Line]) -> bool:
    """Whether a caller proves who they are once for all that follows on the connection (RFC 4559, section 6)."""
    return any(line.key in {b"authorization", b"www-authenticate"} and _BINDING.search(line.value) for line in lines)


# What a body's own headers say is no longer true of another one in its place.
_OF_THE_BODY = frozenset((b"content-length", b"transfer-encoding", b"content-encoding", b"content-md5", b"trailer"))


def request_lines(
    lines: Sequence[Line], authority: bytes, *, replayed: bool, length: int | None = None
) -> Iterator[bytes]:
    """Write a request's headers for the engine: its own Host, the rest as sent.

    A body that was read here has been asked for already, so it is not announced by Expect again. `length` is that
    of a body that was written anew.
    """
    for line in end_to_end(lines):
        if line.key == b"host":
            yield line.name + b": " + authority + b"\r\n"
        elif not (replayed and line.key == b"expect") and (length is None or line.key not in _OF_THE_BODY):
            yield line.raw
    if length is not None:
        yield b"content-length: %d\r\n" % length


def written(fields: Sequence[Field]) -> bytes:
    return b"".join(name + b": " + value + b"\r\n" for name, value in fields)


REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


def own_error(status: int, kind: str, reason: str) -> bytes:
    """Write an error in the engine's shape, so that clients read it as they read the engine's."""
    cause = {"type": kind, "reason": reason}
    return json.dumps({"error": {"root_cause": [cause], **cause}, "status": status}).encode()
