"""Defects of NBoost, the only earlier drop-in proxy, in the order of its table: none occurs here, on any engine."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.fakes import breaks_off, hangs, refuses, says
from tests.integration import shop as catalogue
from tests.integration.comparing import assert_handed_on, but_score, comparable
from tests.integration.conftest import Open, OpenIndex, Start
from tests.integration.engines import EVERYWHERE
from tests.integration.models import ShopModels
from tests.integration.sending import Reply, Request, send

pytestmark = [pytest.mark.engine, EVERYWHERE]

LAPTOP = {"match": {"title": "laptop"}}
WINDOW = 6
ALL = 200


async def both(open_sides: Open, request: Request, **settings: object) -> tuple[Reply, Reply]:
    """Ask on both sides of a proxy whose route covers the shop."""
    sides = await open_sides(**settings)
    asked = replace(request, target=request.target.replace("{i}", sides.straight.index))
    return await send(sides.straight.url, asked), await send(sides.through.url, asked)


@pytest.mark.parametrize(
    "request_",
    [
        Request("GET", "/_cat/count/{i}?h=count", headers={}),
        Request("GET", "/{i}/_mapping", headers={}),
        Request("POST", "/{i}/_count", json.dumps({"query": LAPTOP}).encode()),
        Request("POST", "/{i}/_mget", b'{"ids":["p00"]}'),
        Request("POST", "/{i}/_analyze", b'{"field":"title","text":"laptop"}'),
    ],
    ids=lambda request: request.target,
)
async def test_only_searches_are_reranked(request_: Request, open_sides: Open) -> None:
    straight, through = await both(open_sides, request_)
    assert comparable(straight) == comparable(through)


@pytest.mark.parametrize("accept", ["application/json", "application/yaml", "application/cbor", "text/plain"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("target", ["/_cat/count/{i}-none?h=count", "/{i}/_doc/none", "/{i}/_search?size=x"])
async def test_error_statuses_are_the_engines_in_every_format(
    target: str, method: str, accept: str, open_sides: Open
) -> None:
    straight, through = await both(open_sides, Request(method, target, headers={"Accept": accept}))
    assert straight.status in {400, 404, 405, 406}
    assert (straight.status, straight.body) == (through.status, through.body)


async def test_ndjson_bodies_are_not_parsed_as_one_object(index_name: str, engine_url: str, start: Start) -> None:
    """A bulk load, and then a search by GET without body or query text."""
    url = await start({"index": f"{index_name}*", "passage": ["title"]})
    lines = b'{"index":{"_id":"1"}}\n{"title":"a"}\n{"delete":{"_id":"2"}}\n'
    kind = {"Content-Type": "application/x-ndjson"}
    loaded = await send(url, Request("POST", f"/{index_name}/_bulk?refresh=true", lines, kind))
    assert [201, 404] == [next(iter(item.values()))["status"] for item in loaded.json["items"]]
    search = Request("GET", f"/{index_name}/_search", headers={})
    assert_handed_on(await send(engine_url, search), await send(url, search))


def _own_part(hit: Any) -> Any:
    """A hit without its score, and without what the proxy keeps in the index for itself."""
    source = hit.get("_source", {})
    return but_score(hit) | {"_source": {name: source[name] for name in source if not name.startswith("embedding")}}


@pytest.mark.parametrize(
    ("query_string", "outcome"),
    [
        ("q=title:laptop&_source=", "reranked"),
        ("q=title:laptop&_source=title&_source=price", 'bypassed;reason=unknown_parameter;key="_source"'),
        ("q=title:laptop&pretty&human", "reranked"),
        ("q=title:laptop%20sound&_source_includes=title%2Cprice", "reranked"),
        ("q=title:laptop&&filter_path=hits.hits._source", "reranked"),
    ],
)
async def test_every_url_parameter_reaches_the_engine(query_string: str, outcome: str, open_sides: Open) -> None:
    request = Request("GET", f"/{{i}}/_search?{query_string}&size={ALL}", headers={})
    straight, through = await both(open_sides, request)
    assert outcome == through.outcome
    found = [_own_part(hit) for hit in through.hits]
    assert straight.hits
    assert [] == [hit for hit in map(_own_part, straight.hits) if hit not in found]


async def test_pages_are_slices_of_one_ranking(open_sides: Open) -> None:
    through = (await open_sides(rank_window_size=WINDOW)).through
    whole = (await through.search({"query": LAPTOP, "size": ALL})).ids
    pages = [await through.search({"query": LAPTOP, "size": 4, "from": first}) for first in range(0, len(whole), 4)]
    assert whole == [name for page in pages for name in page.ids]


async def test_pages_larger_than_the_window_are_complete(open_sides: Open) -> None:
    sides = await open_sides(rank_window_size=WINDOW)
    query = {"query": {"bool": {"should": [{"match": {"title": "laptop phone"}}], "filter": {"match_all": {}}}}}
    straight, through = (
        await sides.straight.search(query | {"size": ALL}),
        await sides.through.search(query | {"size": ALL}),
    )
    assert "reranked" == through.outcome
    assert WINDOW < len(straight.ids) <= len(through.ids)


async def test_scores_are_in_descending_order(open_sides: Open) -> None:
    through = await (await open_sides(rank_window_size=WINDOW)).through.search({"query": LAPTOP, "size": ALL})
    scores = [hit["_score"] for hit in through.hits]
    assert sorted(scores, reverse=True) == scores
    assert scores[0] == through.json["hits"]["max_score"]
    assert scores[-1] >= 0


@pytest.mark.parametrize(
    ("more", "query_string", "reason"),
    [
        ({"sort": ["price"]}, "", "sort"),
        ({"size": 0, "aggs": {"brands": {"terms": {"field": "brand"}}}}, "", "size_zero"),
        ({"search_after": [1.0, 1], "sort": ["_score", "_doc"]}, "", "search_after"),
        ({}, "scroll=1m", "scroll"),
    ],
)
async def test_searches_with_a_sort_keep_their_order(
    more: dict[str, object], query_string: str, reason: str, open_sides: Open
) -> None:
    sides = await open_sides()
    straight = await sides.straight.search({"query": LAPTOP} | more, query_string)
    through = await sides.through.search({"query": LAPTOP} | more, query_string)
    assert f"bypassed;reason={reason}" == through.outcome
    assert straight.ids == through.ids


async def test_aggregations_are_those_of_the_query(open_sides: Open) -> None:
    """If kNN adds no hits; else see test_facets.py."""
    sides = await open_sides(semantic=None)
    body = {"query": LAPTOP, "aggs": {"brands": {"terms": {"field": "brand"}}}}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert "reranked" == through.outcome
    assert straight.json["aggregations"] == through.json["aggregations"]


async def test_scores_are_assigned_to_the_right_documents(open_index: OpenIndex, models: ShopModels) -> None:
    """Documents without the field, with a list in it, and with an empty value do not shift the scores of others."""
    titles: dict[str, Any] = {
        "lacks": None,
        "list": ["laptop bag", "case"],
        "empty": "",
        "blank": " ",
        "plain": "laptop sleeve",
        "last": "last",
    }
    documents = {
        name: {"brand": "acme"} | ({"title": title} if title is not None else {}) for name, title in titles.items()
    }
    models.score = lambda text: {"last": 0.9, "laptop sleeve": 0.5}.get(text, 0.7)
    bare = {"settings": catalogue.SETTINGS, "mappings": {"properties": catalogue.PROPERTIES}}
    sides = await open_index(bare, documents, semantic=None, passage=["title"])
    query = {"bool": {"should": [{"match": {"title": "laptop"}}, {"term": {"brand": "acme"}}]}}
    straight, through = await sides.straight.search({"query": query}), await sides.through.search({"query": query})
    without = {"lacks", "empty", "blank"}
    assert ["last", "list", "plain"] == [name for name in through.ids if name not in without]
    assert {straight.ids.index(name) for name in without} == {through.ids.index(name) for name in without}


@pytest.mark.parametrize("fault", [refuses(500), breaks_off, says(b'{"scores":[0.5]}'), says(b"<html>"), refuses(402)])
async def test_a_failing_model_causes_no_error(fault: object, open_sides: Open, models: ShopModels) -> None:
    models.faults |= {"rerank": fault, "embed": fault}  # type: ignore[dict-item]
    sides = await open_sides(semantic=None)
    straight, through = await sides.straight.search({"query": LAPTOP}), await sides.through.search({"query": LAPTOP})
    assert through.outcome.startswith('degraded;stages="rerank"')
    assert (200, straight.ids) == (through.status, through.ids)


@pytest.mark.parametrize(
    "body", [b'{"query":{"nosuch":{}}}', b'{"query":', b'{"query":{"match":{"title":"laptop"}},"size":-1}']
)
async def test_engine_errors_are_relayed_unchanged(body: bytes, open_sides: Open) -> None:
    straight, through = await both(open_sides, Request("POST", "/{i}/_search", body))
    assert 400 == straight.status
    assert_handed_on(straight, through)


@pytest.mark.parametrize(
    ("query_string", "more"),
    [
        ("query_prep=__import__('os').abort()", {}),
        ("uhost=127.0.0.1&uport=1&ussl=true", {}),
        ("topn=100&query_path=body.query", {}),
        ("", {"nboost": {"uhost": "127.0.0.1", "query_prep": "1"}}),
    ],
)
async def test_requests_cannot_execute_code_or_name_hosts(
    query_string: str, more: dict[str, object], open_sides: Open
) -> None:
    """The engine rejects what it does not know, and its error is the response."""
    sides = await open_sides()
    straight = await sides.straight.search({"query": LAPTOP} | more, query_string)
    through = await sides.through.search({"query": LAPTOP} | more, query_string)
    assert 400 == straight.status
    assert_handed_on(straight, through)


async def test_a_hanging_model_delays_a_search_by_its_timeout_at_most(open_sides: Open, models: ShopModels) -> None:
    models.faults["rerank"] = hangs
    sides = await open_sides(semantic=None, sections={"models": {"rerank_timeout_seconds": 0.05}})
    through = await sides.through.search({"query": LAPTOP})
    assert 'degraded;stages="rerank";reason=timeout' == through.outcome


@pytest.mark.parametrize(
    "query",
    [
        {"bool": {"must": [LAPTOP], "filter": [{"term": {"in_stock": True}}]}},
        {"multi_match": {"query": "laptop", "fields": ["title^2", "description"]}},
        {"query_string": {"query": "laptop", "default_field": "title"}},
        {"nested": {"path": "reviews", "query": {"match": {"reviews.text": "laptop"}}}},
    ],
    ids=lambda query: next(iter(query)),
)
async def test_query_text_is_found_in_other_queries_than_match(query: dict[str, object], open_sides: Open) -> None:
    through = await (await open_sides()).through.search({"query": query})
    assert "reranked" == through.outcome
