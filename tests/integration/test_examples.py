"""The examples do what their page says, through the proxy and on a real engine."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from html import unescape
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import pytest
from elasticsearch import Elasticsearch

from examples import product_page, rag_retriever, two_stage_after, two_stage_before
from tests.integration import shop as catalogue
from tests.integration.conftest import Shop, Start, route
from tests.integration.models import ShopModels
from tests.integration.sending import Request, send

pytestmark = pytest.mark.engine

QUERY = "laptop for video editing"
PASSAGE = list(two_stage_before.PASSAGE)
T = TypeVar("T")


async def run(work: Callable[[], T]) -> T:
    """Run what blocks beside the proxy, which is in this loop."""
    return await asyncio.to_thread(work)


@pytest.fixture
async def client(start: Start, shop: Shop) -> AsyncIterator[Elasticsearch]:
    """The official client, at a proxy with a route on the shop."""
    with Elasticsearch(await start(route(shop.index, passage=PASSAGE))) as client:
        yield client


@pytest.mark.parametrize("category", [None, "laptop"])
@pytest.mark.parametrize("page", [0, 1])
async def test_the_two_stage_class_needs_one_call_for_the_same_order(
    category: str | None, page: int, client: Elasticsearch, engine_url: str, models: ShopModels, shop: Shop
) -> None:
    after = two_stage_after.ProductSearch(client, shop.index)
    found = await run(lambda: after.search(QUERY, category=category, page=page, size=4))
    with Elasticsearch(engine_url) as straight:
        before = two_stage_before.ProductSearch(straight, models.url, shop.index, dimensions=8)
        expected = await run(lambda: before.search(QUERY, category=category, page=page, size=4))
    assert expected
    assert [(hit["_id"], hit["_source"]) for hit in expected] == [(hit["_id"], hit["_source"]) for hit in found]


async def test_the_retriever_returns_the_best_passages_and_their_ranks(
    client: Elasticsearch, models: ShopModels, shop: Shop
) -> None:
    models.score = lambda document: float("film and sound" in document)
    retriever = rag_retriever.Retriever(client, shop.index)
    retrieved = await run(lambda: retriever.retrieve(QUERY, limit=3))
    assert "reranked" == retrieved.outcome
    assert 3 == len(retrieved.passages)
    assert "film and sound" in retrieved.passages[0].text
    asked = rag_retriever.prompt(QUERY, retrieved.passages)
    assert f"[1] {retrieved.passages[0].text}" in asked
    assert asked.endswith(f"Question: {QUERY}")


async def test_the_retriever_works_while_the_models_fail(
    client: Elasticsearch, models: ShopModels, shop: Shop, engine_url: str
) -> None:
    await models.__aexit__()
    retrieved = await run(lambda: rag_retriever.Retriever(client, shop.index).retrieve(QUERY))
    assert retrieved.outcome.startswith("degraded")
    with Elasticsearch(engine_url) as straight:
        own = await run(lambda: rag_retriever.Retriever(straight, shop.index).retrieve(QUERY))
    assert own.passages == retrieved.passages


@pytest.fixture
def page(client: Elasticsearch, shop: Shop) -> Iterator[str]:
    """The address of a running product page."""
    with product_page.server(product_page.Shop(client, shop.index), 0) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


async def read(page: str, **asked: str) -> str:
    reply = await send(page, Request("GET", f"/?{urlencode(asked)}"))
    assert 200 == reply.status
    return reply.body.decode()


def titles(html: str) -> list[str]:
    (listed,) = re.findall(r"<ol[^>]*>(.*)</ol>", html)
    return [unescape(title) for title in re.findall(r"<li>(.*?) <small>", listed)]


async def test_the_product_page_is_reranked_by_relevance_but_not_by_price(page: str) -> None:
    by_relevance, by_price = await read(page, text=QUERY), await read(page, text=QUERY, order="price")
    assert "X-Rerank: reranked" in by_relevance
    assert "X-Rerank: bypassed;reason=sort" in by_price
    prices = {product["title"]: product["price"] for product in catalogue.PRODUCTS.values()}
    assert sorted(prices[title] for title in titles(by_price)) == [prices[title] for title in titles(by_price)]


async def test_the_product_pages_add_up_to_the_whole(page: str) -> None:
    seen: list[str] = []
    link = f"?{urlencode({'text': QUERY})}"
    while link:
        reply = await send(page, Request("GET", f"/{link}"))
        html = reply.body.decode()
        seen += titles(html)
        link = unescape((re.findall(r'<a href="([^"]*)">next page', html) or [""])[0])
    assert len(seen) == len(set(seen)) > product_page.SIZE


async def test_a_selected_facet_narrows_the_page_and_stays_selectable(page: str) -> None:
    html = await read(page, text=QUERY, category="phone")
    assert titles(html)
    assert {title.split()[1] for title in titles(html)} <= {"phone", "handset"}
    facets = dict(re.findall(r">(\w+) \((\d+)\)</a>", html))
    assert facets.keys() > {"phone"}


async def test_the_typed_text_is_escaped(page: str) -> None:
    html = await read(page, text="<script>laptop", category='"><b>')
    assert "<script>" not in html
    assert "<b>" not in html


@pytest.mark.parametrize("asked", [{"order": "size"}, {"page": "-1"}])
async def test_an_invalid_page_number_is_rejected(asked: dict[str, str], page: str) -> None:
    reply = await send(page, Request("GET", f"/?{urlencode(asked)}"))
    assert 400 == reply.status
    assert urlsplit(page).hostname == "127.0.0.1"
