"""What searches get while the models stall: their latency, and the throughput once the breakers are open."""

import statistics
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demo.asking import ask
from tests.bench.measuring import Figure
from tests.bench.reranked import Site, percentile, proxy_before
from tests.bench.searchers import Searched, Searcher
from tests.bench.stand_ins import CONTROL

BUDGET_MS = 500
_LEEWAY_MS = 20
"""What the proxy may need beyond the budget, to write its response."""
_CONCURRENCY = 8
_WARM_UP = 200


@dataclass(frozen=True, slots=True)
class Stalled:
    """One condition of the models."""

    name: str
    p50_ms: float
    p99_ms: float
    rate: float
    """Searches per second."""
    errors: int
    outcomes: Mapping[str, int]
    allowed_p99_ms: float | None = None
    """The budget, 20 ms, and the 99th percentile without reranking; None for that itself."""
    rate_ratio: float | None = None
    """The throughput beside that without reranking, by turns; None if it is not compared."""

    def figure(self) -> Figure:
        """Return the 99th percentile beside what it may be."""
        return Figure(self.name, "99th percentile, beside the allowed", "ms", self.allowed_p99_ms or 1, self.p99_ms, 1)


@dataclass(frozen=True, slots=True)
class Conditions:
    """All conditions, and what they were measured with."""

    rows: tuple[Stalled, ...]

    def plain(self) -> Any:
        """Return it as JSON has it."""
        rows = [{name: _rounded(value) for name, value in asdict(row).items()} for row in self.rows]
        return {"budget_ms": BUDGET_MS, "concurrency": _CONCURRENCY, "rows": rows}


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


def measure(site: Site, folder: Path, rounds: int, searches: int) -> Iterator[Stalled]:
    """Search without reranking, with 5 % of the model calls stalled, and with all; the latter two phases in turn."""
    with ExitStack() as stack:
        plain = _searcher(stack, site, folder, mode="off")
        reranking = _searcher(stack, site, folder, budget_ms=BUDGET_MS)
        for searcher in (plain, reranking):
            searcher.search(_WARM_UP, _CONCURRENCY)
        count = rounds * searches
        without = plain.search(count, _CONCURRENCY)
        yield _row("not reranked", without)
        allowed = BUDGET_MS + _LEEWAY_MS + percentile(without.milliseconds, 99)
        for name, share in (("5 % of the model calls stall", 0.05), ("all stall, from the first one on", 1.0)):
            _stall(site, share)
            yield _row(name, reranking.search(count, _CONCURRENCY), allowed)
        yield _open(plain, reranking, allowed, rounds, searches)
        _stall(site, 0.0)


def _searcher(stack: ExitStack, site: Site, folder: Path, **route: Any) -> Searcher:
    service = stack.enter_context(proxy_before(site, folder, **route))
    return stack.enter_context(Searcher.through(f"{service.url}/{site.index}/_search"))


def _open(plain: Searcher, reranking: Searcher, allowed: float, rounds: int, searches: int) -> Stalled:
    """Compare the throughput by turns; the breakers are open by now."""
    pairs: list[tuple[Searched, Searched]] = []
    for number in range(rounds):
        if number % 2:
            through = reranking.search(searches, _CONCURRENCY)
            pairs.append((plain.search(searches, _CONCURRENCY), through))
        else:
            pairs.append((plain.search(searches, _CONCURRENCY), reranking.search(searches, _CONCURRENCY)))
    found = [through for _, through in pairs]
    joined = Searched(
        [each for searched in found for each in searched.milliseconds],
        sum(searched.seconds for searched in found),
        sum(searched.errors for searched in found),
        _added(found),
    )
    ratio = statistics.median(through.rate / own.rate for own, through in pairs)
    return _row("all stall, breakers open", joined, allowed, ratio)


def _added(found: list[Searched]) -> Mapping[str, int]:
    names = {name for searched in found for name in searched.outcomes}
    return {name: sum(searched.outcomes.get(name, 0) for searched in found) for name in sorted(names)}


def _row(name: str, searched: Searched, allowed: float | None = None, ratio: float | None = None) -> Stalled:
    times = searched.milliseconds
    p50, p99 = statistics.median(times), percentile(times, 99)
    return Stalled(name, p50, p99, searched.rate, searched.errors, searched.outcomes, allowed, ratio)


def _stall(site: Site, share: float) -> None:
    ask(site.models + CONTROL, {"stalled": share})


def heading() -> str:
    """Return what stands above the lines that are printed."""
    return f"{'models':<36}{'p50':>10}{'p99':>10}{'allowed':>12}{'searches/s':>12}{'errors':>8}  ratio of searches/s"


def line(row: Stalled) -> str:
    allowed = "" if row.allowed_p99_ms is None else f"{row.allowed_p99_ms:.1f} ms"
    ratio = "" if row.rate_ratio is None else f"{row.rate_ratio:.2f}"
    times = f"{row.p50_ms:7.1f} ms{row.p99_ms:7.1f} ms{allowed:>12}"
    return f"{row.name:<36}{times}{row.rate:12.0f}{row.errors:8}  {ratio:>5} {dict(row.outcomes)}"
