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


_USUAL_TOKENS = 0.25
"""Tokens per character of English text, until the provider has counted some."""


class TokenRate:
    """How many tokens the provider counts per character, to estimate what calls that were not made would have used."""

    def __init__(self) -> None:
        self._tokens = 0
        self._characters = 0

    def note(self, tokens: int, characters: int) -> None:
        """Record a call; a provider that reports no tokens tells nothing."""
        if tokens > 0 and characters > 0:
            self._tokens += tokens
            self._characters += characters

    def tokens_of(self, characters: int) -> int:
        """Estimate the tokens of so many characters."""
        rate = self._tokens / self._characters if self._characters else _USUAL_TOKENS
        return round(rate * characters)
