"""The official client, 8 and 9, as asynchronous programs use it, its DSL included."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from elastic_transport import ConnectionTimeout
from elasticsearch import ApiError, AsyncElasticsearch, helpers
from elasticsearch.dsl import AsyncSearch

from tests.clients.python.sides import Bench, Scenario, Side, demand, equal, headers, later, main, plain, reranked, same

LAPTOP = {"match": {"title": "laptop"}}


@asynccontextmanager
async def client_of(side: Side, **options: Any) -> AsyncIterator[AsyncElasticsearch]:
    async with AsyncElasticsearch(side.url, **options) as client:
        yield client


async def product(side: Side) -> Any:
    async with client_of(side) as client:
        answer = await client.info()
        return [answer.body, headers(answer.meta.headers), await client.ping()]


def _actions(side: Side) -> Iterator[dict[str, Any]]:
    for number in range(120):
        yield {"_index": side.fresh, "_id": str(number), "n": number, "text": f"number {number} " * 20}


async def bulk(side: Side) -> Any:
    async with client_of(side, http_compress=True) as client:
        seen: list[Any] = [await helpers.async_bulk(client, _actions(side), chunk_size=50, refresh=True)]
        streamed = helpers.async_streaming_bulk(client, _actions(side), chunk_size=30)
        seen.append(sorted([[ok, item["index"]["_id"], item["index"]["_version"]] async for ok, item in streamed]))
        bad = [{"_index": side.fresh, "_id": "bad", "n": "no number"}]
        seen.append(await helpers.async_bulk(client, bad, raise_on_error=False, refresh=True))
        return [*seen, (await client.count(index=side.fresh)).body]


async def searches(side: Side) -> Any:
    """Many at once, on as many connections."""
    async with client_of(side) as client:
        queries = [{"match": {"title": word}} for word in ("laptop", "phone", "camera", "tablet", "acme")] * 4
        answers = await asyncio.gather(*(client.search(index=side.index, query=query, size=5) for query in queries))
        return [[headers(answer.meta.headers), answer.body] for answer in answers]


async def scan(side: Side) -> Any:
    async with client_of(side) as client:
        hits = helpers.async_scan(client, index=side.index, query={"query": LAPTOP}, size=3)
        return sorted([[hit["_id"], hit["_source"]] async for hit in hits])


async def errors(side: Side) -> Any:
    seen = []
    async with client_of(side) as client:
        await client.create(index=side.fresh, id="1", document={"n": 1})
        for call in (
            client.get(index=side.fresh, id="none"),
            client.create(index=side.fresh, id="1", document={"n": 1}),
            client.search(index=side.index, query={"no_such_query": {}}),
            client.search(index="no-such-index", query=LAPTOP),
        ):
            try:
                await call
            except ApiError as error:
                seen.append([type(error).__name__, error.status_code, error.body, headers(error.meta.headers)])
    demand(
        ["NotFoundError", "ConflictError", "BadRequestError", "NotFoundError"] == [each[0] for each in seen], f"{seen}"
    )
    return seen


async def dsl(side: Side) -> Any:
    """Aggregations and every page by the DSL."""
    async with client_of(side) as client:
        search = AsyncSearch(using=client, index=side.index).query("match", description="sound").sort("price")
        search.aggs.bucket("brands", "terms", field="brand")
        found = await search[:4].execute()
        pages = [hit.to_dict() async for hit in search[:4].iterate()]
        scanned = sorted([hit.title async for hit in search.scan()])
        return [found.to_dict(), pages, scanned, await search.count()]


async def searched(side: Side) -> Any:
    async with client_of(side) as client:
        answer = await client.search(index=side.index, query=LAPTOP, size=40)
        if side.through:
            equal("reranked", answer.meta.headers.get("x-rerank"))
        return [[hit["_id"], hit["_source"]] for hit in answer["hits"]["hits"]]


async def searched_by_dsl(side: Side) -> Any:
    async with client_of(side) as client:
        found = await AsyncSearch(using=client, index=side.index).query("match", title="laptop")[:40].execute()
        return [[hit.meta.id, hit.to_dict()] for hit in found]


async def searched_at_once(side: Side) -> Any:
    """One search many times at once is one ranking."""
    async with client_of(side) as client:
        asked = [client.search(index=side.index, query=LAPTOP, size=40) for _ in range(10)]
        rankings = [plain(answer.body)["hits"] for answer in await asyncio.gather(*asked)]
    for ranking in rankings:
        equal(rankings[0], ranking)
    return [[hit["_id"], hit["_source"]] for hit in rankings[0]["hits"]]


def fails(bench: Bench) -> None:
    asyncio.run(_fails(bench))


async def _fails(bench: Bench) -> None:
    """An engine that is away is 502 after the client's own attempts; one that is silent runs into its limit."""
    async with AsyncElasticsearch(bench.away_url) as client:
        try:
            await client.info()
        except ApiError as error:
            equal(502, error.status_code)
    for url in (bench.silent_engine_url, bench.silent_url):
        async with AsyncElasticsearch(url, request_timeout=0.2, max_retries=0) as client:
            try:
                await client.info()
            except ConnectionTimeout:
                continue
            demand(fulfilled=False, otherwise=f"{url} answered")


SCENARIOS: dict[str, Scenario] = {
    **{see.__name__: same(later(see)) for see in (product, bulk, searches, scan, errors, dsl)},
    **{f"{see.__name__}_in_route": same(later(see), routed=True) for see in (product, bulk, scan, errors, dsl)},
    **{see.__name__: reranked(later(see)) for see in (searched, searched_by_dsl, searched_at_once)},
    fails.__name__: fails,
}

if __name__ == "__main__":
    main(SCENARIOS)
