"""`filter_path` and `pretty`: what a client wants to see of an answer, cut out and written as the engine does it.

Source: Elasticsearch, "Response filtering" (`FilterPathBasedFilter` of Jackson's streaming filter): paths by dots,
`*` for any name or part of one, `**` for one name or more, a leading `-` for what is left out. Arrays are walked
through. What holds nothing any more is left out itself. Values keep their own bytes, and those of documents are the
engine's: under either parameter it writes `_source` anew, numbers in its own way, so it is asked for `pretty`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Final

import msgspec

from proxy.bounds import (
    FILTER_PATH_COMPARISONS,
    FILTER_PATH_DEPTH,
    FILTER_PATH_PARTS,
    FILTER_PATH_PATTERNS,
    FILTER_PATH_STATES,
)
from proxy.errors import TooComplex
from proxy.parsing.json_text import compacted, indented, mending_of, objects_of, plain_items_of, plain_members_of
from proxy.parsing.wildcards import matcher

Path = tuple[str, ...]
_STARS = frozenset({"*", "**"})


@dataclass(frozen=True, slots=True)
class FilterPath:
    """What is kept, everything where nothing is named, and what is left out of that."""

    includes: tuple[Path, ...] = ()
    excludes: tuple[Path, ...] = ()
    too_complex: bool = False
    """Reading it, or cutting by it, may take more time than one response may; then no path is read."""

    def apply(self, answer: bytes, *, keeps_empty: bool = True) -> bytes:
        """Cut an answer; one of which nothing is left is an empty object. Raises TooComplex.

        `keeps_empty`: what was empty before stays where excludes pass through it, see `dialects`.
        """
        if self.too_complex:
            raise TooComplex("engine", "a `filter_path` of too many parts")
        mending = mending_of(answer)
        opened = mending.members_of if mending else plain_members_of
        # What is read once for each level is to have no spaces.
        kept: bytes | None = compacted(mending.mended if mending else answer)
        if kept is not None and self.excludes:
            kept = _Cut(self.excludes, _EXCLUDING, opened, keeps_empty=keeps_empty).apply(kept)
        if kept is not None and self.includes:
            kept = _Cut(self.includes, _INCLUDING, opened).apply(kept)
        if kept is None:
            return b"{}"
        return mending.written(kept) if mending else kept


@dataclass(frozen=True, slots=True)
class Form:
    """How an answer is to be written: which parts of it, and indented or not."""

    filter_path: FilterPath = FilterPath()
    pretty: bool = False
    asks: str = "true"
    """What the engine is told of `pretty`: what is no flag is for it to refuse."""

    @property
    def is_plain(self) -> bool:
        return self == Form()

    def write(self, answer: bytes, *, keeps_empty: bool) -> bytes:
        """Cut an answer, and write what is left; raises TooComplex."""
        if self.is_plain:
            return answer
        kept = self.filter_path.apply(answer, keeps_empty=keeps_empty) if self.filter_path != FilterPath() else answer
        return indented(kept) + b"\n" if self.pretty else compacted(kept)

    def asked(self, parameters: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """Say to the engine, who is to show all of its answer, with its documents written anew or as they are."""
        others = tuple(pair for pair in parameters if pair[0] not in _OF_THE_FORM)
        return others if self.is_plain else (*others, ("pretty", self.asks))


_OF_THE_FORM = frozenset({"filter_path", "pretty"})


def read_form(parameters: Sequence[tuple[str, str]]) -> Form:
    """Read the form from the URL."""
    said = dict(parameters)
    pretty = said.get("pretty", "false")
    paths = read_filter_path(said.get("filter_path", ""))
    return Form(paths, pretty != "false", "true" if pretty == "false" else pretty)


def read_filter_path(said: str) -> FilterPath:
    """Read the parameter's comma-separated paths."""
    if said.count(".") + said.count(",") >= FILTER_PATH_PARTS:
        return _TOO_COMPLEX
    return _read_paths(said)


_TOO_COMPLEX = FilterPath(too_complex=True)


@lru_cache(32)
def _read_paths(said: str) -> FilterPath:
    """Read them once for a search, which asks for them several times, or once for each item of a multi-search."""
    names = [name.strip() for name in said.split(",") if name.strip()]
    includes = tuple(_path(name) for name in names if not name.startswith("-"))
    excludes = tuple(_path(name[1:]) for name in names if name.startswith("-"))
    patterns = [part for path in (*includes, *excludes) for part in path if "*" in part and part not in _STARS]
    return _TOO_COMPLEX if len(patterns) > FILTER_PATH_PATTERNS else FilterPath(includes, excludes)


def _path(name: str) -> Path:
    """Split at dots, but for those that a backslash makes part of a name."""
    return tuple(part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", name))


_OBJECT = ord("{")
_CONTAINERS = b"{["


class _Verdict(Enum):
    """What becomes of a member that no path goes into any further."""

    KEPT = "kept"
    DROPPED = "dropped"


_KEPT: Final = _Verdict.KEPT
_DROPPED: Final = _Verdict.DROPPED


@dataclass(frozen=True, slots=True)
class _Mode:
    """What becomes of a member at which a path ends, and of one that lies on none."""

    at_end: _Verdict
    beside: _Verdict


_INCLUDING = _Mode(_KEPT, _DROPPED)
_EXCLUDING = _Mode(_DROPPED, _KEPT)


@dataclass(slots=True)
class _State:
    """The places in the paths that a walk through an answer has come to, and where each name leads from there."""

    known: "dict[str, _State | _Verdict | None]"
    """By name; None where it is still to be worked out."""
    other: "_State | _Verdict | None"
    """Where a name leads that no path names."""
    always: frozenset[int]
    """Places that any name leads to."""
    named: Mapping[str, Sequence[int]]
    patterns: Sequence[tuple[Callable[[str], object], int]]
    """What tells whether a name is one of those with a wildcard in them, and the place behind each."""


_Opened = Callable[[bytes], dict[str, msgspec.Raw]]


class _Cut:
    """Cuts an answer by paths, all of which are followed at once, as an automaton whose states are made when needed.

    No way is tried twice, so each member costs no more than there are parts, however many ways lead to it.
    """

    def __init__(self, paths: Sequence[Path], mode: _Mode, opened: _Opened, *, keeps_empty: bool = False) -> None:
        self._opened = opened
        self._compared = 0
        self._parts: list[str | None] = [part for path in paths for part in (*path, None)]
        self._paths = paths
        self._mode = mode
        self._keeps_plain = mode.beside is _KEPT
        self._keeps_empty = keeps_empty
        self._states: dict[frozenset[int], _State] = {}

    def apply(self, answer: bytes) -> bytes | None:
        """Return what is left; None where that is nothing. Raises TooComplex."""
        beginnings, place = [], 0
        for path in self._paths:
            beginnings.append(place)
            place += len(path) + 1
        try:
            kept = self._left(answer, self._state(frozenset(beginnings)), 0)
        except RecursionError as error:
            raise TooComplex("engine", "an answer nested too deeply for a `filter_path`") from error
        return None if kept is None else msgspec.json.encode(kept)

    def _left(self, value: bytes, state: _State, depth: int) -> Any:
        """Return what is left of an object or an array that paths go into; None where that is nothing."""
        if depth > FILTER_PATH_DEPTH:
            raise TooComplex("engine", f"an answer nested deeper than {FILTER_PATH_DEPTH} levels, under `filter_path`")
        if len(value) == len(b"{}"):
            return msgspec.Raw(value) if self._keeps_empty else None
        is_plain = value.find(b"{", 1) < 0 and value.find(b"[", 1) < 0
        if is_plain and (value[0] != _OBJECT or not (state.named or state.patterns)):
            return self._whole(value, state)
        if value[0] == _OBJECT:
            members = self._opened(value)
            kept: Any = self._of_members(members, state, depth + 1, is_plain=is_plain)
            return kept if kept or (self._keeps_empty and not members) else None
        kept = self._of_objects(value, state, depth + 1) if value[1] == _OBJECT else None
        if kept is None:
            kept = self._of_items(plain_items_of(value), state, depth + 1)
        return kept or None

    def _whole(self, value: bytes, state: _State) -> msgspec.Raw | None:
        """Return what is left of an object or an array of plain values, whatever their names: all or nothing."""
        below = self._other(state) if value[0] == _OBJECT else state
        is_left = self._keeps_plain if isinstance(below, _State) else below is _KEPT
        return msgspec.Raw(value) if is_left else None

    def _of_members(
        self, members: Mapping[str, msgspec.Raw], state: _State, depth: int, *, is_plain: bool
    ) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        known, other = state.known, None if state.patterns else self._other(state)
        for name, member in members.items():
            below = known.get(name, other)
            if below is None:
                below = self._below(state, name)
            if below is _DROPPED:
                continue
            if below is _KEPT:
                kept[name] = member
            elif is_plain or (value := bytes(member))[0] not in _CONTAINERS:
                if self._keeps_plain:
                    kept[name] = member
            elif (left := self._left(value, below, depth)) is not None:
                kept[name] = left
        return kept

    def _of_objects(self, array: bytes, state: _State, depth: int) -> list[Any] | None:
        """Return what is left of an array of objects, which are taken apart at once; None where it has others, too."""
        if depth >= FILTER_PATH_DEPTH or self._opened is not plain_members_of:
            return None
        try:
            objects = objects_of(array)
        except msgspec.ValidationError:
            return None
        is_plain = array.find(b"[", 1) < 0 and array.count(b"{") == len(objects)
        kept: list[Any] = []
        for members in objects:
            left = self._of_members(members, state, depth + 1, is_plain=is_plain)
            if left or (self._keeps_empty and not members):
                kept.append(left)
        return kept

    def _of_items(self, items: Sequence[msgspec.Raw], state: _State, depth: int) -> list[Any]:
        kept: list[Any] = []
        for item in items:
            value = bytes(item)
            if value[0] not in _CONTAINERS:
                if self._keeps_plain:
                    kept.append(item)
            elif (left := self._left(value, state, depth)) is not None:
                kept.append(left)
        return kept

    def _below(self, state: _State, name: str) -> _State | _Verdict:
        """Work out where a name leads; raises TooComplex."""
        self._compared += len(state.patterns)
        if self._compared > FILTER_PATH_COMPARISONS:
            raise TooComplex("engine", "a response of too many names for a `filter_path` with wildcards")
        found = [place for matches, place in state.patterns if matches(name)]
        found += state.named.get(name, ())
        below = self._verdict(state.always.union(found)) if found else self._other(state)
        state.known[name] = below
        return below

    def _other(self, state: _State) -> _State | _Verdict:
        """Work out where a name leads that no path names."""
        if state.other is None:
            state.other = self._verdict(state.always)
        return state.other

    def _verdict(self, places: frozenset[int]) -> _State | _Verdict:
        if any(self._parts[place] is None for place in places):
            return self._mode.at_end
        return self._state(places) if places else self._mode.beside

    def _state(self, places: frozenset[int]) -> _State:
        if (known := self._states.get(places)) is not None:
            return known
        always: list[int] = []
        named: dict[str, list[int]] = {}
        patterns: list[tuple[Callable[[str], object], int]] = []
        for place in places:
            match self._parts[place]:
                case "**":
                    always += [place, place + 1] if self._parts[place + 1] is not None else [place + 1]
                case "*":
                    always.append(place + 1)
                case str(part) if "*" in part:
                    patterns.append((matcher(part), place + 1))
                case part:
                    named.setdefault(part or "", []).append(place + 1)
        if len(self._states) == FILTER_PATH_STATES:
            raise TooComplex("engine", "a `filter_path` that leads to too many places")
        state = _State(dict.fromkeys(named), None, frozenset(always), named, patterns)
        self._states[places] = state
        return state
