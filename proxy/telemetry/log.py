"""The end of a request: response headers, one counter, and a log line for each search of a route."""

import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, MutableMapping
from functools import partial
from typing import Any, Protocol
from uuid import uuid4

import structlog

from proxy.bounds import LOG_ID, LOG_TRACEBACK, LOG_VALUE, MODELS_GUARDED
from proxy.context import Access, Ended, RequestRecord, SearchRecord, Shadow
from proxy.context.tracing import Span, Trace
from proxy.outcomes import Outcome
from proxy.settings.config import Log
from proxy.telemetry.ecs import to_ecs
from proxy.telemetry.log_writer import LogWriter
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.slow_routes import SlowRoutes
from proxy.telemetry.spans import spans_of

Field = tuple[bytes, bytes]

_EXCEPTION = "exception"
_log = structlog.get_logger("proxy")


def outcome_fields(outcome: Outcome, record: SearchRecord) -> tuple[Field, ...]:
    """Return the response headers: the outcome, each stage's milliseconds as Server-Timing (W3C), and the cost."""
    timing = ", ".join(f"{name};dur={milliseconds:.1f}" for name, milliseconds in record.timings().items())
    cost = ((b"X-Rerank-Cost", f"{record.cost_usd:.9f}".encode()),) if record.shows_cost else ()
    return ((b"X-Rerank", outcome.header), (b"Server-Timing", timing.encode()), *cost)


class ExportsTraces(Protocol):
    """Takes the spans of requests that have ended, without waiting."""

    share: float
    """Of the requests without a client's trace, from 0 to 1."""

    def export(self, trace: Trace, spans: Iterable[Span]) -> None: ...


class Telemetry:
    """Concludes every request, once."""

    def __init__(self, *, query_text: bool = False, metrics: Metrics | None = None) -> None:
        self.metrics = metrics or Metrics()
        self.counters = self.metrics.counters
        self.query_text = query_text
        self.traces: ExportsTraces | None = None
        self._slow_routes = SlowRoutes()
        self._models: set[tuple[str, str]] = set()

    def count_model_call(self, service: str, model: str, result: str) -> None:
        """Count a call; model names come from indices, so that those beyond a limit are counted together."""
        known = (service, model) in self._models
        if not known and len(self._models) < MODELS_GUARDED:
            self._models.add((service, model))
            known = True
        self.counters.model_calls[service, model if known else "other", result] += 1

    def conclude(self, record: RequestRecord | None, ended: Ended) -> None:
        """Count a request, and log each of its searches that concerns a route; None: a pass-through request."""
        searches = [search for search in record.searches if search.concerns_route] if record else ()
        self.counters.requests["search" if searches else "pass_through", ended] += 1
        for search in searches:
            outcome = search.outcome or _UNFINISHED[ended]
            self.counters.searches[search.route, outcome.name, outcome.reason] += 1
            search.ended = time.perf_counter()
            if not search.is_background:
                self._slow_routes.note(search, outcome)
            write = partial(self._report, search, outcome)
            if search.after_response is not None and ended is Ended.ANSWERED:
                search.after_response(write)
            else:
                write()
        if record is None:
            return
        if record.access is not None and record.access.is_logged and not searches:
            log_access(record, record.access, ended, query_text=self.query_text)
        if self.traces is not None and record.trace is not None and record.trace.is_sampled:
            now = time.perf_counter()
            spans = spans_of(record, record.trace, ended, now, query_text=self.query_text)
            self.traces.export(record.trace, spans)

    def _report(self, search: SearchRecord, outcome: Outcome) -> None:
        """Count and log a search; in shadow mode after its shadow run, which also consumes tokens."""
        self.metrics.observe(search)
        log_search(search, outcome, query_text=self.query_text)


_CANCELLED = Outcome("cancelled", reason="client_left")
_FAILED = Outcome("failed", reason="internal_error", is_fault=True)
_UNFINISHED: Mapping[Ended, Outcome] = {
    Ended.ANSWERED: _FAILED,
    Ended.CLIENT_LEFT: _CANCELLED,
    Ended.BROKEN_OFF: _FAILED,
    Ended.REFUSED: _FAILED,
}
"""The outcome of a search that had none when its request ended."""


def log_search(search: SearchRecord, outcome: Outcome, *, query_text: bool) -> None:
    """Write the log line of a search: a warning if a stage or the engine failed, so that no fault is silent."""
    write = _log.warning if outcome.name == "degraded" or outcome.is_fault else _log.info
    optional = {
        "reason": outcome.reason,
        "key": outcome.key,
        "detail": outcome.detail,
        "query": search.query_text if query_text else "",
        "trace": search.trace_id,
        "tier": search.tier,
        "engine_searches": search.sent.engine_searches,
        "passages_sent": search.reuse.sent,
        "passages_cached": search.reuse.cached,
        "tokens_saved": search.reuse.saved_tokens,
        "tokens": search.tokens,
        "cost_usd": round(search.cost_usd, 9),
        "estimated_usd": round(search.estimated_usd, 9),
        "without_text": search.usage.without_text,
        "background": search.is_background,
    }
    write(
        "search",
        id=(search.request_id or uuid4().hex)[:LOG_ID],
        route=search.route,
        outcome=outcome.name,
        **({"stages": list(outcome.stages)} if outcome.stages else {}),
        **{key: value for key, value in optional.items() if value},
        ms={name: round(milliseconds, 1) for name, milliseconds in search.timings().items()},
        window=search.window,
        candidates=search.candidates,
        **({"shadow": _shadow_fields(search.shadow)} if search.shadow else {}),
    )


def _shadow_fields(shadow: Shadow) -> Mapping[str, Any]:
    """Return the fields of the shadow run: what reranking would have changed."""
    outcome = shadow.outcome
    optional = {"reason": outcome.reason, "detail": outcome.detail, "stages": list(outcome.stages)}
    measures = {name: round(value, 3) for name, value in shadow.change.items() if value is not None}
    ms = {name: round(milliseconds, 1) for name, milliseconds in shadow.stages.items()}
    said = {"outcome": outcome.name, **{name: value for name, value in optional.items() if value}, **measures}
    return {**said, "ms": ms} if ms else said


def log_access(record: RequestRecord, access: Access, ended: Ended, *, query_text: bool) -> None:
    """Write the access line of a pass-through request; its query string is logged only if query texts may be."""
    path, _, query = access.target.partition("?")
    optional = {"query_string": query if query_text else "", "trace": record.trace_id, "status": access.status}
    _log.info(
        "access",
        id=record.request_id[:LOG_ID],
        method=access.method,
        path=path,
        ended=ended,
        **{key: value for key, value in optional.items() if value},
        ms={"total": round((time.perf_counter() - access.started) * 1000, 1)},
    )


def warn_of_new_callers(header: str) -> None:
    """Warn that a header differs in nearly every request, so that nothing can be cached between requests."""
    _log.warning(
        "new_callers",
        header=header[:100],
        detail="nearly every request looks like a new caller because of this header, so nothing is cached between "
        "requests: add it to `callers.ignore` unless the engine knows users by it",
    )


def configure(settings: Log, descriptor: int | None = None) -> LogWriter | None:
    """Configure logging for the process: one line per event on standard error, or nothing if there is none.

    In a process started without standard error, its file descriptor may belong to something else by now.
    """
    stream = sys.__stderr__
    if descriptor is None and stream is not None:
        descriptor = stream.fileno()
    writer = None if descriptor is None else LogWriter(descriptor, _tell_dropped)
    in_json = settings.format == "json"
    colors = descriptor is not None and os.isatty(descriptor)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _shortened,
            *([to_ecs] if in_json else [_visible]),
            structlog.processors.JSONRenderer() if in_json else structlog.dev.ConsoleRenderer(colors=colors),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.level.upper())),
        logger_factory=lambda *_: _Lines(writer),
        cache_logger_on_first_use=False,
    )
    _take_over_standard_logging()
    return writer


class _Libraries(logging.Handler):
    """Turns the log records of libraries, such as asyncio's errors, into events; writing them must not block."""

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        _log.log(record.levelno, "library", library=record.name, detail=record.getMessage(), exc_info=cause)


def _take_over_standard_logging() -> None:
    """Redirect everything that would be written to standard error to the log writer's thread."""
    logging.basicConfig(handlers=[_Libraries()], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    sys.unraisablehook = lambda raised: _log.error("internal_error", exc_info=raised.exc_value)


def _tell_dropped(lines: int) -> None:
    _log.warning("log_lines_dropped", lines=lines)


class _Lines:
    """The logger that structlog passes each line to."""

    def __init__(self, writer: LogWriter | None) -> None:
        self._writer = writer

    def msg(self, message: str) -> None:
        if self._writer is not None:
            self._writer.write(message)

    debug = info = warning = error = critical = exception = msg


def _shortened(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Truncate long values, most of which come from clients."""
    for key, value in event.items():
        most = LOG_TRACEBACK if key == _EXCEPTION else LOG_VALUE
        if isinstance(value, str) and len(value) > most:
            event[key] = f"{value[:most]}... ({len(value)} characters)"
    return event


# Control characters for terminals, line separators, and characters that change the text direction.
_ACTING = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_ACTING_IN_LINES = re.compile(_ACTING.pattern.replace("\0-\x1f", "\0-\x08\x0b-\x1f"))


def _visible(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control characters, which clients may send."""
    for key, value in event.items():
        acting = _ACTING_IN_LINES if key == _EXCEPTION else _ACTING
        if isinstance(value, str):
            event[key] = acting.sub(lambda found: found[0].encode("unicode_escape").decode(), value)
    return event
