"""Searches over several indices, of which some have no vectors, or others: kNN searches those that fit."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.integration import shop as catalogue
from tests.integration.conftest import Load, OpenIndex, Sides, Start, route
from tests.integration.engines import WITH_KNN, RealEngine
from tests.integration.sending import Client, Request, send

pytestmark = [pytest.mark.engine, WITH_KNN]

BODY: dict[str, Any] = {"query": {"match": {"title": "laptop"}}, "size": 100}
MODEL = catalogue.MODEL
DEGRADED = 'degraded;stages="semantic";reason=mixed_vectors'


def _index(engine: RealEngine, *, model: str = MODEL, **fields: Any) -> dict[str, Any]:
    said = {**catalogue.EMBEDDING.meta["rerank_proxy"]["embedding"], "model": model}
    properties = {**catalogue.PROPERTIES, **fields}
    mappings = {"_meta": {"rerank_proxy": {"embedding": said}}, "properties": properties}
    return {"settings": {**catalogue.SETTINGS, **engine.settings}, "mappings": mappings}


OTHERS: Mapping[str, tuple[str, bool, Callable[[RealEngine], dict[str, Any]]]] = {
    "no vectors": ("reranked", False, _index),
    "a text": ("reranked", False, lambda engine: _index(engine, embedding={"type": "text"})),
    "another length": (DEGRADED, False, lambda engine: _index(engine, embedding=engine.vector(16))),
    "another model": (DEGRADED, True, lambda engine: _index(engine, model="another", embedding=engine.vector(8))),
}
REACHED = {"a pattern": "{0}*", "names": "{0},{0}-b", "an alias": "{0}-all", "an alias with a filter": "{0}-acme"}


@asynccontextmanager
async def _beside(sides: Sides, load: Load, settings: Any, documents: Mapping[str, Any]) -> AsyncIterator[str]:
    """Another index beside that of these sides, and aliases of both."""
    name, url = f"{sides.through.index}-b", sides.straight.url
    load(name, settings, documents)
    both = [sides.through.index, name]
    brand = {"filter": {"term": {"brand": "acme"}}}
    actions = [
        {"add": {"indices": both, "alias": f"{both[0]}-all"}},
        {"add": {"indices": both, "alias": f"{both[0]}-acme"} | brand},
    ]
    await send(url, Request("POST", "/_aliases", json.dumps({"actions": actions}).encode()))
    try:
        yield name
    finally:
        await send(url, Request("DELETE", f"/{name}"))


def _others(*, vectors: bool) -> dict[str, dict[str, Any]]:
    products: dict[str, Any] = {f"b-{name}": product for name, product in catalogue.PRODUCTS.items()}
    return products if vectors else catalogue.without_vectors(products)


@pytest.mark.parametrize("reached", REACHED.values(), ids=REACHED)
@pytest.mark.parametrize(("outcome", "has_vectors", "settings"), OTHERS.values(), ids=OTHERS)
async def test_knn_searches_the_indices_with_fitting_vectors(
    *,
    reached: str,
    outcome: str,
    has_vectors: bool,
    settings: Callable[[RealEngine], dict[str, Any]],
    real_engine: RealEngine,
    open_index: OpenIndex,
    load: Load,
) -> None:
    """It finds there what it finds in that index alone, and no hit of the others is lost."""
    sides = await open_index(
        _index(real_engine, embedding=real_engine.vector(8)), catalogue.PRODUCTS, embedding_model=MODEL
    )
    async with _beside(sides, load, settings(real_engine), _others(vectors=has_vectors)):
        names = reached.format(sides.through.index)
        alone = await sides.through.search(BODY)
        straight = await Client(sides.straight.url, names).search(BODY)
        through = await Client(sides.through.url, names).search(BODY)
    added = set(through.ids) - set(straight.ids)
    assert (outcome, True) == (through.outcome, set(straight.ids) <= set(through.ids))
    assert added
    assert added <= set(alone.ids)


@pytest.mark.parametrize("reached", ["a pattern", "an alias"])
async def test_hits_of_an_index_without_vectors_keep_the_engines_places(
    reached: str, real_engine: RealEngine, open_index: OpenIndex, load: Load
) -> None:
    """Without a reranker, kNN votes for the documents of the other index only."""
    sides = await open_index(_index(real_engine, embedding=real_engine.vector(8)), catalogue.PRODUCTS, rerank=False)
    async with _beside(sides, load, _index(real_engine), _others(vectors=False)) as bare:
        names = REACHED[reached].format(sides.through.index)
        straight = await Client(sides.straight.url, names).search(BODY)
        through = await Client(sides.through.url, names).search(BODY)
    own = [name for name in straight.ids if name.startswith("b-")]
    assert ("reranked", own) == (through.outcome, [name for name in through.ids if name.startswith("b-")])
    ahead = [name for name in through.ids[: through.ids.index(own[0])] if name not in straight.ids]
    assert ([], bare) == (ahead, next(hit["_index"] for hit in through.json["hits"]["hits"] if hit["_id"] == own[0]))


async def test_vectors_that_are_added_later_are_searched(
    real_engine: RealEngine, index_name: str, load: Load, start: Start
) -> None:
    """Once the mapping is read again."""
    load(index_name, _index(real_engine, embedding=real_engine.vector(8)), catalogue.PRODUCTS)
    url = await start(route(index_name), engine={"resolve_cache_seconds": 0.001})
    sides = Sides(Client(real_engine.url, index_name), Client(url, index_name))
    only = {f"only-{name}": product for name, product in catalogue.PRODUCTS.items() if "laptop" not in product["title"]}
    async with _beside(sides, load, _index(real_engine), catalogue.without_vectors(only)) as bare:
        both = Client(url, f"{index_name}*")
        before = found = await both.search(BODY)
        field = json.dumps({"properties": {"embedding": real_engine.vector(8)}}).encode()
        assert 200 == (await send(real_engine.url, Request("PUT", f"/{bare}/_mapping", field))).status
        lines = [line for name, product in only.items() for line in ({"index": {"_id": name}}, product)]
        bulk = "".join(json.dumps(line) + "\n" for line in lines).encode()
        assert 200 == (await send(real_engine.url, Request("POST", f"/{bare}/_bulk?refresh=true", bulk))).status
        for _ in range(50):
            found = await both.search(BODY)
            if any(name.startswith("only-") for name in found.ids):
                break
    assert not any(name.startswith("only-") for name in before.ids)
    assert any(name.startswith("only-") for name in found.ids)


async def test_vectors_of_an_index_that_has_just_joined_are_not_used(
    real_engine: RealEngine, index_name: str, load: Load, start: Start
) -> None:
    """They may be of another model, which is known once the mappings are read again; its hits are the engine's."""
    load(index_name, _index(real_engine, embedding=real_engine.vector(8)), catalogue.PRODUCTS)
    url = await start(route(index_name), engine={"resolve_cache_seconds": 3600})
    live = f"{index_name}-live"
    add = {"add": {"index": index_name, "alias": live}}
    other = _index(real_engine, model="another", embedding=real_engine.vector(8))
    names = [Client(real_engine.url, live), Client(url, live)]
    await send(real_engine.url, Request("POST", "/_aliases", json.dumps({"actions": [add]}).encode()))
    before = await names[1].search(BODY)
    async with _beside(
        Sides(Client(real_engine.url, index_name), Client(url, index_name)), load, other, _others(vectors=True)
    ) as new:
        switch = [{"remove": {"index": index_name, "alias": live}}, {"add": {"index": new, "alias": live}}]
        await send(real_engine.url, Request("POST", "/_aliases", json.dumps({"actions": switch}).encode()))
        straight, through = [await name.search(BODY) for name in names]
    assert ("reranked", True) == (before.outcome, len(before.ids) > len(straight.ids))
    assert ("reranked", set(straight.ids)) == (through.outcome, set(through.ids))
