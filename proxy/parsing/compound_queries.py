"""Compound queries of the query DSL: their inner queries with their roles, and how to drop the query text from them.

A query that is neither here nor in `leaf_queries` is a filter. Source: Elasticsearch and OpenSearch, "Query DSL";
`hybrid` exists in OpenSearch only, `pinned` and `rule` in Elasticsearch only.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from proxy.parsing.words import MATCH_ALL, Query


class Role(Enum):
    """The role of an inner query in its compound query."""

    REQUIRED = auto()
    ANY_OF = auto()
    """At least one of these must match."""
    BOOST = auto()
    """Optional: it only affects the score."""
    FILTER = auto()
    """Required, but not scored: applications put their filters here, and rarely the query text."""
    FUNCTION = auto()
    """The filter of a `function_score` function: it selects the documents that get the function's score."""


class Inseparable(Exception):
    """The requirements of a query cannot be separated from the user's text."""


_Children = Callable[[Query], Iterator[tuple[Any, Role]]]
_Relax = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Compound:
    """A compound query: its inner queries with their roles, and how to relax it, that is, to drop the query text."""

    children: _Children
    relax: Callable[[str, Query, _Relax], Any]


def _of_bool(body: Query) -> Iterator[tuple[Any, Role]]:
    """`must_not` is not listed: it never holds the text that the user wants to find."""
    yield from ((clause, Role.REQUIRED) for clause in listed(body.get("must")))
    of_should = role_of_should(body)
    yield from ((clause, of_should) for clause in listed(body.get("should")))
    yield from ((clause, Role.FILTER) for clause in listed(body.get("filter")))


def role_of_should(body: Query) -> Role:
    alone = not body.get("must") and not body.get("filter")
    match body.get("minimum_should_match", 1 if alone else 0):
        case 0 | "0" | "0%":
            return Role.BOOST
        case 1 | "1":
            return Role.ANY_OF
        case _:
            return Role.REQUIRED


def _of(key: str, role: Role = Role.REQUIRED) -> _Children:
    def children(body: Query) -> Iterator[tuple[Any, Role]]:
        yield from ((clause, role) for clause in listed(body.get(key)))

    return children


def _of_function_score(body: Query) -> Iterator[tuple[Any, Role]]:
    yield from ((clause, Role.REQUIRED) for clause in listed(body.get("query")))
    for function in listed(body.get("functions")):
        if isinstance(function, dict) and "filter" in function:
            yield function["filter"], Role.FUNCTION


def _relax_each(name: str, body: Query, relax: _Relax) -> Any:
    """Keep the query and relax each inner one.

    `_name` is removed: the relaxed query matches more documents, and hits report the names of matching queries.
    """
    return {name: {key: _each(value, relax) for key, value in _unnamed(body).items()}}


def _relax_bool(name: str, body: Query, relax: _Relax) -> Any:
    role = role_of_should(body)
    if role is Role.REQUIRED or not body.get("should"):
        return _relax_each(name, body, relax)
    rest = {key: value for key, value in body.items() if key != "should"}
    relaxed = _relax_each(name, rest, relax)[name]
    return {name: {**relaxed, "should": _alternatives(body["should"], relax, role)}}


def _relax_dis_max(name: str, body: Query, relax: _Relax) -> Any:
    return {name: {**_unnamed(body), "queries": _alternatives(body["queries"], relax, Role.ANY_OF)}}


def _alternatives(value: Any, relax: _Relax, role: Role) -> Any:
    """Relax alternatives, and keep those that cannot be relaxed: of several required ones, another one is enough."""
    kept: list[Any] = []
    failed = False
    for clause in listed(value):
        try:
            kept.append(relax(clause))
        except Inseparable:
            kept.append(clause)
            failed = True
    if failed and role is Role.ANY_OF and all(new is old for new, old in zip(kept, listed(value), strict=True)):
        raise Inseparable
    return kept if isinstance(value, list) else kept[0]


def _unnamed(body: Query) -> Query:
    return {key: value for key, value in body.items() if key != "_name"}


def _each(value: Any, relax: _Relax) -> Any:
    return [relax(clause) for clause in value] if isinstance(value, list) else relax(value)


def _relax_join(name: str, body: Query, relax: _Relax) -> Any:
    """Relax a join query: a document without any related documents still does not match.

    `min_children` still holds for any related documents, but `max_children` cannot be checked without the query text.
    """
    return None if "max_children" in body else _relax_each(name, body, relax)


def _relax_nested(name: str, body: Query, relax: _Relax) -> Any:
    """Relax a `nested` query: if its inner query matches everything, documents without nested ones match, too."""
    inner = relax(body["query"])  # once: otherwise each level of nesting would double the work
    return MATCH_ALL if inner == MATCH_ALL else {name: {**_unnamed(body), "query": inner}}


def _relax_to(key: str) -> Callable[[str, Query, _Relax], Any]:
    """Relax to the inner query alone: the outer query only affects scores, unless it has `min_score`."""

    def relax_inner(_: str, body: Query, relax: _Relax) -> Any:
        return None if "min_score" in body else relax(body[key])

    return relax_inner


def _cannot_relax(_: str, __: Query, ___: _Relax) -> None:
    """Return None: this query cannot be nested in another one."""


COMPOUNDS: Mapping[str, Compound] = {
    "bool": Compound(_of_bool, _relax_bool),
    "dis_max": Compound(_of("queries", Role.ANY_OF), _relax_dis_max),
    "boosting": Compound(_of("positive"), _relax_to("positive")),
    "constant_score": Compound(_of("filter"), _relax_to("filter")),
    "function_score": Compound(_of_function_score, _relax_to("query")),
    "script_score": Compound(_of("query"), _relax_to("query")),
    "nested": Compound(_of("query"), _relax_nested),
    "has_child": Compound(_of("query"), _relax_join),
    "has_parent": Compound(_of("query"), _relax_join),
    "pinned": Compound(_of("organic"), _relax_to("organic")),
    "rule": Compound(_of("organic"), _relax_to("organic")),
    "rule_query": Compound(_of("organic"), _relax_to("organic")),
    "hybrid": Compound(_of("queries", Role.ANY_OF), _cannot_relax),
}
"""Compound queries by name."""


def listed(clauses: Any) -> Sequence[Any]:
    return clauses if isinstance(clauses, list) else [] if clauses is None else [clauses]


def ids_above(query: Any, clauses: Container[int]) -> frozenset[int]:
    """Return the ids of these clauses, and of all queries that contain one of them."""
    above: set[int] = set()
    _collect(query, clauses, above)
    return frozenset(above)


def _collect(query: Any, clauses: Container[int], above: set[int]) -> bool:
    """Add the ids in a query; return whether there are any."""
    holds = id(query) in clauses
    if not holds and isinstance(query, dict) and len(query) == 1:
        ((name, body),) = query.items()
        if name in COMPOUNDS and isinstance(body, dict):
            inner = [_collect(child, clauses, above) for child, _ in COMPOUNDS[name].children(body)]
            holds = any(inner)
    if holds:
        above.add(id(query))
    return holds
