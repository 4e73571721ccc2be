"""kNN always finds something, also for nonsense: what only it found must be near, and nothing may stay nothing."""

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
async def test_kept_empty(page: dict[str, int], open_sides: Open) -> None:
    """By default what the client's own query does not find is not found, on whichever page."""
    sides = await open_sides()
    straight, through = await sides.straight.search(UNKNOWN | page), await sides.through.search(UNKNOWN | page)
    assert "bypassed;reason=zero_hits" == through.outcome
    assert straight.json["hits"] == through.json["hits"]


async def test_kept_empty_with_aggregations(open_sides: Open) -> None:
    sides = await open_sides()
    body: dict[str, Any] = {**UNKNOWN, "aggs": {"all": {"global": {}}}}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert straight.json["aggregations"] == through.json["aggregations"]


async def test_semantic(open_sides: Open) -> None:
    """Where the route says so, the nearest documents are the answer, and are counted."""
    sides = await open_sides(on_zero_hits="semantic")
    through = await sides.through.search(UNKNOWN | {"size": 100})
    assert ("reranked", True, {"value": len(through.ids), "relation": "eq"}) == (
        through.outcome,
        bool(through.ids),
        through.total,
    )
    assert {"laptop"} == {hit["_source"]["category"] for hit in through.hits}


async def test_semantic_pages(open_sides: Open) -> None:
    """Pages of such an answer make up the whole."""
    sides = await open_sides(on_zero_hits="semantic", rank_window_size=4)
    whole = await sides.through.search(UNKNOWN | {"size": 100})
    pages = [await sides.through.search(UNKNOWN | {"from": first, "size": 3}) for first in (0, 3, 6)]
    assert whole.ids == [name for page in pages for name in page.ids]
    assert [whole.total] * 3 == [page.total for page in pages]


async def test_nonsense(open_sides: Open) -> None:
    """What is near to nothing finds nothing, though kNN always has a nearest document."""
    near = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20, "min_similarity": 0.9}
    sides = await open_sides(on_zero_hits="semantic", semantic=near)
    through = await sides.through.search(NONSENSE)
    assert ([], 0) == (through.ids, through.total["value"])


async def test_nonsense_beside_hits(open_sides: Open, models: ShopModels) -> None:
    """The same where the client's own query does find something: only near documents are added to it."""
    sides = await open_sides(
        semantic={"field": "embedding", "dimensions": 8, "timeout_seconds": 20, "min_similarity": 0.999}
    )
    body = {"query": {"match": {"title": "laptop"}}, "size": 100}
    assert set((await sides.straight.search(body)).ids) == set((await sides.through.search(body)).ids)
