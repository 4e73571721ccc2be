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
    "mapping_unreadable": "the mapping may not be read: name a variable with an Authorization value in "
    "engine.authorization_env, or name `embedding_model` if you know which one made the vectors",
    "no_vector_field": "there is no such vector field: `rerank-proxy backfill` adds it, or leave `semantic` out",
    "mixed_vectors": "its indices hold vectors of different models or kinds: give each a route of its own",
    "unknown_vector_type": "the field's type is not one that is searched here",
    "other_dimensions": "the mapping's vectors have another length than `dimensions` says",
    "unknown_model": "nothing says which model made these vectors: run `rerank-proxy backfill` on a field of its own, "
    "or name `embedding_model` if you know it",
    "other_model": "the index holds another model's vectors than the route names, or than answers at models.url: "
    "searches are degraded(semantic) until the index is loaded anew, or the route leaves `embedding_model` out",
}
"""What each reason for leaving out the semantic retriever asks somebody to do."""


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
