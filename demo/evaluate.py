"""nDCG@10 straight and through the proxy: `python -m demo.evaluate QUERIES JUDGMENTS --index NAME --proxy URL`.

Two figures, since judgments are never complete: of the judged documents alone, in the order they have among the first
hundred, and over all, where one that nobody judged counts as poor.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from demo.asking import NoAnswer
from demo.comparing import DEPTH, PAGE, Comparison, Shop, compare, mean_gain
from demo.evaluation import read_queries


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    shop = Shop(options.engine.rstrip("/"), options.proxy.rstrip("/"), options.index, tuple(options.fields.split(",")))
    queries = [query for query in read_queries(options.queries, options.judgments) if any(query.judgments.values())]
    try:
        compared = [compare(shop, query, DEPTH) for query in queries]
    except NoAnswer as error:
        sys.stderr.write(f"demo.evaluate: {error}\n")
        return 1
    Console().print(_table(compared))
    missed = [each for each in compared if not each.reranked]
    for each in missed:
        sys.stderr.write(f"demo.evaluate: not reranked: {each.query.text!r}: {each.through.outcome or 'untouched'}\n")
    return int(bool(missed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.evaluate", description=__doc__)
    parser.add_argument("queries", type=Path, help="NDJSON of id and text, or .tsv of both")
    parser.add_argument(
        "judgments", type=Path, help="NDJSON of query, product and grade (0 to 3), or .tsv of the three"
    )
    parser.add_argument("--index", required=True, metavar="NAME")
    parser.add_argument("--engine", default="http://127.0.0.1:9200", metavar="URL", help="default: %(default)s")
    parser.add_argument("--proxy", default="http://127.0.0.1:9201", metavar="URL", help="default: %(default)s")
    parser.add_argument("--fields", default="title^2,text", help="what the search is in (default: %(default)s)")
    return parser


def _table(compared: Sequence[Comparison]) -> Table:
    table = Table("", "straight", "through the proxy", show_edge=False, pad_edge=False)
    for name, comparisons in (
        ("nDCG@10, judged only", [each.judged_only for each in compared]),
        ("nDCG@10, all", compared),
    ):
        table.add_row(name, *(f"{mean:.3f}" for mean in mean_gain(comparisons)))
    table.add_row("unjudged in the first ten", *(f"{share:.0%}" for share in unjudged(compared)))
    return table


def unjudged(compared: Sequence[Comparison]) -> tuple[float, float]:
    """Say which share of the first ten hits nobody judged, both ways."""
    straight = [name in each.query.judgments for each in compared for name in each.straight.ids[:PAGE]]
    through = [name in each.query.judgments for each in compared for name in each.through.ids[:PAGE]]
    return 1 - fmean(straight or [1]), 1 - fmean(through or [1])


if __name__ == "__main__":
    sys.exit(main())
