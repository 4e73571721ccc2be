"""Makes spans from the record of a request: the request, its searches, their stages, and the model calls."""

from collections.abc import Iterator

from proxy.context import Ended, RequestRecord, SearchRecord
from proxy.context.tracing import Attributes, Span, Trace

_FAILED = frozenset({Ended.BROKEN_OFF, Ended.REFUSED})


def spans_of(record: RequestRecord, trace: Trace, ended: Ended, now: float, *, query_text: bool) -> Iterator[Span]:
    """Yield the spans of a request that has ended; the text of a query is among them only if it may be logged."""
    root = trace.root
    root.ended, root.error = now, str(ended) if ended in _FAILED else ""
    root.attributes |= {"rerank.ended": str(ended)}
    if record.access is not None:
        path, _, query = record.access.target.partition("?")
        root.attributes |= {"http.request.method": record.access.method, "url.path": path}
        root.attributes |= {"url.query": query} if query and query_text else {}
        root.attributes |= {"http.response.status_code": record.access.status} if record.access.status else {}
    yield root
    for search in record.searches:
        if search.concerns_route:
            yield from _of_search(search, root, now, query_text=query_text)
    for span in trace.spans:
        span.ended = span.ended or now
        yield span


def _of_search(search: SearchRecord, root: Span, now: float, *, query_text: bool) -> Iterator[Span]:
    outcome = search.outcome
    attributes: Attributes = {"rerank.route": search.route, "rerank.window": search.window}
    attributes |= {"rerank.candidates": search.candidates, "rerank.engine_searches": search.sent.engine_searches}
    attributes |= {"rerank.tokens": search.tokens, "rerank.cost_usd": search.cost_usd} if search.tokens else {}
    attributes |= {"rerank.query": search.query_text} if query_text and search.query_text else {}
    if outcome is not None:
        attributes |= {"rerank.outcome": outcome.name}
        optional = {"rerank.reason": outcome.reason, "rerank.stages": " ".join(outcome.stages)}
        attributes |= {name: value for name, value in optional.items() if value}
    own = Span("search", root.span_id, begun=search.started, ended=search.ended or now, attributes=attributes)
    own.error = "unfinished" if outcome is None else outcome.reason if outcome.is_fault else ""
    yield own
    for name, begun, ended in search.clock.spans:
        yield Span(name, own.span_id, begun=begun, ended=ended)
