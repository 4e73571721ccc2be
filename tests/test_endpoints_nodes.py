"""`_nodes`: untouched unless the settings name an address, and then that one for each the engine publishes."""

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from proxy.endpoints.nodes import published_as
from proxy.settings.config import Config
from tests.conftest import StartProxy
from tests.endpoint_engine import DOCUMENTS, NODES, EndpointEngine
from tests.fakes import Client, refuses, request, says

PATH = "/_nodes/_all/http"


@pytest.fixture
async def engine() -> AsyncIterator[EndpointEngine]:
    async with EndpointEngine(DOCUMENTS) as server:
        yield server


@pytest.fixture
async def published(start_proxy: StartProxy, settings: Config) -> Client:
    engine = msgspec.structs.replace(settings.engine, published_address="proxy.example:80")
    return await start_proxy(msgspec.structs.replace(settings, engine=engine))


def addresses(answered: Any) -> list[str]:
    return [node["http"]["publish_address"] for node in answered["nodes"].values() if "http" in node]


async def test_each_node_publishes_the_proxys_address(published: Client, engine: EndpointEngine) -> None:
    answered = await published.ask("GET", f"{PATH}?timeout=1s")
    assert ["proxy.example:80"] * 2 == addresses(answered.json())
    assert (f"{PATH}?timeout=1s", "Elasticsearch") == (
        engine.of("_nodes/_all/http")[0].target,
        answered.header("x-elastic-product"),
    )


async def test_by_default_the_response_is_unchanged(client: Client, engine: EndpointEngine) -> None:
    answered = await client.ask("GET", PATH)
    assert (["10.0.0.1:9200", "es/10.0.0.2:9200"], "") == (addresses(answered.json()), answered.header("x-rerank"))


@pytest.mark.parametrize("indent", [None, 2])
def test_everything_but_addresses_keeps_its_bytes(indent: int | None) -> None:
    body = json.dumps(NODES, indent=indent)
    expected = body.replace('"10.0.0.1:9200"', '"p"').replace('"es/10.0.0.2:9200"', '"p"')
    assert expected.encode() == published_as(body.encode(), "p")


def test_only_the_http_publish_address_is_replaced() -> None:
    body = b'{"nodes":{"n":{"name":"\\"publish_address\\":\\"a:1\\"","http":{"publish_address":"a:1","x":"a:1"}}}}'
    assert body.replace(b'"publish_address":"a:1"', b'"publish_address":"p"') == published_as(body, "p")


@pytest.mark.parametrize("said", [b"not json", b'{"nodes":[]}', b"{}"])
async def test_an_unexpected_response_is_relayed(published: Client, engine: EndpointEngine, said: bytes) -> None:
    engine.faults["_nodes/_all/http"] = says(said)
    assert said == (await published.ask("GET", PATH)).content


async def test_an_error_is_relayed(published: Client, engine: EndpointEngine) -> None:
    engine.faults["_nodes/_all/http"] = refuses(403)
    assert 403 == (await published.ask("GET", PATH)).status


async def test_a_caller_with_unusual_headers_is_passed_through(published: Client) -> None:
    await published.send(request("GET", PATH, x_name="\xe9"))
    assert ["10.0.0.1:9200", "es/10.0.0.2:9200"] == addresses((await published.answer()).json())
