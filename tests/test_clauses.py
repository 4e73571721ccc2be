"""The query language's two tables: for each query, where the user's words are and what it is without them."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.parsing.compound_queries import COMPOUNDS
from proxy.parsing.leaf_queries import LEAVES
from proxy.parsing.query_text import UserQuery, find_user_query
from proxy.parsing.words import MATCH_ALL
from tests import strategies
from tests.integration import wild

PASSAGE = ("title", "body")
LAPTOP: Any = {"match": {"title": "laptop"}}
TERM: Any = {"term": {"brand": "apple"}}
GOOD: Any = {"function_score": {"query": {"match": {"title": "laptop"}}, "min_score": 1}}
FEW: Any = {"has_child": {"type": "offer", "query": {"match": {"title": "laptop"}}, "max_children": 2}}
VECTOR: Any = {"knn": {"field": "v", "query_vector": [1, 2], "k": 5}}


def found(query: Any) -> UserQuery | None:
    return find_user_query(query, PASSAGE, lambda path: path != "brand")


HELD: Mapping[str, list[tuple[Any, Any]]] = {
    "bool": [
        ({"bool": {"must": LAPTOP, "_name": "x"}}, {"bool": {"must": MATCH_ALL}}),
        ({"bool": {"must": [LAPTOP], "should": None}}, {"bool": {"must": [MATCH_ALL], "should": None}}),
        # alternatives that cannot be separated from their words stay, if there is another one
        ({"bool": {"should": [LAPTOP, FEW]}}, {"bool": {"should": [MATCH_ALL, FEW]}}),
        ({"bool": {"must": [LAPTOP], "should": GOOD}}, {"bool": {"must": [MATCH_ALL], "should": GOOD}}),
        ({"bool": {"must": [LAPTOP, {"bool": {"should": [GOOD, FEW]}}]}}, None),
        ({"bool": {"should": [GOOD, TERM], "minimum_should_match": 1}}, None),
        ({"bool": {"should": [GOOD, LAPTOP], "minimum_should_match": 2}}, None),
    ],
    "dis_max": [
        ({"dis_max": {"queries": [GOOD, LAPTOP]}}, {"dis_max": {"queries": [GOOD, MATCH_ALL]}}),
        ({"dis_max": {"queries": [GOOD, FEW]}}, None),
        (
            {"dis_max": {"queries": [LAPTOP, {"match": {"body": "laptop"}}, TERM], "tie_breaker": 0.3}},
            {"dis_max": {"queries": [MATCH_ALL, MATCH_ALL, TERM], "tie_breaker": 0.3}},
        ),
    ],
    "boosting": [({"boosting": {"positive": LAPTOP, "negative": TERM, "negative_boost": 0.2}}, MATCH_ALL)],
    "constant_score": [
        ({"constant_score": {"filter": LAPTOP, "boost": 2}}, MATCH_ALL),
        (
            {"constant_score": {"filter": {"bool": {"must": [LAPTOP], "filter": [TERM]}}}},
            {"bool": {"must": [MATCH_ALL], "filter": [TERM]}},
        ),
    ],
    "function_score": [
        ({"function_score": {"query": LAPTOP, "functions": [{"filter": TERM, "weight": 2}]}}, MATCH_ALL),
        ({"function_score": {"query": LAPTOP, "field_value_factor": {"field": "sold"}, "min_score": 1}}, None),
    ],
    "script_score": [
        ({"script_score": {"query": LAPTOP, "script": {"source": "_score"}}}, MATCH_ALL),
        ({"script_score": {"query": LAPTOP, "script": {"source": "_score"}, "min_score": 0}}, None),
    ],
    "nested": [
        ({"nested": {"path": "reviews", "query": LAPTOP}}, MATCH_ALL),
        (
            {"nested": {"path": "r", "query": {"bool": {"must": [LAPTOP, TERM]}}, "inner_hits": {}, "_name": "x"}},
            {"nested": {"path": "r", "query": {"bool": {"must": [MATCH_ALL, TERM]}}}},
        ),
    ],
    "has_child": [
        ({"has_child": {"type": "offer", "query": LAPTOP}}, {"has_child": {"type": "offer", "query": MATCH_ALL}}),
        (
            {"has_child": {"type": "offer", "query": LAPTOP, "min_children": 2}},
            {"has_child": {"type": "offer", "query": MATCH_ALL, "min_children": 2}},
        ),
        ({"has_child": {"type": "offer", "query": LAPTOP, "max_children": 2}}, None),
    ],
    "has_parent": [
        (
            {"has_parent": {"parent_type": "product", "query": LAPTOP}},
            {"has_parent": {"parent_type": "product", "query": MATCH_ALL}},
        ),
        (
            {"has_parent": {"parent_type": "p", "query": {"bool": {"must": [LAPTOP], "must_not": [TERM]}}}},
            {"has_parent": {"parent_type": "p", "query": {"bool": {"must": [MATCH_ALL], "must_not": [TERM]}}}},
        ),
    ],
    "pinned": [
        ({"pinned": {"ids": ["1"], "organic": LAPTOP}}, MATCH_ALL),
        (
            {"pinned": {"docs": [{"_index": "a", "_id": "1"}], "organic": {"bool": {"must": [LAPTOP, TERM]}}}},
            {"bool": {"must": [MATCH_ALL, TERM]}},
        ),
    ],
    "rule": [({"rule": {"ruleset_ids": ["r"], "match_criteria": {"q": "x"}, "organic": LAPTOP}}, MATCH_ALL)],
    "rule_query": [({"rule_query": {"ruleset_id": "r", "match_criteria": {}, "organic": LAPTOP}}, MATCH_ALL)],
    "hybrid": [({"hybrid": {"queries": [LAPTOP, {"neural": {"v": {"query_text": "laptop", "k": 5}}}]}}, None)],
}
"""Of each query that holds others: an example, and what it is without the words; None where that cannot be said."""

SAID: Mapping[str, list[tuple[Any, Any]]] = {
    "match": [
        (LAPTOP, MATCH_ALL),
        ({"match": {"title": {"query": "laptop", "operator": "and", "_name": "x"}}}, MATCH_ALL),
    ],
    "match_phrase": [
        ({"match_phrase": {"title": "laptop"}}, MATCH_ALL),
        ({"match_phrase": {"title": {"query": "laptop", "slop": 2}}}, MATCH_ALL),
    ],
    "match_phrase_prefix": [({"match_phrase_prefix": {"title": {"query": "laptop", "max_expansions": 5}}}, MATCH_ALL)],
    "match_bool_prefix": [({"match_bool_prefix": {"title": "laptop"}}, MATCH_ALL)],
    "multi_match": [
        ({"multi_match": {"query": "laptop", "fields": ["title^2", "brand"]}}, MATCH_ALL),
        ({"multi_match": {"query": "laptop", "type": "cross_fields"}}, MATCH_ALL),
    ],
    "combined_fields": [({"combined_fields": {"query": "laptop", "fields": ["title", "body"]}}, MATCH_ALL)],
    "query_string": [
        ({"query_string": {"query": "laptop", "fields": ["title"]}}, MATCH_ALL),
        (
            {"query_string": {"query": "laptop -gaming", "default_field": "title", "boost": 2}},
            {"bool": {"must_not": [{"query_string": {"query": "gaming", "default_field": "title"}}]}},
        ),
        ({"query_string": {"query": "(laptop)"}}, MATCH_ALL),
        ({"query_string": {"query": "laptop OR brand:apple"}}, None),
    ],
    "simple_query_string": [
        ({"simple_query_string": {"query": "laptop", "fields": ["title"]}}, MATCH_ALL),
        ({"simple_query_string": {"query": "laptop", "flags": -1}}, MATCH_ALL),
    ],
    "semantic": [({"semantic": {"field": "meaning", "query": "laptop"}}, MATCH_ALL)],
    "sparse_vector": [({"sparse_vector": {"field": "s", "inference_id": "elser", "query": "laptop"}}, MATCH_ALL)],
    "text_expansion": [({"text_expansion": {"s": {"model_id": "elser", "model_text": "laptop"}}}, MATCH_ALL)],
    "neural": [
        ({"neural": {"v": {"query_text": "laptop", "model_id": "m", "k": 9}}}, MATCH_ALL),
        ({"neural": {"v": {"query_text": "laptop", "k": 9, "filter": TERM}}}, {"bool": {"filter": TERM}}),
    ],
    "neural_sparse": [({"neural_sparse": {"s": {"query_text": "laptop", "model_id": "m"}}}, MATCH_ALL)],
    "intervals": [
        ({"intervals": {"title": {"match": {"query": "laptop", "max_gaps": 0}}}}, None),
        (
            {
                "intervals": {
                    "title": {
                        "any_of": {"intervals": [{"match": {"query": "laptop"}}]},
                        "filter": {"not_containing": {"match": {"query": "bag"}}},
                    }
                }
            },
            None,
        ),
    ],
    "fuzzy": [
        ({"fuzzy": {"title": "laptop"}}, MATCH_ALL),
        ({"fuzzy": {"title": {"value": "laptop", "fuzziness": "AUTO", "boost": 2}}}, MATCH_ALL),
    ],
    "wildcard": [
        ({"wildcard": {"title": "*laptop*"}}, None),
        ({"wildcard": {"title": {"value": "*laptop*", "case_insensitive": True}}}, None),
        ({"wildcard": {"title": {"wildcard": "*laptop*", "boost": 2}}}, None),
    ],
    "span_term": [({"span_term": {"title": "laptop"}}, None)],
    "span_near": [({"span_near": {"clauses": [{"span_term": {"title": {"value": "laptop"}}}], "slop": 1}}, None)],
    "span_or": [({"span_or": {"clauses": [{"span_term": {"title": "laptop"}}]}}, None)],
    "span_first": [({"span_first": {"match": {"span_term": {"title": "laptop"}}, "end": 3}}, None)],
    "span_not": [
        (
            {"span_not": {"include": {"span_term": {"title": "laptop"}}, "exclude": {"span_term": {"title": "bag"}}}},
            None,
        )
    ],
    "span_containing": [
        (
            {
                "span_containing": {
                    "little": {"span_term": {"title": "laptop"}},
                    "big": {"span_near": {"clauses": [{"span_term": {"title": "laptop"}}], "slop": 5}},
                }
            },
            None,
        )
    ],
    "span_within": [
        (
            {"span_within": {"little": {"span_term": {"title": "laptop"}}, "big": {"span_term": {"title": "laptop"}}}},
            None,
        )
    ],
    "knn": [
        (
            {"knn": {"field": "v", "k": 5, "query_vector_builder": {"text_embedding": {"model_text": "laptop"}}}},
            MATCH_ALL,
        ),
        (
            {"knn": {"query_vector_builder": {"text_embedding": {"model_text": "laptop"}}, "filter": [TERM]}},
            {"bool": {"filter": [TERM]}},
        ),
    ],
}
"""Of each query that holds words: an example, and what stays required without them."""

EXAMPLES = [(name, *example) for table in (HELD, SAID) for name in table for example in table[name]]


def test_every_known_query_type_has_an_example() -> None:
    assert (set(COMPOUNDS), set(LEAVES)) == (set(HELD), set(SAID))


@pytest.mark.parametrize(("name", "query", "relaxed"), EXAMPLES)
def test_the_query_text_is_found_and_only_its_requirement_relaxed(name: str, query: Any, relaxed: Any) -> None:
    user_query = found(query)
    assert user_query is not None
    assert ("laptop", relaxed) == (user_query.text, user_query.relaxed)


@pytest.mark.parametrize(("name", "query", "relaxed"), EXAMPLES)
def test_clauses_around_the_query_text_stay(name: str, query: Any, relaxed: Any) -> None:
    """The same inside a `bool` with a filter and in a `wrapper`."""
    wrapper = {"wrapper": {"query": base64.b64encode(json.dumps(query).encode()).decode()}}
    for clause in (query, wrapper):
        user_query = found({"bool": {"must": [clause], "filter": [TERM], "must_not": [VECTOR]}})
        assert user_query is not None
        expected = relaxed and {"bool": {"must": [relaxed], "filter": [TERM], "must_not": [VECTOR]}}
        assert ("laptop", expected) == (user_query.text, user_query.relaxed)


@pytest.mark.parametrize(("name", "query", "relaxed"), EXAMPLES)
def test_negated_words_are_no_query_text(name: str, query: Any, relaxed: Any) -> None:
    assert found({"bool": {"must": [TERM], "must_not": [query]}}) is None


@pytest.mark.parametrize(("name", "query", "relaxed"), EXAMPLES)
def test_query_text_only_in_filters_is_found_but_not_relaxed(name: str, query: Any, relaxed: Any) -> None:
    user_query = found({"bool": {"must": [TERM], "filter": [query]}})
    assert user_query is not None
    assert ("laptop", None, "text_in_filter") == (user_query.text, user_query.relaxed, user_query.unrelaxed)


@pytest.mark.parametrize(
    "query",
    [
        {"wildcard": {"title": "*rain*jacket*"}},
        {"wildcard": {"title": {"value": "*rain**jacket*"}}},
        {"query_string": {"query": "*rain*jacket*", "fields": ["title", "body"]}},
        {"query_string": {"query": "rain*jacket*", "fields": ["title", "body"]}},
        {"query_string": {"query": "title:*rain*jacket* OR body:*rain*jacket*"}},
    ],
)
def test_a_wildcard_in_place_of_a_space_separates_words(query: Any) -> None:
    """Applications replace spaces in the text by `*`, so that both words are found in a keyword field."""
    user_query = found(query)
    assert user_query is not None
    assert user_query.text == "rain jacket"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("*rain jacket*", "rain jacket"),
        ("rain* jacket*", "rain jacket"),
        ("**Regenmäntel**", "Regenmäntel"),
        ("* rain", "* rain"),
        ("hotel 5*", "hotel 5*"),
        ("M*A*S*H", "M*A*S*H"),
        (r"C\*", "C*"),
        ("2 * 3", "2 * 3"),
    ],
)
def test_wildcards_that_mean_nothing_are_no_query_text(text: str, words: str) -> None:
    for query in ({"match": {"title": text}}, {"multi_match": {"query": text, "fields": ["title", "body"]}}):
        user_query = found(query)
        assert user_query is not None
        assert user_query.text == words


@pytest.mark.parametrize(
    ("query", "autocomplete"),
    [
        ({"match_phrase_prefix": {"title": "lap"}}, True),
        ({"match_bool_prefix": {"title": "lap"}}, True),
        ({"multi_match": {"query": "lap", "type": "bool_prefix"}}, True),
        ({"multi_match": {"query": "lap", "type": "phrase_prefix"}}, True),
        ({"bool": {"should": [{"match": {"title": "lap"}}, {"match_bool_prefix": {"title": "lap"}}]}}, False),
        (
            {"bool": {"should": [{"match_phrase_prefix": {"body": "lap"}}, {"match_bool_prefix": {"title": "lap"}}]}},
            True,
        ),
        ({"bool": {"must": [LAPTOP], "should": [{"match_bool_prefix": {"title": "lap"}}]}}, False),
        ({"bool": {"must": [{"match_bool_prefix": {"title": each}} for each in ("red", "lap")]}}, False),
        ({"query_string": {"query": "red lap* "}}, True),
        ({"simple_query_string": {"query": "lap*"}}, True),
        ({"query_string": {"query": "lap* red"}}, False),
        ({"query_string": {"query": "*lap*"}}, False),
        ({"query_string": {"query": "*red lap*"}}, False),
        ({"query_string": {"query": "red laptop OR red laptop*"}}, False),
        ({"query_string": {"query": "(red Laptop) OR laptop*"}}, False),
        ({"query_string": {"query": "red laptops OR lap*"}}, True),
        ({"query_string": {"query": "red* lap*"}}, False),
        ({"query_string": {"query": "+red* AND +lap*"}}, False),
        ({"simple_query_string": {"query": "red* lap*"}}, False),
        ({"multi_match": {"query": "lap", "type": "best_fields"}}, False),
        (LAPTOP, False),
    ],
)
def test_some_query_types_treat_the_last_word_as_a_prefix(query: Any, autocomplete: bool) -> None:  # noqa: FBT001
    user_query = found(query)
    assert user_query is not None
    assert autocomplete is user_query.autocomplete


@pytest.mark.parametrize(
    "query",
    [
        VECTOR,
        {"knn": {"v": {"vector": [1, 2], "k": 5}}},
        {"knn": {"query_vector_builder": {"text_embedding": {"model_text": ""}}}},
        {"knn": {"query_vector_builder": 7}},
        {"knn": {"query_vector_builder": {"text_embedding": 7}}},
        {"neural": {"v": {"query_image": "aGk=", "k": 5}}},
        {"neural": {}},
        {"neural_sparse": {"s": {"query_tokens": {"a": 1.0}}}},
        {"sparse_vector": {"field": "s", "query_vector": {"a": 1.0}}},
        {"semantic": {"query": "laptop"}},
        {"text_expansion": {"s": 7}},
        {"constant_score": {"filter": TERM}},
        {"function_score": {"functions": []}},
        {"pinned": {"ids": ["1"], "organic": {"match_all": {}}}},
        {"wrapper": {"query": "no base64"}},
        {"wrapper": {"query": base64.b64encode(b"no json").decode()}},
        {"wildcard": {"title": "lap*"}},
        {"wildcard": {"title": "*lap"}},
        {"wildcard": {"title": "*"}},
        {"wildcard": {"title": "**"}},
        {"wildcard": {"title": "*lap*top"}},
        {"wildcard": {"title": "***"}},
        {"wildcard": {"title": "*lap?op*"}},
        {"wildcard": {"title": r"*lap\**"}},
        {"wildcard": {"title": {"value": 7}}},
        {"wildcard": {"title": "*laptop*", "boost": 2}},
        {"more_like_this": {"like": "laptop", "fields": ["title"]}},
    ],
)
def test_a_query_without_query_text_has_none(query: Any) -> None:
    assert found(query) is None


@pytest.mark.parametrize(("least", "expected"), [(1, 1), (2, 2), ("75%", "75%"), (None, None)])
def test_minimum_should_match_stays(least: Any, expected: Any) -> None:
    said = {} if least is None else {"minimum_should_match": least}
    user_query = found({"bool": {"should": [LAPTOP, TERM, {"term": {"colour": "red"}}], **said}})
    assert user_query is not None
    kept = {} if expected is None else {"minimum_should_match": expected}
    assert {"bool": {"should": [MATCH_ALL, TERM, {"term": {"colour": "red"}}], **kept}} == user_query.relaxed


def test_kibanas_query_text_is_not_confused_with_a_field_value() -> None:
    """`laptop and brand:apple` arrives as two clauses of `must`, the second a `match`."""
    words = {"multi_match": {"type": "best_fields", "query": "laptop", "lenient": True}}
    value = {"bool": {"should": [{"match": {"brand": "apple"}}], "minimum_should_match": 1}}
    user_query = found({"bool": {"must": [words, value]}})
    assert UserQuery("laptop", {"bool": {"must": [MATCH_ALL, value]}}) == user_query


def _around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Put a query into one that demands no more than it."""
    wrapped = inner.map(lambda query: {"wrapper": {"query": base64.b64encode(json.dumps(query).encode()).decode()}})
    return st.one_of(
        inner.map(lambda query: {"constant_score": {"filter": query}}),
        inner.map(lambda query: {"function_score": {"query": query, "boost": 2}}),
        inner.map(lambda query: {"script_score": {"query": query, "script": "1"}}),
        inner.map(lambda query: {"boosting": {"positive": query, "negative": TERM, "negative_boost": 0.1}}),
        inner.map(lambda query: {"pinned": {"ids": [], "organic": query}}),
        inner.map(lambda query: {"rule": {"ruleset_ids": [], "match_criteria": {}, "organic": query}}),
        st.lists(inner, min_size=1, max_size=3).map(lambda queries: {"dis_max": {"queries": queries}}),
        st.lists(inner, min_size=1, max_size=3).map(lambda queries: {"bool": {"must": queries}}),
        st.tuples(inner, inner).map(lambda two: {"bool": {"should": [two[0]], "filter": [two[1]]}}),
        st.tuples(inner, inner).map(lambda two: {"bool": {"should": list(two), "minimum_should_match": 1}}),
        st.tuples(inner, inner).map(lambda two: {"bool": {"must": [two[0]], "must_not": [two[1]]}}),
        wrapped,
    )


trees = st.recursive(strategies.leaves | st.just(TERM), _around, max_leaves=6).map(
    lambda query: json.loads(json.dumps(query))
)
"""Queries of every kind that a small evaluator can judge."""

_INNER = {
    "constant_score": "filter",
    "function_score": "query",
    "script_score": "query",
    "boosting": "positive",
    "pinned": "organic",
    "rule": "organic",
}


def admits(query: Any, document: strategies.Document, words: str | None = None) -> bool:
    """Whether a document matches, where clauses that ask for `words` and score are taken for fulfilled."""
    ((name, body),) = query.items()
    if name in _INNER:
        return admits(body[_INNER[name]], document, words)
    match name:
        case "match_all":
            return True
        case "wrapper":
            return admits(json.loads(base64.b64decode(body["query"])), document, words)
        case "dis_max":
            return any(admits(each, document, words) for each in body["queries"])
        case "bool":
            return _admits_bool(body, document, words)
        case _:
            return _says(name, body, words) or _holds(name, body, document)


def _admits_bool(body: Any, document: strategies.Document, words: str | None) -> bool:
    clauses = {occur: body.get(occur, []) for occur in ("must", "filter", "must_not", "should")}
    least = body.get("minimum_should_match", int(not clauses["must"] and not clauses["filter"]))
    return (
        all(admits(each, document, words) for each in clauses["must"])
        and all(admits(each, document) for each in clauses["filter"])
        and not any(admits(each, document) for each in clauses["must_not"])
        and sum(admits(each, document, words) for each in clauses["should"]) >= min(least, len(clauses["should"]))
    )


def _text(name: str, body: Any) -> tuple[str, list[str]]:
    if name == "multi_match":
        return body["query"], body["fields"]
    ((field, value),) = body.items()
    return (value["query"] if isinstance(value, dict) else value), [field]


def _says(name: str, body: Any, words: str | None) -> bool:
    text, fields = _text(name, body)
    return name != "term" and words is not None and text in {words, *words.split()} and fields != ["brand"]


def _holds(name: str, body: Any, document: strategies.Document) -> bool:
    text, fields = _text(name, body)
    return any(word in document[field] for field in fields for word in ([text] if name == "term" else text.split()))


@given(trees, strategies.documents)
def test_the_relaxed_query_admits_whatever_the_query_admits(query: Any, document: strategies.Document) -> None:
    user_query = found(query)
    if user_query and user_query.relaxed and admits(query, document):
        assert admits(user_query.relaxed, document)


@given(trees, strategies.documents)
def test_the_relaxed_query_admits_more_only_by_the_query_text(query: Any, document: strategies.Document) -> None:
    user_query = found(query)
    if user_query and user_query.relaxed and admits(user_query.relaxed, document):
        assert admits(query, document, user_query.text)


def _is_utf8(query: Any) -> bool:
    try:
        return bool(json.dumps(query, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return False


@given(wild.queries)
def test_any_query_is_parsed_without_an_error(query: Any) -> None:
    """With the fuzzer's queries, which contain each clause; half an emoji is bypassed earlier."""
    assume(_is_utf8(query))
    found = find_user_query(query, ("title", "description"), {"title", "description"}.__contains__, None)
    assert found is None or isinstance(found, UserQuery)
