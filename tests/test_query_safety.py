"""Whatever the form of a search: a filter beside the words is never relaxed, with the words given or not."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.parsing.query_text import find_user_query

PASSAGE = ("title", "brand", "body")
FILTER, WORDS = "velloway", ("dry", "feet")
TEXT = " ".join(WORDS)


def _one_field(name: str, field: str, text: str) -> Any:
    if name in {"query_string", "simple_query_string"}:
        return {name: {"query": text, "fields": [field]}}
    return {name: {field: {"query": text, "boost": 2}}}


_names = st.sampled_from(["match", "match_phrase", "query_string", "simple_query_string", "match_bool_prefix"])
filters = st.one_of(
    st.builds(_one_field, _names, st.sampled_from(["brand", "brand.raw", "shelf", "tags"]), st.just(FILTER)),
    st.just({"multi_match": {"query": FILTER, "fields": ["shelf", "shelf.raw"]}}),
    st.just({"multi_match": {"query": FILTER, "fields": ["brand", "shelf"]}}),
    st.just({"bool": {"should": [{"match": {"brand": FILTER}}, {"match": {"shelf": FILTER}}]}}),
    st.just({"nested": {"path": "makers", "query": {"match": {"makers.name": FILTER}}}}),
)
"""A brand or a shelf, as applications write a filter on a field of text."""


def _each_word(fields: list[str], occur: str) -> Any:
    word = [{"bool": {"should": [{"match": {field: word}} for field in fields]}} for word in WORDS]
    return {"bool": {occur: word}}


_some_fields = st.lists(
    st.sampled_from(["title", "body", "title.folded", "everything"]), min_size=1, max_size=3, unique=True
)
words = st.one_of(
    st.builds(_one_field, _names, st.sampled_from(["title", "body", "everything"]), st.just(TEXT)),
    _some_fields.map(lambda fields: {"multi_match": {"query": TEXT, "fields": fields}}),
    _some_fields.map(lambda fields: {"bool": {"should": [{"match": {field: TEXT}} for field in fields]}}),
    st.builds(_each_word, _some_fields, st.sampled_from(["must", "should"])),
    _some_fields.map(lambda fields: {"dis_max": {"queries": [{"match": {field: TEXT}} for field in fields]}}),
)
"""What was typed, as applications search for it."""


def _together(filter_: Any, typed: Any, way: str) -> Any:
    match way:
        case "both required":
            return {"bool": {"must": [filter_, typed]}}
        case "words first":
            return {"bool": {"must": [typed, filter_]}}
        case "words in should":
            return {"bool": {"must": [filter_], "should": [typed], "minimum_should_match": 1}}
        case "words that only score":
            return {"bool": {"must": filter_, "should": typed}}
        case "at least two":
            return {"bool": {"should": [filter_, typed], "minimum_should_match": 2}}
        case _:
            return {"bool": {"must": [{"bool": {"must": [filter_]}}, {"function_score": {"query": typed}}]}}


ways = st.sampled_from(
    ["both required", "words first", "words in should", "words that only score", "at least two", "deeper"]
)


@settings(max_examples=5 * settings().max_examples)
@given(filters, words, ways, st.sampled_from([None, TEXT, "warm hands"]))
def test_filters_beside_the_query_text_are_never_relaxed(filter_: Any, typed: Any, way: str, said: str | None) -> None:
    user_query = find_user_query(_together(filter_, typed, way), PASSAGE, lambda _: True, said)
    assert user_query is not None
    assert user_query.relaxed is None or FILTER in str(user_query.relaxed)
    assert any(word in user_query.text for word in (*WORDS, said or TEXT))
