"""Bad days on real processes: models that fail in every way, reloads, the kill switch, and recovery.

Draining and shadow mode are in `test_process`.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from tests.fakes import refuses, waits_for
from tests.integration.commands import Running, running
from tests.integration.conftest import Shop, route
from tests.integration.models import ShopModels
from tests.integration.sending import JSON, Reply, Request, send
from tests.test_fault_matrix import BOTH_MODELS, EMBEDDER, RERANKER, Row

pytestmark = pytest.mark.engine

STAGES = {"embed": "semantic", "rerank": "rerank"}
SERVICES = {"embed": "embedder", "rerank": "reranker"}
ROWS: Mapping[str, Mapping[str, Row]] = {
    "embed": {**BOTH_MODELS, **EMBEDDER},
    "rerank": {**BOTH_MODELS, **{name: row for name, row in RERANKER.items() if name != "equal scores"}},
}
"""Equal scores are told for as many passages as the fakes have."""


@dataclass
class Serving:
    """A running proxy, its settings file, and the addresses of its two ports."""

    command: Running
    file: Path
    url: str
    admin: str
    index: str

    async def search(self, words: str, *, name: str = "") -> Reply:
        body = json.dumps({"query": {"match": {"title": words}}}).encode()
        return await send(self.url, Request("POST", f"/{self.index}/_search", body, {**JSON, "X-Opaque-Id": name}))

    async def operate(self, path: str) -> None:
        assert 200 == (await send(self.admin, Request("POST", path, headers={}))).status

    async def reload(self, settings: Any) -> str:
        """Write other settings, and return the line that says what came of them."""
        self.file.write_bytes(settings if isinstance(settings, bytes) else msgspec.yaml.encode(settings))
        self.command.process.send_signal(signal.SIGHUP)
        return await self.command.until('"reloaded"', '"reload_failed"')


@pytest.fixture
def settings(engine_url: str, shop: Shop, models: ShopModels) -> dict[str, Any]:
    calls = {"embed_timeout_seconds": 5, "rerank_timeout_seconds": 5, "connect_timeout_seconds": 5, "canary": False}
    return {
        "listen": {"port": 0},
        "admin": {"port": 0},
        "engine": {"url": engine_url, "resolve_timeout_seconds": 20},
        "models": {"url": models.url, **calls},
        "routes": [route(shop.index)],
    }


@asynccontextmanager
async def started(folder: Path, settings: Mapping[str, Any], index: str) -> AsyncIterator[Serving]:
    file = folder / "config.yaml"
    file.write_bytes(msgspec.yaml.encode(settings))
    async with running("serve", "-c", str(file)) as command:
        said = json.loads(await command.until("listening"))
        yield Serving(command, file, said["address"], said["admin"], index)


def line_of(serving: Serving, name: str) -> Any:
    return next(event for event in serving.command.events if event.get("http.request.id") == name)


@pytest.mark.parametrize("kind", ROWS)
async def test_each_model_fault_leaves_the_best_remaining_order(
    kind: str, settings: dict[str, Any], shop: Shop, models: ShopModels, tmp_path: Path
) -> None:
    """The client gets 200 with the hits and the reason; the log has the provider's own message."""
    async with started(tmp_path, settings, shop.index) as serving:
        assert "reranked" == (await serving.search("laptop")).outcome
        for number, (name, row) in enumerate(ROWS[kind].items()):
            models.faults = {kind: row.fault}
            reply = await serving.search(f"laptop {number}", name=name)
            models.faults = {}
            assert (200, f'degraded;stages="{STAGES[kind]}";reason={row.reason}') == (reply.status, reply.outcome), name
            assert reply.hits
            for action in ("close", "auto"):  # the next row finds a breaker that knows of no failure
                await serving.operate(f"/breakers/{action}?name={await breaker(serving, kind)}")
        assert "reranked" == (await serving.search("laptop 99")).outcome
        serving.command.process.terminate()
        await serving.command.ended()
    for name, row in ROWS[kind].items():
        line = line_of(serving, name)
        assert ("degraded", row.reason) == (line["outcome"], line["reason"])
        assert name not in BOTH_MODELS or row.words.removesuffix(" in 0.1 s") in line["message"]


async def breaker(serving: Serving, kind: str) -> str:
    """Return the name of the breaker of a service's model, as the admin port wants it."""
    states = (await send(serving.admin, Request("GET", "/breakers", headers={}))).json
    return quote(next(name for name in states if name.startswith(SERVICES[kind])))


async def test_a_reload_applies_to_new_searches_and_an_invalid_file_changes_nothing(
    settings: dict[str, Any], shop: Shop, models: ShopModels, tmp_path: Path
) -> None:
    go_on = asyncio.Event()
    async with started(tmp_path, settings, shop.index) as serving:
        await serving.search("laptop")
        models.faults = {"rerank": waits_for(go_on)}
        settings["models"]["rerank_timeout_seconds"] = 60
        assert "reloaded" in await serving.reload(settings)
        searching = asyncio.ensure_future(serving.search("laptop 1"))
        await models.until_asked("rerank", 2)
        off = {**settings, "routes": [route(shop.index, mode="off")]}
        assert '"reloaded"' in await serving.reload(off)
        assert "bypassed;reason=route_off" == (await serving.search("laptop 2")).outcome
        failed = await serving.reload(b"routes: [")
        assert "config.yaml:1: invalid YAML" in failed
        assert "bypassed;reason=route_off" == (await serving.search("laptop 3")).outcome
        go_on.set()
        assert "reranked" == (await searching).outcome, "what has begun ends as it began"
        assert '"reloaded"' in await serving.reload(settings)
        assert "reranked" == (await serving.search("laptop 4")).outcome


async def test_the_kill_switch_returns_the_engines_response(
    settings: dict[str, Any], engine_url: str, shop: Shop, models: ShopModels, tmp_path: Path
) -> None:
    async with started(tmp_path, settings, shop.index) as serving:
        assert "reranked" == (await serving.search("laptop")).outcome
        asked = len(models.requests)
        await serving.operate("/reranking/off")
        through = await serving.search("laptop")
        straight = await send(
            engine_url, Request("POST", f"/{shop.index}/_search", b'{"query": {"match": {"title": "laptop"}}}')
        )
        assert ("bypassed;reason=switched_off", straight.hits) == (through.outcome, through.hits)
        assert asked == len(models.requests)
        await serving.operate("/reranking/on")
        assert "reranked" == (await serving.search("laptop")).outcome


async def test_a_recovered_model_is_found_by_a_probe(
    settings: dict[str, Any], shop: Shop, models: ShopModels, tmp_path: Path
) -> None:
    """Without any action: an open breaker lets one call through after some seconds."""
    models.faults = {"rerank": refuses(500, b'{"detail":"out of memory"}')}
    async with started(tmp_path, settings, shop.index) as serving:
        outcomes = [(await serving.search(f"laptop {number}")).outcome for number in range(12)]
        assert {'degraded;stages="rerank";reason=server_error'} == set(outcomes[:2])
        assert 'degraded;stages="rerank";reason=breaker_open' == outcomes[-1]
        models.faults = {}
        numbers = iter(range(100, 10**6))
        async with asyncio.timeout(60):
            while (await serving.search(f"laptop {next(numbers)}")).outcome != "reranked":
                pass
        assert "reranked" == (await serving.search("laptop 99")).outcome
        serving.command.process.terminate()
        await serving.command.ended()
    said = [event["event.action"] for event in serving.command.events]
    assert said.index("breaker_open") < said.index("model_available")
