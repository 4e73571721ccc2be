"""The sort order of a search, and the sort values after which a client continues (`search_after`).

A search sorted by score and other fields returns sort values with each hit. In a reranked response, the proxy's own
number replaces the score: from 1 to 2 in the reranked head, below 1 after it, so that the values follow the new order.
An engine's score is a float with at most nine decimal digits. So a number with more digits must be the proxy's, and a
client that started on a page of the engine continues with the engine.
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

_ENGINE_DIGITS = 10
HEAD_FROM = 1.0
_HEAD_TO = 2.0
_NO_SCORE = 1.2345678901234567e-30
"""Represents a score of 0 after the head."""
_STEP = 1e-9
"""The difference between adjacent hits of the head with equal scores, so that their order is unique."""


@dataclass(frozen=True, slots=True)
class Sort:
    """A sort order that includes the score."""

    places: tuple[int, ...] = ()
    """Positions of the score in a hit's sort values; empty if hits are sorted by score alone and have none."""

    @property
    def leading(self) -> int:
        """The number of sort fields before the score: hits with the same values of these are a group."""
        return self.places[0] if self.places else 0

    @property
    def is_shown(self) -> bool:
        return bool(self.places)


BY_SCORE = Sort()


def read_sort(sort: Any, in_url: str = "", *, of_pit: bool = False) -> Sort | None:
    """Read `sort` of the body, then of the URL; None if the score is not included, or in ascending order.

    `_shard_doc` at the end of the sort keys of a point in time (`of_pit`) does not count: the engine adds it anyway.
    """
    clauses = [*_clauses(sort), *(_clause_of_url(each) for each in in_url.split(",") if each)]
    if of_pit and len(clauses) > 1 and clauses[-1][0] == "_shard_doc":
        clauses.pop()
    places = tuple(place for place, (name, _) in enumerate(clauses) if name == "_score")
    if not clauses:
        return BY_SCORE
    if not places or not all(_is_descending(order) for name, order in clauses if name == "_score"):
        return None
    return Sort(places) if len(clauses) > 1 else BY_SCORE


_Clause = tuple[str, Any]


def _clauses(sort: Any) -> Iterator[_Clause]:
    match sort:
        case str():
            yield sort, None
        case dict():
            yield from sort.items()
        case list():
            for each in sort:
                yield from _clauses(each)
        case _:
            yield "", None


def _clause_of_url(clause: str) -> _Clause:
    name, _, order = clause.partition(":")
    return name, order or None


def _is_descending(order: Any) -> bool:
    """Whether the score is sorted in descending order; engines ignore the case of the word."""
    match order:
        case None:
            return True
        case str():
            return order.lower() == "desc"
        case {"order": str(direction)} if len(order) == 1:
            return direction.lower() == "desc"
        case {**options}:
            return not options
        case _:
            return False


def head_value(score: float, place: int) -> float:
    """Return the value of a hit of the head, from 2 to 1, below those of all places before it."""
    return _marked(1.001 + (score - 1) * 0.998 - place * _STEP)


def tail_value(score: float) -> float:
    """Return the value for an engine's score after the head; exact for scores up to 1e8."""
    positive = max(_float32(score), 0.0)
    return _marked(positive / (1.0 + positive)) if positive else _NO_SCORE


def engine_score(value: float) -> float:
    """Convert a value after the head back to the engine's score, with the digits of a float."""
    return 0.0 if value <= _NO_SCORE else float(f"{_float32(value / (1.0 - value)):.9g}")


def is_own(value: Any) -> bool:
    """Whether a sort value is the proxy's own, and not an engine's score."""
    return isinstance(value, float) and 0 < value <= _HEAD_TO and _has_more_digits(value)


def _has_more_digits(value: float) -> bool:
    return float(f"{value:.{_ENGINE_DIGITS}g}") != value


def _marked(value: float) -> float:
    """Return the next lower number that has more digits than an engine's score."""
    while not _has_more_digits(value):
        value = math.nextafter(value, 0.0)
    return value


def _float32(value: float) -> float:
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return value
    return float(rounded)


@dataclass(frozen=True, slots=True)
class Walk:
    """A continuation after a hit of a reranked response."""

    value: float
    """The sort value in the position of the score."""

    @property
    def in_head(self) -> bool:
        return self.value >= HEAD_FROM


def walk_of(after: Any, sort: Sort) -> Walk | Literal["engine"] | None:
    """Return the continuation, or "engine" for the engine's own sort values; None if both kinds are mixed."""
    if not isinstance(after, list) or not sort.is_shown or len(after) <= max(sort.places):
        return "engine"
    scores = [after[place] for place in sort.places]
    if not any(map(is_own, scores)):
        return "engine"
    return Walk(scores[0]) if all(score == scores[0] for score in scores) else None


def engine_values(after: Sequence[Any], sort: Sort, walk: Walk) -> list[Any]:
    """Return the engine's sort values for a hit after the head."""
    scores: Mapping[int, Any] = dict.fromkeys(sort.places, engine_score(walk.value))
    return [scores.get(place, value) for place, value in enumerate(after)]
