"""The command line: `rerank-proxy COMMAND`, with the commands of `build_parser`.

Errors are one line on standard error that says what to do next, with a nonzero exit code.
"""

import argparse
import importlib
import math
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from proxy.commands.console import report_failure
from proxy.commands.loading.errors import CannotLoad
from proxy.commands.loading.mappings import LANGUAGES, SPELLINGS
from proxy.commands.loading.stopping import Stopped
from proxy.settings.profiles import PROFILES, TIERS
from proxy.settings.yaml_file import ConfigError

CONFIG_VARIABLE = "RERANK_PROXY_CONFIG"
_INTERRUPTED = 130
_HELP_WIDTH = 78
_PROFILE_HELP = "profile of the documents, see `rerank-proxy profiles` (default: of the route)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options, unknown = build_parser().parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unknown arguments: {' '.join(unknown)}")
    try:
        code: int = options.run(options, os.environ)
    except Stopped as error:
        report_failure(str(error))
        return error.exit_code
    except (ConfigError, CannotLoad) as error:
        return report_failure(str(error))
    except OSError as error:
        return report_failure(_with_file(error))
    except KeyboardInterrupt:
        sys.stderr.write(
            "rerank-proxy: interrupted; what was written is kept. Run the same command again to continue.\n"
        )
        return _INTERRUPTED
    return code


def _with_file(error: OSError) -> str:
    """Say what went wrong with which file, and what to do."""
    if error.filename is None:
        return str(error.strerror or error)
    advice = "Make it accessible, or name another file" if isinstance(error, PermissionError) else "Name another file"
    return f"{error.filename}: {error.strerror}. {advice}."


class _Parser(argparse.ArgumentParser):
    """A parser that names the help of its command in its errors."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {message}. Run `{self.prog} --help` for the options and examples.\n")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
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
        _add_costs,
        _add_warm,
    ):
        add(commands)
    return parser


Run = Callable[[argparse.Namespace, Mapping[str, str]], int]


def _later(module: str, name: str = "run") -> Run:
    """Return a command's function, which imports its module when it runs: `serve` needs no bulk clients."""

    def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
        command: Run = getattr(importlib.import_module(f"proxy.commands.{module}"), name)
        return command(options, environment)

    return run


def _command(commands: Any, name: str, run: Run, summary: str, *examples: str) -> argparse.ArgumentParser:
    """Add a command, with examples at the end of its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(summary, _HELP_WIDTH),
        epilog="\n".join(["examples:", *(f"  rerank-proxy {example}" for example in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
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


def _add_serve(commands: Any) -> None:
    parser = _command(
        commands,
        "serve",
        _later("serving"),
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


def _add_check(commands: Any) -> None:
    parser = _command(
        commands,
        "check",
        _later("checking.command"),
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


def _add_profiles(commands: Any) -> None:
    parser = _command(
        commands,
        "profiles",
        _later("profiles"),
        "List the profiles, and which models suit which need.",
        "profiles",
        "profiles --instructions",
        "profiles --json",
    )
    parser.add_argument("--instructions", action="store_true", help="also print the instruction of each profile")
    parser.add_argument("--json", action="store_true", help="print JSON, with the instructions")


def _add_models(commands: Any) -> None:
    parser = _command(
        commands,
        "models",
        _later("local_models.command"),
        "Serve small local models with DeepInfra's two endpoints, to try everything without an API key. English only.",
        "models",
        "models --listen 127.0.0.1:8080",
    )
    parser.add_argument(
        "--listen", metavar="HOST:PORT", default="127.0.0.1:8080", help="address to listen on (default: %(default)s)"
    )


def _add_mapping(commands: Any) -> None:
    parser = _command(
        commands,
        "mapping",
        _later("mapping"),
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


def _add_language(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--language",
        choices=LANGUAGES,
        metavar="LANGUAGE",
        default="english",
        help="selects the analyzer of the texts (default: %(default)s); one of %(choices)s",
    )


def _add_vectors(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dry-run", action="store_true", help="write nothing and call no model: count texts, tokens and US dollars"
    )
    parser.add_argument("--tier", choices=TIERS, help="tier of the embedding model (default: of the route or profile)")
    parser.add_argument("--embedding-model", metavar="NAME", help="name of the embedding model, instead of a tier")
    parser.add_argument(
        "--dimensions", type=_positive, metavar="N", help="length of the vectors (default: of the model)"
    )
    parser.add_argument(
        "--passage", metavar="FIELD,…", help="fields to embed, separated by commas (default: of the route)"
    )
    parser.add_argument("--field", metavar="FIELD", help="vector field (default: of the route, else embedding)")


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)


def _rate(text: str) -> float:
    number = _finite(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"expected a number greater than 0, not {text!r}")
    return number


def _finite(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected a number, not {text!r}")
    return number


def _add_index(commands: Any) -> None:
    parser = _command(
        commands,
        "index",
        _later("loading.running", "index"),
        "Load documents with their vectors into an index. Run it again to update or to continue after an interruption.",
        "index products.ndjson --name products-2026",
        "index statutes.json --name statutes --profile legal",
        "index products.ndjson --name products-2026 --dry-run",
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


def _add_backfill(commands: Any) -> None:
    parser = _command(
        commands,
        "backfill",
        _later("loading.running", "backfill"),
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


def _add_sending(
    parser: argparse.ArgumentParser, *, concurrency: int, timeout: float | None = 60.0, waits: str = "60"
) -> None:
    """Add how a command sends searches to a proxy."""
    parser.add_argument("--proxy", default="http://127.0.0.1:9201", metavar="URL", help="default: %(default)s")
    parser.add_argument("--ca-file", metavar="FILE", help="PEM file with the certificate authority to trust for https")
    parser.add_argument(
        "--concurrency",
        type=_positive,
        default=concurrency,
        metavar="N",
        help="searches at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout", type=_rate, default=timeout, metavar="SECONDS", help=f"of one search (default: {waits})"
    )


def _add_eval(commands: Any) -> None:
    said = (
        "Measure on judged queries how much better the proxy's order is. Exit code 0: fine, 1: something is wrong or "
        "--min-gain is missed, 2: something is unreachable, 3: no verdict."
    )
    parser = _command(
        commands,
        "eval",
        _later("evaluation.running"),
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
    parser.add_argument(
        "--index",
        required=True,
        metavar="NAME",
        help="the index as in the URL; parameters may follow: NAME?routing=...",
    )
    parser.add_argument(
        "--baseline",
        default="http://127.0.0.1:9200",
        metavar="URL",
        help="the engine, or another proxy, to compare with (default: %(default)s)",
    )
    _add_sending(parser, concurrency=4)
    parser.add_argument(
        "--authorization-env",
        metavar="VARIABLE",
        help="environment variable with the Authorization header for --baseline and --proxy",
    )
    for name in ("baseline", "proxy"):
        parser.add_argument(f"--{name}-authorization-env", metavar="VARIABLE", help=f"the same for --{name} alone")
    parser.add_argument(
        "--id-field", metavar="FIELD", help="field with the document ids of the judgments (default: _id)"
    )
    parser.add_argument("--judged-only", action="store_true", help="base the verdict on documents with a judgment only")
    parser.add_argument(
        "--min-gain", type=_finite, metavar="POINTS", help="fail if the mean gain in nDCG@10 is lower; may be negative"
    )
    parser.add_argument(
        "--show",
        type=int,
        default=10,
        metavar="N",
        help="queries to show of those that got better and worse (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with every query")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="write both rankings as TREC run files")


def _add_costs(commands: Any) -> None:
    parser = _command(
        commands,
        "costs",
        _later("costs"),
        "Show what the models cost by day, route and model, what the caches saved, and what the month will cost. Exit "
        "code 0: fine, 1: something is wrong, 2: the proxy is unreachable.",
        "costs",
        "costs --days 30 --json",
        "costs --admin http://proxy.example:9291",
    )
    parser.add_argument(
        "--admin",
        metavar="URL",
        help="ask the admin port of a running proxy (default: read `spend.file`, else ask the port of the settings)",
    )
    parser.add_argument("--days", type=_positive, default=7, metavar="N", help="days to show (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON, with all days")
    _add_config(parser)


def _add_warm(commands: Any) -> None:
    parser = _command(
        commands,
        "warm",
        _later("warming.command"),
        "Send frequent searches through a running proxy, so that their vectors and scores are cached: nightly, or "
        "after loading. Run it again to continue. Exit code 0: fine, 1: something is wrong, 2: the proxy is "
        "unreachable, 3: the maximum cost or a cap on spend is reached.",
        "warm bodies.ndjson --index a",
        "warm log.ndjson --template t.json --index a --top 2000 --rate 5",
        "warm bodies.ndjson --index a --dry-run -c config.yaml",
    )
    parser.add_argument(
        "file", type=Path, help="search bodies, query texts, or the proxy's JSON log with query texts, one a line"
    )
    parser.add_argument(
        "--template", type=Path, metavar="FILE", help="the search body for query texts, {{query}} where the text goes"
    )
    parser.add_argument("--index", required=True, metavar="NAME", help="the index as in the URL")
    _add_sending(parser, concurrency=2, timeout=None, waits="60; with --background: 1380")
    parser.add_argument(
        "--authorization-env", metavar="VARIABLE", help="environment variable with the Authorization header"
    )
    parser.add_argument("--top", type=_positive, metavar="N", help="only the most frequent searches (default: all)")
    parser.add_argument("--rate", type=_rate, metavar="N", help="maximum searches per second (default: no limit)")
    parser.add_argument(
        "--background",
        action="store_true",
        help="let model calls take ten minutes, on the provider's cheap service tier; the proxy must allow the option "
        "`background` in `steering`",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="call no model: run the searches on the engine of the settings file, and count tokens and US dollars",
    )
    parser.add_argument(
        "--max-cost",
        type=_rate,
        metavar="DOLLARS",
        help="stop before it is exceeded (default: no limit); the proxy must allow the option `cost` in `steering`",
    )
    _add_config(parser)
