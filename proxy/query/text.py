"""What the user typed, found in the client's query, and that query without the demand for those words.

A semantic retriever finds what says the same in other words, so exactly one thing is relaxed for it: that the
words of the user's query occur. Every other required clause stays as it is, and so the relaxed query is the
client's own with the clauses that hold these words replaced by `match_all`, which keeps `minimum_should_match`
and the rest of the tree exact.

What queries there are, and where words stand in them, is in the tables of `clauses`.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.query.clauses import COMPOUNDS, LEAVES
from proxy.query.query_string import Query, Typed


@dataclass(frozen=True, slots=True)
class UserQuery:
    """The user's words, and what a document must fulfil without them."""

    text: str
    relaxed: Query | None
    """None: what the query excludes besides by these words is not known, so nothing else may be searched for."""
    autocomplete: bool = False
    """The last word may be the beginning of one."""


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A text clause of the query: where it stands decides whether it holds the user's words."""

    clause: Query
    typed: Typed
    fields: tuple[str, ...]
    required: bool
    autocomplete: bool


def find_user_query(query: Any, passage: Sequence[str], is_text: Callable[[str], bool]) -> UserQuery | None:
    """Find the user's words: in `must` before `should`, in several fields or a passage's field before others.

    Clauses that hold the same words are one. A clause on fields where no words are searched is a filter. What is
    nested deeper than can be followed here, any engine refuses.
    """
    try:
        return _find(query, passage, is_text)
    except RecursionError:
        return None


def _find(query: Any, passage: Sequence[str], is_text: Callable[[str], bool]) -> UserQuery | None:
    plain = unwrapped(query)
    leaves = [leaf for leaf in _leaves(plain, required=True) if _searches_words(leaf, is_text)]
    if not leaves:
        return None
    chosen = min(leaves, key=lambda leaf: _rank(leaf, passage))
    same = [leaf for leaf in leaves if leaf.typed.text == chosen.typed.text]
    relaxed = None
    if all(leaf.typed.rest is not None for leaf in same):
        relaxed = _relaxed(plain, {id(leaf.clause): leaf.typed.rest for leaf in same})
    return UserQuery(chosen.typed.text, bare(relaxed), any(leaf.autocomplete for leaf in same))


def _rank(leaf: _Leaf, passage: Sequence[str]) -> tuple[bool, bool]:
    plain = [field.split("^", 1)[0] for field in leaf.fields]
    central = len(plain) != 1 or any(_same_field(field, path) for field in plain for path in passage)
    return not leaf.required, not central


def _same_field(field: str, path: str) -> bool:
    """Whether a field is a passage's path or a multi-field of it."""
    return "*" in field or field == path or field.startswith(f"{path}.")


def _searches_words(leaf: _Leaf, is_text: Callable[[str], bool]) -> bool:
    fields = [field for field in leaf.fields if "*" not in field]
    return len(fields) < len(leaf.fields) or not fields or any(is_text(field) for field in fields)


def _leaves(query: Any, *, required: bool) -> Iterator[_Leaf]:
    """Walk down to the clauses that hold words, in the order they are written."""
    match query:
        case dict() if len(query) == 1:
            ((name, body),) = query.items()
            if not isinstance(body, dict):
                return
            if compound := COMPOUNDS.get(name):
                for child, needed in compound.children(body):
                    yield from _leaves(child, required=required and needed)
            elif (leaf := LEAVES.get(name)) and (read := leaf.read(name, body)):
                yield _Leaf(query, *read, required, leaf.autocomplete(body))


class _Inseparable(Exception):
    """Somewhere in the query what excludes documents cannot be told from what the user typed."""


def _relaxed(query: Any, rests: Mapping[int, Query | None]) -> Query | None:
    """Copy a query with some of its clauses, told by identity, replaced; None where that cannot be said."""

    def relax(clause: Any) -> Any:
        if id(clause) in rests:
            return rests[id(clause)]
        match clause:
            case dict() if len(clause) == 1 and any(
                id(leaf.clause) in rests for leaf in _leaves(clause, required=True)
            ):
                ((name, body),) = clause.items()
                found = COMPOUNDS[name].relax(name, body, relax)
                if found is None:
                    raise _Inseparable
                return found
            case _:
                return clause

    try:
        relaxed: Query = relax(query)
    except _Inseparable:
        return None
    return relaxed


def unwrapped(query: Any) -> Any:
    """Copy a query with each `wrapper` replaced by the query in it."""
    match query:
        case {"wrapper": {"query": str(encoded)}} if (inner := _decoded(encoded)) is not None:
            return unwrapped(inner)
        case dict():
            return {key: unwrapped(value) for key, value in query.items()}
        case list():
            return [unwrapped(clause) for clause in query]
        case _:
            return query


def _decoded(encoded: str) -> Any:
    try:
        return json.loads(base64.b64decode(encoded, validate=True))
    except (ValueError, RecursionError):
        return None


_JOINING = ("nested", "has_child", "has_parent")


def bare(query: Any) -> Any:
    """Copy a query without what it shows beside hits: its `inner_hits` and names, which no filter here is asked for.

    Two `inner_hits` of one name in a search are an error, and of two queries of one name the last is reported.
    """
    match query:
        case dict():
            copied = {key: bare(value) for key, value in query.items() if key != "_name" or len(query) == 1}
            for name in _JOINING:
                if isinstance(copied.get(name), dict):
                    copied[name] = {key: value for key, value in copied[name].items() if key != "inner_hits"}
            return copied
        case list():
            return [bare(clause) for clause in query]
        case _:
            return query
