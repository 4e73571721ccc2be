"""Collapsed hits: each group once over all pages, represented by the document that the client's query ranks first."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration import shop as catalogue
from tests.integration.comparing import assert_handed_on, but_score
from tests.integration.conftest import Open, OpenIndex, Sides
from tests.integration.engines import EVERYWHERE, WITH_KNN, RealEngine
from tests.integration.outcomes import Record
from tests.integration.sending import Reply

pytestmark = [pytest.mark.engine, EVERYWHERE]

QUERY = {"multi_match": {"query": "laptop for children", "fields": ["title", "description"], "_name": "words"}}
NEAR = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20, "min_similarity": -1}
SHOWN = {"_source": ["title", "brand", "category"], "highlight": {"fields": {"title": {}}}}


def _groups(reply: Reply, field: str = "brand") -> list[Any]:
    return [hit["fields"][field][0] if field in hit.get("fields", {}) else None for hit in reply.hits]


async def _representatives(sides: Sides, body: Mapping[str, Any]) -> dict[Any, Any]:
    """What the engine shows for each group that the client's own query finds."""
    straight = await sides.straight.search({**body, "size": 100, "from": 0})
    return dict(zip(_groups(straight), map(but_score, straight.hits), strict=True))


INNER: dict[str, Any] = {
    "none": {},
    "best": {"inner_hits": {"name": "best", "size": 2, "_source": ["title"]}},
    "sorted": {"inner_hits": {"name": "cheapest", "size": 3, "sort": [{"price": "asc"}], "_source": ["price"]}},
    "a second level": {
        "inner_hits": {"name": "kinds", "size": 3, "collapse": {"field": "category"}, "_source": ["category"]}
    },
    "several": {
        "inner_hits": [
            {"name": "cheap", "size": 2, "sort": ["price"], "_source": ["price"]},
            {"name": "best", "size": 1, "highlight": {"fields": {"title": {}}}},
            {"name": "new", "sort": [{"released": "desc"}], "docvalue_fields": ["price"], "_source": False},
        ]
    },
    "in a list": {"inner_hits": [{"name": "one", "size": 1, "_source": False}], "max_concurrent_group_searches": 2},
}


@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
async def test_each_collapsed_group_has_the_engines_representative_and_inner_hits(
    inner: dict[str, Any], open_sides: Open, record_outcome: Record
) -> None:
    """Each group that the client's query finds appears once, with the engine's document and inner hits."""
    sides = await open_sides()
    body = {"query": QUERY, "collapse": {"field": "brand", **inner}, **SHOWN}
    expected, through = await _representatives(sides, body), await sides.through.search({**body, "size": 100})
    shown = dict(zip(_groups(through), map(but_score, through.hits), strict=True))
    assert ("reranked", len(shown)) == (through.outcome, len(through.hits))
    assert expected == {group: hit for group, hit in shown.items() if group in expected}
    record_outcome("`collapse`", through.outcome)


@WITH_KNN
async def test_groups_that_only_knn_finds_appear_once_within_the_filters(open_sides: Open) -> None:
    """A group without the query's words is found too, each once, and none that a filter excludes."""
    sides = await open_sides(semantic=NEAR)
    dear = {"range": {"price": {"gte": 700}}}
    query = {"bool": {"must": [{"match": {"title": "laptop"}}], "filter": [dear]}}
    body = {"query": query, "collapse": {"field": "category"}, "size": 100, **SHOWN}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    all_ = await sides.straight.search({**body, "query": dear})
    assert {"laptop"} == set(_groups(straight, "category"))
    assert sorted(_groups(all_, "category")) == sorted(_groups(through, "category"))
    dear_ones = set((await sides.straight.search({"query": dear, "size": 100})).ids)
    assert dear_ones >= set(through.ids)


@WITH_KNN
async def test_a_group_found_by_both_retrievers_keeps_its_lexical_representative(open_sides: Open) -> None:
    """It is represented by the document that the client's query scores best, whatever its rank."""
    sides = await open_sides(semantic=NEAR, rank_window_size=2)
    query = {"match": {"description": "notebook for film and sound"}}
    body = {"query": query, "collapse": {"field": "category"}, **SHOWN}
    straight, through = (
        await sides.straight.search({**body, "size": 50}),
        await sides.through.search({**body, "size": 50}),
    )
    theirs = dict(zip(_groups(straight, "category"), straight.ids, strict=True))
    ours = dict(zip(_groups(through, "category"), through.ids, strict=True))
    assert theirs == {group: name for group, name in ours.items() if group in theirs}


@given(
    window=st.integers(1, 8),
    size=st.integers(1, 5),
    field=st.sampled_from(["brand", "category", "title.exact", "price"]),
    filters=st.sampled_from([[], [{"range": {"price": {"lt": 900}}}]]),
    near=st.sampled_from([-1, 0.5]),
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_pages_of_groups_add_up_to_the_whole(
    *, window: int, size: int, field: str, filters: list[Any], near: float, real_engine: RealEngine, open_sides: Open
) -> None:
    """Also across the end of the window: no group appears twice, none is missing."""
    semantic = {"semantic": NEAR | {"min_similarity": near}} if real_engine.has_knn else {}
    sides = await open_sides(rank_window_size=window, **semantic)
    body = {"query": {"bool": {"must": [QUERY], "filter": filters}}, "collapse": {"field": field}, "_source": False}
    whole = await sides.through.search({**body, "size": 100})
    found: list[Any] = []
    while page := (await sides.through.search({**body, "from": len(found), "size": size})).hits:
        found += page
    groups = [repr(hit["fields"][field]) for hit in found]
    assert (whole.hits, len(groups)) == (found, len(set(groups)))
    straight = await sides.straight.search({**body, "size": 100})
    assert {repr(hit["fields"][field]) for hit in straight.hits} <= set(groups)


async def test_documents_without_a_collapse_value_form_one_group(
    open_index: OpenIndex, real_engine: RealEngine
) -> None:
    """As in the engine, on whichever page they appear."""
    documents = {
        name: {key: value for key, value in product.items() if key != "brand" or int(name[1:]) % 3}
        for name, product in catalogue.PRODUCTS.items()
    }
    more = {"semantic": NEAR} if real_engine.has_knn else {}
    sides = await open_index(catalogue.with_vectors(real_engine), documents, rank_window_size=2, **more)
    body = {"query": QUERY, "collapse": {"field": "brand"}, "_source": ["title"]}
    straight = await sides.straight.search({**body, "size": 100})
    pages = [await sides.through.search({**body, "from": first, "size": 1}) for first in range(6)]
    groups = [group for page in pages for group in _groups(page)]
    assert (True, len(set(groups))) == (None in _groups(straight), len(groups))
    assert set(_groups(straight)) == set(groups)


async def test_the_total_counts_documents_not_groups(open_sides: Open) -> None:
    """As in the engine; it is the same on every page."""
    sides = await open_sides(rank_window_size=2)
    body = {"query": QUERY, "collapse": {"field": "title.exact"}, "_source": False}
    straight = await sides.straight.search({**body, "size": 100})
    pages = [await sides.through.search({**body, "from": first, "size": 4}) for first in (0, 4, 8)]
    more = {page.total["value"] - straight.total["value"] for page in pages}
    assert (1, straight.total["relation"]) == (len(more), pages[0].total["relation"])
    assert min(more) >= 0


LEFT: dict[str, Any] = {
    "too many inner hits": {"field": "brand", "inner_hits": [{"name": name} for name in "abcde"]},
    "no field": {"inner_hits": {"name": "x"}},
    "text": {"field": "title"},
    "unknown": {"field": "brand", "nosuch": 1},
}


@pytest.mark.parametrize("collapse", LEFT.values(), ids=LEFT)
async def test_collapse_forms_that_cannot_be_reordered_are_bypassed(collapse: Any, open_sides: Open) -> None:
    """So are those that the engine rejects."""
    sides = await open_sides()
    body = {"query": QUERY, "collapse": collapse}
    assert_handed_on(await sides.straight.search(body), await sides.through.search(body))
