"""Documents from a file or standard input: NDJSON or one JSON array, gzipped or not, never all in memory."""

import gzip
import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import ijson
import msgspec

from proxy.loading.errors import CannotLoad

_GZIP_MAGIC = b"\x1f\x8b"
_LINE_MAX = 100 * 2**20


@dataclass(frozen=True, slots=True)
class Document:
    """A document to be loaded, and where it stood."""

    number: int
    id: str
    source: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadLine:
    """What stood there and is no document: a line of NDJSON, or an element of an array, counted from 1."""

    number: int
    cause: str


@dataclass(frozen=True, slots=True)
class DocumentFile:
    """An open file, and how far it was read in its own bytes."""

    stream: BinaryIO
    size: int | None
    position: Callable[[], int]


@contextmanager
def open_documents(path: str) -> Iterator[DocumentFile]:
    """Open a file, or standard input for `-`; raises CannotLoad where there is none."""
    try:
        raw = os.fdopen(os.dup(sys.stdin.fileno()), "rb") if path == "-" else open(path, "rb")  # noqa: SIM115, PTH123
    except OSError as error:
        raise CannotLoad(f"{path}: {error.strerror}. Name a file of documents, or - for standard input.") from None
    with raw:
        counting = _Counting(raw)
        buffered = io.BufferedReader(counting, 2**16)
        zipped = buffered.peek(2)[:2] == _GZIP_MAGIC
        stream = gzip.GzipFile(fileobj=buffered) if zipped else buffered
        size = None if path == "-" else os.fstat(raw.fileno()).st_size
        yield DocumentFile(cast("BinaryIO", io.BufferedReader(cast("Any", stream))), size, lambda: counting.read_so_far)


class _Counting(io.RawIOBase):
    """A stream that knows how much of it was read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.read_so_far = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        self.read_so_far += count
        return int(count)


def read_documents(stream: BinaryIO, id_field: str | None = None) -> Iterator[Document | BadLine]:
    """Read documents one by one; raises CannotLoad where the rest cannot be read at all.

    The id is that of `id_field`, or else of `_id` or `id`, or else made of the content, so that a second run
    updates. A hit as the engine sends it, `_id` and `_source`, is the document in it.
    """
    elements = _array(stream) if _first(stream) == b"[" else _lines(stream)
    for number, element in elements:
        yield element if isinstance(element, BadLine) else _document(number, element, id_field)


def _first(stream: BinaryIO) -> bytes:
    """Look at the first byte that says something, without reading it."""
    buffered = cast("io.BufferedReader", stream)
    try:
        while (head := buffered.peek(1)) and (head[:1].isspace() or head.startswith(b"\xef\xbb\xbf")):
            buffered.read(3 if head.startswith(b"\xef\xbb\xbf") else 1)
        return head[:1]
    except (OSError, EOFError) as error:
        raise CannotLoad(f"the file cannot be read: {error}") from None


_Elements = Iterator[tuple[int, Any | BadLine]]


def _lines(stream: BinaryIO) -> _Elements:
    number = 0
    while line := _line(stream, number):
        number += 1
        if line.strip():
            yield number, _decoded(number, line)


def _line(stream: BinaryIO, number: int) -> bytes:
    try:
        line = stream.readline(_LINE_MAX)
    except (OSError, EOFError) as error:
        raise CannotLoad(f"the file breaks off behind line {number}: {error}") from None
    if len(line) == _LINE_MAX:
        raise CannotLoad(f"line {number + 1} is over {_LINE_MAX >> 20} MB: a document a line is expected")
    return line


def _decoded(number: int, line: bytes) -> Any | BadLine:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return BadLine(number, f"not JSON: {error}")


def _array(stream: BinaryIO) -> _Elements:
    number = 0
    try:
        for element in ijson.items(stream, "item", use_float=True):
            number += 1
            yield number, element
    except (ijson.JSONError, OSError, EOFError) as error:
        raise CannotLoad(f"the array breaks off behind its element {number}: {error}") from None


def _document(number: int, element: Any, id_field: str | None) -> Document | BadLine:
    if not isinstance(element, dict):
        return BadLine(number, "not an object")
    source, own = element, element.get("_id")
    if isinstance(element.get("_source"), dict) and own is not None:
        source = element["_source"]
    else:
        source = {key: value for key, value in element.items() if key != "_id"}
    given = element.get(id_field) if id_field else own if own is not None else element.get("id")
    if id_field and given is None:
        return BadLine(number, f"no field {id_field!r} to take the id from")
    if isinstance(given, dict | list | bool):
        return BadLine(number, "its id is neither text nor a number")
    identity = _made_of(source) if given in (None, "") else str(given)
    if len(identity.encode()) > 512:
        return BadLine(number, "its id is longer than the 512 bytes the engine takes")
    return Document(number, identity, source)


def _made_of(source: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(source, order="deterministic")).hexdigest()[:20]
