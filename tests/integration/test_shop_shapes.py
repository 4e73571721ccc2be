"""Search shapes of real shops: hits without ids, or with a rescore query."""

from typing import Any

import pytest

from tests.integration.conftest import Open
from tests.integration.engines import EVERYWHERE, RealEngine
from tests.integration.sending import Request, send

pytestmark = [pytest.mark.engine, EVERYWHERE]

WORDS = {"multi_match": {"query": "laptop camera", "fields": ["title", "description"]}}
NO_IDS: dict[str, Any] = {"query": WORDS, "stored_fields": "_none_", "docvalue_fields": ["_id", "_score"], "size": 100}


async def test_hits_without_ids_are_identified_by_docvalue_fields(open_sides: Open, real_engine: RealEngine) -> None:
    """Hits have neither id nor source; where the engine fails, so does the response."""
    sides = await open_sides()
    straight, through = await sides.straight.search(NO_IDS), await sides.through.search(NO_IDS)
    if real_engine.is_elasticsearch:  # fielddata of `_id` is off there by default
        assert ("bypassed;reason=engine_refused", straight.status) == (through.outcome, through.status)
        return
    shown = {hit["fields"]["_id"][0]: hit for hit in through.hits}
    own = {hit["fields"]["_id"][0]: hit for hit in straight.hits}
    assert ("reranked", True) == (through.outcome, own.keys() <= shown.keys())
    assert {frozenset(hit) for hit in straight.hits} == {frozenset(hit) for hit in through.hits}
    assert list(own) != [name for name in shown if name in own]


async def test_hits_without_ids_work_where_elasticsearch_allows_them(open_sides: Open, real_engine: RealEngine) -> None:
    if not real_engine.is_elasticsearch:
        return
    setting = '{"persistent":{"indices.id_field_data.enabled":%s}}'
    await send(real_engine.url, Request("PUT", "/_cluster/settings", (setting % "true").encode()))
    try:
        sides = await open_sides()
        straight, through = await sides.straight.search(NO_IDS), await sides.through.search(NO_IDS)
    finally:
        await send(real_engine.url, Request("PUT", "/_cluster/settings", (setting % "null").encode()))
    assert ("reranked", {frozenset(hit) for hit in straight.hits}) == (
        through.outcome,
        {frozenset(hit) for hit in through.hits},
    )


def _rescored(window: int) -> Any:
    by_price = {"function_score": {"query": {"match_all": {}}, "field_value_factor": {"field": "price"}}}
    query = {"rescore_query": by_price, "query_weight": 1, "rescore_query_weight": 1}
    return {"query": WORDS, "rescore": {"window_size": window, "query": query}, "_source": False}


@pytest.mark.parametrize("window", [5, 10, 500])
async def test_a_rescored_search_is_reranked_from_the_rescored_order(window: int, open_sides: Open) -> None:
    """The candidates are the first hits after `rescore`, and the pages add up to the whole."""
    sides = await open_sides(semantic=None)
    body = _rescored(window)
    straight, through = (
        await sides.straight.search({**body, "size": 100}),
        await sides.through.search({**body, "size": 100}),
    )
    first = min(window, 50)
    assert ("reranked", set(straight.ids[:first])) == (through.outcome, set(through.ids[:first]))
    assert straight.ids[first:] == through.ids[first:]
    assert straight.ids[:first] != through.ids[:first]
    pages = [await sides.through.search({**body, "from": start, "size": 7}) for start in range(0, 49, 7)]
    assert {"reranked"} == {page.outcome for page in pages}
