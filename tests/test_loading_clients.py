"""A load asks either engine by its makers' client, and is told alike of what goes wrong."""

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.commands.loading.clients import (
    Action,
    ElasticsearchClient,
    EngineApi,
    OpenSearchClient,
    Outcome,
    open_client,
)
from proxy.commands.loading.errors import CannotLoad
from proxy.errors import Refused, Unreachable
from proxy.settings.config import Config, Engine
from tests.fakes import FakeServer, Message, answer, breaks_off, refuses

PRODUCT = ("X-Elastic-Product", "Elasticsearch")
ELASTICSEARCH: Mapping[str, Any] = {"version": {"number": "8.19.13"}}
OPENSEARCH: Mapping[str, Any] = {"version": {"number": "2.19.1", "distribution": "opensearch"}}
BY_PRODUCT = {"elasticsearch": ELASTICSEARCH, "opensearch": OPENSEARCH}


class Node(FakeServer):
    """An engine that says what it is, and takes every document; kinds are version, resolve, bulk and other."""

    def __init__(self, said: Mapping[str, Any], *fields: tuple[str, str]) -> None:
        super().__init__()
        self.said = said
        self.fields = fields

    def kind(self, request: Message) -> str:
        if request.path == "/":
            return "version"
        return {"_resolve": "resolve", "_bulk": "bulk"}.get(request.path.split("/")[1], "other")

    def usual(self, request: Message) -> bytes:
        said: Any = {"acknowledged": True}
        if self.kind(request) == "version":
            said = self.said
        elif self.kind(request) == "bulk":
            said = {
                "errors": False,
                "items": [{"index": {"_id": line["index"]["_id"], "status": 201}} for line in written(request)[::2]],
            }
        return answer(200, json.dumps(said).encode(), *self.fields)


def written(request: Message) -> list[Any]:
    """Read the lines of a bulk request."""
    packed = request.header("content-encoding") == "gzip"
    content = gzip.decompress(request.content) if packed else request.content
    return [json.loads(line) for line in content.splitlines()]


@pytest.fixture(params=BY_PRODUCT)
async def node(request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    """An engine of either kind."""
    fields = [PRODUCT] if request.param == "elasticsearch" else []
    async with Node(BY_PRODUCT[request.param], *fields) as server:
        yield server


def settings(node: Node) -> Config:
    return Config(engine=Engine(url=node.url))


@asynccontextmanager
async def opened(node: Node, authorization: str | None = None) -> AsyncIterator[EngineApi]:
    client = await open_client(settings(node), authorization)
    try:
        yield client
    finally:
        await client.close()


async def test_the_client_matches_the_engine_that_responds(node: Node) -> None:
    async with opened(node) as client:
        expected = ElasticsearchClient if node.said is ELASTICSEARCH else OpenSearchClient
        assert type(client) is expected
        assert await client.ask("GET", "/i/_count", parameters={"a": "b"}) == {"acknowledged": True}
    assert node.requests[-1].target == "/i/_count?a=b"


async def test_without_the_right_to_read_the_version_response_headers_tell_the_engine(node: Node) -> None:
    """Privileges on the index alone are enough to load documents."""
    node.faults["version"] = refuses(403)
    async with opened(node) as client:
        assert type(client) is (ElasticsearchClient if node.fields else OpenSearchClient)


async def test_an_engine_that_rejects_the_credentials_is_an_error(node: Node) -> None:
    node.faults |= {"version": refuses(401), "resolve": refuses(401)}
    with pytest.raises(Refused, match="status 401"):
        await open_client(settings(node), None)


async def test_another_product_is_rejected_by_its_name() -> None:
    async with Node({"version": {"number": "1.0", "distribution": "othersearch"}}) as node:
        with pytest.raises(
            CannotLoad, match=r"engine\.url is othersearch: documents can be loaded into elasticsearch and"
        ):
            await open_client(settings(node), None)


async def test_credentials_are_sent_with_every_request(node: Node) -> None:
    secret = "Basic " + base64.b64encode(b"loader:x").decode()
    async with opened(node, secret) as client:
        await client.ask("PUT", "/i", {"mappings": {}})
    assert {request.header("authorization") for request in node.requests} == {secret}


async def test_an_error_has_status_and_body(node: Node) -> None:
    said = {"error": {"type": "t", "reason": "no"}, "status": 400}
    async with opened(node) as client:
        node.faults["other"] = refuses(400, json.dumps(said).encode())
        with pytest.raises(Refused) as caught:
            await client.ask("PUT", "/i", {})
    assert (caught.value.status, json.loads(caught.value.body)) == (400, said)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_the_client_itself_does_not_retry_on_429(status: int, node: Node) -> None:
    """The load command retries, with its own patience."""
    async with opened(node) as client:
        node.faults["other"] = refuses(status)
        with pytest.raises(Refused, match=f"status {status}"):
            await client.ask("POST", "/i/_refresh")
    assert len(node.of("other")) == 1


async def test_an_engine_that_closes_the_connection_is_unreachable(node: Node) -> None:
    async with opened(node) as client:
        node.faults["other"] = breaks_off()
        with pytest.raises(Unreachable):
            await client.ask("POST", "/i/_refresh")


async def each(actions: Iterable[Action]) -> AsyncIterator[Action]:
    for action in actions:
        await asyncio.sleep(0)
        yield action


def documents(count: int) -> list[Action]:
    return [
        {"_op_type": "index", "_index": "i", "_id": str(number), "_source": {"n": number}} for number in range(count)
    ]


async def all_of(client: EngineApi, count: int = 2) -> list[tuple[bool, Outcome]]:
    return [entry async for entry in client.bulk(each(documents(count)))]


async def test_documents_are_written_in_bulk(node: Node) -> None:
    async with opened(node) as client:
        found = await all_of(client)
    assert found == [(True, {"_id": "0", "status": 201}), (True, {"_id": "1", "status": 201})]
    assert [written(request) for request in node.of("bulk")] == [
        [{"index": {"_id": "0", "_index": "i"}}, {"n": 0}, {"index": {"_id": "1", "_index": "i"}}, {"n": 1}]
    ]


async def test_a_rejected_document_is_reported_and_the_others_are_written(node: Node) -> None:
    items = [{"index": {"_id": "0", "status": 201}}, {"index": {"_id": "1", "status": 400, "error": {"reason": "no"}}}]
    async with opened(node) as client:
        node.faults["bulk"] = says_as(node, {"errors": True, "items": items})
        (first, _), (second, said) = await all_of(client)
    assert (first, second, said["status"], said["error"]) == (True, False, 400, {"reason": "no"})


def says_as(node: Node, said: Any) -> Any:
    return lambda *_: _sent(answer(200, json.dumps(said).encode(), *node.fields))


async def _sent(sent: bytes) -> bytes:
    return sent


async def test_a_too_large_bulk_request_reports_each_of_its_documents(node: Node) -> None:
    """A gateway before the engine may accept less than the engine; other requests may succeed."""
    async with opened(node) as client:
        node.faults["bulk"] = lambda *_: _sent(answer(413, b"<html>too large", content_type="text/html"))
        found = await all_of(client)
    assert [(ok, said["_id"], said["status"]) for ok, said in found] == [(False, "0", 413), (False, "1", 413)]


@pytest.mark.parametrize("status", [401, 403, 404, 500])
async def test_another_error_of_a_bulk_request_ends_the_load(status: int, node: Node) -> None:
    async with opened(node) as client:
        node.faults["bulk"] = refuses(status)
        with pytest.raises(Refused, match=f"status {status}"):
            await all_of(client)


async def test_a_closed_connection_during_a_bulk_request_is_unreachable(node: Node) -> None:
    async with opened(node) as client:
        node.faults["bulk"] = breaks_off()
        with pytest.raises(Unreachable):
            await all_of(client)
