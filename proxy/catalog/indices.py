"""What a request's index names stand for, and what the proxy must know of those indices.

A route covers an index by the index's own name. It covers what an alias or data stream stands for only where the
route spells that name out, without a wildcard: nobody can bring an index under a route by naming an alias well.
A name with a colon is another cluster's (`eu:products`) or a part of a data stream (`logs::failures`); a route covers
it only by a pattern that has the colon, too: `*` is this cluster's indices, as it is for the engine.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from proxy.parsing.wildcards import matches
from proxy.settings.routes import Route

META_KEY = "rerank_proxy"
TEXT_TYPES = frozenset({"text", "match_only_text", "search_as_you_type", "semantic_text", "annotated_text"})
VECTOR_TYPES = frozenset({"dense_vector", "knn_vector"})
_OBJECTS = frozenset({"object", "nested"})
DEFAULT_MAX_RESULT_WINDOW = 10_000


@dataclass(frozen=True, slots=True)
class Resolved:
    """A concrete index, and the alias or data stream it was reached by."""

    index: str
    via: str = ""


def requested_names(expression: str) -> tuple[str, ...]:
    """Split the raw path segment of a search into the names it asks for."""
    return tuple(name for name in unquote(expression).split(",") if name)


def is_plain(names: Sequence[str]) -> bool:
    """One name that is neither pattern, exclusion, date math nor another cluster's."""
    return len(names) == 1 and not re.search(r"[*<>:]|^-|^_all$", names[0])


def read_resolution(answer: Mapping[str, Any]) -> tuple[Resolved, ...]:
    """Read `_resolve/index`: its indices, and what its aliases and data streams stand for."""
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
    """Return the cluster's part of a name, `eu:` of `eu:shop`.

    Elasticsearch 8.19.13 names the indices of a remote alias without it, though their hits carry it in `_index`.
    """
    return "".join(name.partition(":")[:2]) if ":" in name else ""


def _names(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Covered:
    """All the indices a search reaches lie inside this route."""

    route: Route
    reached: tuple[Resolved, ...] = ()
    """Empty where the engine did not say what the name stands for."""

    @property
    def indices(self) -> frozenset[str]:
        return frozenset(entry.index for entry in self.reached)


class Unrouted:
    """No index of the search lies inside any route."""


class Mixed:
    """Some indices lie inside a route and others elsewhere."""


def cover(
    routes: Sequence[Route], resolved: Sequence[Resolved], names: Sequence[str] = ()
) -> Covered | Unrouted | Mixed:
    """Find the one route that covers every index of a search; the first that matches an index is the index's.

    Of the names as requested, those with a selector (`logs::failures`) must be covered themselves: Elasticsearch 8.19
    resolves them to the plain name.
    """
    by_index: dict[str, Route | None] = {}
    for entry in (*resolved, *(Resolved(name) for name in names if "::" in name)):
        by_index[entry.index] = by_index.get(entry.index) or route_of(routes, entry)
    found = set(by_index.values())
    if found <= {None}:
        return Unrouted()
    route = found.pop()
    return Mixed() if found or route is None else Covered(route, tuple(resolved))


def route_of(routes: Iterable[Route], entry: Resolved) -> Route | None:
    return next((route for route in routes if _covers(route, entry)), None)


def _covers(route: Route, entry: Resolved) -> bool:
    return entry.via in route.patterns or any(_matches(pattern, entry.index) for pattern in route.patterns)


def _matches(pattern: str, name: str) -> bool:
    """Match as the engine does: `*` alone is special, and stands for neither a leading dot nor a colon."""
    if (name.startswith(".") and not pattern.startswith(".")) or (":" in name and ":" not in pattern):
        return False
    return matches(pattern, name)


def may_concern(routes: Sequence[Route], names: Sequence[str]) -> bool:
    """Whether names as requested may reach into a route, by their letters, before anything is resolved.

    No name at all is every index. What an alias stands for cannot be told by its letters.
    """
    asked = [_as_pattern(name) for name in names or ("*",) if not name.startswith("-")]
    return any(_meet(pattern, name) for route in routes for pattern in route.patterns for name in asked)


def _as_pattern(name: str) -> str:
    """Write `_all` and date math (`<logs-{now/d}>`) as patterns of the names that they may stand for."""
    return "*" if name == "_all" else re.sub(r"\{.*\}", "*", name.removeprefix("<").removesuffix(">"))


def _meet(one: str, other: str) -> bool:
    """Whether there can be a name that both patterns match: their ends agree, for between them anything may stand."""
    if (":" in one) != (":" in other):
        return False
    if "*" not in one or "*" not in other:
        return _matches(one, other) or _matches(other, one)
    begin, start = one.partition("*")[0], other.partition("*")[0]
    end, close = one.rpartition("*")[2], other.rpartition("*")[2]
    agree = (begin.startswith(start) or start.startswith(begin)) and (end.endswith(close) or close.endswith(end))
    return agree and one.startswith(".") == other.startswith(".")


@dataclass(frozen=True, slots=True)
class VectorField:
    """An index's vectors: how they are compared, and by which model they were made; None where nothing says so."""

    kind: str
    dimensions: int | None
    similarity: str | None
    model: str | None
    path: str | None = None
    """The nested documents it belongs to, several to one."""


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """What the mappings, settings and aliases of a search's indices say."""

    types: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Field path to the types it has."""
    vectors: Mapping[str, tuple[VectorField, ...]] = field(default_factory=dict)
    """Field path to its forms, one for each index that has it."""
    max_result_window: int = DEFAULT_MAX_RESULT_WINDOW
    pipelines: frozenset[str] = frozenset()
    """Search pipelines that run by default (OpenSearch)."""
    alias_filters: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    """What an alias lets see of an index, by index and alias."""
    copies: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Field path to the fields that its text is copied to (`copy_to`), as into one field of all text."""

    def copied_from(self, paths: Iterable[str]) -> frozenset[str]:
        """Return the fields that hold the text of one of these, too."""
        return frozenset().union(*(self.copies.get(path, ()) for path in paths))

    def stored_at(self, path: str) -> str:
        """Return where `_source` has a field's value: a multi-field's is its parent's."""
        parent = path.rpartition(".")[0]
        return parent if self.types.get(parent, _OBJECTS) - _OBJECTS else path

    def is_text(self, path: str) -> bool:
        """Whether words are searched in it; a field nobody knows may be one."""
        types = self.types.get(path.split("^", 1)[0])
        return types is None or bool(types & TEXT_TYPES)


def read_facts(answer: Mapping[str, Any]) -> IndexFacts:
    """Read `GET /{index}`: mappings and settings of each index."""
    types: dict[str, set[str]] = {}
    copies: dict[str, set[str]] = {}
    vectors: dict[str, list[VectorField]] = {}
    for index in answer.values():
        mappings = index.get("mappings", {})
        meta = mappings.get("_meta", {}).get(META_KEY, {})
        nested = set(nested_paths(mappings.get("properties", {})))
        for path, spec in flatten(mappings.get("properties", {})):
            types.setdefault(path, set()).add(spec["type"])
            if targets := spec.get("copy_to"):
                copies.setdefault(path, set()).update([targets] if isinstance(targets, str) else targets)
            if spec["type"] in VECTOR_TYPES:
                vector = _vector_field(spec, meta.get(path, {}), _innermost(path, nested))
                vectors.setdefault(path, []).append(vector)
    settings = [index.get("settings", {}).get("index", {}) for index in answer.values()]
    return IndexFacts(
        types={path: frozenset(found) for path, found in types.items()},
        vectors={path: tuple(found) for path, found in vectors.items()},
        max_result_window=min(map(_max_result_window, settings), default=DEFAULT_MAX_RESULT_WINDOW),
        pipelines=frozenset(filter(None, map(_default_pipeline, settings))),
        alias_filters=dict(_alias_filters(answer)),
        copies={path: frozenset(targets) for path, targets in copies.items()},
    )


def read_field_caps(answer: Mapping[str, Any]) -> IndexFacts:
    """Read `_field_caps`, which a caller who may only read is told: the types, and nothing of the vectors' making."""
    types = {path: frozenset(forms) for path, forms in answer["fields"].items()}
    nested = {path for path, forms in types.items() if "nested" in forms}
    vectors = {
        path: tuple(
            VectorField(kind, None, None, None, _innermost(path, nested)) for kind in sorted(forms & VECTOR_TYPES)
        )
        for path, forms in types.items()
        if forms & VECTOR_TYPES
    }
    return IndexFacts(types=types, vectors=vectors)


def _alias_filters(answer: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], Any]]:
    for name, index in answer.items():
        for alias, said in index.get("aliases", {}).items():
            if "filter" in said:
                yield (name, alias), said["filter"]


def nested_paths(properties: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the path of each field that holds documents of its own."""
    for name, spec in properties.items():
        if spec.get("type") == "nested":
            yield f"{prefix}{name}"
        yield from nested_paths(spec.get("properties", {}), f"{prefix}{name}.")


def _innermost(path: str, nested: Iterable[str]) -> str | None:
    return max((root for root in nested if path.startswith(f"{root}.")), key=len, default=None)


def flatten(properties: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each leaf field and multi-field of a mapping with its dotted path."""
    for name, spec in properties.items():
        path = f"{prefix}{name}"
        if "type" in spec and spec["type"] not in {"object", "nested"}:
            yield path, spec
        yield from flatten(spec.get("properties", {}), f"{path}.")
        yield from flatten(spec.get("fields", {}), f"{path}.")


def _vector_field(spec: Mapping[str, Any], meta: Mapping[str, Any], path: str | None) -> VectorField:
    method = spec.get("method", {})
    default = "l2" if spec["type"] == "knn_vector" else "cosine"
    return VectorField(
        kind=spec["type"],
        dimensions=spec.get("dims", spec.get("dimension", 0)),
        similarity=spec.get("similarity", spec.get("space_type", method.get("space_type", default))),
        model=meta.get("model"),
        path=path,
    )


def _max_result_window(settings: Mapping[str, Any]) -> int:
    return int(settings.get("max_result_window", DEFAULT_MAX_RESULT_WINDOW))


def _default_pipeline(settings: Mapping[str, Any]) -> str | None:
    said = settings.get("search", {}).get("default_pipeline")
    return None if said in (None, "_none") else str(said)


def alias_filter(reached: Sequence[Resolved], facts: IndexFacts) -> Any:
    """Say what the aliases of a search let see, as one query; None where they hide nothing.

    An index that is reached by its own name, or by an alias without a filter, is seen whole.
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
