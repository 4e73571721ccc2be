"""How a search ended, in the words of header and log; nothing comes back from there."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from proxy.bounds import LOG_DETAIL, LOG_ID, LOG_VALUE, OUTCOME_KEY, OUTCOME_LIST_BYTES
from proxy.context import Charge, Clock, Ended, RequestRecord, SearchRecord, Usage
from proxy.errors import Failure
from proxy.outcomes import BYPASS_REASONS, Bypass, Outcome, answered, bypassed, in_order
from proxy.settings.config import Log as Settings
from proxy.settings.config import LogFormat
from proxy.telemetry.log import Telemetry, configure, log_search, outcome_fields
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
def test_an_outcome_names_the_failed_stages_and_the_first_reason(failures: list[Failure], header: bytes) -> None:
    assert header == answered(failures).header


@pytest.mark.parametrize("reason", BYPASS_REASONS)
def test_every_reason_is_a_valid_structured_field(reason: str) -> None:
    header = bypassed(Bypass(reason)).header.decode()
    assert (f"bypassed;reason={reason}", True) == (header, ITEM.fullmatch(header) is not None)


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("siez", b"siez"),
        ("_source.x-y", b"_source.x-y"),
        ('a"b\\c', b"a?b?c"),
        ("\x1b[31mé\r\n", b"?[31m???"),
        ("k" * 1000, b"k" * OUTCOME_KEY),
    ],
)
def test_a_bypass_names_the_key_that_caused_it(log: Log, key: str, shown: bytes) -> None:
    """Whatever the client wrote, the header stays a valid structured field of limited length."""
    told = bypassed(Bypass("unknown_key", key, "[x]" * 1000))
    assert b'bypassed;reason=unknown_key;key="' + shown + b'"' == told.header
    assert ITEM.fullmatch(told.header.decode())
    log_search(SearchRecord("1"), told, query_text=False)
    assert (shown.decode(), LOG_DETAIL, "info") == (log[0]["key"], len(log[0]["detail"]), log[0]["log_level"])


def test_an_outcome_with_two_stages_is_a_valid_structured_field() -> None:
    header = answered([Failure("semantic", "timeout"), Failure("rerank", "timeout")]).header.decode()
    assert ITEM.fullmatch(header)


@pytest.mark.parametrize(
    ("count", "end"), [(1, b"reranked"), (200, b"reranked"), (201, b", more;items=3"), (10**6, b"")]
)
def test_a_list_of_outcomes_is_bounded(count: int, end: bytes) -> None:
    listed = in_order([b"reranked"] * count)
    *shown, last = listed.split(b", ")
    more = int(last.partition(b"more;items=")[2] or 1)
    assert (count, True, True) == (len(shown) + more, len(listed) <= OUTCOME_LIST_BYTES, listed.endswith(end))
    assert {b"reranked"} >= set(shown)


def test_stage_times_are_milliseconds_in_server_timing() -> None:
    record = SearchRecord("", started=0.0, ended=0.012, clock=Clock({"lexical": 1.26}))
    found = outcome_fields(Outcome("reranked"), record)
    assert ((b"X-Rerank", b"reranked"), (b"Server-Timing", b"lexical;dur=1.3, total;dur=12.0")) == found


def test_the_cost_header_needs_permission() -> None:
    record = SearchRecord("", usage=Usage(Charge(cost_usd=0.00012345)))
    assert b"X-Rerank-Cost" not in dict(outcome_fields(Outcome("reranked"), record))
    record.shows_cost = True
    assert b"0.000123450" == dict(outcome_fields(Outcome("reranked"), record))[b"X-Rerank-Cost"]


@pytest.mark.parametrize(
    ("outcome", "level"),
    [
        (Outcome("reranked"), "info"),
        (bypassed(Bypass("sort")), "info"),
        (bypassed(Bypass("internal_error")), "warning"),
        (bypassed(Bypass("unresolved", is_fault=True)), "warning"),
        (answered([Failure("rerank", "timeout", "reranker: no answer in 3 s")]), "warning"),
    ],
)
def test_the_log_level_of_a_search_follows_its_outcome(log: Log, outcome: Outcome, level: str) -> None:
    log_search(SearchRecord("1"), outcome, query_text=False)
    assert [("search", level)] == [(line["event"], line["log_level"]) for line in log]


def test_candidates_without_text_are_counted(log: Log) -> None:
    search = SearchRecord("1", route="products")
    search.usage.without_text = 3
    log_search(search, Outcome("reranked"), query_text=False)
    assert log[0]["without_text"] == 3


def test_a_log_line_omits_what_did_not_happen(log: Log) -> None:
    search = SearchRecord("1", route="products", window=50, candidates=7)
    search.clock.stages["lexical"] = 1.26
    log_search(search, Outcome("reranked"), query_text=False)
    assert log[0]["ms"].pop("total") >= 0
    assert [
        {
            "event": "search",
            "log_level": "info",
            "id": "1",
            "route": "products",
            "outcome": "reranked",
            "ms": {"lexical": 1.3},
            "window": 50,
            "candidates": 7,
        }
    ] == log


def test_a_log_line_has_tokens_and_cost_as_numbers(log: Log) -> None:
    search = SearchRecord("1", route="products")
    search.usage.add(Charge(5))
    search.usage.add(Charge(2310, 0.00005775))
    log_search(search, Outcome("reranked"), query_text=False)
    assert (2315, 0.00005775) == (log[0]["tokens"], log[0]["cost_usd"])


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Set the log up, do something, and return what stands in it."""
    before = structlog.get_config()

    def write(settings: Settings, act: Callable[[], None]) -> str:
        with (tmp_path / "log").open("w+b", buffering=0) as file:
            writer = configure(settings, file.fileno())
            act()
            assert writer is not None
            writer.close(60)
            file.seek(0)
            return file.read().decode()

    yield write
    structlog.configure(**before)


def test_each_event_is_one_line_of_json(written: Callable[..., str]) -> None:
    def act() -> None:
        log_search(SearchRecord("1", route="r"), Outcome("reranked"), query_text=False)
        log_search(SearchRecord("2\n3", route="r"), bypassed(Bypass("internal_error")), query_text=False)

    (line,) = written(Settings(level="warning"), act).splitlines()
    assert ("2\n3", "warning", "bypassed") == tuple(
        json.loads(line)[key] for key in ("http.request.id", "log.level", "outcome")
    )


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_internal_error_is_logged_without_values_of_variables(form: LogFormat, written: Callable[..., str]) -> None:
    said = written(Settings(format=form), lambda: _fail_with("ApiKey " + "mine"))
    assert (True, False) == ("ZeroDivisionError" in said, "ApiKey mine" in said)


def _fail_with(credentials: str) -> None:
    try:
        1 / (len(credentials) - len(credentials))
    except ZeroDivisionError:
        structlog.get_logger("proxy").exception("internal_error")


HOSTILE = "\x1b[2J\x1b]0;title\x07\r\n2026 [info] fake\x7f\x9b31m\u202e\ud800\u2028"


def _log_hostile() -> None:
    search = SearchRecord(HOSTILE, route="r", query_text=HOSTILE)
    log_search(search, Outcome("reranked", detail=HOSTILE), query_text=True)
    nothing: dict[str, int] = {}
    try:
        nothing[HOSTILE] += 1
    except KeyError:
        structlog.get_logger("proxy").exception("internal_error")


def test_control_characters_of_clients_are_escaped(written: Callable[..., str]) -> None:
    """Clients can neither send escape sequences nor forge log lines."""
    search, *traceback = written(Settings(format="console"), _log_hostile).splitlines()
    for line in (search, *traceback):
        assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e]", line)
    assert "\\x1b[2J" in search
    assert "\\x1b[2J" in "".join(traceback)
    assert len(search.split("fake")) == 4


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x07", "\x9b31m", "\u202efake", "\u2028"])
def test_control_characters_are_escaped_in_the_console_format(written: Callable[..., str], hostile: str) -> None:
    """Such values are written without quotes."""

    def act() -> None:
        search = SearchRecord(hostile, route="r", query_text=hostile)
        log_search(search, Outcome("reranked", detail=hostile), query_text=True)
        try:
            _raise(ValueError(hostile))
        except ValueError:
            structlog.get_logger("proxy").exception("internal_error")

    said = written(Settings(format="console"), act)
    assert hostile not in said
    assert 4 <= said.count(hostile.encode("unicode_escape").decode())


def test_json_lines_are_valid_whatever_a_client_sends(written: Callable[..., str]) -> None:
    search, defect = map(json.loads, written(Settings(), _log_hostile).splitlines())
    assert (HOSTILE, HOSTILE) == (search["http.request.id"], search["query"])
    assert "KeyError" in defect["error.stack_trace"]


def test_long_values_are_truncated(written: Callable[..., str]) -> None:
    def act() -> None:
        search = SearchRecord("i" * 2**18, route="r", query_text="q" * 2**20)
        log_search(search, Outcome("reranked"), query_text=True)

    line = json.loads(written(Settings(), act))
    assert (LOG_ID, True) == (len(line["http.request.id"]), line["query"].endswith("qq... (1048576 characters)"))
    assert LOG_VALUE == line["query"].count("q")


def test_without_standard_error_nothing_is_written(tmp_path: Path) -> None:
    """Its descriptor may belong to a client's connection by then: here to a file."""
    program = f"""
import os
taken = os.open({str(tmp_path / "taken")!r}, os.O_WRONLY | os.O_CREAT)
assert taken == 2, taken
import structlog
from proxy.settings.config import Log
from proxy.telemetry.log import configure
assert configure(Log()) is None
structlog.get_logger("proxy").error("defect")
"""
    command = f"exec {shlex.join([sys.executable, '-c', program])} 2>&-"
    subprocess.run(["/bin/sh", "-c", command], check=True, timeout=60)  # noqa: S603
    assert "" == (tmp_path / "taken").read_text()


def test_log_messages_of_libraries_are_formatted_alike(tmp_path: Path) -> None:
    """And in the thread of the writer: a direct write to a full pipe would block all clients."""
    program = """
import json, logging, os, sys, warnings
from proxy.settings.config import Log
from proxy.telemetry.log import configure
reader, writer = os.pipe()
os.dup2(writer, 2)
logged = configure(Log())
for number in range(2000):
    logging.getLogger("asyncio").error("failed %s", "x" * 200, exc_info=ValueError(number))
    warnings.warn("of a library")
class Fails:
    def __del__(self):
        raise ArithmeticError
Fails()
print("went on", flush=True)
line = json.loads(os.fdopen(reader).readline())
assert ("library", "asyncio", "error") == (line["event.action"], line["log.logger"], line["log.level"]), line
assert "ValueError: 0" in line["error.stack_trace"], line
os._exit(0)
"""
    ran = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], check=True, timeout=60, capture_output=True
    )
    assert b"went on\n" == ran.stdout, ran.stderr


def test_every_request_is_counted_once_and_each_search_of_a_route_logged(log: Log) -> None:
    telemetry = Telemetry()
    several, unrouted = RequestRecord("id"), RequestRecord("")
    for outcome in (answered([]), bypassed(Bypass("sort")), None):
        search = several.search()
        search.route, search.outcome = "products", outcome
    several.search()  # an item of no route
    unrouted.search()
    for record, ended in ((None, Ended.ANSWERED), (unrouted, Ended.CLIENT_LEFT), (several, Ended.CLIENT_LEFT)):
        telemetry.conclude(record, ended)
    assert {
        ("pass_through", "answered"): 1,
        ("pass_through", "client_left"): 1,
        ("search", "client_left"): 1,
    } == telemetry.counters.requests
    expected = [("reranked", ""), ("bypassed", "sort"), ("cancelled", "client_left")]
    assert {("products", *each): 1 for each in expected} == telemetry.counters.searches
    assert expected == [(line["outcome"], line.get("reason", "")) for line in log]


@pytest.mark.parametrize("ended", [Ended.ANSWERED, Ended.BROKEN_OFF, Ended.REFUSED])
def test_a_search_without_an_outcome_has_failed(log: Log, ended: Ended) -> None:
    telemetry, record = Telemetry(), RequestRecord("id")
    record.search().route = "products"
    telemetry.conclude(record, ended)
    assert ("failed", "warning") == (log[0]["outcome"], log[0]["log_level"])
