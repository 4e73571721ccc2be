"""Bypass rules: searches of a route that are not reranked because of their query text.

For part numbers, navigational queries and autocomplete the engine's order is the right one; a reranker could only add
latency, or rank a similar document above the exact one.
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
class TextBypass:
    """A route's bypass rules, compiled."""

    identifiers: bool = False
    autocomplete: bool = False
    phrases: frozenset[str] = frozenset()
    patterns: Sequence[re.Pattern[str]] = ()

    def bypass(self, typed: UserQuery, *, is_page: bool = False) -> Bypass | None:
        """Return the bypass reason that applies to this query text, if any.

        A page of results (`is_page`) is no autocomplete list, even if the application searches for `lap*` in it, too.
        """
        if self.autocomplete and typed.autocomplete and not is_page:
            return Bypass("autocomplete")
        if len(typed.text) > BYPASS_RULE_CHARACTERS:
            return None
        if self.identifiers and is_identifier(typed.text):
            return Bypass("identifier")
        plain = " ".join(typed.text.casefold().split())
        if plain in self.phrases or any(pattern.fullmatch(typed.text) for pattern in self.patterns):
            return Bypass("navigational")
        return None


def text_bypass(rules: BypassRules) -> TextBypass:
    """Compile a route's bypass rules."""
    return TextBypass(
        rules.identifiers,
        rules.autocomplete,
        frozenset(" ".join(phrase.casefold().split()) for phrase in rules.phrases),
        tuple(re.compile(pattern, re.IGNORECASE) for pattern in rules.patterns),
    )
