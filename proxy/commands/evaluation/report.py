"""The report: as text for a terminal, and as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from proxy.commands.evaluation.bootstrap import Interval
from proxy.commands.evaluation.collection import Collection
from proxy.commands.evaluation.comparison import Change, Comparison, Move, Row, Side

_POINTS = 100
"""A point is a hundredth of a measure."""
_SHOWN_TEXT = 60


@dataclass(frozen=True, slots=True)
class Demand:
    """What determines the verdict."""

    judged_only: bool = False
    min_gain: float | None = None
    """Minimum mean gain of nDCG@10 in points; may be negative."""


@dataclass(frozen=True, slots=True)
class Result:
    """A comparison and its verdict."""

    collection: Collection
    comparison: Comparison
    demand: Demand
    stopped: str | None = None
    """Why not all queries were sent."""

    @property
    def no_verdict(self) -> str | None:
        return self.stopped or self.comparison.no_verdict

    @property
    def row(self) -> Row:
        return self.comparison.row(judged_only=self.demand.judged_only)

    @property
    def misses_gain(self) -> bool:
        """Whether the required gain was measured and missed."""
        least = self.demand.min_gain
        return self.no_verdict is None and least is not None and self.row.difference.mean * _POINTS < least


def in_words(difference: Interval) -> str:
    """Describe a difference."""
    if not difference.queries:
        return difference.meaning
    queries = f"{difference.queries:,} quer{'y' if difference.queries == 1 else 'ies'}"
    between = f"95 % interval {_points(difference.low)} to {_points(difference.high)}"
    return f"{difference.meaning}: {_points(difference.mean)} points, {between}, {queries}"


def _points(value: float) -> str:
    return f"{round(value * _POINTS, 1) + 0.0:+.1f}"


def text_report(result: Result, most: int) -> str:
    """Render the report, with the given number of queries that gained and lost most."""
    comparison = result.comparison
    parts = [_coverage(result), _table(comparison), _outcomes(comparison), _conclusion(result)]
    parts.append(
        f"{len(comparison.won)} queries are better, {len(comparison.lost)} worse, "
        f"{len(comparison.changes) - len(comparison.won) - len(comparison.lost)} the same"
    )
    parts += [_changes(title, changes[:most]) for title, changes in _by_change(comparison) if changes and most]
    return "\n\n".join(parts) + "\n"


def _by_change(comparison: Comparison) -> Sequence[tuple[str, Sequence[Change]]]:
    return (("gained most:", comparison.won), ("lost most:", comparison.lost))


def _coverage(result: Result) -> str:
    collection = result.collection
    said = f"{len(result.comparison.changes):,} of {len(collection.queries):,} queries compared"
    for count, why in (
        (collection.without_relevant, "without a relevant document left out"),
        (collection.without_text, "judged but not among the queries"),
    ):
        said += f"; {count:,} {why}" if count else ""
    return said


def _table(comparison: Comparison) -> str:
    rows = [
        ("", "baseline", "proxy", "difference in points, 95 % interval"),
        *(
            (str(row.measure), f"{row.baseline:.3f}", f"{row.proxy:.3f}", _bracketed(row.difference))
            for row in comparison.rows
        ),
        ("unjudged in the first 10", f"{comparison.baseline.unjudged:.0%}", f"{comparison.proxy.unjudged:.0%}", ""),
    ]
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{name:{width}}  {was:>8}  {now:>8}  {said}".rstrip() for name, was, now, said in rows)


def _bracketed(difference: Interval) -> str:
    return f"{_points(difference.mean):>5} ({_points(difference.low)} to {_points(difference.high)})"


def _outcomes(comparison: Comparison) -> str:
    sides = (("baseline", comparison.baseline), ("proxy", comparison.proxy))
    return "\n".join(f"searches of the {name}: {_counts(side)}" for name, side in sides)


def _counts(side: Side) -> str:
    counts = ", ".join(f"{count:,} {printable(outcome)}" for outcome, count in side.outcomes.items())
    return counts or f"{side.searches:,}, by an engine"


def _conclusion(result: Result) -> str:
    lines = [f"{row.measure}: {in_words(row.difference)}" for row in _verdict_rows(result.comparison)]
    if result.no_verdict:
        lines.append(f"no verdict: {result.no_verdict}")
    elif result.demand.min_gain is not None:
        met = "missed" if result.misses_gain else "reached"
        lines.append(
            f"--min-gain {result.demand.min_gain:g} is {met} by {result.row.measure}: "
            f"{_points(result.row.difference.mean)} points"
        )
    return "\n".join(lines)


def _verdict_rows(comparison: Comparison) -> Sequence[Row]:
    return [comparison.row(judged_only=judged_only) for judged_only in (False, True)]


def _changes(title: str, changes: Sequence[Change]) -> str:
    return "\n".join([title, *(f"  {line}" for line in _change_lines(changes))])


def _change_lines(changes: Sequence[Change]) -> Iterator[str]:
    for change in changes:
        text = printable(change.query.text)
        shown = f"{text[:_SHOWN_TEXT]}…" if len(text) > _SHOWN_TEXT else text
        moved = f": {move_in_words(change.moved)}" if change.moved else ""
        yield f"{_points(change.difference):>6}  “{shown}” ({printable(change.query.id[:_SHOWN_TEXT])}){moved}"


def move_in_words(move: Move) -> str:
    """Describe how the rank of a document changed."""
    said = f"{printable(move.document)} (grade {move.grade})"
    match move.before, move.after:
        case None, after:
            return f"{said} is new at rank {after}"
        case before, None:
            return f"{said} was at rank {before} and is gone"
        case before, after:
            return f"{said} from rank {before} to {after}"


def printable(text: str) -> str:
    """Escape control characters: ids and messages come from a server."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def json_report(result: Result) -> Mapping[str, Any]:
    """Return all measurements, including those of each query; measures from 0 to 1, gains in points."""
    comparison = result.comparison
    verdict = None if result.no_verdict else {"measure": str(result.row.measure), **_gain(result.row.difference)}
    return {
        "queries": len(result.collection.queries),
        "compared": len(comparison.changes),
        "without_relevant": result.collection.without_relevant,
        "without_text": result.collection.without_text,
        "measures": [
            {
                "measure": row.measure.name,
                "judged_only": row.measure.judged_only,
                "baseline": row.baseline,
                "proxy": row.proxy,
                **_gain(row.difference),
            }
            for row in comparison.rows
        ],
        "baseline": asdict(comparison.baseline),
        "proxy": asdict(comparison.proxy),
        "verdict": verdict,
        "no_verdict": result.no_verdict,
        "min_gain": result.demand.min_gain,
        "min_gain_reached": None if verdict is None or result.demand.min_gain is None else not result.misses_gain,
        "changes": [
            {
                "query": change.query.id,
                "text": change.query.text,
                "baseline": change.baseline,
                "proxy": change.proxy,
                "moved": asdict(change.moved) if change.moved else None,
            }
            for change in comparison.changes
        ],
    }


def _gain(difference: Interval) -> Mapping[str, Any]:
    return {
        "meaning": difference.meaning,
        "gain_points": difference.mean * _POINTS,
        "interval_points": [difference.low * _POINTS, difference.high * _POINTS],
    }
