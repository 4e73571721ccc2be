"""Query text as its words: what is one text in another spelling, and how several texts make up what was typed."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from proxy.bounds import COMPARED_CHARACTERS, COMPARED_TEXTS

Query = Mapping[str, Any]
MATCH_ALL: Query = {"match_all": {}}

_WORD = re.compile(r"\w+")
_IDENTIFIER = re.compile(r"(?=\S*\d)(?:\d{4,}|[A-Za-z0-9]+(?:[-_./#][A-Za-z0-9]+)+|(?=\S*[A-Za-z])[A-Za-z0-9]{5,})")
"""One token with a digit: a number of four digits or more, a number with letters, or parts joined by signs."""
_ESCAPED = re.compile(r'\\([+\-=&|><!(){}\[\]^"~*?:\\/ ])')


class Typed(NamedTuple):
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


def variants(spelled: Sequence[str]) -> frozenset[int]:
    """Return the places of texts, by their letters, that only repeat a part of a longer one, or all of an earlier."""
    if len(spelled) < 2 or len(spelled) > COMPARED_TEXTS or sum(map(len, spelled)) > COMPARED_CHARACTERS:
        return frozenset()
    first: dict[str, int] = {}
    for place, own in enumerate(spelled):
        first.setdefault(own, place)
    repeating = {place for place, own in enumerate(spelled) if first[own] != place}
    return frozenset(repeating.union(_inside_others(first)))


def _inside_others(places: Mapping[str, int]) -> Iterator[int]:
    """The places of texts that are found inside another one: all stand in one line, apart, to be searched at once."""
    line, start = " ".join(places), 0
    for own, place in places.items():
        end = start + len(own)
        if len(places) > 1 and (line.find(own) != start or line.find(own, end) >= 0):
            yield place
        start = end + 1


def is_identifier(text: str) -> bool:
    """Whether a text is one part number or the like, and nothing else."""
    return _IDENTIFIER.fullmatch(text) is not None


def identifiers_in(text: str) -> tuple[str, ...]:
    """Return the part numbers and the like among the words of a text."""
    return tuple(word for word in (token.strip("\"'()[],;:.?!") for token in text.split()) if is_identifier(word))


def is_one_word(text: str) -> bool:
    return len(fold(text)) == 1
