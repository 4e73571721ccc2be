"""Leaf queries of the query DSL: which of them have query text, how to read it, and in which fields it is searched.

Source: Elasticsearch and OpenSearch, "Query DSL"; `neural` and `neural_sparse` exist in OpenSearch only, `semantic` in
Elasticsearch only.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from proxy.bounds import QUERY_STRING_LINE
from proxy.parsing.query_string import FieldKinds, read_line
from proxy.parsing.words import MATCH_ALL, Query, Typed, unescaped, without_marks

LINES = frozenset({"query_string", "simple_query_string"})
"""Queries in the `query_string` syntax, with operators in the text."""

_Read = tuple[Typed, tuple[str, ...]] | None
_Reads = Callable[[str, Query, FieldKinds], _Read]


def _never(_: Query) -> bool:
    return False


def _always(_: Query) -> bool:
    return True


def _by_type(*types: str) -> Callable[[Query], bool]:
    def has_type(body: Query) -> bool:
        return body.get("type") in types

    return has_type


def _ends_in_star(body: Query) -> bool:
    """Whether only the last word ends in `*`; a line that starts with `*`, or a word `*lap*`, is a substring search.

    An application that adds `*` to each word (`red* lap*`), or repeats the word in full (`laptop OR laptop*`), does not
    take the last word for incomplete.
    """
    line = str(body.get("query", "")).strip()
    *before, last = line.rsplit(None, 1) or [""]
    ends = last.endswith("*") and not last.startswith("*") and not line.startswith("*")
    return ends and not ("* " in "".join(before) + " " or _has_word(line, last.rstrip("*")))


_WHOLE_WORD = re.compile(r"(?<!\*)\b\w++(?!\*)")


def _has_word(line: str, word: str) -> bool:
    """Whether a word is in a line without a `*`, in any case."""
    folded = word.casefold()
    return len(line) <= QUERY_STRING_LINE and any(folded == found.casefold() for found in _WHOLE_WORD.findall(line))


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf query with query text: how to read the text and its fields."""

    read: _Reads
    autocomplete: Callable[[Query], bool] = field(default=_never)
    """Whether the last word may be incomplete."""
    quotes: Callable[[Query], bool] = field(default=_never)
    """Whether it is a phrase query, which applications write for text in quotes."""
    last_resort: bool = False
    """Only used if no other clause has query text: too little of its syntax is understood to relax it for kNN."""
    is_pattern: bool = False
    """Compares the text with a part of a value, in keyword fields as well."""


def _words(value: Any) -> Typed | None:
    """Read the text of a query; one of wildcards alone has no words."""
    if not isinstance(value, str) or not "".join(value.split()).strip("*?"):
        return None
    return Typed(unescaped(without_marks(value).strip()), MATCH_ALL)


def _of_field(key: str) -> _Reads:
    """Read a query on one field, with the text as its value or under `key`."""

    def read(_: str, body: Query, __: FieldKinds) -> _Read:
        if len(body) != 1:
            return None
        ((path, value),) = body.items()
        typed = _words(value.get(key) if isinstance(value, dict) else value)
        return (typed, (path,)) if typed else None

    return read


def _of_fields(_: str, body: Query, __: FieldKinds) -> _Read:
    """Read the text in `query` and the fields in a list."""
    typed, fields = _words(body.get("query")), _fields(body)
    return (typed, fields) if typed and fields is not None else None


def _of_engine_text(_: str, body: Query, __: FieldKinds) -> _Read:
    """Read a query whose text the engine itself embeds: `query`, and one `field`."""
    typed, path = _words(body.get("query")), body.get("field")
    return (typed, ()) if typed and isinstance(path, str) else None


def _of_embedded(key: str) -> _Reads:
    """Read a vector query whose `key` the engine itself embeds; its `filter` stays required."""

    def read(_: str, body: Query, __: FieldKinds) -> _Read:
        values = [value for value in body.values() if isinstance(value, dict)]
        typed = _words(values[0].get(key)) if len(values) == 1 else None
        return (Typed(typed.text, _filter(values[0])), ()) if typed else None

    return read


def _filter(body: Query) -> Query:
    return {"bool": {"filter": body["filter"]}} if "filter" in body else MATCH_ALL


def _with_operators(name: str, body: Query, kinds: FieldKinds) -> _Read:
    """Read text with operators."""
    text, fields = body.get("query"), _fields(body)
    if not isinstance(text, str) or fields is None:
        return None
    searched = frozenset(path.split("^", 1)[0] for path in fields)
    own = kinds._replace(is_central=lambda path: path in searched or kinds.is_central(path))
    typed = read_line(name, body, text, own)
    return (typed, typed.fields or fields) if typed.text else None


def _of_knn(_: str, body: Query, __: FieldKinds) -> _Read:
    """Read a kNN query whose vector the engine makes from text."""
    builder = body.get("query_vector_builder", {})
    inner = builder.get("text_embedding", {}) if isinstance(builder, dict) else {}
    typed = _words(inner.get("model_text")) if isinstance(inner, dict) else None
    return (Typed(typed.text, _filter(body)), ()) if typed else None


_SUBSTRING = re.compile(r"\*([^?\\]+)\*")


def _of_wildcard(_: str, body: Query, __: FieldKinds) -> _Read:
    """Read a search for `*text*` or `*each*word*`; other patterns are those of filters and of autocomplete queries."""
    if len(body) != 1:
        return None
    ((path, said),) = body.items()
    pattern = said.get("value", said.get("wildcard")) if isinstance(said, dict) else said
    found = _SUBSTRING.fullmatch(pattern) if isinstance(pattern, str) else None
    typed = _words(" ".join(found[1].replace("*", " ").split())) if found else None
    return (Typed(typed.text, None), (path,)) if typed else None


def _of_intervals(_: str, body: Query, __: FieldKinds) -> _Read:
    """Read the text of all rules in order; `filter` only compares positions, and none of its words must occur."""
    paths = [path for path in body if path not in {"boost", "_name"}]
    return _text_within({path: body[path] for path in paths}, {"query"}, tuple(paths[:1]))


def _of_spans(name: str, body: Query, _: FieldKinds) -> _Read:
    """Read the text of all spans in order, except that in `exclude`."""
    terms = [path for span in _nested_bodies({name: body}, "span_term") for path in span]
    return _text_within({name: body}, {"value", *terms}, tuple(dict.fromkeys(terms)))


def _text_within(query: Query, keys: AbstractSet[str], fields: tuple[str, ...]) -> _Read:
    typed = _words(" ".join(dict.fromkeys(_texts(query, keys))))
    return (Typed(typed.text, None), fields) if typed and fields else None


_NOT_QUERY_TEXT = frozenset({"exclude", "filter"})


def _nested_bodies(query: Any, name: str) -> Iterator[Any]:
    """Yield the bodies of all queries with this name, at any depth."""
    return _values(query, lambda key, value: key == name and isinstance(value, dict))


def _texts(query: Any, keys: AbstractSet[str]) -> Iterator[Any]:
    return _values(query, lambda key, value: key in keys and isinstance(value, str))


def _values(query: Any, is_wanted: Callable[[str, Any], bool]) -> Iterator[Any]:
    """Yield the wanted members at any depth, except in what holds no query text."""
    match query:
        case dict():
            for key, value in query.items():
                if is_wanted(key, value):
                    yield value
                elif key not in _NOT_QUERY_TEXT:
                    yield from _values(value, is_wanted)
        case list():
            for each in query:
                yield from _values(each, is_wanted)
        case _:
            pass


_SPANS = Leaf(_of_spans, last_resort=True)

LEAVES: Mapping[str, Leaf] = {
    "match": Leaf(_of_field("query")),
    "match_phrase": Leaf(_of_field("query"), quotes=_always),
    "match_phrase_prefix": Leaf(_of_field("query"), _always),
    "match_bool_prefix": Leaf(_of_field("query"), _always),
    "fuzzy": Leaf(_of_field("value")),
    "multi_match": Leaf(_of_fields, _by_type("bool_prefix", "phrase_prefix"), _by_type("phrase")),
    "combined_fields": Leaf(_of_fields),
    "query_string": Leaf(_with_operators, _ends_in_star),
    "simple_query_string": Leaf(_with_operators, _ends_in_star),
    "semantic": Leaf(_of_engine_text),
    "sparse_vector": Leaf(_of_engine_text),
    "text_expansion": Leaf(_of_embedded("model_text")),
    "neural": Leaf(_of_embedded("query_text")),
    "neural_sparse": Leaf(_of_embedded("query_text")),
    "knn": Leaf(_of_knn),
    "intervals": Leaf(_of_intervals, last_resort=True),
    "wildcard": Leaf(_of_wildcard, last_resort=True, is_pattern=True),
    "span_term": _SPANS,
    "span_near": _SPANS,
    "span_or": _SPANS,
    "span_first": _SPANS,
    "span_not": _SPANS,
    "span_containing": _SPANS,
    "span_within": _SPANS,
}
"""Leaf queries with query text, by name."""


WHOLE_VALUES = frozenset({"term", "terms", "terms_set"})
"""Queries that compare with whole values, not with parts of them."""

_UNREAD = frozenset({"prefix", "regexp", "more_like_this", "span_multi"}) | WHOLE_VALUES
_OPTIONS = frozenset({"boost", "_name"})


def unread_fields(name: str, body: Query) -> Iterator[str]:
    """Yield the fields in which a leaf query compares words, or parts of words, that are not read as query text."""
    leaf = LEAVES.get(name)
    if name not in _UNREAD and (leaf is None or not leaf.last_resort):
        return
    if name.startswith("span_"):
        for query in ("span_term", "prefix", "wildcard", "fuzzy", "regexp"):
            yield from (path for found in _nested_bodies({name: body}, query) for path in found)
    elif name == "more_like_this":
        yield from _fields(body) or ()
    else:
        yield from body.keys() - _OPTIONS


def unread_words(name: str, body: Query) -> Iterator[str]:
    """Yield the words, or parts of words, of such a query."""
    yield from _strings(body, _VALUES.union(unread_fields(name, body)))


_VALUES = frozenset({"value", "wildcard", "query", "prefix", "pattern", "term", "terms", "like"})


def _strings(query: Any, keys: AbstractSet[str], *, held: bool = False) -> Iterator[str]:
    """Yield the strings and the lists of strings that one of these keys holds, at any depth."""
    match query:
        case str() if held:
            yield query
        case dict():
            for key, value in query.items():
                if key not in _NOT_QUERY_TEXT:
                    yield from _strings(value, keys, held=key in keys)
        case list():
            for each in query:
                yield from _strings(each, keys, held=held)
        case _:
            pass


def _fields(body: Query) -> tuple[str, ...] | None:
    fields = body.get("fields", body.get("default_field", []))
    listed = [fields] if isinstance(fields, str) else fields
    if not isinstance(listed, list) or not all(isinstance(field, str) for field in listed):
        return None
    return tuple(listed)
