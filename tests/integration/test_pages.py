"""`from` and `size` cut one ranking: pages put together are the whole, at any depth, at the engine's own cost."""

from typing import Any

import pytest

from tests.integration import shop as catalogue
from tests.integration.conftest import Open, OpenIndex
from tests.integration.models import ShopModels
from tests.integration.sending import Client, Request, send

pytestmark = pytest.mark.engine

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
async def test_whole(kind: dict[str, Any], size: int, window: int, open_sides: Open) -> None:
    """Pages of any size, with any window, make up the whole: hits, scores, totals and `max_score`."""
    sides = await open_sides(rank_window_size=window, **kind)
    whole = await _page(sides.through, 0, 100)
    pages = await _pages(sides.through, size)
    assert whole["hits"] == [hit for page in pages for hit in page["hits"]]
    assert [(whole["total"], whole["max_score"])] * len(pages) == [(page["total"], page["max_score"]) for page in pages]
    assert whole["total"]["value"] == len(whole["hits"])


@pytest.mark.parametrize("tracked", [True, 3, 8, 20, 26, 27, 30, 10_000])
async def test_totals(tracked: bool | int, open_sides: Open) -> None:  # noqa: FBT001
    """The total is the same on every page, however far the client lets the engine count."""
    sides = await open_sides(rank_window_size=8)
    pages = await _pages(sides.through, 5, track_total_hits=tracked)
    assert [pages[0]["total"]] * len(pages) == [page["total"] for page in pages]


@pytest.mark.parametrize("first", [0, 6, 8, 11, 30])
async def test_first_asked(first: int, open_sides: Open) -> None:
    """A page is the same whether or not another one was asked for before."""
    sides, others = await open_sides(rank_window_size=8), await open_sides(rank_window_size=8)
    whole = await _page(sides.through, 0, 100)
    cold, warm = await _page(others.through, first, 4), await _page(sides.through, first, 4)
    assert (whole["hits"][first : first + 4], whole["total"], whole["max_score"]) == (
        cold["hits"],
        cold["total"],
        cold["max_score"],
    )
    assert warm == cold


async def test_next_pages_cost_no_model(open_sides: Open, models: ShopModels) -> None:
    """Once a ranking is known, its pages, near or far, are cut without a call to a model."""
    sides = await open_sides(rank_window_size=8)
    await _page(sides.through, 0, 4)
    called = len(models.requests)
    for start in (4, 6, 8, 20):
        await _page(sides.through, start, 4)
    assert (2, 2) == (called, len(models.requests))


async def test_deep_page_is_not_reranked(open_sides: Open, models: ShopModels) -> None:
    """A page behind the head calls no reranker, whoever asks for it first."""
    sides = await open_sides(rank_window_size=8)
    await _page(sides.through, 20, 4)
    assert [] == models.reranked


async def test_deep_page_without_vectors_is_the_engines(open_sides: Open, models: ShopModels) -> None:
    """Where nothing but the head differs, a deep page holds the hits of the engine's own page, and costs one search."""
    sides = await open_sides(rank_window_size=8, **WITHOUT_VECTORS)
    body = {"query": QUERY, "from": 12, "size": 5}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    stages = [part.split(";")[0].strip() for part in through.header("Server-Timing").split(",")]
    assert (straight.ids, [], ["lexical", "total"]) == (through.ids, models.requests, stages)


@pytest.mark.parametrize(("first", "size"), [(0, 20), (12, 8), (15, 5), (19, 1), (12, 9), (30, 10)])
async def test_max_result_window(first: int, size: int, open_index: OpenIndex) -> None:
    """A window that is larger than the index allows is cut to it; beyond it the engine's refusal is given."""
    settings = {**catalogue.SETTINGS, "max_result_window": 20}
    sides = await open_index({**catalogue.WITH_VECTORS, "settings": settings}, catalogue.PRODUCTS)
    query = {"match": {"title": "laptop phone camera"}}
    body = {"query": query, "from": first, "size": size}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    refused = first + size > 20
    assert (straight.status, "bypassed;reason=depth" if refused else "reranked") == (through.status, through.outcome)
    if refused:
        assert straight.body == through.body
    else:
        assert size == len(through.ids)


async def test_changed_meanwhile(open_index: OpenIndex) -> None:
    """A document deleted between two pages is left out of the next one, and never shown."""
    sides = await open_index(catalogue.WITH_VECTORS, catalogue.PRODUCTS, rank_window_size=20)
    whole = [hit["_id"] for hit in (await _page(sides.through, 0, 10))["hits"]]
    gone = Request("DELETE", f"/{sides.straight.index}/_doc/{whole[6]}?refresh=true")
    assert 200 == (await send(sides.straight.url, gone)).status
    page = [hit["_id"] for hit in (await _page(sides.through, 5, 5))["hits"]]
    assert [whole[5], *whole[7:]] == page[:4]
