"""Finds the user's text in the client's query, and relaxes the query: the same query without requiring that text.

A semantic retriever finds documents that say the same in other words, so exactly one requirement is relaxed for it:
that the words of the user's text occur. All other required clauses stay. The relaxed query is the client's own, with
the clauses that hold the text replaced by `match_all`; so `minimum_should_match` and the rest of the tree stay valid.

The table of queries is in `clauses`; `evidence` decides which of several texts is the user's.
"""

import base64
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from proxy.bounds import (
    KEYWORD_CHARACTERS,
    KEYWORD_COMPARISONS,
    KEYWORD_FIELDS,
    QUERY_STRING_LINE,
    QUERY_STRING_LINES,
    READ_SIZE,
    TEXT_CLAUSES,
    WRAPPED_BYTES,
)
from proxy.parsing.boost_query import BoostQuery, boost_query, rescore_boosts
from proxy.parsing.clauses import (
    COMPOUNDS,
    LEAVES,
    LINES,
    WHOLE_VALUES,
    Leaf,
    Role,
    ids_above,
    unread_fields,
    unread_words,
)
from proxy.parsing.evidence import (
    NO_LINKS,
    Clause,
    Evidence,
    LinkedFields,
    Reading,
    all_of,
    any_of,
    dots_of,
    size_of,
    with_filters,
)
from proxy.parsing.query_string import FieldKinds
from proxy.parsing.words import Query, fold, letters

UNRELAXED: Mapping[str, str] = {
    "ambiguous_text": "clauses have different texts, or one outside the passage: it is unclear which are filters",
    "given_text": "no clause of the query contains the query text that the request names",
    "own_scores": "`min_score`, `hybrid` or the client's own `knn`: the scores of other hits are not comparable",
    "query_syntax": "it is unclear what a `query_string` query excludes besides documents without its words",
    "text_in_filter": "the query text is only in filters, functions, intervals, spans or wildcards",
}
"""The reasons why a query is not relaxed, so that no other hits are searched for."""


@dataclass(frozen=True, slots=True)
class UserQuery:
    """The user's text, and the query that documents must match without it."""

    text: str
    relaxed: Query | None
    """None if no other hits may be searched for."""
    autocomplete: bool = False
    """Whether every clause with this text treats its last word as a prefix."""
    unrelaxed: str = field(default="", compare=False)
    """The reason why there is no relaxed query, see `UNRELAXED`."""
    keywords: frozenset[str] = field(default=frozenset(), compare=False)
    """Keyword fields that the query compares with the whole text."""
    boosts: BoostQuery | None = field(default=None, compare=False)
    """The query without its words, for its boosts. None if it has no boosts, or their clauses are unknown."""


IsText = Callable[[str], bool]


def find_user_query(
    query: Any,
    passage: Sequence[str],
    is_text: IsText,
    given: str | None = None,
    links: LinkedFields = NO_LINKS,
) -> UserQuery | None:
    """Find the user's text, or the clauses with the text that the request itself names (`given`).

    A clause on fields without analysed text is a filter. A query that is too deeply nested to be read is rejected by
    every engine; in one that takes too much work no text is found.
    """
    try:
        found = _find(unwrapped(query), Evidence(passage, given, links), is_text, given)
    except (RecursionError, _TooMuch):
        found = None
    return found or (UserQuery(given, None, unrelaxed="given_text") if given else None)


def with_rescores(user_query: UserQuery, rescores: Sequence[Any], is_text: IsText) -> UserQuery:
    """Add what the entries of the client's `rescore` say beyond the text to the boosts of its query."""
    reader = _Reader(Evidence(()), is_text)
    try:
        entries = unwrapped(rescores)
        for entry in entries:
            match entry:
                case {"query": {"rescore_query": query}}:
                    reader.read(query)
                case _:
                    pass
    except (RecursionError, _TooMuch):
        return user_query
    words = fold(user_query.text)
    reading = reader.evidence.of_several(user_query.text, words, (), "", optional=False)
    return replace(user_query, boosts=rescore_boosts(user_query.boosts, entries, reading, reader.leaves))


def text_of_clause(query: Any, name: str, passage: Sequence[str], is_text: IsText) -> str | None:
    """Return the text of the clause with this `_name`; None if there is no such clause, or it has no text."""
    try:
        reader = _Reader(Evidence(passage), is_text, everywhere=True)
        readings = (reader.read(clause) for clause in _named(unwrapped(query), name))
        return next((reading.text for reading in readings if reading), None)
    except (RecursionError, _TooMuch):
        return None


def _named(query: Any, name: str) -> Iterator[Any]:
    """Yield the queries with this `_name`, which is in their body or in the object of their field."""
    match query:
        case dict():
            for value in query.values():
                if isinstance(value, dict) and name in (value.get("_name"), *_names_inside(value)):
                    yield query
                else:
                    yield from _named(value, name)
        case list():
            for each in query:
                yield from _named(each, name)
        case _:
            pass


def _names_inside(body: Query) -> Iterator[Any]:
    (value,) = body.values() if len(body) == 1 else (None,)
    if isinstance(value, dict):
        yield value.get("_name")


def _find(query: Any, evidence: Evidence, is_text: IsText, given: str | None) -> UserQuery | None:
    reader = _Reader(evidence, is_text)
    reading = reader.read(query)
    if reading and not reading.touches and not given and reader.has_other_words(query, reading.letters):
        reading = None  # it is a filter: the words are in the first passage field
    if reading and evidence.are_values(reading):
        reading = None
    if reading is not None:
        if given and reading.words != fold(given):
            return None
        reading = reading._replace(doubt=evidence.doubt_of(reading))
        keywords, boosts = reader.keywords_of(reading.words), boost_query(query, reading, reader.leaves)
        return replace(_relaxed_by(query, reading, given), keywords=keywords, boosts=boosts)
    reading = _Reader(evidence, is_text, everywhere=True, leaves=reader.leaves).read(query)
    if reading is None or not (reading.central or reading.touches) or evidence.is_value(reading):
        return None
    keywords = reader.keywords_of(reading.words)
    return UserQuery(given or reading.text, None, _is_autocomplete(reading), "text_in_filter", keywords)


def _relaxed_by(query: Any, reading: Reading, given: str | None) -> UserQuery:
    rests = {id(clause.query): clause.typed.rest for clause in reading.clauses}
    relaxed = None
    problem = reading.doubt or ("query_syntax" if None in rests.values() else "")
    if not problem:
        relaxed = _relaxed(query, rests)
        problem = "" if relaxed is not None else "own_scores"
    return UserQuery(given or reading.text, bare(relaxed), _is_autocomplete(reading), problem)


def _is_autocomplete(reading: Reading) -> bool:
    """Whether the last word may be incomplete; prefix clauses for single words of the text do not count."""
    return all(clause.autocomplete and clause.words == reading.words for clause in reading.clauses)


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
        """Count a clause; raises _TooMuch."""
        self.clauses += 1
        line = body.get("query") if name in LINES else None
        self.line_characters += min(len(line), QUERY_STRING_LINE) + _LINE_COST if isinstance(line, str) else 0
        if self.clauses > TEXT_CLAUSES or self.line_characters > QUERY_STRING_LINES:
            raise _TooMuch

    def look_at(self, size: int) -> None:
        """Count the cost of a clause, or of combining several, before it is spent; raises _TooMuch."""
        self.size += size
        if self.size > READ_SIZE:
            raise _TooMuch


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads a query bottom-up."""

    evidence: Evidence
    is_text: IsText
    everywhere: bool = False
    """Whether to read query text also where it is rare: in filters, and in queries that cannot be relaxed."""
    work: "_Work" = field(default_factory=_Work)
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


class _TooMuch(Exception):
    """Reading the query takes more work than one search may use."""


class _Inseparable(Exception):
    """The requirements of the query cannot be separated from the user's text."""


def _relaxed(query: Any, rests: Mapping[int, Query | None]) -> Query | None:
    """Copy a query with some clauses, given by identity, replaced; None if that is impossible."""
    above = ids_above(query, rests)

    def relax(clause: Any) -> Any:
        if id(clause) in rests:
            return rests[id(clause)]
        if id(clause) not in above:
            return clause
        ((name, body),) = clause.items()
        found = COMPOUNDS[name].relax(name, body, relax)
        if found is None:
            raise _Inseparable
        return found

    try:
        relaxed: Query = relax(query)
    except _Inseparable:
        return None
    return relaxed


def unwrapped(query: Any) -> Any:
    """Copy a query with each `wrapper` replaced by the query inside it; raises _TooMuch."""
    written = msgspec.json.encode(query)
    if b'"wrapper"' not in written:
        return query
    if len(written) > WRAPPED_BYTES:
        raise _TooMuch
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
        return json.loads(base64.b64decode(encoded, validate=True))
    except (ValueError, RecursionError):
        return None


_JOINING = frozenset({"nested", "has_child", "has_parent"})


def bare(query: Any) -> Any:
    """Copy a query without `inner_hits` and `_name`, which have no use in a filter.

    Two `inner_hits` with the same name are an error, and of two queries with one `_name` only the last is reported.
    """
    written = msgspec.json.encode(query)  # faster than traversing all of it
    return _bare(query) if b'"_name"' in written or b'"inner_hits"' in written else query


def _bare(query: Any) -> Any:
    if isinstance(query, list):
        return [_bare(clause) if isinstance(clause, dict | list) else clause for clause in query]
    if not isinstance(query, dict):
        return query
    copied = {
        key: _bare(value) if isinstance(value, dict | list) else value
        for key, value in query.items()
        if key != "_name" or len(query) == 1
    }
    for name in _JOINING.intersection(copied):
        if isinstance(copied[name], dict):
            copied[name] = {key: value for key, value in copied[name].items() if key != "inner_hits"}
    return copied
