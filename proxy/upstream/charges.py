"""Reads tokens and cost from the response of a model call, in the format of DeepInfra or of OpenAI's API."""

from typing import Any

from proxy.context import Charge

_LARGEST = 2**53
"""Larger numbers are not exact in every JSON parser."""


def charge_of(decoded: Any) -> Charge:
    """Return the tokens and the cost in a response; missing or implausible values count as 0."""
    tokens = _number_at(decoded, "input_tokens") or _number_at(decoded, "usage", "total_tokens")
    return Charge(int(tokens), float(_number_at(decoded, "inference_status", "cost")))


def _number_at(decoded: Any, *path: str) -> int | float:
    value = decoded
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value <= _LARGEST else 0
