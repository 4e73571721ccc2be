"""`filter_path` and `pretty`: selects and formats parts of a response exactly as the engine does.

Source: Elasticsearch, "Response filtering" (`FilterPathBasedFilter` of Jackson's streaming filter). Paths are separated
by dots; `*` matches a name or a part of one, `**` any number of names but at least one, and a leading `-` excludes.
Arrays are traversed. Objects and arrays that become empty are removed. Values keep their bytes, but under either
parameter the engine itself serialises `_source` again, with its own number format. The proxy then requests `pretty`
from the engine, so that the bytes of the documents are the engine's.
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
    INDENTED_DEPTH,
)
from proxy.errors import TooComplex
from proxy.parsing.json_text import (
    compacted,
    indented,
    is_deeper,
    mending_of,
    plain_items_of,
    plain_members_of,
    plain_objects_of,
)
from proxy.parsing.wildcards import matcher

Path = tuple[str, ...]
_STARS = frozenset({"*", "**"})


@dataclass(frozen=True, slots=True)
class FilterPath:
    """The paths to include (everything if there are none), and the paths to exclude from them."""

    includes: tuple[Path, ...] = ()
    excludes: tuple[Path, ...] = ()
    too_complex: bool = False
    """Whether processing may take too much time for one response; then no path is read."""

    def apply(self, answer: bytes, *, keeps_empty: bool = True) -> bytes:
        """Filter a response; the result is an empty object if nothing remains. Raises TooComplex.

        `keeps_empty`: whether values that were empty before are kept if an exclude descends into them, see `dialects`.
        """
        if self.too_complex:
            raise TooComplex("engine", "`filter_path` has too many parts")
        mending = mending_of(answer)
        opened = mending.members_of if mending else plain_members_of
        # The parts that are decoded once per level must not contain whitespace.
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
    """The format of a response: which parts it contains, and whether it is indented."""

    filter_path: FilterPath = FilterPath()
    pretty: bool = False
    asks: str = "true"
    """The value of `pretty` for the engine, which rejects an invalid one."""

    @property
    def is_plain(self) -> bool:
        return self == Form()

    def write(self, answer: bytes, *, keeps_empty: bool) -> bytes:
        """Filter and format a response; raises TooComplex."""
        if self.is_plain:
            return answer
        try:
            if self.filter_path != FilterPath():
                answer = self.filter_path.apply(answer, keeps_empty=keeps_empty)
            return self._formatted(answer)
        except RecursionError as error:
            raise TooComplex("engine", "the response is nested too deeply to be formatted") from error

    def write_refusal(self, answer: bytes, *, keeps_empty: bool) -> bytes:
        """Format a response that is no success; raises TooComplex. Engines do not apply `filter_path` to an exception.

        Seen on Elasticsearch 8.19.13, 9.4.3 and OpenSearch 2.19.1.
        """
        if self.is_plain or not _EXCEPTION.match(answer):
            return self.write(answer, keeps_empty=keeps_empty)
        return self._formatted(answer)

    def _formatted(self, answer: bytes) -> bytes:
        """Format a response; raises TooComplex for one that would become many times as large when it is indented."""
        if not self.pretty:
            return compacted(answer)
        if is_deeper(answer, INDENTED_DEPTH):
            raise TooComplex("engine", f"the response has more than {INDENTED_DEPTH} levels for `pretty`")
        return indented(answer) + b"\n"

    def asked(self, parameters: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """Return the engine's parameters: no `filter_path`, and `pretty` if `_source` is to be serialised again."""
        others = tuple(pair for pair in parameters if pair[0] not in _OF_THE_FORM)
        return others if self.is_plain else (*others, ("pretty", self.asks))


_EXCEPTION = re.compile(rb'\s*\{\s*"error"\s*:')
"""The start of an exception; a failed asynchronous search starts with its id."""
_OF_THE_FORM = frozenset({"filter_path", "pretty"})


def read_form(parameters: Sequence[tuple[str, str]]) -> Form:
    """Read the format from the URL parameters."""
    given = dict(parameters)
    pretty = given.get("pretty", "false")
    paths = read_filter_path(given.get("filter_path", ""))
    return Form(paths, pretty != "false", "true" if pretty == "false" else pretty)


def read_filter_path(value: str) -> FilterPath:
    """Parse the comma-separated paths of the parameter."""
    if value.count(".") + value.count(",") >= FILTER_PATH_PARTS:
        return _TOO_COMPLEX
    return _read_paths(value)


_TOO_COMPLEX = FilterPath(too_complex=True)


@lru_cache(32)
def _read_paths(value: str) -> FilterPath:
    """Parse the paths, cached because a search needs them several times, and a multi-search once per item."""
    names = [name.strip() for name in value.split(",") if name.strip()]
    includes = tuple(_path(name) for name in names if not name.startswith("-"))
    excludes = tuple(_path(name[1:]) for name in names if name.startswith("-"))
    patterns = [part for path in (*includes, *excludes) for part in path if "*" in part and part not in _STARS]
    return _TOO_COMPLEX if len(patterns) > FILTER_PATH_PATTERNS else FilterPath(includes, excludes)


def _path(name: str) -> Path:
    """Split a path at its dots, except escaped ones."""
    return tuple(part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", name))


_OBJECT = ord("{")
_CONTAINERS = b"{["


class _Verdict(Enum):
    """What happens to a member that no path descends into."""

    KEPT = "kept"
    DROPPED = "dropped"


_KEPT: Final = _Verdict.KEPT
_DROPPED: Final = _Verdict.DROPPED


@dataclass(frozen=True, slots=True)
class _Mode:
    """What happens to a member at the end of a path, and to one on no path."""

    at_end: _Verdict
    beside: _Verdict


_INCLUDING = _Mode(_KEPT, _DROPPED)
_EXCLUDING = _Mode(_DROPPED, _KEPT)


@dataclass(slots=True)
class _State:
    """A state of the automaton: the positions reached in the paths, and the next state for each name."""

    known: "dict[str, _State | _Verdict | None]"
    """The next state by name; None if it has not been computed yet."""
    other: "_State | _Verdict | None"
    """The next state for names that no path contains."""
    always: frozenset[int]
    """Positions reached by any name."""
    named: Mapping[str, Sequence[int]]
    patterns: Sequence[tuple[Callable[[str], object], int]]
    """Predicates of the names with wildcards, and the position after each."""


_Opened = Callable[[bytes], dict[str, msgspec.Raw]]


class _Cut:
    """Filters a response with an automaton that follows all paths at once; its states are computed when needed.

    So each member costs at most the number of path elements, however many paths match it.
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
        """Return the filtered response; None if nothing remains. Raises TooComplex."""
        beginnings, place = [], 0
        for path in self._paths:
            beginnings.append(place)
            place += len(path) + 1
        try:
            kept = self._left(answer, self._state(frozenset(beginnings)), 0)
        except RecursionError as error:
            raise TooComplex("engine", "the response is nested too deeply for `filter_path`") from error
        return None if kept is None else msgspec.json.encode(kept)

    def _left(self, value: bytes, state: _State, depth: int) -> Any:
        """Filter an object or array that paths descend into; None if nothing remains."""
        if depth > FILTER_PATH_DEPTH:
            raise TooComplex("engine", f"the response has more than {FILTER_PATH_DEPTH} levels for `filter_path`")
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
        """Filter an object or array of plain values whose names do not matter: it is kept or removed as a whole."""
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
        """Filter an array of objects, decoded at once; None if it also has other items."""
        if depth >= FILTER_PATH_DEPTH or self._opened is not plain_members_of:
            return None
        try:
            objects = plain_objects_of(array)
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
        """Compute the next state for a name; raises TooComplex."""
        self._compared += len(state.patterns)
        if self._compared > FILTER_PATH_COMPARISONS:
            raise TooComplex("engine", "the response has too many names for a `filter_path` with wildcards")
        found = [place for matches, place in state.patterns if matches(name)]
        found += state.named.get(name, ())
        below = self._verdict(state.always.union(found)) if found else self._other(state)
        state.known[name] = below
        return below

    def _other(self, state: _State) -> _State | _Verdict:
        """Compute the next state for names that no path contains."""
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
            raise TooComplex("engine", "`filter_path` matches too many combinations of positions")
        state = _State(dict.fromkeys(named), None, frozenset(always), named, patterns)
        self._states[places] = state
        return state
