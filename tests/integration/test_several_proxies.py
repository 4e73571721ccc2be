"""Proxies that share a Redis serve each other's pages: no hit twice, none missing, no model call."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Open, Sides
from tests.integration.engines import EVERYWHERE
from tests.integration.models import ShopModels
from tests.redis_server import needs_redis, redis_server

pytestmark = [pytest.mark.engine, EVERYWHERE, needs_redis]

QUERY = {"multi_match": {"query": "laptop for children", "fields": ["title", "description"]}}


@pytest.fixture
async def proxies(tmp_path: Path, open_sides: Open) -> AsyncIterator[list[Sides]]:
    async with redis_server(tmp_path) as server:
        cache = {"redis_url": f"redis://127.0.0.1:{server.port}", "redis_timeout_ms": 20_000}
        yield [await open_sides(rank_window_size=8, sections={"cache": cache}) for _ in range(2)]


async def page(sides: Sides, start: int, size: int, body: Any) -> Any:
    reply = await sides.through.search(body | {"query": QUERY, "from": start, "size": size})
    assert "reranked" == reply.outcome
    return reply.json["hits"]["hits"]


@pytest.mark.parametrize(
    "body",
    [{}, {"collapse": {"field": "brand"}}, {"ext": {"rerank_proxy": {"explain": True}}}],
    ids=["plain", "collapsed", "explained"],
)
async def test_two_proxies_serve_pages_of_one_ranking(
    proxies: list[Sides], models: ShopModels, body: dict[str, Any]
) -> None:
    """Within the window and beyond it."""
    whole = await page(proxies[0], 0, 100, body)
    asked, seen = len(models.requests), []
    for number in range(1 + len(whole) // 3):
        found = await page(proxies[number % 2], 3 * number, 3, body) if number else whole[:3]
        seen += found
    assert whole == seen
    assert asked == len(models.requests)
