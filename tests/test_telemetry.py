"""How a search ended, in the words of header and log; nothing comes back from there."""

import json
import re

import pytest
import structlog

from proxy.bypass import BYPASS_REASONS
from proxy.config import Log as Settings
from proxy.config import LogFormat
from proxy.errors import Failure
from proxy.telemetry import OUTCOMES_MAX, SearchLine, Told, bypassed, configure, ended, fields_of, in_order, log_search
from tests.conftest import Log

TOKEN = r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*"
UNFIT = Failure("semantic", "own_scores", by_design=True)
ITEM = re.compile(rf'{TOKEN}(;[a-z][a-z0-9_.*-]*=({TOKEN}|"[^"\\]*"))*')
"""An item of RFC 9651 that is a token, its parameters tokens or strings."""


@pytest.mark.parametrize(
    ("failures", "header"),
    [
        ([], b"reranked"),
        ([Failure("rerank", "timeout")], b'degraded;stages="rerank";reason=timeout'),
        (
            [Failure("semantic", "refused"), Failure("rerank", "timeout")],
            b'degraded;stages="semantic rerank";reason=refused',
        ),
        ([UNFIT], b'reranked;stages="semantic";reason=own_scores'),
        ([UNFIT, Failure("rerank", "timeout")], b'degraded;stages="rerank semantic";reason=timeout'),
    ],
)
def test_an_ending_names_the_stages_left_out_and_the_first_reason(failures: list[Failure], header: bytes) -> None:
    assert header == ended(failures).header


@pytest.mark.parametrize("reason", BYPASS_REASONS)
def test_every_reason_is_an_item_that_a_parser_takes(reason: str) -> None:
    header = bypassed(reason).header.decode()
    assert (f"bypassed;reason={reason}", True) == (header, ITEM.fullmatch(header) is not None)


def test_an_ending_in_two_stages_is_an_item_that_a_parser_takes() -> None:
    header = ended([Failure("semantic", "timeout"), Failure("rerank", "timeout")]).header.decode()
    assert ITEM.fullmatch(header)


@pytest.mark.parametrize(
    ("count", "end"), [(1, b"reranked"), (200, b"reranked"), (201, b", more;items=3"), (10**6, b"")]
)
def test_a_list_of_outcomes_is_no_longer_than_a_head_can_hold(count: int, end: bytes) -> None:
    listed = in_order([b"reranked"] * count)
    *shown, last = listed.split(b", ")
    more = int(last.partition(b"more;items=")[2] or 1)
    assert (count, True, True) == (len(shown) + more, len(listed) <= OUTCOMES_MAX, listed.endswith(end))
    assert {b"reranked"} >= set(shown)


def test_stage_times_are_milliseconds_in_server_timing() -> None:
    found = fields_of(Told("reranked"), {"lexical": 1.26, "total": 12.0})
    assert ((b"X-Rerank", b"reranked"), (b"Server-Timing", b"lexical;dur=1.3, total;dur=12.0")) == found
    assert ((b"X-Rerank", b"reranked"),) == fields_of(Told("reranked"), {})


@pytest.mark.parametrize(
    ("told", "level"),
    [
        (Told("reranked"), "info"),
        (bypassed("sort"), "info"),
        (bypassed("internal_error"), "warning"),
        (ended([Failure("rerank", "timeout", "reranker: no answer in 3 s")]), "warning"),
    ],
)
def test_a_degraded_mode_is_never_silent(log: Log, told: Told, level: str) -> None:
    log_search(SearchLine("1", "products", told, {"total": 1.0}))
    assert [("search", level)] == [(line["event"], line["log_level"]) for line in log]


def test_the_line_has_what_happened_and_leaves_out_what_did_not(log: Log) -> None:
    log_search(SearchLine("1", "products", Told("reranked"), {"total": 1.26}, window=50, candidates=7))
    assert [
        {
            "event": "search",
            "log_level": "info",
            "id": "1",
            "route": "products",
            "outcome": "reranked",
            "ms": {"total": 1.3},
            "window": 50,
            "candidates": 7,
        }
    ] == log


def test_the_log_is_one_line_of_json_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    try:
        configure(Settings(level="warning"))
        log_search(SearchLine("1", "r", Told("reranked"), {}))
        log_search(SearchLine("2\n3", "r", bypassed("internal_error"), {}))
    finally:
        structlog.configure(**before)
    (line,) = capsys.readouterr().err.splitlines()
    assert ("2\n3", "warning", "bypassed") == tuple(json.loads(line)[key] for key in ("id", "level", "outcome"))


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_defect_is_logged_without_what_variables_held(form: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    try:
        configure(Settings(format=form))
        _fail_with("ApiKey " + "mine")
    finally:
        structlog.configure(**before)
    said = capsys.readouterr().err
    assert (True, False) == ("ZeroDivisionError" in said, "ApiKey mine" in said)


def _fail_with(credentials: str) -> None:
    try:
        1 / (len(credentials) - len(credentials))
    except ZeroDivisionError:
        structlog.get_logger("proxy").exception("internal_error")
