"""Print comparisons, in 80 columns or more."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from demo.comparing import PAGE, Comparison, mean_gain

_EXAMPLE = """\
curl -i '{url}/products/_search?pretty' -H 'Content-Type: application/json' -d '{{
  "query": {{"multi_match": {{"query": "headphones for a long flight", "fields": ["title^2", "description"]}}}},
  "size": 5
}}'"""


def example_search(url: str) -> str:
    """Return a search of the catalogue as a command."""
    return _EXAMPLE.format(url=url)


def show(console: Console, comparison: Comparison) -> None:
    """Print both orders side by side, with the outcome and the stage times."""
    before, after = comparison.gain
    console.print()
    console.print(Text(f"“{comparison.query.text}”", style="bold"))
    console.print(_table(comparison))
    outcome = Text(comparison.through.outcome or "untouched", style="green" if comparison.reranked else "red")
    console.print(Text.assemble("X-Rerank: ", outcome, f"    nDCG@10 {before:.3f} → {after:.3f}"), highlight=False)
    console.print(Text(_times(comparison.through.stages), style="dim"))


def _table(comparison: Comparison) -> Table:
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), expand=True)
    table.add_column("", justify="right")
    for way, moves in (("straight", False), ("through the proxy", True)):
        if moves:
            table.add_column("", justify="right", no_wrap=True, min_width=3)
        table.add_column(way, no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column("price", justify="right", no_wrap=True)
        table.add_column("score", justify="right", no_wrap=True)
    straight, through = comparison.straight.hits[:PAGE], comparison.through.hits
    for position in range(max(len(straight), len(through))):
        move = movement(comparison.moved(position)) if position < len(through) else Text()
        table.add_row(str(position + 1), *_cells(straight, position), move, *_cells(through, position))
    return table


def _cells(hits: Sequence[Mapping[str, Any]], position: int) -> tuple[str, str, str]:
    if position >= len(hits):
        return "", "", ""
    hit = hits[position]
    return hit["_source"]["title"], f"{hit['_source']['price']:,.0f}", f"{hit['_score']:.2f}"


def movement(places: int | None) -> Text:
    """Format how far a product moved: up, down, not at all, or new."""
    match places:
        case None:
            return Text("new", style="green")
        case 0:
            return Text("=", style="dim")
        case up if up > 0:
            return Text(f"▲{up}", style="green")
        case down:
            return Text(f"▼{-down}", style="red")


def _times(stages: Mapping[str, float]) -> str:
    return "ms: " + ", ".join(f"{name} {milliseconds:.0f}" for name, milliseconds in stages.items())


def show_gain(console: Console, comparisons: Sequence[Comparison]) -> None:
    """Print the mean nDCG@10 over all judged queries."""
    before, after = mean_gain(comparisons)
    better = sum(after > before for before, after in (each.gain for each in comparisons))
    worse = sum(after < before for before, after in (each.gain for each in comparisons))
    console.print()
    console.print(
        Text.assemble(
            f"nDCG@10 over {len(comparisons)} searches: straight {before:.3f}, through the proxy ",
            Text(f"{after:.3f}", style="bold"),
            f"\nbetter: {better}, worse: {worse}",
        ),
        highlight=False,
    )
