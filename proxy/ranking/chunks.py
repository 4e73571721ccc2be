"""The second passage of a long document: the part after the first one that has most of the query's words.

It is chosen by the words alone, before any model is called. A rare word of the query counts more than one that is
everywhere in the document. The text is searched once for each word, up to a bound.
"""

import re
from collections.abc import Iterator, Sequence

from proxy.bounds import CHUNKED_CHARACTERS, CHUNKED_WORDS
from proxy.ranking.tokens import characters_of, cut

_STEM = 4
"""The minimum number of letters to compare. Of longer words, the last two letters are ignored."""
_IDEOGRAPHS = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
_HEADING_SHARE = 4
"""The first line is repeated in the second passage if it takes no more than this part of it."""


def stems_of(words: Sequence[str]) -> tuple[str, ...]:
    """Return the strings to search for: the beginnings of folded words, and pairs of ideographs."""
    return tuple(dict.fromkeys(_stems(words)))[:CHUNKED_WORDS]


def _stems(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if run := _IDEOGRAPHS.search(word):
            yield from (run[0][place : place + 2] for place in range(max(1, len(run[0]) - 1)))
        elif len(word) >= _STEM or any(letter.isdigit() for letter in word):
            yield word[: max(_STEM, len(word) - 2)]


def passages_of(text: str, stems: Sequence[str], tokens: int) -> tuple[str, ...]:
    """Return the beginning of a text, and the best part of the rest if it has any of these words."""
    first = cut(text, tokens)
    rest = text[len(first) : CHUNKED_CHARACTERS].lstrip()
    if not rest:
        return (first,)
    heading, _, _ = first.partition("\n")
    heading = f"{heading}\n" if len(heading) * _HEADING_SHARE <= len(first) else ""
    start = _best_start(rest, stems, max(1, len(first) - len(heading)))
    return (first,) if start is None else (first, cut(heading + rest[start:][: characters_of(tokens)], tokens))


def _best_start(text: str, stems: Sequence[str], length: int) -> int | None:
    """Return where the best part of this length starts, at the beginning of a word; None if no part has any word.

    Parts overlap by half. A word counts by the inverse of the number of parts that have it.
    """
    step = max(1, length // 2)
    parts = -(-len(text) // step)
    lowered = text.lower()
    worth: dict[int, float] = {}
    for stem in stems:
        places = _parts_with(lowered, stem, step, parts)
        for place in places:
            worth[place] = worth.get(place, 0.0) + 1 / len(places)
    if not worth:
        return None
    best = min(worth, key=lambda place: (-worth[place], place))
    return _word_start(text, best * step)


def _parts_with(lowered: str, stem: str, step: int, parts: int) -> set[int]:
    """Return the parts in which a word begins with this; the search continues in the next half after each place."""
    found: set[int] = set()
    at = lowered.find(stem)
    while at >= 0:
        if at and lowered[at - 1].isalnum() and not _IDEOGRAPHS.match(stem):
            at = lowered.find(stem, at + len(stem))
            continue
        half = min(at // step, parts - 1)
        found |= {half, max(0, half - 1)}
        at = lowered.find(stem, (half + 1) * step)
    return found


def _word_start(text: str, start: int) -> int:
    if start == 0 or text[start - 1].isspace():
        return start
    blank = re.compile(r"\s").search(text, start, start + 60)
    return blank.end() if blank else start
