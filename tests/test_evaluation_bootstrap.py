"""The interval of a mean difference is found by resampling the queries, the same each time."""

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.commands.evaluation.bootstrap import QUERIES_MIN, Interval, interval

FEW = settings(max_examples=20)
DIFFERENCES = st.lists(st.floats(-1, 1), min_size=1, max_size=60)


@FEW
@given(DIFFERENCES)
def test_the_interval_contains_the_mean_and_is_reproducible(differences: list[float]) -> None:
    found = interval(differences)
    assert statistics.fmean(differences) == pytest.approx(found.mean, abs=1e-12)
    assert min(differences) - 1e-12 <= found.low <= found.high <= max(differences) + 1e-12
    assert interval(differences) == found


@FEW
@given(DIFFERENCES)
def test_negated_differences_mirror_the_interval(differences: list[float]) -> None:
    found, mirrored = interval(differences), interval([-each for each in differences])
    assert (-found.high, -found.low) == pytest.approx((mirrored.low, mirrored.high), abs=1e-9)


def test_the_interval_is_about_as_wide_as_the_normal_approximation() -> None:
    differences = [math.sin(number) for number in range(400)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    found = interval(differences)
    assert found.mean - 1.96 * error == pytest.approx(found.low, abs=0.1 * error)
    assert found.mean + 1.96 * error == pytest.approx(found.high, abs=0.1 * error)


@pytest.mark.parametrize(
    ("found", "meaning"),
    [
        (Interval(0.04, 0.01, 0.07, 100), "better"),
        (Interval(-0.04, -0.07, -0.01, 100), "worse"),
        (Interval(0.04, -0.01, 0.07, 100), "no significant difference"),
        (Interval(0.0, 0.0, 0.0, 100), "no significant difference"),
        (Interval(0.04, 0.01, 0.07, QUERIES_MIN), "better"),
        (Interval(0.04, 0.01, 0.07, QUERIES_MIN - 1), "too few queries for a verdict"),
    ],
)
def test_the_interval_is_described_in_words(found: Interval, meaning: str) -> None:
    assert meaning == found.meaning


def test_without_queries_there_is_no_interval() -> None:
    assert "too few queries for a verdict" == interval([]).meaning
