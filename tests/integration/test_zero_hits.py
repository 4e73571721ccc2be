"""kNN always returns something, even for nonsense: what only it found must be near, and no hits may stay no hits."""

from typing import Any

import pytest

from tests.integration.conftest import Open
from tests.integration.engines import WITH_KNN
from tests.integration.models import ShopModels

pytestmark = [pytest.mark.engine, WITH_KNN]

UNKNOWN = {"query": {"match": {"title": "ultrabook laptops"}}}
"""No title has these words; the second is a concept that the embedder knows."""
NONSENSE = {"query": {"match": {"title": "xyzzy"}}}


@pytest.mark.parametrize("page", [{}, {"from": 3}, {"from": 60}, {"from": 4, "size": 1}])
async def test_a_search_without_hits_stays_empty_by_default(page: dict[str, int], open_sides: Open) -> None:
    """On every page."""
    sides = await open_sides()
    straight, through = await sides.straight.search(UNKNOWN | page), await sides.through.search(UNKNOWN | page)
    assert "bypassed;reason=zero_hits" == through.outcome
    assert straight.json["hits"] == through.json["hits"]


async def test_an_empty_search_with_aggregations_stays_empty(open_sides: Open) -> None:
    sides = await open_sides()
    body: dict[str, Any] = {**UNKNOWN, "aggs": {"all": {"global": {}}}}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert straight.json["aggregations"] == through.json["aggregations"]


async def test_zero_hits_semantic_returns_the_nearest_documents(open_sides: Open) -> None:
    """If the route allows it; they are counted."""
    sides = await open_sides(on_zero_hits="semantic")
    through = await sides.through.search(UNKNOWN | {"size": 100})
    assert ("reranked", True, {"value": len(through.ids), "relation": "eq"}) == (
        through.outcome,
        bool(through.ids),
        through.total,
    )
    assert {"laptop"} == {hit["_source"]["category"] for hit in through.hits}


async def test_pages_of_semantic_results_add_up_to_the_whole(open_sides: Open) -> None:
    """Without any lexical hit."""
    sides = await open_sides(on_zero_hits="semantic", rank_window_size=4)
    whole = await sides.through.search(UNKNOWN | {"size": 100})
    pages = [await sides.through.search(UNKNOWN | {"from": first, "size": 3}) for first in (0, 3, 6)]
    assert whole.ids == [name for page in pages for name in page.ids]
    assert [whole.total] * 3 == [page.total for page in pages]


async def test_nonsense_finds_nothing(open_sides: Open) -> None:
    """Though kNN always has a nearest document."""
    near = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20, "min_similarity": 0.9}
    sides = await open_sides(on_zero_hits="semantic", semantic=near)
    through = await sides.through.search(NONSENSE)
    assert ([], 0) == (through.ids, through.total["value"])


async def test_only_near_documents_are_added_to_the_hits(open_sides: Open, models: ShopModels) -> None:
    """Also if the client's own query has hits."""
    sides = await open_sides(
        semantic={"field": "embedding", "dimensions": 8, "timeout_seconds": 20, "min_similarity": 0.999}
    )
    body = {"query": {"match": {"title": "laptop"}}, "size": 100}
    assert set((await sides.straight.search(body)).ids) == set((await sides.through.search(body)).ids)
