"""Files in which the proxy keeps its own state: read up to a bound, and replaced as a whole.

All functions block, and raise OSError.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG

from filelock import FileLock, Timeout

LOCK_S = 2.0
"""How long a change waits for another process, in seconds."""


def read_state(path: Path, most: int) -> bytes | None:
    """Return the content of a file, None if there is none; raises ValueError if it has more than `most` bytes."""
    try:
        _demand_regular(path)
        with path.open("rb") as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        return None
    if len(content) > most:
        raise ValueError(f"more than {most} bytes")
    return content


@contextmanager
def locked(path: Path, seconds: float = LOCK_S) -> Iterator[None]:
    """Let no other process change a file while the block runs."""
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        raise OSError(f"another process has locked {lock.lock_file}") from None
    try:
        yield
    finally:
        lock.release()


def replace_state(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader, or a crash, finds the old content or the new one, never half of it.

    Only one process at a time may do so: see `locked`.
    """
    with suppress(FileNotFoundError):
        _demand_regular(path)
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _demand_regular(path: Path) -> None:
    """Raise OSError for a pipe, whose reader waits for a writer, and for a device or folder, which stay what they are.

    Raises FileNotFoundError if there is nothing.
    """
    if not S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
