"""The query language as far as it is known here: two tables, of the queries that hold others and of those with words.

What is in neither is a filter. Source: Elasticsearch and OpenSearch, "Query DSL"; `hybrid`, `neural` and
`neural_sparse` are OpenSearch's, `semantic`, `pinned` and `rule` Elasticsearch's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.query.query_string import MATCH_ALL, Query, Typed, read_operators

_Children = Callable[[Query], Iterator[tuple[Any, bool]]]
_Relax = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Compound:
    """A query that holds others: in which of them the user's words may stand, and what it is without them."""

    children: _Children
    """Each inner query, and whether a document must match it."""
    relax: Callable[[str, Query, _Relax], Any]


def _of_bool(body: Query) -> Iterator[tuple[Any, bool]]:
    """`filter` and `must_not` hold no words of a user; a `should` beside others is a boost."""
    alone = not body.get("must") and not body.get("filter")
    yield from ((clause, True) for clause in _listed(body.get("must")))
    yield from ((clause, alone) for clause in _listed(body.get("should")))


def _of(key: str) -> _Children:
    def children(body: Query) -> Iterator[tuple[Any, bool]]:
        yield from ((clause, True) for clause in _listed(body.get(key)))

    return children


def _in_place(name: str, body: Query, relax: _Relax) -> Any:
    """The query as it is, each inner one relaxed.

    It matches more than before, so it no longer bears its name: hits report it.
    """
    return {name: {key: _each(value, relax) for key, value in body.items() if key != "_name"}}


def _each(value: Any, relax: _Relax) -> Any:
    return [relax(clause) for clause in value] if isinstance(value, list) else relax(value)


def _joined(name: str, body: Query, relax: _Relax) -> Any:
    """A query on other documents' fields, which are there all the same: what has none is a document of another kind.

    Where it counts them, at least so many must be there with any words, and at most so many says nothing of others.
    """
    return None if "max_children" in body else _in_place(name, body, relax)


def _of_parts(name: str, body: Query, relax: _Relax) -> Any:
    """A query on a document's parts: without any demand on them, it is none on their being there either."""
    return MATCH_ALL if relax(body["query"]) == MATCH_ALL else _in_place(name, body, relax)


def _inner(key: str) -> Callable[[str, Query, _Relax], Any]:
    """The inner query alone: what stands around it makes scores, and excludes nothing but by `min_score`."""

    def relax_inner(_: str, body: Query, relax: _Relax) -> Any:
        return None if "min_score" in body else relax(body[key])

    return relax_inner


def _inseparable(_: str, __: Query, ___: _Relax) -> None:
    """A query that cannot stand inside another one."""


COMPOUNDS: Mapping[str, Compound] = {
    "bool": Compound(_of_bool, _in_place),
    "dis_max": Compound(_of("queries"), _in_place),
    "boosting": Compound(_of("positive"), _inner("positive")),
    "constant_score": Compound(_of("filter"), _inner("filter")),
    "function_score": Compound(_of("query"), _inner("query")),
    "script_score": Compound(_of("query"), _inner("query")),
    "nested": Compound(_of("query"), _of_parts),
    "has_child": Compound(_of("query"), _joined),
    "has_parent": Compound(_of("query"), _joined),
    "pinned": Compound(_of("organic"), _inner("organic")),
    "rule": Compound(_of("organic"), _inner("organic")),
    "rule_query": Compound(_of("organic"), _inner("organic")),
    "hybrid": Compound(_of("queries"), _inseparable),
}
"""Queries that hold others, by name."""


def _listed(clauses: Any) -> Sequence[Any]:
    return clauses if isinstance(clauses, list) else [] if clauses is None else [clauses]


LINES = frozenset({"query_string", "simple_query_string"})
"""Queries whose words stand among operators, in a line."""

_Read = tuple[Typed, tuple[str, ...]] | None
_AUTOCOMPLETE_TYPES = frozenset({"bool_prefix", "phrase_prefix"})


def _never(_: Query) -> bool:
    return False


def _always(_: Query) -> bool:
    return True


def _by_type(body: Query) -> bool:
    return body.get("type") in _AUTOCOMPLETE_TYPES


def _by_star(body: Query) -> bool:
    """A line that ends in `lap*`; `*lap*` is a whole word somewhere."""
    last = str(body.get("query", "")).rsplit(None, 1)[-1:]
    return any(word.endswith("*") and not word.startswith("*") for word in last)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A query that holds words: how to read them and their fields, and whether the last may be half a word."""

    read: Callable[[str, Query], _Read]
    autocomplete: Callable[[Query], bool] = field(default=_never)


def _words(value: Any) -> Typed | None:
    return Typed(value.strip(), MATCH_ALL) if isinstance(value, str) and value.strip() else None


def _of_field(key: str) -> Callable[[str, Query], _Read]:
    """One field, its words bare or under `key`."""

    def read(_: str, body: Query) -> _Read:
        if len(body) != 1:
            return None
        ((path, value),) = body.items()
        typed = _words(value.get(key) if isinstance(value, dict) else value)
        return (typed, (path,)) if typed else None

    return read


def _of_fields(_: str, body: Query) -> _Read:
    """The words in `query`, the fields in a list."""
    typed, fields = _words(body.get("query")), _fields(body)
    return (typed, fields) if typed and fields is not None else None


def _of_meaning(_: str, body: Query) -> _Read:
    """The engine embeds the words itself: `query`, one `field`."""
    typed, path = _words(body.get("query")), body.get("field")
    return (typed, ()) if typed and isinstance(path, str) else None


def _of_embedded(key: str) -> Callable[[str, Query], _Read]:
    """The engine embeds the words of a vector field's `key` itself; its `filter` stays required."""

    def read(_: str, body: Query) -> _Read:
        values = [value for value in body.values() if isinstance(value, dict)]
        typed = _words(values[0].get(key)) if len(values) == 1 else None
        return (Typed(typed.text, _filter(values[0])), ()) if typed else None

    return read


def _filter(body: Query) -> Query:
    return {"bool": {"filter": body["filter"]}} if "filter" in body else MATCH_ALL


def _with_operators(name: str, body: Query) -> _Read:
    """Words among operators."""
    text, fields = body.get("query"), _fields(body)
    if not isinstance(text, str) or fields is None:
        return None
    typed = read_operators(name, body, text)
    return (typed, fields) if typed.text else None


def _of_knn(_: str, body: Query) -> _Read:
    """A kNN query whose vector the engine makes of words."""
    builder = body.get("query_vector_builder", {})
    inner = builder.get("text_embedding", {}) if isinstance(builder, dict) else {}
    typed = _words(inner.get("model_text")) if isinstance(inner, dict) else None
    return (Typed(typed.text, _filter(body)), ()) if typed else None


LEAVES: Mapping[str, Leaf] = {
    "match": Leaf(_of_field("query")),
    "match_phrase": Leaf(_of_field("query")),
    "match_phrase_prefix": Leaf(_of_field("query"), _always),
    "match_bool_prefix": Leaf(_of_field("query"), _always),
    "multi_match": Leaf(_of_fields, _by_type),
    "combined_fields": Leaf(_of_fields),
    "query_string": Leaf(_with_operators, _by_star),
    "simple_query_string": Leaf(_with_operators, _by_star),
    "semantic": Leaf(_of_meaning),
    "sparse_vector": Leaf(_of_meaning),
    "text_expansion": Leaf(_of_embedded("model_text")),
    "neural": Leaf(_of_embedded("query_text")),
    "neural_sparse": Leaf(_of_embedded("query_text")),
    "knn": Leaf(_of_knn),
}
"""Queries that hold words, by name."""


def _fields(body: Query) -> tuple[str, ...] | None:
    fields = body.get("fields", body.get("default_field", []))
    listed = [fields] if isinstance(fields, str) else fields
    if not isinstance(listed, list) or not all(isinstance(field, str) for field in listed):
        return None
    return tuple(listed)
