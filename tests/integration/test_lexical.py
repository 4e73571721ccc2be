"""If kNN adds no hits, aggregations and profile are those of the client's own query."""

import re
from typing import Any

import pytest

from tests.integration.comparing import beside_hits
from tests.integration.conftest import Open
from tests.integration.engines import EVERYWHERE, RealEngine
from tests.integration.sending import Reply

pytestmark = [pytest.mark.engine, EVERYWHERE]

QUERY = {"bool": {"must": [{"match": {"title": "laptop"}}], "filter": [{"range": {"price": {"lt": 1400}}}]}}

ASKED: dict[str, dict[str, Any]] = {
    "aggs": {"aggs": {"brands": {"terms": {"field": "brand"}, "aggs": {"mean": {"avg": {"field": "price"}}}}}},
    "aggregations": {"aggregations": {"dear": {"filter": {"range": {"price": {"gt": 500}}}}}},
    "best hits": {"aggs": {"best": {"top_hits": {"size": 2, "_source": ["title"]}}}},
    "beside a post filter": {
        "aggs": {"brands": {"terms": {"field": "brand"}}},
        "post_filter": {"term": {"brand": "acme"}},
    },
    "global": {"aggs": {"all": {"global": {}, "aggs": {"n": {"value_count": {"field": "price"}}}}}},
    "suggest": {"suggest": {"text": "laptpo", "spelling": {"term": {"field": "title"}}}},
}


_OF_DOCUMENTS = {"aggs", "aggregations", "beside a post filter"}
"""What counts documents counts those that kNN added, too: see test_facets.py."""


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("page", [{}, {"from": 2, "size": 3}, {"from": 30}], ids=["first", "second", "deep"])
async def test_everything_but_the_hits_is_the_engines(name: str, page: dict[str, Any], open_sides: Open) -> None:
    """On every page, to the last value."""
    without_knn = {"semantic": None} if name in _OF_DOCUMENTS else {}
    sides = await open_sides(rank_window_size=6, **without_knn)
    body = {"query": QUERY} | ASKED[name] | page
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert ("reranked", beside_hits(straight)) == (through.outcome, beside_hits(through))


async def test_typed_keys_are_preserved(open_sides: Open) -> None:
    sides = await open_sides(semantic=None)
    body = {"query": QUERY} | ASKED["aggs"]
    straight = await sides.straight.search(body, "typed_keys=true")
    through = await sides.through.search(body, "typed_keys=true")
    assert ("reranked", beside_hits(straight)) == (through.outcome, beside_hits(through))


async def test_the_profile_is_that_of_the_clients_query(open_sides: Open) -> None:
    """Only its times vary."""
    sides = await open_sides()
    body = {"query": QUERY, "profile": True}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert ("reranked", _queries(straight)) == (through.outcome, _queries(through))


def _queries(reply: Reply) -> list[str]:
    shards = reply.json["profile"]["shards"]
    return sorted(
        re.sub(r"\[[^\]]*\]", "", f"{query['type']} {query['description']}")
        for shard in shards
        for search in shard["searches"]
        for query in search["query"]
    )


async def test_the_engines_response_headers_are_preserved(real_engine: RealEngine, open_sides: Open) -> None:
    """The outcome and the stages' times are added."""
    sides = await open_sides()
    straight, through = await sides.straight.search({"query": QUERY}), await sides.through.search({"query": QUERY})
    own = {"x-rerank", "server-timing", "content-length", "transfer-encoding"}
    added = {name.lower() for name, _ in through.fields} - {name.lower() for name, _ in straight.fields}
    kept = [(name, value) for name, value in through.fields if name.lower() not in own]
    assert {"x-rerank", "server-timing"} == added - {"content-length"}
    assert [(name, value) for name, value in straight.fields if name.lower() not in own] == kept
    stages = {part.split(";")[0].strip() for part in through.header("Server-Timing").split(",")}
    assert {"lexical", "rerank", "total"} | ({"embed", "semantic"} if real_engine.has_knn else set()) <= stages
