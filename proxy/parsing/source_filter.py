"""The `_source` filter of a search, from the body or the URL.

Source: Elasticsearch, "Source filtering". Excludes override includes, and a name includes all of its subfields. Any
`_source` parameter of the URL replaces `_source` of the body, and `_source_includes` replaces the names in `_source`.
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
    """Where the `_source` filter of the proxy's searches is written."""

    BODY = "in the body, even if the client used the URL"
    URL = "in the URL, next to a parameter that exists only there; the body's `_source` is then ignored"
    NOWHERE = "omitted because other fields are requested; Elasticsearch 9 returns it if these include a vector"


@dataclass(frozen=True, slots=True)
class SourceFilter:
    """Whether `_source` is returned, and which paths of it."""

    enabled: bool = True
    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    exclude_vectors: bool | None = None
    """Elasticsearch 9's option to exclude vectors; None means the default of the index."""
    names: tuple[str, str] = ("includes", "excludes")
    """The names of the lists in the request: the engine warns about the old names without `s`."""
    place: PathPlace = PathPlace.BODY

    def without(self, paths: Sequence[str]) -> "SourceFilter":
        """Exclude these paths as well, except those that the client requests by more than `*` or with all vectors.

        Elasticsearch 9 would also remove an excluded vector from `fields` if an include matches it.
        """
        if not self.enabled or self.exclude_vectors is False:
            return self
        selected = _selected([pattern for pattern in self.includes if pattern != "*"], paths)
        hidden = tuple(path for path in paths if path not in selected and path not in self.excludes)
        return replace(self, excludes=self.excludes + hidden)

    def shows_any(self, paths: Sequence[str]) -> bool:
        """Whether any of these paths may be returned."""
        return self.enabled and (not self.includes or bool(_selected(self.includes, paths)))

    def shows(self, paths: Sequence[str]) -> bool:
        """Whether these paths are returned completely, with all subfields."""
        included = not self.includes or _selected(self.includes, paths) >= set(paths)
        return self.enabled and included and not _may_remove(self.excludes, paths)

    @property
    def too_complex(self) -> bool:
        """Whether the comparison with fields may take more time than one search may use."""
        return sum("*" in pattern for pattern in (*self.includes, *self.excludes)) > SOURCE_PATTERNS

    def member(self) -> dict[str, Any]:
        """Return it as a member of the body; empty if it is written elsewhere."""
        return {"_source": self.render()} if self.place is PathPlace.BODY else {}

    def parameters(self) -> tuple[tuple[str, str], ...]:
        """Return it as URL parameters; empty if it is written elsewhere."""
        if self.place is not PathPlace.URL:
            return ()
        if not self.enabled:
            return (("_source", "false"),)
        lists = {"_source_includes": self.includes, "_source_excludes": self.excludes}
        return tuple((name, ",".join(paths)) for name, paths in lists.items() if paths)

    def render(self) -> Any:
        """Return it as the value of the body's `_source`."""
        if not self.enabled:
            return False
        lists = zip(self.names, (self.includes, self.excludes), strict=True)
        source: dict[str, Any] = {name: list(paths) for name, paths in lists if paths}
        if self.exclude_vectors is not None:
            source["exclude_vectors"] = self.exclude_vectors
        return source or True


def read_source(value: Any) -> SourceFilter | None:
    """Read `_source` of the body; None if its form is unknown."""
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
    """Read `_source`, `_source_includes` and `_source_excludes` of the URL; None if it has none of them.

    A non-empty `_source_exclude_vectors` (Elasticsearch 9) counts as one of them. It stays in the URL, because
    Elasticsearch 8 accepts it only in the body.
    """
    of_vectors = params.get("_source_exclude_vectors")
    if not of_vectors and not params.keys() & {"_source", "_source_includes", "_source_excludes"}:
        return None
    shown = params.get("_source", "true")
    named = "" if shown in {"true", "false"} else shown
    includes = _names(params.get("_source_includes", named))
    excludes = _names(params.get("_source_excludes", ""))
    return SourceFilter(
        shown != "false",
        includes,
        excludes,
        exclude_vectors={"true": True, "false": False}.get(of_vectors) if of_vectors else None,
        place=PathPlace.URL if of_vectors else PathPlace.BODY,
    )


def _names(value: str) -> tuple[str, ...]:
    return tuple(name for name in value.split(",") if name)


def _all_text(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _selected(patterns: Sequence[str], paths: Sequence[str]) -> set[str]:
    """Return the paths that a pattern matches, or one of whose parents it matches."""
    if not patterns:
        return set()
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


def _may_remove(patterns: Sequence[str], paths: Sequence[str]) -> bool:
    """Whether a pattern may remove one of these paths or a part of it."""
    below = tuple(f"{path}." for path in paths)
    literals = [pattern.partition("*")[0] for pattern in patterns if "*" in pattern]
    return (
        bool(_selected(patterns, paths))
        or any(pattern.startswith(below) for pattern in patterns)
        or any(path.startswith(literal) for literal in literals for path in below)
    )
