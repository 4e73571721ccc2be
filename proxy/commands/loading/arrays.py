"""Split a JSON array into the bytes of its elements, reading the file piece by piece.

A JSON parser would stop at the first error in the array. This splitter only follows brackets and strings to the end of
each element, so that one malformed element does not lose the others. An element is limited in bytes and in depth.
"""

import re
from collections.abc import Iterator
from enum import Enum

from proxy.bounds import DOCUMENT_BYTES, DOCUMENT_DEPTH


class Oversized(Enum):
    """Why an element is skipped."""

    LONG = "too long"
    DEEP = "too deep"


class BrokenOff(Exception):
    """The input ends before the array does, or continues after it."""


# Match up to the next bracket or separating comma, skipping whole strings; or up to a string that continues in the
# next piece.
_BETWEEN = re.compile(rb'(?:[^"\[\]{},]++|"(?:[^"\\]++|\\.)*+")*+(["\[\]{},])', re.DOTALL)
_WITHIN = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+(["\[\]{}])', re.DOTALL)
_IN_STRING = re.compile(rb'["\\]')
_OPENING = {b"]": b"[", b"}": b"{"}


class _Splitter:
    """The position in the array, with the bytes and the open brackets of the current element."""

    def __init__(self) -> None:
        self.ended = False
        self.behind = b""
        """Bytes after the end of the array."""
        self._kept = bytearray()
        self._open = bytearray()
        self._deeper = 0
        """Number of open brackets beyond `DEPTH_MAX`."""
        self._oversized: Oversized | None = None
        self._in_string = self._escaped = False
        self._any = False

    def feed(self, piece: bytes) -> Iterator[bytes | Oversized]:
        """Take the next bytes after the opening bracket of the array; yields the elements that end in them."""
        start = at = 0
        while at < len(piece) and not self.ended:
            if self._in_string:
                at = self._string(piece, at)
                continue
            found = (_WITHIN if self._open else _BETWEEN).match(piece, at)
            if found is None:
                break
            at = found.end()
            if self._ends_element(found[1]):
                self._keep(piece[start : at - 1])
                yield from self._element(last=found[1] == b"]")
                start = at
        if self.ended:
            self.behind = piece[start:]
        else:
            self._keep(piece[start:])

    def unfinished(self) -> Iterator[bytes | Oversized]:
        """Yield the last element of a truncated array, if all its brackets and strings are closed."""
        if not self._in_string and not self._open and self._kept.strip():
            yield from self._element(last=True)

    def _string(self, piece: bytes, at: int) -> int:
        """Continue inside a string; returns the position that was reached."""
        if self._escaped:
            self._escaped = False
            return at + 1
        found = _IN_STRING.search(piece, at)
        if found is None:
            return len(piece)
        self._escaped = found[0] == b"\\"
        self._in_string = self._escaped
        return found.end()

    def _ends_element(self, sign: bytes) -> bool:
        """Process a structural character; returns whether it ends an element of the array."""
        if sign == b'"':
            self._in_string = True
        elif sign in b"[{":
            self._push(sign)
        elif not self._open:
            return sign in b",]"  # a surplus brace makes the element malformed, not the array
        else:
            self._pop(_OPENING[sign])
        return False

    def _push(self, sign: bytes) -> None:
        if len(self._open) < DOCUMENT_DEPTH:
            self._open += sign
        else:
            self._deeper += 1
            self._drop(Oversized.DEEP)

    def _pop(self, opening: bytes) -> None:
        """Close the innermost open bracket of this kind and all inside it, or else the innermost of any kind."""
        if self._deeper:
            self._deeper -= 1
        else:
            del self._open[self._open.rfind(opening) :]  # rfind returns -1, the last one, if there is none of this kind

    def _keep(self, part: bytes) -> None:
        if len(self._kept) + len(part) > DOCUMENT_BYTES:
            self._drop(Oversized.LONG)
        if self._oversized is None:
            self._kept += part

    def _drop(self, why: Oversized) -> None:
        self._oversized = self._oversized or why
        self._kept = bytearray()

    def _element(self, *, last: bool) -> Iterator[bytes | Oversized]:
        """Yield the element that has ended; an empty array has none."""
        blank = not self._kept or self._kept.isspace()
        if self._oversized or not blank or self._any or not last:
            yield self._oversized or bytes(self._kept)
        self._any, self.ended = True, last
        self._kept, self._open, self._deeper, self._oversized = bytearray(), bytearray(), 0, None


def elements(pieces: Iterator[bytes]) -> Iterator[bytes | Oversized]:
    """Split an array into its elements; the first piece begins with its bracket. Raises BrokenOff."""
    splitter = _Splitter()
    yield from splitter.feed(next(pieces)[1:])
    for piece in pieces:
        if not splitter.ended:
            yield from splitter.feed(piece)
        elif piece.strip():
            raise BrokenOff("something follows the end of the array")
    if splitter.behind.strip():
        raise BrokenOff("something follows the end of the array")
    if not splitter.ended:
        yield from splitter.unfinished()
        raise BrokenOff("the file ends before the array does")
