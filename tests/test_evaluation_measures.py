"""The measures are what their formulas say, whatever library computes them."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.commands.evaluation.collection import HIGHEST_GRADE, Judgments, Query
from proxy.commands.evaluation.measures import CUTOFF, NDCG, Measure, measures_of, scores

DEPTH = 12
NAMES = "abcdefghijklmnop"
JUDGMENTS = st.dictionaries(st.sampled_from(NAMES), st.integers(0, HIGHEST_GRADE), max_size=12)
RANKING = st.permutations(NAMES).flatmap(lambda names: st.integers(0, DEPTH).map(lambda count: names[:count]))


def found(ranking: Sequence[str], judgments: Judgments, measure: Measure = NDCG) -> float:
    (value,) = scores([Query("q", "", judgments)], {"q": ranking}, [measure])[measure]
    return value


def dcg(grades: Sequence[int]) -> float:
    return math.fsum((2**grade - 1) / math.log2(place + 2) for place, grade in enumerate(grades[:CUTOFF]))


def by_hand(ranking: Sequence[str], judgments: Judgments, measure: Measure) -> float:
    relevant = {name for name, grade in judgments.items() if grade}
    if not relevant:
        return 0.0
    taken = [name for name in ranking if name in judgments] if measure.judged_only else ranking
    match measure.name.partition("@")[0]:
        case "nDCG":
            best = dcg(sorted(judgments.values(), reverse=True))
            return dcg([judgments.get(name, 0) for name in taken]) / best
        case "MRR":
            return max((1 / place for place, name in enumerate(taken, 1) if name in relevant), default=0.0)
        case _:
            return len(relevant & set(taken[:DEPTH])) / len(relevant)


@given(RANKING, JUDGMENTS)
def test_each_measure_follows_its_formula(ranking: Sequence[str], judgments: Judgments) -> None:
    for measure in measures_of(DEPTH):
        assert by_hand(ranking, judgments, measure) == pytest.approx(found(ranking, judgments, measure))


def test_ndcg_of_an_example() -> None:
    best = 7 + 3 / math.log2(3) + 1 / 2
    assert (7 / math.log2(3) + 1 / 2) / best == pytest.approx(found("xab", {"a": 3, "b": 1, "c": 2}))
    judged_only = Measure(NDCG.name, judged_only=True)
    assert (7 + 1 / math.log2(3)) / best == pytest.approx(found("xab", {"a": 3, "b": 1, "c": 2}, judged_only))


def test_only_the_order_of_hits_counts() -> None:
    """trec_eval breaks ties of scores by id, in descending order."""
    assert 1.0 == found("abc", {"a": 1})
    assert 1.0 == found("cba", {"c": 1})
    assert found("cba", {"a": 1}) < 1.0


def test_values_are_in_query_order_and_0_without_hits() -> None:
    queries = [Query("z", "", {"a": 1}), Query("a", "", {"a": 1}), Query("m", "", {"a": 1})]
    mrr = Measure("MRR")
    assert {mrr: [0.5, 0.0, 1.0]} == scores(queries, {"m": "a", "a": "", "z": "xa"}, [mrr])
    assert {mrr: [0.5, 0.0, 0.0]} == scores(queries, {"z": "xa"}, [mrr])


def test_measures_are_named() -> None:
    assert [str(measure) for measure in measures_of(50)] == [
        "nDCG@10",
        "MRR",
        "recall@50",
        "nDCG@10, judged only",
        "MRR, judged only",
        "recall@50, judged only",
    ]
