"""Exact matches: top hits of the client's own search that reranking never moves down.

Such a hit has a name or keyword field equal to the query text, or is one of few hits that contain the part number in
it. A semantic model could only rank a similar document above it.
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
from proxy.ranking.passages import passage_text, texts_at
from proxy.settings.passage_template import PassageTemplate

AMONG = 3
"""The number of top hits that can keep their rank.

It also limits how many hits of the window may share a keyword value: one that more of them share is a category, not an
identifier.
"""
_VALUES = 100
"""Maximum number of values compared per field."""

EXACT, IDENTIFIER = "exact_match", "identifier"

Source = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class QueryWords:
    """The query text, prepared once for the comparison with every document; empty if it is too long."""

    words: tuple[str, ...] = ()
    identifiers: tuple[str, ...] = ()
    """The part numbers in it, each as folded words between blanks."""

    @classmethod
    def of(cls, typed: str) -> "QueryWords":
        if len(typed) > BYPASS_RULE_CHARACTERS:
            return cls()
        return cls(fold(typed), tuple(_in_blanks(identifier) for identifier in identifiers_in(typed)))


def _in_blanks(text: str) -> str:
    return f" {' '.join(fold(text))} "


@dataclass(frozen=True, slots=True)
class Likeness:
    """How a document matches the query text exactly; computed once, so that `_source` need not be kept."""

    exact: bool = False
    """The first passage field equals the query text."""
    names: frozenset[str] = frozenset()
    """The keyword fields that equal the query text."""
    identified: bool = False
    """The passage contains every part number of the query text."""


UNLIKE = Likeness()
"""The likeness of almost every document."""


def likeness(
    typed: QueryWords, source: Source, passage: PassageTemplate, names: Sequence[str], *, is_top: bool
) -> Likeness:
    """Compare a document with the query text.

    `names` are the keyword fields that the query compares with the whole text. `is_top`: the document may keep its
    rank; of others, only what they share with those that may is compared.
    """
    if not typed.words or not (is_top or names or typed.identifiers):
        return UNLIKE
    equal = frozenset([name for name in names if _equals(source, name, typed.words)])
    exact = is_top and _equals(source, passage.fields[0], typed.words)
    identified = bool(typed.identifiers) and _has_all(source, passage, typed.identifiers)
    return Likeness(exact, equal, identified) if exact or equal or identified else UNLIKE


def kept_hits(lexical: Sequence[DocKey], likenesses: Mapping[DocKey, Likeness]) -> Mapping[DocKey, Kept]:
    """Return which of the top hits keep their rank."""
    found = {key: likenesses[key] for key in lexical if likenesses.get(key, UNLIKE) is not UNLIKE}
    if not found:
        return {}
    shared = Counter(name for like in found.values() for name in like.names)
    telling = {name for name, count in shared.items() if count <= AMONG}
    identified = sum(like.identified for like in found.values()) <= AMONG
    kept: dict[DocKey, Kept] = {}
    for rank, key in enumerate(lexical[:AMONG], start=1):
        like = found.get(key, UNLIKE)
        if like.exact or like.names & telling:
            kept[key] = Kept(rank, EXACT)
        elif like.identified and identified:
            kept[key] = Kept(rank, IDENTIFIER)
    return kept


def _equals(source: Source, path: str, words: tuple[str, ...]) -> bool:
    for value in islice(texts_at(source, path), _VALUES):
        if _may_be(value, words) and fold(value[: BYPASS_RULE_CHARACTERS + 1]) == words:
            return True
    return False


def _may_be(value: str, words: Sequence[str]) -> bool:
    """Whether a text contains these folded words anywhere: a fast test before the exact one."""
    folded = value.casefold()
    for word in words:  # noqa: SIM110  a generator takes twice the time, and each document of a window is compared
        if word not in folded:
            return False
    return True


def _has_all(source: Source, passage: PassageTemplate, identifiers: Sequence[str]) -> bool:
    """Whether the passage contains all of these identifiers as separate words."""
    text = passage_text(source, passage.lines, _PASSAGE_CHARACTERS)
    if not all(_may_be(text, identifier.split()) for identifier in identifiers):
        return False
    folded = _in_blanks(text)
    return all(identifier in folded for identifier in identifiers)


_PASSAGE_CHARACTERS = 2000
"""Identifiers are searched for in the start of the passage only: they are in a name, a number field or a first line."""


def in_place(ranking: Ranking, kept: Mapping[DocKey, Kept]) -> Ranking:
    """Move each of these hits that fell below its rank back up to it; the others keep their order."""
    if not kept:
        return ranking
    order = list(keys(ranking))
    for key, place in sorted(kept.items(), key=lambda item: item[1].rank):
        if key in order and order.index(key) >= place.rank:
            order.remove(key)
            order.insert(place.rank - 1, key)
    return tuple(_scored(order, ranking)) if order != list(keys(ranking)) else ranking


def _scored(order: Sequence[DocKey], ranking: Ranking) -> Iterator[Scored]:
    """Give the scores, best first, to the documents in their new order."""
    for key, place in zip(order, ranking, strict=True):
        yield Scored(key, place.score)
