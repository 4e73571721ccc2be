"""`rerank-proxy serve` as a process: it shuts down gracefully, writes one log line per search, and keeps secrets."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import waits_for
from tests.integration.commands import begun, serving
from tests.integration.conftest import Shop, route
from tests.integration.models import ShopModels
from tests.integration.sending import JSON, Request, send

pytestmark = pytest.mark.engine

BODY = b'{"query":{"match":{"title":"laptop"}}}'
SECRETS = {"Authorization": "Basic c2VjcmV0OnNlY3JldA=="}
TOKEN = {"DEEPINFRA_TOKEN": "the-token-of-the-models"}


@pytest.fixture
def settings(engine_url: str, shop: Shop, models: ShopModels) -> dict[str, Any]:
    return {"engine": {"url": engine_url}, "models": {"url": models.url}, "routes": [route(shop.index)]}


async def test_sigterm_finishes_running_searches(
    settings: dict[str, Any], shop: Shop, models: ShopModels, tmp_path: Path
) -> None:
    """New connections are refused, the running search gets its response, and the exit code is 0."""
    go_on = asyncio.Event()
    models.faults = {"rerank": waits_for(go_on)}
    async with serving(tmp_path, settings) as (command, url):
        searching = asyncio.ensure_future(send(url, Request("POST", f"/{shop.index}/_search", BODY)))
        await models.until_asked("rerank")
        command.process.terminate()
        await command.until("stopping")
        with pytest.raises(ConnectionRefusedError):
            await send(url, Request("GET", "/", headers={}))
        go_on.set()
        assert ("reranked", 0) == ((await searching).outcome, await command.ended())


async def test_each_search_of_a_route_has_one_log_line(settings: dict[str, Any], shop: Shop, tmp_path: Path) -> None:
    """Others have none; the id is the client's own."""
    async with serving(tmp_path, settings, TOKEN) as (command, url):
        ours, others = f"/{shop.index}/_search", f"/{shop.plain}/_search"
        await send(url, Request("POST", ours, BODY, {**JSON, "X-Opaque-Id": "mine-1"}))
        await send(url, Request("POST", others, BODY))
        await send(url, Request("POST", ours, b'{"size":0}'))
        command.process.terminate()
        await command.ended()
    lines = [event for event in command.events if event["event.action"] == "search"]
    assert [("reranked", None), ("bypassed", "size_zero")] == [(line["outcome"], line.get("reason")) for line in lines]
    assert ("mine-1", f"{shop.index}*", 50) == tuple(lines[0][name] for name in ("http.request.id", "route", "window"))
    assert {"lexical", "embed", "semantic", "render", "rerank", "total"} <= lines[0]["ms"].keys()


async def test_shadow_mode_returns_the_engines_response_at_once(
    settings: dict[str, Any], engine_url: str, shop: Shop, models: ShopModels, tmp_path: Path
) -> None:
    """The model still works then; the log line says what would have changed."""
    go_on = asyncio.Event()
    models.faults = {"rerank": waits_for(go_on)}
    routes = [route(shop.index, mode="shadow", share="100%")]
    async with serving(tmp_path, {**settings, "routes": routes}, TOKEN) as (command, url):
        request = Request("POST", f"/{shop.index}/_search", BODY, {**JSON, **SECRETS})
        through, straight = await send(url, request), await send(engine_url, request)
        assert ("bypassed;reason=shadow", straight.hits) == (through.outcome, through.hits)
        await models.until_asked("rerank")
        go_on.set()
        await command.until('"search"')
        command.process.terminate()
        await command.ended()
    (line,) = [event for event in command.events if event["event.action"] == "search"]
    shadow = line["shadow"]
    assert ("bypassed", "shadow", "reranked") == (line["outcome"], line["reason"], shadow["outcome"])
    assert 0 <= shadow["overlap_at_10"] <= 1
    assert {"lexical", "embed", "semantic", "rerank", "total"} <= shadow["ms"].keys()
    assert "c2VjcmV0" not in "".join(command.lines)


@pytest.mark.parametrize("named", [False, True])
async def test_secrets_reach_neither_models_nor_the_log(
    *, named: bool, settings: dict[str, Any], shop: Shop, models: ShopModels, tmp_path: Path
) -> None:
    """A client's credentials go to no model, the token goes there alone, and the log has neither.

    The user's words are in it only where the settings say so.
    """
    async with serving(tmp_path, {**settings, "log": {"query_text": named}}, TOKEN) as (command, url):
        reply = await send(url, Request("POST", f"/{shop.index}/_search", BODY, {**JSON, **SECRETS}))
        command.process.terminate()
        await command.ended()
    written = "".join(command.lines)
    told = {request.header("authorization") for request in models.requests if request.method == "POST"}
    assert {""} >= {request.header("authorization") for request in models.requests if request.method == "HEAD"}
    assert ("reranked", {f"Bearer {TOKEN['DEEPINFRA_TOKEN']}"}) == (reply.outcome, told)
    assert (False, False, named) == (
        "c2VjcmV0" in written,
        TOKEN["DEEPINFRA_TOKEN"] in written,
        '"query": "laptop"' in written,
    )


async def test_serve_rejects_a_remote_model_without_a_token(engine_url: str, tmp_path: Path) -> None:
    """It names the variable."""
    file = tmp_path / "config.yaml"
    file.write_text(f"engine: {{url: '{engine_url}'}}\nroutes: [{{index: 'shop*'}}]\n")
    command = await begun("serve", "-c", str(file))
    assert await command.ended()
    assert "DEEPINFRA_TOKEN" in "".join(command.lines)


async def test_without_routes_it_is_a_plain_proxy(engine_url: str, shop: Shop, tmp_path: Path) -> None:
    """Without a token or any model."""
    async with serving(tmp_path, {"engine": {"url": engine_url}}) as (_, url):
        request = Request("POST", f"/{shop.index}/_search?filter_path=hits", BODY)
        assert (await send(engine_url, request)).body == (await send(url, request)).body
