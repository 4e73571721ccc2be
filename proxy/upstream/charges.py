"""Reads tokens and cost from the response of a model call, in the format of DeepInfra or of OpenAI's API."""

from typing import Any

import msgspec

from proxy.upstream.spending.prices import Reported

_LARGEST = 2**53
"""Larger numbers are not exact in every JSON parser."""


class _Charged(msgspec.Struct):
    """The members of a response that concern its cost; vectors and scores are skipped without decoding them."""

    input_tokens: Any = None
    usage: Any = None
    inference_status: Any = None


_charged = msgspec.json.Decoder(_Charged)


def reported_in(content: bytes) -> Reported:
    """Return the tokens and the cost in a response; None for missing or implausible values."""
    try:
        found = _charged.decode(content)
    except (ValueError, RecursionError):  # a list of scores, as TEI sends it
        return Reported()
    tokens = _number(found.input_tokens)
    if tokens is None:
        tokens = _member(found.usage, "total_tokens")
    cost = _member(found.inference_status, "cost")
    return Reported(None if tokens is None else int(tokens), None if cost is None else float(cost))


def _member(value: Any, name: str) -> int | float | None:
    return _number(value.get(name)) if isinstance(value, dict) else None


def _number(value: Any) -> int | float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value <= _LARGEST else None
