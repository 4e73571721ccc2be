"""Whether a file, the engine and its indices fit together: what `rerank-proxy check` says."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Literal

from proxy.config import Config, authorization_of, needs_token, token_of
from proxy.errors import Failure, Refused, UpstreamError
from proxy.planning import vector_search
from proxy.routes import Route, build_routes
from proxy.tls import towards_clients
from proxy.upstream.engine import Engine, EngineOfCaller
from proxy.yaml_file import ConfigError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: fine, worth knowing, or wrong."""

    kind: Literal["ok", "note", "wrong"]
    place: str
    said: str


ADVICE: Mapping[str, str] = {
    "mapping_unreadable": "the caller may not read the mapping: set engine.authorization_env to a variable with an "
    "Authorization value, or set `embedding_model` of the route if you know which model made the vectors",
    "no_vector_field": "the index has no such vector field: add it with `rerank-proxy backfill`, or remove `semantic`",
    "mixed_vectors": "the indices of the route have vectors of different models or types: give each its own route",
    "unknown_vector_type": "the proxy does not support the type of the field",
    "other_dimensions": "`dimensions` of the route differs from the mapping",
    "unknown_model": "the mapping does not say which model made the vectors: run `rerank-proxy backfill` on a new "
    "field, or set `embedding_model` of the route if you know it",
    "other_model": "the vectors of the index are from another model than the route names, or than models.url serves: "
    "load the index again, or remove `embedding_model` from the route",
}
"""For each reason to skip the semantic retriever: what it means and what to do."""


async def check(config: Config, environment: Mapping[str, str]) -> AsyncIterator[Finding]:
    """Look at everything a search of these routes will need; what cannot be reached is a note."""
    yield Finding("ok", "file", f"{len(config.routes)} routes" if config.routes else "no routes: all passes through")
    yield _token(config, environment)
    try:
        towards_clients(config.listen)
    except ConfigError as error:
        yield Finding("wrong", "listen", str(error))
    try:
        authorization = authorization_of(config, environment)
        engine = Engine(config.engine)
    except ConfigError as error:
        yield Finding("wrong", "engine", str(error))
        return
    carried = (("Authorization", authorization),) if authorization else ()
    caller = engine.for_caller(b"check", carried)
    try:
        async for finding in _engine(config, caller):
            yield finding
    finally:
        await engine.close()


def _token(config: Config, environment: Mapping[str, str]) -> Finding:
    variable = config.models.token_env
    try:
        token_of(config, environment)
    except ConfigError as error:
        return Finding("note", "token", f"{error}. `serve` refuses to start without.")
    needed = "is set" if needs_token(config) else "is not needed"
    return Finding("ok", "token", f"{variable} {needed}")


async def _engine(config: Config, caller: EngineOfCaller) -> AsyncIterator[Finding]:
    for route in build_routes(config):
        try:
            yield await _route(route, caller)
        except Refused as error:
            yield Finding("note", route.name, f"the engine refuses to say ({error}): only the file was checked")
        except UpstreamError as error:
            yield Finding("note", "engine", f"cannot be asked ({error}): only the file was checked")
            return


async def _route(route: Route, caller: EngineOfCaller) -> Finding:
    resolved = await caller.resolved(",".join(route.patterns), (("ignore_unavailable", "true"),))
    if not resolved:
        return Finding("note", route.name, "no index has such a name yet")
    indices = frozenset(entry.index for entry in resolved)
    if route.semantic is None:
        return Finding("ok", route.name, f"{len(indices)} indices, BM25 and the reranker")
    match vector_search(route, route.semantic, await caller.facts(indices)):
        case Failure(_, reason, detail):
            return Finding("wrong", route.name, f"{reason}{f' ({detail})' if detail else ''}: {ADVICE[reason]}")
        case vectors:
            return Finding(
                "ok", route.name, f"{len(indices)} indices, {vectors.dimensions} dimensions by {vectors.model}"
            )
