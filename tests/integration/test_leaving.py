"""When a client disconnects, the engine's search is cancelled, however it was sent."""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.integration import shop as catalogue
from tests.integration.conftest import Load, Start, route
from tests.integration.engines import RealEngine
from tests.integration.models import ShopModels
from tests.integration.sending import Request, send

pytestmark = pytest.mark.engine

# About a minute of work in all; the engine looks several times in it whether the search is still wanted.
DOCUMENTS = {str(number): {"title": "laptop", "description": "-"} for number in range(60_000)}
SLOW = {
    "script": {
        "script": "double sum = 0; for (int i = 0; i < 900000; ++i) { sum += Math.sqrt(i) } return sum > 0",
    }
}
MATCH = {"bool": {"must": [{"match": {"title": "laptop"}}], "filter": [SLOW]}}


async def _tasks(engine: RealEngine, index: str, more: str = "") -> list[Any]:
    """The searches of an index that the engine is busy with."""
    reply = await send(engine.url, Request("GET", f"/_tasks?actions=indices:data/read/search&detailed{more}"))
    tasks = [task for node in reply.json["nodes"].values() for task in node["tasks"].values()]
    return [task for task in tasks if index in task["description"]]


@pytest.mark.parametrize(
    ("body", "settings"),
    [
        pytest.param({"query": MATCH, "sort": ["_doc"]}, {}, id="handed on"),
        pytest.param({"query": MATCH}, {"semantic": None}, id="to be reranked"),
    ],
)
async def test_a_search_is_cancelled_when_its_client_disconnects(
    body: Any, settings: Any, *, real_engine: RealEngine, index_name: str, load: Load, start: Start, models: ShopModels
) -> None:
    load(index_name, {"settings": {"number_of_shards": 1}, "mappings": {"properties": catalogue.PROPERTIES}}, DOCUMENTS)
    proxy = urlsplit(await start(route(index_name, **settings)))
    _, writer = await asyncio.open_connection(proxy.hostname, proxy.port)
    content = json.dumps(body).encode()
    head = f"POST /{index_name}/_search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    while not (running := await _tasks(real_engine, index_name)):
        pass
    writer.close()
    await writer.wait_closed()
    # The engine answers once they have ended, or says within these seconds that they have not.
    await _tasks(real_engine, index_name, "&wait_for_completion=true&timeout=20s")
    assert (1, [], []) == (len(running), await _tasks(real_engine, index_name), models.reranked)
