"""Words of query text: comparison of spelling variants, and detection of identifiers."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from proxy.bounds import COMPARED_CHARACTERS, COMPARED_TEXTS

Query = Mapping[str, Any]
MATCH_ALL: Query = {"match_all": {}}

_WORD = re.compile(r"\w+")
_IDENTIFIER = re.compile(r"(?=\S*\d)(?:\d{4,}|[A-Za-z0-9]+(?:[-_./#][A-Za-z0-9]+)+|(?=\S*[A-Za-z])[A-Za-z0-9]{5,})")
"""One token with a digit: a number of at least four digits, letters and digits, or parts joined by signs."""
_ESCAPED = re.compile(r'\\([+\-=&|><!(){}\[\]^"~*?:\\/ ])')


class Typed(NamedTuple):
    """The query text of a clause, and what the clause requires besides it."""

    text: str
    rest: Query | None
    """None if it is unknown what the clause requires besides its text."""
    fields: tuple[str, ...] = ()
    """The fields that the text itself names for all of its words (`title:rain`)."""


def unescaped(text: str) -> str:
    """Remove the backslashes with which applications escape `query_string` operators."""
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text


_MARKS = re.compile(r"(?<!\S)\*++(?=\S)|(?<=[^\W\d_])\*++(?!\S)")


def without_marks(text: str) -> str:
    """Remove wildcards around words (`*rain*`) where they mean nothing: applications write them there. `5*` stays."""
    return _MARKS.sub("", text) if "*" in text else text


def fold(text: str) -> tuple[str, ...]:
    """Return the words for comparison: without case, quotes, punctuation and whitespace."""
    folded = text.casefold()
    return tuple(_WORD.findall(folded)) or tuple(folded.split())


def letters(text: str) -> str:
    """Return the words without spaces, as in a shingle or a compound word."""
    return "".join(fold(text))


def variants(spelled: Sequence[str]) -> frozenset[int]:
    """Return the positions of texts that are part of a longer one, or repeat an earlier one, ignoring spaces."""
    if len(spelled) < 2 or len(spelled) > COMPARED_TEXTS or sum(map(len, spelled)) > COMPARED_CHARACTERS:
        return frozenset()
    first: dict[str, int] = {}
    for place, own in enumerate(spelled):
        first.setdefault(own, place)
    repeating = {place for place, own in enumerate(spelled) if first[own] != place}
    return frozenset(repeating.union(_inside_others(first)))


def _inside_others(places: Mapping[str, int]) -> Iterator[int]:
    """Yield the positions of texts contained in another one, by a search in all texts joined to one line."""
    line, start = " ".join(places), 0
    for own, place in places.items():
        end = start + len(own)
        if len(places) > 1 and (line.find(own) != start or line.find(own, end) >= 0):
            yield place
        start = end + 1


def is_identifier(text: str) -> bool:
    """Whether a text is exactly one part number or similar identifier."""
    return _IDENTIFIER.fullmatch(text) is not None


def identifiers_in(text: str) -> tuple[str, ...]:
    """Return the part numbers and similar identifiers among the words of a text."""
    return tuple(word for word in (token.strip("\"'()[],;:.?!") for token in text.split()) if is_identifier(word))


def is_one_word(text: str) -> bool:
    return len(fold(text)) == 1


def is_typed_word(text: str) -> bool:
    """Whether a text is one word as people type it: applications split text at spaces, and not at a hyphen."""
    return len(text.split(None, 1)) == 1 or is_one_word(text)
