"""`filter_path` and `pretty`: what a client wants to see of an answer, cut out and written as the engine does it.

Source: Elasticsearch, "Response filtering" (`FilterPathBasedFilter` of Jackson's streaming filter): paths by dots,
`*` for any name or part of one, `**` for one name or more, a leading `-` for what is left out. Arrays are walked
through. What holds nothing any more is left out itself. Values keep their own bytes, and those of documents are the
engine's: under either parameter it writes `_source` anew, numbers in its own way, so it is asked for `pretty`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from proxy.request.json_text import compacted, indented, items_of, members_of
from proxy.wildcards import matches

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FilterPath:
    """What is kept, everything where nothing is named, and what is left out of that."""

    includes: tuple[Path, ...] = ()
    excludes: tuple[Path, ...] = ()

    def apply(self, answer: bytes, *, keeps_empty: bool = True) -> bytes:
        """Cut an answer; one of which nothing is left is an empty object.

        `keeps_empty`: what was empty before stays where excludes pass through it, see `dialects`.
        """
        kept = _excluded(answer, self.excludes, keeps_empty=keeps_empty) if self.excludes else answer
        if kept is not None and self.includes:
            kept = _included(kept, self.includes)
        return b"{}" if kept is None else kept


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
        """Cut an answer, and write what is left."""
        if self.is_plain:
            return answer
        kept = self.filter_path.apply(answer, keeps_empty=keeps_empty)
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
    names = [name.strip() for name in said.split(",") if name.strip()]
    return FilterPath(
        tuple(_path(name) for name in names if not name.startswith("-")),
        tuple(_path(name[1:]) for name in names if name.startswith("-")),
    )


def _path(name: str) -> Path:
    """Split at dots, but for those that a backslash makes part of a name."""
    return tuple(part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", name))


def _below(paths: Sequence[Path], name: str) -> tuple[list[Path], bool]:
    """Follow paths one name down: what is left of each that goes this way, and whether one ends here."""
    left = [rest for path in paths for rest in _step(path, name)]
    return [path for path in left if path], () in left


def _step(path: Path, name: str) -> list[Path]:
    if path[0] == "**":
        return [path, path[1:]] if len(path) > 1 else [()]
    return [path[1:]] if matches(path[0], name) else []


def _included(value: bytes, paths: Sequence[Path]) -> bytes | None:
    """Keep what paths lead to; None where that is nothing."""
    match value[:1]:
        case b"{":
            kept = {}
            for name, member in members_of(value).items():
                below, ends = _below(paths, name)
                found = bytes(member) if ends else _included(bytes(member), below) if below else None
                if found is not None:
                    kept[name] = msgspec.Raw(found)
            return msgspec.json.encode(kept) if kept else None
        case b"[":
            items = [_included(bytes(item), paths) for item in items_of(value)]
            present = [msgspec.Raw(item) for item in items if item is not None]
            return msgspec.json.encode(present) if present else None
        case _:
            return None


def _excluded(value: bytes, paths: Sequence[Path], *, keeps_empty: bool) -> bytes | None:
    """Leave out what paths lead to; None where nothing is left, or was there, unless that is kept."""
    match value[:1]:
        case b"{":
            members = members_of(value)
            kept = {}
            for name, member in members.items():
                below, ends = _below(paths, name)
                left = _excluded(bytes(member), below, keeps_empty=keeps_empty) if below else bytes(member)
                found = None if ends else left
                if found is not None:
                    kept[name] = msgspec.Raw(found)
            return msgspec.json.encode(kept) if kept or (keeps_empty and not members) else None
        case b"[":
            all_items = items_of(value)
            items = [_excluded(bytes(item), paths, keeps_empty=keeps_empty) for item in all_items]
            present = [msgspec.Raw(item) for item in items if item is not None]
            return msgspec.json.encode(present) if present or (keeps_empty and not all_items) else None
        case _:
            return value
