"""What a model call took, as its response reports it: DeepInfra's fields, or those of OpenAI's API."""

from typing import Any

from proxy.context import Charge

_LARGEST = 2**53
"""Larger numbers are not exact in every reader of the log."""


def charge_of(decoded: Any) -> Charge:
    """Read tokens and cost of a decoded response; what is missing, or no sensible number, counts as 0."""
    tokens = _number_at(decoded, "input_tokens") or _number_at(decoded, "usage", "total_tokens")
    return Charge(int(tokens), float(_number_at(decoded, "inference_status", "cost")))


def _number_at(decoded: Any, *path: str) -> int | float:
    value = decoded
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value <= _LARGEST else 0
