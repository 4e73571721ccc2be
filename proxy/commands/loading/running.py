"""`rerank-proxy index` and `rerank-proxy backfill`."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from proxy.commands.console import settings_or_defaults
from proxy.commands.loading.backfill import Filled
from proxy.commands.loading.commands import (
    BackfillOptions,
    IndexOptions,
    Reports,
    Services,
    VectorOptions,
    opened,
    opened_dry,
    run_backfill,
    run_index,
)
from proxy.commands.loading.documents import open_documents
from proxy.commands.loading.dry_run import CountingEmbedder
from proxy.commands.loading.index import Loaded
from proxy.commands.loading.progress import documents
from proxy.commands.loading.stopping import Stopping
from proxy.settings.config import Config
from proxy.settings.credentials import token_of
from proxy.settings.passage_template import entries_of
from proxy.upstream.spending.meter import prices_of


def index(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    loaded = Loaded()
    asked = IndexOptions(
        index=options.name,
        vectors=_vectors(options),
        with_vectors=not options.no_vectors,
        id_field=options.id_field,
        language=options.language,
    )
    config, token = _settings_of_load(options, environment)
    with open_documents(options.file) as file:
        try:
            _with_services(
                config,
                token,
                environment,
                lambda services: run_index(services, config, asked, file, loaded),
                options,
            )
        finally:
            if loaded.begun:
                _report_loaded(loaded, "would be written" if options.dry_run else "written")
    return 0 if loaded.whole else 1


def backfill(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    refused = 0

    def report(filled: Filled) -> None:
        nonlocal refused
        refused = filled.refused
        if not options.dry_run:
            _report_filled(filled)

    asked = BackfillOptions(
        options.index, _vectors(options), options.rate, options.watch and not options.dry_run, options.interval
    )
    reports = Reports(report, lambda error: sys.stderr.write(f"rerank-proxy: {error}; retrying\n"))
    config, token = _settings_of_load(options, environment)
    _with_services(config, token, environment, lambda services: run_backfill(services, config, asked, reports), options)
    return int(refused > 0)


def _vectors(options: argparse.Namespace) -> VectorOptions:
    return VectorOptions(
        profile=getattr(options, "profile", None),
        tier=options.tier,
        model=options.embedding_model,
        dimensions=options.dimensions,
        passage=entries_of(options.passage) if options.passage else None,
        field=options.field,
    )


def _settings_of_load(options: argparse.Namespace, environment: Mapping[str, str]) -> tuple[Config, str | None]:
    """Read the settings and the token for loading."""
    config = settings_or_defaults(options, environment)
    without = getattr(options, "no_vectors", False) or options.dry_run
    return config, None if without else token_of(config, environment, calls_models=True)


def _with_services(
    config: Config,
    token: str | None,
    environment: Mapping[str, str],
    work: Callable[[Services], Coroutine[Any, Any, None]],
    options: argparse.Namespace,
) -> None:
    """Run a command with clients of the engine and the models; with `--dry-run`, say what it would cost."""
    counting = CountingEmbedder(prices_of(config)) if options.dry_run else None

    async def run() -> None:
        stopping = Stopping()
        with stopping.heeded():
            opening = (
                opened_dry(config, environment, stopping, counting)
                if counting
                else opened(config, token, environment, stopping, _index_of(options))
            )
            async with opening as services:
                await work(services)

    asyncio.run(run())
    if counting:
        sys.stderr.write(f"dry run, nothing was written and no model was called: {counting.report()}\n")


def _index_of(options: argparse.Namespace) -> str:
    name: str = options.name if "name" in options else options.index
    return name


def _report_loaded(loaded: Loaded, verb: str) -> None:
    sys.stderr.write(
        f"{documents(loaded.written)} {verb}; vectors: {loaded.embedded:,} new, {loaded.kept:,} kept, "
        f"{loaded.without_text:,} without text; {loaded.malformed:,} malformed, {loaded.refused:,} rejected\n"
    )


def _report_filled(filled: Filled) -> None:
    sys.stderr.write(
        f"{filled.share:.1%} of {filled.seen - filled.without_text:,} documents with text have a current vector: "
        f"{filled.embedded:,} new, {filled.changed:,} changed during the run, {filled.refused:,} rejected; "
        f"{documents(filled.without_text)} without text\n"
    )
