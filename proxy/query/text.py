"""What the user typed, found in the client's query, and that query without the demand for those words.

A semantic retriever finds what says the same in other words, so exactly one thing is relaxed for it: that the
words of the user's query occur. Every other required clause stays as it is, and so the relaxed query is the
client's own with the clauses that hold these words replaced by `match_all`, which keeps `minimum_should_match`
and the rest of the tree exact.

What queries there are, and where words stand in them, is in the tables of `clauses`.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from proxy.bounds import QUERY_STRING_LINE, QUERY_STRING_LINES, TEXT_CLAUSES, WRAPPED_BYTES
from proxy.query.clauses import COMPOUNDS, LEAVES, LINES
from proxy.query.query_string import Query, Typed


@dataclass(frozen=True, slots=True)
class UserQuery:
    """The user's words, and what a document must fulfil without them."""

    text: str
    relaxed: Query | None
    """None: what the query excludes besides by these words is not known, so nothing else may be searched for."""
    autocomplete: bool = False
    """The last word may be the beginning of one."""


class _Leaf(NamedTuple):
    """A text clause of the query: where it stands decides whether it holds the user's words."""

    clause: Query
    typed: Typed
    fields: tuple[str, ...]
    required: bool
    autocomplete: bool


class _TooMuch(Exception):
    """The query would take more work than is done for one search."""


def find_user_query(query: Any, passage: Sequence[str], is_text: Callable[[str], bool]) -> UserQuery | None:
    """Find the user's words: in `must` before `should`, in several fields or a passage's field before others.

    Clauses that hold the same words are one. A clause on fields where no words are searched is a filter. What is
    nested deeper than can be followed here, any engine refuses; in what would take too much work none are found.
    """
    try:
        return _find(query, passage, is_text)
    except (RecursionError, _TooMuch):
        return None


def _find(query: Any, passage: Sequence[str], is_text: Callable[[str], bool]) -> UserQuery | None:
    plain = unwrapped(query)
    walk = _Walk()
    walk.collect(plain, required=True)
    leaves = [leaf for leaf in walk.found if _searches_words(leaf, is_text)]
    if not leaves:
        return None
    chosen = min(leaves, key=lambda leaf: _rank(leaf, passage))
    same = [leaf for leaf in leaves if leaf.typed.text == chosen.typed.text]
    relaxed = None
    if all(leaf.typed.rest is not None for leaf in same):
        relaxed = _relaxed(plain, {id(leaf.clause): leaf.typed.rest for leaf in same})
    return UserQuery(chosen.typed.text, bare(relaxed), any(leaf.autocomplete for leaf in same))


def _rank(leaf: _Leaf, passage: Sequence[str]) -> tuple[bool, bool]:
    central = len(leaf.fields) != 1 or any(_same_field(leaf.fields[0].split("^", 1)[0], path) for path in passage)
    return not leaf.required, not central


def _same_field(field: str, path: str) -> bool:
    """Whether a field is a passage's path or a multi-field of it."""
    return "*" in field or field == path or field.startswith(f"{path}.")


def _searches_words(leaf: _Leaf, is_text: Callable[[str], bool]) -> bool:
    return not leaf.fields or any("*" in field or is_text(field) for field in leaf.fields)


class _Walk:
    """A walk down to the clauses that hold words, in the order they are written."""

    def __init__(self) -> None:
        self.found: list[_Leaf] = []
        self._line_characters = 0

    def collect(self, query: Any, *, required: bool) -> None:
        """Find the clauses in one; raises _TooMuch."""
        if (named := _named(query)) is None:
            return
        name, body = named
        if compound := COMPOUNDS.get(name):
            for child, needed in compound.children(body):
                self.collect(child, required=required and needed)
        elif leaf := LEAVES.get(name):
            if name in LINES:
                self._count(body)
            if len(self.found) == TEXT_CLAUSES:
                raise _TooMuch
            if read := leaf.read(name, body):
                self.found.append(_Leaf(query, *read, required, leaf.autocomplete(body)))

    def _count(self, body: Query) -> None:
        line = body.get("query")
        self._line_characters += min(len(line), QUERY_STRING_LINE) if isinstance(line, str) else 0
        if self._line_characters > QUERY_STRING_LINES:
            raise _TooMuch


def _named(query: Any) -> tuple[str, Query] | None:
    """Return a query's name and body; None where it is none that is known here."""
    if isinstance(query, dict) and len(query) == 1:
        ((name, body),) = query.items()
        if isinstance(body, dict):
            return name, body
    return None


class _Inseparable(Exception):
    """Somewhere in the query what excludes documents cannot be told from what the user typed."""


def _relaxed(query: Any, rests: Mapping[int, Query | None]) -> Query | None:
    """Copy a query with some of its clauses, told by identity, replaced; None where that cannot be said."""
    holders: set[int] = set()
    _find_holders(query, rests, holders)

    def relax(clause: Any) -> Any:
        if id(clause) in rests:
            return rests[id(clause)]
        if id(clause) not in holders:
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


def _find_holders(query: Any, rests: Mapping[int, Query | None], holders: set[int]) -> bool:
    """Note the compounds, by identity, that have one of these clauses in them; each is looked at once."""
    if id(query) in rests:
        return True
    named = _named(query)
    compound = COMPOUNDS.get(named[0]) if named else None
    if named is None or compound is None:
        return False
    holding = [_find_holders(child, rests, holders) for child, _ in compound.children(named[1])]  # every one of them
    if any(holding):
        holders.add(id(query))
    return id(query) in holders


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
