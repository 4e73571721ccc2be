"""What Prometheus reads: every request in one counter, labels from tables alone, histograms of what was timed."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.app import listen_for, open_proxy
from proxy.app.process import Process
from proxy.context import Charge, Ended, RequestRecord
from proxy.outcomes import BYPASS_REASONS, answered
from proxy.settings.config import Config
from proxy.telemetry.log import Telemetry
from proxy.telemetry.metrics import Gauge, Metrics
from tests.conftest import QUERY, TOKEN, Log
from tests.fakes import Client, FakeEngine, FakeModels, hangs, refuses

Labels = frozenset[tuple[str, str]]


def read(text: bytes) -> Mapping[str, Mapping[Labels, float]]:
    """Read samples by name and labels; Prometheus' own parser refuses a text that is none."""
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def labels(**named: str) -> Labels:
    return frozenset(named.items())


def test_background_searches_are_not_timed(log: Log) -> None:
    telemetry, record = Telemetry(), RequestRecord("")
    search = record.search()
    search.route, search.outcome, search.is_background = "products", answered([]), True
    search.usage.add(Charge(120, 0.5))
    telemetry.conclude(record, Ended.ANSWERED)
    text = telemetry.metrics.text().decode()
    assert "search_seconds_count{" not in text.replace("rerank_proxy_", "")
    assert 'rerank_proxy_model_tokens_total{route="products"} 120.0' in text


def test_a_search_of_a_route_is_counted_timed_and_charged(log: Log) -> None:
    telemetry, record = Telemetry(), RequestRecord("")
    search = record.search()
    search.route, search.outcome = "products", answered([])
    search.clock.stages |= {"lexical": 20.0, "rerank": 300.0}
    search.sent.engine_searches = 2
    search.usage.add(Charge(120, 0.5))
    search.usage.add(Charge(1, 0.25))
    search.usage.tier = "fast"
    telemetry.conclude(record, Ended.ANSWERED)
    telemetry.conclude(None, Ended.CLIENT_LEFT)
    telemetry.count_model_call("reranker", "m", "retried")
    found = read(telemetry.metrics.text())
    assert {labels(kind="search", ended="answered"): 1, labels(kind="pass_through", ended="client_left"): 1} == found[
        "rerank_proxy_requests_total"
    ]
    assert {labels(route="products", outcome="reranked", reason=""): 1} == found["rerank_proxy_searches_total"]
    assert {labels(route="products"): 2} == found["rerank_proxy_engine_searches_total"]
    assert {labels(route="products"): 121} == found["rerank_proxy_model_tokens_total"]
    assert {labels(route="products"): 0.75} == found["rerank_proxy_model_cost_usd_total"]
    assert {labels(service="reranker", model="m", result="retried"): 1} == found["rerank_proxy_model_calls_total"]
    assert {labels(route="products", tier="fast"): 1} == found["rerank_proxy_auto_tier_searches_total"]
    stages = found["rerank_proxy_stage_seconds_sum"]
    assert {"lexical": 0.02, "rerank": 0.3} == {dict(each)["stage"]: value for each, value in stages.items()}
    buckets = found["rerank_proxy_stage_seconds_bucket"]
    assert (0, 1) == tuple(buckets[labels(route="products", stage="lexical", le=le)] for le in ("0.01", "0.025"))
    assert {labels(route="products"): 1} == found["rerank_proxy_search_seconds_count"]


def test_gauges_are_read_when_scraped() -> None:
    value: dict[tuple[str, ...], float] = {("a",): 1.0}
    metrics = Metrics()
    metrics.add(Gauge("turns", "Turns", ("state",), lambda: value))
    value["a",] = 2.0
    assert {labels(state="a"): 2.0} == read(metrics.text())["rerank_proxy_turns"]


def test_two_proxies_in_a_process_have_separate_registries() -> None:
    one, other = Metrics(), Metrics()
    one.reloaded("ok")
    assert b'config_reloads_total{result="ok"}' not in other.text()


@pytest.fixture
async def served(settings: Config, log: Log) -> AsyncIterator[tuple[Client, Process]]:
    async with AsyncExitStack() as stack:
        proxy = await open_proxy(settings, TOKEN, {}, stack)
        process = Process(proxy, None, {})
        listener = await listen_for(proxy, stack)
        process.serves_on(listener)
        client = await Client.to(listener.port)
        stack.callback(client.close)
        yield client, process


async def test_every_request_is_counted_once(
    served: tuple[Client, Process], engine: FakeEngine, models: FakeModels
) -> None:
    """Requests that pass through, and searches that are reranked, bypassed, degraded or refused."""
    client, process = served
    search = "/products/_search"
    json_ = {"content_type": "application/json"}
    await client.search(search, QUERY)
    await client.search(search, {**QUERY, "size": 0})
    await client.search("/logs/_search", QUERY)
    await client.ask("GET", "/")
    await client.ask("POST", "/products/_msearch", b"{}\n" + json.dumps(QUERY).encode() + b"\n", **json_)
    models.faults["rerank"] = refuses(503)
    await client.search(search, {"query": {"match": {"title": "sleeve"}}})
    engine.faults["lexical"] = refuses(400)
    await client.search(search, QUERY)
    await client.send(b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
    await client.answer()
    found = read(process.metrics())
    assert 8 == sum(found["rerank_proxy_requests_total"].values())
    outcomes = {tuple(sorted(dict(each).values())): n for each, n in found["rerank_proxy_searches_total"].items()}
    assert 5 == sum(outcomes.values()), outcomes
    assert found["rerank_proxy_engine_searches_total"][labels(route="products*")] >= 5
    assert {"names", "lexical", "embed", "semantic", "rerank"} <= {
        dict(each)["stage"] for each in found["rerank_proxy_stage_seconds_count"]
    }


async def test_each_search_that_the_engine_runs_for_a_search_is_counted(
    served: tuple[Client, Process], engine: FakeEngine
) -> None:
    """The client's own, kNN, and those that fetch hits and texts; a bypassed search counts as one."""
    client, process = served
    await client.search("/products/_search", {**QUERY, "_source": False})
    await client.search("/products/_search", {**QUERY, "size": 0})
    searches = sum(len(engine.of(kind)) for kind in ("lexical", "semantic", "render", "passages"))
    assert 5 == searches
    assert {labels(route="products*"): searches} == read(process.metrics())["rerank_proxy_engine_searches_total"]


async def test_a_disconnected_client_is_counted(served: tuple[Client, Process], engine: FakeEngine) -> None:
    client, process = served
    engine.faults["other"] = hangs
    await client.send(b"GET /_cat/health HTTP/1.1\r\nHost: p\r\n\r\n")
    await engine.until_asked("other")
    client.break_off()
    await engine.until_left()
    assert {labels(kind="pass_through", ended="client_left"): 1} == read(process.metrics())[
        "rerank_proxy_requests_total"
    ]


async def test_clients_cannot_create_labels(served: tuple[Client, Process]) -> None:
    """Index names, keys, parameters, ids and query texts come from clients: none of them is a label's value."""
    client, process = served
    for number in range(3):
        mine = f"mine{number}"
        await client.search(f"/products-{mine}/_search", QUERY, x_opaque_id=mine)
        await client.search("/products/_search", {**QUERY, mine: 1})
        await client.search(f"/products/_search?{mine}=1", QUERY)
        await client.search("/products/_search", {"query": {"match": {"title": mine}}})
        await client.ask("GET", f"/_cat/{mine}")
    text = process.metrics()
    assert b"mine" not in text
    known = {*BYPASS_REASONS, ""}
    reasons = {dict(each)["reason"] for each in read(text)["rerank_proxy_searches_total"]}
    assert set() == reasons - known


async def test_process_metrics_are_exported(served: tuple[Client, Process]) -> None:
    client, process = served
    await client.ask("GET", "/")
    process.switches.reranking = False
    found = read(process.metrics())
    assert (1, 0, 1, 0) == tuple(
        found[f"rerank_proxy_{name}"][labels()]
        for name in ("ready", "reranking_enabled", "client_connections", "event_loop_lag_seconds_count")
    )
    assert {labels(state="ok"): 1, labels(state="unreachable"): 0} == found["rerank_proxy_engine_nodes"]
    assert {labels(state="running"): 0, labels(state="waiting"): 0} == found["rerank_proxy_added_searches"]
    assert found["process_resident_memory_bytes"][labels()] > 0
