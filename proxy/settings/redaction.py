"""Redaction: what a route keeps out of the texts that it sends to models.

All patterns take linear time. They look for personal data in known forms, and miss what is written in another way.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from proxy.bounds import REDACTION_MARGIN
from proxy.outcomes import Bypass
from proxy.settings.config import Redact, RedactedKind

_EMAIL = r"(?<![\w.%+'-])[\w.%+'-]++@[\w-]++(?:\.[\w-]++)++"
# Numbers of the large networks (ISO/IEC 7812) in groups as printed on cards, or in one piece; the check digit decides.
# A blank may be one at which no line breaks, wide (U+00A0) or narrow (U+202F), as in typeset texts.
_CARD = (
    r"(?<![\d.,])(?:"
    r"(?:4\d{3}|5[1-5]\d{2}|2[2-7]\d{2}|6011|6[45]\d{2}|62\d{2}|35\d{2})([ \u00a0\u202f-]?)\d{4}\1\d{4}\1\d{4}"
    r"|3[47]\d{2}([ \u00a0\u202f-]?)\d{6}\2\d{5}"
    r")(?!\d)"
)
# With a country code, as in ITU-T E.123; with an area code as in North America; or after a word that announces it.
# Digits alone are prices, sizes and part numbers.
_PHONE = (
    r"(?=[+(\d])(?:"
    r"(?<![\w+.,/-])(?:\+[1-9]\d{0,2}|00[1-9]\d{0,2}[ \u00a0\u202f/-])(?:[ \u00a0\u202f()./-]{0,3}\d){7,13}(?!\w)"
    r"|(?<!\w)\([2-9]\d{2}\)[ \u00a0\u202f]?\d{3}[ \u00a0\u202f-]\d{4}(?!\w)"
    r"|(?<![\w.-])(?:1-)?[2-9]\d{2}-[2-9]\d{2}-\d{4}(?![\w-])"
    r")"
)
_ANNOUNCED = (
    r"(?i:\b(?:tel|telefon|telephone|phone|fax|mobile|mobil|handy|call)\b)[ \u00a0\u202f.:]{1,3}"
    r"(?=\d)\d(?:[ \u00a0\u202f()./-]{0,3}\d){6,13}(?!\w)"
)


def _is_card(number: str) -> bool:
    """Check the digits by Luhn's algorithm."""
    digits = [int(each) for each in reversed(number) if each.isdigit()]
    doubled = (2 * digit - 9 * (digit > 4) for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


@dataclass(frozen=True, slots=True)
class RedactionRule:
    """A pattern, what replaces its matches, and a check of what it finds."""

    pattern: re.Pattern[str]
    placeholder: str
    is_meant: Callable[[str], bool] | None = None
    needs: str = ""
    """A character without which nothing matches."""

    def redacted(self, text: str) -> str:
        if self.needs and self.needs not in text:
            return text
        if self.is_meant is None:
            return self.pattern.sub(self.placeholder, text)
        return self._checked(text, self.is_meant)

    def _checked(self, text: str, is_meant: Callable[[str], bool]) -> str:
        """Replace the matches that pass the check; one that does not may overlap with another that does."""
        pieces, done, start = [], 0, 0
        while found := self.pattern.search(text, start):
            start = found.start() + 1
            if is_meant(found[0]):
                pieces += [text[done : found.start()], self.placeholder]
                start = done = found.end()
        return "".join([*pieces, text[done:]])


_KINDS: Mapping[RedactedKind, RedactionRule] = {
    "email": RedactionRule(re.compile(_EMAIL), "[email]", needs="@"),
    "card": RedactionRule(re.compile(_CARD), "[card]", _is_card),
    "phone": RedactionRule(re.compile(f"{_PHONE}|{_ANNOUNCED}"), "[phone]"),
}


@dataclass(frozen=True, slots=True)
class Redaction:
    """The redaction of a route, compiled."""

    rules: Sequence[RedactionRule] = ()
    query: Literal["redact", "bypass"] = "redact"
    passage: Literal["redact", "omit"] = "redact"

    def refusal(self, query: str, most: int) -> Bypass | None:
        """Return the bypass reason if the route sends no query like this one."""
        is_sent = not self.rules or self.query == "redact" or self.cut(query, most) == query[:most]
        return None if is_sent else Bypass("sensitive")

    def omits(self, text: str) -> bool:
        """Whether the route sends no passage with this text."""
        return self.passage == "omit" and self.redacted(text) != text

    def cut(self, text: str, most: int) -> str:
        """Redact a text and cut it to so many characters; only `REDACTION_MARGIN` beyond the cut are read.

        What is not read cannot be recognised, and replacing what precedes it brings its beginning before the cut. So
        the margin never remains.
        """
        if len(text) <= most + REDACTION_MARGIN:
            return self.redacted(text)[:most]
        return self.redacted(text[: most + REDACTION_MARGIN])[:-REDACTION_MARGIN][:most]

    def redacted(self, text: str) -> str:
        """Replace what the route does not send."""
        for rule in self.rules:
            text = rule.redacted(text)
        return text


NO_REDACTION = Redaction()


def redaction(settings: Redact) -> Redaction:
    """Compile a route's redaction."""
    kinds = tuple(_KINDS[kind] for kind in settings.kinds)
    own = tuple(RedactionRule(re.compile(pattern, re.IGNORECASE), "[redacted]") for pattern in settings.patterns)
    return Redaction((*own, *kinds), settings.query, settings.passage)
