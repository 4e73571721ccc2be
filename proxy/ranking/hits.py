"""Hits as the engine sent them, and orders over them."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from proxy.parsing.json_text import items_of, members_of

GREATEST_SCORE = 3.4028235e38
"""The greatest float: what an engine writes as `"Infinity"`, a score beyond it."""


@dataclass(frozen=True, slots=True, order=True)
class DocKey:
    """What makes a document one document, across indices and custom routing."""

    index: str
    id: str
    routing: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """A document as the engine sent it: every member of its envelope in its own bytes."""

    key: DocKey
    score: float
    members: dict[str, msgspec.Raw]

    def sort_values(self, count: int) -> tuple[bytes, ...]:
        """Return the first of its sort values, in their own bytes."""
        return tuple(bytes(value) for value in items_of(self.members["sort"])[:count])

    def group(self, path: str) -> bytes | None:
        """Return the value that a collapsed hit stands for, in its own bytes; None for the group without a value."""
        fields = members_of(self.members["fields"]) if "fields" in self.members else {}
        values = items_of(fields[path]) if path in fields else []
        return bytes(values[0]) if values and bytes(values[0]) != b"null" else None


@dataclass(frozen=True, slots=True)
class Scored:
    """A document and its place's number in one ranking."""

    key: DocKey
    score: float


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document of a ranking, and the group it stands for where hits are grouped: the value's own bytes."""

    key: DocKey
    group: bytes | None = None


Ranking = tuple[Scored, ...]
"""Documents best first, each once."""


def keys(ranking: Sequence[Scored]) -> tuple[DocKey, ...]:
    return tuple(scored.key for scored in ranking)
