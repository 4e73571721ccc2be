"""What the user typed, found in the client's query, and that query without the demand for those words.

A semantic retriever finds what says the same in other words, so exactly one thing is relaxed for it: that the
words of the user's query occur. Every other required clause stays as it is, and so the relaxed query is the
client's own with the clauses that hold these words replaced by `match_all`, which keeps `minimum_should_match`
and the rest of the tree exact.

What queries there are, and where words stand in them, is in the tables of `clauses`; which of several texts is the
user's is said in `reading`.
"""

import base64
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
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
from proxy.parsing.boost_query import BoostQuery, boost_query
from proxy.parsing.clauses import COMPOUNDS, LEAVES, LINES, Leaf, Role
from proxy.parsing.evidence import Clause, Evidence, Reading, all_of, any_of, dots_of, size_of, with_filters
from proxy.parsing.words import Query, fold

UNRELAXED: Mapping[str, str] = {
    "ambiguous_text": "clauses differ in text, and it cannot be told which of them is a filter",
    "given_text": "the text that the request gives is in no clause of its query",
    "own_scores": "`min_score`, `hybrid`, or a `knn` of the client's own: no other document fits into its scores",
    "query_syntax": "what a line of query syntax excludes besides by its words is not known",
    "text_in_filter": "the query text is only in filters, functions, intervals or spans",
}
"""Why a query is not relaxed, and so nothing is searched for beside it."""


@dataclass(frozen=True, slots=True)
class UserQuery:
    """The user's words, and what a document must fulfil without them."""

    text: str
    relaxed: Query | None
    """None: nothing else may be searched for."""
    autocomplete: bool = False
    """Every clause with these words takes the last one for the beginning of a word."""
    unrelaxed: str = field(default="", compare=False)
    """Why there is no relaxed query, as in `UNRELAXED`."""
    keywords: frozenset[str] = field(default=frozenset(), compare=False)
    """The fields without analysed text that the query compares with all of these words."""
    boosts: BoostQuery | None = field(default=None, compare=False)
    """What the query says beyond the words; None where it says no more, or it is not known which part does."""


IsText = Callable[[str], bool]


def find_user_query(
    query: Any,
    passage: Sequence[str],
    is_text: IsText,
    given: str | None = None,
    copies: AbstractSet[str] = frozenset(),
) -> UserQuery | None:
    """Find what the user typed, or the clauses that hold the text that the request gives itself.

    `copies` are fields that the passage's text is copied to.

    A clause on fields where no words are searched is a filter. What is nested deeper than can be followed here, any
    engine refuses; in what would take too much work none is found.
    """
    try:
        found = _find(unwrapped(query), Evidence(passage, given, copies), is_text, given)
    except (RecursionError, _TooMuch):
        found = None
    return found or (UserQuery(given, None, unrelaxed="given_text") if given else None)


def text_of_clause(query: Any, name: str, passage: Sequence[str], is_text: IsText) -> str | None:
    """Return the text of the clause with this `_name`; None where there is none, or it holds no text."""
    try:
        reader = _Reader(Evidence(passage), is_text, everywhere=True)
        readings = (reader.read(clause) for clause in _named(unwrapped(query), name))
        return next((reading.text for reading in readings if reading), None)
    except (RecursionError, _TooMuch):
        return None


def _named(query: Any, name: str) -> Iterator[Any]:
    """The queries of this name, which stands in their body, or beside the words of their one field."""
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
    if reading is not None:
        if given and reading.words != fold(given):
            return None
        keywords, boosts = reader.keywords_of(reading.words), boost_query(query, reading, reader.leaves)
        return replace(_relaxed_by(query, reading, given), keywords=keywords, boosts=boosts)
    reading = _Reader(evidence, is_text, everywhere=True, leaves=reader.leaves).read(query)
    if reading is None or not (reading.central or reading.touches):
        return None
    keywords = reader.keywords_of(reading.words)
    return UserQuery(given or reading.text, None, _half_typed(reading), "text_in_filter", keywords)


def _relaxed_by(query: Any, reading: Reading, given: str | None) -> UserQuery:
    rests = {id(clause.query): clause.typed.rest for clause in reading.clauses}
    relaxed = None
    problem = reading.doubt or ("query_syntax" if None in rests.values() else "")
    if not problem:
        relaxed = _relaxed(query, rests)
        problem = "" if relaxed is not None else "own_scores"
    return UserQuery(given or reading.text, bare(relaxed), _half_typed(reading), problem)


def _half_typed(reading: Reading) -> bool:
    """Whether the last word may be half typed; a prefix form for each of several words is a way to search."""
    return all(clause.autocomplete and clause.words == reading.words for clause in reading.clauses)


_FOR_A_LINE = 16
"""Characters that a line counts for besides its own, for the work on any."""


@dataclass(slots=True)
class _Work:
    """How much of a query has been read."""

    clauses: int = 0
    line_characters: int = 0
    size: int = 0
    noted: int = 0

    def may_note(self, fields: int) -> bool:
        """Whether a comparison of so many fields may still be noted: what comes behind it is not looked at."""
        self.noted += fields
        return self.noted <= KEYWORD_COMPARISONS

    def count(self, name: str, body: Query) -> None:
        """Count a clause; raises _TooMuch."""
        self.clauses += 1
        line = body.get("query") if name in LINES else None
        self.line_characters += min(len(line), QUERY_STRING_LINE) + _FOR_A_LINE if isinstance(line, str) else 0
        if self.clauses > TEXT_CLAUSES or self.line_characters > QUERY_STRING_LINES:
            raise _TooMuch

    def look_at(self, size: int) -> None:
        """Count what is about to be looked at: a clause, or on each level what is put together; raises _TooMuch."""
        self.size += size
        if self.size > READ_SIZE:
            raise _TooMuch


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads a query from its leaves up."""

    evidence: Evidence
    is_text: IsText
    everywhere: bool = False
    """Also where words hardly ever stand: in filters, and in what is not read for kNN."""
    work: "_Work" = field(default_factory=_Work)
    leaves: dict[int, Reading | None] = field(default_factory=dict)
    """What has been read of the clauses with words, by identity."""
    keywords: dict[tuple[str, ...], set[str]] = field(default_factory=dict)
    """Fields without analysed text, by the words that they are compared with."""

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
        return reading and with_filters(reading, found[Role.FILTER])

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
        read = leaf.read(name, body, self.is_text)
        if read is None:
            return None
        typed, named = read
        fields = frozenset(field.split("^", 1)[0] for field in named)
        self._note(typed.text, fields)
        if not _searches_words(named, self.is_text):
            return None
        self.work.look_at(size_of(1, len(fields) + dots_of(fields) // 4, typed.text))
        words = fold(typed.text)
        clause = Clause(query, typed, words, fields, _boost(body), leaf.quotes(body), leaf.autocomplete(body))
        return self.evidence.of_clause(clause)

    def _note_term(self, body: Query) -> None:
        """Note an exact comparison of one field: `{field: value}`, or `{field: {value: ...}}`."""
        path, said = next(iter(body.items()), ("", None))
        value = said.get("value") if isinstance(said, dict) else said
        if isinstance(value, str):
            self._note(value, (path,))

    def _note(self, text: str, fields: Collection[str]) -> None:
        """Note which of these fields hold no analysed text; a field by a wildcard may be any."""
        if len(text) > KEYWORD_CHARACTERS or not self.work.may_note(len(fields)):
            return
        if found := [path for path in fields if "*" not in path and not self.is_text(path)]:
            noted = self.keywords.setdefault(fold(text), set())
            noted.update(sorted(found)[: KEYWORD_FIELDS - len(noted)])


def _searches_words(fields: Sequence[str], is_text: IsText) -> bool:
    return not fields or any("*" in field or is_text(field) for field in fields)


def _boost(body: Query) -> float:
    """Read a clause's boost, which stands beside its words: in it, or in the object of its one field."""
    (first, *others) = body.values()
    said = first.get("boost") if not others and isinstance(first, dict) else body.get("boost")
    return float(said) if isinstance(said, int | float) else 1.0


class _TooMuch(Exception):
    """The query would take more work than is done for one search."""


class _Inseparable(Exception):
    """Somewhere in the query what excludes documents cannot be told from what the user typed."""


def _relaxed(query: Any, rests: Mapping[int, Query | None]) -> Query | None:
    """Copy a query with some of its clauses, told by identity, replaced; None where that cannot be said."""
    above: set[int] = set()
    _hold(query, rests, above)

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


def _hold(query: Any, rests: Mapping[int, Query | None], above: set[int]) -> bool:
    """Collect the queries that hold one of the clauses somewhere; returns whether this one does."""
    if id(query) in rests:
        return True
    match query:
        case dict() if len(query) == 1:
            ((name, body),) = query.items()
            if name in COMPOUNDS and isinstance(body, dict):
                inner = [_hold(child, rests, above) for child, _ in COMPOUNDS[name].children(body)]
                if any(inner):
                    above.add(id(query))
                    return True
    return False


def unwrapped(query: Any) -> Any:
    """Copy a query with each `wrapper` replaced by the query in it; raises _TooMuch."""
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
    """Copy a query without what it shows beside hits: its `inner_hits` and names, which no filter here is asked for.

    Two `inner_hits` of one name in a search are an error, and of two queries of one name the last is reported.
    """
    written = msgspec.json.encode(query)  # faster than to look at all of it
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
