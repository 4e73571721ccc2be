"""The commands `index` and `backfill`, from their options to their reports."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from proxy.catalog.indices import Resolved, route_of
from proxy.commands.loading.backfill import Backfill, Filled, Marks, Pace, marks, since
from proxy.commands.loading.clients import EngineApi, open_client
from proxy.commands.loading.documents import DocumentFile
from proxy.commands.loading.dry_run import CountingEmbedder, ReadOnlyEngine
from proxy.commands.loading.errors import CannotLoad
from proxy.commands.loading.index import Loaded, Loading, begin
from proxy.commands.loading.mappings import Embedding
from proxy.commands.loading.passages import EmbedsPassages, first_served_model
from proxy.commands.loading.patience import say_what_is_waited_for
from proxy.commands.loading.progress import ShownProgress
from proxy.commands.loading.source_vectors import growth_of_responses
from proxy.commands.loading.stopping import Stopped, Stopping
from proxy.commands.loading.target import (
    Wanted,
    ask_engine,
    check_model,
    check_passage,
    create,
    fit,
    has_vectors,
    held_embedding,
    mappings_of,
    path_of,
)
from proxy.ranking.stages import Purse
from proxy.settings.config import Config
from proxy.settings.credentials import authorization_of
from proxy.settings.profiles import PROFILES, TIERS
from proxy.settings.redaction import NO_REDACTION
from proxy.settings.routes import build_routes
from proxy.upstream.embedder import Embedder, is_same
from proxy.upstream.providers import EMBED_FORMATS
from proxy.upstream.spending.meter import Meter, Spending
from proxy.upstream.transport import Transport, open_session

_EMBED_S = 120.0
"""Timeout for one batch of passages; much longer than for a search."""


@dataclass(frozen=True, slots=True)
class VectorOptions:
    """Options about vectors; None means not given."""

    profile: str | None = None
    tier: str | None = None
    model: str | None = None
    dimensions: int | None = None
    passage: tuple[str, ...] | None = None
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Services:
    """Open clients of the engine and the models."""

    client: EngineApi
    embedder: EmbedsPassages
    stopping: Stopping


@asynccontextmanager
async def opened_dry(
    config: Config, environment: Mapping[str, str], stopping: Stopping, counting: CountingEmbedder
) -> AsyncIterator[Services]:
    """Open a client of the engine that only reads, for `--dry-run`."""
    say_what_is_waited_for()
    authorization = authorization_of(config, environment)
    client = ReadOnlyEngine(await ask_engine(lambda: open_client(config, authorization)))
    try:
        yield Services(client, counting, stopping)
    finally:
        await client.close()


@asynccontextmanager
async def _metered(config: Config, index: str) -> AsyncIterator[Purse]:
    """Pay from the caps of the route that covers an index, and record what is spent."""
    meter = Meter(Path(config.spend.file) if config.spend.file else None)
    meter.read()
    route = route_of(build_routes(config), Resolved(index))
    saving = asyncio.create_task(meter.keep_saved())
    try:
        yield Spending(config, meter).purse(route.name if route else index)
    finally:
        saving.cancel()
        await meter.save()


@asynccontextmanager
async def opened(
    config: Config, token: str | None, environment: Mapping[str, str], stopping: Stopping, index: str
) -> AsyncIterator[Services]:
    """Open clients of the engine and the models for loading into an index."""
    say_what_is_waited_for()
    authorization = authorization_of(config, environment)
    client = await ask_engine(lambda: open_client(config, authorization))
    async with open_session(config.models) as session, _metered(config, index) as purse:
        transport = Transport(session, "embedder", config.models.url, token)
        embedder = Embedder(
            transport,
            timeout_seconds=_EMBED_S,
            query_max_chars=1,
            format_=EMBED_FORMATS[config.models.embed_api],
            purse=purse,
        )
        try:
            yield Services(client, embedder, stopping)
        finally:
            await client.close()


def wanted(config: Config, index: str, options: VectorOptions) -> Wanted:
    """Return the vectors an index should have: options override the route, and the route overrides the profile."""
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
        default_passage=profile.embedded if profile else route.embedded if route else (),
        redaction=route.redaction if route else NO_REDACTION,
    )


async def settled(services: Services, index: str, mappings: Mapping[str, Mapping[str, Any]], wish: Wanted) -> Embedding:
    """Decide on the vectors of an index, whose texts are redacted as the route says; raises CannotLoad."""
    return replace(await _settled(services, index, mappings, wish), redaction=wish.redaction)


async def _settled(
    services: Services, index: str, mappings: Mapping[str, Mapping[str, Any]], wish: Wanted
) -> Embedding:
    """Decide on the vectors of an index: those it already has, or else the requested ones, by the model that answers.

    Raises CannotLoad, also if the existing vectors are from another model.
    """
    held = held_embedding(mappings, wish)
    if held is None and not (wish.passage or wish.default_passage):
        raise CannotLoad("it is not known which fields to embed: give --passage FIELD,... or --profile PROFILE")
    asked = wish.model or (held.model if held else wish.default_model)
    answering = await first_served_model(services.embedder, asked, held.dimensions if held else wish.dimensions)
    if held is None:
        if wish.model and not is_same(wish.model, answering.model):
            sys.stderr.write(
                f"the server uses {answering.model} for {wish.model}; the index will record {answering.model}\n"
            )
        return wish.embedding(answering)
    if is_same(held.model, answering.model):
        return held
    if await has_vectors(services.client, index, held.field):
        check_model(held, asked, answering.model)
    return replace(held, model=answering.model)


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """Options of `index`."""

    index: str
    vectors: VectorOptions
    with_vectors: bool = True
    id_field: str | None = None
    language: str = "english"


async def run_index(
    services: Services, config: Config, options: IndexOptions, file: DocumentFile, loaded: Loaded
) -> None:
    """Load a file, counting in `loaded`; raises CannotLoad.

    The index is created once there is a document for it.
    """
    client, name = services.client, options.index
    mappings = await mappings_of(client, name)
    embedding = None
    if options.with_vectors:
        embedding = await settled(services, name, mappings, wanted(config, name, options.vectors))
    profile = options.vectors.profile or ("" if mappings else _profile_of(config, name))
    with ShownProgress(f"{name}", file.size) as shown:
        source = await begin(file, options.id_field, shown, loaded)
        if embedding and (growth := await _growth(client, config, name, mappings, embedding)):
            shown.say(growth)
        if not mappings:
            await create(client, name, profile, embedding, options.language)
        elif embedding:
            await fit(client, mappings, embedding)
        loading = Loading(client, services.embedder, name, embedding, bool(mappings), services.stopping)
        await loading.load(source, shown, loaded)
        if embedding and (empty := [path for path in embedding.template.fields if path not in loaded.filled]):
            shown.say(f"note: nothing was embedded of {', '.join(empty)}: no document of the file has a value there")
    await ask_engine(lambda: client.ask("POST", path_of(name, "_refresh")))


async def _growth(
    client: EngineApi, config: Config, index: str, mappings: Mapping[str, Mapping[str, Any]], embedding: Embedding
) -> str | None:
    """Say, before vectors are written, how much responses will grow; None if the engine or the route prevents it."""
    route = route_of(build_routes(config), Resolved(index))
    semantic = route.semantic if route else None
    if semantic and semantic.exclude_from_source and embedding.field in semantic.fields:
        return None
    return await growth_of_responses(client, index, mappings, embedding)


def _profile_of(config: Config, index: str) -> str:
    route = route_of(build_routes(config), Resolved(index))
    if route is None:
        raise CannotLoad(
            f"the index {index} does not exist and no route covers it: give --profile PROFILE to create it"
        )
    return route.profile


@dataclass(frozen=True, slots=True)
class BackfillOptions:
    """Options of `backfill`."""

    index: str
    vectors: VectorOptions
    rate: float | None = None
    watch: bool = False
    interval: float = 30.0


@dataclass(frozen=True, slots=True)
class Reports:
    """Functions that report the counts of a run, or its error."""

    done: Callable[[Filled], None]
    failed: Callable[[CannotLoad], object]


async def run_backfill(services: Services, config: Config, options: BackfillOptions, reports: Reports) -> None:
    """Run once, or repeatedly with `--watch`; raises CannotLoad."""
    filling = _Filling(services, config, options, reports, Pace(options.rate))
    await filling.fitted()
    seen = await filling.round({})
    while options.watch:
        await asyncio.sleep(options.interval)
        seen = await filling.round(seen)


@dataclass(frozen=True, slots=True)
class _Filling:
    """The runs of one backfill."""

    services: Services
    config: Config
    options: BackfillOptions
    reports: Reports
    pace: Pace
    announced: set[str] = field(default_factory=set)
    """What was said about the index, each once: it is checked before each run."""

    async def round(self, seen: Marks) -> Marks:
        """Process what was written since the last run; with `--watch`, a failed run is repeated later."""
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
                ShownProgress(self.options.index, sum(stretch.length for stretch in stretches)) as shown,
                self.services.stopping.writing(),
            ):
                await backfill.round(shown, filled, stretches)
        finally:
            self.reports.done(filled)
        return seen if filled.put_off else now

    async def fitted(self) -> Backfill:
        """Check the index and add the vector fields, before each run: an alias may point to another index by now."""
        client, index = self.services.client, self.options.index
        mappings = await mappings_of(client, index)
        if not mappings:
            raise CannotLoad(f"there is no index {index}: `rerank-proxy index FILE --name {index}` creates one")
        wish = wanted(self.config, index, self.options.vectors)
        embedding = await settled(self.services, index, mappings, wish)
        self._announce(check_passage(mappings, embedding, is_named=wish.passage is not None))
        self._announce(await _growth(client, self.config, index, mappings, embedding))
        await fit(client, mappings, embedding)
        return Backfill(client, self.services.embedder, embedding, self.pace, self.services.stopping)

    def _announce(self, said: str | None) -> None:
        if said and said not in self.announced:
            self.announced.add(said)
            sys.stderr.write(f"{said}\n")
