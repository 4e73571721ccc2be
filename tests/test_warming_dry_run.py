"""`rerank-proxy warm --dry-run`: what it says the searches cost, compared with what they then cost."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.commands.warming.dry_run import SAMPLED, ModelCount, WarmingForecast, in_time
from proxy.errors import TimedOut
from proxy.upstream.spending.prices import Prices, embed_tokens
from tests.conftest import PATIENT_MS
from tests.fakes import MODEL, FakeEngine, FakeModels, closed_port, refuses
from tests.integration.commands import begun
from tests.redis_server import RedisServer, needs_redis, redis_server
from tests.test_serving import ROUTE, served

RERANKER = "Qwen/Qwen3-Reranker-4B"
SEMANTIC = {"field": "embedding", "dimensions": 3}
KEY = {"RERANK_PROXY_CACHE_KEY": "k" * 32}


def route(**more: Any) -> dict[str, Any]:
    return ROUTE | {"budget_ms": PATIENT_MS, "rank_window_size": 10} | more


def match(text: str) -> Any:
    return {"query": {"match": {"title": text}}}


async def warm(folder: Path, searches: Sequence[Any], *options: str) -> tuple[int, str]:
    file = folder / "bodies.ndjson"
    file.write_text("\n".join(map(json.dumps, searches)))
    command = await begun("warm", str(file), "--index", "products", *options, environment=KEY)
    return await command.ended(), "".join(command.lines)


async def dry_run(
    folder: Path, engine: FakeEngine, models: FakeModels, searches: Sequence[Any], *options: str, **more: Any
) -> tuple[int, str]:
    """Run it with these settings, without a proxy."""
    file = folder / "dry.yaml"
    file.write_bytes(msgspec.yaml.encode(settings(engine, models, **more)))
    return await warm(folder, searches, "--dry-run", "-c", str(file), *options)


def settings(engine: FakeEngine, models: FakeModels, **more: Any) -> dict[str, Any]:
    prices = {RERANKER: 1000.0, MODEL: 1000.0}
    return {
        "listen": {"port": 0},
        "admin": {"port": 0},
        "engine": {"url": engine.url, "resolve_timeout_seconds": 30},
        "models": {"url": models.url, "canary": False},
        "routes": [route()],
        "spend": {"prices": prices},
        **more,
    }


def number(said: str, words: str) -> int:
    """Return the number before some words."""
    found = re.search(rf"([0-9,]+) {words}", said)
    assert found is not None, said
    return int(found[1].replace(",", ""))


async def test_a_dry_run_forecasts_the_calls_without_making_them(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    searches = [match("laptop"), match("laptop sleeve"), match("laptop") | {"sort": ["price"]}]
    code, said = await dry_run(tmp_path, engine, models, searches)
    assert (0, []) == (code, models.requests)
    async with served(tmp_path, engine, models, more=settings(engine, models)) as proxy:
        await warm(tmp_path, searches, "--proxy", f"http://127.0.0.1:{proxy.port}")
        saved = (await proxy.ask("GET", "/costs")).json()["days"][0]
    sent = [asked.json()["documents"] for asked in models.of("rerank")]
    assert sum(map(len, sent)) == number(said, "passages, about")
    assert 2 == saved["calls"]
    assert "3 searches\n2 reranked, 1 bypassed (sort)" in said
    assert number(said, "tokens of Qwen/Qwen3-Reranker-4B") > embed_tokens(text for texts in sent for text in texts)
    assert "no Redis is configured" in said
    assert re.search(r"at most about \$\d", said)


async def test_documents_only_knn_would_find_are_assumed(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    code, said = await dry_run(tmp_path, engine, models, [match("laptop")], routes=[route(semantic=SEMANTIC)])
    assert (0, 10, 1, 7) == (
        code,
        number(said, "passages, about"),
        number(said, "query texts, about"),
        number(said, "documents that are assumed"),
    )
    assert "1 reranked" in said
    assert [] == [*models.requests, *engine.of("semantic")]


@needs_redis
async def test_entries_in_redis_cost_nothing_and_none_is_written(
    tmp_path: Path, engine: FakeEngine, models: FakeModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEY.items():
        monkeypatch.setenv(name, value)
    async with redis_server(tmp_path) as redis:
        more: dict[str, Any] = {
            "routes": [route(semantic=SEMANTIC)],
            "cache": {"redis_url": f"redis://127.0.0.1:{redis.port}", "redis_timeout_ms": 20_000},
        }
        async with served(tmp_path, engine, models, more=settings(engine, models, **more)) as proxy:
            assert "reranked" == await proxy.outcome()
        before = await keys(redis)
        code, said = await dry_run(tmp_path, engine, models, [match("laptop"), match("notebook")], **more)
        assert before == await keys(redis)
    assert (0, 1, 1) == (code, number(said, "query texts, about"), len(models.of("rerank")))
    assert "cached in Redis or equal, and not counted: 4 passages, 1 query texts" in said
    assert 10 == number(said, "passages, about")


async def keys(server: RedisServer) -> set[Any]:
    from redis.asyncio import Redis  # noqa: PLC0415  only where it is installed

    async with Redis(port=server.port) as client:
        return {key for key in await client.keys() if await client.pttl(key) > 1000}


async def test_a_sample_of_many_searches_is_run(tmp_path: Path, engine: FakeEngine, models: FakeModels) -> None:
    count = 2 * SAMPLED
    code, said = await dry_run(tmp_path, engine, models, [match(f"laptop {number}") for number in range(count)])
    assert (0, SAMPLED, 3 * count) == (code, len(engine.of("lexical")), number(said, "passages, about"))
    assert f"{count} searches; {SAMPLED} were run, and the others counted alike\n{count} reranked" in said


async def test_an_unreachable_engine_is_an_error(tmp_path: Path, engine: FakeEngine, models: FakeModels) -> None:
    nowhere = f"http://127.0.0.1:{closed_port()}"
    code, said = await dry_run(tmp_path, engine, models, [match("laptop")], "--engine", nowhere)
    assert (2, True, False) == (code, "the engine cannot be reached" in said, "Traceback" in said)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"routes": [{"index": "other", "passage": ["title"]}]}, "1 not a search of a route"),
        ({"routes": [route(mode="off")]}, "1 bypassed (route_off)"),
    ],
)
async def test_searches_that_are_not_reranked_are_an_error(
    tmp_path: Path, engine: FakeEngine, models: FakeModels, more: Mapping[str, Any], said: str
) -> None:
    code, lines = await dry_run(tmp_path, engine, models, [match("laptop")], **more)
    assert (1, True) == (code, said in lines)
    assert "none of these searches would be reranked" in lines


async def test_a_route_in_shadow_mode_is_paid_for_too(tmp_path: Path, engine: FakeEngine, models: FakeModels) -> None:
    code, said = await dry_run(tmp_path, engine, models, [match("laptop")], routes=[route(mode="shadow")])
    assert (0, 3) == (code, number(said, "passages, about"))


async def test_an_engine_that_rejects_the_searches_is_an_error(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    engine.faults["lexical"] = refuses(403)
    code, said = await dry_run(tmp_path, engine, models, [match("laptop")])
    assert (1, True) == (code, "1 bypassed (engine_refused)" in said)


def test_a_model_without_a_price_is_named() -> None:
    forecast = WarmingForecast(10, 5, "unreachable", 560, passages={"own": ModelCount(3, 300)})
    lines = list(forecast.lines(Prices()))
    assert "6 passages, about 600 tokens of own: its price is not known: set it in `spend.prices`" in lines
    assert "Redis is unreachable, so nothing counts as cached" in lines
    assert lines[-1].startswith("at most about $0.00, without the models that have no price")


def test_assumed_passages_are_like_known_ones_or_of_maximum_length() -> None:
    prices = Prices({"m": 1e6})
    assumed = Counter({"m": 10})
    known = WarmingForecast(1, 1, None, 560, passages={"m": ModelCount(6, 300)}, assumed=assumed, candidates=3)
    unknown = WarmingForecast(1, 1, None, 500, 60, assumed=assumed)
    assert ["26 passages, about 1,300 tokens of m: $1,300.00"] == [*known.lines(prices)][2:3]
    assert ["10 passages, about 5,600 tokens of m: $5,600.00"] == [*unknown.lines(prices)][2:3]


async def test_a_hanging_engine_ends_the_dry_run() -> None:
    with pytest.raises(TimedOut, match=r"engine: no answer to a search in 0\.01 s"):
        await in_time(asyncio.Event().wait(), 0.01)
