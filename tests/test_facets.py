"""Facets and totals agree with the hits: what kNN added is counted too, on every page, or is not shown."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from proxy.settings.config import Cache, Config, Semantic
from tests.conftest import QUERY, StartProxy
from tests.fakes import Client, Document, FakeEngine, FakeModels, Message, hangs, ids, refuses, says, waits_for
from tests.test_pipeline import with_route

BRANDS = {"brands": {"terms": {"field": "brand"}}}
FACETED = {**QUERY, "aggs": BRANDS}
DEGRADED = 'degraded;stages="facets";reason='


@pytest.fixture
def brands(engine: FakeEngine) -> None:
    """Six match the query, `d` and `n` are found by kNN only; the brand globex is that of `n` alone."""
    brand = {"a": "acme", "b": "acme", "c": "initech", "d": "acme", "n": "globex"}
    tail = [Document(f"t{n}", f"Tail {n}", lexical=0.5 - n / 10) for n in range(3)]
    found = [*engine.documents, Document("n", "Notebook", cosine=0.7), *tail]
    engine.documents = [
        Document(doc.id, doc.title, doc.lexical, doc.cosine, doc.index, {"brand": brand.get(doc.id, "other")})
        for doc in found
        if doc.index == "products"
    ]


def facets(answered: Message) -> dict[str, int]:
    buckets = answered.json()["aggregations"]["brands"]["buckets"]
    return {bucket["key"]: bucket["doc_count"] for bucket in buckets}


def total(answered: Message) -> Any:
    return answered.json()["hits"]["total"]["value"]


OWN, COUNTED = {"acme": 2, "initech": 1, "other": 3}, {"acme": 3, "initech": 1, "globex": 1, "other": 3}


@pytest.mark.usefixtures("brands")
@pytest.mark.parametrize("name", ["aggs", "aggregations"])
async def test_facets_count_documents_that_knn_added(client: Client, engine: FakeEngine, name: str) -> None:
    """The search that renders these documents counts them, in parallel with the reranker."""
    answered = await client.search("/products/_search", {**QUERY, name: BRANDS})
    assert ("reranked", COUNTED, 8) == (answered.header("x-rerank"), facets(answered), total(answered))
    assert {"d", "n"} <= set(ids(answered))
    assert (1, 0) == (len(engine.of("render")), len(engine.of("facets")))


@pytest.mark.usefixtures("brands")
@pytest.mark.parametrize("starts", [range(0, 8, 2), range(6, -1, -2), [4, 0, 6, 2], [6, 6, 0]])
@pytest.mark.parametrize("cached", [True, False])
async def test_all_pages_show_the_same_facets_and_total(
    start_proxy: StartProxy, settings: Config, starts: list[int], *, cached: bool
) -> None:
    """In the head (4 documents) and after it, in any order, even if the ranking is not cached."""
    small = with_route(settings, rank_window_size=5)
    client = await start_proxy(small if cached else msgspec.structs.replace(small, cache=Cache(rankings_mb=0)))
    for start in starts:
        page = await client.search("/products/_search", {**FACETED, "from": start, "size": 2})
        assert (COUNTED, 8) == (facets(page), total(page)), start


@pytest.mark.usefixtures("brands")
async def test_facets_of_a_deep_page_are_counted_concurrently(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine
) -> None:
    """In parallel with the client's own search."""
    client = await start_proxy(with_route(settings, rank_window_size=5))
    await client.search("/products/_search", {**FACETED, "size": 5})
    held = asyncio.Event()
    engine.faults["facets"] = engine.faults["lexical"] = waits_for(held)
    asking = asyncio.ensure_future(client.search("/products/_search", {**FACETED, "from": 5, "size": 2}))
    await engine.until_asked("facets", 1)
    await engine.until_asked("lexical", 2)
    held.set()
    page = await asking
    assert ("reranked", COUNTED) == (page.header("x-rerank"), facets(page))


@pytest.mark.usefixtures("brands")
async def test_facets_are_counted_while_the_reranker_works(
    client: Client, engine: FakeEngine, models: FakeModels
) -> None:
    held = asyncio.Event()
    models.faults["rerank"] = waits_for(held)
    asking = asyncio.ensure_future(client.search("/products/_search", FACETED))
    await models.until_asked("rerank", 1)
    await engine.until_asked("render", 1)
    held.set()
    assert COUNTED == facets(await asking)


FAULTS: dict[str, Any] = {
    "refused": refuses(400),
    "timeout": hangs,
    "partial": says(b'{"timed_out":true,"hits":{"hits":[]},"aggregations":{"matched":{"doc_count":0},"brands":{}}}'),
    "malformed": says(b'{"hits":{"hits":[]}}'),
}


@pytest.mark.usefixtures("brands")
@pytest.mark.parametrize("reason", FAULTS)
async def test_if_facets_cannot_be_counted_knn_documents_are_dropped(
    client: Client, engine: FakeEngine, reason: str
) -> None:
    """They are dropped from the ranking, so that its other pages agree."""
    engine.faults["render"] = FAULTS[reason]
    first = await client.search("/products/_search", {**FACETED, "size": 4}, x_rerank_budget_ms="200")
    engine.faults.clear()
    second = await client.search("/products/_search", {**FACETED, "from": 4, "size": 10})
    assert [DEGRADED + reason] * 2 == [page.header("x-rerank") for page in (first, second)]
    assert ["a", "b", "c", "t0", "t1", "t2"] == sorted(ids(first) + ids(second))
    assert [(OWN, 6)] * 2 == [(facets(page), total(page)) for page in (first, second)]


@pytest.mark.usefixtures("brands")
@pytest.mark.parametrize("reason", FAULTS)
@pytest.mark.parametrize(("start", "kind"), [(2, "render"), (5, "facets")])
async def test_if_a_later_page_cannot_count_facets_it_has_the_clients_own(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, reason: str, start: int, kind: str
) -> None:
    client = await start_proxy(with_route(settings, rank_window_size=5))
    await client.search("/products/_search", FACETED)
    engine.faults[kind] = FAULTS[reason]
    page = await client.search("/products/_search", {**FACETED, "from": start}, x_rerank_budget_ms="200")
    assert (DEGRADED + reason, OWN, 6) == (page.header("x-rerank"), facets(page), total(page))
    assert not {"d", "n"} & set(ids(page))


@pytest.mark.usefixtures("brands")
async def test_a_deleted_document_is_in_no_facet_and_no_total(client: Client, engine: FakeEngine) -> None:
    await client.search("/products/_search", {**FACETED, "size": 1})
    engine.documents = [document for document in engine.documents if document.id != "n"]
    page = await client.search("/products/_search", {**FACETED, "from": 1})
    assert ({"acme": 3, "initech": 1, "other": 3}, 7) == (facets(page), total(page))


@pytest.mark.parametrize(
    "aggregations",
    [
        {"best": {"top_hits": {"size": 1}}},
        {"sample": {"sampler": {"shard_size": 1}, "aggs": BRANDS}},
        {"all": {"global": {}, "aggs": BRANDS}},
    ],
)
async def test_aggregations_that_read_scores_need_no_search(
    client: Client, engine: FakeEngine, aggregations: Any
) -> None:
    own = json.dumps(aggregations).encode()
    engine.faults["lexical"] = says(
        b'{"hits":{"total":{"value":1,"relation":"eq"},"hits":[{"_index":"products","_id":"a","_score":3}]},'
        b'"aggregations":%s}' % own
    )
    answered = await client.search("/products/_search", {**QUERY, "aggs": aggregations})
    assert ("reranked", own) == (answered.header("x-rerank"), json.dumps(answered.json()["aggregations"]).encode())
    assert [["matched"]] == [list(asked.json()["aggs"]) for asked in engine.of("render")]


@pytest.mark.usefixtures("brands")
async def test_facets_are_counted_with_the_callers_credentials(client: Client, engine: FakeEngine) -> None:
    """Two callers get different counts."""
    for caller in ("Basic YTph", "Basic Yjpi"):
        for start in (0, 2):
            await client.search("/products/_search", {**FACETED, "from": start, "size": 2}, authorization=caller)
    callers = [asked.header("authorization") for asked in engine.of("render")]
    assert ["Basic YTph"] * 2 + ["Basic Yjpi"] * 2 == callers


async def test_without_aggregations_no_search_is_added(client: Client, engine: FakeEngine) -> None:
    await client.search("/products/_search", QUERY)
    assert [["matched"]] == [list(asked.json()["aggs"]) for asked in engine.of("render")]


@pytest.mark.usefixtures("brands")
async def test_with_typed_keys_results_have_their_types(client: Client) -> None:
    answered = await client.search("/products/_search?typed_keys=true", FACETED)
    buckets = answered.json()["aggregations"]["sterms#brands"]["buckets"]
    assert COUNTED == {bucket["key"]: bucket["doc_count"] for bucket in buckets}


@pytest.fixture
def reordering(settings: Config) -> Config:
    """kNN adds nothing; the window holds three hits of each retriever."""
    semantic = Semantic(field="embedding", dimensions=3, adds=False)
    return with_route(settings, semantic=semantic, rank_window_size=3)


@pytest.mark.usefixtures("brands")
@pytest.mark.parametrize("starts", [range(0, 8, 2), range(6, -1, -2)])
async def test_knn_that_adds_nothing_changes_no_facet_and_no_total(
    start_proxy: StartProxy, reordering: Config, engine: FakeEngine, starts: list[int]
) -> None:
    """It reorders the matches of the client's query, also those beyond the window."""
    client = await start_proxy(reordering)
    engine.documents.append(Document("deep", "Laptop workstation", 0.2, 0.95, more={"brand": "acme"}))
    pages = {start: await client.search("/products/_search", {**FACETED, "from": start, "size": 2}) for start in starts}
    assert {"reranked"} == {page.header("x-rerank") for page in pages.values()}
    assert [({**OWN, "acme": 3}, 7)] * 4 == [(facets(page), total(page)) for page in pages.values()]
    whole = [name for start in sorted(pages) for name in ids(pages[start])]
    assert (["a", "b", "c", "deep", "t0", "t1", "t2"], True) == (sorted(whole), "deep" in whole[:3])
    assert [["matched"]] * len(engine.of("render")) == [list(asked.json()["aggs"]) for asked in engine.of("render")]


@pytest.mark.usefixtures("brands")
async def test_knn_that_adds_nothing_needs_no_search_if_the_window_holds_all(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine
) -> None:
    semantic = Semantic(field="embedding", dimensions=3, adds=False)
    client = await start_proxy(with_route(settings, semantic=semantic))
    answered = await client.search("/products/_search", FACETED)
    assert ("reranked", OWN, 6) == (answered.header("x-rerank"), facets(answered), total(answered))
    assert (1, 1, 0) == tuple(len(engine.of(kind)) for kind in ("lexical", "semantic", "render"))


@pytest.mark.usefixtures("brands")
async def test_a_document_that_no_longer_matches_is_not_added(
    start_proxy: StartProxy, reordering: Config, engine: FakeEngine
) -> None:
    """It changed after the kNN search."""

    async def changed(*_: Any) -> None:
        engine.documents = [
            Document("deep", "Other", None, 0.95) if document.id == "deep" else document
            for document in engine.documents
        ]

    client = await start_proxy(reordering)
    engine.documents.append(Document("deep", "Laptop workstation", 0.2, 0.95, more={"brand": "acme"}))
    engine.faults["render"] = changed
    answered = await client.search("/products/_search", {**FACETED, "size": 3})
    assert ("reranked", False, 7) == (answered.header("x-rerank"), "deep" in ids(answered), total(answered))
