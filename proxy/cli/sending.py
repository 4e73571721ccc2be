"""The arguments of the commands that send searches through a proxy: `eval`, `warm`."""

import argparse
from pathlib import Path
from typing import Any

from proxy.cli.arguments import add_config, command, finite, later, positive, rate


def add_eval(commands: Any) -> None:
    parser = command(
        commands,
        "eval",
        later("evaluation.running"),
        "Measure on judged queries how much better the proxy's order is. Exit code 0: fine, 1: something is wrong or "
        "--min-gain is missed, 2: something is unreachable, 3: no verdict.",
        "eval --judgments j.csv --template t.json --index a",
        "eval --judgments j.csv --template t.json --index a --min-gain 1",
    )
    _add_collection(parser)
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
        parser.add_argument(f"--{name}-authorization-env", metavar="VARIABLE", help=f"the same for --{name} only")
    _add_report(parser)


def _add_collection(parser: argparse.ArgumentParser) -> None:
    """Add the judged queries, and the search that is made of each."""
    parser.add_argument(
        "--queries",
        type=Path,
        metavar="FILE",
        help="NDJSON, CSV or .tsv of id, text (default: the texts in the judgments)",
    )
    parser.add_argument(
        "--judgments",
        type=Path,
        required=True,
        metavar="FILE",
        help="TREC qrels, or NDJSON, CSV or .tsv of query, document, grade (0: not relevant)",
    )
    parser.add_argument(
        "--template",
        type=Path,
        required=True,
        metavar="FILE",
        help="the search body, with {{query}} in place of the text",
    )
    parser.add_argument(
        "--index",
        required=True,
        metavar="NAME",
        help="the index as in the URL; parameters may follow: NAME?routing=...",
    )


def _add_report(parser: argparse.ArgumentParser) -> None:
    """Add what is measured and printed."""
    parser.add_argument(
        "--id-field", metavar="FIELD", help="field with the document ids of the judgments (default: _id)"
    )
    parser.add_argument("--judged-only", action="store_true", help="use only judged documents for the verdict")
    parser.add_argument(
        "--min-gain", type=finite, metavar="POINTS", help="fail if the mean gain in nDCG@10 is lower; may be negative"
    )
    parser.add_argument(
        "--show",
        type=int,
        default=10,
        metavar="N",
        help="how many improved and how many degraded queries to list (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with every query")
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="write both rankings as TREC run files")


def add_warm(commands: Any) -> None:
    parser = command(
        commands,
        "warm",
        later("warming.command"),
        "Send frequent searches through a running proxy, so that their vectors and scores are cached: nightly, or "
        "after loading. Run it again to continue. Exit code 0: fine, 1: something is wrong, 2: the proxy is "
        "unreachable, 3: the maximum cost or a cap on spend is reached.",
        "warm bodies.ndjson --index a",
        "warm log.ndjson --template t.json --index a --top 2000 --rate 5",
        "warm bodies.ndjson --index a --dry-run -c config.yaml",
    )
    parser.add_argument(
        "file", type=Path, help="search bodies, query texts, or the proxy's JSON log with query texts, one per line"
    )
    parser.add_argument(
        "--template",
        type=Path,
        metavar="FILE",
        help="the search body for query texts, with {{query}} in place of the text",
    )
    parser.add_argument("--index", required=True, metavar="NAME", help="the index as in the URL")
    _add_sending(parser, concurrency=2, timeout=None, waits="60; with --background: 1380")
    parser.add_argument(
        "--authorization-env", metavar="VARIABLE", help="environment variable with the Authorization header"
    )
    _add_limits(parser)
    add_config(parser)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--top", type=positive, metavar="N", help="only the most frequent searches (default: all)")
    parser.add_argument("--rate", type=rate, metavar="N", help="maximum searches per second (default: no limit)")
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
        type=rate,
        metavar="DOLLARS",
        help="stop before the searches cost more than this (default: no limit); the proxy must allow the option `cost` "
        "in `steering`",
    )


def _add_sending(
    parser: argparse.ArgumentParser, *, concurrency: int, timeout: float | None = 60.0, waits: str = "60"
) -> None:
    """Add how a command sends searches to a proxy."""
    parser.add_argument(
        "--proxy", default="http://127.0.0.1:9201", metavar="URL", help="the proxy (default: %(default)s)"
    )
    parser.add_argument("--ca-file", metavar="FILE", help="PEM file with the certificate authority to trust for https")
    parser.add_argument(
        "--concurrency",
        type=positive,
        default=concurrency,
        metavar="N",
        help="searches at a time (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout", type=rate, default=timeout, metavar="SECONDS", help=f"timeout of one search (default: {waits})"
    )
