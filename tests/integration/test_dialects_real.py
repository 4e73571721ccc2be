"""Vectors in other forms than the usual one: old engines, nested documents, quantised fields that are scored anew."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.integration import shop as catalogue
from tests.integration.conftest import Load, Open, OpenIndex, Shop, Start, route
from tests.integration.engines import ELASTICSEARCH, OPENSEARCH_KNN, WITH_KNN, RealEngine
from tests.integration.models import ShopModels
from tests.integration.outcomes import Record
from tests.integration.relay import Relay
from tests.integration.sending import Client

pytestmark = [pytest.mark.engine, WITH_KNN]

TEXT = "laptop for video editing"
QUERY = {"multi_match": {"query": TEXT, "fields": ["title", "description"]}}
SEMANTIC: dict[str, Any] = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20}


def _of_8_3(body: bytes) -> bytes:
    said = json.loads(body)
    said["version"]["number"] = "8.3.0"
    return json.dumps(said).encode()


@pytest.mark.parametrize("near", [-1, 0.35, 0.8])
@pytest.mark.parametrize("query", [QUERY, {"bool": {"must": [QUERY], "filter": [{"term": {"brand": "acme"}}]}}])
@ELASTICSEARCH
async def test_before_knn(query: Any, near: float, real_engine: RealEngine, open_sides: Open) -> None:
    """An Elasticsearch before 8.4 compares each document by a script, and so finds the neighbours that kNN finds."""
    semantic = SEMANTIC | {"min_similarity": near}
    by_knn = await (await open_sides(semantic=semantic, rerank=False)).through.search({"query": query, "size": 100})
    async with Relay(real_engine.url, {"/": _of_8_3}) as relay:
        sides = await open_sides(sections={"engine": {"url": relay.url}}, semantic=semantic, rerank=False)
        by_script = await sides.through.search({"query": query, "size": 100})
        asked = [json.loads(request.body) for request in relay.searches() if b"script_score" in request.body]
    assert (1, "reranked") == (len(asked), by_script.outcome)
    assert (by_knn.json["hits"]["total"], set(by_knn.ids)) == (by_script.json["hits"]["total"], set(by_script.ids))
    assert by_knn.ids[:10] == by_script.ids[:10]


@ELASTICSEARCH
async def test_rolling_upgrade(real_engine: RealEngine, open_sides: Open, models: ShopModels) -> None:
    """A version that is told anew is taken up once what was known of the engine is old."""
    told = {"number": b"8.3.0"}

    def version(body: bytes) -> bytes:
        said = json.loads(body)
        said["version"]["number"] = told["number"].decode()
        return json.dumps(said).encode()

    async with Relay(real_engine.url, {"/": version}) as relay:
        sides = await open_sides(sections={"engine": {"url": relay.url, "resolve_cache_seconds": 0.001}})
        before = await sides.through.search({"query": QUERY, "size": 100})
        told["number"] = b"8.19.13"
        after = await sides.through.search({"query": QUERY, "size": 100})
        scripts = [
            b"script_score" in request.body
            for request in relay.searches()
            if b"query_vector" in request.body or b"script_score" in request.body
        ]
    assert [True, False] == scripts
    assert ("reranked", "reranked", set(before.ids)) == (before.outcome, after.outcome, set(after.ids))


def _chunked(engine: RealEngine) -> dict[str, Any]:
    """The shop's products, their vectors inside nested chunks: one of the title, one of the whole."""
    properties = {
        **catalogue.PROPERTIES,
        "chunks": {"type": "nested", "properties": {"vector": engine.vector(8), "text": {"type": "text"}}},
    }
    said = {**catalogue.EMBEDDING.meta["rerank_proxy"]["embedding"]}
    mappings = {"_meta": {"rerank_proxy": {"chunks.vector": said}}, "properties": properties}
    return {"settings": {**catalogue.SETTINGS, **engine.settings}, "mappings": mappings}


def _in_chunks(products: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: product
        | {
            "chunks": [
                {"text": text, "vector": catalogue.embed(text)}
                for text in (products[name]["title"], catalogue.passage(products[name]))
            ],
        }
        for name, product in catalogue.without_vectors(products).items()
    }


@ELASTICSEARCH
async def test_nested_vectors(real_engine: RealEngine, open_index: OpenIndex, record_outcome: Record) -> None:
    """Vectors of nested documents find the documents they belong to, each once, and demands hold for them."""
    semantic = SEMANTIC | {"field": "chunks.vector", "min_similarity": 0.6}
    sides = await open_index(_chunked(real_engine), _in_chunks(catalogue.PRODUCTS), semantic=semantic, rerank=False)
    query = {"bool": {"must": [{"match": {"title": "laptop"}}], "filter": [{"range": {"price": {"lt": 1300}}}]}}
    through = await sides.through.search({"query": query, "size": 100})
    cheap = {"query": {"range": {"price": {"lt": 1300}}}, "size": 100}
    allowed = set((await sides.straight.search(cheap)).ids)
    near = {
        name
        for name, product in catalogue.PRODUCTS.items()
        if max(_cosine("laptop", product["title"]), _cosine("laptop", catalogue.passage(product))) >= 0.6
    }
    own = set((await sides.straight.search({"query": query, "size": 100})).ids)
    assert ("reranked", own | (near & allowed)) == (through.outcome, set(through.ids))
    assert len(set(through.ids)) == len(through.ids) == through.total["value"]
    record_outcome("vectors in nested documents", through.outcome)


def _cosine(one: str, other: str) -> float:
    return sum(a * b for a, b in zip(catalogue.embed(one), catalogue.embed(other), strict=True))


@OPENSEARCH_KNN
async def test_nested_vectors_of_opensearch(
    real_engine: RealEngine, open_index: OpenIndex, record_outcome: Record
) -> None:
    """Where they are not searched the answer says so, and holds what the words find."""
    semantic = SEMANTIC | {"field": "chunks.vector"}
    sides = await open_index(_chunked(real_engine), _in_chunks(catalogue.PRODUCTS), semantic=semantic)
    body = {"query": {"match": {"title": "laptop"}}, "size": 100}
    through = await sides.through.search(body)
    assert 'degraded;stages="semantic";reason=nested_vectors' == through.outcome
    assert sorted((await sides.straight.search(body)).ids) == sorted(through.ids)
    record_outcome("vectors in nested documents", through.outcome)


@ELASTICSEARCH
@pytest.mark.parametrize("kind", ["int8_hnsw", "int4_hnsw", "flat", "int8_flat"])
async def test_quantised(kind: str, real_engine: RealEngine, open_index: OpenIndex, record_outcome: Record) -> None:
    """With `oversample` quantised vectors are scored anew by the exact ones, and so the order is the exact one."""
    settings = catalogue.with_vectors(real_engine)
    settings["mappings"]["properties"]["embedding"] |= {"index_options": {"type": kind}}
    quantised = kind not in {"flat", "hnsw"}
    semantic = SEMANTIC | {"min_similarity": -1} | ({"oversample": 3} if quantised else {})
    sides = await open_index(
        settings, catalogue.PRODUCTS, semantic=semantic, rerank=False, fusion={"lexical_weight": 0}
    )
    through = await sides.through.search({"query": QUERY, "size": 40})
    cosines = [round(_cosine(TEXT, catalogue.passage(catalogue.PRODUCTS[name])), 5) for name in through.ids]
    assert ("reranked", 40) == (through.outcome, len(through.ids))
    assert sorted(cosines, reverse=True) == cosines
    record_outcome("quantised vectors, `oversample`" if quantised else "vectors compared one by one", through.outcome)


@OPENSEARCH_KNN
async def test_quantised_of_opensearch(real_engine: RealEngine, open_index: OpenIndex, record_outcome: Record) -> None:
    """OpenSearch takes `oversample` under its own name; Lucene's quantised vectors find all they should with it."""
    settings = catalogue.with_vectors(real_engine)
    settings["mappings"]["properties"]["embedding"]["method"]["parameters"] = {"encoder": {"name": "sq"}}
    semantic = SEMANTIC | {"min_similarity": -1, "oversample": 3}
    sides = await open_index(settings, catalogue.PRODUCTS, semantic=semantic, rerank=False)
    through = await sides.through.search({"query": QUERY, "size": 100})
    assert ("reranked", 40) == (through.outcome, len(through.ids))
    record_outcome("quantised vectors, `oversample`", through.outcome)


async def test_several_vector_fields(
    real_engine: RealEngine, load: Load, index_name: str, start: Start, models: ShopModels
) -> None:
    """Of several vector fields each route searches its own, and shows neither unless it is named."""
    settings = catalogue.with_vectors(real_engine)
    settings["mappings"]["properties"] |= {"other": real_engine.vector(8)}
    load(
        index_name,
        settings,
        {name: {**product, "other": catalogue.embed("camera")} for name, product in catalogue.PRODUCTS.items()},
    )
    by_one = Client(await start(route(index_name, semantic=SEMANTIC)), index_name)
    by_other = Client(
        await start(route(index_name, semantic=SEMANTIC | {"field": "other"}, embedding_model=catalogue.MODEL)),
        index_name,
    )
    body = {"query": {"match": {"title": "laptop"}}, "size": 100}
    both = await start(
        route(index_name, semantic=SEMANTIC | {"field": ["embedding", "other"]}, embedding_model=catalogue.MODEL)
    )
    one, other = await by_one.search(body), await by_other.search(body)
    together = await Client(both, index_name).search(body)
    assert ("reranked", "reranked", "reranked") == (one.outcome, other.outcome, together.outcome)
    assert {*one.ids, *other.ids} == set(together.ids)
    assert len(other.ids) < len(one.ids)  # a camera is no laptop
    assert not any("embedding" in hit["_source"] for hit in one.hits)
    assert not any("other" in hit["_source"] for hit in other.hits)


async def test_alias_of_several_indices(shop: Shop, open_sides: Open, real_engine: RealEngine) -> None:
    """An index by its own name is seen whole beside an alias that hides some of another."""
    near = SEMANTIC | {"min_similarity": -1}
    sides = await open_sides(f"{shop.acme},{shop.second}", semantic=near)
    body = {"query": {"match": {"title": "laptop"}}, "size": 100}
    through = await sides.through.search(body)
    seen = await sides.straight.search({"query": {"match_all": {}}, "size": 100})
    assert {(hit["_index"], hit["_id"]) for hit in seen.hits} == {(hit["_index"], hit["_id"]) for hit in through.hits}
    assert "reranked" == through.outcome
