"""Finds the user's text in the client's query, and relaxes the query: the same query without requiring that text.

A semantic retriever finds documents that say the same in other words, so exactly one requirement is relaxed for it:
that the words of the user's text occur. All other required clauses stay. The relaxed query is the client's own, with
the clauses that hold the text replaced by `match_all`; so `minimum_should_match` and the rest of the tree stay valid.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from proxy.parsing.boost_query import BoostQuery, boost_query, rescore_boosts
from proxy.parsing.evidence import NO_LINKS, Evidence, LinkedFields
from proxy.parsing.query_reader import IsText, QueryReader, TooMuch, unwrapped
from proxy.parsing.readings import Reading
from proxy.parsing.relaxing import bare, relaxed_query
from proxy.parsing.words import Query, fold

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
    except (RecursionError, TooMuch):
        found = None
    return found or (UserQuery(given, None, unrelaxed="given_text") if given else None)


def with_rescores(user_query: UserQuery, rescores: Sequence[Any], is_text: IsText) -> UserQuery:
    """Add what the entries of the client's `rescore` say beyond the text to the boosts of its query."""
    reader = QueryReader(Evidence(()), is_text)
    try:
        entries = unwrapped(rescores)
        for entry in entries:
            match entry:
                case {"query": {"rescore_query": query}}:
                    reader.read(query)
                case _:
                    pass
    except (RecursionError, TooMuch):
        return user_query
    words = fold(user_query.text)
    reading = reader.evidence.of_several(user_query.text, words, (), "", optional=False)
    return replace(user_query, boosts=rescore_boosts(user_query.boosts, entries, reading, reader.leaves))


def text_of_clause(query: Any, name: str, passage: Sequence[str], is_text: IsText) -> str | None:
    """Return the text of the clause with this `_name`; None if there is no such clause, or it has no text."""
    try:
        reader = QueryReader(Evidence(passage), is_text, everywhere=True)
        readings = (reader.read(clause) for clause in _named(unwrapped(query), name))
        return next((reading.text for reading in readings if reading), None)
    except (RecursionError, TooMuch):
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
    reader = QueryReader(evidence, is_text)
    reading, anywhere = _scoring_text(query, reader, evidence, given), None
    if reading is None or (reading.optional and not given):
        anywhere = QueryReader(evidence, is_text, everywhere=True, leaves=reader.leaves).read(query)
    if reading is None or _is_only_preferred(reading, anywhere, evidence):
        return _of_filter(query, anywhere, reader, evidence, given)
    if given and reading.words != fold(given):
        return None
    reading = reading._replace(doubt=evidence.doubt_of(reading))
    keywords, boosts = reader.keywords_of(reading.words), boost_query(query, reading, reader.leaves)
    return replace(_relaxed_by(query, reading, given), keywords=keywords, boosts=boosts)


def _scoring_text(query: Any, reader: QueryReader, evidence: Evidence, given: str | None) -> Reading | None:
    """Return the text outside the filters, unless it is a value, or the words are in the first passage field."""
    reading = reader.read(query)
    if reading and not reading.touches and not given and reader.has_other_words(query, reading.letters):
        return None
    return None if reading and evidence.are_values(reading) else reading


def _of_filter(
    query: Any, reading: Reading | None, reader: QueryReader, evidence: Evidence, given: str | None
) -> UserQuery | None:
    """Return the text of a filter, unless it is a value."""
    if reading is None or not (reading.central or reading.touches) or evidence.is_value(reading):
        return None
    keywords, boosts = reader.keywords_of(reading.words), boost_query(query, reading, reader.leaves)
    return UserQuery(given or reading.text, None, _is_autocomplete(reading), "text_in_filter", keywords, boosts)


def _is_only_preferred(optional: Reading, anywhere: Reading | None, evidence: Evidence) -> bool:
    """Whether an optional text is only a part of the text that the filters require, or a value beside it (a brand)."""
    if anywhere is None or not anywhere.central or anywhere.words == optional.words:
        return False
    return optional.letters in anywhere.letters or (evidence.is_value(optional) and not optional.touches)


def _relaxed_by(query: Any, reading: Reading, given: str | None) -> UserQuery:
    rests = {id(clause.query): clause.typed.rest for clause in reading.clauses}
    relaxed = None
    problem = reading.doubt or ("query_syntax" if None in rests.values() else "")
    if not problem:
        relaxed = relaxed_query(query, rests)
        problem = "" if relaxed is not None else "own_scores"
    return UserQuery(given or reading.text, bare(relaxed), _is_autocomplete(reading), problem)


def _is_autocomplete(reading: Reading) -> bool:
    """Whether the last word may be incomplete; prefix clauses for single words of the text do not count."""
    return all(clause.autocomplete and clause.words == reading.words for clause in reading.clauses)
