"""Under pressure a search has fewer candidates, its later pages fit it all the same, and the rest is skipped."""

import asyncio

import msgspec
import pytest

from proxy.ranking.load import narrowed, reserved_seconds
from proxy.settings.config import Config
from tests.conftest import StartProxy
from tests.fakes import Client, Document, FakeEngine, FakeModels, Message, ids, waits_for


@pytest.mark.parametrize(
    ("window", "pressure", "expected"),
    [
        (200, 0.0, 200),
        (200, 0.69, 200),
        (200, 0.7, 100),
        (200, 0.85, 50),
        (200, 1.0, 20),
        (200, 9.0, 20),
        (50, 0.84, 50),
        (50, 1.0, 20),
        (10, 9.0, 10),
    ],
)
def test_the_window_shrinks_in_steps_under_load(window: int, pressure: float, expected: int) -> None:
    assert expected == narrowed(window, pressure)


@pytest.mark.parametrize(("usual", "expected"), [(None, 0.75), (0.2, 0.3), (0.4, 0.6), (0.5, 0.75), (9.0, 0.75)])
def test_a_share_of_the_budget_is_reserved_for_the_reranker(usual: float | None, expected: float) -> None:
    assert pytest.approx(expected) == reserved_seconds(1.5, usual)


MANY = [Document(f"d{number:02}", f"Laptop {number}", lexical=100.0 - number) for number in range(60)]
QUERY = {"query": {"match": {"title": "laptop"}}, "size": 10}


@pytest.fixture
def busy(settings: Config, engine: FakeEngine, models: FakeModels) -> Config:
    """One call at a time, a window of 50, and a reranker that turns the order round."""
    engine.documents = MANY
    models.scores = {document.title: number / 100 for number, document in enumerate(MANY)}
    route = msgspec.structs.replace(settings.routes[0], rank_window_size=50, semantic=None, blend=0)
    limited = msgspec.structs.replace(settings.models, concurrent_calls=1)
    return msgspec.structs.replace(settings, models=limited, routes=(route,))


async def page(client: Client, start: int = 0) -> Message:
    return await client.search("/products/_search", QUERY | {"from": start})


async def test_a_search_under_pressure_has_fewer_candidates_and_its_pages_fit(
    start_proxy: StartProxy, busy: Config, engine: FakeEngine, models: FakeModels
) -> None:
    first = await start_proxy(busy)
    port = first.writer.get_extra_info("peername")[1]
    second = await Client.to(port)
    free = asyncio.Event()
    models.faults["rerank"] = waits_for(free)
    running = asyncio.ensure_future(first.search("/products/_search", {"query": {"match": {"title": "other"}}}))
    await models.until_asked("rerank")
    narrow = asyncio.ensure_future(page(second))
    await engine.until_asked("lexical", 2)
    free.set()
    models.faults.clear()
    found = [ids(await narrow)]
    await running
    assert [50, 20] == [len(asked.json()["documents"]) for asked in models.of("rerank")]
    found += [ids(await page(second, start)) for start in (10, 20, 50)]
    assert 2 == len(models.of("rerank"))  # the pages are of one ranking
    assert [f"d{number:02}" for number in range(19, -1, -1)] == found[0] + found[1]
    assert [f"d{number:02}" for number in range(20, 30)] == found[2]
    assert [f"d{number:02}" for number in range(50, 60)] == found[3]
    second.close()


async def test_a_later_page_without_cached_ranking_uses_the_whole_window(
    start_proxy: StartProxy, busy: Config, engine: FakeEngine, models: FakeModels
) -> None:
    first = await start_proxy(busy)
    second = await Client.to(first.writer.get_extra_info("peername")[1])
    free = asyncio.Event()
    models.faults["rerank"] = waits_for(free)
    running = asyncio.ensure_future(first.search("/products/_search", {"query": {"match": {"title": "other"}}}))
    await models.until_asked("rerank")
    later = asyncio.ensure_future(page(second, 10))
    await engine.until_asked("lexical", 2)
    free.set()
    await asyncio.gather(running, later)
    assert [50, 50] == [len(asked.json()["documents"]) for asked in models.of("rerank")]
    second.close()
