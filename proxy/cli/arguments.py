"""The parts that the argument parsers of several commands have in common."""

import argparse
import importlib
import math
import os
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from proxy.commands.loading.mappings import LANGUAGES

CONFIG_VARIABLE = "RERANK_PROXY_CONFIG"
_HELP_WIDTH = 78

Run = Callable[[argparse.Namespace, Mapping[str, str]], int]


def later(module: str, name: str = "run") -> Run:
    """Return a command's function, which imports its module when it runs: `serve` needs no bulk clients."""

    def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
        command: Run = getattr(importlib.import_module(f"proxy.commands.{module}"), name)
        return command(options, environment)

    return run


def command(commands: Any, name: str, run: Run, summary: str, *examples: str) -> argparse.ArgumentParser:
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


def add_config(parser: argparse.ArgumentParser) -> None:
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


def add_language(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--language",
        choices=LANGUAGES,
        metavar="LANGUAGE",
        default="english",
        help="selects the analyzer of the texts (default: %(default)s); one of %(choices)s",
    )


def positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text!r}")
    return int(text)


def rate(text: str) -> float:
    number = finite(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"expected a number greater than 0, not {text!r}")
    return number


def finite(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected a number, not {text!r}")
    return number
