"""The metrics that are read from the running proxy when they are scraped: its state, engine, models, spend, caches."""

from collections.abc import Callable, Iterator

from proxy.app import Proxy
from proxy.app.control import Breakers
from proxy.telemetry.metrics import Gauge, Tally
from proxy.upstream.canary import CanaryVerdict
from proxy.upstream.guard import Guards
from proxy.upstream.spending.meter import Spending

Scraped = Iterator[Gauge | Tally]


def gauges_of(proxy: Proxy, breakers: Breakers, *, is_ready: Callable[[], bool], clients: Callable[[], int]) -> Scraped:
    """Yield all of them; `clients` counts the open client connections."""
    yield Gauge("ready", "1 while the process accepts requests", (), lambda: {(): is_ready()})
    yield Gauge("reranking_enabled", "0 while the kill switch is on", (), lambda: {(): proxy.fixed.switches.reranking})
    yield Gauge("client_connections", "Open client connections", (), lambda: {(): clients()})
    yield from _of_engine(proxy)
    yield from _of_models(proxy, breakers)
    yield from _of_canary(proxy)
    yield from _of_spend(proxy)
    yield from _of_caches(proxy)


def _of_engine(proxy: Proxy) -> Scraped:
    added = proxy.fixed.engine.added

    def nodes() -> dict[tuple[str, ...], float]:
        reached = list(proxy.fixed.nodes.reachable().values())
        return {("ok",): reached.count(True), ("unreachable",): reached.count(False)}

    yield Gauge("engine_nodes", "Nodes of the engine by state", ("state",), nodes)
    yield Gauge(
        "added_searches",
        "Searches that the proxy adds to its clients' own, by state",
        ("state",),
        lambda: {("running",): added.running, ("waiting",): added.waiting},
    )


def _of_models(proxy: Proxy, breakers: Breakers) -> Scraped:
    def guards() -> Guards:
        return proxy.generation.models.guards

    yield Gauge(
        "breaker_open",
        "1 while the circuit breaker of a model is open",
        ("breaker",),
        lambda: {(name,): not state.endswith("closed") for name, state in breakers.states().items()},
    )
    yield Gauge(
        "model_calls_running",
        "Calls of a model in progress",
        ("service", "model"),
        lambda: {key: guard.bulkhead.in_flight for key, guard in guards().all},
    )
    yield Gauge(
        "model_calls_waiting",
        "Calls of a model that wait for a slot",
        ("service", "model"),
        lambda: {key: guard.bulkhead.waiting for key, guard in guards().all},
    )


def _of_canary(proxy: Proxy) -> Scraped:
    def canary_ok() -> dict[tuple[str, ...], float]:
        reports = proxy.generation.models.canary.reports.items()
        verdicts = {model: report.verdict for model, report in reports}
        known = {model: verdict for model, verdict in verdicts.items() if verdict is not CanaryVerdict.UNKNOWN}
        return {(model,): verdict is not CanaryVerdict.WRONG for model, verdict in known.items()}

    def canary_drift() -> dict[tuple[str, ...], float]:
        reports = proxy.generation.models.canary.reports.items()
        return {(model,): report.drift for model, report in reports if report.drift is not None}

    yield Gauge(
        "canary_ok", "1 if the last canary of the model ranked the known pairs correctly", ("model",), canary_ok
    )
    yield Gauge(
        "canary_drift",
        "The largest change of a score of the known pairs since they were first scored",
        ("model",),
        canary_drift,
    )


def _of_spend(proxy: Proxy) -> Scraped:
    def spending() -> Spending:
        return proxy.generation.front.searching.spending

    yield Gauge(
        "spend_today_usd",
        "US dollars that the models cost since the UTC day began",
        ("route", "model"),
        lambda: spending().today_usd(),
    )
    yield Gauge(
        "spend_cap_share",
        "Share of the route's nearest cap that is spent or reserved",
        ("route",),
        lambda: spending().shares(),
    )


def _of_caches(proxy: Proxy) -> Scraped:
    caches = proxy.fixed.caches
    yield Tally(
        "cache_lookups",
        "Look-ups in the caches by kind and result",
        ("kind", "result"),
        lambda: {
            (kind.label, result): count
            for kind, counts in caches.counts.items()
            for result, count in (("hit", counts.hits), ("miss", counts.misses))
        },
    )
    yield Tally(
        "cache_evictions",
        "Cached values that were dropped early, because their memory was needed",
        ("kind",),
        lambda: {(kind.label,): store.evictions for kind, store in caches.memory.items()},
    )
    yield Gauge(
        "cache_bytes",
        "Memory of the caches, as estimated",
        ("kind",),
        lambda: {(kind.label,): store.size for kind, store in caches.memory.items()},
    )
    yield Gauge(
        "redis_up",
        "1 while Redis is used, if it is configured",
        (),
        lambda: {(): caches.redis_state == "ok"} if caches.redis_state else {},
    )
