"""The order that a search asks for, and the values by which a client goes on behind a hit (`search_after`).

A search by score with other keys behind it gives each hit its sort values. In a reranked answer the score's place
holds a number of the proxy's own, that fits the new order: from 1 to 2 in the head, below 1 behind it. An engine's
score is a float of nine decimal digits at most, so a number with more digits than that can only be the proxy's, and a
walk that began on an engine's own page goes on at the engine.
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
"""Stands for a score of 0, whose place in the tail has no digits."""
_STEP = 1e-9
"""Between neighbours of the head with one score: they have an order all the same."""


@dataclass(frozen=True, slots=True)
class Sort:
    """An order by score."""

    places: tuple[int, ...] = ()
    """Where among a hit's sort values its score stands; empty: hits have none, since they are by score alone."""

    @property
    def leading(self) -> int:
        """How many keys come before the score: hits with the same values of them are a group."""
        return self.places[0] if self.places else 0

    @property
    def is_shown(self) -> bool:
        return bool(self.places)


BY_SCORE = Sort()


def read_sort(sort: Any, in_url: str = "") -> Sort | None:
    """Read the body's `sort` and the URL's, which comes behind it; None where the score does not count, or rises."""
    clauses = [*_clauses(sort), *(_clause_of_url(each) for each in in_url.split(",") if each)]
    places = tuple(place for place, (name, _) in enumerate(clauses) if name == "_score")
    if not clauses:
        return BY_SCORE
    if not places or not all(_falls(order) for name, order in clauses if name == "_score"):
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


def _falls(order: Any) -> bool:
    """Whether a clause has the score's own direction; engines read it in any case."""
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


def head_values(scores: Sequence[float]) -> list[float]:
    """Return a strictly falling value for each place of the head, of scores from 2 to 1."""
    return [_marked(1.001 + (score - 1) * 0.998 - place * _STEP) for place, score in enumerate(scores)]


def tail_value(score: float) -> float:
    """Return the value of an engine's score behind the head; exact for scores up to 1e8."""
    positive = max(_float32(score), 0.0)
    return _marked(positive / (1.0 + positive)) if positive else _NO_SCORE


def engine_score(value: float) -> float:
    """Return the engine's score that a value behind the head was made of, in the digits that tell a float."""
    return 0.0 if value <= _NO_SCORE else float(f"{_float32(value / (1.0 - value)):.9g}")


def is_own(value: Any) -> bool:
    """Whether a sort value is the proxy's own, and no score of an engine's."""
    return isinstance(value, float) and 0 < value <= _HEAD_TO and _has_more_digits(value)


def _has_more_digits(value: float) -> bool:
    return float(f"{value:.{_ENGINE_DIGITS}g}") != value


def _marked(value: float) -> float:
    """Return the nearest number below with more digits than an engine's score has."""
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
    """A client goes on from an answer of the proxy's, behind one of its hits."""

    value: float
    """The hit's, in the place of its score."""

    @property
    def in_head(self) -> bool:
        return self.value >= HEAD_FROM


def walk_of(after: Any, sort: Sort) -> Walk | Literal["engine"] | None:
    """Say from whose answer `search_after` goes on; None where that cannot be: there are values of both."""
    if not isinstance(after, list) or not sort.is_shown or len(after) <= max(sort.places):
        return "engine"
    scores = [after[place] for place in sort.places]
    if not any(map(is_own, scores)):
        return "engine"
    return Walk(scores[0]) if all(score == scores[0] for score in scores) else None


def engine_values(after: Sequence[Any], sort: Sort, walk: Walk) -> list[Any]:
    """Return the values by which the engine goes on behind the same hit of the tail."""
    scores: Mapping[int, Any] = dict.fromkeys(sort.places, engine_score(walk.value))
    return [scores.get(place, value) for place, value in enumerate(after)]
