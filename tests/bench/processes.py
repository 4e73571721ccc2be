"""What a server and its children have used, as /proc tells it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Used:
    """Of a process and all its descendants."""

    cpu_seconds: float
    resident_bytes: int


def used_by(pid: int) -> Used:
    """Add up what the process and its descendants have used so far."""
    family = list(_family(pid))
    return Used(sum(map(_cpu_seconds, family)), sum(map(_resident_bytes, family)))


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _family(int(child))


def _cpu_seconds(pid: int) -> float:
    # The command's name, which may hold blanks, ends at the last parenthesis; utime and stime are fields 14 and 15.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
