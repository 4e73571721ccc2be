"""Some members of a zip on a web server, read by HTTP range requests instead of downloading the whole."""

import http.client
import io
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# One range at most: what is held in memory, and what is asked for again after a broken connection.
SPAN_BYTES = 16 * 2**20
_READ_AHEAD = 64 * 2**10
_CHUNK = 256 * 2**10
_ATTEMPTS = 3
_TIMEOUT_S = 60


class NoRangesError(OSError):
    """The server does not answer a range request with that range, so it cannot be read in part."""


@dataclass(frozen=True, slots=True)
class Span:
    """Members that lie side by side in the zip, and the bytes from `start` up to `end` that hold them."""

    start: int
    end: int
    members: tuple[zipfile.ZipInfo, ...]


class RangeFile(io.RawIOBase):
    """A file on a web server as a seekable file holding one block of it; raises OSError and NoRangesError.

    Proxies and authorities come from the environment, as urllib reads them.
    """

    def __init__(self, url: str, progress: Callable[[int], None] = lambda _: None) -> None:
        super().__init__()
        self._url = url
        self._progress = progress
        self._position = 0
        self._start, self._block = 0, b""
        with self._open("bytes=0-0") as answer:
            self.size = int(answer.headers["Content-Range"].rpartition("/")[2])

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # the two zipfile uses
        start, end = self._position, min(self._position + len(buffer), self.size)
        if end <= start:
            return 0
        if start < self._start or end > self._start + len(self._block):
            self.load(start, min(self.size, max(end, start + _READ_AHEAD)))
        buffer[: end - start] = self._block[start - self._start : end - self._start]
        self._position = end
        return end - start

    def load(self, start: int, end: int) -> None:
        """Hold the bytes from `start` up to `end`; a connection that breaks is tried again."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._block = self._fetch(start, end)
            except (urllib.error.HTTPError, NoRangesError):
                raise
            except (OSError, http.client.HTTPException) as broken:
                if attempt == _ATTEMPTS:
                    raise OSError(f"{self._url}: {broken!r}, {_ATTEMPTS} times") from broken
            else:
                self._start = start
                return

    def _fetch(self, start: int, end: int) -> bytes:
        block = bytearray()
        with self._open(f"bytes={start}-{end - 1}") as answer:
            while chunk := answer.read(_CHUNK):
                block += chunk
                self._progress(len(chunk))
        if len(block) != end - start:
            self._progress(-len(block))
            raise OSError(f"{len(block)} bytes came instead of {end - start}")
        return bytes(block)

    def _open(self, byte_range: str) -> http.client.HTTPResponse:
        request = urllib.request.Request(self._url, headers={"Range": byte_range})  # noqa: S310  # http(s): see engine_files
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310  # http(s) too
        if answer.status != http.client.PARTIAL_CONTENT:
            answer.close()
            raise NoRangesError(f"{self._url}: status {answer.status} in answer to a range request")
        return answer


def spans(archive: zipfile.ZipFile, prefix: str, limit: int = SPAN_BYTES) -> list[Span]:
    """Group the members whose name starts with `prefix` into ranges of neighbours, up to `limit` bytes each."""
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    ends = [*(member.header_offset for member in members[1:]), archive.start_dir]
    found: list[Span] = []
    for member, end in zip(members, ends, strict=True):
        if not member.filename.startswith(prefix):
            continue
        start = member.header_offset
        if found and found[-1].end == start and end - found[-1].start <= limit:
            found[-1] = Span(found[-1].start, end, (*found[-1].members, member))
        else:
            found.append(Span(start, end, (member,)))
    return found


def write_members(archive: zipfile.ZipFile, members: tuple[zipfile.ZipInfo, ...], prefix: str, target: Path) -> None:
    """Write members below `target`, their CRC checked by zipfile, the prefix of their names dropped."""
    for member in members:
        name = member.filename.removeprefix(prefix)
        path = target / name
        if not path.resolve().is_relative_to(target.resolve()):
            raise zipfile.BadZipFile(f"{member.filename} points outside the folder it is unpacked into")
        if member.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive.read(member))
