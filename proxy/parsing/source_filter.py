"""Which parts of a document's `_source` a search shows, as the client said it in body or URL.

Source: Elasticsearch, "Source filtering". An exclude beats an include; a name includes everything below it;
any `_source` parameter of the URL replaces the whole of the body's, and `_source_includes` the names in `_source`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import accumulate
from typing import Any

from proxy.bounds import SOURCE_PATTERNS
from proxy.parsing.wildcards import matcher

_LISTS = {"includes": "includes", "include": "includes", "excludes": "excludes", "exclude": "excludes"}


class PathPlace(Enum):
    """Where a search says which parts of `_source` are shown."""

    BODY = "in its body, wherever the client said it"
    URL = "in its URL, beside a parameter that has no place in the body, whose own is then not looked at"
    NOWHERE = "hidden beside other fields; but Elasticsearch 9 shows it where they take in a vector"


@dataclass(frozen=True, slots=True)
class SourceFilter:
    """Whether `_source` is shown, and which paths of it."""

    enabled: bool = True
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    exclude_vectors: bool | None = None
    """Elasticsearch 9's own way of leaving vectors out; None leaves it to the index."""
    names: tuple[str, str] = ("includes", "excludes")
    """How the client calls the lists: of the old names, without an `s`, the engine warns."""
    place: PathPlace = PathPlace.BODY

    def without(self, paths: Sequence[str]) -> "SourceFilter":
        """Leave out these paths as well, but for those that the client asks for by more than "everything".

        Elasticsearch 9 would leave an excluded vector that an include matches out of `fields`, too.
        """
        asked = _selected([pattern for pattern in self.includes if pattern != "*"], paths)
        hidden = tuple(path for path in paths if path not in asked and path not in self.excludes)
        return replace(self, excludes=self.excludes + hidden) if self.enabled else self

    def shows(self, paths: Sequence[str]) -> bool:
        """Whether these paths are there whole, with all that is below them."""
        included = not self.includes or _selected(self.includes, paths) >= set(paths)
        return self.enabled and included and not _touches(self.excludes, paths)

    @property
    def too_complex(self) -> bool:
        """Whether comparing it with fields may take more time than one search may."""
        return sum("*" in pattern for pattern in (*self.includes, *self.excludes)) > SOURCE_PATTERNS

    def member(self) -> dict[str, Any]:
        """Spell it as a member of the body, where that is its place."""
        return {"_source": self.render()} if self.place is PathPlace.BODY else {}

    def parameters(self) -> tuple[tuple[str, str], ...]:
        """Spell it as parameters of the URL, where that is its place."""
        if self.place is not PathPlace.URL:
            return ()
        if not self.enabled:
            return (("_source", "false"),)
        lists = {"_source_includes": self.includes, "_source_excludes": self.excludes}
        return tuple((name, ",".join(paths)) for name, paths in lists.items() if paths)

    def render(self) -> Any:
        """Spell it as the body's `_source`."""
        if not self.enabled:
            return False
        lists = zip(self.names, (self.includes, self.excludes), strict=True)
        said: dict[str, Any] = {name: list(paths) for name, paths in lists if paths}
        if self.exclude_vectors is not None:
            said["exclude_vectors"] = self.exclude_vectors
        return said or True


def read_source(value: Any) -> SourceFilter | None:
    """Read the body's `_source`; None for a form not known here."""
    match value:
        case bool():
            return SourceFilter(enabled=value)
        case str():
            return SourceFilter(includes=(value,))
        case list():
            return SourceFilter(includes=tuple(value)) if _all_text(value) else None
        case dict():
            return _read_lists(value)
        case _:
            return None


def _read_lists(value: Mapping[str, Any]) -> SourceFilter | None:
    lists: dict[str, tuple[str, ...]] = {}
    names = {"includes": "includes", "excludes": "excludes"}
    vectors = value.get("exclude_vectors")
    if "exclude_vectors" in value and not isinstance(vectors, bool):
        return None
    for key, paths in value.items():
        if key == "exclude_vectors":
            continue
        name = _LISTS.get(key)
        listed = [paths] if isinstance(paths, str) else paths
        if name is None or name in lists or not isinstance(listed, list) or not _all_text(listed):
            return None
        lists[name], names[name] = tuple(listed), key
    return SourceFilter(
        includes=lists.get("includes", ()),
        excludes=lists.get("excludes", ()),
        exclude_vectors=vectors,
        names=(names["includes"], names["excludes"]),
    )


def source_of_url(params: Mapping[str, str]) -> SourceFilter | None:
    """Read the URL's `_source`, `_source_includes`, `_source_excludes`; None where it has none of them.

    Elasticsearch 9's `_source_exclude_vectors` is one of them, but where it is empty. It goes along as it is, since
    Elasticsearch 8 knows it in the body alone.
    """
    of_vectors = bool(params.get("_source_exclude_vectors"))
    if not of_vectors and not params.keys() & {"_source", "_source_includes", "_source_excludes"}:
        return None
    shown = params.get("_source", "true")
    named = "" if shown in {"true", "false"} else shown
    includes = _names(params.get("_source_includes", named))
    excludes = _names(params.get("_source_excludes", ""))
    return SourceFilter(shown != "false", includes, excludes, place=PathPlace.URL if of_vectors else PathPlace.BODY)


def _names(value: str) -> tuple[str, ...]:
    return tuple(name for name in value.split(",") if name)


def _all_text(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _selected(patterns: Sequence[str], paths: Sequence[str]) -> set[str]:
    """Return those paths that a pattern names, or of which it names something that they lie in."""
    above = {path: list(accumulate(path.split("."), "{}.{}".format)) for path in paths}
    named = {name for names in above.values() for name in names}.intersection(patterns)
    matching = _patterns(patterns)
    return {
        path
        for path, names in above.items()
        if not named.isdisjoint(names) or any(matches(name) for matches in matching for name in names)
    }


def _patterns(patterns: Sequence[str]) -> list[Callable[[str], bool]]:
    return [matcher(pattern) for pattern in patterns if "*" in pattern]


def _touches(patterns: Sequence[str], paths: Sequence[str]) -> bool:
    """Whether a pattern may take away one of these paths or a part of it."""
    below = tuple(f"{path}." for path in paths)
    literals = [pattern.partition("*")[0] for pattern in patterns if "*" in pattern]
    return (
        bool(_selected(patterns, paths))
        or any(pattern.startswith(below) for pattern in patterns)
        or any(path.startswith(literal) for literal in literals for path in below)
    )
