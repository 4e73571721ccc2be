"""A route whose searches often end by timeout is warned of, once, with what its models take."""

from proxy.bounds import WATCHED_SEARCHES
from proxy.context import Clock, Ended, RequestRecord, SearchRecord
from proxy.errors import Failure
from proxy.outcomes import Bypass, Outcome, answered, bypassed
from proxy.telemetry.log import Telemetry
from proxy.telemetry.slow_routes import SEARCHES_TO_JUDGE, SlowRoutes
from tests.conftest import Log

IN_TIME = Outcome("reranked")
LATE = answered([Failure("rerank", "timeout")])
SKIPPED = answered([Failure("rerank", "slow_model")])
REFUSED = answered([Failure("rerank", "refused")])


def note(routes: SlowRoutes, count: int, outcome: Outcome, rerank_ms: float = 100.0, route: str = "products") -> None:
    for _ in range(count):
        routes.note(SearchRecord("", route=route, clock=Clock({"lexical": 9.0, "rerank": rerank_ms})), outcome)


def test_a_slow_route_is_reported_once_with_the_latency_of_its_models(log: Log) -> None:
    routes = SlowRoutes()
    note(routes, 80, IN_TIME, 100.0)
    note(routes, 20, LATE, 1480.0)
    assert [] == log
    note(routes, 30, LATE, 1480.0)
    (line,) = log
    assert ("slow_models", "warning", "products", 0.21) == (
        line["event"],
        line["log_level"],
        line["route"],
        line["timeouts"],
    )
    assert {"rerank": {"p50": 100.0, "p95": 1480.0}} == line["model_ms"]


def test_searches_that_skip_a_slow_model_count_as_late_without_a_latency(log: Log) -> None:
    routes = SlowRoutes()
    note(routes, SEARCHES_TO_JUDGE - 10, IN_TIME, 100.0)
    note(routes, 11, SKIPPED, 0.01)
    (line,) = log
    assert {"rerank": {"p50": 100.0, "p95": 100.0}} == line["model_ms"]


def test_few_searches_cause_no_warning(log: Log) -> None:
    note(SlowRoutes(), SEARCHES_TO_JUDGE - 1, LATE)
    assert [] == log


def test_other_failures_and_bypassed_searches_do_not_count(log: Log) -> None:
    routes = SlowRoutes()
    note(routes, 300, REFUSED)
    note(routes, 300, bypassed(Bypass("sort")))
    assert [] == log


def test_each_route_is_judged_by_its_own_searches(log: Log) -> None:
    routes = SlowRoutes()
    note(routes, 300, IN_TIME)
    note(routes, 60, LATE, route="help")
    assert ["help"] == [line["route"] for line in log]


def test_the_next_warning_needs_a_recovery_first(log: Log) -> None:
    routes = SlowRoutes()
    note(routes, WATCHED_SEARCHES, LATE)
    note(routes, WATCHED_SEARCHES // 2, IN_TIME)
    note(routes, WATCHED_SEARCHES, LATE)
    assert 1 == len(log)
    note(routes, WATCHED_SEARCHES, IN_TIME)
    note(routes, WATCHED_SEARCHES, LATE)
    assert 2 == len(log)


def test_every_concluded_search_is_noted(log: Log) -> None:
    telemetry = Telemetry()
    for _ in range(SEARCHES_TO_JUDGE):
        record = RequestRecord("")
        search = record.search()
        search.route, search.outcome = "products", LATE
        telemetry.conclude(record, Ended.ANSWERED)
    assert ["slow_models"] == [line["event"] for line in log if line["event"] != "search"]
