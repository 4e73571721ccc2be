"""The command line: `rerank-proxy COMMAND`, with the commands of `build_parser`.

Errors are one line on standard error that says what to do next, with a nonzero exit code.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NoReturn

from proxy.cli.arguments import add_config, command, later, positive
from proxy.cli.loading import add_backfill, add_index, add_mapping
from proxy.cli.sending import add_eval, add_warm
from proxy.commands.console import report_failure
from proxy.commands.loading.errors import CannotLoad
from proxy.commands.loading.stopping import Stopped
from proxy.settings.yaml_file import ConfigError

_INTERRUPTED = 130
_BROKEN_PIPE = 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _open_standard_streams()
    options, unknown = build_parser().parse_known_args(arguments)
    if unknown:
        advice = "; name the settings file with -c" if any(each.endswith((".yaml", ".yml")) for each in unknown) else ""
        options.parser.error(f"unknown arguments: {' '.join(unknown)}{advice}")
    try:
        code: int = options.run(options, os.environ)
        sys.stdout.flush()
    except Stopped as error:
        report_failure(str(error))
        return error.exit_code
    except (ConfigError, CannotLoad) as error:
        return report_failure(str(error))
    except BrokenPipeError:
        return _without_reader()
    except OSError as error:
        return report_failure(_with_file(error))
    except KeyboardInterrupt:
        sys.stderr.write(
            "rerank-proxy: interrupted; what was written is kept. Run the same command again to continue.\n"
        )
        return _INTERRUPTED
    return code


def _open_standard_streams() -> None:
    """Open the standard streams that the process was started without, as /dev/null.

    Otherwise a connection or file may get the number of one: it would receive what is written there, and libuv ends the
    process when it is closed.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which has the lowest free number
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  until the process ends


def _without_reader() -> int:
    """End silently, as other programs do whose output is read by a `head` that has enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports the error at its end
    return _BROKEN_PIPE


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
        add_mapping,
        add_index,
        add_backfill,
        add_eval,
        _add_costs,
        add_warm,
    ):
        add(commands)
    return parser


def _add_serve(commands: Any) -> None:
    parser = command(
        commands,
        "serve",
        later("serving"),
        "Run the proxy. On SIGTERM or Ctrl-C it finishes running requests and exits. On SIGHUP it reloads its "
        "settings.",
        "serve",
        "serve -c config.yaml --listen 0.0.0.0:9201",
        "serve --models http://127.0.0.1:8080",
    )
    parser.add_argument(
        "--watch", action="store_true", help="reload the settings when their file, or a certificate, changes"
    )
    add_config(parser)
    parser.add_argument("--listen", metavar="HOST:PORT", help="address to listen on; overrides the settings file")


def _add_check(commands: Any) -> None:
    parser = command(
        commands,
        "check",
        later("checking.command"),
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
    add_config(parser)


def _add_profiles(commands: Any) -> None:
    parser = command(
        commands,
        "profiles",
        later("profiles"),
        "List the profiles, and which models suit which need.",
        "profiles",
        "profiles --instructions",
        "profiles --json",
    )
    parser.add_argument("--instructions", action="store_true", help="also print the instruction of each profile")
    parser.add_argument("--json", action="store_true", help="print JSON, with the instructions")


def _add_models(commands: Any) -> None:
    parser = command(
        commands,
        "models",
        later("local_models.command"),
        "Serve small local models with DeepInfra's two endpoints, to try everything without an API key. English only.",
        "models",
        "models --listen 127.0.0.1:8080",
    )
    parser.add_argument(
        "--listen", metavar="HOST:PORT", default="127.0.0.1:8080", help="address to listen on (default: %(default)s)"
    )


def _add_costs(commands: Any) -> None:
    parser = command(
        commands,
        "costs",
        later("costs"),
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
    parser.add_argument("--days", type=positive, default=7, metavar="N", help="days to show (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON, with all days")
    add_config(parser)
