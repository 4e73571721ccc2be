"""The record of a request: its id, the time of its stages, and what was sent of it."""

import pytest

from proxy.app import record_of
from proxy.bounds import LOG_ID
from proxy.context import Clock, RequestRecord
from proxy.http1.callers import Field


@pytest.mark.parametrize(
    ("fields", "request_id"),
    [
        ([], ""),
        ([(b"X-Opaque-Id", b"mine")], "mine"),
        ([(b"x-opaque-id", b"a"), (b"X-OPAQUE-ID", b"b")], "a, b"),
        ([(b"X-Opaque-Id", b"\xff")], "\ufffd"),
    ],
)
def test_searches_have_the_opaque_id_of_their_request(fields: list[Field], request_id: str) -> None:
    record = record_of(fields)
    assert (request_id, request_id) == (record.request_id, record.search().request_id)


def test_a_long_opaque_id_is_cut_to_what_the_log_shows() -> None:
    """Each item of an `_msearch` reads it again."""
    assert "x" * 4 * LOG_ID == record_of([(b"x-opaque-id", b"x" * 2**18)]).request_id


def test_stage_times_add_up_even_if_a_stage_fails() -> None:
    clock = Clock({"embed": 1000.0})
    with clock.stage("embed"):
        pass
    with pytest.raises(ValueError, match="no"), clock.stage("rerank"):
        raise ValueError("no")
    assert (["embed", "rerank"], True) == (list(clock.stages), clock.stages["embed"] >= 1000.0)


def test_timings_end_with_the_total() -> None:
    search = RequestRecord("").search()
    search.clock.stages["lexical"] = 1.0
    assert ["lexical", "total"] == list(search.timings())


def test_a_sent_search_counts_for_its_request_but_not_for_other_searches() -> None:
    record = RequestRecord("")
    one, other = record.search(), record.search()
    one.sent.note()
    assert (True, False, True) == (one.sent.by_now, other.sent.by_now, record.sent.by_now)


def test_a_search_concerns_a_route_by_its_name_or_by_its_outcome() -> None:
    record = RequestRecord("")
    search = record.search()
    assert not search.concerns_route
    search.route = "products"
    assert search.concerns_route
