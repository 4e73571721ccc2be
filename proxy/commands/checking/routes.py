"""Check routes: against each other, and against the indices they cover."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from proxy.catalog.indices import IndexFacts, Resolved, route_of
from proxy.catalog.passage_fields import missing_fields
from proxy.commands.checking.findings import Finding
from proxy.errors import Failure
from proxy.ranking.planning import VectorSearch, vector_search
from proxy.settings.config import Config, RouteSettings
from proxy.settings.routes import Route
from proxy.upstream.engine import EngineOfCaller

ADVICE: Mapping[str, str] = {
    "mapping_unreadable": "the caller may not read the mapping: set engine.authorization_env to a variable with an "
    "Authorization value, or set `embedding_model` of the route if you know which model made the vectors",
    "no_vector_field": "the index has no such vector field: add it with `rerank-proxy backfill`, or remove `semantic`",
    "mixed_vectors": "the indices of the route have vectors of different models or types, and kNN searches only those "
    "that fit the route, if these are alike: run `rerank-proxy backfill` on the others, or give each its own route",
    "unknown_vector_type": "the proxy does not support the type of the field",
    "other_dimensions": "`dimensions` of the route differs from the mapping",
    "unknown_model": "the mapping does not say which model made the vectors: run `rerank-proxy backfill` on a new "
    "field, or set `embedding_model` of the route if you know it; a copy made with `_reindex` needs the mapping of the "
    "original, with `_meta`",
    "other_model": "the vectors of the index are from another model than the route names, or than models.url serves: "
    "load the index again, or remove `embedding_model` from the route",
}
"""What each reason to skip the semantic retriever means, and what to do."""


def unused_patterns(routes: Sequence[Route]) -> Iterator[tuple[str, Finding]]:
    """Find names and patterns that are never used because an earlier one matches; yields the key's path with each.

    The first matching route is used. A plain name after a matching pattern is only a note: it may be an alias, which
    patterns do not match. The same name or pattern a second time is wrong.
    """
    for number, route in enumerate(routes):
        for place, pattern in enumerate(route.patterns):
            path = f"routes[{number}].index"
            earlier = [(at, name) for at in range(number) for name in routes[at].patterns]
            if (at := next((at for at, name in earlier if name == pattern), None)) is not None:
                yield (
                    path,
                    Finding("wrong", path, f"{pattern!r} is also in routes[{at}], which comes first: remove one"),
                )
            elif pattern in route.patterns[:place]:
                yield path, Finding("wrong", path, f"{pattern!r} is in this route twice: remove one")
            elif (first := route_of(routes[:number], Resolved(pattern))) is not None:
                yield path, _shadowed(path, pattern, first.name, routes.index(first))


_LONG_S, _SHORT_MS = 120, 20


def unusual_times(config: Config) -> Iterator[tuple[str, str]]:
    """Find timeouts that were probably written in another unit; yields the key's path and the question."""
    timeouts = {
        "engine.connect_timeout_seconds": config.engine.connect_timeout_seconds,
        "engine.added_timeout_seconds": config.engine.added_timeout_seconds,
        "engine.resolve_timeout_seconds": config.engine.resolve_timeout_seconds,
        "models.connect_timeout_seconds": config.models.connect_timeout_seconds,
        "models.embed_timeout_seconds": config.models.embed_timeout_seconds,
        "models.rerank_timeout_seconds": config.models.rerank_timeout_seconds,
    }
    for number, route in enumerate(config.routes):
        if route.semantic is not None:
            timeouts[f"routes[{number}].semantic.timeout_seconds"] = route.semantic.timeout_seconds
        if route.budget_ms < _SHORT_MS:
            yield (
                f"routes[{number}].budget_ms",
                f"{route.budget_ms} ms are too short for a model call: are seconds meant? Write 1500 for 1.5 seconds",
            )
    for path, seconds in timeouts.items():
        if seconds > _LONG_S:
            yield path, f"{seconds:g} seconds are long for a search: are milliseconds meant? Write {seconds / 1000:g}"


def _shadowed(path: str, pattern: str, name: str, at: int) -> Finding:
    here = f"routes[{at}] ({name}) comes first"
    if "*" in pattern:
        return Finding("wrong", path, f"{pattern!r} is never used: {here}; move this route above it, or remove it")
    said = f"{pattern!r} is not used if it is an index: {here}; if it is an alias or data stream, all is well"
    return Finding("note", path, said)


@dataclass(frozen=True, slots=True)
class Looked:
    """Results for a route, and its vectors."""

    findings: tuple[Finding, ...]
    vectors: VectorSearch | None = None


async def look_at(route: Route, settings: RouteSettings, routes: Sequence[Route], caller: EngineOfCaller) -> Looked:
    """Check a route against the indices it covers; raises UpstreamError."""
    resolved = await caller.resolved(",".join(route.patterns), (("ignore_unavailable", "true"),))
    if not resolved:
        return Looked((Finding("note", route.name, "no index has this name yet"),))
    own = [entry for entry in resolved if route_of(routes, entry) == route]
    if not own:
        first = route_of(routes, resolved[0])
        said = f"every index belongs to an earlier route ({first.name if first else '?'}): move this route above it"
        return Looked((Finding("wrong", route.name, said),))
    indices = frozenset(entry.index for entry in own)
    facts = await caller.facts(indices)
    passage = tuple(passage_findings(route, settings, facts))
    if route.semantic is None:
        return Looked((Finding("ok", route.name, f"{_count(indices)}, BM25 and the reranker"), *passage))
    match vector_search(route, route.semantic, facts, reached=indices):
        case Failure(_, reason, detail):
            said = f"{reason}{f' ({detail})' if detail else ''}: {ADVICE[reason]}"
            return Looked((Finding("wrong", route.name, said), *passage))
        case vectors:
            said = f"{_count(indices)}, {vectors.dimensions} dimensions by {vectors.model}"
            notes = _other_vectors(route, vectors, indices), _without_vectors(route, facts, indices)
            return Looked((Finding("ok", route.name, said), *chain(*notes), *passage), vectors)


def _other_vectors(route: Route, vectors: VectorSearch, indices: frozenset[str]) -> Iterator[Finding]:
    """Find indices whose vectors do not fit the route."""
    if vectors.partly:
        searched = frozenset().union(*vectors.having.values())
        said = f"{vectors.partly.reason} (not searched: {', '.join(sorted(indices - searched))})"
        yield Finding("wrong", route.name, f"{said}: {ADVICE[vectors.partly.reason]}")


def _without_vectors(route: Route, facts: IndexFacts, indices: frozenset[str]) -> Iterator[Finding]:
    """Note indices of the route that lack a vector field."""
    for field in route.semantic.fields if route.semantic else ():
        if lacking := len(indices) - len(facts.vectors.get(field, ())):
            said = (
                f"{lacking} of {_count(indices)} {'has' if lacking == 1 else 'have'} no vector field {field!r}: kNN "
                "finds nothing there, and their documents keep about the engine's places. Run `rerank-proxy backfill` "
                "on each"
            )
            yield Finding("note", route.name, said)


def _count(indices: frozenset[str]) -> str:
    return f"{len(indices)} {'index' if len(indices) == 1 else 'indices'}"


def passage_findings(route: Route, settings: RouteSettings, facts: IndexFacts) -> Iterator[Finding]:
    """Check that the mapping has the passage fields.

    Every field that the file names must exist; of the texts of a profile, one is enough.
    """
    if route.rerank_model is None and route.semantic is None:
        return
    missing = missing_fields(route.passage.fields, facts)
    if settings.passage is not None:
        for said in missing.values():
            yield _passage(route, "wrong", said)
    elif missing.keys() >= set(route.text_fields):
        said = f"the mapping has no field {', '.join(route.text_fields)} of the profile {route.profile}: set `passage`"
        yield _passage(route, "wrong", said)
    elif missing:
        yield _passage(route, "note", f"not in the mapping, of the profile {route.profile}: {', '.join(missing)}")


def _passage(route: Route, kind: str, said: str) -> Finding:
    return Finding("wrong" if kind == "wrong" else "note", route.name, f"passage: {said}")
