"""Index resolution and metadata: which indices a request reaches, which route covers them, and their mappings.

A route covers an index by the index's own name. It covers the indices of an alias or data stream only if the route
lists that name without a wildcard, so that nobody can bring an index under a route by choosing an alias name. A name
with a colon belongs to a remote cluster (`eu:products`) or selects a part of a data stream (`logs::failures`). A route
covers it only by a pattern that also has a colon: as for the engine, `*` means the indices of the local cluster.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from proxy.parsing.wildcards import matcher
from proxy.settings.routes import Route

META_KEY = "rerank_proxy"
TEXT_TYPES = frozenset({"text", "match_only_text", "search_as_you_type", "semantic_text", "annotated_text"})
VECTOR_TYPES = frozenset({"dense_vector", "knn_vector"})
_OBJECTS = frozenset({"object", "nested"})
DEFAULT_MAX_RESULT_WINDOW = 10_000


@dataclass(frozen=True, slots=True)
class Resolved:
    """A concrete index, and the alias or data stream through which it was reached."""

    index: str
    via: str = ""


def requested_names(expression: str) -> tuple[str, ...]:
    """Split the raw path segment of a search into the requested names."""
    return tuple(name for name in unquote(expression).split(",") if name)


def is_plain(names: Sequence[str]) -> bool:
    """Whether there is one name, and it is no pattern, exclusion, date math or remote index."""
    return len(names) == 1 and not re.search(r"[*<>:]|^-|^_all$", names[0])


def read_resolution(answer: Mapping[str, Any]) -> tuple[Resolved, ...]:
    """Read the response of `_resolve/index`: indices, and the indices of its aliases and data streams."""
    indices = {Resolved(entry["name"]) for entry in answer.get("indices", ())}
    aliases = {
        Resolved(_cluster(entry["name"]) + name, entry["name"])
        for entry in answer.get("aliases", ())
        for name in entry["indices"]
    }
    streams = {
        Resolved(_cluster(entry["name"]) + name, entry["name"])
        for entry in answer.get("data_streams", ())
        for name in _names(entry["backing_indices"])
    }
    return tuple(sorted(indices | aliases | streams, key=lambda entry: (entry.index, entry.via)))


def _cluster(name: str) -> str:
    """Return the cluster prefix of a name, `eu:` of `eu:shop`.

    Elasticsearch 8.19.13 omits it from the indices of a remote alias, although the hits have it in `_index`.
    """
    return "".join(name.partition(":")[:2]) if ":" in name else ""


def _names(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Covered:
    """All indices that the search reaches belong to this route."""

    route: Route
    reached: tuple[Resolved, ...] = ()
    """Empty if the engine did not resolve the name."""

    @property
    def indices(self) -> frozenset[str]:
        return frozenset(entry.index for entry in self.reached)


class Unrouted:
    """No index of the search belongs to any route."""


class Mixed:
    """Some indices belong to a route and others do not, or to another one."""


def cover(
    routes: Sequence[Route], resolved: Sequence[Resolved], names: Sequence[str] = ()
) -> Covered | Unrouted | Mixed:
    """Find the one route that covers every index of a search; an index belongs to the first route that matches it.

    Requested names with a selector (`logs::failures`) must be covered themselves: Elasticsearch 8.19 resolves them to
    the name without the selector.
    """
    compiled = tuple(map(_compiled, routes))
    listed = {pattern for route in routes for pattern in route.patterns}
    begins = tuple(pattern.partition("*")[0] for pattern in listed)  # most of thousands of indices begin otherwise
    by_index: dict[str, Route | None] = {}
    for entry in (*resolved, *(Resolved(name) for name in names if "::" in name)):
        known = by_index.setdefault(entry.index, None)
        if known is None and (entry.via in listed or entry.index.startswith(begins)):
            by_index[entry.index] = _route_of(compiled, entry)
    found = set(by_index.values())
    if found <= {None}:
        return Unrouted()
    route = found.pop()
    return Mixed() if found or route is None else Covered(route, tuple(resolved))


def route_of(routes: Iterable[Route], entry: Resolved) -> Route | None:
    return _route_of(map(_compiled, routes), entry)


_Compiled = tuple[Route, Sequence[Callable[[str], bool]]]


def _compiled(route: Route) -> _Compiled:
    return route, [_matcher(pattern) for pattern in route.patterns]


def _route_of(routes: Iterable[_Compiled], entry: Resolved) -> Route | None:
    for route, patterns in routes:
        if entry.via in route.patterns or any(matches(entry.index) for matches in patterns):
            return route
    return None


def _matcher(pattern: str) -> Callable[[str], bool]:
    """Match like the engine: only `*` is special, and it matches neither a leading dot nor a colon."""
    fits, dotted, remote = matcher(pattern), pattern.startswith("."), ":" in pattern

    def matches(name: str) -> bool:
        return fits(name) and (dotted or not name.startswith(".")) and (remote or ":" not in name)

    return matches


def may_concern(routes: Sequence[Route], names: Sequence[str]) -> bool:
    """Whether the requested names can match a route by their spelling, without resolving them.

    No name means every index. The indices of an alias do not follow from its spelling.
    """
    requested = [_as_pattern(name) for name in names or ("*",) if not name.startswith("-")]
    return any(_overlap(pattern, name) for route in routes for pattern in route.patterns for name in requested)


def _as_pattern(name: str) -> str:
    """Convert `_all` and date math (`<logs-{now/d}>`) to a pattern of the names they can resolve to."""
    spelled = name.removeprefix("<").removesuffix(">")
    begin, end = spelled.find("{"), spelled.rfind("}")  # in linear time, unlike a regular expression
    if 0 <= begin < end:
        spelled = f"{spelled[:begin]}*{spelled[end + 1 :]}"
    return "*" if name == "_all" else spelled


def _overlap(one: str, other: str) -> bool:
    """Whether some name can match both patterns: if both have a `*`, their starts and their ends must agree."""
    if (":" in one) != (":" in other):
        return False
    if "*" not in one or "*" not in other:
        return _matcher(one)(other) or _matcher(other)(one)
    begin, start = one.partition("*")[0], other.partition("*")[0]
    end, close = one.rpartition("*")[2], other.rpartition("*")[2]
    agree = (begin.startswith(start) or start.startswith(begin)) and (end.endswith(close) or close.endswith(end))
    return agree and one.startswith(".") == other.startswith(".")


@dataclass(frozen=True, slots=True)
class VectorField:
    """A vector field of one index; similarity and model are None if the mapping does not state them."""

    kind: str
    dimensions: int | None
    similarity: str | None
    model: str | None
    path: str | None = None
    """Path of the nested documents that contain the field, if any."""
    index: str = field(default="", compare=False)
    """The index; empty if only the types of the fields are known."""


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """Facts from the mappings, settings and aliases of the indices of a search."""

    indices: frozenset[str] = frozenset()
    """The indices; empty if only the types of the fields are known."""

    types: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Types of a field, by its path."""
    vectors: Mapping[str, tuple[VectorField, ...]] = field(default_factory=dict)
    """Vector fields by path, one for each index that has the field."""
    max_result_window: int = DEFAULT_MAX_RESULT_WINDOW
    pipelines: frozenset[str] | None = frozenset()
    """Search pipelines that run by default (OpenSearch); None if the settings were not read."""
    alias_filters: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    """Filters of aliases, by index and alias."""
    copies: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Targets of `copy_to`, by the path of the source field."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Fields of type `alias`, and the field that each stands for in every index; `_source` has none of them."""
    also_keywords: frozenset[str] = frozenset()
    """Text fields with a keyword multi-field."""
    unmapped: frozenset[str] = frozenset()
    """Objects whose members are in `_source`, but not in the mapping: see `unmapped_paths`."""

    def in_source(self, field: str) -> bool:
        """Whether `_source` can have this path: a field or an object, but not a multi-field, which only the index has.

        An object without mapped members (`enabled: false`) can have it, too.
        """
        if any(is_inside(field, path) for path in self.unmapped):
            return True
        mapped = field in self.types or any(is_inside(path, field) for path in self.types)
        return mapped and field.rpartition(".")[0] not in self.types

    def copied_from(self, paths: Iterable[str]) -> frozenset[str]:
        """Return the fields into which the text of one of these fields is copied."""
        return frozenset().union(*(self.copies.get(path, ()) for path in paths))

    def stored_at(self, path: str) -> str:
        """Return where `_source` has the value of a field: that of a multi-field is its parent's."""
        path = self.aliases.get(path, path)
        parent = path.rpartition(".")[0]
        return parent if self.types.get(parent, _OBJECTS) - _OBJECTS else path

    def is_text(self, path: str) -> bool:
        """Whether the field is searched as text; an unmapped field may be."""
        field = path.split("^", 1)[0]
        types = self.types.get(self.aliases.get(field, field))
        return types is None or bool(types & TEXT_TYPES)


def read_facts(answer: Mapping[str, Any]) -> IndexFacts:
    """Read the response of `GET /{index}`: mappings, settings and aliases of each index."""
    types: dict[str, set[str]] = {}
    copies: dict[str, set[str]] = {}
    aliases: dict[str, set[str]] = {}
    vectors: dict[str, list[VectorField]] = {}
    for index_name, index in answer.items():
        mappings = index.get("mappings", {})
        meta = mappings.get("_meta", {}).get(META_KEY, {})
        nested = set(nested_paths(mappings.get("properties", {})))
        for path, spec in flatten(mappings.get("properties", {})):
            if spec["type"] == "alias":
                aliases.setdefault(path, set()).add(spec["path"])
                continue
            types.setdefault(path, set()).add(spec["type"])
            if targets := spec.get("copy_to"):
                copies.setdefault(path, set()).update([targets] if isinstance(targets, str) else targets)
            if spec["type"] in VECTOR_TYPES:
                vector = _vector_field(spec, meta.get(path, {}), _innermost(path, nested), index_name)
                vectors.setdefault(path, []).append(vector)
    settings = [index.get("settings", {}).get("index", {}) for index in answer.values()]
    return IndexFacts(
        indices=frozenset(answer),
        types={path: frozenset(found) for path, found in types.items()},
        also_keywords=_also_keywords(types),
        vectors={path: tuple(found) for path, found in vectors.items()},
        max_result_window=min(map(_max_result_window, settings), default=DEFAULT_MAX_RESULT_WINDOW),
        pipelines=frozenset(filter(None, map(_default_pipeline, settings))),
        alias_filters=dict(_alias_filters(answer)),
        copies={path: frozenset(targets) for path, targets in copies.items()},
        aliases={path: next(iter(meant)) for path, meant in aliases.items() if len(meant) == 1 and path not in types},
        unmapped=frozenset(path for index in answer.values() for path in unmapped_paths(index.get("mappings", {}))),
    )


def read_field_caps(answer: Mapping[str, Any]) -> IndexFacts:
    """Read the response of `_field_caps`, for callers with read privileges only: it has types, but no vector model."""
    types = {path: frozenset(forms) for path, forms in answer["fields"].items()}
    nested = {path for path, forms in types.items() if "nested" in forms}
    vectors = {
        path: tuple(
            VectorField(kind, None, None, None, _innermost(path, nested)) for kind in sorted(forms & VECTOR_TYPES)
        )
        for path, forms in types.items()
        if forms & VECTOR_TYPES
    }
    return IndexFacts(types=types, vectors=vectors, pipelines=None, also_keywords=_also_keywords(types))


def _also_keywords(types: Mapping[str, AbstractSet[str]]) -> frozenset[str]:
    parents = {path.rpartition(".")[0] for path, found in types.items() if "keyword" in found}
    return frozenset(path for path in parents if TEXT_TYPES & types.get(path, frozenset()))


def _alias_filters(answer: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Any]]:
    for name, index in answer.items():
        for alias, said in index.get("aliases", {}).items():
            if "filter" in said:
                yield (name, alias), said["filter"]


def nested_paths(properties: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the path of each `nested` field."""
    for name, spec in properties.items():
        if spec.get("type") == "nested":
            yield f"{prefix}{name}"
        yield from nested_paths(spec.get("properties", {}), f"{prefix}{name}.")


def _innermost(path: str, nested: AbstractSet[str]) -> str | None:
    end = path.rfind(".")
    while end >= 0 and path[:end] not in nested:
        end = path.rfind(".", 0, end)
    return path[:end] if end >= 0 else None


def flatten(properties: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each leaf field and multi-field of a mapping with its dotted path."""
    for name, spec in properties.items():
        path = f"{prefix}{name}"
        if "type" in spec and spec["type"] not in {"object", "nested"}:
            yield path, spec
        yield from flatten(spec.get("properties", {}), f"{path}.")
        yield from flatten(spec.get("fields", {}), f"{path}.")


def unmapped_paths(mapping: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield each object whose members `_source` has, though the mapping does not name them; empty for the root.

    These are objects with `enabled: false` or `dynamic: false`, and fields whose values may be objects (`flattened`).
    """
    if (
        mapping.get("enabled") is False
        or mapping.get("type") in _FLAT_TYPES
        or str(mapping.get("dynamic")).lower() in _NOT_MAPPED
    ):
        yield path
    for name, spec in mapping.get("properties", {}).items():
        yield from unmapped_paths(spec, f"{path}.{name}" if path else name)


_FLAT_TYPES = frozenset({"flattened", "flat_object", "semantic_text", "geo_point", "completion"})
_NOT_MAPPED = frozenset({"false", "runtime"})


def is_inside(field: str, path: str) -> bool:
    """Whether a field is at this path or below it; each is below the root, the empty path."""
    return not path or field == path or field.startswith(f"{path}.")


def _vector_field(spec: Mapping[str, Any], meta: Mapping[str, Any], path: str | None, index: str) -> VectorField:
    method = spec.get("method", {})
    default = "l2" if spec["type"] == "knn_vector" else "cosine"
    return VectorField(
        kind=spec["type"],
        dimensions=spec.get("dims", spec.get("dimension", 0)),
        similarity=spec.get("similarity", spec.get("space_type", method.get("space_type", default))),
        model=meta.get("model"),
        path=path,
        index=index,
    )


def _max_result_window(settings: Mapping[str, Any]) -> int:
    return int(settings.get("max_result_window", DEFAULT_MAX_RESULT_WINDOW))


def _default_pipeline(settings: Mapping[str, Any]) -> str | None:
    said = settings.get("search", {}).get("default_pipeline")
    return None if said in (None, "_none") else str(said)


def alias_filter(reached: Sequence[Resolved], facts: IndexFacts) -> Any:
    """Combine the filters of the aliases of a search into one query; None if they exclude nothing.

    An index that is also reached by its own name, or by an alias without a filter, is not filtered.
    """
    by_index: dict[str, list[Any]] = {}
    for entry in reached:
        by_index.setdefault(entry.index, []).append(facts.alias_filters.get((entry.index, entry.via)))
    seen = {index: None if None in filters else filters for index, filters in by_index.items()}
    if not any(seen.values()):
        return None
    clauses = [_in_index(index, filters) for index, filters in seen.items()]
    return {"bool": {"should": clauses, "minimum_should_match": 1}}


def _in_index(index: str, filters: Sequence[Any] | None) -> Any:
    here: dict[str, Any] = {"filter": [{"term": {"_index": index}}]}
    return {"bool": here | ({"should": filters, "minimum_should_match": 1} if filters else {})}
