"""Query text as its words: what is one text in another spelling, and how several texts make up what was typed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Query = Mapping[str, Any]
MATCH_ALL: Query = {"match_all": {}}

_WORD = re.compile(r"\w+")
_ESCAPED = re.compile(r'\\([+\-=&|><!(){}\[\]^"~*?:\\/ ])')
_COMPARED_MAX = 100
_COMPARED_CHARS_MAX = 20_000
"""Texts, and their characters, that are compared with each other: more are not looked through for variants."""


@dataclass(frozen=True, slots=True)
class Typed:
    """The words in one clause, and what of that clause stays required without them."""

    text: str
    rest: Query | None
    """None: what the clause demands besides its words is not known."""


def unescaped(text: str) -> str:
    """Remove the backslashes by which applications escape what `query_string` would take for an operator."""
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text


def fold(text: str) -> tuple[str, ...]:
    """Return the words as they are compared: without case, quotes, punctuation and spaces."""
    folded = text.casefold()
    return tuple(_WORD.findall(folded)) or tuple(folded.split())


def letters(text: str) -> str:
    """Return the words run together, as a shingle or a compound spells them."""
    return "".join(fold(text))


def variants(texts: Sequence[str]) -> frozenset[int]:
    """Return the places of texts that only repeat a part of a longer one, or all of an earlier one."""
    if len(texts) > _COMPARED_MAX or sum(map(len, texts)) > _COMPARED_CHARS_MAX:
        return frozenset()
    spelled = [letters(text) for text in texts]
    return frozenset(
        place
        for place, own in enumerate(spelled)
        if any(_repeats(own, place, other, at) for at, other in enumerate(spelled) if at != place)
    )


def _repeats(own: str, place: int, other: str, at: int) -> bool:
    return own in other and (len(own) < len(other) or at < place)


def is_one_word(text: str) -> bool:
    return len(fold(text)) == 1
