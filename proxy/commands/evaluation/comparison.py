"""Compares the rankings of two addresses: measures, queries won and lost, and the verdict."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2
from statistics import fmean

from proxy.commands.evaluation.bootstrap import QUERIES_MIN, Interval, interval
from proxy.commands.evaluation.collection import Query
from proxy.commands.evaluation.measures import CUTOFF, GAINS, NDCG, Measure, Ranking, measures_of, scores
from proxy.commands.evaluation.outcomes import HEADER, FailedSearch, Found, Pair

TOLERATED_SHARE = 0.02
"""Maximum share of searches that failed or were not reranked; with more, the result would not describe reranking."""
_EQUAL = 1e-9


@dataclass(frozen=True, slots=True)
class Row:
    """The mean of a measure at both addresses, and the difference."""

    measure: Measure
    baseline: float
    proxy: float
    difference: Interval


@dataclass(frozen=True, slots=True)
class Move:
    """The judged document that changed a query's nDCG most; ranks count from 1, None is below the depth."""

    document: str
    grade: int
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """A query's nDCG@10 at both addresses, and the document that moved if they differ."""

    query: Query
    baseline: float
    proxy: float
    moved: Move | None

    @property
    def difference(self) -> float:
        return self.proxy - self.baseline


@dataclass(frozen=True, slots=True)
class Side:
    """The responses of one address."""

    outcomes: Mapping[str, int]
    """The number of searches by outcome; for an engine, failed ones only."""
    searches: int
    unusable: int
    """Searches that failed, or were not reranked by the proxy."""
    unjudged: float
    """The share of unjudged documents in the top ten."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All measurements, with the queries ordered by their difference, the largest gain first."""

    depth: int
    baseline: Side
    proxy: Side
    rows: tuple[Row, ...]
    changes: tuple[Change, ...]
    no_verdict: str | None

    def row(self, *, judged_only: bool) -> Row:
        """Return the row of nDCG@10, which determines the verdict."""
        return next(row for row in self.rows if row.measure == Measure(NDCG.name, judged_only))

    @property
    def won(self) -> Sequence[Change]:
        return [change for change in self.changes if change.difference > _EQUAL]

    @property
    def lost(self) -> Sequence[Change]:
        """The queries with a lower nDCG, the largest loss first."""
        return [change for change in reversed(self.changes) if change.difference < -_EQUAL]


def compare(queries: Sequence[Query], pairs: Mapping[str, Pair], depth: int) -> Comparison:
    """Measure those of the sent queries that both addresses answered."""
    found = {name: pair for name, pair in pairs.items() if _is_whole(pair)}
    compared = [query for query in queries if query.id in found]
    before = {name: _documents(pair.baseline) for name, pair in found.items()}
    after = {name: _documents(pair.proxy) for name, pair in found.items()}
    measures = measures_of(depth)
    was, now = scores(compared, before, measures), scores(compared, after, measures)
    rows = tuple(
        Row(measure, _mean(was[measure]), _mean(now[measure]), interval(_differences(was[measure], now[measure])))
        for measure in measures
    )
    changes = [
        Change(query, old, new, moved(query, before[query.id], after[query.id], new - old))
        for query, old, new in zip(compared, was[NDCG], now[NDCG], strict=True)
    ]
    baseline = _side(queries, [pairs[query.id].baseline for query in queries], demands_reranking=False)
    proxy = _side(queries, [pairs[query.id].proxy for query in queries], demands_reranking=True)
    by_difference = sorted(changes, key=lambda change: -change.difference)
    why = _why_no_verdict(baseline, proxy, rows, found_any=any(before.values()) or any(after.values()))
    return Comparison(depth, baseline, proxy, rows, tuple(by_difference), why)


def _is_whole(pair: Pair) -> bool:
    return isinstance(pair.baseline, Found) and isinstance(pair.proxy, Found)


def _documents(reply: Found | FailedSearch) -> Ranking:
    return reply.documents if isinstance(reply, Found) else ()


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0


def _differences(was: Sequence[float], now: Sequence[float]) -> list[float]:
    return [new - old for old, new in zip(was, now, strict=True)]


NO_HEADER = f"no {HEADER} header"


def _side(queries: Sequence[Query], replies: Sequence[Found | FailedSearch], *, demands_reranking: bool) -> Side:
    is_proxy = demands_reranking or any(isinstance(reply, Found) and reply.outcome for reply in replies)
    outcomes = Counter(_outcome(reply) for reply in replies if is_proxy or isinstance(reply, FailedSearch))
    unusable = sum(not _is_usable(reply, is_proxy=is_proxy) for reply in replies)
    judged = [
        name in query.judgments
        for query, reply in zip(queries, replies, strict=True)
        for name in _documents(reply)[:CUTOFF]
    ]
    return Side(dict(outcomes.most_common()), len(replies), unusable, 1 - fmean(judged) if judged else 0.0)


def _outcome(reply: Found | FailedSearch) -> str:
    match reply:
        case FailedSearch(detail):
            return f"failed ({detail})"
        case Found(_, None):
            return NO_HEADER
        case Found(_, outcome):
            return str(outcome)


def _is_usable(reply: Found | FailedSearch, *, is_proxy: bool) -> bool:
    if isinstance(reply, FailedSearch):
        return False
    return not is_proxy or (reply.outcome is not None and reply.outcome.is_reranked)


def _why_no_verdict(baseline: Side, proxy: Side, rows: Sequence[Row], *, found_any: bool) -> str | None:
    if proxy.searches and proxy.outcomes.get(NO_HEADER) == proxy.searches:
        return (
            f"no response has the header {HEADER}: is --proxy the address of a proxy, and does a route cover --index?"
        )
    if rows[0].difference.queries and not found_any:
        return (
            "no search found a document: if the queries in --judgments are ids, name the file of texts with --queries"
        )
    for name, side in (("baseline", baseline), ("proxy", proxy)):
        if side.unusable > TOLERATED_SHARE * side.searches:
            return (
                f"{side.unusable} of {side.searches} searches of the {name} failed or were not reranked, more than "
                f"{TOLERATED_SHARE:.0%}: see the outcomes, and correct what they name"
            )
    if (queries := rows[0].difference.queries) < QUERIES_MIN:
        return f"at least {QUERIES_MIN} queries are needed, and {queries} could be compared: judge more"
    return None


def moved(query: Query, before: Ranking, after: Ranking, difference: float) -> Move | None:
    """Return the relevant document whose own gain changed most in the direction of the query's."""
    if abs(difference) <= _EQUAL:
        return None
    old = {name: place for place, name in enumerate(before, 1)}
    new = {name: place for place, name in enumerate(after, 1)}

    def gained(name: str) -> float:
        return GAINS[query.judgments[name]] * (_weight(new.get(name)) - _weight(old.get(name)))

    most = max(query.judgments, key=lambda name: gained(name) if difference > 0 else -gained(name))
    return Move(most, query.judgments[most], old.get(most), new.get(most))


def _weight(place: int | None) -> float:
    return 1 / log2(place + 1) if place and place <= CUTOFF else 0.0
