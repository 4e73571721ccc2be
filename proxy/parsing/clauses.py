"""The query language as far as it is known here: two tables, of the queries that hold others and of those with words.

What is in neither is a filter. Source: Elasticsearch and OpenSearch, "Query DSL"; `hybrid`, `neural` and
`neural_sparse` are OpenSearch's, `semantic`, `pinned` and `rule` Elasticsearch's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from proxy.parsing.query_string import IsText, read_line
from proxy.parsing.words import MATCH_ALL, Query, Typed, unescaped


class Role(Enum):
    """What an inner query means for a document that the query around it matches."""

    REQUIRED = auto()
    ANY_OF = auto()
    """It matches one of these at least."""
    BOOST = auto()
    """It need not match: the score alone depends on it."""
    FILTER = auto()
    """Required, and of no score: where an application writes its filters, and hardly ever the words."""
    FUNCTION = auto()
    """The filter of a function of `function_score`: it says which documents get its score."""


_Children = Callable[[Query], Iterator[tuple[Any, Role]]]
_Relax = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Compound:
    """A query that holds others: which ones and in which role, and what it is without the words in them."""

    children: _Children
    relax: Callable[[str, Query, _Relax], Any]


def _of_bool(body: Query) -> Iterator[tuple[Any, Role]]:
    """`must_not` holds no words that anybody wants."""
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


def _in_place(name: str, body: Query, relax: _Relax) -> Any:
    """The query as it is, each inner one relaxed.

    It matches more than before, so it no longer bears its name: hits report it.
    """
    return {name: {key: _each(value, relax) for key, value in _unnamed(body).items()}}


def _unnamed(body: Query) -> Query:
    return {key: value for key, value in body.items() if key != "_name"}


def _each(value: Any, relax: _Relax) -> Any:
    return [relax(clause) for clause in value] if isinstance(value, list) else relax(value)


def _joined(name: str, body: Query, relax: _Relax) -> Any:
    """A query on other documents' fields, which are there all the same: what has none is a document of another kind.

    Where it counts them, at least so many must be there with any words, and at most so many says nothing of others.
    """
    return None if "max_children" in body else _in_place(name, body, relax)


def _of_parts(name: str, body: Query, relax: _Relax) -> Any:
    """A query on a document's parts: without any demand on them, it is none on their being there either."""
    inner = relax(body["query"])  # once: each level of nesting would double the work
    return MATCH_ALL if inner == MATCH_ALL else {name: {**_unnamed(body), "query": inner}}


def _inner(key: str) -> Callable[[str, Query, _Relax], Any]:
    """The inner query alone: what stands around it makes scores, and excludes nothing but by `min_score`."""

    def relax_inner(_: str, body: Query, relax: _Relax) -> Any:
        return None if "min_score" in body else relax(body[key])

    return relax_inner


def _inseparable(_: str, __: Query, ___: _Relax) -> None:
    """A query that cannot stand inside another one."""


COMPOUNDS: Mapping[str, Compound] = {
    "bool": Compound(_of_bool, _in_place),
    "dis_max": Compound(_of("queries", Role.ANY_OF), _in_place),
    "boosting": Compound(_of("positive"), _inner("positive")),
    "constant_score": Compound(_of("filter"), _inner("filter")),
    "function_score": Compound(_of_function_score, _inner("query")),
    "script_score": Compound(_of("query"), _inner("query")),
    "nested": Compound(_of("query"), _of_parts),
    "has_child": Compound(_of("query"), _joined),
    "has_parent": Compound(_of("query"), _joined),
    "pinned": Compound(_of("organic"), _inner("organic")),
    "rule": Compound(_of("organic"), _inner("organic")),
    "rule_query": Compound(_of("organic"), _inner("organic")),
    "hybrid": Compound(_of("queries", Role.ANY_OF), _inseparable),
}
"""Queries that hold others, by name."""


def listed(clauses: Any) -> Sequence[Any]:
    return clauses if isinstance(clauses, list) else [] if clauses is None else [clauses]


LINES = frozenset({"query_string", "simple_query_string"})
"""Queries whose words stand among operators, in a line."""

_Read = tuple[Typed, tuple[str, ...]] | None
_Reads = Callable[[str, Query, IsText], _Read]


def _never(_: Query) -> bool:
    return False


def _always(_: Query) -> bool:
    return True


def _by_type(*types: str) -> Callable[[Query], bool]:
    def has_type(body: Query) -> bool:
        return body.get("type") in types

    return has_type


def _by_star(body: Query) -> bool:
    """A line that ends in `lap*`; stars around the words or around all of them say that they stand somewhere."""
    line = str(body.get("query", "")).strip()
    last = line.rsplit(None, 1)[-1:]
    return not line.startswith("*") and any(word.endswith("*") and not word.startswith("*") for word in last)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A query that holds words: how to read them and their fields."""

    read: _Reads
    autocomplete: Callable[[Query], bool] = field(default=_never)
    """Whether the last word may be half a word."""
    quotes: Callable[[Query], bool] = field(default=_never)
    """Whether the words stand together, as an application spells what a user put in quotes."""
    last_resort: bool = False
    """Too much of it is not read for kNN: its words count where no other clause holds any."""


def _words(value: Any) -> Typed | None:
    return Typed(unescaped(value.strip()), MATCH_ALL) if isinstance(value, str) and value.strip() else None


def _of_field(key: str) -> _Reads:
    """One field, its words bare or under `key`."""

    def read(_: str, body: Query, __: IsText) -> _Read:
        if len(body) != 1:
            return None
        ((path, value),) = body.items()
        typed = _words(value.get(key) if isinstance(value, dict) else value)
        return (typed, (path,)) if typed else None

    return read


def _of_fields(_: str, body: Query, __: IsText) -> _Read:
    """The words in `query`, the fields in a list."""
    typed, fields = _words(body.get("query")), _fields(body)
    return (typed, fields) if typed and fields is not None else None


def _of_meaning(_: str, body: Query, __: IsText) -> _Read:
    """The engine embeds the words itself: `query`, one `field`."""
    typed, path = _words(body.get("query")), body.get("field")
    return (typed, ()) if typed and isinstance(path, str) else None


def _of_embedded(key: str) -> _Reads:
    """The engine embeds the words of a vector field's `key` itself; its `filter` stays required."""

    def read(_: str, body: Query, __: IsText) -> _Read:
        values = [value for value in body.values() if isinstance(value, dict)]
        typed = _words(values[0].get(key)) if len(values) == 1 else None
        return (Typed(typed.text, _filter(values[0])), ()) if typed else None

    return read


def _filter(body: Query) -> Query:
    return {"bool": {"filter": body["filter"]}} if "filter" in body else MATCH_ALL


def _with_operators(name: str, body: Query, is_text: IsText) -> _Read:
    """Words among operators."""
    text, fields = body.get("query"), _fields(body)
    if not isinstance(text, str) or fields is None:
        return None
    typed = read_line(name, body, text, is_text)
    return (typed, fields) if typed.text else None


def _of_knn(_: str, body: Query, __: IsText) -> _Read:
    """A kNN query whose vector the engine makes of words."""
    builder = body.get("query_vector_builder", {})
    inner = builder.get("text_embedding", {}) if isinstance(builder, dict) else {}
    typed = _words(inner.get("model_text")) if isinstance(inner, dict) else None
    return (Typed(typed.text, _filter(body)), ()) if typed else None


def _of_intervals(_: str, body: Query, __: IsText) -> _Read:
    """The words of all rules, in order; a rule's `filter` compares places, and holds none that must occur."""
    paths = [path for path in body if path not in {"boost", "_name"}]
    return _said_within({path: body[path] for path in paths}, {"query"}, tuple(paths[:1]))


def _of_spans(name: str, body: Query, _: IsText) -> _Read:
    """The words of all spans, in order, but for those in `exclude`."""
    terms = [path for span in _nested_bodies({name: body}, "span_term") for path in span]
    return _said_within({name: body}, {"value", *terms}, tuple(dict.fromkeys(terms)))


def _said_within(query: Query, keys: AbstractSet[str], fields: tuple[str, ...]) -> _Read:
    typed = _words(" ".join(dict.fromkeys(_texts(query, keys))))
    return (Typed(typed.text, None), fields) if typed and fields else None


_NOT_WANTED = frozenset({"exclude", "filter"})


def _nested_bodies(query: Any, name: str) -> Iterator[Query]:
    """The bodies of the queries of this name, wherever they are in another."""
    match query:
        case dict():
            for key, value in query.items():
                if key == name and isinstance(value, dict):
                    yield value
                elif key not in _NOT_WANTED:
                    yield from _nested_bodies(value, name)
        case list():
            for each in query:
                yield from _nested_bodies(each, name)
        case _:
            pass


def _texts(query: Any, keys: AbstractSet[str]) -> Iterator[str]:
    match query:
        case dict():
            for name, value in query.items():
                if name in keys and isinstance(value, str):
                    yield value
                elif name not in _NOT_WANTED:
                    yield from _texts(value, keys)
        case list():
            for each in query:
                yield from _texts(each, keys)
        case _:
            pass


_SPANS = Leaf(_of_spans, last_resort=True)

LEAVES: Mapping[str, Leaf] = {
    "match": Leaf(_of_field("query")),
    "match_phrase": Leaf(_of_field("query"), quotes=_always),
    "match_phrase_prefix": Leaf(_of_field("query"), _always),
    "match_bool_prefix": Leaf(_of_field("query"), _always),
    "multi_match": Leaf(_of_fields, _by_type("bool_prefix", "phrase_prefix"), _by_type("phrase")),
    "combined_fields": Leaf(_of_fields),
    "query_string": Leaf(_with_operators, _by_star),
    "simple_query_string": Leaf(_with_operators, _by_star),
    "semantic": Leaf(_of_meaning),
    "sparse_vector": Leaf(_of_meaning),
    "text_expansion": Leaf(_of_embedded("model_text")),
    "neural": Leaf(_of_embedded("query_text")),
    "neural_sparse": Leaf(_of_embedded("query_text")),
    "knn": Leaf(_of_knn),
    "intervals": Leaf(_of_intervals, last_resort=True),
    "span_term": _SPANS,
    "span_near": _SPANS,
    "span_or": _SPANS,
    "span_first": _SPANS,
    "span_not": _SPANS,
    "span_containing": _SPANS,
    "span_within": _SPANS,
}
"""Queries that hold words, by name."""


def _fields(body: Query) -> tuple[str, ...] | None:
    fields = body.get("fields", body.get("default_field", []))
    listed = [fields] if isinstance(fields, str) else fields
    if not isinstance(listed, list) or not all(isinstance(field, str) for field in listed):
        return None
    return tuple(listed)
