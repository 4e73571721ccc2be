"""Spend and caps of `rerank-proxy serve` as a process before fakes: at the cap, after a restart, on a full disk."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENT_MS
from tests.fakes import Client, FakeEngine, FakeModels, Message, waits_for
from tests.test_serving import ROUTE, Served, served

COST = 2.0**-10
"""US dollars for a call of the reranker."""
AT_CAP = ('degraded;stages="rerank";reason=spend_cap', "bypassed;reason=spend_cap")


def capped(folder: Path, usd: float, **spend: Any) -> dict[str, Any]:
    """Return the settings of a day's cap."""
    route = ROUTE | {"budget_ms": PATIENT_MS, "spend": {"max_usd_per_day": usd}}
    return {"routes": [route], "spend": {"file": str(folder / "spend.json"), **spend}}


async def search(client: Client, text: str) -> Message:
    return await client.search("/products/_search", {"query": {"match": {"title": f"laptop {text}"}}})


async def outcomes(proxy: Served, *texts: str) -> list[str]:
    return [(await search(proxy.client, text)).header("x-rerank") for text in texts]


@pytest.fixture(autouse=True)
def _charging(models: FakeModels) -> None:
    models.cost = COST


async def test_at_a_cap_searches_have_the_engines_order_even_after_a_restart(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    settings = capped(tmp_path, 2.5 * COST)
    async with served(tmp_path, engine, models, more=settings) as proxy:
        assert ["reranked", "reranked", AT_CAP[0]] == await outcomes(proxy, "a", "b", "c")
        costs = (await proxy.ask("GET", "/costs")).json()
        assert [2 * COST, 2] == [costs["days"][0]["usd"], costs["days"][0]["calls"]]
    async with served(tmp_path, engine, models, more=settings) as proxy:
        assert [AT_CAP[0]] == await outcomes(proxy, "d")
        metrics = (await proxy.ask("GET", "/metrics")).content.decode()
        assert 'rerank_proxy_spend_cap_share{route="products*"} 0.8' in metrics
        assert 'rerank_proxy_searches_total{outcome="degraded",reason="spend_cap",route="products*"} 1.0' in metrics
    assert 2 == len(models.of("rerank"))


async def test_above_a_cap_no_model_call_and_no_search_is_added(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    async with served(tmp_path, engine, models, more=capped(tmp_path, 1.5 * COST)) as proxy:
        models.cost = 2 * COST
        assert ["reranked", AT_CAP[1]] == await outcomes(proxy, "a", "b")
        said = [json.loads(line) for line in proxy.command.lines if "spend_cap" in line]
    assert 1 == len(models.of("rerank"))
    assert [] == [line for line in said if line["log.level"] == "error"]


async def test_near_a_cap_only_caches_are_used(tmp_path: Path, engine: FakeEngine, models: FakeModels) -> None:
    async with served(tmp_path, engine, models, more=capped(tmp_path, 2.05 * COST)) as proxy:
        assert ["reranked", "reranked"] == await outcomes(proxy, "a", "b")
        assert ["reranked", AT_CAP[0]] == await outcomes(proxy, "a", "c")
        costs = (await proxy.ask("GET", "/costs")).json()
    assert (2, 2 * COST) == (len(models.of("rerank")), costs["days"][0]["usd"])
    assert costs["days"][0]["saved_tokens"] > 0


async def test_concurrent_searches_do_not_exceed_a_cap_together(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    count, affordable = 40, 4
    settings = capped(tmp_path, (affordable + 1.5) * COST)
    settings["models"] = {"url": models.url, "rerank_timeout_seconds": 60, "canary": False}
    async with served(tmp_path, engine, models, more=settings) as proxy:
        assert ["reranked"] == await outcomes(proxy, "first")
        held, ended = asyncio.Event(), asyncio.Semaphore(0)
        models.faults["rerank"] = waits_for(held)

        async def one(number: int) -> str:
            client = await Client.to(proxy.port)
            try:
                return (await search(client, f"number{number}")).header("x-rerank")
            finally:
                client.close()
                ended.release()

        asking = [asyncio.ensure_future(one(number)) for number in range(count)]
        for _ in range(count - affordable):
            await ended.acquire()
        await models.until_asked("rerank", 1 + affordable)
        assert 1 + affordable == len(models.of("rerank"))
        held.set()
        found = await asyncio.gather(*asking)
    assert affordable == found.count("reranked")
    assert {"reranked"} | set(AT_CAP) >= set(found)


async def test_a_full_disk_causes_a_warning_but_no_failed_search(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    new = tmp_path / "spend.json.new"
    new.symlink_to("/dev/full")
    async with served(tmp_path, engine, models, more=capped(tmp_path, 1.0)) as proxy:
        assert ["reranked"] == await outcomes(proxy, "a")
        assert "No space left" in json.loads(await proxy.command.until("spend_not_saved"))["message"]
        assert ["reranked"] == await outcomes(proxy, "b")
        new.unlink()
    rows = json.loads((tmp_path / "spend.json").read_bytes())["rows"]
    assert 2 * COST == rows[0]["spent"]["usd"]


async def test_a_corrupt_state_file_is_reported_and_renamed(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    (tmp_path / "spend.json").write_bytes(b"\0\0")
    async with served(tmp_path, engine, models, more=capped(tmp_path, 1.0)) as proxy:
        assert ["reranked"] == await outcomes(proxy, "a")
        (said,) = [event for event in proxy.command.events if event["log.level"] == "error"]
    aside = said["message"].partition("It is now ")[2].partition(";")[0]
    assert ("spend_state_corrupt", True) == (said["event.action"], aside.startswith("spend.json.corrupt-"))
    assert b"\0\0" == (tmp_path / aside).read_bytes()
