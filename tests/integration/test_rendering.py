"""Hits are returned as the client's own query returns them, including documents that only kNN found."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.comparing import assert_handed_on, but_score
from tests.integration.conftest import Open, Sides
from tests.integration.engines import EVERYWHERE, WITH_KNN, RealEngine
from tests.integration.sending import Reply

pytestmark = [pytest.mark.engine, EVERYWHERE]

WORDS = {"multi_match": {"query": "laptop for children", "fields": ["title", "description"], "_name": "words"}}
REVIEWED = {
    "nested": {
        "path": "reviews",
        "query": {"match": {"reviews.text": {"query": "fine", "_name": "praised"}}},
        "inner_hits": {"size": 1, "_source": ["reviews.author"], "highlight": {"fields": {"reviews.text": {}}}},
    },
}
QUERY = {
    "bool": {
        "must": [WORDS],
        "should": [REVIEWED, {"term": {"brand": {"value": "acme", "_name": "acme"}}}],
        "filter": [{"range": {"price": {"lt": 1500, "_name": "cheap"}}}],
        "_name": "whole",
    },
}
NAMES_HIDDEN = ["embedding", "embedding_hash"]

SHOWN: dict[str, dict[str, Any]] = {
    "all": {},
    "_source true": {"_source": True},
    "_source false": {"_source": False},
    "_source of one": {"_source": "title"},
    "_source of several": {"_source": ["title", "reviews.author"]},
    "_source pattern": {"_source": ["re*"]},
    "_source includes and excludes": {
        "_source": {"includes": ["title", "price", "reviews"], "excludes": ["reviews.text"]}
    },
    "fields": {"_source": False, "fields": ["title", {"field": "released", "format": "yyyy"}, "reviews.*"]},
    "docvalue_fields": {"docvalue_fields": ["brand", {"field": "price", "format": "0.00"}], "_source": ["title"]},
    "stored_fields": {"stored_fields": ["title"]},
    "script_fields": {"script_fields": {"twice": {"script": "doc['price'].value * 2"}}, "_source": ["title"]},
    "runtime_mappings": {
        "runtime_mappings": {"half": {"type": "double", "script": "emit(doc['price'].value / 2)"}},
        "fields": ["half"],
        "_source": ["brand"],
    },
    "highlight": {"highlight": {"fields": {"title": {}, "description": {"number_of_fragments": 0}}}},
    "highlight every field": {"highlight": {"fields": {"*": {}}, "require_field_match": False}},
    "highlight_query": {"highlight": {"fields": {"title": {"highlight_query": {"match": {"title": "notebook"}}}}}},
    "highlight and a post_filter": {
        "post_filter": {"terms": {"brand": ["acme", "globex"]}},
        "highlight": {"fields": {"brand": {}, "title": {}}},
    },
    "named post_filter": {"post_filter": {"terms": {"brand": ["acme", "globex"], "_name": "two brands"}}},
    "inner_hits of a post_filter": {
        "post_filter": {
            "nested": {
                "path": "reviews",
                "query": {"range": {"reviews.stars": {"gte": 2}}},
                "inner_hits": {"name": "liked", "_source": ["reviews.stars"]},
            },
        },
    },
    "version": {"version": True, "seq_no_primary_term": True},
}


async def _rendered(sides: Sides, names: set[str], body: dict[str, Any], query_string: str = "") -> dict[str, Any]:
    """Let the engine show documents for the client's query, whether they match it or not."""
    own = {"bool": {"filter": [{"ids": {"values": sorted(names)}}], "should": [body["query"]]}}
    shown = {"_source": _without_own(body.get("_source", not {"stored_fields"} & body.keys()))}
    reply = await sides.straight.search(body | shown | {"query": own, "size": 100}, query_string)
    return {hit["_id"]: but_score(hit) for hit in reply.hits}


def _without_own(source: Any) -> Any:
    match source:
        case True:
            return {"excludes": NAMES_HIDDEN}
        case {"includes": includes, "excludes": excludes}:
            return {"includes": includes, "excludes": [*excludes, *NAMES_HIDDEN]}
        case _:
            return source


async def _both(sides: Sides, body: dict[str, Any], query_string: str = "") -> tuple[dict[str, Any], Reply, set[str]]:
    """Return what the engine shows of each hit, the answer through the proxy, and which hits only kNN found."""
    matching = set((await sides.straight.search(body | {"size": 100}, query_string)).ids)
    through = await sides.through.search(body | {"size": 100}, query_string)
    expected = await _rendered(sides, set(through.ids), body, query_string)
    return expected, through, set(through.ids) - matching


@pytest.mark.parametrize("shown", SHOWN.values(), ids=SHOWN)
async def test_every_member_of_a_hit_is_the_engines(
    shown: dict[str, Any], real_engine: RealEngine, open_sides: Open
) -> None:
    """As in the client's own query."""
    sides = await open_sides()
    straight = await sides.straight.search({"query": QUERY} | shown)
    if straight.status != 200:
        assert_handed_on(straight, await sides.through.search({"query": QUERY} | shown))
        return
    expected, through, extras = await _both(sides, {"query": QUERY} | shown)
    assert ("reranked", real_engine.has_knn) == (through.outcome, bool(extras))
    assert expected == {hit["_id"]: but_score(hit) for hit in through.hits}


@pytest.mark.parametrize("fields", [[], ["title"], ["*"], ["embedding"]])
async def test_source_defaults_follow_the_engine(fields: list[str], open_sides: Open) -> None:
    """Hidden with `script_fields`; on Elasticsearch 9, returned if a vector is requested."""
    sides = await open_sides()
    twice = {"twice": {"script": "doc['price'].value * 2"}}
    body = {"query": QUERY, "script_fields": twice, "fields": fields, "size": 100}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert ("reranked", set(through.ids)) == (through.outcome, set(through.ids) | set(straight.ids))
    assert {"_source" in hit for hit in straight.hits} == {"_source" in hit for hit in through.hits}


@given(asked=st.lists(st.sampled_from(sorted(SHOWN)), min_size=2, max_size=4, unique=True))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_combination_of_display_options_is_the_engines(
    asked: list[str], real_engine: RealEngine, open_sides: Open
) -> None:
    """As far as the engine accepts them together."""
    sides = await open_sides()
    body: dict[str, Any] = {"query": QUERY}
    for name in asked:
        body |= SHOWN[name]
    straight = await sides.straight.search(body)
    if straight.status != 200:
        assert_handed_on(straight, await sides.through.search(body))
        return
    expected, through, extras = await _both(sides, body)
    assert ("reranked", real_engine.has_knn) == (through.outcome, bool(extras))
    assert expected == {hit["_id"]: but_score(hit) for hit in through.hits}


@pytest.mark.parametrize(
    "query_string",
    [
        "_source=false",
        "_source=title,brand",
        "_source_includes=re*&_source_excludes=reviews.text",
        "docvalue_fields=brand&_source=title",
        "version=true&_source=title",
        "include_named_queries_score=true&_source=title",
    ],
)
async def test_display_parameters_of_the_url_are_respected(
    query_string: str, real_engine: RealEngine, open_sides: Open
) -> None:
    """Like those of the body."""
    sides = await open_sides()
    straight = await sides.straight.search({"query": WORDS}, query_string)
    if straight.status != 200:
        assert_handed_on(straight, await sides.through.search({"query": WORDS}, query_string))
        return
    expected, through, extras = await _both(sides, {"query": WORDS}, query_string)
    assert ("reranked", real_engine.has_knn) == (through.outcome, bool(extras))
    assert expected == {hit["_id"]: but_score(hit) for hit in through.hits}


async def test_source_keeps_the_engines_bytes(open_sides: Open) -> None:
    """Numbers and all."""
    sides = await open_sides(semantic=None)
    body = {"query": QUERY, "_source": ["price", "title", "reviews"]}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert "reranked" == through.outcome
    assert _sources(straight) == _sources(through)


def _sources(reply: Reply) -> set[bytes]:
    return {piece.partition(b',"matched_queries"')[0] for piece in reply.body.split(b'"_source":')[1:]}


@WITH_KNN
@pytest.mark.parametrize("named", [["embedding"], "embedding", {"includes": ["embedding", "title"]}])
async def test_vectors_are_returned_only_if_the_client_names_them(named: Any, open_sides: Open) -> None:
    """Likewise the proxy's other fields."""
    sides = await open_sides(semantic={"field": "embedding", "dimensions": 8})
    through = await sides.through.search({"query": WORDS, "_source": named})
    ids = {"ids": {"values": through.ids}}
    straight = await sides.straight.search({"query": ids, "_source": named, "size": 100})
    expected = {hit["_id"]: hit["_source"] for hit in straight.hits}
    assert expected == {hit["_id"]: hit["_source"] for hit in through.hits}
    assert all(len(source["embedding"]) == 8 for source in expected.values())


@WITH_KNN
async def test_vectors_are_returned_if_fields_names_them(open_sides: Open) -> None:
    sides = await open_sides()
    through = await sides.through.search({"query": WORDS, "_source": False, "fields": ["embedding"]})
    assert all(len(hit["fields"]["embedding"]) == 8 for hit in through.hits)


@pytest.mark.parametrize("asked", [{}, {"aggs": {"brands": {"terms": {"field": "brand"}}}}, {"_source": False}])
@pytest.mark.parametrize("how", ["pretty", "pretty=true", "pretty&human", "pretty=false"])
async def test_pretty_responses_are_indented_like_the_engines(
    how: str, asked: dict[str, Any], open_sides: Open
) -> None:
    """Down to the last newline."""
    sides = await open_sides()
    body = {"query": QUERY, "size": 2, "highlight": {"fields": {"title": {}}}} | asked
    through = await sides.through.search(body, how)
    body_of_shown = {"ids": {"values": through.ids}}
    # The engine itself shows the same documents with the same values where only these two are left to find.
    assert "reranked" == through.outcome
    lines = through.body.decode().split("\n")
    straight = (await sides.straight.search(body | {"post_filter": body_of_shown}, how)).body.decode().split("\n")
    assert {_indentation(line) for line in straight} >= {_indentation(line) for line in lines if "_source" not in line}
    assert through.body.endswith(b"}\n" if "false" not in how else b"}")


def _indentation(line: str) -> tuple[int, str]:
    """Return how far a line is indented, and the key it begins with."""
    return len(line) - len(line.lstrip()), line.strip().partition(" :")[0] if " :" in line else line.strip()[:1]


async def test_an_unchanged_order_keeps_the_pretty_response(open_sides: Open) -> None:
    """Byte for byte, except `took`."""
    sides = await open_sides(semantic=None)
    body = {"query": {"bool": {"must": [WORDS], "filter": [{"ids": {"values": ["p00"]}}]}}, "_source": ["reviews"]}
    straight, through = await sides.straight.search(body, "pretty"), await sides.through.search(body, "pretty")
    assert "reranked" == through.outcome
    assert _unscored(straight.body) == _unscored(through.body)


def _unscored(body: bytes) -> list[bytes]:
    return [line for line in body.split(b"\n") if not line.strip().startswith((b'"took"', b'"_score"', b'"max_score"'))]
