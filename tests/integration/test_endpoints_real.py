"""However a search is sent, it has the same ranking, and each hit is the engine's."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.integration.comparing import assert_handed_on, beside_hits, but_score, comparable, without_outcome
from tests.integration.conftest import Open, Shop, Sides
from tests.integration.engines import (
    ELASTICSEARCH,
    EVERYWHERE,
    OPENSEARCH,
    OPENSEARCH_KNN,
    WITH_PIPELINES,
    RealEngine,
)
from tests.integration.outcomes import REFUSED, Record
from tests.integration.sending import JSON, Client, Reply, Request, send

pytestmark = [pytest.mark.engine, EVERYWHERE]

WORDS = {"match": {"title": "laptop"}}
BODY: dict[str, Any] = {"query": WORDS, "size": 7, "_source": ["title", "brand"]}
NDJSON = {"Content-Type": "application/x-ndjson"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def _written(body: Any) -> bytes:
    return json.dumps(body).encode()


def _shown(reply: Reply) -> dict[str, Any]:
    return {hit["_id"]: but_score(hit) for hit in reply.hits}


def _assert_same_hits(straight: Reply, through: Reply) -> None:
    """Each document that both sides show is the same on both."""
    ours, theirs = _shown(through), _shown(straight)
    shared = ours.keys() & theirs.keys()
    assert shared
    assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}


_SOURCE = urlencode({"source": json.dumps(BODY), "source_content_type": "application/json"})
WAYS: dict[str, Request] = {
    "`POST /i/_search`": Request("POST", "/{i}/_search", _written(BODY)),
    "`GET /i/_search` with a body": Request("GET", "/{i}/_search", _written(BODY)),
    "`?source=`": Request("GET", f"/{{i}}/_search?{_SOURCE}", headers={}),
    "`?q=`": Request("GET", "/{i}/_search?q=laptop&df=title&size=7&_source=title,brand", headers={}),
    "a body without `Content-Type`": Request("POST", "/{i}/_search", _written(BODY), {}),
    "a form's `Content-Type`": Request("POST", "/{i}/_search", _written(BODY), FORM),
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_search_has_one_ranking_however_it_is_sent(way: str, open_sides: Open, record_outcome: Record) -> None:
    """Where the engine rejects a way of sending it, the response is the engine's error."""
    sides, asked = await open_sides(), WAYS[way]
    asked = Request(asked.method, asked.target.replace("{i}", sides.through.index), asked.body, asked.headers)
    straight, through = await send(sides.straight.url, asked), await send(sides.through.url, asked)
    if straight.status != 200:
        assert_handed_on(straight, through)
        record_outcome(way, REFUSED)
        return
    usual = await sides.through.search(BODY)
    assert ("reranked", usual.ids, usual.total) == (through.outcome, through.ids, through.total)
    _assert_same_hits(straight, through)
    record_outcome(way, through.outcome)


NAMES = {
    "several indices": "{0.index},{0.second}",
    "a pattern": "{0.index}*",
    "an alias with a filter": "{0.acme}",
    "names that are missing, ignored": "{0.index},{0.index}-missing",
}


@pytest.mark.parametrize("names", NAMES)
async def test_hits_name_their_index_whatever_names_are_searched(
    names: str, shop: Shop, open_sides: Open, record_outcome: Record
) -> None:
    """All names are in one route."""
    sides = await open_sides(NAMES[names].format(shop))
    straight = await sides.straight.search(BODY | {"size": 100}, "ignore_unavailable=true")
    through = await sides.through.search(BODY | {"size": 100}, "ignore_unavailable=true")
    theirs = {(hit["_index"], hit["_id"]) for hit in straight.hits}
    assert ("reranked", True) == (through.outcome, theirs <= {(hit["_index"], hit["_id"]) for hit in through.hits})
    record_outcome(names, through.outcome)


@dataclass(frozen=True, slots=True)
class Point:
    """A point in time, and how to search in it."""

    identifier: str

    def body(self, **more: Any) -> bytes:
        return _written(BODY | {"pit": {"id": self.identifier, "keep_alive": "1m"}} | more)


@pytest.fixture
async def point(real_engine: RealEngine, shop: Shop) -> AsyncIterator[Point]:
    """A point in time of the shop."""
    path, url = real_engine.points_in_time, real_engine.url
    opened = await send(url, Request("POST", f"/{shop.index}/{path}?keep_alive=1m", b""))
    name = opened.json["id" if real_engine.is_elasticsearch else "pit_id"]
    yield Point(name)
    closing = {"id": name} if real_engine.is_elasticsearch else {"pit_id": [name]}
    await send(url, Request("DELETE", f"/{path}", _written(closing)))


async def test_a_point_in_time_search_is_reranked_page_by_page(
    point: Point, open_sides: Open, record_outcome: Record
) -> None:
    """Without a sort."""
    sides = await open_sides(rank_window_size=5)
    usual = await sides.through.search(BODY | {"size": 100})
    pages = [
        await send(sides.through.url, Request("POST", "/_search", point.body(**{"from": first, "size": 3})))
        for first in range(0, len(usual.ids) + 3, 3)
    ]
    straight = await send(sides.straight.url, Request("POST", "/_search", point.body(size=3)))
    assert {"reranked"} == {page.outcome for page in pages}
    assert usual.ids == [name for page in pages for name in page.ids]
    assert {json.dumps(usual.total)} == {json.dumps(page.total) for page in pages}
    assert straight.json.keys() == pages[0].json.keys()
    record_outcome("a point in time without a sort", pages[0].outcome)


async def test_search_after_over_a_point_in_time_reaches_the_end(point: Point, open_sides: Open) -> None:
    """Elasticsearch adds sort values to hits of a point in time, even without a sort."""
    sides = await open_sides(rank_window_size=5)
    whole = await send(sides.through.url, Request("POST", "/_search", point.body(size=100)))
    page = await send(sides.through.url, Request("POST", "/_search", point.body(size=3)))
    if "sort" not in page.hits[0]:
        return
    seen = page.ids
    while page.hits:
        following = point.body(size=3, search_after=page.hits[-1]["sort"])
        page = await send(sides.through.url, Request("POST", "/_search", following))
        seen += page.ids
        assert len(seen) <= len(whole.ids)
    assert ("reranked", whole.ids) == (page.outcome, seen)


async def test_a_point_in_time_may_state_the_order_that_it_has(point: Point, open_sides: Open) -> None:
    """By score and then by shard and document, as without a sort; a loop over it reaches the end."""
    sides = await open_sides(rank_window_size=5)
    sort = ["_score", {"_shard_doc": "asc"}]
    straight = await send(sides.straight.url, Request("POST", "/_search", point.body(size=3, sort=sort)))
    if straight.status != 200:  # OpenSearch has no `_shard_doc`
        return
    whole = await send(sides.through.url, Request("POST", "/_search", point.body(size=100)))
    page = await send(sides.through.url, Request("POST", "/_search", point.body(size=3, sort=sort)))
    assert straight.hits[0].keys() == page.hits[0].keys()
    seen = page.ids
    while page.hits:
        following = point.body(size=3, sort=sort, search_after=page.hits[-1]["sort"])
        page = await send(sides.through.url, Request("POST", "/_search", following))
        seen += page.ids
        assert len(seen) <= len(whole.ids)
    assert ("reranked", whole.ids) == (page.outcome, seen)


async def test_a_sorted_point_in_time_search_is_the_engines(
    point: Point, open_sides: Open, record_outcome: Record
) -> None:
    """A `search_after` loop over it is bypassed from its first page on."""
    sides = await open_sides()
    body = point.body(sort=["_score", {"price": "asc"}])
    straight = await send(sides.straight.url, Request("POST", "/_search", body))
    through = await send(sides.through.url, Request("POST", "/_search", body))
    assert ("bypassed;reason=cursor", straight.hits) == (through.outcome, through.hits)
    last = point.body(sort=["_score", {"price": "asc"}], search_after=straight.hits[-1]["sort"])
    following = await send(sides.through.url, Request("POST", "/_search", last))
    assert "bypassed;reason=search_after" == following.outcome
    assert (await send(sides.straight.url, Request("POST", "/_search", last))).hits == following.hits
    record_outcome("a point in time with `sort`", through.outcome)


async def test_scrolls_are_passed_through(open_sides: Open, record_outcome: Record) -> None:
    """From the first response to the last."""
    sides = await open_sides()
    straight, through = (
        await sides.straight.search(BODY, "scroll=1m"),
        await sides.through.search(BODY, "scroll=1m"),
    )
    assert ("bypassed;reason=scroll", straight.hits) == (through.outcome, through.hits)
    goes_on = _written({"scroll": "1m", "scroll_id": through.json["_scroll_id"]})
    following = await send(sides.through.url, Request("POST", "/_search/scroll", goes_on))
    assert ("", []) == (following.outcome, [name for name in following.ids if name in through.ids])
    ended = await send(
        sides.through.url, Request("DELETE", "/_search/scroll", goes_on.replace(b'"scroll": "1m", ', b""))
    )
    assert 200 == ended.status
    record_outcome("`?scroll=`", through.outcome)


BESIDE: dict[str, tuple[str, str, bytes]] = {
    "count": ("POST", "/{i}/_count", _written({"query": WORDS})),
    "explain": ("POST", "/{i}/_explain/p00", _written({"query": WORDS})),
    "validate": ("POST", "/{i}/_validate/query?explain", _written({"query": WORDS})),
    "mget": ("POST", "/{i}/_mget", b'{"ids":["p00"]}'),
}


@pytest.mark.parametrize("beside", BESIDE)
async def test_other_document_apis_are_passed_through(beside: str, open_sides: Open, record_outcome: Record) -> None:
    """Without any header of the proxy."""
    sides = await open_sides()
    method, target, body = BESIDE[beside]
    request = Request(method, target.replace("{i}", sides.straight.index), body)
    straight, through = await send(sides.straight.url, request), await send(sides.through.url, request)
    assert ("", comparable(straight)) == (through.outcome, comparable(through))
    record_outcome(f"`_{beside if beside != 'validate' else 'validate/query'}`", "untouched")


# _msearch


def _lines(*values: Any) -> bytes:
    return b"".join(_written(value) + b"\n" for value in values)


async def _msearch(url: str, content: bytes, target: str = "/_msearch") -> Reply:
    return await send(url, Request("POST", target, content, NDJSON))


async def test_multi_search_items_have_their_own_outcomes(shop: Shop, open_sides: Open, record_outcome: Record) -> None:
    """Each with its own status and error, in order; items that are not reranked are the engine's."""
    sides = await open_sides()
    items: Sequence[tuple[Any, Any]] = [
        ({"index": shop.index}, BODY),
        ({"index": shop.plain}, BODY),
        ({"index": shop.index}, {"size": 0, "query": WORDS}),
        ({"index": f"{shop.index}-missing"}, BODY),
        ({"index": [shop.index, shop.second], "preference": "_local"}, BODY),
        ({"index": shop.index}, {"query": {"range": {"released": {"gte": "nonsense"}}}}),
        ({"index": shop.index}, BODY | {"from": 3, "size": 2}),
    ]
    content = _lines(*(line for item in items for line in item))
    straight, through = await _msearch(sides.straight.url, content), await _msearch(sides.through.url, content)
    assert through.outcome.split(", ") == [
        "reranked",
        "unrouted",
        "bypassed;reason=size_zero",
        "bypassed;reason=unresolved",
        "reranked",
        "bypassed;reason=no_query_text",
        "reranked",
    ]
    theirs, ours = straight.json["responses"], through.json["responses"]
    assert [200, 200, 200, 404, 200, 400, 200] == [each["status"] for each in ours]
    for number in (1, 2, 3, 5):
        assert theirs[number] | {"took": 0} == ours[number] | {"took": 0}
    for number, client in ((0, sides.through), (4, Client(sides.through.url, f"{shop.index},{shop.second}"))):
        alone = await client.search(items[number][1])
        assert alone.json["hits"] == ours[number]["hits"]
        assert theirs[number].keys() == ours[number].keys()
    assert straight.json.keys() == through.json.keys()
    assert straight.header("Content-Type") == through.header("Content-Type")
    record_outcome("`_msearch`", "reranked, each item")


@pytest.mark.parametrize(
    "parameters", ["pretty", "typed_keys=true", "rest_total_hits_as_int=true", "max_concurrent_searches=1"]
)
async def test_multi_search_url_parameters_apply_to_each_item(parameters: str, shop: Shop, open_sides: Open) -> None:
    """As for a single search."""
    sides = await open_sides()
    asked = BODY | {"aggs": {"brands": {"terms": {"field": "brand", "size": 100}}}}
    content = _lines({}, asked, {}, {"size": 0})
    target = f"/{shop.index}/_msearch?{parameters}"
    straight = await _msearch(sides.straight.url, content, target)
    through = await _msearch(sides.through.url, content, target)
    assert "reranked, bypassed;reason=size_zero" == through.outcome
    ours, theirs = through.json["responses"], straight.json["responses"]
    assert theirs[0]["aggregations"].keys() == ours[0]["aggregations"].keys()
    more = _counts(ours[0]["aggregations"])
    assert all(more[brand] >= count for brand, count in _counts(theirs[0]["aggregations"]).items())
    assert type(theirs[0]["hits"]["total"]) is type(ours[0]["hits"]["total"])
    assert straight.content.count(b"\n") > 2 or straight.content.count(b"\n") == through.content.count(b"\n")


def _counts(aggregations: Mapping[str, Any]) -> dict[str, int]:
    (facet,) = aggregations.values()
    return {bucket["key"]: bucket["doc_count"] for bucket in facet["buckets"]}


REFUSED_LINES: dict[str, bytes] = {
    "no last newline": _lines({}, BODY)[:-1],
    "a line too many": _lines({}, BODY, {}),
    "unknown query": _lines({}, BODY, {}, {"query": {"nosuch": {}}}),
    "unknown word in a head": _lines({"indexx": "a"}, BODY),
    "not JSON": b"{}\nlaptop\n",
    "nothing": b"\n",
}


@pytest.mark.parametrize("content", REFUSED_LINES.values(), ids=REFUSED_LINES)
async def test_a_multi_search_that_the_engine_rejects_gets_its_error(
    content: bytes, shop: Shop, open_sides: Open
) -> None:
    """Whatever was reranked meanwhile."""
    sides = await open_sides()
    target = f"/{shop.index}/_msearch"
    await _msearch(sides.straight.url, content, target)  # OpenSearch warns of a thing once alone
    straight, through = (
        await _msearch(sides.straight.url, content, target),
        await _msearch(sides.through.url, content, target),
    )
    assert comparable(straight) == comparable(without_outcome(through))


async def test_a_multi_search_outside_all_routes_is_passed_through(shop: Shop, open_sides: Open) -> None:
    """Without any header of the proxy."""
    sides = await open_sides()
    content = _lines({"index": shop.plain}, BODY, {}, {"size": 1, "query": {"ids": {"values": ["p00"]}}})
    target = f"/{shop.plain}/_msearch"
    straight, through = (
        await _msearch(sides.straight.url, content, target),
        await _msearch(sides.through.url, content, target),
    )
    assert comparable(straight) == comparable(through)


# templates

TEMPLATE = {"query": {"match": {"title": "{{words}}"}}, "size": 7, "_source": ["title", "brand"]}
PARAMS = {"words": "laptop"}
FILTERED = ["?filter_path=hits.hits._id,hits.total,status", "?filter_path=**._id", "?filter_path=-_shards,-took&pretty"]


async def _both(sides: Sides, request: Request) -> tuple[Reply, Reply]:
    return await send(sides.straight.url, request), await send(sides.through.url, request)


@pytest.mark.parametrize("parameters", ["", "?size=1", "?pretty", *FILTERED])
async def test_search_templates_are_rendered_and_reranked(
    parameters: str, shop: Shop, open_sides: Open, record_outcome: Record
) -> None:
    """The engine renders the template; its response format is kept."""
    sides = await open_sides()
    body = _written({"source": TEMPLATE, "params": PARAMS})
    straight, through = await _both(sides, Request("POST", f"/{shop.index}/_search/template{parameters}", body))
    if straight.status != 200:
        assert comparable(straight) == comparable(without_outcome(through))
        record_outcome("`_search/template`", REFUSED)
        return
    usual = await sides.through.search(BODY)
    assert ("reranked", usual.ids) == (through.outcome, through.ids)
    assert straight.json.keys() == through.json.keys()
    assert list(beside_hits(straight)) == list(beside_hits(through))
    assert straight.content.count(b"\n") > 2 or straight.content.count(b"\n") == through.content.count(b"\n")
    record_outcome("`_search/template`", through.outcome)


@OPENSEARCH
async def test_per_request_options_are_removed_from_template_bodies(shop: Shop, open_sides: Open) -> None:
    """The engine accepts no `ext` there."""
    sides = await open_sides()
    template = {"source": TEMPLATE, "params": PARAMS}
    outcomes = []
    for said in ({"explain": True}, {"enabled": False}):
        body = _written({**template, "ext": {"rerank_proxy": said}})
        straight, through = await _both(sides, Request("POST", f"/{shop.index}/_search/template", body))
        assert (400, 200) == (straight.status, through.status)
        outcomes.append((through.outcome, "_rerank" in through.hits[0]))
    assert [("reranked", True), ("bypassed;reason=steered_off", False)] == outcomes


@OPENSEARCH
@pytest.mark.parametrize(
    "template",
    [{"id": "no-such-template", "params": PARAMS}, {"params": PARAMS}, {"source": "{{words}}", "params": PARAMS}, {}],
)
async def test_a_missing_or_invalid_template_gets_the_engines_error(
    template: Any, shop: Shop, open_sides: Open
) -> None:
    """So does one that does not render to a search."""
    sides = await open_sides()
    straight, through = await _both(sides, Request("POST", f"/{shop.index}/_search/template", _written(template)))
    assert_handed_on(straight, through)


@OPENSEARCH
async def test_stored_templates_are_rendered_and_reranked(shop: Shop, open_sides: Open) -> None:
    """Like templates in the body."""
    sides = await open_sides()
    name = f"{shop.index}-words"
    stored = _written({"script": {"lang": "mustache", "source": TEMPLATE}})
    assert 200 == (await send(sides.through.url, Request("PUT", f"/_scripts/{name}", stored))).status
    body = _written({"id": name, "params": PARAMS})
    through = await send(sides.through.url, Request("GET", f"/{shop.index}/_search/template", body))
    await send(sides.straight.url, Request("DELETE", f"/_scripts/{name}"))
    assert ("reranked", (await sides.through.search(BODY)).ids) == (through.outcome, through.ids)


async def test_multi_search_templates_fail_one_by_one(shop: Shop, open_sides: Open, record_outcome: Record) -> None:
    """The error of one template is an item of the response."""
    sides = await open_sides()
    good: dict[str, Any] = {"source": TEMPLATE, "params": PARAMS}
    bad: dict[str, Any] = {"source": {"query": {"nosuch": {}}}}
    content = _lines({"index": shop.index}, good, {"index": shop.index}, bad, {"index": shop.plain}, good)
    straight = await _msearch(sides.straight.url, content, "/_msearch/template")
    through = await _msearch(sides.through.url, content, "/_msearch/template")
    if straight.status != 200:
        assert comparable(straight) == comparable(without_outcome(through))
        record_outcome("`_msearch/template`", REFUSED)
        return
    assert through.outcome.startswith("reranked, bypassed;reason=")
    assert through.outcome.endswith(", unrouted")
    theirs, ours = straight.json["responses"], through.json["responses"]
    assert [each.get("status") for each in theirs] == [each.get("status") for each in ours]
    assert (await sides.through.search(BODY)).json["hits"] == ours[0]["hits"]
    assert theirs[1] == ours[1]
    assert theirs[2] | {"took": 0} == ours[2] | {"took": 0}
    record_outcome("`_msearch/template`", "reranked, each item")


# retrievers and kNN of the client's own

VECTOR = [1, 0, 0, 0, 0, 0, 0, 0.5]
OWN_KNN = {"field": "embedding", "query_vector": VECTOR, "k": 4, "num_candidates": 40}
OWN_SCORES = 'reranked;stages="semantic";reason=own_scores'
RETRIEVERS: dict[str, tuple[dict[str, Any], str]] = {
    "`retriever.standard`": ({"retriever": {"standard": {"query": WORDS}}}, "reranked"),
    "`retriever.standard` with `filter`": (
        {"retriever": {"standard": {"query": WORDS, "filter": {"term": {"brand": "acme"}}}}},
        "reranked",
    ),
    "`retriever.standard` with `min_score`": (
        {"retriever": {"standard": {"query": WORDS, "min_score": 0.1}}},
        OWN_SCORES,
    ),
    "`retriever.knn` by a vector": ({"retriever": {"knn": OWN_KNN}}, "bypassed;reason=no_query_text"),
    "`retriever.rrf` and other compounds": (
        {"retriever": {"rrf": {"retrievers": [{"standard": {"query": WORDS}}, {"knn": OWN_KNN}]}}},
        "bypassed;reason=retriever",
    ),
    "`knn` beside a `query`": ({"query": WORDS, "knn": OWN_KNN}, OWN_SCORES),
    "`knn` alone, by a vector": ({"knn": OWN_KNN}, "bypassed;reason=no_query_text"),
    "a `knn` query in `bool.should`": (
        {"query": {"bool": {"must": [WORDS], "should": [{"knn": {**OWN_KNN, "boost": 0.1}}]}}},
        "reranked",
    ),
}


@ELASTICSEARCH
@pytest.mark.parametrize("way", RETRIEVERS)
async def test_retrievers_with_query_text_are_reranked(way: str, open_sides: Open, record_outcome: Record) -> None:
    """Others are left as they are."""
    sides = await open_sides()
    asked, outcome = RETRIEVERS[way]
    body = asked | {"size": 50, "_source": ["title"]}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert outcome == through.outcome
    if outcome.startswith("reranked"):
        assert set(straight.ids) <= set(through.ids)
        assert len(set(through.ids)) == len(through.ids) == through.total["value"]
        _assert_same_hits(straight, through)
    else:
        assert_handed_on(straight, through)
    record_outcome(way, outcome)


@ELASTICSEARCH
@pytest.mark.parametrize(
    "standard",
    [
        {"sort": ["_score", {"price": "asc"}]},
        {"sort": [{"brand": "asc"}, "_score"], "filter": [{"range": {"price": {"lt": 1500}}}]},
        {"collapse": {"field": "brand", "inner_hits": {"name": "more", "size": 2}}},
        {"collapse": {"field": "brand"}, "sort": ["_score", "title.exact"], "min_score": 0.1},
    ],
)
async def test_a_standard_retriever_with_an_order_or_groups_is_the_plain_search(
    standard: Mapping[str, Any], open_sides: Open
) -> None:
    """On both sides, hit by hit; so the engine's own response shows that it stands for this search."""
    sides = await open_sides()
    own = {"query": WORDS, **standard}
    filters = own.pop("filter", [])
    plain = own | {"query": {"bool": {"must": [WORDS], "filter": filters}}} if filters else own
    shown = {"size": 20, "_source": ["title"], "aggs": {"brands": {"terms": {"field": "brand"}}}}
    for side, outcome in ((sides.straight, ""), (sides.through, "reranked")):
        one = await side.search({**shown, **plain})
        two = await side.search({**shown, "retriever": {"standard": {"query": WORDS, **standard}}})
        assert outcome == two.outcome.split(";")[0]
        assert (one.status, one.hits, one.total) == (two.status, two.hits, two.total)
        assert one.json["aggregations"] == two.json["aggregations"]


@ELASTICSEARCH
async def test_a_retrievers_filter_applies_to_knn(open_sides: Open) -> None:
    """What it excludes is not found by kNN either."""
    near = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20, "min_similarity": -1}
    sides = await open_sides(semantic=near)
    body = {"retriever": {"standard": {"query": WORDS, "filter": {"term": {"brand": "acme"}}}}, "size": 100}
    through = await sides.through.search(body)
    assert ("reranked", {"acme"}) == (through.outcome, {hit["_source"]["brand"] for hit in through.hits})


async def test_retrievers_are_rejected_by_an_engine_without_them(open_sides: Open, real_engine: RealEngine) -> None:
    """In its words."""
    if real_engine.is_elasticsearch:
        return
    sides = await open_sides()
    for more in ({}, {"sort": ["_score", "price"]}, {"collapse": {"field": "brand"}}):
        body = {"retriever": {"standard": {"query": WORDS, **more}}}
        straight, through = await sides.straight.search(body), await sides.through.search(body)
        assert (400, straight.body) == (through.status, through.body)


@OPENSEARCH_KNN
async def test_opensearch_knn_queries_in_bool_stay_boosts(open_sides: Open, record_outcome: Record) -> None:
    """The documents that they find stay found."""
    sides = await open_sides()
    near = {"knn": {"embedding": {"vector": VECTOR, "k": 4}}}
    body = {"query": {"bool": {"must": [WORDS], "should": [near]}}, "size": 50, "_source": ["title"]}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert ("reranked", True) == (through.outcome, set(straight.ids) <= set(through.ids))
    _assert_same_hits(straight, through)
    record_outcome("a `knn` query in `bool.should`", through.outcome)


@OPENSEARCH_KNN
async def test_a_knn_query_without_query_text_is_bypassed(open_sides: Open, record_outcome: Record) -> None:
    sides = await open_sides()
    body = {"query": {"knn": {"embedding": {"vector": VECTOR, "k": 4}}}}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert "bypassed;reason=no_query_text" == through.outcome
    assert_handed_on(straight, through)
    record_outcome("`knn` alone, by a vector", through.outcome)


@WITH_PIPELINES
async def test_a_route_on_an_engine_without_knn_reranks_lexical_hits(open_sides: Open, record_outcome: Record) -> None:
    """Each response reports why kNN was skipped."""
    sides = await open_sides(semantic={"field": "embedding", "dimensions": 8})
    through = await sides.through.search(BODY)
    alone = await (await open_sides()).through.search(BODY)
    assert 'degraded;stages="semantic";reason=no_vector_field' == through.outcome
    assert alone.ids == through.ids
    record_outcome("a semantic route without vectors", through.outcome)


async def test_opensearch_ext_rerank_gives_the_query_text(open_sides: Open, record_outcome: Record) -> None:
    """The member stays in the body, so an engine without it rejects it in its own words."""
    sides = await open_sides()
    body = BODY | {"ext": {"rerank": {"query_context": {"query_text": "a notebook"}}}}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert 400 == straight.status
    assert_handed_on(straight, through)
    record_outcome("`ext.rerank`", REFUSED)


# search pipelines

PIPELINES: dict[str, tuple[Any, str]] = {
    "empty": ({"description": "does nothing"}, "reranked"),
    "response": (
        {"response_processors": [{"rename_field": {"field": "title", "target_field": "name"}}]},
        "bypassed;reason=pipeline",
    ),
    "request": (
        {"request_processors": [{"filter_query": {"query": {"term": {"brand": "acme"}}}}]},
        "bypassed;reason=pipeline",
    ),
    "oversample": (
        {"request_processors": [{"oversample": {"sample_factor": 2}}], "response_processors": [{"truncate_hits": {}}]},
        "bypassed;reason=pipeline",
    ),
}


@WITH_PIPELINES
@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("place", ["url", "body", "inline", "index", "alias"])
async def test_searches_with_harmless_pipelines_are_reranked(
    name: str, place: str, shop: Shop, open_sides: Open, record_outcome: Record
) -> None:
    """Wherever the pipeline is named; other pipelines are bypassed."""
    sides = await open_sides()
    pipeline, outcome = PIPELINES[name]
    own = f"{shop.index}-pipeline"
    straight_url = sides.straight.url
    body, url, client = dict(BODY), "", sides
    if place != "inline":
        assert 200 == (await send(straight_url, Request("PUT", f"/_search/pipeline/{own}", _written(pipeline)))).status
    match place:
        case "url":
            url = f"search_pipeline={own}"
        case "body":
            body["search_pipeline"] = own
        case "inline":
            body["search_pipeline"] = pipeline
        case _:
            await _default_pipeline(straight_url, shop.index, own)
    if place == "alias":
        client = Sides(Client(sides.straight.url, shop.acme), Client(sides.through.url, shop.acme))
    try:
        fresh = await open_sides(client.through.index) if place in {"index", "alias"} else client
        straight, through = await client.straight.search(body, url), await fresh.through.search(body, url)
        opted_out = await fresh.through.search(body, "search_pipeline=_none") if place == "index" else None
    finally:
        await _default_pipeline(straight_url, shop.index, None)
        await send(straight_url, Request("DELETE", f"/_search/pipeline/{own}"))
    if straight.status == 200 and outcome == "reranked":
        assert outcome == through.outcome
        _assert_same_hits(straight, through)
    else:
        assert_handed_on(straight, through)
        assert straight.status != 200 or outcome == through.outcome
    assert opted_out is None or opted_out.outcome == "reranked"
    record_outcome(
        "a search pipeline without processors" if outcome == "reranked" else "another search pipeline",
        outcome,
    )


async def _default_pipeline(url: str, index: str, name: str | None) -> None:
    said = _written({"index.search.default_pipeline": name})
    assert 200 == (await send(url, Request("PUT", f"/{index}/_settings", said))).status


@WITH_PIPELINES
async def test_the_proxys_searches_opt_out_of_default_pipelines(shop: Shop, open_sides: Open) -> None:
    """The result is the same as without a default pipeline."""
    sides = await open_sides()
    usual = await sides.through.search(BODY | {"_source": False})
    own = f"{shop.index}-pipeline"
    pipeline = _written(PIPELINES["request"][0])
    await send(sides.straight.url, Request("PUT", f"/_search/pipeline/{own}", pipeline))
    await _default_pipeline(sides.straight.url, shop.index, own)
    try:
        through = await (await open_sides()).through.search(BODY | {"_source": False}, "search_pipeline=_none")
    finally:
        await _default_pipeline(sides.straight.url, shop.index, None)
        await send(sides.straight.url, Request("DELETE", f"/_search/pipeline/{own}"))
    assert ("reranked", usual.ids) == (through.outcome, through.ids)


async def test_encoded_names_in_the_path_are_decoded_by_the_engine(
    shop: Shop, open_sides: Open, record_outcome: Record
) -> None:
    """Date math and percent signs."""
    name = quote(f"<{shop.index}>", safe="")
    sides = await open_sides(name)
    straight, through = await sides.straight.search(BODY), await sides.through.search(BODY)
    assert "reranked" == through.outcome
    _assert_same_hits(straight, through)
    assert JSON["Content-Type"] in through.header("Content-Type")
    record_outcome("date math in a name", through.outcome)
