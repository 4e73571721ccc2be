"""Fewer candidates for each search while a model is busy: smaller windows come before no reranking at all."""

from collections.abc import Callable, Sequence

PressureOf = Callable[[str], float]
"""The calls of a model in flight and waiting, as a share of those that may run at a time."""

_STEPS: Sequence[tuple[float, int]] = ((1.0, 20), (0.85, 50), (0.7, 100))
"""From this pressure on, at most so many candidates. Where even 20 get no turn in time, the bulkhead refuses them."""


def narrowed(window: int, pressure: float) -> int:
    """Return the window of a new search under this pressure; later pages keep the window of their search."""
    return min(window, next((most for least, most in _STEPS if pressure >= least), window))


def no_pressure(model: str) -> float:  # noqa: ARG001
    """Stand in for the model's load where no calls are made."""
    return 0.0
