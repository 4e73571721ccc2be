"""A request's trace continues its client's, and nothing is collected without one."""

import re

import pytest

from proxy.bounds import TRACE_SPANS
from proxy.context.tracing import Span, begin_trace, client_span, current_trace, trace_id_of

ID, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("03", True)])
def test_the_client_s_trace_is_continued_and_decides_whether_it_is_sampled(flags: str, *, sampled: bool) -> None:
    trace = begin_trace("POST", f"00-{ID}-{PARENT}-{flags}", 0.0 if sampled else 1.0)
    assert (ID, PARENT, sampled) == (trace.trace_id, trace.root.parent_id, trace.is_sampled)
    assert f"00-{ID}-{trace.root.span_id}-0{int(sampled)}" == trace.context_of(trace.root)


@pytest.mark.parametrize(
    "traceparent",
    ["", "00", f"00-{ID}-{PARENT}", f"ff-{ID}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", f"00-{ID}-{'0' * 16}-01"],
)
def test_without_a_valid_traceparent_a_trace_begins(traceparent: str) -> None:
    trace = begin_trace("POST", traceparent, 1.0)
    assert ("", True, False) == (trace.root.parent_id, trace.is_sampled, trace.trace_id == ID)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", trace.context_of(trace.root))
    assert "" == trace_id_of(traceparent)
    assert not begin_trace("POST", traceparent, 0.0).is_sampled


def test_a_later_version_of_the_header_is_read_as_far_as_it_is_known() -> None:
    assert ID == trace_id_of(f"cc-{ID}-{PARENT}-01-what-the-future-holds")


def test_the_engine_s_searches_carry_the_request_s_own_span() -> None:
    trace = begin_trace("POST", f"00-{ID}-{PARENT}-01", 1.0)
    fields = (("Traceparent", f"00-{ID}-{PARENT}-01"), ("tracestate", "a=1"))
    assert (("tracestate", "a=1"), ("traceparent", trace.context_of(trace.root))) == trace.carried_on(fields)


def test_without_tracing_a_call_has_no_header_and_no_span() -> None:
    with client_span("reranker", {}) as headers:
        assert {} == headers


def test_the_span_of_a_failed_call_has_the_reason() -> None:
    trace = begin_trace("POST", "", 1.0)
    token = current_trace.set(trace)
    try:
        with pytest.raises(TimeoutError), client_span("reranker", {"rerank.model": "m"}):
            raise TimeoutError
    finally:
        current_trace.reset(token)
    (span,) = trace.spans
    assert ("reranker", "TimeoutError", trace.root.span_id) == (span.name, span.error, span.parent_id)
    assert span.ended


def test_spans_per_trace_are_bounded() -> None:
    trace = begin_trace("POST", "", 1.0)
    for _ in range(TRACE_SPANS + 5):
        trace.add(Span("embedder", trace.root.span_id))
    assert TRACE_SPANS == len(trace.spans)
