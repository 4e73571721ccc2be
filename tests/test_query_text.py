"""The user's words in a query, and the query without the demand for them and for nothing else."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.bounds import QUERY_STRING_LINE, QUERY_STRING_LINES, TEXT_CLAUSES, WRAPPED_BYTES
from proxy.parsing.query_string import read_line
from proxy.parsing.query_text import UserQuery, find_user_query
from proxy.parsing.relaxing import bare
from proxy.parsing.words import MATCH_ALL
from tests import strategies

PASSAGE = ("title", "body")
KEYWORDS = frozenset({"brand", "sku"})


def is_text(path: str) -> bool:
    return path.split("^", 1)[0] not in KEYWORDS


def found(query: Any) -> UserQuery | None:
    return find_user_query(query, PASSAGE, is_text)


def match(field: str, text: str = "laptop") -> dict[str, Any]:
    return {"match": {field: text}}


TERM = {"term": {"brand": "apple"}}
RANGE = {"range": {"price": {"lt": 9}}}


@pytest.mark.parametrize(
    "query",
    [
        match("title"),
        {"match": {"title": {"query": "laptop", "operator": "and"}}},
        {"match_phrase": {"title": " laptop "}},
        {"match_phrase": {"title": {"query": "laptop", "slop": 2}}},
        {"multi_match": {"query": "laptop", "fields": ["title^3", "body"]}},
        {"multi_match": {"query": "laptop"}},
        {"multi_match": {"query": "laptop", "fields": "title"}},
        {"multi_match": {"query": "laptop", "fields": ["*_text", "brand"]}},
        {"combined_fields": {"query": "laptop", "fields": ["title", "body"]}},
        {"query_string": {"query": "laptop"}},
        {"query_string": {"query": "laptop", "default_field": "title"}},
        {"simple_query_string": {"query": "laptop", "fields": ["title"]}},
        match("unknown"),
    ],
)
def test_a_clause_with_only_query_text_requires_nothing_else(query: Any) -> None:
    assert UserQuery("laptop", MATCH_ALL) == found(query)


@pytest.mark.parametrize(
    "query",
    [
        None,
        {},
        "laptop",
        {"match_all": {}},
        {"match": {"title": "  "}},
        {"match": {"title": 7}},
        {"match": {"title": {"operator": "and"}}},
        {"match": {"title": "a", "body": "b"}},
        {"match": "laptop"},
        {"multi_match": {"query": "laptop", "fields": [7]}},
        {"multi_match": {"query": "laptop", "fields": {"a": 1}}},
        {"multi_match": {"query": 7, "fields": ["title"]}},
        {"multi_match": {"query": " "}},
        {"query_string": {"query": ""}},
        {"query_string": {"query": 7}},
        {"query_string": {"query": "laptop", "fields": 7}},
        {"query_string": {"query": "-laptop"}},
        {"query_string": {"query": "*"}},
        {"match": {"title": "*"}},
        {"match": {"title": "\u00a0"}},
        {"multi_match": {"query": " ** ? ", "fields": ["title", "body"]}},
        match("brand"),
        match("sku^2"),
        {"term": {"title": "laptop"}},
        {"bool": {"must_not": [match("title")]}},
        {"bool": {"must": [TERM]}},
        {"bool": []},
        {"bool": {"must": [match("title")]}, "boost": 1},
        {"dis_max": {"queries": "not known here yet"}},
    ],
)
def test_filters_negations_and_unknown_queries_have_no_query_text(query: Any) -> None:
    assert found(query) is None


@pytest.mark.parametrize(
    ("query", "text", "relaxed"),
    [
        (
            {"bool": {"must": match("title"), "filter": TERM, "must_not": [RANGE]}},
            "laptop",
            {"bool": {"must": MATCH_ALL, "filter": TERM, "must_not": [RANGE]}},
        ),
        (  # a `should` text beside a `must` text is a boost
            {"bool": {"must": [match("title")], "should": [match("body", "promotion")]}},
            "laptop",
            {"bool": {"must": [MATCH_ALL], "should": [match("body", "promotion")]}},
        ),
        (  # `must` before `should`, whichever is written first
            {"bool": {"should": [match("title", "promotion")], "must": [match("title")]}},
            "laptop",
            {"bool": {"should": [match("title", "promotion")], "must": [MATCH_ALL]}},
        ),
        (  # a `should` beside a filter is a boost as well, wherever it is written
            {"bool": {"must": [{"bool": {"filter": TERM, "should": match("title", "promotion")}}, match("title")]}},
            "laptop",
            {"bool": {"must": [{"bool": {"filter": TERM, "should": match("title", "promotion")}}, MATCH_ALL]}},
        ),
        (  # a required text outside the passage, and one that scores in its first field: the first is a filter
            {"bool": {"must": [match("colour", "red")], "should": [match("title")]}},
            "laptop",
            {"bool": {"must": [match("colour", "red")], "should": [MATCH_ALL]}},
        ),
        (  # a passage's field before another
            {"bool": {"must": [match("colour", "red"), match("title")]}},
            "laptop",
            {"bool": {"must": [match("colour", "red"), MATCH_ALL]}},
        ),
        (  # several fields of the passage before another one
            {"bool": {"must": [match("x", "red"), {"multi_match": {"query": "laptop", "fields": ["body", "title"]}}]}},
            "laptop",
            {"bool": {"must": [match("x", "red"), MATCH_ALL]}},
        ),
        (  # several fields before a single one, but outside the passage both may be filters
            {"bool": {"must": [match("colour", "red"), {"multi_match": {"query": "laptop", "fields": ["x", "y"]}}]}},
            "laptop",
            None,
        ),
        (  # a multi-field of the passage is the passage
            {"bool": {"must": [match("colour", "red"), match("title.english^2")]}},
            "laptop",
            {"bool": {"must": [match("colour", "red"), MATCH_ALL]}},
        ),
        (  # as Kibana's `laptop and brand:apple` arrives
            {"bool": {"must": [{"multi_match": {"query": "laptop"}}, match("brand", "apple")]}},
            "laptop",
            {"bool": {"must": [MATCH_ALL, match("brand", "apple")]}},
        ),
        (  # the same words several times count once
            {"bool": {"must": [match("title")], "should": [{"match_phrase": {"title": "laptop"}}, match("body", "x")]}},
            "laptop",
            {"bool": {"must": [MATCH_ALL], "should": [MATCH_ALL, match("body", "x")]}},
        ),
        (
            {"bool": {"should": [match("title"), match("body")], "minimum_should_match": 2}},
            "laptop",
            {"bool": {"should": [MATCH_ALL, MATCH_ALL], "minimum_should_match": 2}},
        ),
        (
            {"bool": {"should": [match("title")], "filter": [TERM]}},
            "laptop",
            {"bool": {"should": [MATCH_ALL], "filter": [TERM]}},
        ),
        (
            {"bool": {"must": {"bool": {"should": [match("title")]}}, "filter": [match("title")]}},
            "laptop",
            {"bool": {"must": {"bool": {"should": [MATCH_ALL]}}, "filter": [match("title")]}},
        ),
        (
            {"bool": {"must": {"query_string": {"query": "laptop -gaming", "fields": ["title"]}}}},
            "laptop",
            {
                "bool": {
                    "must": {
                        "bool": {"must_not": [{"query_string": {"fields": ["title"], "query": "gaming"}}]},
                    }
                }
            },
        ),
        (
            {"bool": {"must": match("title"), "filter": {"nested": {"path": "r", "query": TERM, "inner_hits": {}}}}},
            "laptop",
            {"bool": {"must": MATCH_ALL, "filter": {"nested": {"path": "r", "query": TERM}}}},
        ),
        ({"query_string": {"query": "laptop OR phone"}}, "laptop phone", MATCH_ALL),
        (
            {"bool": {"must": [match("title"), {"query_string": {"query": "(laptop)"}}]}},
            "laptop",
            {"bool": {"must": [MATCH_ALL, MATCH_ALL]}},
        ),
    ],
)
def test_only_the_query_text_is_relaxed(query: Any, text: str, relaxed: Any) -> None:
    assert UserQuery(text, relaxed) == found(query)


LINE = {"default_field": "title"}


def said(query: str) -> dict[str, Any]:
    return {"query_string": LINE | {"query": query}}


@pytest.mark.parametrize(
    ("line", "text", "rest"),
    [
        ("laptop", "laptop", MATCH_ALL),
        ("  wi-fi  router ", "wi-fi router", MATCH_ALL),
        ("laptop -gaming", "laptop", {"bool": {"must_not": [said("gaming")]}}),
        ("laptop !gaming", "laptop", {"bool": {"must_not": [said("gaming")]}}),
        ("laptop NOT gaming", "laptop", {"bool": {"must_not": [said("gaming")]}}),
        ('laptop -"for games"', "laptop", {"bool": {"must_not": [said('"for games"')]}}),
        ("laptop -kind:gaming", "laptop", {"bool": {"must_not": [said("kind:gaming")]}}),
        ("laptop +light", "laptop light", {"bool": {"must": [said("light")]}}),
        ('laptop "long life"', "laptop long life", {"bool": {"must": [said('"long life"')]}}),
        ("laptop brand:apple", "laptop apple", {"bool": {"must": [said("brand:apple")]}}),
        ('laptop brand:"acme inc"', "laptop acme inc", {"bool": {"must": [said('brand:"acme inc"')]}}),
        ("+laptop -old", "laptop", {"bool": {"must": [said("laptop")], "must_not": [said("old")]}}),
        ("-gaming", "", {"bool": {"must_not": [said("gaming")]}}),
        ("laptop AND light", "laptop light", MATCH_ALL),
        ("laptop AND -gaming", "laptop", {"bool": {"must_not": [said("gaming")]}}),
        ("laptop OR phone", "laptop phone", MATCH_ALL),
        ("(laptop phone) -gaming", "laptop phone", {"bool": {"must_not": [said("gaming")]}}),
        ("lap* phone", "lap phone", MATCH_ALL),
        ("laptop~2 phone^3", "laptop phone", MATCH_ALL),
        ("price:[1 TO 9] laptop", "laptop", {"bool": {"must": [said("price:[1 TO 9]")]}}),
        ("price:>9 laptop", "laptop", {"bool": {"must": [said("price:>9")]}}),
        ("/lap.*/ laptop", "laptop", {"bool": {"must": [said("/lap.*/")]}}),
        ('laptop "unfinished', "laptop unfinished", None),
        (r"c\+\+ book", "c++ book", MATCH_ALL),
        ("", "", MATCH_ALL),
    ],
)
def test_text_requirements_and_exclusions_of_a_line_are_found(line: str, text: str, rest: Any) -> None:
    typed = read_line("query_string", LINE | {"query": line, "boost": 2, "_name": "x"}, line)
    assert (text, rest) == (typed.text, typed.rest)


@pytest.mark.parametrize("flags", ["ALL", -1, "AND|NOT", "PHRASE", 16, "NONE", 0, "fuzzy | slop"])
def test_flags_do_not_matter_for_a_line_without_operators(flags: Any) -> None:
    typed = read_line("simple_query_string", {"query": "laptop", "flags": flags}, "laptop")
    assert ("laptop", MATCH_ALL) == (typed.text, typed.rest)


@given(strategies.query_lines)
def test_negated_words_are_not_query_text(line: str) -> None:
    plain = [piece.strip('+"') for piece in line.split(" ") if not piece.startswith("-")]
    if "-gaming" in line and "gaming" not in " ".join(plain):
        assert "gaming" not in read_line("query_string", {}, line).text


@given(st.text() | strategies.query_lines)
def test_any_line_is_parsed_without_an_error(line: str) -> None:
    typed = read_line("query_string", {"query": line}, line)
    assert typed.text == typed.text.strip()


# A small engine: what a query of bool, match, multi_match, term and match_all says of a document.


def admits(query: Any, document: strategies.Document, given_words: str | None = None) -> bool:
    """Whether a document matches; clauses of words that ask for given ones are taken for fulfilled.

    Only where a clause scores: in `must_not` and `filter` nobody types, but for a filter that preselects by the words.
    """
    ((name, body),) = query.items()
    match name:
        case "bool":
            return _bool(body, document, given_words)
        case "match_all":
            return True
        case "match" | "term":
            ((field, value),) = body.items()
            text = value["query"] if isinstance(value, dict) else value
            typed = name == "match" and is_text(field)
            return (typed and _says(text, given_words)) or _has(document, (field,), text, whole=name == "term")
        case "multi_match":
            return _says(body["query"], given_words) or _has(document, body["fields"], body["query"], whole=False)
        case _:
            raise AssertionError(name)


def _says(text: str, given_words: str | None) -> bool:
    """Whether a clause asks for the given words, or for one of them as applications write a clause for each."""
    return given_words is not None and (text == given_words or text in given_words.split())


def _has(document: strategies.Document, fields: Sequence[str], text: str, *, whole: bool) -> bool:
    words = [text] if whole else text.split()
    return any(word in document[field] for field in fields for word in words)


def _bool(body: Mapping[str, Any], document: strategies.Document, given_words: str | None) -> bool:
    clauses = {name: found if isinstance(found, list) else [found] for name, found in body.items()}
    required, optional = clauses.get("must", []), clauses.get("should", [])
    alone = bool(optional) and not required and not clauses.get("filter")
    least = body.get("minimum_should_match", 1 if alone else 0)
    return (
        all(admits(clause, document, given_words) for clause in required)
        and all(admits(clause, document) for clause in _each_without("filter", clauses.get("filter", []), given_words))
        and not any(admits(clause, document) for clause in clauses.get("must_not", []))
        and sum(admits(clause, document, given_words) for clause in optional) >= least
    )


def _without_preselection(query: Any, words: str | None) -> Any:
    """Replace filters with the words in several fields, as in those of the query text: they are relaxed with it."""
    match query:
        case {"multi_match": {"query": text, "fields": fields}} if text == words and len(set(fields)) > 1:
            return {"match_all": {}}
        case {"bool": body}:
            return {"bool": {name: _each_without(name, said, words) for name, said in body.items()}}
        case _:
            return query


def _each_without(name: str, clauses: Any, words: str | None) -> Any:
    if name not in {"must", "should", "filter"}:
        return clauses
    listed = clauses if isinstance(clauses, list) else [clauses]
    return [_without_preselection(clause, words) for clause in listed]


def conditions(query: Any, words: str) -> list[Any]:
    """Return every clause that a document must fulfil and that does not hold the user's words, as queries."""
    ((name, body),) = query.items()
    if name != "bool":
        return [] if any(word in str(body) for word in words.split()) else [query]
    lists = {key: value if isinstance(value, list) else [value] for key, value in body.items()}
    forbidden = [{"bool": {"must_not": [clause]}} for clause in lists.get("must_not", [])]
    required = [condition for clause in lists.get("must", []) for condition in conditions(clause, words)]
    return [*forbidden, *required, *_each_without("filter", lists.get("filter", []), words)]


@given(strategies.user_queries, strategies.documents)
def test_the_relaxed_query_admits_whatever_the_query_admits(query: Any, document: strategies.Document) -> None:
    user_query = found(query)
    if user_query and user_query.relaxed and admits(query, document):
        assert admits(user_query.relaxed, document)


@given(strategies.user_queries, strategies.documents)
def test_the_relaxed_query_admits_more_only_by_the_query_text(query: Any, document: strategies.Document) -> None:
    user_query = found(query)
    if user_query and user_query.relaxed and admits(user_query.relaxed, document):
        assert admits(query, document, user_query.text)


@given(strategies.user_queries, strategies.documents)
def test_a_required_clause_without_query_text_is_never_dropped(query: Any, document: strategies.Document) -> None:
    user_query = found(query)
    if user_query and user_query.relaxed and admits(user_query.relaxed, document):
        assert all(admits(condition, document) for condition in conditions(query, user_query.text))


@given(strategies.query_trees)
def test_the_clients_query_is_not_modified(query: Any) -> None:
    before = strategies.compact(query)
    found(query)
    assert before == strategies.compact(query)


@given(strategies.json_values)
def test_any_query_is_parsed_without_an_error(query: Any) -> None:
    assert isinstance(found({"bool": {"must": [query, match("title")]}}), UserQuery)


@pytest.mark.parametrize("name", ["nested", "has_child", "has_parent"])
def test_names_and_inner_hits_are_removed_at_any_depth(name: str) -> None:
    named = {"term": {"brand": "apple", "_name": "a"}}
    inner = {name: {"query": {"bool": {"must": [{name: {"query": named, "inner_hits": {}}}]}}, "inner_hits": {"a": 1}}}
    expected = {name: {"query": {"bool": {"must": [{name: {"query": TERM}}]}}}}
    assert {"bool": {"filter": [expected]}} == bare({"bool": {"filter": [inner], "_name": "b"}})


def test_a_field_may_be_called_name() -> None:
    assert {"match": {"_name": "x"}} == bare({"match": {"_name": "x"}})


@given(strategies.query_trees)
def test_a_query_without_names_and_inner_hits_is_unchanged(query: Any) -> None:
    assert query == bare(query)


def _wrapped(query: Any) -> Any:
    return {"wrapper": {"query": base64.b64encode(json.dumps(query).encode()).decode()}}


LINE_OF_WORDS = {"query_string": {"query": "ab " * (QUERY_STRING_LINE // 3)}}


@pytest.mark.parametrize(
    ("most", "more"),
    [
        ([match("title")] * TEXT_CLAUSES, [match("title")]),
        ([LINE_OF_WORDS] * (QUERY_STRING_LINES // (QUERY_STRING_LINE + 16)), [LINE_OF_WORDS]),
        ([_wrapped(match("title"))], [{"term": {"brand": "x" * WRAPPED_BYTES}}]),
    ],
)
def test_a_query_above_the_work_limit_has_no_query_text(most: list[Any], more: list[Any]) -> None:
    assert found({"bool": {"must": most}}) is not None
    assert found({"bool": {"must": [*most, *more]}}) is None


def test_a_line_above_the_limit_is_truncated_and_its_exclusions_unknown() -> None:
    long = {"query_string": {"query": "ab " * QUERY_STRING_LINE + "-cd"}}
    assert found(long) == UserQuery(" ".join(["ab"] * (QUERY_STRING_LINE // 3) + ["ab"]), None)


def _is_title(path: str) -> bool:
    return path.partition("^")[0] == "title"


CODE = {"term": {"code": "Garden Hose"}}
IDENTIFYING: dict[str, tuple[Any, set[str]]] = {
    "beside text": (
        {"multi_match": {"query": "garden hose", "fields": ["title^2", "code^3", "title.raw"]}},
        {"code", "title.raw"},
    ),
    "a clause": (
        {"bool": {"should": [{"match": {"title": "garden hose"}}, {"match": {"code": "garden hose"}}]}},
        {"code"},
    ),
    "a term": ({"bool": {"should": [{"match": {"title": "garden hose"}}, CODE]}}, {"code"}),
    "a long term": (
        {"bool": {"must": {"match": {"title": "garden hose"}}, "should": {"term": {"code": {"value": "garden hose"}}}}},
        {"code"},
    ),
    "another text": ({"bool": {"must": {"match": {"title": "hose"}}, "filter": CODE}}, set()),
    "excluded": ({"bool": {"must": {"match": {"title": "garden hose"}}, "must_not": CODE}}, set()),
    "a wildcard": ({"multi_match": {"query": "garden hose", "fields": ["title", "co*"]}}, set()),
    "a number": ({"bool": {"must": {"match": {"title": "9"}}, "should": {"term": {"code": 9}}}}, set()),
}


@pytest.mark.parametrize(("query", "expected"), IDENTIFYING.values(), ids=IDENTIFYING)
def test_keyword_fields_compared_with_the_whole_text_are_found(query: Any, expected: set[str]) -> None:
    found = find_user_query(query, ["title"], _is_title)
    assert found is not None
    assert expected == found.keywords


def test_the_number_of_keyword_fields_is_limited() -> None:
    fields = ["title", *(f"code{number}" for number in range(50))]
    found = find_user_query(
        {"multi_match": {"query": "hose", "fields": fields}}, ["title"], lambda path: path == "title"
    )
    assert found is not None
    assert 20 == len(found.keywords)


@pytest.mark.parametrize("boost", [10**400, -(10**400), 2, 0.5])
def test_a_boost_may_be_any_number(boost: float) -> None:
    for query in (
        {"match": {"title": {"query": "laptop", "boost": boost}}},
        {"query_string": {"query": "laptop", "boost": boost}},
    ):
        found = find_user_query(query, ["title"], lambda _: True)
        assert found is not None
        assert "laptop" == found.text
