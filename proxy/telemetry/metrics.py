"""Prometheus metrics: counters and histograms of requests, searches, stages and model calls.

Requests are counted in two dictionaries (`Counters`), so that a pass-through request costs one increment; they are read
at each scrape. Label values come from the configuration (routes) and from tables (outcomes, reasons, stages), never
from a request.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TypeVar

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client import Counter as Total
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy.context import SearchRecord

disable_created_metrics()  # type: ignore[no-untyped-call]  # else each counter has a second series, with the time at which it began

PREFIX = "rerank_proxy"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram buckets in seconds; the default time budget is one of them."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Counters:
    """Counts of requests by ending, of searches by outcome and of model calls by result."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind (`search` of a route, or `pass_through`) and ending."""
    searches: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By route, outcome and reason."""
    model_calls: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By service, model and result: `ok`, `retried`, `cancelled`, or the failure reason, also if no call was made."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """A value that is read at each scrape, by its label values."""

    name: str
    meaning: str
    labels: tuple[str, ...]
    read: Callable[[], Mapping[tuple[str, ...], float]]

    def family(self) -> GaugeMetricFamily:
        found = GaugeMetricFamily(f"{PREFIX}_{self.name}", self.meaning, labels=self.labels)
        for labels, value in self.read().items():
            found.add_metric(labels, value)
        return found


@dataclass(frozen=True, slots=True)
class Tally:
    """A count that is kept elsewhere and read at each scrape, by its label values."""

    name: str
    meaning: str
    labels: tuple[str, ...]
    read: Callable[[], Mapping[tuple[str, ...], int]]

    def family(self) -> CounterMetricFamily:
        return _family(self.name, self.meaning, self.labels, self.read())


class _Scraped(Collector):
    """The dictionaries, gauges and tallies at the time of a scrape."""

    def __init__(self, counters: Counters, gauges: Iterable[Gauge | Tally]) -> None:
        self._counters = counters
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        yield _family("requests", "Requests by kind and ending", ("kind", "ended"), self._counters.requests)
        yield _family(
            "searches",
            "Searches of a route by outcome and reason",
            ("route", "outcome", "reason"),
            self._counters.searches,
        )
        yield _family(
            "model_calls",
            "Model calls by result, including those that were cancelled or not made",
            ("service", "model", "result"),
            self._counters.model_calls,
        )
        yield from (gauge.family() for gauge in self._gauges)


_Labels = TypeVar("_Labels", bound=tuple[str, ...])


def _family(name: str, meaning: str, labels: _Labels, values: Mapping[_Labels, int]) -> CounterMetricFamily:
    found = CounterMetricFamily(f"{PREFIX}_{name}", meaning, labels=labels)
    for each, value in tuple(values.items()):
        found.add_metric(each, value)
    return found


class Metrics:
    """Counts what the proxy does, and renders it for Prometheus."""

    def __init__(self) -> None:
        self.counters = Counters()
        self._registry = CollectorRegistry()
        build: Mapping[tuple[str, ...], float] = {(version("es-rerank-proxy"),): 1.0}  # read once, from a file
        self._gauges: list[Gauge | Tally] = [
            Gauge("build_info", "The version of the proxy", ("version",), lambda: build)
        ]
        self._registry.register(_Scraped(self.counters, self._gauges))
        ProcessCollector(registry=self._registry)
        self._searches = self._histogram(
            "search_seconds", "Time of a search of a route, including the engine's", "route"
        )
        self._stages = self._histogram("stage_seconds", "Time of each stage of a search", "route", "stage")
        self._engine_searches = self._total(
            "engine_searches", "Searches sent to the engine for searches of a route", "route"
        )
        self._tokens = self._total("model_tokens", "Tokens that the models' provider counted", "route")
        self._usd = self._total(
            "model_cost_usd", "Cost of model calls in US dollars, as reported or by the configured price", "route"
        )
        self._tiers = self._total(
            "auto_tier_searches",
            "Searches of a route with `tier: auto` by the tier of the reranker called",
            "route",
            "tier",
        )
        self._passages = self._total(
            "passages",
            "Passages that were scored, by source: `model`, or `cache` if the score was reused",
            "route",
            "source",
        )
        self._saved = self._total(
            "model_tokens_saved", "Tokens that reused scores would have used, as estimated", "route"
        )
        self._reloads = self._total("config_reloads", "Reloads of the configuration by result", "result")
        self._spans = self._total("trace_spans", "Spans of traces that were exported, lost or dropped", "result")
        self._lag = self._histogram("event_loop_lag_seconds", "Delay of a timer by the event loop")

    def _histogram(self, name: str, meaning: str, *labels: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", meaning, labels, buckets=SECONDS, registry=self._registry)

    def _total(self, name: str, meaning: str, *labels: str) -> Total:
        return Total(f"{PREFIX}_{name}", meaning, labels, registry=self._registry)

    def add(self, gauge: Gauge | Tally) -> None:
        """Add a gauge, or a count that is kept elsewhere."""
        self._gauges.append(gauge)

    def observe(self, search: SearchRecord) -> None:
        """Record the timings, engine searches and model usage of one search of a route."""
        route = search.route
        for name, milliseconds in () if search.is_background else search.timings().items():
            if name == "total":
                self._searches.labels(route).observe(milliseconds / 1000)
            else:
                self._stages.labels(route, name).observe(milliseconds / 1000)
        self._engine_searches.labels(route).inc(search.sent.engine_searches)
        self._tokens.labels(route).inc(search.tokens)
        self._usd.labels(route).inc(search.cost_usd)
        self._passages.labels(route, "model").inc(search.reuse.sent)
        self._passages.labels(route, "cache").inc(search.reuse.cached)
        self._saved.labels(route).inc(search.reuse.saved_tokens)
        if search.tier:
            self._tiers.labels(route, search.tier).inc()

    def reloaded(self, result: str) -> None:
        self._reloads.labels(result).inc()

    def exported(self, result: str, spans: int) -> None:
        """Count spans; also called from the thread that exports."""
        self._spans.labels(result).inc(spans)

    def lagged(self, seconds: float) -> None:
        self._lag.observe(max(0.0, seconds))

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
