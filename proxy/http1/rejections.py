"""Finds the searches that the engine rejected inside the response to an `_msearch`, as the response passes through."""

import asyncio
import re
import zlib
from collections.abc import Callable

from proxy.bounds import ITEMS_INFLATED_A_TURN, ITEMS_INFLATION
from proxy.http1.flow import Hold, ReadGate
from proxy.http1.messages import ResponseHead

_REJECTED_ITEM = re.compile(rb'\}\s*,\s*"status"\s*:\s*(40[13])\s*\}\s*(?:\]|,\s*\{)')
"""The end of an item of an `_msearch` whose search was rejected: its error, its status, and the next item or the end of
the list. A document of an access log, which may have such a status, too, is followed by something else in its hit."""
_ITEM_END = 128
"""The end of an item may be in two reads; pretty-printed, it is no longer than this."""
_SMALL = 4096
"""Compressed bytes for which a response is decompressed in any case: a few equal items compress extremely well."""
_CODINGS = frozenset((b"gzip", b"x-gzip", b"deflate"))
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32

Rejected = Callable[[int], object]


class RejectedItems:
    """Searches the content of one response for an item with status 401 or 403, and reports the first one.

    A compressed response is decompressed in parts, each in its own turn of the event loop. Meanwhile no more of it is
    read from the engine. A response that cannot be decompressed is not searched. What the client receives never
    changes.
    """

    __slots__ = ("_before", "_gate", "_inflated", "_inflating", "_over", "_received", "_rejected", "_waiting")

    def __init__(self, head: ResponseHead, gate: ReadGate, rejected: Rejected) -> None:
        """Call `rejected` with the status of the first rejected item; `gate` is that of the engine's connection."""
        coding = b",".join(line.value for line in head.lines if line.key == b"content-encoding").strip().lower()
        compressed = coding in _CODINGS
        self._over = not compressed and coding not in {b"", b"identity"}
        self._inflating = zlib.decompressobj(_GZIP_OR_ZLIB) if compressed else None
        self._received = self._inflated = 0
        self._waiting = b""
        """Compressed bytes that are still to be read; no more than one read of the connection."""
        self._before = b""
        """The last bytes so far: they may be the start of a rejected item's end."""
        self._gate: ReadGate | None = gate
        self._rejected = rejected

    def read(self, content: list[bytes]) -> None:
        """Read a part of the response, without chunk framing."""
        if self._over or not content:
            return
        if self._inflating is None:
            self._search(b"".join(content))
            return
        part, is_waiting = b"".join(content), bool(self._waiting)
        self._received += len(part)
        self._waiting += part
        if not is_waiting:
            self._go_on()

    def ended(self) -> None:
        """Release the engine's connection: no more of the response will come."""
        self._release()
        self._gate = None

    def _go_on(self) -> None:
        """Read the next part of what waits, and the rest in later turns."""
        self._inflate()
        if self._over:
            self._waiting = b""
        if not self._waiting:
            self._release()
            return
        if self._gate is not None:
            self._gate.hold(Hold.ITEMS)
        asyncio.get_running_loop().call_soon(self._go_on)

    def _inflate(self) -> None:
        if self._inflating is None:
            return
        try:
            part = self._inflating.decompress(self._waiting, ITEMS_INFLATED_A_TURN)
        except zlib.error:
            self._over = True
            return
        self._waiting = self._inflating.unconsumed_tail
        self._inflated += len(part)
        self._search(part)
        is_bomb = self._inflated > ITEMS_INFLATION * max(self._received, _SMALL)
        self._over |= self._inflating.eof or is_bomb

    def _search(self, part: bytes) -> None:
        found = _REJECTED_ITEM.search(self._before + part[:_ITEM_END]) or _REJECTED_ITEM.search(part)
        self._before = (self._before + part[-_ITEM_END:])[-_ITEM_END:]
        if found:
            self._over = True
            self._rejected(int(found[1]))

    def _release(self) -> None:
        if self._gate is not None:
            self._gate.release(Hold.ITEMS)
