"""Excluded documents never appear: for kNN, only the requirement that the user's words occur is relaxed."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.conftest import Open, Shop, Sides
from tests.integration.demands import ANYTHING, FILTERS, WORDS, queries
from tests.integration.engines import WITH_KNN

pytestmark = [pytest.mark.engine, WITH_KNN]

REVIEWED = {"nested": {"path": "reviews", "query": {"match": {"reviews.text": "notebook"}}}}
ACME = {"term": {"brand": "acme"}}
OF_LAPTOPS = {"nested": {"path": "reviews", "query": {"match": {"reviews.text": "laptop notebook"}}}}
NEAR_AND_FAR = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20, "min_similarity": -1}

QUERIES: dict[str, tuple[Any, Any]] = {
    "filter": ({"bool": {"must": [WORDS], "filter": [ACME]}}, {"bool": {"filter": [ACME]}}),
    "must_not": ({"bool": {"must": [WORDS], "must_not": [ACME]}}, {"bool": {"must_not": [ACME]}}),
    "another must": ({"bool": {"must": [WORDS, ACME]}}, ACME),
    "a must on other text": (
        {"bool": {"must": [{"match": {"title": "acme laptop"}}, REVIEWED]}},
        REVIEWED,
    ),
    "a must on other text that contains the words": ({"bool": {"must": [OF_LAPTOPS, WORDS]}}, OF_LAPTOPS),
    "a match on a keyword": (
        {"bool": {"must": [{"match": {"brand": "acme"}}, WORDS]}},
        ACME,
    ),
    "nested": (
        {"bool": {"must": [WORDS, {"nested": {"path": "reviews", "query": {"term": {"reviews.author": "user2"}}}}]}},
        {"nested": {"path": "reviews", "query": {"term": {"reviews.author": "user2"}}}},
    ),
    "one of several": (
        {"bool": {"must": [WORDS], "should": [ACME, {"term": {"in_stock": True}}], "minimum_should_match": 2}},
        {"bool": {"filter": [ACME, {"term": {"in_stock": True}}]}},
    ),
    "a wished word": ({"bool": {"must": [WORDS], "should": [{"match": {"description": "office"}}]}}, ANYTHING),
    "constant": (
        {"bool": {"must": [WORDS, {"constant_score": {"filter": ACME}}]}},
        ACME,
    ),
    "forbidden word": (
        {"simple_query_string": {"query": "laptop -globex", "fields": ["title"]}},
        {"bool": {"must_not": [{"match": {"title": "globex"}}]}},
    ),
    "demanded word": ({"query_string": {"query": "laptop +acme", "fields": ["title"]}}, {"match": {"title": "acme"}}),
    "field in a line": ({"query_string": {"query": "laptop brand:acme", "fields": ["title"]}}, ACME),
    "phrase in a line": (
        {"query_string": {"query": 'laptop "the office"', "fields": ["description", "title"]}},
        {"multi_match": {"query": "the office", "type": "phrase", "fields": ["description", "title"]}},
    ),
}


async def _admitted(sides: Sides, query: Any, **rest: Any) -> set[str]:
    return set((await sides.straight.search({"query": query, "size": 100, **rest})).ids)


@pytest.mark.parametrize(("query", "admits"), QUERIES.values(), ids=QUERIES)
async def test_knn_adds_documents_but_none_that_the_query_excludes(query: Any, admits: Any, open_sides: Open) -> None:
    """Everything the client's own query finds is there, and more, but nothing that its other clauses exclude."""
    sides = await open_sides(semantic=NEAR_AND_FAR)
    own, admitted = await _admitted(sides, query), await _admitted(sides, admits)
    through = await sides.through.search({"query": query, "size": 100})
    assert ("reranked", own | admitted) == (through.outcome, set(through.ids))


async def test_post_filter_applies_to_knn(open_sides: Open) -> None:
    sides = await open_sides(semantic=NEAR_AND_FAR)
    through = await sides.through.search({"query": WORDS, "post_filter": ACME, "size": 100})
    assert await _admitted(sides, ACME) == set(through.ids)


async def test_alias_filters_apply_to_knn(shop: Shop, open_sides: Open) -> None:
    """What an alias hides stays hidden."""
    sides = await open_sides(shop.acme, semantic=NEAR_AND_FAR)
    through = await sides.through.search({"query": WORDS, "size": 100})
    assert await _admitted(sides, ANYTHING) == set(through.ids)


async def test_filters_in_the_urls_query_apply_to_knn(open_sides: Open) -> None:
    sides = await open_sides(semantic=NEAR_AND_FAR)
    through = await sides.through.search(query_string="q=laptop+%2Bbrand:acme&size=100")
    assert ("reranked", await _admitted(sides, ACME)) == (through.outcome, set(through.ids))


async def test_knn_is_skipped_for_a_line_whose_exclusions_are_unknown(open_sides: Open) -> None:
    """The client's own hits are reranked."""
    sides = await open_sides(semantic=NEAR_AND_FAR)
    query = {"query_string": {"query": "laptop OR (notebook AND NOT acme)", "fields": ["title"]}}
    through = await sides.through.search({"query": query, "size": 100})
    expected = 'reranked;stages="semantic";reason=query_syntax'
    assert (expected, await _admitted(sides, query)) == (through.outcome, set(through.ids))


RESTRICTED: dict[str, tuple[dict[str, Any], str]] = {
    "runtime field": (
        {
            "runtime_mappings": {"half": {"type": "double", "script": "emit(doc['price'].value / 2)"}},
            "query": {"bool": {"must": [WORDS], "filter": [{"range": {"half": {"lt": 300}}}]}},
        },
        "",
    ),
    "one shard": ({"query": WORDS}, "preference=_shards:0"),
    "one routing": ({"query": WORDS}, "routing=a"),
    "no such documents": ({"query": {"bool": {"must": [WORDS], "filter": [{"range": {"price": {"lt": -1e400}}}]}}}, ""),
    "large numbers": (
        {"query": {"bool": {"must": [WORDS], "must_not": [{"range": {"price": {"gt": 10**25}}}], "filter": [ACME]}}},
        "",
    ),
}


@pytest.mark.parametrize(("body", "query_string"), RESTRICTED.values(), ids=RESTRICTED)
async def test_other_restrictions_of_a_search_apply_to_knn(
    body: dict[str, Any], query_string: str, open_sides: Open
) -> None:
    """Runtime fields, a routing, a preference."""
    sides = await open_sides(semantic=NEAR_AND_FAR)
    written = json.dumps({"size": 100, **body}).replace("Infinity", "1e400")
    relaxed = written.replace(json.dumps(WORDS), json.dumps(ANYTHING))
    admitted = await sides.straight.search(relaxed.encode(), query_string)
    straight = await sides.straight.search(written.encode(), query_string)
    through = await sides.through.search(written.encode(), query_string)
    assert straight.status == through.status
    if straight.status == 200:
        assert set(straight.ids) <= set(through.ids) <= set(admitted.ids)


@given(drawn=queries(), post=st.none() | FILTERS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_query_keeps_its_filters_and_its_hits(
    drawn: tuple[Any, Any], post: Any, open_sides: Open, proxies: dict[str, Sides]
) -> None:
    """Nothing excluded appears, nothing found is lost, nothing appears twice."""
    if "sides" not in proxies:
        proxies["sides"] = await open_sides(semantic=NEAR_AND_FAR)
    sides = proxies["sides"]
    query, relaxed = drawn
    rest = {"post_filter": post} if post else {}
    own, admitted = await _admitted(sides, query, **rest), await _admitted(sides, relaxed, **rest)
    through = await sides.through.search({"query": query, "size": 100, **rest})
    expected = ("bypassed;reason=zero_hits", set()) if not own else ("reranked", admitted)
    assert (*expected, len(set(through.ids))) == (through.outcome, set(through.ids), len(through.ids))


@pytest.fixture
def proxies() -> dict[str, Sides]:
    """What the examples of one property share."""
    return {}
