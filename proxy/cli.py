"""The command line: `rerank-proxy serve | check | profiles | models | mapping | index | backfill`.

What goes wrong is said in one line with what to do next, and ends with a code other than 0.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from proxy import telemetry
from proxy.app import serve_until_told
from proxy.checking.dry_run import dry_run
from proxy.checking.findings import UNREACHABLE, Finding, exit_code
from proxy.checking.run import check
from proxy.config import Config, authorization_of, load, load_with_lines, read, token_of
from proxy.errors import UpstreamError
from proxy.loading.backfill import Filled
from proxy.loading.commands import (
    BackfillOptions,
    IndexOptions,
    Reports,
    Services,
    VectorOptions,
    opened,
    run_backfill,
    run_index,
)
from proxy.loading.documents import open_documents
from proxy.loading.errors import CannotLoad
from proxy.loading.index import Loaded
from proxy.loading.mappings import LANGUAGES, SPELLINGS, index_for, shipped_embedding
from proxy.loading.progress import documents
from proxy.loading.stopping import Stopped, Stopping
from proxy.local_models import INSTALL
from proxy.profiles import CHOICES, PRIORITIES, PRIORITY_MEANINGS, PROFILES, TIERS
from proxy.searching import SearchCall
from proxy.yaml_file import ConfigError, YamlFile

CONFIG_VARIABLE = "RERANK_PROXY_CONFIG"
_INTERRUPTED = 130
_NAME_SAFE = "*,:<>%-._~"
"""Of a name on the command line, what goes into a URL as it is: it may be escaped already."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code."""
    options = build_parser().parse_args(arguments)
    try:
        code: int = options.run(options, os.environ)
    except Stopped as error:
        _failed(str(error))
        return error.exit_code
    except (ConfigError, CannotLoad) as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except KeyboardInterrupt:
        sys.stderr.write("rerank-proxy: stopped; what is written is kept, run it again to go on\n")
        return _INTERRUPTED
    return code


def _failed(message: str) -> int:
    sys.stderr.write(f"rerank-proxy: {message}\n")
    return 1


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rerank-proxy",
        description="A drop-in reranking proxy for Elasticsearch and OpenSearch: change one URL, keep your code.",
        epilog="`rerank-proxy COMMAND --help` says more of each.",
    )
    parser.add_argument("--version", action="version", version=f"rerank-proxy {version('es-rerank-proxy')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_serve, _add_check, _add_profiles, _add_models, _add_mapping, _add_index, _add_backfill):
        add(commands)
    return parser


Run = Callable[[argparse.Namespace, Mapping[str, str]], int]


def _command(commands: Any, name: str, run: Run, said: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=said, description=said)
    parser.set_defaults(run=run)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="FILE",
        default=Path(os.environ.get(CONFIG_VARIABLE, "config.yaml")),
        help=f"the settings (default: ${CONFIG_VARIABLE}, else config.yaml)",
    )
    parser.add_argument("--engine", metavar="URL", help="the engine, instead of the file's")
    parser.add_argument("--models", metavar="URL", help="the models, instead of the file's")


def _overrides(options: argparse.Namespace) -> Mapping[str, str]:
    said = {
        "RERANK_PROXY_LISTEN": getattr(options, "listen", None),
        "RERANK_PROXY_ENGINE_URL": options.engine,
        "RERANK_PROXY_MODELS_URL": options.models,
    }
    return {name: value for name, value in said.items() if value}


def _add_serve(commands: Any) -> None:
    parser = _command(
        commands, "serve", _serve, "Run the proxy until SIGTERM or Ctrl-C; running requests are finished."
    )
    _add_config(parser)
    parser.add_argument("--listen", metavar="HOST:PORT", help="where to listen, instead of the file's")


def _serve(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    config = load(options.config, environment, _overrides(options))
    token = token_of(config, environment)
    authorization_of(config, environment)
    telemetry.configure(config.log)
    try:
        uvloop.run(serve_until_told(config, token, environment))
    except OSError as error:
        address = f"{config.listen.host}:{config.listen.port}"
        return _failed(f"cannot listen on {address}: {error.strerror}. Name another address with --listen HOST:PORT")
    return 0


def _add_check(commands: Any) -> None:
    said = "Check the settings, the engine, its indices and the models; exit 0: fine, 1: wrong, 2: unreachable."
    parser = _command(commands, "check", _check, said)
    parser.add_argument("--offline", action="store_true", help="check the file and the variables only")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--search", metavar="FILE", help="say what would happen to this search body; - for standard input"
    )
    parser.add_argument(
        "--index", metavar="NAME", help="of --search: the index, as in the URL; NAME?q=... has parameters"
    )
    _add_config(parser)


def _check(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    if (options.search is None) != (options.index is None) or (options.search and options.offline):
        return _failed("--search FILE and --index NAME go together, and not with --offline: the engine is asked")
    config, file = load_with_lines(options.config, environment, _overrides(options))
    if options.search:
        return _dry_run(config, environment, options)
    findings = asyncio.run(_findings(config, environment, file, offline=options.offline))
    code = exit_code(findings)
    if options.json:
        _print_json({"exit": code, "findings": findings})
    else:
        for finding in findings:
            sys.stdout.write(f"{finding.kind:11}  {finding.place}: {finding.said}\n")
    return code


async def _findings(config: Config, environment: Mapping[str, str], file: YamlFile, *, offline: bool) -> list[Finding]:
    return [finding async for finding in check(config, environment, file, offline=offline)]


def _print_json(value: Any) -> None:
    sys.stdout.write(f"{msgspec.json.format(msgspec.json.encode(value)).decode()}\n")


def _dry_run(config: Config, environment: Mapping[str, str], options: argparse.Namespace) -> int:
    content = sys.stdin.buffer.read() if options.search == "-" else Path(options.search).read_bytes()
    indices, _, query_string = options.index.partition("?")
    try:
        ran = asyncio.run(
            dry_run(config, environment, SearchCall(quote(indices, safe=_NAME_SAFE), query_string, content))
        )
    except UpstreamError as error:
        _failed(f"the engine cannot be asked: {error.detail}. Start it, or name another with --engine")
        return UNREACHABLE
    if options.json:
        _print_json({"outcome": ran.outcome, **ran.details})
    else:
        sys.stdout.write(f"{ran.outcome}\n")
        for name, value in ran.details.items():
            shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            sys.stdout.write(f"{name.replace('_', ' ')}: {shown}\n")
    return int(ran.failed)


def _add_profiles(commands: Any) -> None:
    parser = _command(commands, "profiles", _profiles, "Print the profiles, and which models to take for which need.")
    parser.add_argument("--instructions", action="store_true", help="print each profile's instruction, too")


def _profiles(options: argparse.Namespace, _: Mapping[str, str]) -> int:
    console = Console()
    profiles = _table("profile", "for", "tier", "window", "passage", "mapping")
    for profile in PROFILES.values():
        row = (profile.use, profile.tier, str(profile.rank_window_size), ", ".join(profile.passage), profile.mapping)
        profiles.add_row(profile.name, *row)
    priorities = _table("what matters most (priority:)", "tier", "reranker", "which means")
    for name, tier in PRIORITIES.items():
        priorities.add_row(name, tier, TIERS[tier].rerank, PRIORITY_MEANINGS[name])
    tiers = _table("tier", "embedding model", "dimensions", "reranker", "when")
    for name, models in TIERS.items():
        tiers.add_row(name, models.embedding, str(models.dimensions), models.rerank, models.when)
    choices = _table("set-up", "in the route", "when")
    for choice in CHOICES:
        choices.add_row(choice.name, choice.settings, choice.when)
    for table in (profiles, priorities, tiers, choices):
        console.print(table)
    if options.instructions:
        for profile in PROFILES.values():
            console.print(f"\n[bold]{profile.name}[/bold]\n{profile.instruction}")
    return 0


def _table(*columns: str) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _add_models(commands: Any) -> None:
    parser = _command(
        commands,
        "models",
        _models,
        "Serve small local models by DeepInfra's two endpoints: to try everything with no key, English only.",
    )
    parser.add_argument("--listen", metavar="HOST:PORT", default="127.0.0.1:8080", help="default: %(default)s")


def _models(options: argparse.Namespace, _: Mapping[str, str]) -> int:
    host, _, port = options.listen.rpartition(":")
    if not host or not port.isdigit():
        return _failed(f"--listen: expected host:port, as in 127.0.0.1:8080, not {options.listen!r}")
    try:
        from proxy.local_models.app import run  # noqa: PLC0415  its packages are an extra
        from proxy.local_models.minilm import LocalModelsMissing  # noqa: PLC0415
    except ImportError as error:
        return _failed(f"the local models are not installed ({error.name}): {INSTALL}")
    try:
        run(host, int(port))
    except LocalModelsMissing as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"cannot listen on {options.listen}: {error.strerror}. Name another with --listen HOST:PORT")
    return 0


def _add_mapping(commands: Any) -> None:
    said = "Print the body that creates an index for a profile, for `curl -X PUT`, as either engine spells it."
    parser = _command(commands, "mapping", _mapping, said)
    parser.add_argument("profile", choices=PROFILES, metavar="PROFILE", help="which kind of index")
    parser.add_argument(
        "--engine-kind", choices=SPELLINGS, default="elasticsearch", help="who is to take it (default: %(default)s)"
    )
    _add_language(parser)
    parser.add_argument("--dimensions", type=_positive, metavar="N", help="length of the vectors (default: the file's)")
    parser.add_argument("--no-vectors", action="store_true", help="an index for BM25 alone")


def _mapping(options: argparse.Namespace, _: Mapping[str, str]) -> int:
    shipped = shipped_embedding(options.profile)
    embedding = replace(shipped, dimensions=options.dimensions or shipped.dimensions)
    body = index_for(
        options.profile,
        None if options.no_vectors else embedding,
        options.language,
        SPELLINGS[options.engine_kind],
    )
    sys.stdout.write(f"{json.dumps(body, indent=2, ensure_ascii=False)}\n")
    return 0


def _add_language(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--language", choices=LANGUAGES, default="english", help="of the texts (default: %(default)s)")


def _add_vectors(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tier", choices=TIERS, help="size of the embedding model (default: the route's or profile's)")
    parser.add_argument("--embedding-model", metavar="NAME", help="the model itself, instead of a tier's")
    parser.add_argument(
        "--dimensions", type=_positive, metavar="N", help="length of the vectors (default: the model's)"
    )
    parser.add_argument("--passage", metavar="FIELD,…", help="the fields that are embedded (default: the route's)")
    parser.add_argument("--field", metavar="FIELD", help="the vector field (default: the route's, else embedding)")


def _vectors(options: argparse.Namespace) -> VectorOptions:
    return VectorOptions(
        profile=getattr(options, "profile", None),
        tier=options.tier,
        model=options.embedding_model,
        dimensions=options.dimensions,
        passage=tuple(options.passage.split(",")) if options.passage else None,
        field=options.field,
    )


def _positive(said: str) -> int:
    number = int(said)
    if number < 1:
        raise argparse.ArgumentTypeError("expected a number from 1 on")
    return number


def _rate(said: str) -> float:
    number = float(said)
    if number <= 0:
        raise argparse.ArgumentTypeError("expected a number above 0")
    return number


def _add_index(commands: Any) -> None:
    said = "Load documents with their vectors; a second run updates, a broken one goes on where it was."
    parser = _command(commands, "index", _index, said)
    parser.add_argument("file", help="NDJSON or a JSON array, gzipped or not; - for standard input")
    parser.add_argument("--name", required=True, metavar="INDEX", help="the index; it is created where it is missing")
    parser.add_argument("--profile", choices=PROFILES, help="which kind of index (default: the route's)")
    _add_language(parser)
    parser.add_argument("--id-field", metavar="FIELD", help="where the id is (default: _id, else id, else the content)")
    parser.add_argument("--no-vectors", action="store_true", help="load for BM25 alone")
    _add_vectors(parser)
    _add_config(parser)


def _index(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
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
                config, token, environment, lambda services: run_index(services, config, asked, file, loaded)
            )
        finally:
            if loaded.begun:
                _report_loaded(loaded)
    return 0 if loaded.whole else 1


def _settings_of_load(options: argparse.Namespace, environment: Mapping[str, str]) -> tuple[Config, str | None]:
    """Read the settings and the token of a load; a file of settings is of use and not needed."""
    missing = not options.config.exists() and options.config == Path("config.yaml")
    settings = {**environment, **_overrides(options)}
    config = read("", "config.yaml", settings) if missing else load(options.config, settings)
    without = getattr(options, "no_vectors", False)
    return config, None if without else token_of(config, environment, calls_models=True)


def _with_services(
    config: Config,
    token: str | None,
    environment: Mapping[str, str],
    work: Callable[[Services], Coroutine[Any, Any, None]],
) -> None:
    """Run something that needs the engine and the models."""

    async def run() -> None:
        stopping = Stopping()
        with stopping.heeded():
            async with opened(config, token, environment, stopping) as services:
                await work(services)

    asyncio.run(run())


def _report_loaded(loaded: Loaded) -> None:
    sys.stderr.write(
        f"{documents(loaded.written)} written; vectors: {loaded.embedded:,} made, {loaded.kept:,} kept, "
        f"{loaded.without_text:,} without text; {loaded.malformed:,} malformed, {loaded.refused:,} refused\n"
    )


def _add_backfill(commands: Any) -> None:
    said = "Give an existing index vectors, and keep them current; what is there and agrees is left alone."
    parser = _command(commands, "backfill", _backfill, said)
    parser.add_argument("index", help="an index, alias or data stream")
    parser.add_argument("--profile", choices=PROFILES, help="the kind of documents (default: the route's)")
    parser.add_argument("--rate", type=_rate, metavar="N", help="documents a second, at most (default: no limit)")
    parser.add_argument("--watch", action="store_true", help="go on, and do again what feeds overwrite")
    parser.add_argument("--interval", type=_rate, default=30.0, metavar="SECONDS", help="of --watch (default: 30)")
    _add_vectors(parser)
    _add_config(parser)


def _backfill(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    refused = 0

    def report(filled: Filled) -> None:
        nonlocal refused
        refused = filled.refused
        _report_filled(filled)

    asked = BackfillOptions(options.index, _vectors(options), options.rate, options.watch, options.interval)
    reports = Reports(report, lambda error: sys.stderr.write(f"rerank-proxy: {error}; trying again\n"))
    config, token = _settings_of_load(options, environment)
    _with_services(config, token, environment, lambda services: run_backfill(services, config, asked, reports))
    return int(refused > 0)


def _report_filled(filled: Filled) -> None:
    sys.stderr.write(
        f"{filled.share:.1%} of {filled.seen - filled.without_text:,} documents looked at have a current vector: "
        f"{filled.embedded:,} made now, {filled.changed:,} changed meanwhile, {filled.refused:,} refused; "
        f"{filled.without_text:,} more have no text\n"
    )
