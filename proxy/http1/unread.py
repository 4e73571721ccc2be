"""Bytes of a client that belong to no request yet: the start of a head, or pipelined requests."""

import re

from proxy.bounds import PIPELINED_BYTES, REQUEST_HEAD_BYTES
from proxy.http1.framing import BadMessage
from proxy.http1.messages import head_length

_TLS_HANDSHAKE = b"\x16\x03"
_BLANK_LINES = re.compile(rb"(?:\r?\n)+")


class UnreadBytes:
    """The bytes, and how many of them are known to contain no end of a head."""

    __slots__ = ("_looked_at", "kept")

    def __init__(self) -> None:
        self.kept = b""
        """The bytes, as they were received."""
        self._looked_at = 0

    @property
    def is_full(self) -> bool:
        """Whether no more should be read until its turn."""
        return len(self.kept) > PIPELINED_BYTES

    def keep(self, data: bytes) -> None:
        """Keep bytes of later requests."""
        self.kept += data

    def clear(self) -> None:
        self.kept, self._looked_at = b"", 0

    def take_head(self, data: bytes = b"") -> tuple[bytes, bytes] | None:
        """Add bytes; return a whole head and the bytes behind it, or None if its end is missing. Raises BadMessage."""
        if self.kept:
            data = self.kept + data
        data = _without_blank_lines(data)
        length = head_length(data, self._looked_at)
        if (len(data) if length is None else length) > REQUEST_HEAD_BYTES:
            raise BadMessage("the head is too large", 431)
        if length is not None:
            self.kept, self._looked_at = b"", 0
            return data[:length], data[length:]
        self.kept, self._looked_at = data, len(data)
        if data.startswith(_TLS_HANDSHAKE):
            raise BadMessage("TLS on a plain port: use http:// in the client, or set listen.certificate_file")
        return None


def _without_blank_lines(data: bytes) -> bytes:
    """Drop empty lines before a head, which are to be ignored (RFC 9112, section 2.2)."""
    if data[:1] not in b"\r\n":
        return data
    found = _BLANK_LINES.match(data)
    return data[found.end() :] if found else data
