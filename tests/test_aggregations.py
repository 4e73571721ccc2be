"""Which aggregations count what kNN added: those that neither read scores nor ignore the query."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given

from proxy.bounds import AGGREGATIONS_READ_BYTES, BODY_CLAUSES
from proxy.parsing.aggregations import facets_of, merged
from tests import strategies

BRANDS: Any = {"terms": {"field": "brand"}}
BEST: Any = {"top_hits": {"size": 1}}


def facets(aggregations: Any, name: str = "aggs") -> Any:
    members = {name: msgspec.Raw(json.dumps(aggregations).encode())}
    return {found: json.loads(bytes(raw)) for found, raw in facets_of(members).items()}


@pytest.mark.parametrize(
    "counts",
    [
        BRANDS,
        {"terms": {"field": "brand"}, "aggs": {"mean": {"avg": {"field": "price"}}}, "meta": {"_score": 1}},
        {"terms": {"field": "product_score"}},
        {"terms": {"field": "brand"}, "aggs": {"sampler": {"avg": {"field": "global"}}}},
        {"top_hits": {"sort": [{"price": "asc"}]}},
        {"significant_text": {"field": "title"}},
        {"random_sampler": {"probability": 0.5}, "aggs": {"b": BRANDS}},
        {"nested": {"path": "reviews"}, "aggregations": {"stars": {"avg": {"field": "reviews.stars"}}}},
        {"avg": {"script": {"source": "doc['price'].value", "lang": "painless"}}},
        {"filter": {"match": {"title": "laptop"}}, "aggs": {"b": BRANDS}},
    ],
)
@pytest.mark.parametrize("name", ["aggs", "aggregations"])
def test_aggregations_of_document_values_include_knn_documents(counts: Any, name: str) -> None:
    assert {"a": counts} == facets({"a": counts}, name)


@pytest.mark.parametrize(
    "reads",
    [
        {"sampler": {"shard_size": 10}, "aggs": {"b": BRANDS}},
        {"diversified_sampler": {"field": "brand"}, "aggs": {"b": BRANDS}},
        BEST,
        {"top_hits": {"sort": []}},
        {"top_hits": {"sort": {}}},
        {"top_hits": {"sort": ["price", {"_score": "desc"}]}},
        {"top_hits": {"sort": "price", "track_scores": True}},
        {"top_hits": {"sort": "price", "explain": True}},
        {"top_metrics": {"metrics": {"field": "price"}, "sort": {"_score": "desc"}}},
        {"max": {"script": "_score"}},
        {"max": {"script": {"source": "Math.log(_score) + doc['price'].value"}}},
        {"max": {"script": {"id": "stored"}}},
        {"scripted_metric": {"map_script": "state.s.add(_score)"}},
        {"terms": {"field": "brand"}, "aggs": {"best": {"max": {"script": "_score"}}}},
        {"terms": {"field": "brand"}, "aggregations": {"deep": {"missing": {"field": "x"}, "aggs": {"hits": BEST}}}},
        {"global": {}, "aggs": {"b": {"filter": {"match": {"title": "laptop"}}, "aggs": {"b": BRANDS}}}},
    ],
)
def test_aggregations_that_read_scores_or_ignore_the_query_are_the_clients_own(reads: Any) -> None:
    assert {"a": BRANDS} == facets({"mine": reads, "a": BRANDS})


def test_pipeline_aggregations_of_an_uncounted_one_are_not_counted() -> None:
    asked = {
        "most": {"max_bucket": {"buckets_path": "best>count"}},
        "twice": {"bucket_script": {"buckets_path": {"x": "most.value"}, "script": "params.x * 2"}},
        "best": {**BRANDS, "aggs": {"hits": BEST, "count": {"value_count": {"field": "brand"}}}},
        "brands": {**BRANDS, "aggs": {"mean": {"avg": {"field": "price"}}}},
        "dearest": {"max_bucket": {"buckets_path": "brands>mean"}},
    }
    assert ["brands", "dearest"] == list(facets(asked))


def test_chains_of_pipeline_aggregations_are_followed() -> None:
    chain = {f"p{number}": {"max_bucket": {"buckets_path": f"p{number + 1}>x"}} for number in range(100)}
    assert ["a"] == list(facets({**chain, "p100": BEST, "a": BRANDS}))


def test_a_script_reading_the_score_is_found_despite_json_escapes() -> None:
    asked = b'{"a":{"max":{"script":"_sc\\u006fre"}},"b":{"terms":{"field":"br\\u0061nd"}}}'
    assert ["b"] == list(facets_of({"aggs": msgspec.Raw(asked)}))


def test_an_aggregation_too_long_to_parse_is_the_clients_own() -> None:
    """Only if it may read scores; otherwise it counts the added documents, whatever its length."""
    long, by_field = ["x" * 10] * AGGREGATIONS_READ_BYTES, {"top_hits": {"sort": "price"}}
    terms = {"terms": {"field": "brand", "include": long}}
    asked = {"a": by_field, "long": {**by_field, "meta": {"x": long}}, "b": by_field, "terms": terms}
    assert ["a", "terms"] == list(facets(asked))


@pytest.mark.parametrize(
    "odd", [None, [], 1, "x", {"a": None}, {"a": [1]}, {"a": {"terms": 1, "aggs": [1]}}, {"a": {}}]
)
def test_invalid_aggregations_are_parsed_without_an_error(odd: Any) -> None:
    facets(odd)


@given(strategies.json_values)
def test_any_aggregations_are_parsed_without_an_error(value: Any) -> None:
    facets({"a": value, "b": {"terms": {}, "aggs": value}})


def test_without_aggregations_nothing_is_counted() -> None:
    assert {} == facets_of({}) == facets({})


def test_the_deepest_allowed_nesting_is_parsed() -> None:
    deep: Any = BRANDS
    for _ in range(60):
        deep = {"filter": {"match_all": {}}, "aggs": {"a": deep}}
    assert ["a"] == list(facets({"a": deep}))
    wide = {f"a{number}": BRANDS for number in range(BODY_CLAUSES // 2)}
    assert list(wide) == list(facets(wide))


@pytest.mark.parametrize(
    ("own", "counted", "expected"),
    [
        (b'{"a":{"value":1.50},"b":{"value": 2}}', {"b": b'{"value":30}'}, b'{"a":{"value":1.50},"b":{"value":30}}'),
        (
            b'{"sterms#a":{"x":1},"avg#b":{"value":1}}',
            {"sterms#a": b'{"x":2}', "avg#b": b'{"value":2}'},
            b'{"sterms#a":{"x":2},"avg#b":{"value":2}}',
        ),
        (b'{"umterms#a":{"x":1}}', {"sterms#a": b'{"x":2}'}, b'{"sterms#a":{"x":2}}'),
        (b'{"a#b":{"x":1},"c#b":{"x":1}}', {"c#b": b'{"x":2}'}, b'{"a#b":{"x":1},"c#b":{"x":2}}'),
    ],
)
def test_counted_aggregations_replace_the_clients_own_in_place(own: bytes, counted: Any, expected: bytes) -> None:
    found = {name: msgspec.Raw(raw) for name, raw in counted.items()}
    assert expected == bytes(merged(msgspec.Raw(own), found))
