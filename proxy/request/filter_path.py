"""`filter_path`: the parts of an answer that a client wants to see, cut out of it as the engine does it.

Source: Elasticsearch, "Response filtering" (`FilterPathBasedFilter` of Jackson's streaming filter): paths by dots,
`*` for any name or part of one, `**` for any number of names, a leading `-` for what is left out. Arrays are walked
through. What holds nothing any more is left out itself. Values keep their own bytes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from proxy.request.json_text import indented, items_of, members_of

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FilterPath:
    """What is kept, everything where nothing is named, and what is left out of that."""

    includes: tuple[Path, ...] = ()
    excludes: tuple[Path, ...] = ()

    def apply(self, answer: bytes) -> bytes:
        """Cut an answer; one of which nothing is left is an empty object."""
        kept = _excluded(answer, self.excludes) if self.excludes else answer
        if kept is not None and self.includes:
            kept = _included(kept, self.includes)
        return b"{}" if kept is None else kept

    def write(self, answer: bytes, *, pretty: bool) -> bytes:
        """Cut an answer, and write what is left in the form that was asked for."""
        kept = self.apply(answer)
        return indented(kept) + b"\n" if pretty else kept


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


def _matches(part: str, name: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, part.split("*"))), name, re.DOTALL) is not None


def _below(paths: Sequence[Path], name: str) -> tuple[list[Path], bool]:
    """Follow paths one name down: what is left of each that goes this way, and whether one ends here."""
    left = [rest for path in paths for rest in _step(path, name)]
    return [path for path in left if path], () in left


def _step(path: Path, name: str) -> list[Path]:
    if path[0] == "**":
        return [path, *(_step(path[1:], name) if len(path) > 1 else [()])]
    return [path[1:]] if _matches(path[0], name) else []


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


def _excluded(value: bytes, paths: Sequence[Path]) -> bytes | None:
    """Leave out what paths lead to; None where nothing is left of what held something."""
    match value[:1]:
        case b"{":
            members = members_of(value)
            kept = {}
            for name, member in members.items():
                below, ends = _below(paths, name)
                found = None if ends else _excluded(bytes(member), below) if below else bytes(member)
                if found is not None:
                    kept[name] = msgspec.Raw(found)
            return msgspec.json.encode(kept) if kept or not members else None
        case b"[":
            all_items = items_of(value)
            items = [_excluded(bytes(item), paths) for item in all_items]
            present = [msgspec.Raw(item) for item in items if item is not None]
            return msgspec.json.encode(present) if present or not all_items else None
        case _:
            return value
