"""Other forms of vectors: old engines, nested documents, quantised fields with rescoring."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration import shop as catalogue
from tests.integration.conftest import Load, Open, OpenIndex, Shop, Sides, Start, route
from tests.integration.demands import FILTERS, queries
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
async def test_engines_before_knn_compare_vectors_by_script(
    query: Any, near: float, real_engine: RealEngine, open_sides: Open
) -> None:
    """Elasticsearch before 8.4 scores each document by a script, and finds the neighbours that kNN finds."""
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
async def test_a_rolling_upgrade_is_noticed(real_engine: RealEngine, open_sides: Open, models: ShopModels) -> None:
    """The new version is used once the cached one has expired."""
    told = {"number": b"8.3.0"}

    def version(body: bytes) -> bytes:
        said = json.loads(body)
        said["version"]["number"] = told["number"].decode()
        return json.dumps(said).encode()

    async with Relay(real_engine.url, {"/": version}) as relay:
        sides = await open_sides(sections={"engine": {"url": relay.url, "resolve_cache_seconds": 0.001}})
        before = await sides.through.search({"query": QUERY, "size": 100})
        told["number"] = b"8.19.13"
        scripts, after = [True], before
        while scripts[-1]:  # what is no longer fresh serves on while the engine is asked behind it
            after = await sides.through.search({"query": QUERY, "size": 100})
            scripts = [
                b"script_score" in request.body
                for request in relay.searches()
                if b"query_vector" in request.body or b"script_score" in request.body
            ]
    assert (True, {True}) == (scripts[0], set(scripts[:-1]))
    assert ("reranked", "reranked", set(before.ids)) == (before.outcome, after.outcome, set(after.ids))


CHUNKS = "chunks"


def _chunked(engine: RealEngine, path: str = CHUNKS) -> dict[str, Any]:
    """The shop, its vectors inside nested chunks, and these inside others if the path says so."""
    properties: dict[str, Any] = {"vector": engine.vector(8), "kind": {"type": "keyword"}}
    for name in reversed(path.split(".")):
        properties = {name: {"type": "nested", "properties": properties}}
    said = catalogue.EMBEDDING.meta["rerank_proxy"]["embedding"]
    mappings = {
        "_meta": {"rerank_proxy": {f"{path}.vector": said}},
        "properties": {**catalogue.PROPERTIES, **properties},
    }
    return {"settings": {**catalogue.SETTINGS, **engine.settings}, "mappings": mappings}


def _texts(product: Mapping[str, Any]) -> list[str]:
    """What a product's chunks hold: its title and the whole; one that is released in January has none."""
    return [] if product["released"].endswith("-01-11") else [product["title"], catalogue.passage(product)]


def _in_chunks(path: str = CHUNKS) -> dict[str, dict[str, Any]]:
    *outer, inner = path.split(".")
    products = catalogue.without_vectors(catalogue.PRODUCTS)
    for number, product in enumerate(products.values()):
        kinds = f"title{number % 2}", f"whole{number % 3}"
        chunks: Any = [
            {"kind": kind, "vector": catalogue.embed(text)} for kind, text in zip(kinds, _texts(product), strict=False)
        ]
        held: Any = {inner: chunks}
        for name in reversed(outer):
            held = {name: [held, {}]}
        product.update(held)
    return products


def _nearest_chunk(text: str, product: Mapping[str, Any]) -> float:
    return max((_cosine(text, chunk) for chunk in _texts(product)), default=-1)


NEAR_CHUNKS: dict[str, Any] = SEMANTIC | {"field": "chunks.vector", "min_similarity": -1}
BESIDE: dict[str, list[Any]] = {
    "no filter": [],
    "a filter": [{"range": {"price": {"lt": 1300}}}],
    "a filter on other nested documents": [{"nested": {"path": "reviews", "query": {"term": {"reviews.stars": 2}}}}],
    "an exclusion": [{"bool": {"must_not": [{"term": {"brand": "acme"}}]}}],
}


@pytest.mark.parametrize(("path", "more"), [(CHUNKS, {}), ("chapters.chunks", {"oversample": 2})])
@pytest.mark.parametrize("filters", BESIDE.values(), ids=BESIDE)
async def test_nested_vectors_find_their_parent_documents(
    *, filters: list[Any], path: str, more: Any, real_engine: RealEngine, open_index: OpenIndex, record_outcome: Record
) -> None:
    """Each parent once, by its nearest vector, at least as near as required."""
    semantic = SEMANTIC | {"field": f"{path}.vector", "min_similarity": 0.6} | more
    sides = await open_index(
        _chunked(real_engine, path), _in_chunks(path), semantic=semantic, rerank=False, fusion={"lexical_weight": 0}
    )
    query = {"bool": {"must": [{"match": {"title": "laptop"}}], "filter": filters}}
    through = await sides.through.search({"query": query, "size": 100})
    own = set((await sides.straight.search({"query": query, "size": 100})).ids)
    allowed = (await sides.straight.search({"query": {"bool": {"filter": filters}}, "size": 100})).ids
    near = {name: round(_nearest_chunk("laptop", catalogue.PRODUCTS[name]), 5) for name in allowed}
    near = {name: cosine for name, cosine in near.items() if cosine >= 0.6}
    assert ("reranked", own | near.keys()) == (through.outcome, set(through.ids))
    assert len(set(through.ids)) == len(through.ids) == through.total["value"]
    order = [near[name] for name in through.ids[: len(near)]]
    assert (sorted(near.values(), reverse=True), True) == (order, bool(near))
    record_outcome("vectors in nested documents", through.outcome)


@ELASTICSEARCH
@pytest.mark.parametrize("filters", BESIDE.values(), ids=BESIDE)
async def test_engines_before_knn_compare_nested_vectors_by_script(
    filters: list[Any], real_engine: RealEngine, open_index: OpenIndex, start: Start
) -> None:
    """The script finds what kNN finds, by the nearest vector, too."""
    sides = await open_index(_chunked(real_engine), _in_chunks(), semantic=NEAR_CHUNKS, rerank=False)
    body = {"query": {"bool": {"must": [{"match": {"title": "laptop"}}], "filter": filters}}, "size": 100}
    by_knn = await sides.through.search(body)
    async with Relay(real_engine.url, {"/": _of_8_3}) as relay:
        url = await start(route(sides.through.index, semantic=NEAR_CHUNKS, rerank=False), engine={"url": relay.url})
        by_script = await Client(url, sides.through.index).search(body)
    assert ("reranked", by_knn.ids, by_knn.total) == (by_script.outcome, by_script.ids, by_script.total)


_ON_CHUNKS = st.sampled_from(["title0", "title1", "whole1", "whole2"]).map(
    lambda kind: {"nested": {"path": "chunks", "query": {"term": {"chunks.kind": kind}}}}
)


@pytest.fixture
def proxies() -> dict[str, Sides]:
    """What the examples of one property share."""
    return {}


@given(drawn=queries(FILTERS | _ON_CHUNKS), post=st.none() | FILTERS | _ON_CHUNKS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_query_over_nested_vectors_keeps_its_filters(
    *, drawn: tuple[Any, Any], post: Any, real_engine: RealEngine, open_index: OpenIndex, proxies: dict[str, Sides]
) -> None:
    """Whatever the query: no document appears that it excludes, and all with vectors that it admits but for the words.

    Both also where it speaks of the very chunks that hold the vectors.
    """
    if "sides" not in proxies:
        proxies["sides"] = await open_index(_chunked(real_engine), _in_chunks(), semantic=NEAR_CHUNKS)
    sides, (query, relaxed) = proxies["sides"], drawn
    rest = {"post_filter": post, "size": 100} if post else {"size": 100}
    with_vectors = {"bool": {"filter": [relaxed, {"nested": {"path": "chunks", "query": {"match_all": {}}}}]}}
    own = set((await sides.straight.search({"query": query, **rest})).ids)
    admitted = set((await sides.straight.search({"query": with_vectors, **rest})).ids)
    through = await sides.through.search({"query": query, **rest})
    expected = ("reranked", own | admitted) if own else ("bypassed;reason=zero_hits", own)
    assert (*expected, len(through.ids)) == (through.outcome, set(through.ids), len(set(through.ids)))


def _cosine(one: str, other: str, dimensions: int = 8) -> float:
    vectors = catalogue.embed(one, dimensions), catalogue.embed(other, dimensions)
    return sum(a * b for a, b in zip(*vectors, strict=True))


WIDE = 64
"""The fewest dimensions that Elasticsearch quantises to single bits."""


async def _assert_exact(
    mapping: Mapping[str, Any], real_engine: RealEngine, open_index: OpenIndex, **semantic: Any
) -> str:
    """However near its candidates are, kNN finds every product in the order of the whole vectors."""
    settings = catalogue.with_vectors(real_engine)
    settings["mappings"]["properties"]["embedding"] = {**real_engine.vector(WIDE), **mapping}
    products = {
        name: {**product, "embedding": catalogue.embed(catalogue.passage(product), WIDE)}
        for name, product in catalogue.PRODUCTS.items()
    }
    asked = SEMANTIC | {"dimensions": WIDE, "min_similarity": -1} | semantic
    sides = await open_index(settings, products, semantic=asked, rerank=False, fusion={"lexical_weight": 0})
    through = await sides.through.search({"query": QUERY, "size": 40})
    cosines = [round(_cosine(TEXT, catalogue.passage(catalogue.PRODUCTS[name]), WIDE), 5) for name in through.ids]
    assert ("reranked", 40) == (through.outcome, len(through.ids))
    assert sorted(cosines, reverse=True) == cosines
    return through.outcome


@ELASTICSEARCH
async def test_vectors_without_an_ann_index_are_searched(
    real_engine: RealEngine, open_index: OpenIndex, record_outcome: Record
) -> None:
    """Exact comparison gives the same results."""
    outcome = await _assert_exact({"index_options": {"type": "flat"}}, real_engine, open_index)
    record_outcome("vectors compared one by one", outcome)


@ELASTICSEARCH
@pytest.mark.parametrize("kind", ["int8_hnsw", "int4_hnsw", "bbq_hnsw", "int8_flat", "int4_flat", "bbq_flat"])
async def test_oversampling_restores_the_exact_order_of_quantised_vectors(
    kind: str, real_engine: RealEngine, open_index: OpenIndex, record_outcome: Record
) -> None:
    """With `oversample`, quantised vectors are rescored by the exact ones."""
    outcome = await _assert_exact({"index_options": {"type": kind}}, real_engine, open_index, oversample=3)
    record_outcome("quantised vectors, `oversample`", outcome)


_LUCENE = {"name": "hnsw", "engine": "lucene"}
QUANTISED: dict[str, Any] = {
    "sq": {"method": {**_LUCENE, "space_type": "cosinesimil", "parameters": {"encoder": {"name": "sq"}}}},
    "compressed": {"method": _LUCENE, "space_type": "cosinesimil", "compression_level": "4x"},
    "on disk": {"method": _LUCENE, "space_type": "l2", "mode": "on_disk"},
}


@OPENSEARCH_KNN
@pytest.mark.parametrize("mapping", QUANTISED.values(), ids=QUANTISED)
async def test_oversampling_works_on_opensearch(
    mapping: Any, real_engine: RealEngine, open_index: OpenIndex, record_outcome: Record
) -> None:
    """Also where the engine itself would not rescore its quantised vectors."""
    outcome = await _assert_exact(mapping, real_engine, open_index, oversample=3)
    record_outcome("quantised vectors, `oversample`", outcome)


async def test_each_route_searches_its_own_vector_field(
    real_engine: RealEngine, load: Load, index_name: str, start: Start, models: ShopModels
) -> None:
    """Neither field is returned unless it is requested."""
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


async def test_an_index_is_searched_whole_beside_a_filtered_alias(
    shop: Shop, open_sides: Open, real_engine: RealEngine
) -> None:
    """The alias hides some documents of another index."""
    near = SEMANTIC | {"min_similarity": -1}
    sides = await open_sides(f"{shop.acme},{shop.second}", semantic=near)
    body = {"query": {"match": {"title": "laptop"}}, "size": 100}
    through = await sides.through.search(body)
    seen = await sides.straight.search({"query": {"match_all": {}}, "size": 100})
    assert {(hit["_index"], hit["_id"]) for hit in seen.hits} == {(hit["_index"], hit["_id"]) for hit in through.hits}
    assert "reranked" == through.outcome
