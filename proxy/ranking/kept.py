"""Hits of the client's own search that keep their place, whatever the models say of them.

The very thing that was typed: its name, or a field that identifies it, equals the words, or it alone has the part
number among them. A model that reads meaning can only put a neighbour above it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from proxy.bounds import BYPASS_RULE_CHARACTERS
from proxy.parsing.words import fold, identifiers_in
from proxy.ranking.explaining import Kept
from proxy.ranking.hits import DocKey, Ranking, Scored, keys
from proxy.ranking.reranking import passage_text, texts_at

AMONG = 3
"""First hits of the client's own search that can keep their place.

Also how many hits of its window may share a value for it to identify one: a value of more is a kind or a category.
"""
_VALUES = 100
"""Values of one field that are compared."""

EXACT, IDENTIFIER = "exact_match", "identifier"

Source = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Likeness:
    """In what a document is the very thing that was typed; its source need not be kept for it."""

    exact: bool = False
    """The first field of the passage equals the words."""
    names: frozenset[str] = frozenset()
    """Fields without analysed text that equal them."""
    identified: bool = False
    """The passage has each part number among the words."""


def likeness(typed: str, source: Source, passage: Sequence[str], names: Sequence[str]) -> Likeness:
    """Compare a document with what was typed.

    `names` are the fields without analysed text that the query compares with all of the words.
    """
    if len(typed) > BYPASS_RULE_CHARACTERS:
        return Likeness()
    words = fold(typed)
    equal = frozenset(name for name in names if _equals(source, name, words))
    exact = any(_equals(source, name, words) for name in passage[:1])
    return Likeness(exact, equal, _has_all(source, passage, identifiers_in(typed)))


def kept_hits(lexical: Sequence[DocKey], likenesses: Mapping[DocKey, Likeness]) -> Mapping[DocKey, Kept]:
    """Say which of the first hits keep their place."""
    found = {key: likenesses[key] for key in lexical if key in likenesses}
    shared = Counter(name for like in found.values() for name in like.names)
    telling = {name for name, count in shared.items() if count <= AMONG}
    identified = sum(like.identified for like in found.values()) <= AMONG
    kept: dict[DocKey, Kept] = {}
    for rank, key in enumerate(lexical[:AMONG], start=1):
        like = found.get(key, Likeness())
        if like.exact or like.names & telling:
            kept[key] = Kept(rank, EXACT)
        elif like.identified and identified:
            kept[key] = Kept(rank, IDENTIFIER)
    return kept


def _equals(source: Source, path: str, words: tuple[str, ...]) -> bool:
    values = islice(texts_at(source, path), _VALUES)
    return any(fold(value[: BYPASS_RULE_CHARACTERS + 1]) == words for value in values)


def _has_all(source: Source, passage: Sequence[str], identifiers: Sequence[str]) -> bool:
    """Whether a passage has each of these as words of its own."""
    if not identifiers:
        return False
    text = f" {' '.join(fold(passage_text(source, passage, _PASSAGE_CHARACTERS)))} "
    return all(f" {' '.join(fold(identifier))} " in text for identifier in identifiers)


_PASSAGE_CHARACTERS = 2000
"""Of a passage, where identifiers are looked for: they stand in a name, a number's field or a first line."""


def in_place(ranking: Ranking, kept: Mapping[DocKey, Kept]) -> Ranking:
    """Raise each of these hits that has fallen below its rank back to it; the others stay in order."""
    order = list(keys(ranking))
    for key, place in sorted(kept.items(), key=lambda item: item[1].rank):
        if key in order and order.index(key) >= place.rank:
            order.remove(key)
            order.insert(place.rank - 1, key)
    return tuple(_scored(order, ranking)) if order != list(keys(ranking)) else ranking


def _scored(order: Sequence[DocKey], ranking: Ranking) -> Iterator[Scored]:
    """Give each place the score that it had before: scores say no more than the order."""
    for key, place in zip(order, ranking, strict=True):
        yield Scored(key, place.score)
