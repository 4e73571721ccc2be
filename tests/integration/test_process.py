"""`rerank-proxy serve` as a process: it stops gracefully, writes one line for each search, and keeps secrets."""

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


async def test_finishes_what_is_running(
    settings: dict[str, Any], shop: Shop, models: ShopModels, tmp_path: Path
) -> None:
    """SIGTERM closes the door, lets the search inside have its answer, and ends the process without an error."""
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


async def test_line_of_a_search(settings: dict[str, Any], shop: Shop, tmp_path: Path) -> None:
    """Each search that matches a route has one line, others have none; the id is the client's own."""
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


async def test_shadow_mode(
    settings: dict[str, Any], engine_url: str, shop: Shop, models: ShopModels, tmp_path: Path
) -> None:
    """The client has the engine's response while the model still works; the line says what would have changed."""
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
async def test_secrets(
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


async def test_no_token(engine_url: str, tmp_path: Path) -> None:
    """With a route that needs remote models and no token, `serve` refuses to start and names the variable."""
    file = tmp_path / "config.yaml"
    file.write_text(f"engine: {{url: '{engine_url}'}}\nroutes: [{{index: 'shop*'}}]\n")
    command = await begun("serve", "-c", str(file))
    assert await command.ended()
    assert "DEEPINFRA_TOKEN" in "".join(command.lines)


async def test_no_routes(engine_url: str, shop: Shop, tmp_path: Path) -> None:
    """Without routes it is a plain proxy."""
    async with serving(tmp_path, {"engine": {"url": engine_url}}) as (_, url):
        request = Request("POST", f"/{shop.index}/_search?filter_path=hits", BODY)
        assert (await send(engine_url, request)).body == (await send(url, request)).body
