"""Reads a query bottom-up: the text of each clause, and the text that the clauses of a compound query have together."""

import base64
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from proxy.bounds import (
    BODY_DEPTH,
    KEYWORD_CHARACTERS,
    KEYWORD_COMPARISONS,
    KEYWORD_FIELDS,
    QUERY_STRING_LINE,
    QUERY_STRING_LINES,
    READ_SIZE,
    TEXT_CLAUSES,
    WRAPPED_BYTES,
)
from proxy.parsing.combining import all_of, any_of, with_filters
from proxy.parsing.compound_queries import COMPOUNDS, Role
from proxy.parsing.evidence import Evidence
from proxy.parsing.json_text import is_deeper
from proxy.parsing.leaf_queries import LEAVES, LINES, WHOLE_VALUES, Leaf, unread_fields, unread_words
from proxy.parsing.query_string import FieldKinds
from proxy.parsing.readings import Clause, Reading, dots_of, size_of
from proxy.parsing.words import Query, fold, letters

IsText = Callable[[str], bool]


class TooMuch(Exception):
    """Reading the query takes more work than one search may use."""


def unwrapped(query: Any) -> Any:
    """Copy a query with each `wrapper` replaced by the query inside it; raises TooMuch."""
    written = msgspec.json.encode(query)
    if b'"wrapper"' not in written:
        return query
    if len(written) > WRAPPED_BYTES:
        raise TooMuch
    return _unwrapped(query)


def _unwrapped(query: Any) -> Any:
    match query:
        case {"wrapper": {"query": str(encoded)}} if (inner := _decoded(encoded)) is not None:
            return _unwrapped(inner)
        case dict():
            return {key: _unwrapped(value) for key, value in query.items()}
        case list():
            return [_unwrapped(clause) if isinstance(clause, dict | list) else clause for clause in query]
        case _:
            return query


def _decoded(encoded: str) -> Any:
    try:
        decoded = base64.b64decode(encoded, validate=True)
        return None if is_deeper(decoded, BODY_DEPTH) else json.loads(decoded)
    except (ValueError, RecursionError):
        return None


_SCORED = frozenset({Role.REQUIRED, Role.ANY_OF, Role.BOOST})
_LINE_COST = 16
"""Characters added to each `query_string` query when they are counted, for its fixed cost."""


@dataclass(slots=True)
class _Work:
    """The work done so far to read a query."""

    clauses: int = 0
    line_characters: int = 0
    size: int = 0
    noted: int = 0

    def count_comparisons(self, fields: int) -> bool:
        """Count comparisons with this many keyword fields; returns whether they are still recorded."""
        self.noted += fields
        return self.noted <= KEYWORD_COMPARISONS

    def count(self, name: str, body: Query) -> None:
        """Count a clause; raises TooMuch."""
        self.clauses += 1
        line = body.get("query") if name in LINES else None
        self.line_characters += min(len(line), QUERY_STRING_LINE) + _LINE_COST if isinstance(line, str) else 0
        if self.clauses > TEXT_CLAUSES or self.line_characters > QUERY_STRING_LINES:
            raise TooMuch

    def look_at(self, size: int) -> None:
        """Count the cost of a clause, or of combining several, before it is spent; raises TooMuch."""
        self.size += size
        if self.size > READ_SIZE:
            raise TooMuch


@dataclass(frozen=True, slots=True)
class QueryReader:
    """Reads a query bottom-up."""

    evidence: Evidence
    is_text: IsText
    everywhere: bool = False
    """Whether to read query text also where it is rare: in filters, and in queries that cannot be relaxed."""
    work: _Work = field(default_factory=_Work)
    leaves: dict[int, Reading | None] = field(default_factory=dict)
    """The readings of leaf clauses, by identity."""
    keywords: dict[tuple[str, ...], set[str]] = field(default_factory=dict)
    """Keyword fields, by the words that they are compared with."""

    def keywords_of(self, words: tuple[str, ...]) -> frozenset[str]:
        return frozenset(self.keywords.get(words, ()))

    def read(self, query: Any) -> Reading | None:
        match query:
            case dict() if len(query) == 1:
                ((name, body),) = query.items()
                if isinstance(body, dict):
                    return self._compound(name, body) if name in COMPOUNDS else self._leaf(query, name, body)
        return None

    def _compound(self, name: str, body: Query) -> Reading | None:
        found = defaultdict[Role, list[Reading]](list)
        for child, role in COMPOUNDS[name].children(body):
            if reading := self.read(child):
                found[role].append(reading)
        readings = [reading for each in found.values() for reading in each]
        if len(readings) > 1:
            self.work.look_at(sum([reading.size for reading in readings]))
        inside = found[Role.REQUIRED] + self._any_of(found[Role.ANY_OF])
        inside += [each._replace(optional=True) for each in found[Role.BOOST]]
        if self.everywhere:
            inside += self._any_of(found[Role.FUNCTION]) + found[Role.FILTER]
        reading = all_of(inside, self.evidence)
        return reading and self._boosted(with_filters(reading, found[Role.FILTER]), body.get("boost", 1))

    def has_other_words(self, query: Any, letters_read: str, *, scored: bool = True) -> bool:
        """Whether a clause compares the first passage field with other words, which are read late or not at all.

        A clause that does not score is most often a filter, unless it searches for a part of a word.
        """
        match query:
            case dict() if len(query) == 1:
                ((name, body),) = query.items()
                if isinstance(body, dict) and name in COMPOUNDS:
                    inner = [(each, scored and role in _SCORED) for each, role in COMPOUNDS[name].children(body)]
                    return any(self.has_other_words(each, letters_read, scored=scores) for each, scores in inner)
                return isinstance(body, dict) and self._is_unread(name, body, letters_read, scored=scored)
        return False

    def _is_unread(self, name: str, body: Query, letters_read: str, *, scored: bool) -> bool:
        central = [path for path in unread_fields(name, body) if self.evidence.is_central(path)]
        if name in WHOLE_VALUES:  # in a keyword field, they are filters
            central = list(filter(self.is_text, central))
        if not central or not (scored or self._is_read_as_a_part(name, body)):
            return False
        texts = map(letters, unread_words(name, body))
        return any(not (text in letters_read or letters_read in text) for text in texts)

    def _is_read_as_a_part(self, name: str, body: Query) -> bool:
        leaf = LEAVES.get(name)
        return leaf is not None and leaf.read(name, body, FieldKinds(self.is_text)) is not None

    def _boosted(self, reading: Reading, boost: Any) -> Reading:
        """Multiply the boosts of the clauses by that of the query around them."""
        if boost == 1 or not isinstance(boost, int | float):
            return reading
        self.work.look_at(len(reading.clauses))
        clauses = tuple([clause._replace(boost=clause.boost * boost) for clause in reading.clauses])
        return reading._replace(clauses=clauses)

    def _any_of(self, readings: Sequence[Reading]) -> list[Reading]:
        reading = any_of(readings, self.evidence)
        return [] if reading is None else [reading]

    def _leaf(self, query: Query, name: str, body: Query) -> Reading | None:
        if name == "term":
            self._note_term(body)
        leaf = LEAVES.get(name)
        if leaf is None or (leaf.last_resort and not self.everywhere):
            return None
        self.work.count(name, body)
        if id(query) not in self.leaves:
            self.leaves[id(query)] = self._read_leaf(query, leaf, name, body)
        return self.leaves[id(query)]

    def _read_leaf(self, query: Query, leaf: Leaf, name: str, body: Query) -> Reading | None:
        read = leaf.read(name, body, FieldKinds(self.is_text, self.evidence.is_central))
        if read is None:
            return None
        typed, named = read
        fields = frozenset(field.split("^", 1)[0] for field in named)
        if not leaf.is_pattern:
            self._note(typed.text, fields)
            if not _searches_words(named, self.is_text):
                return None
        self.work.look_at(size_of(1, len(fields) + dots_of(fields) // 4, typed.text))
        words = fold(typed.text)
        clause = Clause(query, typed, words, fields, _boost(body), leaf.quotes(body), leaf.autocomplete(body))
        return self.evidence.of_clause(clause)

    def _note_term(self, body: Query) -> None:
        """Record an exact comparison with a field: `{field: value}`, or `{field: {value: ...}}`."""
        path, said = next(iter(body.items()), ("", None))
        value = said.get("value") if isinstance(said, dict) else said
        if isinstance(value, str):
            self._note(value, (path,))

    def _note(self, text: str, fields: Collection[str]) -> None:
        """Record which of these fields are keyword fields; a wildcard may stand for any field."""
        if len(text) > KEYWORD_CHARACTERS or not self.work.count_comparisons(len(fields)):
            return
        if found := [path for path in fields if "*" not in path and not self.is_text(path)]:
            noted = self.keywords.setdefault(fold(text), set())
            noted.update(sorted(found)[: KEYWORD_FIELDS - len(noted)])


def _searches_words(fields: Sequence[str], is_text: IsText) -> bool:
    return not fields or any("*" in field or is_text(field) for field in fields)


def _boost(body: Query) -> float:
    """Return a clause's boost, which is in its body or in the object of its field."""
    (first, *others) = body.values()
    said = first.get("boost") if not others and isinstance(first, dict) else body.get("boost")
    if not isinstance(said, int | float):
        return 1.0
    return float(max(-_LARGEST, min(said, _LARGEST)))  # an integer may be larger than any float


_LARGEST = sys.float_info.max
