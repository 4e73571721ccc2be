"""The spans of a request (W3C Trace Context, OpenTelemetry), collected as values and exported when it has ended.

Nothing is collected unless the settings name a collector, and the client's own request passes unchanged in any case.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from random import getrandbits, random

from proxy.bounds import TRACE_SPANS

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
"""W3C Trace Context, section 3.2: version, trace id, parent id, flags."""
_SAMPLED = 0x01
TRACEPARENT = "traceparent"
Attributes = dict[str, str | int | float | bool]


class SpanKind(StrEnum):
    """Which side of a call a span describes."""

    SERVER = "server"
    CLIENT = "client"
    INTERNAL = "internal"


@dataclass(slots=True)
class Span:
    """One operation; times as from `time.perf_counter`."""

    name: str
    parent_id: str
    kind: SpanKind = SpanKind.INTERNAL
    span_id: str = field(default_factory=lambda: f"{getrandbits(64) or 1:016x}")
    begun: float = field(default_factory=time.perf_counter)
    ended: float | None = None
    """None while it is running."""
    attributes: Attributes = field(default_factory=dict)
    error: str = ""
    """Why it failed; empty if it did not."""


@dataclass(slots=True)
class Trace:
    """The spans of one request: its own, and those of what was done for it."""

    trace_id: str
    root: Span
    is_sampled: bool
    """Whether its spans are exported; the context is passed on in any case."""
    spans: list[Span] = field(default_factory=list)

    def add(self, span: Span) -> Span:
        """Add a span, unless there are too many."""
        if self.is_sampled and len(self.spans) < TRACE_SPANS:
            self.spans.append(span)
        return span

    def context_of(self, span: Span) -> str:
        """Return the `traceparent` of a request that this span makes."""
        return f"00-{self.trace_id}-{span.span_id}-{_SAMPLED if self.is_sampled else 0:02x}"

    def carried_on(self, fields: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """Replace the client's `traceparent` in the headers of a search that the proxy sends."""
        kept = (pair for pair in fields if pair[0].lower() != TRACEPARENT)
        return (*kept, (TRACEPARENT, self.context_of(self.root)))


def trace_id_of(traceparent: str) -> str:
    """Return the trace id of a `traceparent` header; empty if it has none."""
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    return found[1] if found else ""


def begin_trace(name: str, traceparent: str, share: float) -> Trace:
    """Continue the client's trace, which decides whether it is sampled, or begin one; a share of these is sampled."""
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None:
        root = Span(name, "", SpanKind.SERVER)
        return Trace(f"{getrandbits(128) or 1:032x}", root, is_sampled=random() < share)  # noqa: S311  no secret
    return Trace(found[1], Span(name, found[2], SpanKind.SERVER), is_sampled=bool(int(found[3], 16) & _SAMPLED))


current_trace: ContextVar[Trace | None] = ContextVar("current_trace", default=None)
"""The trace of the request that this task works for; None without tracing."""


@contextmanager
def client_span(name: str, attributes: Attributes) -> Iterator[Mapping[str, str]]:
    """Record a call of another service; yields the headers that continue the trace, none without tracing."""
    trace = current_trace.get()
    if trace is None:
        yield {}
        return
    span = trace.add(Span(name, trace.root.span_id, SpanKind.CLIENT, attributes=attributes))
    try:
        yield {TRACEPARENT: trace.context_of(span)}
    except BaseException as error:
        span.error = getattr(error, "reason", "") or type(error).__name__
        raise
    finally:
        span.ended = time.perf_counter()
