"""`from` and `size` cut one ranking: pages add up to the whole, at any depth, without extra cost for the engine."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration import shop as catalogue
from tests.integration.conftest import Open, OpenIndex, Shop
from tests.integration.engines import EVERYWHERE, WITH_KNN, RealEngine
from tests.integration.models import ShopModels
from tests.integration.sending import Client, Request, send

pytestmark = [pytest.mark.engine, EVERYWHERE]

QUERY = {"multi_match": {"query": "laptop for children", "fields": ["title", "description"]}}
WITHOUT_VECTORS: dict[str, Any] = {"semantic": None}
ONLY_FUSED: dict[str, Any] = {"rerank": False}
BOTH: dict[str, Any] = {}


async def _page(client: Client, first: int, size: int, **rest: Any) -> Any:
    reply = await client.search({"query": QUERY, "from": first, "size": size, **rest})
    return reply.json["hits"]


async def _pages(client: Client, size: int, **rest: Any) -> list[Any]:
    """Turn pages until one is empty."""
    pages = [await _page(client, 0, size, **rest)]
    while pages[-1]["hits"]:
        pages.append(await _page(client, len(pages) * size, size, **rest))
    return pages


@pytest.mark.parametrize("window", [1, 5, 8, 50])
@pytest.mark.parametrize("size", [1, 3, 7, 10])
@pytest.mark.parametrize("kind", [WITHOUT_VECTORS, ONLY_FUSED, BOTH], ids=["reranked", "fused", "both"])
async def test_pages_of_any_size_and_window_add_up_to_the_whole(
    kind: dict[str, Any], size: int, window: int, open_sides: Open
) -> None:
    """Hits, scores, totals and `max_score`."""
    sides = await open_sides(rank_window_size=window, **kind)
    whole = await _page(sides.through, 0, 100)
    pages = await _pages(sides.through, size)
    assert whole["hits"] == [hit for page in pages for hit in page["hits"]]
    assert [(whole["total"], whole["max_score"])] * len(pages) == [(page["total"], page["max_score"]) for page in pages]
    assert whole["total"]["value"] == len(whole["hits"])


@pytest.mark.parametrize("tracked", [True, False, 3, 8, 20, 26, 27, 30, 10_000])
async def test_the_total_is_the_same_on_every_page(tracked: bool | int, open_sides: Open) -> None:  # noqa: FBT001
    """Whatever the limit of `track_total_hits`."""
    sides = await open_sides(rank_window_size=8)
    pages = await _pages(sides.through, 5, track_total_hits=tracked)
    assert [pages[0].get("total")] * len(pages) == [page.get("total") for page in pages]


@pytest.mark.parametrize("tracked", [True, False, 0, 1, 20])
async def test_a_page_counts_as_far_as_it_requests(tracked: bool | int, open_sides: Open) -> None:  # noqa: FBT001
    """Also after a first page that was counted completely."""
    sides, others = await open_sides(rank_window_size=8), await open_sides(rank_window_size=8)
    await _page(sides.through, 0, 4, track_total_hits=True)
    warm, cold = [await _page(each.through, 12, 4, track_total_hits=tracked) for each in (sides, others)]
    assert warm == cold


@pytest.mark.parametrize("first", [0, 6, 8, 11, 30])
async def test_a_page_does_not_depend_on_earlier_requests(first: int, open_sides: Open) -> None:
    """It is the same whether or not another page was requested before."""
    sides, others = await open_sides(rank_window_size=8), await open_sides(rank_window_size=8)
    whole = await _page(sides.through, 0, 100)
    cold, warm = await _page(others.through, first, 4), await _page(sides.through, first, 4)
    assert (whole["hits"][first : first + 4], whole["total"], whole["max_score"]) == (
        cold["hits"],
        cold["total"],
        cold["max_score"],
    )
    assert warm == cold


async def test_further_pages_call_no_model(real_engine: RealEngine, open_sides: Open, models: ShopModels) -> None:
    """Once a ranking is cached, its pages, near or deep, need no call."""
    sides = await open_sides(rank_window_size=8)
    await _page(sides.through, 0, 4)
    called = len(models.requests)
    for start in (4, 6, 8, 20):
        await _page(sides.through, start, 4)
    needed = 2 if real_engine.has_knn else 1
    assert (needed, needed) == (called, len(models.requests))


async def test_a_page_beyond_the_window_calls_no_reranker(open_sides: Open, models: ShopModels) -> None:
    """Even if it is requested first."""
    sides = await open_sides(rank_window_size=8)
    await _page(sides.through, 20, 4)
    assert [] == models.reranked


async def test_without_vectors_a_deep_page_has_the_engines_hits(open_sides: Open, models: ShopModels) -> None:
    """Only the window is reordered, so one search is enough."""
    sides = await open_sides(rank_window_size=8, **WITHOUT_VECTORS)
    body = {"query": QUERY, "from": 12, "size": 5}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    stages = [part.split(";")[0].strip() for part in through.header("Server-Timing").split(",")]
    assert (straight.ids, [], ["names", "lexical", "total"]) == (through.ids, models.requests, stages)


@pytest.mark.parametrize(("first", "size"), [(0, 20), (12, 8), (15, 5), (19, 1), (12, 9), (30, 10)])
async def test_the_window_is_limited_to_max_result_window(
    first: int, size: int, real_engine: RealEngine, open_index: OpenIndex
) -> None:
    """Beyond that, the response is the engine's error."""
    sides = await open_index(catalogue.with_vectors(real_engine, max_result_window=20), catalogue.PRODUCTS)
    query = {"match": {"title": "laptop phone camera"}}
    body = {"query": query, "from": first, "size": size}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    refused = first + size > 20
    assert (straight.status, "bypassed;reason=depth" if refused else "reranked") == (through.status, through.outcome)
    if refused:
        assert straight.body == through.body
    else:
        assert (size if real_engine.has_knn else len(straight.ids)) == len(through.ids)


async def test_a_document_deleted_between_pages_is_not_returned(real_engine: RealEngine, open_index: OpenIndex) -> None:
    """The next page leaves it out."""
    sides = await open_index(catalogue.with_vectors(real_engine), catalogue.PRODUCTS, rank_window_size=20)
    whole = [hit["_id"] for hit in (await _page(sides.through, 0, 10))["hits"]]
    gone = Request("DELETE", f"/{sides.straight.index}/_doc/{whole[6]}?refresh=true")
    assert 200 == (await send(sides.straight.url, gone)).status
    page = [hit["_id"] for hit in (await _page(sides.through, 5, 5))["hits"]]
    assert [whole[5], *whole[7:]] == page[:4]


async def test_a_document_excluded_between_pages_is_not_returned(
    real_engine: RealEngine, open_index: OpenIndex
) -> None:
    """The client's filter excludes it since the first page."""
    sides = await open_index(catalogue.with_vectors(real_engine), catalogue.PRODUCTS, rank_window_size=20)
    query = {"bool": {"must": [QUERY], "filter": [{"term": {"in_stock": True}}]}}
    whole = (await sides.through.search({"query": query, "size": 10})).ids
    sold = Request("POST", f"/{sides.straight.index}/_update/{whole[6]}?refresh=true", b'{"doc":{"in_stock":false}}')
    assert 200 == (await send(sides.straight.url, sold)).status
    page = (await sides.through.search({"query": query, "from": 5, "size": 5})).ids
    assert [whole[5], *whole[7:]] == page[:4]


async def test_cached_rankings_are_not_shared_between_callers(open_sides: Open, models: ShopModels, shop: Shop) -> None:
    """The scores of equal passages are."""
    sides = await open_sides(rank_window_size=8)
    body = json.dumps({"query": QUERY, "from": 2, "size": 2}).encode()
    stages = []
    for caller in ("Basic YTph", "Basic YTph", "Basic Yjpi"):
        headers = {"Content-Type": "application/json", "Authorization": caller}
        reply = await send(sides.through.url, Request("POST", f"/{shop.index}/_search", body, headers))
        stages.append(reply.header("Server-Timing"))
    assert [True, False, True] == ["rerank;" in each for each in stages]
    assert 1 == len(models.reranked)


async def test_identical_documents_are_each_on_one_page(real_engine: RealEngine, open_index: OpenIndex) -> None:
    """Though only their ids differ."""
    documents = {f"d{number:02d}": catalogue.PRODUCTS["p00"] for number in range(30)}
    sides = await open_index(catalogue.with_vectors(real_engine), documents, rank_window_size=8)
    query = {"match": {"title": "laptop"}}
    pages = [(await sides.through.search({"query": query, "from": 4 * n, "size": 4})).ids for n in range(9)]
    assert sorted(documents) == sorted(name for page in pages for name in page)


@WITH_KNN
async def test_equal_ids_with_different_routing_are_different_documents(
    real_engine: RealEngine, open_index: OpenIndex
) -> None:
    """They are on two shards."""
    sides = await open_index(catalogue.with_vectors(real_engine), {"a": catalogue.PRODUCTS["p00"]})
    for number, place in enumerate("bcdefg"):
        product = json.dumps(catalogue.PRODUCTS[f"p{number * 4:02d}"]).encode()
        await send(sides.straight.url, Request("PUT", f"/{sides.straight.index}/_doc/same?routing={place}", product))
    await send(sides.straight.url, Request("POST", f"/{sides.straight.index}/_refresh"))
    body = {"query": {"match": {"title": "laptop notebook"}}, "_source": ["title"]}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert sorted(map(_document, straight.hits)) == sorted(map(_document, through.hits))
    only_near = {"query": {"match": {"title": "laptop"}}, "_source": ["title"]}
    assert sorted(map(_document, straight.hits)) == sorted(map(_document, (await sides.through.search(only_near)).hits))


def _document(hit: Any) -> tuple[str, str, str]:
    return hit["_id"], hit.get("_routing", ""), hit["_source"]["title"]


@given(
    window=st.integers(1, 15),
    sizes=st.lists(st.integers(1, 9), min_size=30, max_size=30),
    words=st.sampled_from(["laptop", "notebook for children", "acme phone", "tough camera 113"]),
    names=st.sampled_from(["{0.index}", "{0.index},{0.second}", "{0.acme}"]),
    near=st.sampled_from([-1, 0.3, 0.8]),
    filters=st.sampled_from([[], [{"range": {"price": {"lt": 900}}}]]),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_sequence_of_pages_has_every_document_once(
    *,
    window: int,
    sizes: list[int],
    words: str,
    names: str,
    near: float,
    filters: list[Any],
    open_sides: Open,
    shop: Shop,
) -> None:
    """And one total."""
    semantic = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20, "min_similarity": near}
    sides = await open_sides(names.format(shop), rank_window_size=window, semantic=semantic)
    asked = {"multi_match": {"query": words, "fields": ["title", "description"]}}
    body = {"query": {"bool": {"must": [asked], "filter": filters}}}
    whole = (await sides.through.search({**body, "size": 100})).json["hits"]
    found: list[Any] = []
    for size in sizes:
        page = (await sides.through.search({**body, "from": len(found), "size": size})).json["hits"]
        assert (whole["total"], whole["max_score"]) == (page["total"], page["max_score"])
        found += page["hits"]
        if not page["hits"]:
            break
    assert (whole["hits"], whole["total"]["value"]) == (found, len(found))
