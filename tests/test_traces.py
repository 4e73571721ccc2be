"""Spans reach a collector that speaks OTLP over HTTP; one that does not costs spans and never a response."""

import asyncio
import sys
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from proxy.app import open_proxy
from proxy.bounds import TRACE_QUEUE
from proxy.context.tracing import begin_trace
from proxy.settings.config import Config, TraceSettings
from proxy.settings.config import Log as LogSettings
from proxy.settings.yaml_file import ConfigError
from proxy.telemetry.traces import Traces
from tests.conftest import QUERY, Log, StartProxy
from tests.fakes import FakeEngine, FakeModels, FakeServer, Fault, closed_port, hangs, refuses

ID, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{ID}-{PARENT}-01"
PATH = "/v1/traces"


def traced(settings: Config, url: str, *, query_text: bool = False) -> Config:
    log = LogSettings(query_text=query_text)
    return msgspec.structs.replace(settings, traces=TraceSettings(url=url), log=log)


async def spans_at(collector: FakeServer) -> dict[str, list[Span]]:
    """Wait for a batch, and return its spans by name."""
    await collector.until_asked(PATH)
    spans: dict[str, list[Span]] = {}
    for received in collector.requests:
        batch = ExportTraceServiceRequest.FromString(received.content)
        for span in (span for each in batch.resource_spans for scope in each.scope_spans for span in scope.spans):
            spans.setdefault(span.name, []).append(span)
    return spans


def attributes(span: Span) -> dict[str, object]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "") for each in span.attributes}


async def test_a_search_is_exported_with_its_stages_and_calls(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, models: FakeModels
) -> None:
    async with FakeServer() as collector:
        client = await start_proxy(traced(settings, collector.url))
        answered = await client.search("/products/_search", QUERY, traceparent=TRACEPARENT)
        assert "reranked" == answered.header("x-rerank")
        spans = await spans_at(collector)
    (root,), (search,) = spans["POST"], spans["search"]
    assert {bytes.fromhex(ID)} == {span.trace_id for each in spans.values() for span in each}
    assert (bytes.fromhex(PARENT), root.span_id) == (root.parent_span_id, search.parent_span_id)
    assert Span.SPAN_KIND_SERVER == root.kind
    assert {"lexical", "embed", "semantic", "rerank", "render", "embedder", "reranker"} <= spans.keys()
    stages = {spans[name][0].parent_span_id for name in ("lexical", "embed", "semantic", "rerank", "render")}
    assert {search.span_id} == stages
    assert ("reranked", "products*") == tuple(attributes(search)[f"rerank.{name}"] for name in ("outcome", "route"))
    of_http = ("http.request.method", "url.path", "http.response.status_code")
    assert ("POST", "/products/_search", 200) == tuple(attributes(root)[name] for name in of_http)
    (call,) = spans["reranker"]
    assert (f"00-{ID}-{call.span_id.hex()}-01",) == tuple(each.header("traceparent") for each in models.of("rerank"))
    carried = {each.header("traceparent") for kind in ("lexical", "semantic", "render") for each in engine.of(kind)}
    assert {f"00-{ID}-{root.span_id.hex()}-01"} == carried
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for each in spans.values() for span in each)
    assert "laptop" not in str(spans)


async def test_the_query_text_is_in_a_span_only_if_the_settings_allow_it(
    start_proxy: StartProxy, settings: Config
) -> None:
    async with FakeServer() as collector:
        client = await start_proxy(traced(settings, collector.url, query_text=True))
        await client.search("/products/_search", QUERY)
        (search,) = (await spans_at(collector))["search"]
    assert "laptop" == attributes(search)["rerank.query"]


async def test_failed_calls_and_passed_through_requests_are_exported(
    start_proxy: StartProxy, settings: Config, models: FakeModels, engine: FakeEngine
) -> None:
    models.faults["rerank"] = refuses(500, b"{}")
    async with FakeServer() as collector:
        client = await start_proxy(traced(settings, collector.url))
        await client.search("/products/_search", QUERY)
        await client.ask("GET", "/products/_doc/1?routing=secret", traceparent=TRACEPARENT)
        spans = await spans_at(collector)
    assert {Status.STATUS_CODE_ERROR} == {span.status.code for span in spans["reranker"]}
    assert {"server_error"} == {span.status.message for span in spans["reranker"]}
    (passed,) = spans["GET"]
    assert ("/products/_doc/1", bytes.fromhex(ID)) == (attributes(passed)["url.path"], passed.trace_id)
    assert [TRACEPARENT] == [each.header("traceparent") for each in engine.of("other")], "it passes unchanged"
    assert "secret" not in str(spans)


async def test_an_unsampled_trace_is_propagated_but_not_exported(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, log: Log
) -> None:
    async with FakeServer() as collector:
        client = await start_proxy(traced(settings, collector.url))
        await client.search("/products/_search", QUERY, traceparent=f"00-{ID}-{PARENT}-00")
        await client.search("/products/_search", QUERY, traceparent=TRACEPARENT)
        spans = await spans_at(collector)
    assert 1 == len(spans["search"])
    assert {"00", "01"} == {each.header("traceparent")[-2:] for each in engine.of("lexical")}
    assert ID == next(event["trace"] for event in log if event["event"] == "search")


@pytest.mark.parametrize("fault", [refuses(400, b""), hangs, None])
async def test_a_failing_collector_does_not_affect_responses(
    fault: Fault | None, start_proxy: StartProxy, settings: Config
) -> None:
    async with FakeServer() as collector:
        url = collector.url if fault else f"http://127.0.0.1:{closed_port()}"
        collector.faults |= {PATH: fault} if fault else {}
        client = await start_proxy(traced(settings, url))
        assert "reranked" == (await client.search("/products/_search", QUERY)).header("x-rerank")
        if fault:
            await collector.until_asked(PATH)
        assert "reranked" == (await client.search("/products/_search", QUERY)).header("x-rerank")


@dataclass
class Exports:
    """What was exported, lost and dropped."""

    counted: Counter[str] = field(default_factory=Counter)

    def note(self, result: str, spans: int) -> None:
        self.counted[result] += spans


def export(traces: Traces, count: int) -> None:
    for _ in range(count):
        trace = begin_trace("GET", "", 1.0)
        traces.export(trace, [trace.root])


async def test_spans_beyond_the_queue_are_dropped_and_counted() -> None:
    exports = Exports()
    async with FakeServer() as collector:
        collector.faults[PATH] = hangs
        traces = Traces(collector.url, 1.0, exports.note)
        export(traces, TRACE_QUEUE + 7)
        assert {"dropped": 7} == exports.counted
        await traces.close()


async def test_spans_a_collector_rejects_are_reported_once(log: Log) -> None:
    exports = Exports()
    async with FakeServer() as collector:
        collector.faults[PATH] = refuses(400, b"")
        traces = Traces(collector.url, 1.0, exports.note)
        export(traces, TRACE_QUEUE)
        await traces.close()
    assert {"lost": TRACE_QUEUE} == exports.counted
    assert ["traces_lost"] == [event["event"] for event in log]


def test_without_the_extra_the_error_says_how_to_install_it(settings: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "proxy.telemetry.traces", None)

    async def start() -> None:
        async with AsyncExitStack() as stack:
            await open_proxy(traced(settings, "http://127.0.0.1:4318"), None, {}, stack)

    with pytest.raises(ConfigError, match=r"traces.url needs OpenTelemetry, .*: pip install .*\[otel\]"):
        asyncio.run(start())
