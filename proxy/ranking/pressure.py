"""Adapts a new search to the rerankers' load and latency, before any search loses reranking."""

from collections.abc import Sequence
from typing import Protocol


class LiveModels(Protocol):
    """The load and latency of the rerankers, from their calls so far."""

    def pressure(self, model: str) -> float:
        """Return a model's calls in flight and waiting, divided by the limit of concurrent calls."""
        ...

    def usual_seconds(self, model: str) -> float | None:
        """Return how long a model usually takes; None before its first call."""
        ...


_STEPS: Sequence[tuple[float, int]] = ((1.0, 20), (0.85, 50), (0.7, 100))
"""The maximum window from each load upwards; if even 20 candidates wait too long, the bulkhead rejects the call."""


def narrowed(window: int, pressure: float) -> int:
    """Return the window of a new search under this load; later pages keep the window of their first page."""
    return min(window, next((most for least, most in _STEPS if pressure >= least), window))


_FAIR_SHARE = 0.5
_USUAL_FACTOR = 1.5


def reserved_seconds(budget_seconds: float, usual_seconds: float | None) -> float:
    """Return the part of a budget that embedding and kNN leave to the reranker: half, or what it usually takes."""
    half = _FAIR_SHARE * budget_seconds
    return half if usual_seconds is None else min(half, _USUAL_FACTOR * usual_seconds)


class UncalledModels:
    """The rerankers as commands see them that call none."""

    def pressure(self, model: str) -> float:  # noqa: ARG002
        return 0.0

    def usual_seconds(self, model: str) -> float | None:  # noqa: ARG002
        return None
