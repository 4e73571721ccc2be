"""The elements of one JSON array as bytes, a piece of the file at a time: a broken one is told from its neighbours.

A parser of the whole array stops at its first error. Here brackets and strings alone are followed, to where an element
ends; whether that is JSON is for whoever decodes it. What is kept of an element is bounded in bytes and in depth.
"""

import re
from collections.abc import Iterator
from enum import Enum

from proxy.bounds import DOCUMENT_BYTES, DOCUMENT_DEPTH


class Oversized(Enum):
    """An element that is not kept, and why."""

    LONG = "too long"
    DEEP = "too deep"


class BrokenOff(Exception):
    """The bytes end before the array does, or go on behind it."""


# To the next bracket, or comma between elements, over whole strings; or to a string that goes on in the next piece.
_BETWEEN = re.compile(rb'(?:[^"\[\]{},]++|"(?:[^"\\]++|\\.)*+")*+(["\[\]{},])', re.DOTALL)
_WITHIN = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+(["\[\]{}])', re.DOTALL)
_IN_STRING = re.compile(rb'["\\]')
_OPENING = {b"]": b"[", b"}": b"{"}


class _Splitter:
    """Where in the array we are; the bytes and the open brackets of the element that is being read."""

    def __init__(self) -> None:
        self.ended = False
        self.behind = b""
        """What came behind the array's end."""
        self._kept = bytearray()
        self._open = bytearray()
        self._deeper = 0
        """Brackets that are open beyond the deepest that are kept."""
        self._oversized: Oversized | None = None
        self._in_string = self._escaped = False
        self._any = False

    def feed(self, piece: bytes) -> Iterator[bytes | Oversized]:
        """Take the next bytes behind the array's own bracket; yields the elements that end in them."""
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
        """Give the last element of an array that breaks off, where no bracket or string of it is open."""
        if not self._in_string and not self._open and self._kept.strip():
            yield from self._element(last=True)

    def _string(self, piece: bytes, at: int) -> int:
        """Go on in a string; returns how far it was followed."""
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
        """Follow a sign of the structure; whether it is a comma or bracket of the array itself."""
        if sign == b'"':
            self._in_string = True
        elif sign in b"[{":
            self._push(sign)
        elif not self._open:
            return sign in b",]"  # a brace too many is the element's own fault
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
        """Close the innermost bracket of this kind with what was left open in it, or else the innermost of all."""
        if self._deeper:
            self._deeper -= 1
        else:
            del self._open[self._open.rfind(opening) :]  # -1, the last, where there is none of this kind

    def _keep(self, part: bytes) -> None:
        if len(self._kept) + len(part) > DOCUMENT_BYTES:
            self._drop(Oversized.LONG)
        if self._oversized is None:
            self._kept += part

    def _drop(self, why: Oversized) -> None:
        self._oversized = self._oversized or why
        self._kept = bytearray()

    def _element(self, *, last: bool) -> Iterator[bytes | Oversized]:
        """Give the element that has ended; an array with nothing in it has none."""
        blank = not self._kept or self._kept.isspace()
        if self._oversized or not blank or self._any or not last:
            yield self._oversized or bytes(self._kept)
        self._any, self.ended = True, last
        self._kept, self._open, self._deeper, self._oversized = bytearray(), bytearray(), 0, None


def elements(pieces: Iterator[bytes]) -> Iterator[bytes | Oversized]:
    """Cut an array, its opening bracket first, into its elements; raises BrokenOff."""
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
