"""What a check found, and the exit code that says it to a script."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

WRONG, UNREACHABLE = 1, 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked: fine, worth knowing, wrong, or out of reach."""

    kind: Literal["ok", "note", "wrong", "unreachable"]
    place: str
    said: str


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 0 where all is fine, 1 where something is wrong, 2 where something could not be reached."""
    kinds = {finding.kind for finding in findings}
    return WRONG if "wrong" in kinds else UNREACHABLE if "unreachable" in kinds else 0
