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
def test_a_request_bears_the_clients_own_id_and_so_do_its_searches(fields: list[Field], request_id: str) -> None:
    record = record_of(fields)
    assert (request_id, request_id) == (record.request_id, record.search().request_id)


def test_no_more_of_a_long_id_is_read_than_the_log_shows() -> None:
    """Each item of an `_msearch` reads it anew."""
    assert "x" * 4 * LOG_ID == record_of([(b"x-opaque-id", b"x" * 2**18)]).request_id


async def test_a_stages_time_is_added_up_also_where_it_fails() -> None:
    clock = Clock({"embed": 1000.0})
    async with clock.stage("embed"):
        pass
    with pytest.raises(ValueError, match="no"):
        async with clock.stage("rerank"):
            raise ValueError("no")
    assert (["embed", "rerank"], True) == (list(clock.stages), clock.stages["embed"] >= 1000.0)


def test_timings_end_with_all_of_it() -> None:
    search = RequestRecord("").search()
    search.clock.stages["lexical"] = 1.0
    assert ["lexical", "total"] == list(search.timings())


def test_what_was_sent_of_one_search_counts_for_the_request_and_for_no_other_search() -> None:
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
