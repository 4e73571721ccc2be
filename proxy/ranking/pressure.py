"""Narrows the window of new searches under load, before any search loses reranking."""

from collections.abc import Callable, Sequence

PressureOf = Callable[[str], float]
"""Returns the load of a model: its calls in flight and waiting, divided by the limit of concurrent calls."""

_STEPS: Sequence[tuple[float, int]] = ((1.0, 20), (0.85, 50), (0.7, 100))
"""The maximum window from each load upwards; if even 20 candidates wait too long, the bulkhead rejects the call."""


def narrowed(window: int, pressure: float) -> int:
    """Return the window of a new search under this load; later pages keep the window of their first page."""
    return min(window, next((most for least, most in _STEPS if pressure >= least), window))


def no_pressure(model: str) -> float:  # noqa: ARG001
    """Return 0, for commands that make no model calls."""
    return 0.0
