"""A search by score with other keys behind it is reranked, and a client that goes on behind its last hit sees it all.

The property is the engine's own: a walk whose last key is unique visits each document once, in the order of one page
that holds everything.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import refuses
from tests.integration import shop as catalogue
from tests.integration.conftest import Open, OpenIndex, Sides
from tests.integration.engines import EVERYWHERE, WITH_KNN, RealEngine
from tests.integration.models import ShopModels
from tests.integration.sending import Reply

pytestmark = [pytest.mark.engine, EVERYWHERE]

WORDS = {"multi_match": {"query": "laptop camera", "fields": ["title", "description"]}}
FAR = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20, "min_similarity": 0.2}
COUNT = 300
UNIQUE = {"number": {"order": "asc"}}
SORTS: Mapping[str, Any] = {
    "number": ["_score", UNIQUE],
    "both ways, a date between": [{"_score": {"order": "DESC"}}, {"released": "desc"}, UNIQUE],
    "missing values": {"_score": "desc", "weight": {"order": "desc", "missing": "_first"}, "number": "asc"},
    "unmapped": ["_score", {"nothing": {"order": "asc", "unmapped_type": "long"}}, UNIQUE],
    "a script": [
        "_score",
        {"_script": {"type": "number", "script": {"source": "doc['number'].value - 1152921504606846976L"}}},
    ],
    "twice": ["_score", {"_score": "desc"}, UNIQUE],
    "in stock first": [{"in_stock": {"order": "desc"}}, "_score", UNIQUE],
    "by brand and stock": [{"brand": "asc"}, {"in_stock": "asc"}, {"_score": {}}, UNIQUE],
}
"""Of each kind one; the last key of all is unique, and above 2^53."""


def _documents() -> dict[str, dict[str, Any]]:
    """Many documents with few texts, so that scores are often the same."""
    kinds = itertools.cycle(catalogue.PRODUCTS.values())
    weights = itertools.cycle([1.5, None, 2**40, None])
    return {
        f"d{number:03d}": {**product, "number": 2**60 + number, "weight": weight}
        for number, product, weight in zip(range(COUNT), kinds, weights, strict=False)
    }


def _index(engine: RealEngine) -> dict[str, Any]:
    index = catalogue.with_vectors(engine)
    more = {"number": {"type": "long"}, "weight": {"type": "double"}}
    return index | {"mappings": index["mappings"] | {"properties": index["mappings"]["properties"] | more}}


async def _open(open_index: OpenIndex, engine: RealEngine, **settings: Any) -> Sides:
    semantic = {"semantic": FAR} if engine.has_knn else {}
    return await open_index(_index(engine), _documents(), **(semantic | settings))


async def _walk(sides: Sides, body: Mapping[str, Any], size: int, start: Reply | None = None) -> list[Reply]:
    """Go on behind the last hit until there is none."""
    pages = [start or await sides.through.search({**body, "size": size})]
    while pages[-1].hits:
        after = pages[-1].hits[-1]["sort"]
        pages.append(await sides.through.search({**body, "size": size, "search_after": after}))
        assert len(pages) <= 2 + COUNT // size, "the walk does not end"
    return pages


@pytest.mark.parametrize("sort", SORTS.values(), ids=SORTS)
async def test_search_after_visits_every_hit_in_order(
    sort: Any, open_index: OpenIndex, real_engine: RealEngine
) -> None:
    """The pages equal one page with everything, sort values and scores included."""
    sides = await _open(open_index, real_engine, rank_window_size=20)
    body = {"query": WORDS, "sort": sort, "_source": False}
    whole, straight = (
        await sides.through.search({**body, "size": 1000}),
        await sides.straight.search({**body, "size": 1000}),
    )
    assert ("reranked", set()) == (whole.outcome, set(straight.ids) - set(whole.ids))
    assert straight.ids != whole.ids or not real_engine.has_knn  # groups may be in order already
    for size in (7, 50):
        pages = await _walk(sides, body, size)
        assert {"reranked"} == {page.outcome for page in pages}
        assert whole.hits == [hit for page in pages for hit in page.hits]
        assert [whole.total] * len(pages) == [page.total for page in pages]


async def test_sort_values_descend_with_the_order(open_index: OpenIndex, real_engine: RealEngine) -> None:
    """Only the score's sort value is rewritten; a `max_score` of null stays null."""
    sides = await _open(open_index, real_engine, rank_window_size=20)
    body = {"query": WORDS, "sort": SORTS["both ways, a date between"], "size": 1000}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    values = [hit["sort"][0] for hit in through.hits]
    assert sorted(values, reverse=True) == values
    best = straight.json["hits"]["max_score"]  # OpenSearch 3.6.0 has one
    assert (None if best is None else values[0]) == through.json["hits"]["max_score"]
    own = {hit["_id"]: hit for hit in straight.hits}
    shown = {hit["_id"]: hit for hit in through.hits if hit["_id"] in own}
    assert own.keys() == shown.keys()
    assert [hit["sort"][1:] for hit in own.values()] == [shown[name]["sort"][1:] for name in own]
    assert {frozenset(hit) for hit in own.values()} == {frozenset(hit) for hit in through.hits}
    tracked = await sides.through.search({**body, "track_scores": True})
    assert tracked.json["hits"]["max_score"] == tracked.hits[0]["_score"]


async def test_search_after_continues_from_the_score_of_a_hit(open_index: OpenIndex, real_engine: RealEngine) -> None:
    """It is the sort value, as in the engine's response: some clients take it instead of `sort`."""
    sides = await _open(open_index, real_engine, rank_window_size=20)
    body = {"query": WORDS, "sort": SORTS["number"], "size": 30}
    pages = [await sides.through.search(body)]
    while pages[-1].hits:
        last = pages[-1].hits[-1]
        after = [last["_score"], last["_source"]["number"]]
        pages.append(await sides.through.search({**body, "search_after": after}))
    assert {"reranked"} == {page.outcome for page in pages}
    whole = await sides.through.search({**body, "size": 1000})
    assert whole.ids == [name for page in pages for name in page.ids]


async def test_search_after_continues_from_numbered_pages(open_index: OpenIndex, real_engine: RealEngine) -> None:
    """`from` and `size` give the same ranking."""
    sides = await _open(open_index, real_engine, rank_window_size=20)
    body = {"query": WORDS, "sort": SORTS["number"], "_source": False}
    whole = await sides.through.search({**body, "size": 1000})
    for first in (0, 10, 15, 40):
        page = await sides.through.search({**body, "from": first, "size": 10})
        walked = await _walk(sides, body, 10, page)
        assert whole.ids[first:] == [name for each in walked for name in each.ids]


@pytest.mark.parametrize("window", [7, 20, 30, 45, 100])
@pytest.mark.parametrize("name", ["in stock first", "by brand and stock"])
async def test_sort_keys_before_the_score_keep_their_groups(
    name: str, window: int, open_index: OpenIndex, real_engine: RealEngine
) -> None:
    """No hit leaves its group, and the groups keep their order, also where the window ends amid several groups."""
    near = {"semantic": FAR | {"min_similarity": -1.0}} if real_engine.has_knn else {}
    sides = await _open(open_index, real_engine, rank_window_size=window, **near)
    body = {"query": WORDS, "sort": SORTS[name], "size": 1000}
    leading = len(SORTS[name]) - 2
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    in_order = list(dict.fromkeys(tuple(hit["sort"][:leading]) for hit in straight.hits))
    groups = [tuple(hit["sort"][:leading]) for hit in through.hits]
    assert ("reranked", sorted(groups, key=in_order.index)) == (through.outcome, groups)
    assert {hit["_id"]: hit["sort"][0] for hit in straight.hits}.items() <= {
        hit["_id"]: hit["sort"][0] for hit in through.hits
    }.items()
    paged = [await sides.through.search({**body, "from": start, "size": 20}) for start in range(0, 320, 20)]
    assert through.ids == [name for page in paged for name in page.ids]
    assert {through.json["hits"]["total"]["value"]} == {page.json["hits"]["total"]["value"] for page in paged}
    assert len(through.hits) == through.json["hits"]["total"]["value"]


def _without_vectors(hit: Any) -> Any:
    """Leave out what the proxy keeps in an index: the widened response, from which the page is cut, has none of it."""
    kept = {name: value for name, value in hit["_source"].items() if not name.startswith("embedding")}
    return {**hit, "_source": kept}


async def test_sort_groups_of_one_document_need_no_model(
    open_index: OpenIndex, real_engine: RealEngine, models: ShopModels
) -> None:
    """There is nothing to rerank."""
    sides = await _open(open_index, real_engine)
    body = {"query": WORDS, "sort": [{"number": "desc"}, "_score"], "size": 9}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    own = [_without_vectors(hit) for hit in straight.hits]
    assert ("bypassed;reason=sort", own, []) == (through.outcome, through.hits, models.requests)
    if real_engine.has_knn:
        far = await sides.through.search({**body, "from": 60})
        assert ("bypassed;reason=sort", []) == (far.outcome, models.requests)


async def test_search_after_continues_in_the_engines_order(open_index: OpenIndex, real_engine: RealEngine) -> None:
    """If the sort values are the engine's own, or reranking is switched off for the next page."""
    sides = await _open(open_index, real_engine, rank_window_size=20)
    body = {"query": WORDS, "sort": SORTS["number"], "size": 30, "_source": False}
    first = await sides.straight.search(body)
    following = {**body, "search_after": first.hits[-1]["sort"]}
    through = await sides.through.search(following)
    assert ("bypassed;reason=search_after", (await sides.straight.search(following)).hits) == (
        through.outcome,
        through.hits,
    )
    tail = (await sides.through.search(body)).hits[-1]
    off = {**body, "search_after": tail["sort"], "ext": {"rerank_proxy": {"enabled": False}}}
    own = (await sides.straight.search({**body, "size": 1000})).ids
    left = await sides.through.search(off)
    place = own.index(tail["_id"]) + 1
    assert ("bypassed;reason=steered_off", own[place : place + 30]) == (left.outcome, left.ids)


async def test_search_after_over_degraded_pages_is_the_engines(
    open_index: OpenIndex, real_engine: RealEngine, models: ShopModels
) -> None:
    """A response in the engine's order has the engine's sort values."""
    models.faults = {"embed": refuses(503), "rerank": refuses(503)}
    sides = await _open(open_index, real_engine, rank_window_size=20)
    body = {"query": WORDS, "sort": SORTS["number"], "size": 30, "_source": False}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert ("degraded", straight.hits) == (through.outcome.partition(";")[0], through.hits)
    following = await sides.through.search({**body, "search_after": through.hits[-1]["sort"]})
    assert "bypassed;reason=search_after" == following.outcome


@pytest.fixture
def proxies() -> dict[str, Sides]:
    """What the examples of one property share."""
    return {}


@WITH_KNN
@given(
    sort=st.sampled_from(list(SORTS.values())),
    sizes=st.lists(st.integers(5, 60), min_size=1, max_size=6),
    words=st.sampled_from(["laptop", "notebook travel", "camera film", "children"]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_search_after_visits_every_document_once_for_any_page_sizes(
    sort: Any,
    sizes: list[int],
    words: str,
    open_index: OpenIndex,
    real_engine: RealEngine,
    proxies: dict[str, Sides],
) -> None:
    """In one order."""
    if "sides" not in proxies:
        proxies["sides"] = await _open(open_index, real_engine, rank_window_size=20)
    sides = proxies["sides"]
    body = {"query": {"match": {"description": words}}, "sort": sort, "_source": False}
    whole = await sides.through.search({**body, "size": 1000})
    page = await sides.through.search({**body, "size": sizes[0]})
    seen = page.ids
    for size in itertools.cycle(sizes):
        if not page.hits:
            break
        page = await sides.through.search({**body, "size": size, "search_after": page.hits[-1]["sort"]})
        seen += page.ids
    assert whole.ids == seen


async def test_a_sort_by_score_alone_has_no_sort_values(open_sides: Open) -> None:
    """As in the engine."""
    sides = await open_sides()
    through = await sides.through.search({"query": WORDS, "sort": ["_score"], "size": 3})
    assert ("reranked", [False] * 3) == (through.outcome, ["sort" in hit for hit in through.hits])


FORGETFUL = {"cache": {"rankings_mb": 0}}


@pytest.mark.parametrize("first", [{"in_stock": {"order": "desc"}}, None], ids=["groups", "score first"])
async def test_search_after_continues_on_another_proxy(first: Any, open_sides: Open) -> None:
    """Also if no ranking is cached."""
    sort = [*([first] if first else []), "_score", {"title.exact": "asc"}]
    sides = [await open_sides(rank_window_size=8, sections=FORGETFUL) for _ in range(2)]
    body = {"query": WORDS, "sort": sort, "_source": False}
    whole = await sides[0].through.search({**body, "size": 100})
    page = await sides[0].through.search({**body, "size": 3})
    seen = page.ids
    for instance in itertools.cycle(sides):
        if not page.hits:
            break
        page = await instance.through.search({**body, "size": 3, "search_after": page.hits[-1]["sort"]})
        assert "reranked" == page.outcome
        seen += page.ids
        assert len(seen) <= len(whole.ids)
    assert whole.ids == seen
