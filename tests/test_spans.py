"""A request's record says what its spans say, also if it ended early."""

import pytest

from proxy.context import Access, Ended, RequestRecord
from proxy.context.tracing import Span, begin_trace
from proxy.outcomes import Bypass, Outcome, bypassed
from proxy.telemetry.spans import spans_of


def spans(record: RequestRecord, ended: Ended = Ended.ANSWERED, *, query_text: bool = False) -> list[Span]:
    trace = begin_trace("POST", "", 1.0)
    trace.add(Span("reranker", trace.root.span_id, begun=1.0))
    return list(spans_of(record, trace, ended, 9.0, query_text=query_text))


def searched(outcome: Outcome | None) -> RequestRecord:
    record = RequestRecord("", access=Access("POST", "/a/_search?q=secret"))
    search = record.search()
    search.route, search.query_text, search.outcome = "a", "secret", outcome
    search.clock.spans += [("lexical", 2.0, 3.0), ("lexical", 4.0, 5.0)]
    return record


def test_each_stage_is_a_span_of_its_search() -> None:
    root, search, *stages, call = spans(searched(Outcome("reranked")))
    assert (root.span_id, {search.span_id}) == (search.parent_id, {stage.parent_id for stage in stages})
    assert [("lexical", 2.0, 3.0), ("lexical", 4.0, 5.0)] == [(span.name, span.begun, span.ended) for span in stages]
    assert (root.span_id, 9.0) == (call.parent_id, call.ended), "a call that still runs ends with the request"


@pytest.mark.parametrize("query_text", [False, True])
def test_query_text_is_in_a_span_only_if_it_may_be_logged(*, query_text: bool) -> None:
    written = str(spans(searched(None), query_text=query_text))
    assert query_text == ("secret" in written)


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (None, "unfinished"),
        (bypassed(Bypass("zero_hits")), ""),
        (bypassed(Bypass("engine_refused", is_fault=True)), "engine_refused"),
    ],
)
def test_a_failure_is_the_error_of_its_search(outcome: Outcome | None, error: str) -> None:
    assert error == spans(searched(outcome))[1].error


def test_a_search_without_a_route_has_only_the_request_span() -> None:
    record = RequestRecord("")
    record.search()
    assert ["POST", "reranker"] == [span.name for span in spans(record)]


@pytest.mark.parametrize(
    ("ended", "error"),
    [
        (Ended.ANSWERED, ""),
        (Ended.CLIENT_LEFT, ""),
        (Ended.BROKEN_OFF, "broken_off"),
        (Ended.REFUSED, "refused"),
    ],
)
def test_an_aborted_request_is_an_error(ended: Ended, error: str) -> None:
    assert error == spans(RequestRecord(""), ended)[0].error
