"""A stage that fails is skipped: the response uses the other stages, and its headers name the failed one."""

import json
from typing import Any

import pytest

from tests.fakes import Fault, breaks_off, closed_port, hangs, refuses, says
from tests.integration import shop as catalogue
from tests.integration.conftest import Open, OpenIndex, Sides
from tests.integration.engines import WITH_KNN, RealEngine
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
async def test_without_any_model_the_response_is_the_engines(reason: str, open_sides: Open, models: ShopModels) -> None:
    """Including scores and total."""
    models.faults = {"embed": FAULTS[reason], "rerank": FAULTS[reason]}
    sides = await open_sides(sections=_patience(reason, "embed", "rerank"))
    body = {**BODY, "_source": ["title"]}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert f'degraded;stages="semantic rerank";reason={reason}' == through.outcome
    assert _but_took(straight) == _but_took(through)


@pytest.mark.parametrize("reason", FAULTS)
async def test_without_the_embedder_the_lexical_hits_are_reranked(
    reason: str, open_sides: Open, models: ShopModels
) -> None:
    """The client's own hits, in the reranker's order."""
    models.faults = {"embed": FAULTS[reason]}
    degraded = await _ranked(await open_sides(sections=_patience(reason, "embed")))
    lexical = await _ranked(await open_sides(semantic=None))
    assert (f'degraded;stages="semantic";reason={reason}', lexical.ids) == (degraded.outcome, degraded.ids)
    assert lexical.total == degraded.total


@pytest.mark.parametrize("reason", FAULTS)
async def test_without_the_reranker_the_fused_order_is_returned(
    reason: str, open_sides: Open, models: ShopModels
) -> None:
    """The order of reciprocal rank fusion."""
    models.faults = {"rerank": FAULTS[reason]}
    degraded = await _ranked(await open_sides(sections=_patience(reason, "rerank")))
    fused = await _ranked(await open_sides(rerank=False))
    assert (f'degraded;stages="rerank";reason={reason}', fused.json["hits"]) == (
        degraded.outcome,
        degraded.json["hits"],
    )


async def test_unreachable_models_degrade_the_search(open_sides: Open) -> None:
    sides = await open_sides(sections={"models": {"url": f"http://127.0.0.1:{closed_port()}"}})
    through = await _ranked(sides)
    assert 'degraded;stages="semantic rerank";reason=unreachable' == through.outcome
    assert (await sides.straight.search(BODY)).ids == through.ids


async def test_pages_of_a_degraded_search_fit_together(open_sides: Open, models: ShopModels) -> None:
    """Also when a stage failed for the first page and works again for the next."""
    models.faults = {"rerank": refuses(503)}
    sides = await open_sides(rank_window_size=6)
    first = await sides.through.search(BODY | {"size": 3})
    models.faults = {}
    rest = [await sides.through.search(BODY | {"from": start, "size": 3}) for start in (3, 6, 9)]
    fused = await _ranked(await open_sides(rank_window_size=6, rerank=False))
    assert fused.ids[:12] == [name for page in (first, *rest) for name in page.ids]
    assert [first.total] * 3 == [page.total for page in rest]


async def test_without_any_model_all_pages_are_the_engines(open_sides: Open, models: ShopModels) -> None:
    """First pages and deep ones."""
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
async def test_vectors_of_another_or_unknown_model_are_not_searched(
    *, reason: str, settings: dict[str, Any], of_route: dict[str, Any], open_index: OpenIndex, models: ShopModels
) -> None:
    """Only the lexical hits are reranked."""
    sides = await open_index(settings, catalogue.PRODUCTS, **of_route)
    through = await _ranked(sides)
    assert (f'degraded;stages="semantic";reason={reason}', [], 1) == (
        through.outcome,
        models.embedded,
        len(models.reranked),
    )
    assert set((await sides.straight.search(BODY)).ids) == set(through.ids)


async def test_an_index_without_vectors_skips_knn(open_index: OpenIndex) -> None:
    sides = await open_index(BARE, catalogue.without_vectors(catalogue.PRODUCTS))
    assert 'degraded;stages="semantic";reason=no_vector_field' == (await _ranked(sides)).outcome


LONGER = {"type": "dense_vector", "dims": 16}
OTHERS: dict[str, dict[str, Any]] = {
    "another model": _mapping(model="another"),
    "another length": {"mappings": {"_meta": catalogue.EMBEDDING.meta, "properties": {"embedding": LONGER}}},
}


@pytest.mark.parametrize("settings", OTHERS.values(), ids=OTHERS)
async def test_two_indices_with_different_vectors_skip_knn(settings: dict[str, Any], open_index: OpenIndex) -> None:
    """They have no common neighbours."""
    sides = await open_index(_mapping(), catalogue.PRODUCTS)
    other = Request("PUT", f"/{sides.straight.index}-b", json.dumps(settings).encode())
    assert 200 == (await send(sides.straight.url, other)).status
    both = Client(sides.through.url, f"{sides.through.index}*")
    assert 'degraded;stages="semantic";reason=mixed_vectors' == (await both.search(BODY)).outcome


async def test_the_route_may_name_the_model_of_vectors_without_metadata(
    open_index: OpenIndex, models: ShopModels
) -> None:
    """For an index whose mapping does not name it."""
    sides = await open_index(NAMELESS, catalogue.PRODUCTS, embedding_model="mine")
    assert ("reranked", ["mine"]) == ((await _ranked(sides)).outcome, [call["model"] for call in models.embedded])


@pytest.mark.parametrize("share", [0, 10, 40])
async def test_searches_work_whatever_share_of_documents_has_vectors(share: int, open_index: OpenIndex) -> None:
    """No hit is lost."""
    bare = catalogue.without_vectors(catalogue.PRODUCTS)
    documents = {name: catalogue.PRODUCTS[name] if n < share else bare[name] for n, name in enumerate(bare)}
    sides = await open_index(_mapping(), documents)
    straight, through = await sides.straight.search(BODY), await _ranked(sides)
    assert ("reranked", set(straight.ids)) == (through.outcome, set(straight.ids) & set(through.ids))
    assert (share > 4) == (len(through.ids) > len(straight.ids))


async def test_documents_without_text_keep_their_rank(open_index: OpenIndex) -> None:
    """The reranker has nothing to read of them."""
    documents = {"none": {"brand": "bare"}, **catalogue.without_vectors(catalogue.PRODUCTS)}
    sides = await open_index(BARE, documents, semantic=None, boost_power=0)
    first = {"constant_score": {"filter": {"term": {"brand": "bare"}}, "boost": 50}}
    query = {"bool": {"should": [{"match": {"title": "laptop"}}, first]}}
    straight, through = await sides.straight.search({"query": query}), await sides.through.search({"query": query})
    assert ("reranked", "none", "none") == (through.outcome, straight.ids[0], through.ids[0])


def _but_took(reply: Reply) -> Any:
    return {key: value for key, value in reply.json.items() if key != "took"}


async def test_a_knn_search_that_times_out_is_skipped(open_sides: Open) -> None:
    """The lexical hits are reranked."""
    semantic = {"field": "embedding", "dimensions": 8, "timeout_seconds": 1e-6}
    through = await _ranked(await open_sides(semantic=semantic))
    lexical = await _ranked(await open_sides(semantic=None))
    assert ('degraded;stages="semantic";reason=timeout', lexical.ids) == (through.outcome, through.ids)


async def test_a_knn_search_that_the_engine_rejects_is_skipped(open_index: OpenIndex) -> None:
    """The lexical hits are reranked."""
    settings = _mapping()
    vector = {"type": "dense_vector", "dims": 8, "index": False}
    mappings = settings["mappings"]
    settings["mappings"] = {**mappings, "properties": {**mappings["properties"], "embedding": vector}}
    sides = await open_index(settings, catalogue.PRODUCTS)
    assert 'degraded;stages="semantic";reason=refused' == (await _ranked(sides)).outcome


async def test_without_stored_text_the_fused_order_is_returned(open_index: OpenIndex, models: ShopModels) -> None:
    """There is nothing to rerank, and the headers say so."""
    settings = _mapping()
    settings["mappings"] = {**settings["mappings"], "_source": {"excludes": ["title", "description"]}}
    sides = await open_index(settings, catalogue.PRODUCTS)
    straight, through = await sides.straight.search(BODY), await _ranked(sides)
    told = 'degraded;stages="rerank";reason=no_passage'
    assert (200, told, []) == (through.status, through.outcome, models.reranked)
    assert set(straight.ids) < set(through.ids)


async def test_an_index_without_source_gets_the_clients_own_request(open_index: OpenIndex) -> None:
    """It rejects excluding vectors from `_source`, so the client's bytes are sent as they are."""
    settings = _mapping()
    settings["mappings"] = {**settings["mappings"], "_source": {"enabled": False}}
    sides = await open_index(settings, catalogue.PRODUCTS)
    straight, through = await sides.straight.search(BODY), await _ranked(sides)
    assert ("bypassed;reason=engine_refused", _but_took(straight)) == (through.outcome, _but_took(through))


async def test_a_deleted_index_gets_the_engines_error(open_index: OpenIndex) -> None:
    """Also while its facts are still cached."""
    sides = await open_index(_mapping(), catalogue.PRODUCTS)
    await _ranked(sides)
    await send(sides.straight.url, Request("DELETE", f"/{sides.straight.index}"))
    straight, through = await sides.straight.search(BODY), await _ranked(sides)
    assert (404, straight.body, "bypassed;reason=engine_refused") == (through.status, through.body, through.outcome)


@WITH_KNN
async def test_an_index_that_no_node_has_leaves_the_engines_own_response(
    open_index: OpenIndex, real_engine: RealEngine, models: ShopModels
) -> None:
    """As while a node is gone: the models are not called, and `_shards` says what is missing."""
    sides = await open_index(catalogue.with_vectors(real_engine), catalogue.PRODUCTS)
    nowhere = catalogue.with_vectors(real_engine, **{"index.routing.allocation.require._name": "nobody"})
    target = f"/{sides.straight.index}-away?wait_for_active_shards=0"
    assert 200 == (await send(sides.straight.url, Request("PUT", target, json.dumps(nowhere).encode()))).status
    both = f"{sides.straight.index}*"
    body = {**BODY, "size": 3, "_source": ["title"]}
    straight = await Client(sides.straight.url, both).search(body)
    through = await Client(sides.through.url, both).search(body)
    assert "bypassed;reason=engine_refused" == through.outcome
    assert straight.json["_shards"]["successful"] < straight.json["_shards"]["total"]
    assert _but_took(straight) == _but_took(through)
    assert [] == models.reranked
