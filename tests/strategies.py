"""Hypothesis strategies named after the domain: hits, rankings, search bodies, engine answers, query trees."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from proxy.ranking.hits import DocKey, Hit, Ranking, Scored
from proxy.ranking.search_response import SearchAnswer, Total

WORDS = ("laptop", "gaming", "apple")
FIELDS = ("title", "body", "brand")
"""`brand` is a keyword, the others are text."""
Document = Mapping[str, frozenset[str]]

doc_keys = st.builds(DocKey, st.sampled_from(["products", "books"]), st.sampled_from("abcdefghijkl"), st.just(""))
orders = st.lists(doc_keys, unique=True, max_size=12).map(tuple)
"""Documents, best first, each once."""
weights = st.floats(0, 10)
scores = st.floats(-1e6, 1e6)

finite = st.floats(allow_nan=False, allow_infinity=False)
json_scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | finite | st.text()
json_values = st.recursive(
    json_scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def rankings(draw: st.DrawFn) -> Ranking:
    """Documents with falling scores."""
    keys = draw(orders)
    falling = sorted(draw(st.lists(scores, min_size=len(keys), max_size=len(keys))), reverse=True)
    return tuple(Scored(key, score) for key, score in zip(keys, falling, strict=True))


def compact(value: Any) -> bytes:
    """Write JSON as the engine does, without a space."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def pretty(value: Any, depth: int = 0) -> str:
    """Write JSON as the engine does for `?pretty`: Jackson's default pretty printer."""
    inner, outer = "\n" + "  " * (depth + 1), "\n" + "  " * depth
    match value:
        case {} if value:
            lines = [f"{_scalar(key)} : {pretty(item, depth + 1)}" for key, item in value.items()]
            return "{" + inner + ("," + inner).join(lines) + outer + "}"
        case [_, *_]:
            return "[" + inner + ("," + inner).join(pretty(item, depth + 1) for item in value) + outer + "]"
        case {}:
            return "{ }"
        case []:
            return "[ ]"
        case _:
            return _scalar(value)


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """An engine's answer to a search, as a JSON value."""
    keys = draw(orders)[:4]
    hits = [
        {"_index": key.index, "_id": key.id, "_score": draw(st.floats(0, 100)), "_source": draw(json_values)}
        | draw(st.dictionaries(st.sampled_from(["fields", "sort", "highlight"]), json_values, max_size=2))
        for key in keys
    ]
    totals: list[dict[str, Any]] = [
        {},
        {"total": len(hits)},
        {"total": {"value": len(hits), "relation": "eq"}},
        {"total": -1},
    ]
    total = draw(st.sampled_from(totals))
    body: dict[str, Any] = {
        "took": draw(st.integers(0, 1000)),
        "timed_out": False,
        "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0},
        "hits": {**total, "max_score": draw(st.none() | st.floats(0, 100)), "hits": hits},
    }
    return body | draw(st.dictionaries(st.sampled_from(["aggregations", "suggest", "profile"]), json_values))


def hit(key: DocKey, score: float) -> Hit:
    return Hit(key, score, {"_id": msgspec.Raw(compact(key.id)), "_score": msgspec.Raw(compact(score))})


def answer_of(hits: Sequence[Hit], total: Total | None, max_score: float | None) -> SearchAnswer:
    """An answer opened already, of these hits."""
    return SearchAnswer({}, {}, tuple(hits), total, total_is_number=False, max_score=max_score, whole=True)


def _leaf(name: str, field: str, said: str) -> Any:
    match name:
        case "match" | "term":
            return {name: {field: said}}
        case "match long":
            return {"match": {field: {"query": said, "boost": 2}}}
        case _:
            return {"multi_match": {"query": said, "fields": [field, "body"]}}


leaves = st.builds(
    _leaf,
    st.sampled_from(["match", "match long", "term", "multi_match"]),
    st.sampled_from(FIELDS),
    st.sampled_from([*WORDS, "gaming laptop"]),
)


def _bools(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    clauses = st.lists(inner, min_size=1, max_size=3) | inner
    occurs = st.fixed_dictionaries({}, optional=dict.fromkeys(("must", "should", "filter", "must_not"), clauses))
    least = st.sampled_from([{}, {"minimum_should_match": 0}, {"minimum_should_match": 1}, {"minimum_should_match": 2}])
    return st.builds(lambda bool_, least: {"bool": bool_ | least}, occurs, least)


query_trees = st.recursive(leaves | st.just({"match_all": {}}), _bools, max_leaves=8).map(
    lambda query: json.loads(json.dumps(query))  # no clause is the same object as another
)
"""Queries of bool, match, multi_match, term and match_all."""


@st.composite
def _with_words(draw: st.DrawFn) -> Any:
    """Demand words beside what a filter and another clause demand, so that each decides often."""
    words = {"match": {"title": draw(st.sampled_from(WORDS))}}
    others = {occur: [draw(query_trees)] for occur in draw(st.sets(st.sampled_from(["must", "filter", "must_not"])))}
    return {"bool": others | {"must": [words, *others.get("must", [])]}}


user_queries = query_trees | _with_words()
"""Query trees, half of them with words that a user typed and some other demand."""

documents: st.SearchStrategy[Document] = st.fixed_dictionaries(
    dict.fromkeys(FIELDS, st.frozensets(st.sampled_from(WORDS)))
)
"""Which words stand in which field."""

query_lines = st.lists(
    st.sampled_from(
        [*WORDS, "-gaming", "+apple", '"gaming laptop"', "brand:apple", "AND", "OR", "NOT", "(", "la*", "~2"]
    )
).map(" ".join)
"""Lines of `query_string` syntax."""

search_bodies = st.dictionaries(
    st.sampled_from(["query", "from", "size", "sort", "_source", "aggs", "knn", "fields", "zzz", "track_total_hits"])
    | st.text(max_size=3),
    json_values | query_trees | st.integers(0, 20),
)
"""Bodies of searches, right and wrong."""


def cut(whole: bytes) -> st.SearchStrategy[list[bytes]]:
    """The same bytes in pieces, as a network may bring them."""
    places = st.lists(st.integers(0, len(whole)), max_size=6).map(sorted)
    return places.map(
        lambda at: [whole[a:b] for a, b in zip([0, *at], [*at, len(whole)], strict=True) if a < b or not whole]
    )
