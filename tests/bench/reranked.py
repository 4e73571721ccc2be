"""What a reranked search costs through the proxy, beside the same search that an application makes by hand."""

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from demo.asking import ask
from demo.engine import free_ports
from demo.services import Service, running
from proxy.settings.profiles import PROFILES
from tests.bench.baselines.servers import started
from tests.bench.by_hand import Shop
from tests.bench.measuring import Figure
from tests.bench.processes import used_by
from tests.bench.searchers import Searched, Searcher
from tests.bench.stand_ins import CONTROL, CRITICAL_MS, DIMENSIONS, INDEX

BY_HAND, OURS = "by hand", "rerank-proxy"
_PROFILE = PROFILES["e-commerce"]
_WARM_UP = 30
_PATIENCE_S = 20
"""Every timeout, so that no search is degraded on a busy machine: that would be another search."""


@dataclass(frozen=True, slots=True)
class Case:
    """How much is searched at a time."""

    window: int
    concurrency: int

    @property
    def name(self) -> str:
        return f"window {self.window}, {self.concurrency} at a time"


CASES = (Case(50, 1), Case(200, 1), Case(50, 16), Case(200, 16))


@dataclass(frozen=True, slots=True)
class Site:
    """What is searched: an engine and models, and the index with its vectors."""

    engine: str
    models: str
    index: str = INDEX
    dimensions: int = DIMENSIONS
    critical_ms: float | None = CRITICAL_MS
    """The time of a search's engine and model calls; None if it is not fixed."""

    def shop(self, window: int) -> Shop:
        return Shop(
            engine=self.engine,
            models=self.models,
            index=self.index,
            window=window,
            dimensions=self.dimensions,
            embed_model="Qwen/Qwen3-Embedding-4B",
            rerank_model="Qwen/Qwen3-Reranker-4B",
            instruction=_PROFILE.instruction,
        )

    def settings(self, window: int, **route: Any) -> dict[str, Any]:
        """Return the settings of a proxy before it."""
        semantic = {"field": "embedding", "dimensions": self.dimensions, "timeout_seconds": _PATIENCE_S}
        of_route = {"index": self.index, "passage": ["title", "description"], "semantic": semantic}
        patient = {"resolve_timeout_seconds": _PATIENCE_S, "added_timeout_seconds": _PATIENCE_S}
        calls = {"embed_timeout_seconds": _PATIENCE_S, "rerank_timeout_seconds": _PATIENCE_S}
        return {
            "engine": {"url": self.engine, **patient},
            "models": {"url": self.models, "canary": False, **calls},
            "log": {"level": "warning"},
            "admin": {"port": 0},
            "routes": [{**of_route, "budget_ms": 1000 * _PATIENCE_S, "rank_window_size": window, **route}],
        }

    def engine_use(self, own: int | None) -> "EngineUse":
        """Return what the engine has used so far: a process of ours, or by its own word."""
        if own is None:
            process = ask(f"{self.engine}/_nodes/stats/process,indices/search").body["nodes"]
            (node,) = process.values()
            return EngineUse(node["indices"]["search"]["query_total"], node["process"]["cpu"]["total_in_millis"])
        calls = ask(self.engine + CONTROL).body
        searches = sum(calls.get(kind, 0) for kind in ("lexical", "semantic", "render"))
        return EngineUse(searches, 1000 * used_by(own).cpu_seconds)


@dataclass(frozen=True, slots=True)
class EngineUse:
    """Of an engine since it started."""

    searches: float
    """Of shards, for a real engine."""
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Cost:
    """A search, by one of the two ways."""

    p50_ms: float
    p95_ms: float
    cpu_ms: float
    """CPU time of the proxy, or of the application that searches by hand."""
    engine_searches: float
    engine_cpu_ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """One case: the medians of its rounds, of both ways."""

    name: str
    critical_ms: float | None
    costs: Mapping[str, Cost]

    @property
    def cpu_ratio(self) -> float:
        return self.costs[OURS].cpu_ms / self.costs[BY_HAND].cpu_ms

    @property
    def p95_ratio(self) -> float:
        return self.costs[OURS].p95_ms / self.costs[BY_HAND].p95_ms

    @property
    def added_ms(self) -> float:
        """By how much the median through the proxy is longer."""
        return self.costs[OURS].p50_ms - self.costs[BY_HAND].p50_ms

    def figure(self) -> Figure:
        meaning = f"CPU of a search, beside the application's {BY_HAND}"
        return Figure(self.name, meaning, "ms", self.costs[BY_HAND].cpu_ms, self.costs[OURS].cpu_ms, 1)

    def plain(self) -> Any:
        """Return it as JSON has it."""
        ratios = {"cpu": self.cpu_ratio, "p95": self.p95_ratio, "added_ms": self.added_ms}
        return _rounded(asdict(self) | ratios)


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return round(value, 3)
        case dict():
            return {name: _rounded(each) for name, each in value.items()}
        case _:
            return value


@contextmanager
def stand_ins(folder: Path) -> Iterator[tuple[Site, int]]:
    """Run an engine and models that respond after a fixed delay; yields also the engine's process id."""
    ports = free_ports(2)
    with ExitStack() as stack:
        pids = [
            stack.enter_context(
                started(
                    [sys.executable, "-m", "tests.bench.stand_ins", str(port), name], (port,), folder / f"{name}.out"
                )
            ).pid
            for port, name in zip(ports, ("engine", "models"), strict=True)
        ]
        yield Site(f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"), pids[0]


@contextmanager
def proxy_before(site: Site, folder: Path, window: int = 50, **route: Any) -> Iterator[Service]:
    """Run the proxy with one route."""
    (port,) = free_ports(1)
    file = folder / f"proxy-{port}.yaml"
    file.write_text(yaml.safe_dump(site.settings(window, **route)))
    arguments = ["serve", "-c", str(file), "--listen", f"127.0.0.1:{port}"]
    with running("the proxy", arguments, port, None, folder / f"proxy-{port}.log") as service:
        yield service


@dataclass(frozen=True, slots=True)
class _Way:
    """One of the two ways: who searches, and whose CPU counts."""

    searcher: Searcher
    proxy: int | None = None


def measure(site: Site, engine: int | None, folder: Path, rounds: int, searches: int) -> Iterator[Row]:
    """Measure case by case; `engine` is its process id, None if it tells its use itself."""
    for case in CASES:
        with ExitStack() as stack:
            service = stack.enter_context(proxy_before(site, folder, case.window))
            through = stack.enter_context(Searcher.through(f"{service.url}/{site.index}/_search"))
            by_hand = stack.enter_context(Searcher.by_hand(site.shop(case.window)))
            ways = {BY_HAND: _Way(by_hand), OURS: _Way(through, service.process.pid)}
            count = searches if case.concurrency == 1 else 4 * searches
            yield _row(case, site, engine, ways, rounds, count)


def _row(case: Case, site: Site, engine: int | None, ways: Mapping[str, _Way], rounds: int, count: int) -> Row:
    found: dict[str, list[Cost]] = {name: [] for name in ways}
    for way in ways.values():
        _checked(way.searcher.search(_WARM_UP, case.concurrency))
    for number in range(rounds):
        names = list(ways)
        for name in names if number % 2 else names[::-1]:
            found[name].append(_cost(case, site, engine, ways[name], count))
    return Row(case.name, site.critical_ms, {name: _median(costs) for name, costs in found.items()})


def _cost(case: Case, site: Site, engine: int | None, way: _Way, count: int) -> Cost:
    before, own = site.engine_use(engine), used_by(way.proxy).cpu_seconds if way.proxy else 0.0
    searched = _checked(way.searcher.search(count, case.concurrency))
    after = site.engine_use(engine)
    cpu = used_by(way.proxy).cpu_seconds - own if way.proxy else searched.cpu_seconds
    return Cost(
        statistics.median(searched.milliseconds),
        percentile(searched.milliseconds, 95),
        1000 * cpu / count,
        (after.searches - before.searches) / count,
        (after.cpu_ms - before.cpu_ms) / count,
    )


def _checked(searched: Searched) -> Searched:
    """Return it if every search was reranked; raises ValueError."""
    if set(searched.outcomes) != {"reranked"}:
        raise ValueError(f"searches were not reranked: {searched.outcomes}")
    return searched


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value below which this share of the others lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(values) for values in zip(*(asdict(cost).values() for cost in costs), strict=True)))


def heading() -> str:
    """Return what stands above the lines that are printed."""
    return f"{'a reranked search':<36}{BY_HAND:>20}{OURS:>20}   p50      p95    CPU ms {BY_HAND} / {OURS}"


def line(row: Row) -> str:
    hand, ours = row.costs[BY_HAND], row.costs[OURS]
    times = "".join(f"{cost.p50_ms:9.1f} {cost.p95_ms:7.1f} ms" for cost in (hand, ours))
    use = "".join(f"  {cost.engine_searches:.2f} searches {cost.engine_cpu_ms:.2f} ms" for cost in (hand, ours))
    ratios = f"{row.added_ms:+6.1f} ms {row.p95_ratio:6.2f}"
    return f"{row.name:<36}{times}  {ratios} {hand.cpu_ms:6.2f} {ours.cpu_ms:6.2f} {row.cpu_ratio:5.2f}  engine{use}"
