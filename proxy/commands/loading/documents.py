"""Read documents from a file or standard input: NDJSON or a JSON array, gzipped or not, never all in memory."""

import gzip
import hashlib
import io
import os
import select
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import msgspec

from proxy.bounds import DOCUMENT_BYTES, DOCUMENT_DEPTH, DOCUMENT_VALUES
from proxy.commands.loading.arrays import BrokenOff, Oversized, elements
from proxy.commands.loading.errors import CannotLoad

_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PIECE = 2**16
_LOOK_EVERY_S = 0.2


_REPAIR = "Repair or replace it, and run the same command again"


@dataclass(frozen=True, slots=True)
class Document:
    """A document to load."""

    id: str
    source: dict[str, Any]
    routing: str | None
    size: int
    """Approximate bytes, as read and written."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """An entry of the file that is not a document."""

    where: str
    """The line of NDJSON, or the element of an array, counted from 1."""
    cause: str


@dataclass(frozen=True, slots=True)
class DocumentFile:
    """An open file, with the number of its bytes that have been read."""

    stream: BinaryIO
    size: int | None
    position: Callable[[], int]
    stop: Callable[[], None] = lambda: None
    """End the stream, even if another program is still writing to standard input."""


@contextmanager
def open_documents(path: str) -> Iterator[DocumentFile]:
    """Open a file, or standard input for `-`; raises CannotLoad if it does not exist."""
    try:
        raw = open(os.dup(sys.stdin.fileno()) if path == "-" else path, "rb", buffering=0)  # noqa: SIM115, PTH123
    except OSError as error:
        raise CannotLoad(f"{path}: {error.strerror}. Name a file of documents, or - for standard input.") from None
    with raw:
        counting = _Counting(raw)
        buffered = io.BufferedReader(counting, 2**16)
        zipped = buffered.peek(2)[:2] == _GZIP_MAGIC
        stream = gzip.GzipFile(fileobj=cast("Any", _Arrived(buffered))) if zipped else buffered
        size = None if path == "-" else os.fstat(raw.fileno()).st_size
        whole = cast("BinaryIO", io.BufferedReader(_Arrived(stream)))
        yield DocumentFile(whole, size, lambda: counting.read_so_far, counting.stop)


class _Counting(io.RawIOBase):
    """A stream that counts the bytes that were read, and that can be ended early."""

    def __init__(self, stream: io.FileIO) -> None:
        self._stream = stream
        self._stopped = False
        self.read_so_far = 0

    def stop(self) -> None:
        self._stopped = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not select.select([self._stream], [], [], _LOOK_EVERY_S)[0]:  # a file is always ready, a pipe is not
            if self._stopped:
                return 0
        count = 0 if self._stopped else self._stream.readinto(buffer) or 0
        self.read_so_far += count
        return count


class _Arrived(io.RawIOBase):
    """A stream whose reads return what has arrived, where others wait for a whole block: gzip for one of 128 KB."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = len(buffer)  # gzip reads the two bytes that a member begins with at once, and does not ask for the rest
        found = self._stream.read(size) if size <= len(_GZIP_MAGIC) else self._stream.read1(size)
        buffer[: len(found)] = found
        return len(found)


def read_documents(stream: BinaryIO, id_field: str | None = None) -> Iterator[Document | BadLine]:
    """Read documents one by one; raises CannotLoad if the rest of the file cannot be read.

    The id is taken from `id_field`, else `_id`, else `id`, else it is a hash of the document, so that a second run
    updates. Of a hit with `_id` and `_source`, the source is the document; `_routing` is kept.
    """
    elements = _array(stream) if _first(stream) == b"[" else _lines(stream)
    for element in elements:
        yield element if isinstance(element, BadLine) else _document(element, id_field)


def _first(stream: BinaryIO) -> bytes:
    """Return the first byte that is not white space, without consuming it."""
    buffered = cast("io.BufferedReader", stream)
    try:
        while head := buffered.peek():
            if head.startswith(_BYTE_ORDER_MARK):
                buffered.read(len(_BYTE_ORDER_MARK))
            elif blanks := len(head) - len(head.lstrip()):
                buffered.read(blanks)
            else:
                break
        return head[:1]
    except (OSError, EOFError, zlib.error) as error:
        raise CannotLoad(f"the file cannot be read: {error}. {_REPAIR}") from None


@dataclass(frozen=True, slots=True)
class _Element:
    """A JSON value of the file, which may or may not be a document."""

    where: str
    value: Any
    size: int


_Elements = Iterator[_Element | BadLine]
_FLAWS: Mapping[Oversized, str] = {
    Oversized.LONG: f"larger than {DOCUMENT_BYTES >> 20} MB, which the engine accepts in one request",
    Oversized.DEEP: f"nested deeper than {DOCUMENT_DEPTH} levels",
}


def _lines(stream: BinaryIO) -> _Elements:
    number = 0
    while line := _line(stream, number):
        number += 1
        if not _is_whole(line):
            _leave_out(stream, number)
            yield BadLine(f"line {number}", _FLAWS[Oversized.LONG])
        elif line.strip():
            yield _decoded(f"line {number}", line)


def _line(stream: BinaryIO, number: int) -> bytes:
    try:
        return stream.readline(DOCUMENT_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise CannotLoad(f"the file cannot be read after line {number}: {error}. {_REPAIR}") from None


def _is_whole(line: bytes) -> bool:
    return len(line) < DOCUMENT_BYTES or line.endswith(b"\n")


def _leave_out(stream: BinaryIO, number: int) -> None:
    """Skip to the end of a line."""
    while not _is_whole(_line(stream, number)):
        pass


def _array(stream: BinaryIO) -> _Elements:
    number = 0
    try:
        for element in elements(iter(lambda: stream.read1(_PIECE), b"")):  # type: ignore[attr-defined]
            number += 1
            where = f"element {number}"
            yield BadLine(where, _FLAWS[element]) if isinstance(element, Oversized) else _decoded(where, element)
    except (BrokenOff, OSError, EOFError, zlib.error) as error:
        raise CannotLoad(f"the array cannot be read after its element {number}: {error}. {_REPAIR}") from None


def _decoded(where: str, content: bytes) -> _Element | BadLine:
    if _values(content) > DOCUMENT_VALUES:
        return BadLine(where, f"has more than {DOCUMENT_VALUES:,} values, too many for one document")
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return BadLine(where, f"not JSON: {error}")
    except RecursionError:
        return BadLine(where, _FLAWS[Oversized.DEEP])
    if content.count(b"{") + content.count(b"[") > DOCUMENT_DEPTH and _is_deep(value):
        return BadLine(where, _FLAWS[Oversized.DEEP])
    return _Element(where, value, len(content))


def _values(content: bytes) -> int:
    """Estimate the number of values, which take far more memory than their text: `{}` is 2 bytes here, 64 decoded.

    Brackets and commas in strings count too; only a document with millions of them is affected.
    """
    return content.count(b"{") + content.count(b"[") + content.count(b",") if len(content) > DOCUMENT_VALUES else 0


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DOCUMENT_DEPTH):
        level = [inner for each in level for inner in _members(each) if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _members(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _document(element: _Element, id_field: str | None) -> Document | BadLine:
    where, value = element.where, element.value
    if not isinstance(value, dict):
        return BadLine(where, "not a JSON object")
    source, own = value, value.get("_id")
    if isinstance(value.get("_source"), dict) and own is not None:
        source = value["_source"]
    else:
        source = {key: member for key, member in value.items() if key not in {"_id", "_routing"}}
    given = value.get(id_field) if id_field else own if own is not None else value.get("id")
    if id_field and given is None:
        return BadLine(where, f"has no field {id_field!r} for the id")
    if isinstance(given, dict | list | bool):
        return BadLine(where, "the id is neither a string nor a number")
    identity = _made_of(source) if given in (None, "") else str(given)
    if len(identity.encode()) > 512:
        return BadLine(where, "the id is longer than 512 bytes, the engine's limit")
    routing = value.get("_routing")
    return Document(identity, source, None if routing is None else str(routing), element.size)


def _made_of(source: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(source, order="deterministic")).hexdigest()[:20]
