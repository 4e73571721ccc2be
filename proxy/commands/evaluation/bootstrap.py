"""The confidence interval of a mean difference: the paired bootstrap over queries (Sakai, SIGIR 2006)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
QUERIES_MIN = 10
"""Minimum number of queries for resampling: with one query, every sample is the same."""
_SEED = 20_260_101
_DRAWN_AT_ONCE = 2**20
_PERCENT = 95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference and its 95 % confidence interval."""

    mean: float
    low: float
    high: float
    queries: int

    @property
    def meaning(self) -> Literal["better", "worse", "no significant difference", "too few queries for a verdict"]:
        if self.queries < QUERIES_MIN:
            return "too few queries for a verdict"
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no significant difference"


def interval(differences: Sequence[float]) -> Interval:
    """Resample the queries with their differences; equal input gives an equal interval."""
    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        return Interval(0.0, 0.0, 0.0, 0)
    tail = (100 - _PERCENT) / 2
    low, high = np.percentile(_means(values), [tail, 100 - tail])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw bootstrap samples and return their means, some samples at a time to limit memory."""
    random = np.random.default_rng(_SEED)
    at_once = max(_DRAWN_AT_ONCE // len(values), 1)
    means = [
        values[random.integers(0, len(values), (min(at_once, RESAMPLES - done), len(values)))].mean(axis=1)
        for done in range(0, RESAMPLES, at_once)
    ]
    return np.concatenate(means)
