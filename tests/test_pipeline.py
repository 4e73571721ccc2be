"""A search that goes all the way: retrieved by words and by meaning, fused, reranked, cut into pages."""

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from proxy.settings.config import Cache, Config, RouteSettings, Semantic
from tests.conftest import OTHER, QUERY, SCORES, Log, StartProxy
from tests.fakes import (
    Client,
    Document,
    FakeEngine,
    FakeModels,
    Fault,
    Message,
    Stream,
    answer,
    breaks_off,
    hangs,
    ids,
    refuses,
    request,
    waits_for,
)

RERANKED = ["d", "b", "c", "a"]


def with_route(settings: Config, **changes: Any) -> Config:
    return msgspec.structs.replace(settings, routes=(msgspec.structs.replace(settings.routes[0], **changes),))


async def test_a_search_is_retrieved_by_bm25_and_knn_and_reranked(client: Client, log: Log) -> None:
    answered = await client.search("/products/_search", QUERY)
    hits = answered.json()["hits"]
    assert (200, "reranked", RERANKED) == (answered.status, answered.header("x-rerank"), ids(answered))
    scores = [hit["_score"] for hit in hits["hits"]]
    assert (sorted(scores, reverse=True), hits["max_score"]) == (scores, scores[0])
    assert ({"value": 4, "relation": "eq"}, 7) == (hits["total"], answered.json()["took"])


async def test_every_stage_is_timed_in_server_timing_and_in_the_log(client: Client, log: Log) -> None:
    answered = await client.search("/products/_search", QUERY)
    timed = {stage.partition(";dur=")[0] for stage in answered.header("server-timing").split(", ")}
    (line,) = log
    assert {"names", "lexical", "embed", "semantic", "render", "rerank", "total"} == timed == set(line["ms"])
    assert ("info", "reranked", 10, 4) == (line["log_level"], line["outcome"], line["window"], line["candidates"])


@pytest.mark.parametrize("tier", [None, "default", "priority"])
async def test_model_calls_name_the_configured_service_tier(
    start_proxy: StartProxy, settings: Config, models: FakeModels, tier: Any
) -> None:
    served = msgspec.structs.replace(settings.models, service_tier=tier)
    client = await start_proxy(msgspec.structs.replace(settings, models=served))
    await client.search("/products/_search", QUERY)
    said = [(asked.json().get("service_tier"), asked.json()["fail_fast"]) for asked in models.requests]
    assert [(tier, True), (tier, True)] == said
    assert tier is not None or b"service_tier" not in b"".join(asked.body for asked in models.requests)


async def test_the_log_has_the_tokens_and_the_cost_of_all_model_calls(
    start_proxy: StartProxy, settings: Config, models: FakeModels, log: Log
) -> None:
    """Of the embedding and of all parallel calls of the reranker; cached values cost nothing."""
    models.cost = 0.25
    in_pairs = msgspec.structs.replace(settings.models, rerank_batch_size=2)
    client = await start_proxy(msgspec.structs.replace(settings, models=in_pairs))
    for start in (0, 0, 2):
        await client.search("/products/_search", {**QUERY, "from": start})
    assert [(1 + 42 + 42, 0.5), (None, None), (None, None)] == [
        (line.get("tokens"), line.get("cost_usd")) for line in log
    ]


async def test_a_partly_scored_window_is_reranked_as_far_as_scored(
    start_proxy: StartProxy, settings: Config, models: FakeModels, log: Log
) -> None:
    """The fused order is a b d c; only the first is scored."""
    in_pairs = msgspec.structs.replace(settings.models, rerank_batch_size=2)
    client = await start_proxy(msgspec.structs.replace(settings, models=in_pairs))

    async def refuses_the_second(stream: Stream, asked: Message) -> bytes | None:
        return answer(429, b"{}") if "Laptop stand" in asked.json()["documents"] else None

    models.faults["rerank"] = refuses_the_second
    answered = await client.search("/products/_search", QUERY)
    assert (["b", "a", "d", "c"], 'degraded;stages="rerank";reason=rate_limited') == (
        ids(answered),
        answered.header("x-rerank"),
    )
    assert log[0]["detail"].endswith(" (2 of 4 passages were scored)")


async def test_models_receive_only_the_query_text_and_the_passages(
    client: Client, engine: FakeEngine, models: FakeModels
) -> None:
    engine.documents = [Document("b", "Laptop", lexical=1, more={"cost": "secret"}), Document("d", "Other", cosine=0.9)]
    query = {"bool": {"must": [{"match": {"title": "laptop"}}], "filter": [{"term": {"brand": "acme"}}]}}
    await client.search("/products/_search", {"query": query})
    (embedded,), (reranked,) = models.of("embed"), models.of("rerank")
    assert (["laptop"], ["Laptop", "Other"]) == (reranked.json()["queries"], reranked.json()["documents"])
    assert embedded.json()["input"] == [f"Instruct: {reranked.json()['instruction']}\nQuery:laptop"]
    assert [] == [one for one in (embedded, reranked) if b"secret" in one.body or b"acme" in one.body]


async def test_every_added_search_has_the_clients_filters(client: Client, engine: FakeEngine) -> None:
    term = {"term": {"brand": "acme"}}
    query = {"bool": {"must": [{"match": {"title": "laptop"}}], "filter": [term]}}
    await client.search("/products/_search", {"query": query, "_source": False})
    kinds = {kind: engine.of(kind)[0].json() for kind in ("lexical", "semantic", "render")}
    assert query == kinds["lexical"]["query"]
    assert str(term) in str(kinds["semantic"]["knn"]["filter"])
    assert str(term) in str(kinds["render"]["post_filter"])


async def test_the_retrievers_run_concurrently(client: Client, engine: FakeEngine, models: FakeModels) -> None:
    await client.search("/products/_search", OTHER)
    held = asyncio.Event()
    engine.faults["lexical"] = models.faults["embed"] = waits_for(held)
    asking = asyncio.ensure_future(client.search("/products/_search", QUERY))
    await engine.until_asked("lexical", 2)
    await models.until_asked("embed", 2)
    held.set()
    assert RERANKED == ids(await asking)


async def test_a_slow_embedder_leaves_the_reranker_its_share_of_the_budget(
    start_proxy: StartProxy, settings: Config, models: FakeModels
) -> None:
    patient = msgspec.structs.replace(settings.models, embed_timeout_seconds=60)
    client = await start_proxy(msgspec.structs.replace(with_route(settings, budget_ms=3000), models=patient))
    models.faults["embed"] = hangs
    answered = await client.search("/products/_search", QUERY)
    assert ('degraded;stages="semantic";reason=timeout', ["b", "c", "a"]) == (
        answered.header("x-rerank"),
        ids(answered),
    )


async def test_a_disconnecting_client_cancels_its_search_and_its_model_call(
    client: Client, engine: FakeEngine, models: FakeModels
) -> None:
    models.faults = dict.fromkeys(("embed", "rerank"), breaks_off())  # so that no connection is kept open
    await client.search("/products/_search", OTHER)
    await models.until_left()
    engine.faults["lexical"] = models.faults["embed"] = hangs
    asked = len(models.of("rerank"))
    body = msgspec.json.encode(QUERY)
    await client.send(request("POST", "/products/_search", body, content_type="application/json"))
    await engine.until_asked("lexical", 2)
    await models.until_asked("embed", 2)
    client.close()
    await models.until_left()
    assert (asked, 0) == (len(models.of("rerank")), len(models.open))


@pytest.mark.parametrize("window", [1, 2, 3, 10])
@pytest.mark.parametrize("size", [1, 2, 3])
async def test_pages_add_up_to_the_whole(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, window: int, size: int
) -> None:
    """No hit is missing or repeated, and the total is the same, wherever the window ends."""
    engine.documents += [Document(f"t{n}", f"Tail {n}", lexical=0.5 - n / 10) for n in range(3)]
    client = await start_proxy(with_route(settings, rank_window_size=window))
    pages = []
    for start in itertools.count(0, size):
        page = await client.search("/products/_search", {**QUERY, "from": start, "size": size})
        if not ids(page):
            break
        pages.append(page)
    together = [name for page in pages for name in ids(page)]
    hits = [page.json()["hits"] for page in pages]
    totals = {hit["total"]["value"] for hit in hits}
    scores = [hit["_score"] for hit in itertools.chain.from_iterable(page["hits"] for page in hits)]
    assert (len(set(together)), {len(together)}) == (len(together), totals)
    assert {"a", "b", "c", "t0", "t1", "t2"} <= set(together)
    assert scores == sorted(scores, reverse=True)
    assert 1 == len({page["max_score"] for page in hits})


async def test_the_next_page_uses_the_cached_ranking_without_a_model_call(client: Client, models: FakeModels) -> None:
    first = await client.search("/products/_search", {**QUERY, "size": 2})
    asked = len(models.requests)
    models.scores = {}
    second = await client.search("/products/_search", {**QUERY, "from": 2, "size": 2})
    assert (RERANKED, asked) == (ids(first) + ids(second), len(models.requests))


async def test_a_page_beyond_the_window_counts_as_far_as_it_requests(client: Client, models: FakeModels) -> None:
    """However far the first page counted; the reranker is not called."""
    first = {**QUERY, "size": 1}
    await client.search("/products/_search", {**first, "track_total_hits": False})
    called = len(models.of("rerank"))
    behind = await client.search("/products/_search", {**first, "from": 10})
    assert ({"value": 4, "relation": "eq"}, called) == (behind.json()["hits"]["total"], len(models.of("rerank")))


async def test_a_cached_ranking_serves_only_its_caller(client: Client, engine: FakeEngine, models: FakeModels) -> None:
    """Scores serve all callers: they belong to texts, which each caller finds by its own searches."""
    for caller in ("Basic YTph", "Basic Yjpi"):
        await client.search("/products/_search", {**QUERY, "size": 2}, authorization=caller)
    await client.search("/products/_search", {**QUERY, "from": 2}, authorization="ApiKey other")
    assert (3, 3, 1) == (len(engine.of("semantic")), len(engine.of("render")), len(models.of("rerank")))


async def test_documents_below_min_similarity_are_not_found_by_knn(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine
) -> None:
    semantic = msgspec.structs.replace(settings.routes[0].semantic, min_similarity=0.95)  # type: ignore[type-var]
    client = await start_proxy(with_route(settings, semantic=semantic))
    assert ["b", "c", "a"] == ids(await client.search("/products/_search", QUERY))


@pytest.mark.parametrize(
    ("rule", "outcome", "found"), [("keep_empty", "bypassed;reason=zero_hits", []), ("semantic", "reranked", ["d"])]
)
async def test_on_zero_hits_decides_about_a_search_without_hits(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, rule: str, outcome: str, found: list[str]
) -> None:
    engine.documents = [Document("d", "Mobile workstation", cosine=0.9)]
    client = await start_proxy(with_route(settings, on_zero_hits=rule))
    answered = await client.search("/products/_search", QUERY)
    assert (outcome, found) == (answered.header("x-rerank"), ids(answered))


async def test_equal_reranker_scores_keep_the_fused_order(client: Client, models: FakeModels) -> None:
    models.scores = dict.fromkeys(SCORES, 1.0)
    assert ["a", "b", "d", "c"] == ids(await client.search("/products/_search", QUERY))


async def test_constant_scores_keep_the_fused_order(client: Client, models: FakeModels) -> None:
    """A broken model server returns such scores."""
    models.scores = dict.fromkeys(SCORES, 0.5)
    answered = await client.search("/products/_search", QUERY)
    assert (["a", "b", "d", "c"], 'degraded;stages="rerank";reason=equal_scores') == (
        ids(answered),
        answered.header("x-rerank"),
    )


async def test_a_document_outside_the_route_is_never_sent_to_a_model(
    client: Client, engine: FakeEngine, models: FakeModels
) -> None:
    """The names resolved to the route, but the index of the hit counts."""
    engine.documents += [Document("s", "Secret laptop", lexical=9, index="secrets")]

    async def hides_it(*_: object) -> bytes:
        return answer(200, b'{"indices":[{"name":"products"}],"aliases":[],"data_streams":[]}')

    engine.faults["resolve"] = hides_it
    answered = await client.search("/products/_search", QUERY)
    assert ("bypassed;reason=mixed_routes", []) == (answered.header("x-rerank"), models.of("rerank"))


async def test_knn_hits_outside_the_route_are_dropped(client: Client, engine: FakeEngine, models: FakeModels) -> None:
    engine.documents += [Document("s", "Secret laptop", cosine=0.99, index="secrets")]
    engine.faults["resolve"] = _only_products
    answered = await client.search("/products/_search", QUERY)
    assert (RERANKED, "reranked") == (ids(answered), answered.header("x-rerank"))
    assert "Secret laptop" not in models.of("rerank")[0].json()["documents"]


async def _only_products(*_: object) -> bytes:
    return answer(200, b'{"indices":[{"name":"products"}]}')


async def test_passages_are_read_from_hidden_sources_which_stay_hidden(
    client: Client, engine: FakeEngine, models: FakeModels
) -> None:
    answered = await client.search("/products/_search", {**QUERY, "_source": False})
    hits = answered.json()["hits"]["hits"]
    assert (RERANKED, set(SCORES)) == (ids(answered), set(models.of("rerank")[0].json()["documents"]))
    assert [] == [hit for hit in hits if "_source" in hit]


@pytest.mark.parametrize(
    ("changes", "order", "kinds"),
    [
        ({"semantic": None}, ["b", "c", "a"], {"rerank"}),
        ({"rerank": False}, ["a", "b", "d", "c"], {"embed"}),
        ({"blend": 1000.0}, ["a", "b", "d", "c"], {"embed", "rerank"}),
    ],
    ids=["rerank alone", "fusion alone", "blended"],
)
async def test_each_combination_of_stages_works(
    start_proxy: StartProxy, settings: Config, models: FakeModels, changes: Any, order: list[str], kinds: set[str]
) -> None:
    client = await start_proxy(with_route(settings, **changes))
    answered = await client.search("/products/_search", QUERY)
    assert ("reranked", order, kinds) == (
        answered.header("x-rerank"),
        ids(answered),
        {models.kind(asked) for asked in models.requests},
    )


async def test_a_document_without_text_keeps_its_rank(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, models: FakeModels
) -> None:
    engine.documents = [
        Document("n", "", lexical=9),
        Document("b", "Laptop", lexical=1),
        Document("c", "L", lexical=0.5),
    ]
    route = RouteSettings(index="products", passage=["title"])
    client = await start_proxy(msgspec.structs.replace(settings, routes=(route,)))
    assert ["n", "b", "c"] == ids(await client.search("/products/_search", QUERY))
    assert ["Laptop", "L"] == models.of("rerank")[0].json()["documents"]


async def test_a_complete_ranking_is_preferred_to_a_degraded_one(
    client: Client, engine: FakeEngine, models: FakeModels, log: Log
) -> None:
    """Another search with the same credentials was degraded, while somebody reads the pages of the complete one."""
    first = await client.search("/products/_search", {**QUERY, "size": 2})
    models.faults["rerank"] = hangs_up
    engine.documents = [replace(document, title=f"{document.title} (new)") for document in engine.documents]
    meanwhile = await client.search("/products/_search", {**QUERY, "size": 3})
    second = await client.search("/products/_search", {**QUERY, "from": 2, "size": 2})
    assert (RERANKED, RERANKED[:3]) == (ids(first) + ids(second), ids(meanwhile))
    assert 'degraded;stages="rerank";reason=server_error' == meanwhile.header("x-rerank")
    assert ("reranked", "warning") == (second.header("x-rerank"), log[1]["log_level"])


async def hangs_up(*_: object) -> bytes:
    return answer(500, b"")


@pytest.mark.parametrize("kind", ["semantic", "render", "passages"])
async def test_the_budget_limits_every_added_search(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, kind: str
) -> None:
    """The searches' own timeouts are longer; the response does not wait for them."""
    slow = msgspec.structs.replace(settings.engine, added_timeout_seconds=1000)
    client = await start_proxy(
        with_route(
            msgspec.structs.replace(settings, engine=slow),
            semantic=Semantic(field="embedding", dimensions=3, timeout_seconds=1000),
        )
    )
    body = {**QUERY, "_source": False} if kind == "passages" else QUERY
    engine.faults[kind] = hangs
    answered = await client.search("/products/_search", body, x_rerank_budget_ms="500")
    assert (200, True) == (answered.status, answered.header("x-rerank").endswith("reason=timeout"))
    assert (1, True) == (len(engine.of(kind)), {"a", "b", "c"} <= set(ids(answered)))


async def test_documents_not_rendered_in_time_are_on_no_page(client: Client, engine: FakeEngine) -> None:
    first = await client.search("/products/_search", {**QUERY, "size": 2})
    engine.faults["render"] = hangs
    second = await client.search("/products/_search", {**QUERY, "from": 2, "size": 2}, x_rerank_budget_ms="50")
    assert (["d", "b"], ["c", "a"]) == (ids(first), ids(second))
    again = await client.search("/products/_search", {**QUERY, "size": 2}, x_rerank_budget_ms="50")
    behind = await client.search("/products/_search", {**QUERY, "from": 2, "size": 2}, x_rerank_budget_ms="50")
    assert "d" not in ids(again) + ids(behind)


async def test_deep_pages_fit_even_if_nothing_could_be_rendered(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine
) -> None:
    """The cached head has expired: documents that only kNN found still take their places on the first pages."""
    engine.documents += [Document(f"t{n}", f"Tail {n}", lexical=0.5 - n / 10) for n in range(3)]
    forgetful = msgspec.structs.replace(with_route(settings, rank_window_size=4), cache=Cache(rankings_mb=0))
    client = await start_proxy(forgetful)
    first = ids(await client.search("/products/_search", {**QUERY, "size": 5}))
    engine.faults["render"] = refuses(503)
    behind = await client.search("/products/_search", {**QUERY, "from": 5, "size": 2})
    assert (["d", "b", "c", "a", "t0"], ["t1", "t2"]) == (first, ids(behind))


@pytest.fixture
def told(engine: FakeEngine) -> asyncio.Event:
    """Holds the client's own search back until it is set."""
    held = asyncio.Event()
    engine.faults["lexical"] = waits_for(held)
    return held


async def searches(client: Client, body: Any = QUERY, **fields: str) -> Message:
    return await client.search("/products/_search", body, **fields)


async def test_no_query_is_embedded_before_the_engine_has_accepted_the_caller(
    client: Client, engine: FakeEngine, models: FakeModels, told: asyncio.Event
) -> None:
    """Otherwise anyone who reaches the proxy could spend its owner's money."""
    asking = asyncio.ensure_future(searches(client))
    await engine.until_asked("lexical")
    other = await Client.to(client.writer.get_extra_info("peername")[1])
    for _ in range(3):  # as long as a call of the model would take to arrive
        await other.ask("GET", "/")
    other.close()
    assert [] == models.requests
    told.set()
    assert "reranked" == (await asking).header("x-rerank")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_rejected_caller_causes_no_model_call(
    client: Client, engine: FakeEngine, models: FakeModels, status: int
) -> None:
    """Neither for its first search, nor for the next one after a caller was accepted and then rejected."""
    engine.faults["lexical"] = refuses(status)
    assert status == (await searches(client)).status
    del engine.faults["lexical"]
    await searches(client, OTHER)
    engine.faults["lexical"] = refuses(status)
    asked = len(models.requests)
    for title in ("one", "two", "three"):
        await searches(client, {"query": {"match": {"title": title}}})
    assert len(models.of("embed")) <= asked  # the first one was still accepted, and its own search came too late
    embedded = len(models.of("embed"))
    await searches(client, {"query": {"match": {"title": "four"}}})
    assert embedded == len(models.of("embed"))


async def test_a_cached_vector_is_searched_at_once(
    client: Client, engine: FakeEngine, models: FakeModels, told: asyncio.Event
) -> None:
    """Also for a caller that the engine has not accepted yet: a cached vector costs nothing."""
    told.set()
    await searches(client, authorization="ApiKey one")
    told.clear()
    asking = asyncio.ensure_future(searches(client, authorization="ApiKey another"))
    await engine.until_asked("semantic", 2)
    assert 1 == len(models.of("embed"))
    told.set()
    await asking


async def test_a_search_accepted_without_credentials_counts_for_all_callers(
    client: Client, engine: FakeEngine, models: FakeModels, told: asyncio.Event
) -> None:
    told.set()
    await searches(client, OTHER)
    told.clear()
    asking = asyncio.ensure_future(searches(client, authorization="ApiKey another"))
    await models.until_asked("embed", 2)
    told.set()
    await asking


async def test_a_search_never_waits_for_searches_added_to_others(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine
) -> None:
    """Without a free slot, stages are skipped, and the client's own search is answered."""
    bound = msgspec.structs.replace(settings.engine, added_searches=1, added_timeout_seconds=1000)
    client = await start_proxy(msgspec.structs.replace(settings, engine=bound))
    engine.faults["render"] = hangs
    other = await Client.to(client.writer.get_extra_info("peername")[1])
    hanging = asyncio.ensure_future(searches(other))
    await engine.until_asked("render")
    answered = await searches(client)
    assert ('degraded;stages="semantic";reason=busy', ["b", "c", "a"]) == (answered.header("x-rerank"), ids(answered))
    hanging.cancel()
    other.close()


async def _resolves_to(engine: FakeEngine, *names: str) -> None:
    async def resolves(*_: object) -> bytes:
        aliases = [{"name": "shop", "indices": list(names)}]
        return answer(200, msgspec.json.encode({"indices": [], "aliases": aliases, "data_streams": []}))

    engine.faults["resolve"] = resolves


async def of_an_alias(start: StartProxy, settings: Config, engine: FakeEngine, *names: str) -> Client:
    """A client of a proxy whose route is an alias, which stands for these indices by now."""
    client = await start(with_route(settings, index="shop"))
    await _resolves_to(engine, *names)
    return client


@pytest.mark.parametrize("of_secrets", [{"lexical": 9.0}, {"cosine": 0.99}])
async def test_a_hit_of_an_unknown_index_is_resolved_again(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, models: FakeModels, of_secrets: Any
) -> None:
    """If the alias now includes it, the search is reranked; otherwise no text of it is sent.

    What kNN found in it is used from the next search on, when its mapping is known.
    """
    client = await of_an_alias(start_proxy, settings, engine, "products")
    assert "reranked" == (await client.search("/shop/_search", OTHER)).header("x-rerank")
    engine.documents += [Document("n", "New laptop", index="new", **of_secrets)]
    outside = await client.search("/shop/_search", QUERY)
    assert "New laptop" not in str([asked.body for asked in models.requests])
    assert ("lexical" in of_secrets) is ("bypassed;reason=mixed_routes" == outside.header("x-rerank"))
    assert 2 == len(engine.of("resolve"))
    await _resolves_to(engine, "products", "new")
    inside = await client.search("/shop/_search", QUERY)
    assert ("reranked", "lexical" in of_secrets) == (inside.header("x-rerank"), "n" in ids(inside))
    asked = len(engine.of("resolve"))
    assert "n" in ids(await client.search("/shop/_search", QUERY))
    assert (3, 3) == (asked, len(engine.of("resolve")))
    assert "New laptop" in models.of("rerank")[-1].json()["documents"]


async def test_texts_of_an_unresolved_index_are_not_sent_to_models(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, models: FakeModels
) -> None:
    impatient = msgspec.structs.replace(settings.engine, resolve_timeout_seconds=0.03)
    client = await of_an_alias(start_proxy, msgspec.structs.replace(settings, engine=impatient), engine, "products")
    while (await client.search("/shop/_search", OTHER)).header("x-rerank") != "reranked":
        pass
    engine.documents += [Document("n", "New laptop", index="new", lexical=9)]
    engine.faults["resolve"] = hangs
    answered = await client.search("/shop/_search", QUERY)
    assert ("bypassed;reason=mixed_routes", "n") == (answered.header("x-rerank"), ids(answered)[0])
    assert "New laptop" not in str([asked.body for asked in models.requests])


async def test_an_index_of_an_earlier_route_is_not_covered(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, models: FakeModels
) -> None:
    own = RouteSettings(index="products-own*", rerank=True, passage=["title"])
    client = await start_proxy(msgspec.structs.replace(settings, routes=(own, *settings.routes)))
    engine.faults["resolve"] = _only_products
    engine.documents += [Document("o", "Own laptop", index="products-own", lexical=9)]
    answered = await client.search("/products/_search", QUERY)
    assert ("bypassed;reason=mixed_routes", []) == (answered.header("x-rerank"), models.of("rerank"))


async def test_a_search_with_cached_scores_needs_no_model(client: Client, models: FakeModels, log: Log) -> None:
    """Scores of another caller's search are used; the log says how many."""
    first = await client.search("/products/_search", QUERY, authorization="Basic YTph")
    models.faults["rerank"] = hangs_up
    again = await client.search("/products/_search", {**QUERY, "size": 2}, authorization="Basic Yjpi")
    assert ("reranked", ids(first)[:2]) == (again.header("x-rerank"), ids(again))
    said = [(line.get("passages_sent"), line.get("passages_cached"), "tokens_saved" in line) for line in log]
    count = len(models.of("rerank")[0].json()["documents"])
    assert [(count, None, False), (None, count, True)] == said


async def test_only_changed_passages_are_scored_again(client: Client, engine: FakeEngine, models: FakeModels) -> None:
    await client.search("/products/_search", QUERY)
    changed, *others = engine.documents
    engine.documents = [replace(changed, title="Another title"), *(replace(each, more={"price": 1}) for each in others)]
    await client.search("/products/_search", QUERY)
    assert ["Another title"] == models.of("rerank")[1].json()["documents"]


async def test_the_rerankers_request_is_sent_before_the_engines(
    client: Client, engine: FakeEngine, models: FakeModels
) -> None:
    """It takes the longest, so nothing else is prepared before it."""
    await client.search("/products/_search", QUERY)  # opens the connections
    sent: list[str] = []

    def noted(kind: str) -> Fault:
        async def fault(stream: Stream, request: Message) -> None:
            sent.append(kind)

        return fault

    engine.faults["render"], models.faults["rerank"] = noted("render"), noted("rerank")
    await client.search("/products/_search", OTHER)
    assert ["rerank", "render"] == sent
