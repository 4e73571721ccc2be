"""The report says in plain words what was measured, and the same as JSON."""

import json
from dataclasses import replace

import msgspec
import pytest

from proxy.commands.evaluation.bootstrap import Interval
from proxy.commands.evaluation.collection import Collection, Query
from proxy.commands.evaluation.comparison import Move, compare
from proxy.commands.evaluation.outcomes import Found, Pair, ReportedOutcome
from proxy.commands.evaluation.report import Demand, Result, in_words, json_report, move_in_words, text_report

QUERIES = tuple(Query(f"q{number}", f"red shoes {number}", {"a": 3, "b": 0}) for number in range(12))
RERANKED = ReportedOutcome("reranked")


def result(**changed: object) -> Result:
    pairs = {query.id: Pair(Found(("b", "x", "a")), Found(("a", "b"), RERANKED)) for query in QUERIES}
    pairs["q0"] = Pair(Found(("a",)), Found(("x", "a"), RERANKED))
    made = Result(Collection(QUERIES, 3, 1), compare(QUERIES, pairs, 100), Demand())
    return replace(made, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (Interval(0.041, 0.016, 0.065, 261), "better: +4.1 points, 95 % interval +1.6 to +6.5, 261 queries"),
        (Interval(-0.033, -0.052, -0.013, 500), "worse: -3.3 points, 95 % interval -5.2 to -1.3, 500 queries"),
        (
            Interval(0.0, -0.0001, 0.0001, 1500),
            "no significant difference: +0.0 points, 95 % interval +0.0 to +0.0, 1,500 queries",
        ),
        (
            Interval(0.5, 0.5, 0.5, 1),
            "too few queries for a verdict: +50.0 points, 95 % interval +50.0 to +50.0, 1 query",
        ),
        (Interval(0.0, 0.0, 0.0, 0), "too few queries for a verdict"),
    ],
)
def test_a_difference_is_described_in_words(difference: Interval, words: str) -> None:
    assert words == in_words(difference)


@pytest.mark.parametrize(
    ("move", "words"),
    [
        (Move("p1", 3, 7, 1), "p1 (grade 3) from rank 7 to 1"),
        (Move("p1", 3, None, 1), "p1 (grade 3) is new at rank 1"),
        (Move("p\x1b1", 3, 2, None), "p\\x1b1 (grade 3) was at rank 2 and is gone"),
    ],
)
def test_the_moved_document_is_described(move: Move, words: str) -> None:
    assert words == move_in_words(move)


def test_the_report_has_all_sections() -> None:
    said = text_report(result(), 2)
    assert [
        "12 of 12 queries compared; 3 without a relevant document left out; 1 judged but not among the queries",
        "",
        "                          baseline     proxy  difference in points, 95 % interval",
    ] == said.splitlines()[:3]
    assert "\nnDCG@10, judged only         0.662     1.000  +33.8 (+27.7 to +36.9)\n" in said
    assert "\nunjudged in the first 10       32%        4%\n" in said
    assert "searches of the baseline: 12, by an engine\nsearches of the proxy: 12 reranked\n" in said
    assert "\nnDCG@10, judged only: better: +33.8 points, 95 % interval +27.7 to +36.9, 12 queries\n" in said
    assert "\n11 queries are better, 1 worse, 0 the same\n" in said
    assert "gained most:\n   +50.0  “red shoes 1” (q1): a (grade 3) from rank 3 to 1\n" in said
    assert said.endswith("lost most:\n   -36.9  “red shoes 0” (q0): a (grade 3) from rank 1 to 2\n")
    assert max(map(len, said.splitlines())) <= 110


def test_the_number_of_listed_queries_is_an_option() -> None:
    assert 3 == text_report(result(), 2).count("“red")
    assert 0 == text_report(result(), 0).count("“red")


@pytest.mark.parametrize(
    ("demand", "misses", "said"),
    [
        (Demand(min_gain=40.0), False, "--min-gain 40 is reached by nDCG@10: +42.8 points"),
        (Demand(min_gain=43.0), True, "--min-gain 43 is missed by nDCG@10: +42.8 points"),
        (Demand(judged_only=True, min_gain=40), True, "--min-gain 40 is missed by nDCG@10, judged only: +33.8 points"),
    ],
)
def test_the_minimum_gain_is_reached_or_missed(demand: Demand, misses: bool, said: str) -> None:  # noqa: FBT001
    found = result(demand=demand)
    assert misses is found.misses_gain
    assert said in text_report(found, 0)
    assert json_report(found)["min_gain_reached"] is not misses


def test_a_stopped_run_has_no_verdict() -> None:
    found = result(stopped="interrupted (12 of 20 queries were asked)", demand=Demand(min_gain=99.0))
    assert not found.misses_gain
    assert "no verdict: interrupted (12 of 20 queries were asked)\n" in text_report(found, 1)
    assert (None, None) == (json_report(found)["verdict"], json_report(found)["min_gain_reached"])


def test_the_json_report_has_all_results() -> None:
    found = json.loads(msgspec.json.encode(json_report(result())))
    assert (12, 12, 3, 1) == tuple(found[key] for key in ("queries", "compared", "without_relevant", "without_text"))
    assert {"measure", "judged_only", "baseline", "proxy", "meaning", "gain_points", "interval_points"} == set(
        found["measures"][0]
    )
    assert ("nDCG@10", "better") == (found["verdict"]["measure"], found["verdict"]["meaning"])
    assert {"document": "a", "grade": 3, "before": 3, "after": 1} == found["changes"][0]["moved"]
    assert {"outcomes": {"reranked": 12}, "searches": 12, "unusable": 0} == {
        key: value for key, value in found["proxy"].items() if key != "unjudged"
    }
    assert 12 == len(found["changes"])
