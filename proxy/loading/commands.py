"""`index` and `backfill`, from what was asked on the command line to what is reported."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from proxy.config import Config, authorization_of
from proxy.indices import Resolved, route_of
from proxy.loading.backfill import Backfill, Filled, Marks, Pace, marks, since
from proxy.loading.clients import Client, open_client
from proxy.loading.documents import DocumentFile
from proxy.loading.errors import CannotLoad
from proxy.loading.index import Loaded, Loading, begin
from proxy.loading.mappings import Embedding
from proxy.loading.passages import introduced
from proxy.loading.patience import say_what_is_waited_for
from proxy.loading.progress import Shown
from proxy.loading.stopping import Stopped, Stopping
from proxy.loading.target import (
    Wanted,
    ask_engine,
    check_model,
    check_readable,
    create,
    fit,
    has_vectors,
    held_embedding,
    mappings_of,
    path_of,
)
from proxy.profiles import PROFILES, TIERS
from proxy.routes import build_routes
from proxy.upstream.embedder import Embedder, is_same
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

    client: Client
    embedder: Embedder
    stopping: Stopping


@asynccontextmanager
async def opened(
    config: Config, token: str | None, environment: Mapping[str, str], stopping: Stopping
) -> AsyncIterator[Services]:
    """Open the engine and the models for a load."""
    say_what_is_waited_for()
    authorization = authorization_of(config, environment)
    client = await ask_engine(lambda: open_client(config, authorization))
    async with models_session(config.models.connect_timeout_seconds) as session:
        transport = Transport(session, "embedder", config.models.url, token)
        embedder = Embedder(transport, timeout_seconds=_EMBED_S, query_max_chars=1, cache_bytes=0)
        try:
            yield Services(client, embedder, stopping)
        finally:
            await client.close()


def wanted(config: Config, index: str, options: VectorOptions) -> Wanted:
    """Say which vectors an index should have: the command line before its route, the route before its profile."""
    route = route_of(build_routes(config), Resolved(index))
    semantic = route.semantic if route else None
    profile = PROFILES[options.profile] if options.profile else None
    tier = TIERS[options.tier].embedding if options.tier else None
    named = route.embedding_model if route and route.embedding_model_named else None
    return Wanted(
        field=options.field or (semantic.fields[0] if semantic else "embedding"),
        model=options.model or tier or named,
        default_model=route.embedding_model if route else TIERS[profile.tier if profile else "balanced"].embedding,
        dimensions=options.dimensions or (semantic.dimensions if semantic else None),
        passage=options.passage,
        default_passage=profile.passage if profile else route.passage if route else (),
    )


async def settled(services: Services, index: str, mappings: Mapping[str, Mapping[str, Any]], wish: Wanted) -> Embedding:
    """Settle the vectors of an index: as it has them, or else as is wished, by the model that really answers.

    Raises CannotLoad, also where that is no longer the model that made what the index holds.
    """
    held = held_embedding(mappings, wish)
    if held is None and not (wish.passage or wish.default_passage):
        raise CannotLoad("which fields are embedded? Say --passage FIELD,..., or --profile for a kind of documents")
    asked = wish.model or (held.model if held else wish.default_model)
    answering = await introduced(services.embedder, asked, held.dimensions if held else wish.dimensions)
    if held is None:
        if wish.model and not is_same(wish.model, answering.model):
            sys.stderr.write(f"{answering.model} answers for {wish.model}, and is what the index will be searched by\n")
        return wish.embedding(answering)
    if is_same(held.model, answering.model):
        return held
    if await has_vectors(services.client, index, held.field):
        check_model(held, asked, answering.model)
    return replace(held, model=answering.model)


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """What `index` was asked for."""

    index: str
    vectors: VectorOptions
    with_vectors: bool = True
    id_field: str | None = None
    language: str = "english"


async def run_index(
    services: Services, config: Config, options: IndexOptions, file: DocumentFile, loaded: Loaded
) -> None:
    """Load a file, noting in `loaded` what became of it; raises CannotLoad.

    The index is created when there is a document for it.
    """
    client, name = services.client, options.index
    mappings = await mappings_of(client, name)
    embedding = None
    if options.with_vectors:
        embedding = await settled(services, name, mappings, wanted(config, name, options.vectors))
    profile = options.vectors.profile or ("" if mappings else _profile_of(config, name))
    with Shown(f"{name}", file.size) as shown:
        source = await begin(file, options.id_field, shown, loaded)
        if not mappings:
            await create(client, name, profile, embedding, options.language)
        elif embedding:
            await fit(client, mappings, embedding)
        loading = Loading(client, services.embedder, name, embedding, bool(mappings), services.stopping)
        await loading.load(source, shown, loaded)
    await ask_engine(lambda: client.ask("POST", path_of(name, "_refresh")))


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


@dataclass(frozen=True, slots=True)
class Reports:
    """Where is said what a round did, and what went wrong with one."""

    done: Callable[[Filled], None]
    failed: Callable[[CannotLoad], object]


async def run_backfill(services: Services, config: Config, options: BackfillOptions, reports: Reports) -> None:
    """Fill an index once, or again and again under `--watch`; raises CannotLoad."""
    filling = _Filling(services, config, options, reports, Pace(options.rate))
    await filling.fitted()
    seen = await filling.round({})
    while options.watch:
        await asyncio.sleep(options.interval)
        seen = await filling.round(seen)


@dataclass(frozen=True, slots=True)
class _Filling:
    """A backfill's rounds."""

    services: Services
    config: Config
    options: BackfillOptions
    reports: Reports
    pace: Pace

    async def round(self, seen: Marks) -> Marks:
        """Do what was written since the last round; under `--watch`, what fails is for the next one."""
        try:
            return await self._round(seen)
        except CannotLoad as error:
            if not self.options.watch or isinstance(error, Stopped):
                raise
            self.reports.failed(error)
            return seen

    async def _round(self, seen: Marks) -> Marks:
        now = await marks(self.services.client, self.options.index)
        stretches = since(seen, now)
        if not stretches:
            return now
        filled = Filled()
        backfill = await self.fitted()
        try:
            with (
                Shown(self.options.index, sum(stretch.length for stretch in stretches)) as shown,
                self.services.stopping.writing(),
            ):
                await backfill.round(shown, filled, stretches)
        finally:
            self.reports.done(filled)
        return seen if filled.put_off else now

    async def fitted(self) -> Backfill:
        """See to it that what the name stands for has the fields: an alias may mean another index by now."""
        client, index = self.services.client, self.options.index
        mappings = await mappings_of(client, index)
        if not mappings:
            raise CannotLoad(f"there is no index {index}: `rerank-proxy index FILE --name ...` makes one")
        embedding = await settled(self.services, index, mappings, wanted(self.config, index, self.options.vectors))
        check_readable(mappings, embedding)
        await fit(client, mappings, embedding)
        return Backfill(client, self.services.embedder, embedding, self.pace, self.services.stopping)
