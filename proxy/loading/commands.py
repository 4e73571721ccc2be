"""`index` and `backfill`, from what was asked on the command line to what is reported."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from elasticsearch import AsyncElasticsearch

from proxy.config import Config
from proxy.indices import Resolved, route_of
from proxy.loading.backfill import Backfill, Filled, Pace
from proxy.loading.documents import open_documents
from proxy.loading.errors import CannotLoad
from proxy.loading.index import Loaded, Loading
from proxy.loading.passages import embed
from proxy.loading.progress import Shown
from proxy.loading.target import Wanted, create, fit, held_embedding, mappings_of, open_engine
from proxy.mappings import Embedding
from proxy.profiles import PROFILES, TIERS
from proxy.routes import build_routes
from proxy.upstream.embedder import Embedder
from proxy.upstream.transport import Transport, models_session

_EMBED_S = 120.0
"""Patience with one batch of passages; a load has more of it than a search."""


@dataclass(frozen=True, slots=True)
class VectorOptions:
    """What the command line says of vectors; None where it says nothing."""

    profile: str | None = None
    tier: str | None = None
    model: str | None = None
    dimensions: int | None = None
    passage: tuple[str, ...] | None = None
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Services:
    """The engine and the models, open."""

    client: AsyncElasticsearch
    embedder: Embedder


@asynccontextmanager
async def opened(config: Config, token: str | None, environment: Mapping[str, str]) -> AsyncIterator[Services]:
    """Open the engine and the models for a load."""
    variable = config.engine.authorization_env
    client = open_engine(config, environment.get(variable) if variable else None)
    async with models_session(config.models.connect_timeout_seconds) as session:
        transport = Transport(session, "embedder", config.models.url, token)
        embedder = Embedder(transport, timeout_seconds=_EMBED_S, query_max_chars=1, cache_entries=0)
        try:
            yield Services(client, embedder)
        finally:
            await client.close()


def wanted(config: Config, index: str, options: VectorOptions) -> Wanted:
    """Say which vectors an index should have: the command line before its route, the route before its profile."""
    route = route_of(build_routes(config), Resolved(index))
    semantic = route.semantic if route else None
    profile = PROFILES[options.profile or (route.profile if route else "e-commerce")]
    tier = TIERS[options.tier].embedding if options.tier else None
    named = route.embedding_model if route and route.embedding_model_named else None
    return Wanted(
        field=options.field or (semantic.field if semantic else "embedding"),
        model=options.model or named,
        default_model=tier or (route.embedding_model if route else TIERS[profile.tier].embedding),
        dimensions=options.dimensions or (semantic.dimensions if semantic else None),
        passage=options.passage,
        default_passage=route.passage if route and not options.profile else profile.passage,
    )


async def settled(services: Services, mappings: Mapping[str, Mapping[str, Any]], wish: Wanted) -> Embedding:
    """Settle the vectors of an index: as it has them, or else as the model's own answer says."""
    if held := held_embedding(mappings, wish):
        return held
    model = wish.model or wish.default_model
    length = (await embed(services.embedder, ["How long is a vector?"], model, wish.dimensions, patience=20)).shape[1]
    return wish.embedding(length)


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """What `index` was asked for."""

    path: str
    index: str
    vectors: VectorOptions
    with_vectors: bool = True
    id_field: str | None = None
    language: str = "english"


async def run_index(services: Services, config: Config, options: IndexOptions, loaded: Loaded) -> None:
    """Load a file, noting in `loaded` what became of it; raises CannotLoad."""
    client, name = services.client, options.index
    with open_documents(options.path) as file:
        mappings = await mappings_of(client, name)
        embedding = None
        if options.with_vectors:
            embedding = await settled(services, mappings, wanted(config, name, options.vectors))
        if not mappings:
            profile = options.vectors.profile or _profile_of(config, name)
            await create(client, name, profile, embedding, options.language)
        elif embedding:
            await fit(client, mappings, embedding)
        loading = Loading(client, services.embedder, name, embedding, bool(mappings), options.id_field)
        with Shown(f"{name}", file.size) as shown:
            await loading.load(file, shown, loaded)
    await client.indices.refresh(index=name)


def _profile_of(config: Config, index: str) -> str:
    route = route_of(build_routes(config), Resolved(index))
    if route is None:
        raise CannotLoad(f"{index} is not there and no route covers it: say which kind of index with --profile")
    return route.profile


@dataclass(frozen=True, slots=True)
class BackfillOptions:
    """What `backfill` was asked for."""

    index: str
    vectors: VectorOptions
    rate: float | None = None
    watch: bool = False
    interval: float = 30.0


async def run_backfill(
    services: Services, config: Config, options: BackfillOptions, report: Callable[[Filled], None]
) -> Filled:
    """Fill an index once, or again and again under `--watch`; raises CannotLoad."""
    mappings = await mappings_of(services.client, options.index)
    if not mappings:
        raise CannotLoad(f"there is no index {options.index}: `rerank-proxy index FILE --name ...` makes one")
    embedding = await settled(services, mappings, wanted(config, options.index, options.vectors))
    await fit(services.client, mappings, embedding)
    backfill = Backfill(services.client, services.embedder, options.index, embedding, Pace(options.rate))
    if options.watch:
        await _watch(backfill, options.interval, report)
    return await _round(backfill, -1, report)


async def _round(backfill: Backfill, since: int, report: Callable[[Filled], None]) -> Filled:
    filled = Filled()
    with Shown(backfill.index, None) as shown:
        await backfill.round(shown, filled, since)
    report(filled)
    return filled


async def _watch(backfill: Backfill, interval: float, report: Callable[[Filled], None]) -> NoReturn:
    """Look for what was written since the last round; what cannot be done now is tried again with the next."""
    seen: Mapping[tuple[str, str], int] = {}
    while True:
        try:
            marks = await backfill.marks()
            if marks != seen:
                await _round(backfill, min(seen.values(), default=-1), report)
                seen = marks
        except CannotLoad as error:
            report(Filled(refused=[("", str(error))]))
        await asyncio.sleep(interval)
