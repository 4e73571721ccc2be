"""Hits as the engine sent them, and orders over them."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec


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


@dataclass(frozen=True, slots=True)
class Scored:
    """A document and its place's number in one ranking."""

    key: DocKey
    score: float


Ranking = tuple[Scored, ...]
"""Documents best first, each once."""


def keys(ranking: Sequence[Scored]) -> tuple[DocKey, ...]:
    return tuple(scored.key for scored in ranking)
