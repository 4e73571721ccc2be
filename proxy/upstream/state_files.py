"""Files in which the proxy keeps its own state: read up to a bound, and replaced as a whole.

All functions block, and raise OSError.
"""

import os
from pathlib import Path


def read_state(path: Path, most: int) -> bytes | None:
    """Return the content of a file, None if there is none; raises ValueError if it has more than `most` bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        return None
    if len(content) > most:
        raise ValueError(f"more than {most} bytes")
    return content


def replace_state(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader, or a crash, finds the old content or the new one, never half of it."""
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
