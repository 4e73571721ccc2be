"""Hits as returned by the engine, and rankings of them.

A search makes hundreds of each: a Struct is created and hashed faster than a dataclass, and without `gc` the garbage
collector does not traverse it.
"""

from collections.abc import Sequence
from contextlib import suppress
from operator import attrgetter

import msgspec

from proxy.parsing.json_text import items_of, members_of

GREATEST_SCORE = 3.4028235e38
"""The largest 32-bit float; the engine writes a score beyond it as `"Infinity"`."""


class DocKey(msgspec.Struct, frozen=True, order=True, gc=False, cache_hash=True):
    """The unique key of a document across indices and custom routing."""

    index: str
    id: str
    routing: str = ""


class Hit(msgspec.Struct, frozen=True):
    """A hit as returned by the engine; its members keep the engine's bytes."""

    key: DocKey
    score: float
    members: dict[str, msgspec.Raw]

    def sort_values(self, count: int | None = None) -> tuple[bytes, ...]:
        """Return the first `count` sort values in the engine's bytes; none if they are missing or unreadable."""
        values: list[msgspec.Raw] = []
        with suppress(KeyError, ValueError, RecursionError):
            values = items_of(self.members["sort"])
        return tuple(bytes(value) for value in values[:count])

    def group(self, path: str) -> bytes | None:
        """Return the collapse value in the engine's bytes; None for documents without a readable one."""
        values: list[msgspec.Raw] = []
        with suppress(KeyError, ValueError, RecursionError):
            values = items_of(members_of(self.members["fields"])[path])
        return bytes(values[0]) if values and bytes(values[0]) != b"null" else None


class Scored(msgspec.Struct, frozen=True, gc=False):
    """A document and its score in one ranking."""

    key: DocKey
    score: float


class RankedDocument(msgspec.Struct, frozen=True, gc=False):
    """A document of a ranking, and its collapse value in the engine's bytes if hits are collapsed."""

    key: DocKey
    group: bytes | None = None


Ranking = tuple[Scored, ...]
"""Documents, best first, without duplicates."""


_key = attrgetter("key")


def keys(ranking: Sequence[Scored]) -> tuple[DocKey, ...]:
    return tuple(map(_key, ranking))
