"""The command line: `rerank-proxy serve | check | profiles | models | mapping | index | backfill | eval`.

An error is one line on standard error that says what to do next, and a nonzero exit code.
"""

import argparse
import asyncio
import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import uvloop

from proxy.app.process import serve_until_told
from proxy.commands.checking.dry_run import dry_run
from proxy.commands.checking.findings import UNREACHABLE, Finding, exit_code
from proxy.commands.checking.run import check
from proxy.commands.evaluation import INSTALL as INSTALL_EVALUATION
from proxy.commands.evaluation.errors import CannotEvaluate
from proxy.commands.loading.backfill import Filled
from proxy.commands.loading.commands import (
    BackfillOptions,
    IndexOptions,
    Reports,
    Services,
    VectorOptions,
    opened,
    run_backfill,
    run_index,
)
from proxy.commands.loading.documents import open_documents
from proxy.commands.loading.errors import CannotLoad
from proxy.commands.loading.index import Loaded
from proxy.commands.loading.mappings import LANGUAGES, SPELLINGS, index_for, shipped_embedding
from proxy.commands.loading.progress import documents
from proxy.commands.loading.stopping import Stopped, Stopping
from proxy.commands.local_models import INSTALL
from proxy.endpoints.answering import SearchCall
from proxy.errors import UpstreamError
from proxy.settings.config import Config, admin_token_of, authorization_of, load, load_with_lines, read, token_of
from proxy.settings.profiles import CHOICES, PRIORITIES, PRIORITY_MEANINGS, PROFILES, TIERS
from proxy.settings.yaml_file import ConfigError, YamlFile
from proxy.telemetry import log as telemetry

CONFIG_VARIABLE = "RERANK_PROXY_CONFIG"
_INTERRUPTED = 130
_HELP_WIDTH = 78
_PROFILE_HELP = "profile of the documents, see `rerank-proxy profiles` (default: of the route)"
_NAME_SAFE = "*,:<>%-._~"
"""Characters of an index name that are not percent-encoded again: the name may be encoded already."""


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
        sys.stderr.write(
            "rerank-proxy: interrupted; what was written is kept. Run the same command again to continue.\n"
        )
        return _INTERRUPTED
    return code


def _failed(message: str) -> int:
    sys.stderr.write(f"rerank-proxy: {message}\n")
    return 1


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rerank-proxy",
        description="A drop-in reranking proxy for Elasticsearch and OpenSearch: change one URL, keep your code.",
        epilog="`rerank-proxy COMMAND --help` lists the options of a command, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"rerank-proxy {version('es-rerank-proxy')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _add_serve,
        _add_check,
        _add_profiles,
        _add_models,
        _add_mapping,
        _add_index,
        _add_backfill,
        _add_eval,
    ):
        add(commands)
    return parser


Run = Callable[[argparse.Namespace, Mapping[str, str]], int]


def _command(commands: Any, name: str, run: Run, summary: str, *examples: str) -> argparse.ArgumentParser:
    """Add a command; the examples stand at the end of its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(summary, _HELP_WIDTH),
        epilog="\n".join(["examples:", *(f"  rerank-proxy {example}" for example in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="FILE",
        default=Path(os.environ.get(CONFIG_VARIABLE, "config.yaml")),
        help=f"settings file (default: ${CONFIG_VARIABLE}, else config.yaml)",
    )
    parser.add_argument("--engine", metavar="URL", help="URL of the engine; overrides the settings file")
    parser.add_argument("--models", metavar="URL", help="URL of the models; overrides the settings file")


def _overrides(options: argparse.Namespace) -> Mapping[str, str]:
    given = {
        "RERANK_PROXY_LISTEN": getattr(options, "listen", None),
        "RERANK_PROXY_ENGINE_URL": options.engine,
        "RERANK_PROXY_MODELS_URL": options.models,
    }
    return {name: value for name, value in given.items() if value}


def _add_serve(commands: Any) -> None:
    parser = _command(
        commands,
        "serve",
        _serve,
        "Run the proxy. On SIGTERM or Ctrl-C it finishes running requests and exits. On SIGHUP it reloads its "
        "settings.",
        "serve",
        "serve -c config.yaml --listen 0.0.0.0:9201",
        "serve --models http://127.0.0.1:8080",
    )
    parser.add_argument(
        "--watch", action="store_true", help="reload the settings when their file, or a certificate, changes"
    )
    _add_config(parser)
    parser.add_argument("--listen", metavar="HOST:PORT", help="address to listen on; overrides the settings file")


def _serve(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    config = load(options.config, environment, _overrides(options))
    token = token_of(config, environment)
    authorization_of(config, environment)
    admin_token_of(config, environment)
    telemetry.configure(config.log)
    read = partial(load, options.config, environment, _overrides(options))
    watched = options.config if options.watch else None
    try:
        uvloop.run(serve_until_told(config, token, environment, read=read, watched=watched))
    except OSError as error:
        address = f"{config.listen.host}:{config.listen.port}"
        return _failed(f"cannot listen on {address}: {error.strerror}. Name another address with --listen HOST:PORT")
    return 0


def _add_check(commands: Any) -> None:
    parser = _command(
        commands,
        "check",
        _check,
        "Check the settings, the engine, its indices and the models. Exit code 0: all fine, 1: something is wrong, "
        "2: something is unreachable.",
        "check",
        "check --offline --json",
        "check --search search.json --index products-2026",
    )
    parser.add_argument(
        "--offline", action="store_true", help="check only the settings file and the environment variables"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--search", metavar="FILE", help="show what `serve` would do with this search body; - reads standard input"
    )
    parser.add_argument(
        "--index", metavar="NAME", help="with --search: the index as in the URL; parameters may follow: NAME?q=..."
    )
    _add_config(parser)


def _check(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    if (options.search is None) != (options.index is None) or (options.search and options.offline):
        return _failed(
            "--search FILE and --index NAME go together, and not with --offline: the search needs the engine"
        )
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
        _failed(f"the engine cannot be reached: {error.detail}. Start it, or name another with --engine URL")
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
    parser = _command(
        commands,
        "profiles",
        _profiles,
        "List the profiles, and which models suit which need.",
        "profiles",
        "profiles --instructions",
        "profiles --json",
    )
    parser.add_argument("--instructions", action="store_true", help="also print the instruction of each profile")
    parser.add_argument("--json", action="store_true", help="print JSON, with the instructions")


def _profiles(options: argparse.Namespace, _: Mapping[str, str]) -> int:
    if options.json:
        profiles = [{**asdict(profile), "mapping": profile.mapping} for profile in PROFILES.values()]
        priorities = {name: {"tier": tier, "when": PRIORITY_MEANINGS[name]} for name, tier in PRIORITIES.items()}
        _print_json({"profiles": profiles, "priorities": priorities, "tiers": TIERS, "choices": CHOICES})
    else:
        width = shutil.get_terminal_size().columns
        sys.stdout.writelines(f"{line}\n" for line in _matrix(width, with_instructions=options.instructions))
    return 0


def _matrix(width: int, *, with_instructions: bool) -> Iterator[str]:
    """Describe profiles, priorities, tiers and set-ups as lines that fit into a terminal."""
    yield "profile: (its mapping is es_mappings/NAME.json)"
    for profile in PROFILES.values():
        settings = f"tier {profile.tier}, window {profile.rank_window_size}, passage: {', '.join(profile.passage)}"
        shown = (profile.use, settings, profile.instruction) if with_instructions else (profile.use, settings)
        yield from _entry(width, profile.name, *shown)
    yield "\npriority: (instead of tier)"
    for name, tier in PRIORITIES.items():
        yield from _entry(width, name, f"tier {tier}: {PRIORITY_MEANINGS[name]}")
    yield "\ntier: (of the profile, if the route has none)"
    for name, models in TIERS.items():
        embedding = f"{models.embedding}, {models.dimensions} dimensions"
        yield from _entry(width, name, embedding, models.rerank, models.when)
    yield "\nwith or without embeddings and reranker:"
    for choice in CHOICES:
        yield from _entry(width, choice.name, f"in the route: {choice.settings}", choice.when)


_NAME_WIDTH = 18


def _entry(width: int, name: str, *paragraphs: str) -> Iterator[str]:
    """Put a name in a column of its own, and paragraphs beside it."""
    indent = " " * (_NAME_WIDTH + 2)
    first = f"  {name:{_NAME_WIDTH}}"
    for paragraph in paragraphs:
        yield from textwrap.wrap(
            paragraph, width, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
        )
        first = indent


def _add_models(commands: Any) -> None:
    parser = _command(
        commands,
        "models",
        _models,
        "Serve small local models with DeepInfra's two endpoints, to try everything without an API key. English only.",
        "models",
        "models --listen 127.0.0.1:8080",
    )
    parser.add_argument(
        "--listen", metavar="HOST:PORT", default="127.0.0.1:8080", help="address to listen on (default: %(default)s)"
    )


def _models(options: argparse.Namespace, _: Mapping[str, str]) -> int:
    host, _, port = options.listen.rpartition(":")
    if not host or not port.isdigit():
        return _failed(f"--listen: expected host:port, as in 127.0.0.1:8080, not {options.listen!r}")
    try:
        from proxy.commands.local_models.app import run  # noqa: PLC0415  its packages are an extra
        from proxy.commands.local_models.minilm import LocalModelsMissing  # noqa: PLC0415
    except ImportError as error:
        return _failed(f"the local models are not installed ({error.name}): {INSTALL}")
    try:
        run(host, int(port))
    except LocalModelsMissing as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(
            f"cannot listen on {options.listen}: {error.strerror}. Name another address with --listen HOST:PORT"
        )
    return 0


def _add_mapping(commands: Any) -> None:
    parser = _command(
        commands,
        "mapping",
        _mapping,
        "Print the settings and mappings of an index for a profile, as a body for `curl -X PUT`.",
        "mapping e-commerce",
        "mapping legal --engine-kind opensearch --language german",
    )
    parser.add_argument("profile", choices=PROFILES, metavar="PROFILE", help="one of the names in `profiles`")
    parser.add_argument(
        "--engine-kind",
        choices=SPELLINGS,
        default="elasticsearch",
        help="engine that will create the index (default: %(default)s)",
    )
    _add_language(parser)
    parser.add_argument("--dimensions", type=_positive, metavar="N", help="length of the vectors (default: 384)")
    parser.add_argument("--no-vectors", action="store_true", help="an index for BM25 only, without a vector field")


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
    parser.add_argument(
        "--language",
        choices=LANGUAGES,
        metavar="LANGUAGE",
        default="english",
        help="selects the analyzer of the texts (default: %(default)s); one of %(choices)s",
    )


def _add_vectors(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tier", choices=TIERS, help="tier of the embedding model (default: of the route or profile)")
    parser.add_argument("--embedding-model", metavar="NAME", help="name of the embedding model, instead of a tier")
    parser.add_argument(
        "--dimensions", type=_positive, metavar="N", help="length of the vectors (default: of the model)"
    )
    parser.add_argument(
        "--passage", metavar="FIELD,…", help="fields to embed, separated by commas (default: of the route)"
    )
    parser.add_argument("--field", metavar="FIELD", help="vector field (default: of the route, else embedding)")


def _vectors(options: argparse.Namespace) -> VectorOptions:
    return VectorOptions(
        profile=getattr(options, "profile", None),
        tier=options.tier,
        model=options.embedding_model,
        dimensions=options.dimensions,
        passage=tuple(options.passage.split(",")) if options.passage else None,
        field=options.field,
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected a whole number of at least 1")
    return number


def _rate(text: str) -> float:
    number = float(text)
    if number <= 0:
        raise argparse.ArgumentTypeError("expected a number greater than 0")
    return number


def _finite(said: str) -> float:
    number = float(said)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError("expected a number")
    return number


def _add_index(commands: Any) -> None:
    parser = _command(
        commands,
        "index",
        _index,
        "Load documents with their vectors into an index. Run it again to update or to continue after an interruption.",
        "index products.ndjson --name products-2026",
        "index statutes.json --name statutes --profile legal",
        "index - --name products-2026 --no-vectors < products.ndjson",
    )
    parser.add_argument("file", help="NDJSON or a JSON array, gzipped or not; - reads standard input")
    parser.add_argument("--name", required=True, metavar="INDEX", help="the index; it is created if it is missing")
    parser.add_argument("--profile", choices=PROFILES, metavar="PROFILE", help=_PROFILE_HELP)
    _add_language(parser)
    parser.add_argument(
        "--id-field", metavar="FIELD", help="field with the id (default: _id, else id, else a hash of the document)"
    )
    parser.add_argument("--no-vectors", action="store_true", help="load for BM25 only, without vectors")
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
    """Read the settings and the token for loading; without a settings file, the defaults are used."""
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
    """Run a command with clients of the engine and the models."""

    async def run() -> None:
        stopping = Stopping()
        with stopping.heeded():
            async with opened(config, token, environment, stopping) as services:
                await work(services)

    asyncio.run(run())


def _report_loaded(loaded: Loaded) -> None:
    sys.stderr.write(
        f"{documents(loaded.written)} written; vectors: {loaded.embedded:,} new, {loaded.kept:,} kept, "
        f"{loaded.without_text:,} without text; {loaded.malformed:,} malformed, {loaded.refused:,} rejected\n"
    )


def _add_backfill(commands: Any) -> None:
    parser = _command(
        commands,
        "backfill",
        _backfill,
        "Add vectors to an existing index, and keep them current. Vectors that match their text are left as they are.",
        "backfill products-2026 --rate 50",
        "backfill products-2026 --watch --interval 60",
    )
    parser.add_argument("index", help="an index, alias or data stream")
    parser.add_argument("--profile", choices=PROFILES, metavar="PROFILE", help=_PROFILE_HELP)
    parser.add_argument("--rate", type=_rate, metavar="N", help="maximum documents per second (default: no limit)")
    parser.add_argument(
        "--watch", action="store_true", help="keep running, and update the vectors of documents that change"
    )
    parser.add_argument(
        "--interval", type=_rate, default=30.0, metavar="SECONDS", help="with --watch: time between runs (default: 30)"
    )
    _add_vectors(parser)
    _add_config(parser)


def _backfill(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    refused = 0

    def report(filled: Filled) -> None:
        nonlocal refused
        refused = filled.refused
        _report_filled(filled)

    asked = BackfillOptions(options.index, _vectors(options), options.rate, options.watch, options.interval)
    reports = Reports(report, lambda error: sys.stderr.write(f"rerank-proxy: {error}; retrying\n"))
    config, token = _settings_of_load(options, environment)
    _with_services(config, token, environment, lambda services: run_backfill(services, config, asked, reports))
    return int(refused > 0)


def _report_filled(filled: Filled) -> None:
    sys.stderr.write(
        f"{filled.share:.1%} of {filled.seen - filled.without_text:,} documents with text have a current vector: "
        f"{filled.embedded:,} new, {filled.changed:,} changed during the run, {filled.refused:,} rejected; "
        f"{documents(filled.without_text)} without text\n"
    )


def _add_eval(commands: Any) -> None:
    said = (
        "Measure on judged queries how much better the proxy's order is. Exit code 0: fine, 1: something is wrong or "
        "--min-gain is missed, 2: something is unreachable, 3: no verdict."
    )
    parser = _command(
        commands,
        "eval",
        _eval,
        said,
        "eval --judgments j.csv --template t.json --index a",
        "eval --judgments j.csv --template t.json --index a --min-gain 1",
    )
    parser.add_argument(
        "--queries", type=Path, metavar="FILE", help="NDJSON, CSV or .tsv of id, text (default: the judgments' own)"
    )
    parser.add_argument(
        "--judgments",
        type=Path,
        required=True,
        metavar="FILE",
        help="TREC qrels, or NDJSON, CSV or .tsv of query, document, grade (0: not relevant)",
    )
    parser.add_argument(
        "--template", type=Path, required=True, metavar="FILE", help="the search body, {{query}} where the text goes"
    )
    parser.add_argument("--index", required=True, metavar="NAME", help="as in the URL; NAME?routing=... has parameters")
    parser.add_argument(
        "--baseline", default="http://127.0.0.1:9200", metavar="URL", help="engine or proxy (default: %(default)s)"
    )
    parser.add_argument("--proxy", default="http://127.0.0.1:9201", metavar="URL", help="default: %(default)s")
    parser.add_argument(
        "--authorization-env", metavar="VARIABLE", help="holds the Authorization header for both addresses"
    )
    for name in ("baseline", "proxy"):
        parser.add_argument(
            f"--{name}-authorization-env", metavar="VARIABLE", help=f"the same for --{name} alone, instead"
        )
    parser.add_argument("--ca-file", metavar="FILE", help="whom to trust at an https address, as in engine.ca_file")
    parser.add_argument("--id-field", metavar="FIELD", help="the field that the judgments name (default: _id)")
    parser.add_argument(
        "--judged-only", action="store_true", help="the verdict goes by the judged documents, without the others"
    )
    parser.add_argument(
        "--min-gain", type=_finite, metavar="POINTS", help="fail if nDCG@10 gains less in the mean; may be below 0"
    )
    parser.add_argument("--show", type=int, default=10, metavar="N", help="queries won and lost (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON, with every query")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="write both rankings as TREC run files")
    parser.add_argument(
        "--concurrency", type=_positive, default=4, metavar="N", help="queries at a time (default: %(default)s)"
    )
    parser.add_argument("--timeout", type=_rate, default=60.0, metavar="SECONDS", help="of one search (default: 60)")


def _eval(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    try:
        from proxy.commands.evaluation.command import evaluate, options_of  # noqa: PLC0415  its packages are an extra
    except ImportError as error:
        return _failed(f"the evaluation is not installed ({error.name}): {INSTALL_EVALUATION}")
    indices, _, parameters = options.index.partition("?")
    target = f"/{quote(indices, safe=_NAME_SAFE)}/_search{'?' if parameters else ''}{parameters}"
    try:
        return asyncio.run(evaluate(options_of(options, target, environment), sys.stdout))
    except CannotEvaluate as error:
        return _failed(str(error))
