"""Results of a check, and the exit code."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

WRONG, UNREACHABLE = 1, 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One result: `ok`, a `note`, `wrong` or `unreachable`."""

    kind: Literal["ok", "note", "wrong", "unreachable"]
    place: str
    said: str


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 0 if all is fine, 1 if something is wrong, 2 if something could not be reached."""
    kinds = {finding.kind for finding in findings}
    return WRONG if "wrong" in kinds else UNREACHABLE if "unreachable" in kinds else 0
