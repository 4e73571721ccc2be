"""OpenSearch's own client as asynchronous programs use it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from opensearchpy import AsyncOpenSearch, TransportError
from opensearchpy.exceptions import ConnectionTimeout
from opensearchpy.helpers import async_bulk, async_scan, async_streaming_bulk

from tests.clients.python.sides import Bench, Scenario, Side, demand, equal, later, main, plain, reranked, same

LAPTOP = {"match": {"title": "laptop"}}


@asynccontextmanager
async def client_of(side: Side, **options: Any) -> AsyncIterator[AsyncOpenSearch]:
    async with AsyncOpenSearch(side.url, **options) as client:
        yield client


async def product(side: Side) -> Any:
    async with client_of(side) as client:
        return [await client.info(), await client.ping()]


def _actions(side: Side) -> Iterator[dict[str, Any]]:
    for number in range(120):
        yield {"_index": side.fresh, "_id": str(number), "n": number, "text": f"number {number} " * 20}


async def bulk(side: Side) -> Any:
    async with client_of(side, http_compress=True) as client:
        seen: list[Any] = [await async_bulk(client, _actions(side), chunk_size=50, refresh=True)]
        streamed = async_streaming_bulk(client, _actions(side), chunk_size=30)
        seen.append(sorted([[ok, item["index"]["_id"], item["index"]["_version"]] async for ok, item in streamed]))
        bad = [{"_index": side.fresh, "_id": "bad", "n": "no number"}]
        seen.append(await async_bulk(client, bad, raise_on_error=False, refresh=True))
        return [*seen, await client.count(index=side.fresh)]


async def searches(side: Side) -> Any:
    """Many at once, on as many connections."""
    async with client_of(side) as client:
        bodies = [{"query": {"match": {"title": word}}, "size": 5} for word in ("laptop", "phone", "camera")] * 6
        return list(await asyncio.gather(*(client.search(index=side.index, body=body) for body in bodies)))


async def scan(side: Side) -> Any:
    async with client_of(side) as client:
        hits = async_scan(client, index=side.index, query={"query": LAPTOP}, size=3)
        return sorted([[hit["_id"], hit["_source"]] async for hit in hits])


async def errors(side: Side) -> Any:
    seen = []
    async with client_of(side) as client:
        await client.create(index=side.fresh, id="1", body={"n": 1})
        for call in (
            client.get(index=side.fresh, id="none"),
            client.create(index=side.fresh, id="1", body={"n": 1}),
            client.search(index=side.index, body={"query": {"no_such_query": {}}}),
            client.search(index="no-such-index", body={"query": LAPTOP}),
        ):
            try:
                await call
            except TransportError as error:
                seen.append([type(error).__name__, error.status_code, error.error, error.info])
    demand(["NotFoundError", "ConflictError", "RequestError", "NotFoundError"] == [each[0] for each in seen], f"{seen}")
    return seen


async def searched(side: Side) -> Any:
    async with client_of(side) as client:
        found = await client.search(index=side.index, body={"query": LAPTOP, "size": 40})
        return [[hit["_id"], hit["_source"]] for hit in found["hits"]["hits"]]


async def searched_at_once(side: Side) -> Any:
    """One search many times at once is one ranking."""
    async with client_of(side) as client:
        asked = [client.search(index=side.index, body={"query": LAPTOP, "size": 40}) for _ in range(10)]
        rankings = [plain(answer)["hits"] for answer in await asyncio.gather(*asked)]
    for ranking in rankings:
        equal(rankings[0], ranking)
    return [[hit["_id"], hit["_source"]] for hit in rankings[0]["hits"]]


def fails(bench: Bench) -> None:
    asyncio.run(_fails(bench))


async def _fails(bench: Bench) -> None:
    """An engine that is away is 502 after the client's own attempts; one that is silent runs into its limit."""
    async with AsyncOpenSearch(bench.away_url) as client:
        try:
            await client.info()
        except TransportError as error:
            equal(502, error.status_code)
    for url in (bench.silent_engine_url, bench.silent_url):
        async with AsyncOpenSearch(url, timeout=0.2, max_retries=0) as client:
            try:
                await client.info()
            except ConnectionTimeout:
                continue
            demand(fulfilled=False, otherwise=f"{url} answered")


SCENARIOS: dict[str, Scenario] = {
    **{see.__name__: same(later(see)) for see in (product, bulk, searches, scan, errors)},
    **{f"{see.__name__}_in_route": same(later(see), routed=True) for see in (product, bulk, scan, errors)},
    **{see.__name__: reranked(later(see)) for see in (searched, searched_at_once)},
    fails.__name__: fails,
}

if __name__ == "__main__":
    main(SCENARIOS)
