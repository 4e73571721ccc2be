"""A stage that fails is left out: the answer is made of what is left, and says so."""

import json
from typing import Any

import pytest

from tests.fakes import Fault, breaks_off, closed_port, hangs, refuses, says
from tests.integration import shop as catalogue
from tests.integration.conftest import Open, OpenIndex, Sides
from tests.integration.models import ShopModels
from tests.integration.sending import Client, Reply, Request, send

pytestmark = pytest.mark.engine

BODY: dict[str, Any] = {
    "query": {"match": {"title": "laptop"}},
    "size": 100,
    "aggs": {"brands": {"terms": {"field": "brand"}}},
}
FAULTS: dict[str, Fault] = {
    "rate_limited": refuses(429),
    "timeout": hangs,
    "unreachable": breaks_off(),
    "malformed": says(b'{"scores":[0.5],"data":[]}'),
}


def _patience(reason: str, *stages: str) -> dict[str, Any]:
    """Give stages that never answer little time, and all others enough on any machine."""
    return {"models": {f"{stage}_timeout_seconds": 0.05 for stage in stages}} if reason == "timeout" else {}


async def _ranked(sides: Sides) -> Reply:
    return await sides.through.search(BODY)


@pytest.mark.parametrize("reason", FAULTS)
async def test_without_both(reason: str, open_sides: Open, models: ShopModels) -> None:
    """Without any model the answer is the engine's own, scores and total included."""
    models.faults = {"embed": FAULTS[reason], "rerank": FAULTS[reason]}
    sides = await open_sides(sections=_patience(reason, "embed", "rerank"))
    body = {**BODY, "_source": ["title"]}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert f'degraded;stages="semantic rerank";reason={reason}' == through.outcome
    assert _but_took(straight) == _but_took(through)


@pytest.mark.parametrize("reason", FAULTS)
async def test_without_vectors(reason: str, open_sides: Open, models: ShopModels) -> None:
    """Without the embedder the client's own hits are reranked."""
    models.faults = {"embed": FAULTS[reason]}
    degraded = await _ranked(await open_sides(sections=_patience(reason, "embed")))
    lexical = await _ranked(await open_sides(semantic=None))
    assert (f'degraded;stages="semantic";reason={reason}', lexical.ids) == (degraded.outcome, degraded.ids)
    assert lexical.total == degraded.total


@pytest.mark.parametrize("reason", FAULTS)
async def test_without_reranker(reason: str, open_sides: Open, models: ShopModels) -> None:
    """Without the reranker the fused order stands."""
    models.faults = {"rerank": FAULTS[reason]}
    degraded = await _ranked(await open_sides(sections=_patience(reason, "rerank")))
    fused = await _ranked(await open_sides(rerank=False))
    assert (f'degraded;stages="rerank";reason={reason}', fused.json["hits"]) == (
        degraded.outcome,
        degraded.json["hits"],
    )


async def test_models_are_away(open_sides: Open) -> None:
    sides = await open_sides(sections={"models": {"url": f"http://127.0.0.1:{closed_port()}"}})
    through = await _ranked(sides)
    assert 'degraded;stages="semantic rerank";reason=unreachable' == through.outcome
    assert (await sides.straight.search(BODY)).ids == through.ids


async def test_pages_of_a_degraded_search(open_sides: Open, models: ShopModels) -> None:
    """Pages fit together also when a stage failed for the first of them and works again for the next."""
    models.faults = {"rerank": refuses(503)}
    sides = await open_sides(rank_window_size=6)
    first = await sides.through.search(BODY | {"size": 3})
    models.faults = {}
    rest = [await sides.through.search(BODY | {"from": start, "size": 3}) for start in (3, 6, 9)]
    fused = await _ranked(await open_sides(rank_window_size=6, rerank=False))
    assert fused.ids[:12] == [name for page in (first, *rest) for name in page.ids]
    assert [first.total] * 3 == [page.total for page in rest]


async def test_pages_without_any_model(open_sides: Open, models: ShopModels) -> None:
    """Near and far pages of a search without any model are the engine's own pages."""
    models.faults = {"embed": refuses(503), "rerank": refuses(503)}
    sides = await open_sides(rank_window_size=3)
    for start in (0, 1, 2, 4, 6):
        body = {**BODY, "from": start, "size": 2, "_source": ["title"]}
        straight, through = await sides.straight.search(body), await sides.through.search(body)
        assert _but_took(straight) == _but_took(through)
        assert through.outcome.startswith("degraded")


def _mapping(**meta: Any) -> dict[str, Any]:
    said = {**catalogue.EMBEDDING.meta["rerank_proxy"]["embedding"], **meta}
    mappings = {**catalogue.WITH_VECTORS["mappings"], "_meta": {"rerank_proxy": {"embedding": said}}}
    return {**catalogue.WITH_VECTORS, "mappings": mappings}


BARE = {"settings": catalogue.SETTINGS, "mappings": {"properties": catalogue.PROPERTIES}}
NAMELESS = {
    "settings": catalogue.SETTINGS,
    "mappings": {"properties": catalogue.WITH_VECTORS["mappings"]["properties"]},
}

INDICES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "another model": (
        "other_model",
        _mapping(model="Qwen/Qwen3-Embedding-8B"),
        {"embedding_model": catalogue.MODEL},
    ),
    "no model": ("unknown_model", NAMELESS, {}),
    "no such field": ("no_vector_field", _mapping(), {"semantic": {"field": "vector", "dimensions": 8}}),
    "other dimensions": ("other_dimensions", _mapping(), {"semantic": {"field": "embedding", "dimensions": 16}}),
}


@pytest.mark.parametrize(("reason", "settings", "of_route"), INDICES.values(), ids=INDICES)
async def test_vectors_that_do_not_fit(
    *, reason: str, settings: dict[str, Any], of_route: dict[str, Any], open_index: OpenIndex, models: ShopModels
) -> None:
    """Vectors of another model, or of which nothing is known, are never searched: the hits alone are reranked."""
    sides = await open_index(settings, catalogue.PRODUCTS, **of_route)
    through = await _ranked(sides)
    assert (f'degraded;stages="semantic";reason={reason}', [], 1) == (
        through.outcome,
        models.embedded,
        len(models.reranked),
    )
    assert set((await sides.straight.search(BODY)).ids) == set(through.ids)


async def test_index_without_vectors(open_index: OpenIndex) -> None:
    sides = await open_index(BARE, catalogue.without_vectors(catalogue.PRODUCTS))
    assert 'degraded;stages="semantic";reason=no_vector_field' == (await _ranked(sides)).outcome


LONGER = {"type": "dense_vector", "dims": 16}
OTHERS: dict[str, dict[str, Any]] = {
    "another model": _mapping(model="another"),
    "another length": {"mappings": {"_meta": catalogue.EMBEDDING.meta, "properties": {"embedding": LONGER}}},
}


@pytest.mark.parametrize("settings", OTHERS.values(), ids=OTHERS)
async def test_mixed_vectors(settings: dict[str, Any], open_index: OpenIndex) -> None:
    """Two indices with vectors of two kinds have no common neighbours."""
    sides = await open_index(_mapping(), catalogue.PRODUCTS)
    other = Request("PUT", f"/{sides.straight.index}-b", json.dumps(settings).encode())
    assert 200 == (await send(sides.straight.url, other)).status
    both = Client(sides.through.url, f"{sides.through.index}*")
    assert 'degraded;stages="semantic";reason=mixed_vectors' == (await both.search(BODY)).outcome


async def test_named_model_without_meta(open_index: OpenIndex, models: ShopModels) -> None:
    """Where the index says nothing, the route may say which model made its vectors."""
    sides = await open_index(NAMELESS, catalogue.PRODUCTS, embedding_model="mine")
    assert ("reranked", ["mine"]) == ((await _ranked(sides)).outcome, [call["model"] for call in models.embedded])


@pytest.mark.parametrize("share", [0, 10, 40])
async def test_any_share_of_vectors(share: int, open_index: OpenIndex) -> None:
    """A search works however many documents have a vector yet, and loses none of its hits."""
    bare = catalogue.without_vectors(catalogue.PRODUCTS)
    documents = {name: catalogue.PRODUCTS[name] if n < share else bare[name] for n, name in enumerate(bare)}
    sides = await open_index(_mapping(), documents)
    straight, through = await sides.straight.search(BODY), await _ranked(sides)
    assert ("reranked", set(straight.ids)) == (through.outcome, set(straight.ids) & set(through.ids))
    assert (share > 4) == (len(through.ids) > len(straight.ids))


async def test_documents_without_text(open_index: OpenIndex) -> None:
    """A document that has nothing for the reranker to read keeps its place."""
    documents = {"none": {"brand": "bare"}, **catalogue.without_vectors(catalogue.PRODUCTS)}
    sides = await open_index(BARE, documents, semantic=None, boost_power=0)
    first = {"constant_score": {"filter": {"term": {"brand": "bare"}}, "boost": 50}}
    query = {"bool": {"should": [{"match": {"title": "laptop"}}, first]}}
    straight, through = await sides.straight.search({"query": query}), await sides.through.search({"query": query})
    assert ("reranked", "none", "none") == (through.outcome, straight.ids[0], through.ids[0])


def _but_took(reply: Reply) -> Any:
    return {key: value for key, value in reply.json.items() if key != "took"}


async def test_slow_knn(open_sides: Open) -> None:
    """A kNN search that takes longer than it may is left out."""
    semantic = {"field": "embedding", "dimensions": 8, "timeout_seconds": 1e-6}
    through = await _ranked(await open_sides(semantic=semantic))
    lexical = await _ranked(await open_sides(semantic=None))
    assert ('degraded;stages="semantic";reason=timeout', lexical.ids) == (through.outcome, through.ids)


async def test_vectors_that_cannot_be_searched(open_index: OpenIndex) -> None:
    """A kNN search that the engine refuses is left out."""
    settings = _mapping()
    vector = {"type": "dense_vector", "dims": 8, "index": False}
    mappings = settings["mappings"]
    settings["mappings"] = {**mappings, "properties": {**mappings["properties"], "embedding": vector}}
    sides = await open_index(settings, catalogue.PRODUCTS)
    assert 'degraded;stages="semantic";reason=refused' == (await _ranked(sides)).outcome


async def test_no_texts(open_index: OpenIndex, models: ShopModels) -> None:
    """Where the engine keeps no text, there is nothing to rerank: the fused order stands, and the answer says so."""
    settings = _mapping()
    settings["mappings"] = {**settings["mappings"], "_source": {"excludes": ["title", "description"]}}
    sides = await open_index(settings, catalogue.PRODUCTS)
    straight, through = await sides.straight.search(BODY), await _ranked(sides)
    told = 'degraded;stages="rerank";reason=no_passage'
    assert (200, told, []) == (through.status, through.outcome, models.reranked)
    assert set(straight.ids) < set(through.ids)


async def test_no_source(open_index: OpenIndex) -> None:
    """An index that keeps no `_source` refuses that the vectors be left out of it: the client's own bytes are sent."""
    settings = _mapping()
    settings["mappings"] = {**settings["mappings"], "_source": {"enabled": False}}
    sides = await open_index(settings, catalogue.PRODUCTS)
    straight, through = await sides.straight.search(BODY), await _ranked(sides)
    assert ("bypassed;reason=engine_refused", _but_took(straight)) == (through.outcome, _but_took(through))


async def test_index_that_is_gone(open_index: OpenIndex) -> None:
    """An index deleted while it is remembered gives the engine's own refusal."""
    sides = await open_index(_mapping(), catalogue.PRODUCTS)
    await _ranked(sides)
    await send(sides.straight.url, Request("DELETE", f"/{sides.straight.index}"))
    straight, through = await sides.straight.search(BODY), await _ranked(sides)
    assert (404, straight.body, "bypassed;reason=engine_refused") == (through.status, through.body, through.outcome)
