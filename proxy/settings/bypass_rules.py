"""Searches that a route leaves to the engine because of what the user typed: part numbers, names of pages, half words.

There the engine's order is the wanted one, and a reranker can only cost time, or put a neighbour above the very thing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.bounds import BYPASS_RULE_CHARACTERS
from proxy.outcomes import Bypass
from proxy.parsing.query_text import UserQuery
from proxy.parsing.words import is_identifier
from proxy.settings.config import BypassRules


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A route's rules, ready to be held against what was typed."""

    identifiers: bool = False
    autocomplete: bool = False
    phrases: frozenset[str] = frozenset()
    patterns: Sequence[re.Pattern[str]] = ()

    def bypass(self, typed: UserQuery) -> Bypass | None:
        """Say why the engine's own order is wanted; None where it is not."""
        if self.autocomplete and typed.autocomplete:
            return Bypass("autocomplete")
        if len(typed.text) > BYPASS_RULE_CHARACTERS:
            return None
        if self.identifiers and is_identifier(typed.text):
            return Bypass("identifier")
        plain = " ".join(typed.text.casefold().split())
        if plain in self.phrases or any(pattern.fullmatch(typed.text) for pattern in self.patterns):
            return Bypass("navigational")
        return None


def left_out(rules: BypassRules) -> LeftOut:
    """Read a route's rules."""
    return LeftOut(
        rules.identifiers,
        rules.autocomplete,
        frozenset(" ".join(phrase.casefold().split()) for phrase in rules.phrases),
        tuple(re.compile(pattern, re.IGNORECASE) for pattern in rules.patterns),
    )
