"""`hits.total` is the engine's, plus the documents of the ranking that the client's query does not match."""

import json
from typing import Any

import pytest

from tests.integration import shop as catalogue
from tests.integration.conftest import Open, OpenIndex, Sides
from tests.integration.engines import WITH_KNN, RealEngine
from tests.integration.sending import Reply, Request, send

pytestmark = [pytest.mark.engine, WITH_KNN]

QUERY = {"match": {"title": "laptop"}}


async def _both(sides: Sides, body: dict[str, Any], query_string: str = "") -> tuple[Reply, Reply]:
    return await sides.straight.search(body, query_string), await sides.through.search(body, query_string)


async def test_documents_that_only_knn_found_are_counted(open_sides: Open) -> None:
    """One by one."""
    sides = await open_sides()
    straight, through = await _both(sides, {"query": QUERY, "size": 100})
    extras = set(through.ids) - set(straight.ids)
    assert {name for name, product in catalogue.PRODUCTS.items() if "notebook" in product["title"]} == extras
    assert {"value": len(straight.ids) + len(extras), "relation": "eq"} == through.total


async def test_a_knn_document_that_matches_the_query_is_counted_once(open_sides: Open) -> None:
    """Though its lexical rank is beyond the window."""
    sides = await open_sides(
        rank_window_size=5,
        semantic={"field": "embedding", "dimensions": 8, "timeout_seconds": 20, "min_similarity": -1},
    )
    query = {"match": {"title": "laptop notebook phone camera"}}
    straight, through = await _both(sides, {"query": query, "size": 100})
    extras = set(through.ids) - set(straight.ids)
    assert len(straight.ids) + len(extras) == through.total["value"] == len(through.ids)


async def test_documents_that_were_deleted_between_pages_are_not_counted(
    real_engine: RealEngine, open_index: OpenIndex
) -> None:
    """Those that only kNN had found."""
    sides = await open_index(catalogue.with_vectors(real_engine), catalogue.PRODUCTS)
    straight, through = await _both(sides, {"query": QUERY, "size": 3})
    assert straight.total["value"] < through.total["value"]
    deletion = json.dumps({"query": {"match": {"title": "notebook"}}}).encode()
    target = f"/{sides.straight.index}/_delete_by_query?refresh=true"
    assert 200 == (await send(sides.straight.url, Request("POST", target, deletion))).status
    straight, through = await _both(sides, {"query": QUERY, "from": 3, "size": 100})
    assert straight.total == through.total


async def test_without_vectors_the_total_is_the_engines(open_sides: Open) -> None:
    sides = await open_sides(semantic=None)
    straight, through = await _both(sides, {"query": QUERY})
    assert straight.total == through.total


@pytest.mark.parametrize("tracked", [True, 1, 3, 5, 10_000])
@pytest.mark.parametrize("where", ["body", "url"])
async def test_the_total_stops_at_track_total_hits(where: str, tracked: bool | int, open_sides: Open) -> None:  # noqa: FBT001
    """Then its relation is `gte`."""
    sides = await open_sides()
    extras = 5
    body = {"query": QUERY} | ({"track_total_hits": tracked} if where == "body" else {})
    parameter = f"track_total_hits={str(tracked).lower()}" if where == "url" else ""
    straight, through = await _both(sides, body, parameter)
    count = straight.total["value"] + extras
    most = count if tracked is True else tracked
    expected = {"value": count, "relation": "eq"} if count <= most else {"value": most, "relation": "gte"}
    assert ("reranked", expected) == (through.outcome, through.total)


async def test_without_track_total_hits_there_is_no_total(open_sides: Open) -> None:
    """As in the engine."""
    sides = await open_sides()
    straight, through = await _both(sides, {"query": QUERY, "track_total_hits": False})
    assert ("reranked", straight.json["hits"].keys()) == (through.outcome, through.json["hits"].keys())


async def test_rest_total_hits_as_int_is_respected(open_sides: Open) -> None:
    sides = await open_sides()
    straight, through = await _both(sides, {"query": QUERY}, "rest_total_hits_as_int=true")
    assert ("reranked", straight.total + 5) == (through.outcome, through.total)
