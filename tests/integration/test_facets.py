"""Facets and totals agree with the hits: documents that kNN added are counted as if the query had found them."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.bounds import BODY_DEPTH
from proxy.parsing.json_text import members_of
from tests.integration import shop as catalogue
from tests.integration.comparing import but_score
from tests.integration.conftest import Open, OpenIndex, Sides
from tests.integration.engines import WITH_KNN, RealEngine
from tests.integration.sending import Reply, Request, send

pytestmark = [pytest.mark.engine, WITH_KNN]

QUERY = {"bool": {"must": [{"match": {"title": "laptop"}}], "filter": [{"range": {"price": {"lt": 1400}}}]}}
BRANDS: dict[str, Any] = {"terms": {"field": "brand"}}
PRICES: dict[str, Any] = {"histogram": {"field": "price", "interval": 250, "min_doc_count": 1}}

COUNTED: dict[str, dict[str, Any]] = {
    "terms": {"a": BRANDS},
    "range": {"a": {"range": {"field": "price", "ranges": [{"to": 500}, {"from": 500}]}}},
    "date_histogram": {"a": {"date_histogram": {"field": "released", "calendar_interval": "year"}}},
    "stats": {"a": {"extended_stats": {"field": "price"}}},
    "percentiles": {"a": {"percentiles": {"field": "price"}}},
    "cardinality": {"a": {"cardinality": {"field": "brand"}}},
    "filters": {"a": {"filters": {"filters": {"acme": {"term": {"brand": "acme"}}, "dear": {"match_all": {}}}}}},
    "nested": {
        "a": {
            "nested": {"path": "reviews"},
            "aggs": {"by": {"terms": {"field": "reviews.author"}, "aggs": {"back": {"reverse_nested": {}}}}},
        }
    },
    "missing": {"a": {"missing": {"field": "nothing"}}},
    "composite": {"a": {"composite": {"sources": [{"b": BRANDS}, {"c": {"terms": {"field": "category"}}}]}}},
    "significant_terms": {"a": {"significant_terms": {"field": "brand", "min_doc_count": 1}}},
    "top_hits by a field": {"a": BRANDS | {"aggs": {"h": {"top_hits": {"sort": {"price": "desc"}, "size": 2}}}}},
    "inside": {"a": BRANDS | {"aggs": {"p": PRICES | {"aggs": {"m": {"avg": {"field": "price"}}}}}}},
    "pipelines": {
        "a": BRANDS | {"aggs": {"m": {"avg": {"field": "price"}}, "s": {"bucket_sort": {"sort": [{"m": "asc"}]}}}},
        "dearest": {"max_bucket": {"buckets_path": "a>m"}},
    },
    "script": {"a": {"terms": {"script": {"source": "doc['brand'].value + doc['category'].value"}}}},
    "the name of the proxy's own": {"matched": BRANDS, "matched_": PRICES},
    "with meta": {"a": BRANDS | {"meta": {"x": 1.50}}},
}
PAGES: tuple[dict[str, Any], ...] = ({}, {"from": 2, "size": 3}, {"from": 12, "size": 5})


async def _expected(sides: Sides, body: Mapping[str, Any], query_string: str = "") -> tuple[Reply, set[str]]:
    """Return the engine's answer for the client's query or the documents that kNN added, and their ids."""
    whole = {name: value for name, value in body.items() if name != "from"} | {"size": 100}
    own = (await sides.straight.search(whole | {"track_total_hits": True})).ids
    shown = await sides.through.search(whole | {"track_total_hits": True})
    assert "reranked" == shown.outcome
    added = set(shown.ids) - set(own)
    either = {"bool": {"should": [body["query"], {"ids": {"values": sorted(added)}}]}}
    return await sides.straight.search(whole | {"query": either}, query_string), added


def _aggregations(reply: Reply) -> bytes:
    return bytes(members_of(reply.content)["aggregations"])


@pytest.mark.parametrize("post_filter", [{}, {"post_filter": {"term": {"brand": "acme"}}}], ids=["", "post_filter"])
@pytest.mark.parametrize("asked", COUNTED.values(), ids=COUNTED)
@pytest.mark.parametrize("page", PAGES, ids=["first", "second", "behind"])
async def test_aggregations_count_the_documents_that_knn_added(
    asked: dict[str, Any], page: dict[str, Any], post_filter: dict[str, Any], open_sides: Open
) -> None:
    """On every page, each aggregation is byte for byte what the engine returns for exactly these documents."""
    sides = await open_sides(rank_window_size=10)
    body = {"query": QUERY, "aggs": asked} | post_filter
    expected, added = await _expected(sides, body)
    assert added, "kNN adds nothing here, so this test shows nothing"
    through = await sides.through.search(body | page)
    assert ("reranked", expected.total) == (through.outcome, through.total)
    assert _aggregations(expected) == _aggregations(through)


OWN: dict[str, dict[str, Any]] = {
    "sampler": {"a": {"sampler": {"shard_size": 100}, "aggs": {"b": BRANDS}}},
    "diversified_sampler": {"a": {"diversified_sampler": {"field": "price"}, "aggs": {"b": BRANDS}}},
    "top_hits": {"a": {"top_hits": {"size": 30, "_source": ["title"]}}},
    "top_hits inside": {"a": BRANDS | {"aggs": {"h": {"top_hits": {"size": 3, "_source": ["title"]}}}}},
    "a script": {"a": {"min": {"script": {"source": "_score"}}}},
    "global": {"a": {"global": {}, "aggs": {"mine": {"filter": QUERY, "aggs": {"b": BRANDS}}}}},
}


@pytest.mark.parametrize("asked", OWN.values(), ids=OWN)
@pytest.mark.parametrize("page", PAGES, ids=["first", "second", "behind"])
async def test_aggregations_that_read_scores_are_the_clients_own(
    asked: dict[str, Any], page: dict[str, Any], open_sides: Open
) -> None:
    """So are those that repeat the query; aggregations beside them are counted."""
    sides = await open_sides(rank_window_size=10)
    body = {"query": QUERY, "aggs": {**asked, "beside": BRANDS}}
    expected, _ = await _expected(sides, body)
    straight, through = await sides.straight.search(body | page), await sides.through.search(body | page)
    found = members_of(_aggregations(through))
    assert ("reranked", ["a", "beside"]) == (through.outcome, sorted(found))
    assert members_of(_aggregations(straight))["a"] == found["a"]
    assert members_of(_aggregations(expected))["beside"] == found["beside"]


@pytest.mark.parametrize(
    "query_string",
    [
        "typed_keys=true",
        "pretty",
        "rest_total_hits_as_int=true",
        "typed_keys&pretty&human",
        "routing=x",
        "request_cache=true",
    ],
)
@pytest.mark.parametrize("page", PAGES, ids=["first", "second", "behind"])
async def test_facets_are_counted_in_every_response_format(
    query_string: str, page: dict[str, Any], open_sides: Open
) -> None:
    sides = await open_sides(rank_window_size=10)
    body = {"query": QUERY, "aggs": {"a": BRANDS | {"aggs": {"p": PRICES}}}, "track_total_hits": True}
    expected, _ = await _expected(sides, body, query_string)
    through = await sides.through.search(body | page, query_string)
    assert ("reranked", _aggregations(expected)) == (through.outcome, _aggregations(through))
    if "routing" not in query_string:
        assert expected.total == through.total


@pytest.mark.parametrize(
    ("path", "keys"),
    [("aggregations.*.buckets.doc_count,hits.total", {"aggregations", "hits"}), ("-aggregations", {"took", "hits"})],
)
async def test_filter_path_applies_to_facets(path: str, keys: set[str], open_sides: Open) -> None:
    sides = await open_sides()
    body = {"query": QUERY, "aggs": {"a": BRANDS}}
    expected, _ = await _expected(sides, body, f"filter_path={path}")
    through = await sides.through.search(body | {"size": 100}, f"filter_path={path}")
    assert (True, expected.json.get("aggregations")) == (keys <= through.json.keys(), through.json.get("aggregations"))


@pytest.mark.parametrize("tracked", [True, False, 1, 5, 8, 9, 10, 11, 12, 10_000])
async def test_the_total_respects_track_total_hits(tracked: Any, open_sides: Open) -> None:
    sides = await open_sides(rank_window_size=10)
    body = {"query": QUERY, "aggs": {"a": BRANDS}, "track_total_hits": tracked}
    expected, _ = await _expected(sides, body)
    for page in PAGES:
        assert expected.total == (await sides.through.search(body | page)).total


# Shapes in which shops ask, each with what a facet of brands is called


def _brands_of(reply: Reply) -> Mapping[str, int]:
    """Return the facet of brands, wherever it stands in the aggregations."""
    found = [reply.json["aggregations"]]
    while found:
        members = found.pop()
        if "buckets" in members.get("brands", {}):
            return {bucket["key"]: bucket["doc_count"] for bucket in members["brands"]["buckets"]}
        found += [value for value in members.values() if isinstance(value, dict)]
    raise AssertionError(reply.content)


WORDS = {"multi_match": {"query": "laptop for children", "fields": ["title^2", "description"]}}
MORE: Any = {"field": "category", "inner_hits": {"name": "more", "size": 2}}
FACETS: dict[str, Any] = {"brands": BRANDS, "prices": PRICES}
SHAPES: dict[str, Any] = {
    "plain": {"query": WORDS, "aggs": FACETS},
    "filtered": {"query": {"bool": {"must": [WORDS], "filter": [{"term": {"in_stock": True}}]}}, "aggs": FACETS},
    "multi-select": {
        "query": WORDS,
        "post_filter": {"terms": {"brand": ["acme", "globex"]}},
        "aggs": {"brands_": {"filter": {"match_all": {}}, "aggs": FACETS}},
    },
    "function_score": {
        "query": {
            "function_score": {"query": WORDS, "field_value_factor": {"field": "price", "modifier": "log1p"}},
        },
        "aggregations": FACETS,
    },
    "pins": {
        "query": {"bool": {"must": [WORDS], "should": [{"ids": {"values": ["p04"], "boost": 1e4}}]}},
        "aggs": FACETS,
    },
    "collapsed": {
        "query": WORDS,
        "collapse": MORE,
        "aggs": FACETS,
    },
    "sorted by score and price": {"query": WORDS, "sort": ["_score", {"price": "asc"}, "title.exact"], "aggs": FACETS},
    "in stock first": {"query": WORDS, "sort": [{"in_stock": "desc"}, "_score"], "aggs": FACETS},
    "a query string": {"query": {"query_string": {"query": "laptop OR tablet", "fields": ["title"]}}, "aggs": FACETS},
    "nested": {
        "query": {
            "bool": {
                "must": [WORDS],
                "filter": [{"nested": {"path": "reviews", "query": {"range": {"reviews.stars": {"gte": 2}}}}}],
            }
        },
        "aggs": FACETS
        | {"reviewers": {"nested": {"path": "reviews"}, "aggs": {"by": {"terms": {"field": "reviews.author"}}}}},
    },
    "highlighted": {
        "query": WORDS,
        "highlight": {"fields": {"title": {}, "brand": {}}, "require_field_match": False},
        "aggs": FACETS,
    },
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("window", [5, 50])
@pytest.mark.parametrize("least", [-1, 0.35])
async def test_facets_and_total_cover_the_hits(name: str, window: int, least: float, open_sides: Open) -> None:
    """Each brand's bucket counts at least the hits of that brand, the total at least all hits."""
    semantic = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20, "min_similarity": least}
    sides = await open_sides(rank_window_size=window, semantic=semantic)
    body = SHAPES[name]
    for page in ({"size": 100}, {"size": 3}, {"from": 3, "size": 4}, {"from": 7, "size": 30}):
        through = await sides.through.search(body | page)
        assert "reranked" == through.outcome
        brands = Counter(catalogue.PRODUCTS[hit["_id"]]["brand"] for hit in through.hits)
        buckets = _brands_of(through)
        assert {brand: max(count, buckets.get(brand, 0)) for brand, count in brands.items()} == {
            brand: buckets.get(brand, 0) for brand in brands
        }
        assert through.total["value"] >= len(through.hits)
        scores = [hit["sort"][0 if body["sort"][0] == "_score" else 1] for hit in through.hits if "sort" in hit]
        groups = [hit["sort"][0] for hit in through.hits if "sort" in hit and body["sort"][0] != "_score"]
        assert scores == sorted(scores, reverse=True) or groups
        assert groups == sorted(groups, reverse=True)


async def _brand_of_every_page(sides: Sides, body: dict[str, Any], starts: list[int]) -> set[tuple[str, str]]:
    pages = [await sides.through.search(body | {"from": start, "size": 3}) for start in starts]
    assert {"reranked"} == {page.outcome for page in pages}
    return {(json.dumps(page.json["aggregations"]), json.dumps(page.total)) for page in pages}


@given(starts=st.permutations([0, 3, 6, 9, 12, 15]), name=st.sampled_from(sorted(set(SHAPES) - {"in stock first"})))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_page_has_the_same_facets_and_total(starts: list[int], name: str, open_sides: Open) -> None:
    """Whichever page is requested first."""
    sides = await open_sides(rank_window_size=7)
    assert 1 == len(await _brand_of_every_page(sides, SHAPES[name], starts))


async def test_documents_deleted_or_changed_between_pages_are_not_counted(
    open_index: OpenIndex, real_engine: RealEngine, index_name: str
) -> None:
    """Deleted ones, and those that the client's filter now excludes."""
    sides = await open_index(catalogue.with_vectors(real_engine), catalogue.PRODUCTS)
    query = {"bool": {"must": [{"match": {"title": "laptop"}}], "filter": [{"term": {"in_stock": True}}]}}
    body = {"query": query, "aggs": {"brands": BRANDS}, "size": 3}
    first = await sides.through.search(body)
    matching = {name for name, each in catalogue.PRODUCTS.items() if "laptop" in each["title"]}
    added = sorted(
        name for name, each in catalogue.PRODUCTS.items() if "notebook" in each["title"] and each["in_stock"]
    )
    gone, moved = added[:2]
    await send(real_engine.url, Request("DELETE", f"/{index_name}/_doc/{gone}?refresh=true"))
    update = b'{"doc":{"in_stock":false}}'
    await send(real_engine.url, Request("POST", f"/{index_name}/_update/{moved}?refresh=true", update))
    pages = [await sides.through.search(body | {"from": start, "size": 3}) for start in (3, 6, 60)]
    left = [catalogue.PRODUCTS[name]["brand"] for name in added[2:]]
    left += [catalogue.PRODUCTS[name]["brand"] for name in matching if catalogue.PRODUCTS[name]["in_stock"]]
    assert Counter(left) + Counter(catalogue.PRODUCTS[name]["brand"] for name in (gone, moved)) == _brands_of(first)
    assert [Counter(left)] * 3 == [Counter(_brands_of(page)) for page in pages]
    assert {len(left)} == {page.total["value"] for page in pages}


HIGHLIGHTERS: list[dict[str, Any]] = [
    {"type": kind, "fields": {"title": {}, "brand": {}, "description": {}}} for kind in ("unified", "plain")
]


@pytest.mark.parametrize(
    "shown",
    [
        *({"highlight": each} for each in HIGHLIGHTERS),
        *({"highlight": each | {"require_field_match": False}} for each in HIGHLIGHTERS),
        {"highlight": HIGHLIGHTERS[1] | {"fields": {"*": {}}}},
        {"highlight": {"fields": {"*": {"number_of_fragments": 0}}, "require_field_match": False}},
        {"highlight": HIGHLIGHTERS[0] | {"highlight_query": {"match": {"title": "notebook"}}}},
        {"highlight": {"fields": {"title": {"highlight_query": {"match": {"title": "notebook"}}}, "brand": {}}}},
        {"post_filter": {"terms": {"brand": ["acme", "globex"], "_name": "two"}}, "highlight": HIGHLIGHTERS[0]},
        {"fields": ["title"], "docvalue_fields": ["brand"], "version": True},
        {"script_fields": {"twice": {"script": "doc['price'].value * 2"}}},
    ],
)
async def test_counting_facets_does_not_change_the_hits(shown: dict[str, Any], open_sides: Open) -> None:
    """Each document is returned as without aggregations."""
    sides = await open_sides()
    named = {"term": {"brand": {"value": "acme", "boost": 3, "_name": "acme"}}}
    inner = {"size": 1, "highlight": {"fields": {"reviews.text": {}}}}
    praised = {"nested": {"path": "reviews", "query": {"match": {"reviews.text": "fine"}}, "inner_hits": inner}}
    filters = [{"terms": {"brand": ["acme", "globex"]}}]
    query = {"bool": {"must": [WORDS], "should": [named, praised], "filter": filters}}
    body = {"query": query, "size": 100} | shown
    without, beside = await sides.through.search(body), await sides.through.search(body | {"aggs": FACETS})
    assert {hit["_id"]: but_score(hit) for hit in without.hits} == {hit["_id"]: but_score(hit) for hit in beside.hits}


# What nobody should ask for


def _deep(levels: int) -> dict[str, Any]:
    aggregation: dict[str, Any] = BRANDS
    for _ in range(levels):
        aggregation = {"filter": {"match_all": {}}, "aggs": {"a": aggregation}}
    return {"a": aggregation}


HOSTILE: dict[str, dict[str, Any]] = {
    "10,000 buckets": {"a": {"histogram": {"field": "price", "interval": 0.14, "min_doc_count": 0}}},
    "more buckets than the engine allows": {
        "a": {"histogram": {"field": "price", "interval": 1e-3, "min_doc_count": 0}}
    },
    "1,000 facets": {f"a{number}": BRANDS for number in range(1000)},
    "25 levels": _deep(25),
    "90 levels": _deep(90),
    "odd names": {"matched": BRANDS, "#": BRANDS, "a#b": BRANDS, "é\u2028": BRANDS},
    "an unknown kind": {"a": {"term": {"field": "brand"}}},
    "no kind": {"a": {}},
    "a failing script": {"a": {"terms": {"script": "doc['nothing'].value"}}},
    "a text field": {"a": {"terms": {"field": "title"}}},
}


@pytest.mark.parametrize("typed", ["", "typed_keys=true"])
@pytest.mark.parametrize("asked", HOSTILE.values(), ids=HOSTILE)
async def test_unusual_aggregations_are_counted_or_left_to_the_engine(
    asked: dict[str, Any], typed: str, open_sides: Open
) -> None:
    """What the engine rejects gets its error."""
    sides = await open_sides()
    body = {"query": QUERY, "aggs": asked}
    straight, through = await sides.straight.search(body, typed), await sides.through.search(body, typed)
    assert straight.status == through.status
    if straight.status != 200 or straight.json["_shards"]["failed"]:
        assert through.outcome.startswith("bypassed")
        return
    own, ours = straight.json["aggregations"], through.json["aggregations"]
    assert ("reranked", list(own)) == (through.outcome, list(ours))
    assert through.total["value"] >= straight.total["value"]


async def test_aggregations_nested_beyond_the_bound_are_left_to_the_engine(open_sides: Open) -> None:
    sides = await open_sides()
    body = {"query": QUERY, "aggs": _deep(BODY_DEPTH)}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert "bypassed;reason=too_complex" == through.outcome
    assert straight.json["aggregations"] == through.json["aggregations"]


# kNN that adds nothing

ONLY_ORDERS = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20, "adds": False, "min_similarity": -1}
WIDE = {"multi_match": {"query": "laptop notebook camera", "fields": ["title", "description"]}}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("window", [3, 50])
async def test_knn_that_may_not_add_hits_changes_only_the_order(name: str, window: int, open_sides: Open) -> None:
    """Hits, facets and total are those of the client's own query, on every page."""
    sides = await open_sides(rank_window_size=window, semantic=ONLY_ORDERS)
    body = SHAPES[name] | {"size": 100}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert ("reranked", sorted(straight.ids)) == (through.outcome, sorted(through.ids))
    pages = [await sides.through.search(body | {"from": start, "size": 4}) for start in range(0, 48, 4)]
    assert sorted(straight.ids) == sorted(name for page in pages for name in page.ids)
    for page in (through, *pages):
        assert (_aggregations(straight), straight.total) == (_aggregations(page), page.total)


async def test_knn_that_may_not_add_hits_raises_matches_from_beyond_the_window(open_sides: Open) -> None:
    """The first hits of the ranking are not only those of the client's own query."""
    sides = await open_sides(rank_window_size=6, semantic=ONLY_ORDERS)
    body = {"query": WIDE, "highlight": {"fields": {"title": {}}}, "size": 6}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    shown = await sides.straight.search(body | {"size": 100})
    assert set(through.ids) - set(straight.ids)
    own = {hit["_id"]: but_score(hit) for hit in _without_vectors(shown.hits)}
    assert {hit["_id"]: but_score(hit) for hit in through.hits} == {name: own[name] for name in through.ids}


def _without_vectors(hits: list[Any]) -> list[Any]:
    own = {"embedding", "embedding_hash"}
    return [hit | {"_source": {k: v for k, v in hit["_source"].items() if k not in own}} for hit in hits]
