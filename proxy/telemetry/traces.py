"""Exports spans to an OpenTelemetry collector (OTLP over HTTP), from a thread of its own.

Its packages are an extra, and are imported only if the settings name a collector. A collector that does not respond
loses spans, and never delays a response: the queue is bounded, and what does not fit is dropped.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from proxy.bounds import TRACE_QUEUE
from proxy.context.tracing import Span, Trace

_log = structlog.get_logger("proxy")
_EXPORT_S = 5.0
"""How long the collector may take for one batch, with its retries, in seconds."""
_EACH_S = 2.0
"""Seconds between two batches."""
_CLOSE_S = 3.0
"""How long the end of the process waits for the last batch, in seconds."""
_KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
OnExport = Callable[[str, int], None]
"""Called with `exported`, `lost` or `dropped`, and a number of spans; also from the thread that exports."""
_PATH = "/v1/traces"


class _Reported(SpanExporter):
    """Counts what was exported and lost, and logs once that the collector fails, and once that it works again."""

    def __init__(self, exporter: SpanExporter, endpoint: str, on_export: OnExport) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._on_export = on_export
        self._fails = False
        self.done = 0
        """Spans exported or lost so far."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001  any error loses these spans only
            result, detail = SpanExportResult.FAILURE, repr(error)[:300]
        else:
            detail = (
                f"{self._endpoint} does not accept spans, or not in time. Start the collector, or correct traces.url"
            )
        fails = result is not SpanExportResult.SUCCESS
        self.done += len(spans)
        self._on_export("lost" if fails else "exported", len(spans))
        if fails and not self._fails:
            _log.warning("traces_lost", detail=detail)
        elif self._fails and not fails:
            _log.info("traces_exported_again")
        self._fails = fails
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class Traces:
    """Takes the spans of requests that have ended."""

    def __init__(self, url: str, share: float, on_export: OnExport, *, each_seconds: float = _EACH_S) -> None:
        """Export to a collector; OTEL_EXPORTER_OTLP_HEADERS may hold its credentials."""
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # `_Reported` logs it once
        self.share = share
        endpoint = url.rstrip("/").removesuffix(_PATH) + _PATH
        self._exporter = _Reported(OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_S), endpoint, on_export)
        self._on_export = on_export
        self._taken = 0
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=TRACE_QUEUE,
            schedule_delay_millis=1000 * each_seconds,
            max_export_batch_size=TRACE_QUEUE // 4,
        )
        self._resource = Resource.create({SERVICE_NAME: "rerank-proxy"})

    def export(self, trace: Trace, spans: Iterable[Span]) -> None:
        """Put the spans of a trace into the queue, or drop them if it is full."""
        now_ns, now = time.time_ns(), time.perf_counter()
        found = [self._readable(trace, span, lambda at: now_ns - int((now - at) * 1e9)) for span in spans]
        if self._taken - self._exporter.done + len(found) > TRACE_QUEUE:
            self._on_export("dropped", len(found))
            return
        self._taken += len(found)
        for span in found:
            self._processor.on_end(span)

    def _readable(self, trace: Trace, span: Span, wall_ns: Callable[[float], int]) -> ReadableSpan:
        return ReadableSpan(
            span.name,
            context=_context(trace.trace_id, span.span_id),
            parent=_context(trace.trace_id, span.parent_id) if span.parent_id else None,
            resource=self._resource,
            attributes=span.attributes,
            kind=_KINDS[span.kind],
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=wall_ns(span.begun),
            end_time=wall_ns(span.ended or span.begun),
        )

    async def close(self) -> None:
        """Export what is in the queue, as far as the collector takes it in time."""
        closing = threading.Thread(target=self._processor.shutdown, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, _CLOSE_S)


def _context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
