"""A template is an application's own search body; the query text goes into its strings, whatever it holds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.commands.evaluation.errors import CannotEvaluate
from proxy.commands.evaluation.template import HITS_COMPARED, read_template

SHOP = {
    "query": {
        "bool": {
            "must": [{"multi_match": {"query": "{{query}}", "fields": ["title^2", "text"]}}],
            "should": [{"match_phrase": {"title": {"query": "{{query}}", "boost": 1.5}}}],
            "filter": [{"term": {"in_stock": True}}, {"range": {"price": {"lte": 100.5}}}],
        }
    },
    "size": 20,
    "_source": None,
}


def filled(body: object, text: str) -> object:
    return json.loads(read_template(json.dumps(body).encode(), "t.json").fill(text))


@given(st.text())
def test_any_query_text_is_inserted_and_the_rest_unchanged(text: str) -> None:
    """Except lone surrogates, which UTF-8 cannot encode, so no file of queries contains them."""
    expected = json.loads(json.dumps(SHOP))
    expected["query"]["bool"]["must"][0]["multi_match"]["query"] = text
    expected["query"]["bool"]["should"][0]["match_phrase"]["title"]["query"] = text
    assert expected == filled(SHOP, text)


def test_the_placeholder_may_be_part_of_a_longer_text() -> None:
    body = {"query": {"query_string": {"query": "title:({{query}})"}}, "size": 1}
    assert {"query": {"query_string": {"query": "title:({{query}} a)"}}, "size": 1} == filled(body, "{{query}} a")


def test_the_size_of_a_template_is_read() -> None:
    assert 20 == read_template(json.dumps(SHOP).encode(), "t.json").depth
    template = read_template(b'{"query": {"match": {"title": "{{query}}"}}}', "t.json")
    assert HITS_COMPARED == template.depth == json.loads(template.fill("a"))["size"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", 't.json: no search body: .* Write it as for _search, with "{{query}}" inside a string'),
        (b'{"query": {{query}}}', "no search body"),
        (b"[1]", "no search body"),
        (b'{"a": "\xff"}', "no search body"),
        (b"[" * 100_000, "no search body"),
        *(
            (b'{"query": "{{query}}", "a": ' + b'{"a":' * deep + b"1" + b"}" * (deep + 1), "nested too deep")
            for deep in (800, 900)
        ),
        (b'{"query": {"match": {"title": "shoes"}}}', 'write "{{query}}" where the query text goes, inside a string'),
        (b'{"query": {"match": {"title": "{{query}}"}}, "size": 0}', "size: expected a whole number from 1 on"),
        (b'{"query": {"match": {"title": "{{query}}"}}, "size": true}', "size: expected"),
        (b'{"query": {"match": {"title": "{{query}}"}}, "size": "{{query}}"}', "size: expected"),
    ],
)
def test_an_invalid_template_is_an_error_with_advice(content: bytes, said: str) -> None:
    with pytest.raises(CannotEvaluate, match=said):
        read_template(content, "t.json")
