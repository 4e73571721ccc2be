"""A search's one line in the log, and its response headers that say the same."""

import pytest

from proxy.bounds import LOG_ID
from proxy.errors import Failure
from proxy.http1.callers import Field
from proxy.journey import Journey
from proxy.telemetry import bypassed, ended
from tests.conftest import Log
from tests.plans import plan_of

PLAN = plan_of("", {"query": {"match": {"title": "laptop"}}}, window=7)


@pytest.mark.parametrize(
    ("fields", "opaque_id"),
    [
        ([], ""),
        ([(b"X-Opaque-Id", b"mine")], "mine"),
        ([(b"x-opaque-id", b"a"), (b"X-OPAQUE-ID", b"b")], "a, b"),
        ([(b"X-Opaque-Id", b"\xff")], "\ufffd"),
    ],
)
def test_a_search_bears_the_clients_own_id(fields: list[Field], opaque_id: str) -> None:
    assert opaque_id == Journey.of(fields).opaque_id


def test_no_more_of_a_long_id_is_read_than_the_log_shows() -> None:
    """Each item of an `_msearch` reads it anew."""
    assert "x" * 4 * LOG_ID == Journey.of([(b"x-opaque-id", b"x" * 2**18)]).opaque_id


def test_a_search_without_one_is_given_an_id(log: Log) -> None:
    for _ in range(2):
        Journey.of([]).conclude(bypassed("sort"), query_text=False)
    first, second = (line["id"] for line in log)
    assert (32, True) == (len(first), first != second)


@pytest.mark.parametrize(("query_text", "words"), [(True, "laptop"), (False, None)])
def test_line_and_headers_say_how_it_ended(log: Log, query_text: bool, words: str | None) -> None:  # noqa: FBT001
    journey = Journey.of([(b"X-Opaque-Id", b"mine")])
    journey.route, journey.plan, journey.candidates = PLAN.route, PLAN, 3
    told = ended([Failure("rerank", "timeout")])
    fields = dict(journey.conclude(told, query_text=query_text))
    (line,) = log
    assert ("mine", "products", "degraded", ["rerank"], "timeout", 7, 3, words) == (
        line["id"],
        line["route"],
        line["outcome"],
        line["stages"],
        line["reason"],
        line["window"],
        line["candidates"],
        line.get("query"),
    )
    assert b'degraded;stages="rerank";reason=timeout' == fields[b"X-Rerank"]
    assert (True, ["total"]) == (fields[b"Server-Timing"].startswith(b"total;dur="), list(line["ms"]))


def test_what_was_not_planned_has_no_window_and_no_words(log: Log) -> None:
    Journey.of([]).conclude(bypassed("unresolved"), query_text=True)
    (line,) = log
    assert ("", 0, 0, False) == (line["route"], line["window"], line["candidates"], "query" in line)
