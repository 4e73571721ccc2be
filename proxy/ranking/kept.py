"""Hits of the client's own search that keep their place, whatever the models say of them.

The very thing that was typed: its name, or a field that identifies it, equals the words, or it alone has the part
number among them. A model that reads meaning can only put a neighbour above it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def kept_hits(
    typed: str,
    lexical: Sequence[DocKey],
    sources: Mapping[DocKey, Source],
    passage: Sequence[str],
    names: Sequence[str],
) -> Mapping[DocKey, Kept]:
    """Say which of the first hits keep their place.

    `names` are the fields without analysed text that the query compares with all of the words.
    """
    if len(typed) > BYPASS_RULE_CHARACTERS:
        return {}
    words, found = fold(typed), [(key, sources[key]) for key in lexical if key in sources]
    identified = {key for key, source in found if _has_all(source, passage, identifiers_in(typed))}
    exact = {key for key, source in found if _equals(source, passage[:1], words)}
    for name in names:
        equal = {key for key, source in found if _equals(source, (name,), words)}
        exact |= equal if len(equal) <= AMONG else set()
    reasons = dict.fromkeys(identified if len(identified) <= AMONG else (), IDENTIFIER) | dict.fromkeys(exact, EXACT)
    return {key: Kept(rank, reasons[key]) for rank, key in enumerate(lexical[:AMONG], start=1) if key in reasons}


def _equals(source: Source, paths: Iterable[str], words: tuple[str, ...]) -> bool:
    values = (value for path in paths for value in islice(texts_at(source, path), _VALUES))
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
