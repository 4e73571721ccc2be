"""Two rankings of each query become means, intervals, wins and losses with what moved, and a verdict or none."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.commands.evaluation.collection import Query
from proxy.commands.evaluation.comparison import NO_HEADER, TOLERATED_SHARE, Move, compare, moved
from proxy.commands.evaluation.measures import NDCG, Measure, scores
from proxy.commands.evaluation.outcomes import FailedSearch, Found, Pair, ReportedOutcome

RERANKED = ReportedOutcome("reranked")
JUDGMENTS = {"a": 3, "b": 1, "n": 0}
QUERIES = [Query(f"q{number}", "red shoes", JUDGMENTS) for number in range(100)]
NAMES = "abcnxyzuvwopq"


def pair(baseline: str, proxy: str, outcome: ReportedOutcome | None = RERANKED) -> Pair:
    return Pair(Found(tuple(baseline)), Found(tuple(proxy), outcome))


def pairs(*each: Pair) -> dict[str, Pair]:
    """Give the queries these, the last one to all that are left."""
    return {query.id: each[min(number, len(each) - 1)] for number, query in enumerate(QUERIES)}


def test_means_and_differences_are_computed_per_measure() -> None:
    found = compare(QUERIES, pairs(pair("xba", "axb")), 3)
    best = 7 + 1 / math.log2(3)
    (row,) = [row for row in found.rows if row.measure == NDCG]
    assert (1 / math.log2(3) + 7 / 2) / best == pytest.approx(row.baseline)
    assert (7 + 1 / 2) / best == pytest.approx(row.proxy)
    assert row.proxy - row.baseline == pytest.approx(row.difference.mean)
    assert ("better", 100) == (row.difference.meaning, row.difference.queries)
    assert found.row(judged_only=True).measure == Measure("nDCG@10", judged_only=True)
    assert found.row(judged_only=True).proxy == 1.0
    assert [row.measure.name for row in found.rows[:3]] == ["nDCG@10", "MRR", "recall@3"]
    assert found.no_verdict is None


def test_queries_are_ordered_by_gain() -> None:
    found = compare(QUERIES[:3], pairs(pair("a", "a"), pair("ba", "ab"), pair("a", "xa")), 10)
    assert (["q1"], ["q2"]) == ([each.query.id for each in found.won], [each.query.id for each in found.lost])
    assert ["q1", "q0", "q2"] == [each.query.id for each in found.changes]


def test_the_share_of_unjudged_top_ten_hits_is_counted() -> None:
    found = compare(QUERIES, pairs(pair("abnx", "xyzuvwopqab")), 20)
    assert (0.25, 0.9) == pytest.approx((found.baseline.unjudged, found.proxy.unjudged))


@pytest.mark.parametrize(
    ("before", "after", "move"),
    [
        ("xyzuvwa", "axyzuvw", Move("a", 3, 7, 1)),
        ("bxyz", "baxyz", Move("a", 3, None, 2)),
        ("abxyz", "bxyz", Move("a", 3, 1, None)),
        ("xyzuvwopqnab", "axyzuvwopqb", Move("a", 3, 11, 1)),
        ("axb", "abx", Move("b", 1, 3, 2)),
    ],
)
def test_the_document_with_the_largest_effect_is_named_with_its_ranks(before: str, after: str, move: Move) -> None:
    (change,) = compare(QUERIES[:1], {"q0": pair(before, after)}, 20).changes
    assert move == change.moved


def test_an_unchanged_order_has_no_moved_document() -> None:
    (change,) = compare(QUERIES[:1], {"q0": pair("anxb", "axnb")}, 20).changes
    assert (change.moved, change.difference) == (None, 0.0)


RANKING = st.permutations(NAMES)


@given(RANKING, RANKING)
def test_the_moved_document_is_relevant_and_moved_in_that_direction(
    before: Sequence[str], after: Sequence[str]
) -> None:
    values = [scores(QUERIES[:1], {"q0": ranking}, [NDCG])[NDCG][0] for ranking in (before, after)]
    move = moved(QUERIES[0], before, after, values[1] - values[0])
    if move is None:
        assert values[0] == pytest.approx(values[1])
    else:
        assert move.before is not None
        assert move.after is not None
        assert move.grade > 0
        assert (move.after < move.before) is (values[1] > values[0])


def test_more_than_two_percent_not_reranked_gives_no_verdict() -> None:
    bypassed = pair("a", "a", ReportedOutcome("bypassed", "identifier"))
    degraded = pair("a", "a", ReportedOutcome("degraded", "timeout", "semantic"))
    fine = compare(QUERIES, pairs(bypassed, degraded, pair("a", "a")), 10)
    assert TOLERATED_SHARE == 0.02
    assert fine.no_verdict is None
    assert fine.proxy.outcomes == {
        "reranked": 98,
        "bypassed (identifier)": 1,
        "degraded (without semantic, timeout)": 1,
    }
    found = compare(QUERIES, pairs(bypassed, degraded, bypassed, pair("a", "a")), 10)
    assert str(found.no_verdict).startswith("3 of 100 searches of the proxy failed or were not reranked, more than 2%")


def test_a_failed_search_counts_as_not_reranked() -> None:
    failed = Pair(Found(("a",)), FailedSearch("status 503"))
    found = compare(QUERIES, pairs(failed, failed, failed, pair("a", "a")), 10)
    assert (97, 3, 100) == (len(found.changes), found.proxy.unusable, found.proxy.searches)
    assert "3 of 100 searches of the proxy failed" in str(found.no_verdict)
    assert 3 == found.proxy.outcomes["failed (status 503)"]
    elsewhere = Pair(FailedSearch("status 503"), Found(("a",), RERANKED))
    assert "of the baseline failed" in str(compare(QUERIES, pairs(*[elsewhere] * 3, pair("a", "a")), 10).no_verdict)


def test_the_baseline_may_be_an_engine() -> None:
    assert {} == compare(QUERIES, pairs(pair("a", "a")), 10).baseline.outcomes
    found = compare(QUERIES, pairs(pair("a", "a", None)), 10)
    assert "no response has the header X-Rerank: is --proxy the address of a proxy" in str(found.no_verdict)
    assert {NO_HEADER: 100} == found.proxy.outcomes


def test_searches_that_all_find_nothing_give_no_verdict_and_a_hint_at_ids() -> None:
    """Such as the ids of queries, searched for as if they were texts."""
    found = compare(QUERIES, pairs(pair("", "", ReportedOutcome("bypassed", "zero_hits"))), 10)
    assert "no search found a document" in str(found.no_verdict)
    assert "--queries" in str(found.no_verdict)
    some = compare(QUERIES, pairs(pair("", "a"), pair("", "")), 10)
    assert some.no_verdict is None


def test_a_proxy_as_baseline_must_rerank() -> None:
    reranked = Pair(Found(("a",), RERANKED), Found(("a",), RERANKED))
    bypassed = Pair(Found(("a",), ReportedOutcome("bypassed", "identifier")), Found(("a",), RERANKED))
    assert compare(QUERIES, pairs(reranked), 10).no_verdict is None
    found = compare(QUERIES, pairs(*[bypassed] * 3, reranked), 10)
    assert "3 of 100 searches of the baseline failed or were not reranked" in str(found.no_verdict)


def test_a_few_queries_give_no_verdict() -> None:
    found = compare(QUERIES[:9], pairs(pair("ba", "ab")), 10)
    assert "at least 10 queries are needed, and 9 could be compared: judge more" == found.no_verdict
    assert compare(QUERIES[:10], pairs(pair("ba", "ab")), 10).no_verdict is None


def test_no_query_gives_no_verdict() -> None:
    assert compare([], {}, 10).no_verdict is not None
