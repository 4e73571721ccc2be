"""Which responses grow by vectors, and that it is said with its cause and what to do."""

import gzip
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest

from proxy.commands.loading.clients import EngineApi, open_client
from proxy.commands.loading.errors import CannotLoad
from proxy.commands.loading.mappings import SPELLINGS, Embedding, index_for
from proxy.commands.loading.source_vectors import growth_of_responses
from proxy.commands.loading.target import create, fit
from proxy.settings.config import Config, Engine
from tests.fakes import FakeServer, Message, answer, refuses

SETTING = "index.mapping.exclude_source_vectors"
EMBEDDING = Embedding("v", "m", 384, ("title",))
BARE: Mapping[str, Any] = {"properties": {"title": {"type": "text"}}}
FITTED: Mapping[str, Any] = {"properties": EMBEDDING.properties, "_meta": EMBEDDING.meta}
OLD, NEW = ("elasticsearch", "8.19.13"), ("elasticsearch", "9.4.3")
OPENSEARCH = ("opensearch", "2.19.1")


class Node(FakeServer):
    """An engine of a kind, with the settings of its indices; a kind of request is its last word."""

    def __init__(self, product: str, number: str, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self._version = {"number": number} | ({"distribution": product} if product == "opensearch" else {})
        self._product = [("X-Elastic-Product", "Elasticsearch")] if product == "elasticsearch" else []
        self._settings = settings

    def kind(self, request: Message) -> str:
        return "settings" if "/_settings/" in request.path else request.path.rpartition("/")[2]

    def usual(self, request: Message) -> bytes:
        if request.path == "/":
            return answer(200, json.dumps({"version": self._version}).encode(), *self._product)
        found = self._settings if self.kind(request) == "settings" else {"acknowledged": True}
        return answer(200, json.dumps(found).encode(), *self._product)


@asynccontextmanager
async def opened(
    kind: tuple[str, str], settings: Mapping[str, Any] | None = None
) -> AsyncIterator[tuple[EngineApi, Node]]:
    async with Node(*kind, settings or {}) as node:
        client = await open_client(Config(engine=Engine(url=node.url)), None)
        try:
            yield client, node
        finally:
            await client.close()


def created(request: Message) -> Any:
    """Read the body of a request."""
    packed = request.header("content-encoding") == "gzip"
    return json.loads(gzip.decompress(request.content) if packed else request.content)


def set_to(where: str, value: str) -> dict[str, Any]:
    return {"a": {where: {SETTING: value}}}


RETURNS = "returns vectors in `_source`. To prevent this for the searches of a route, set `semantic.exclude_from_source"
FIXED = f"the index was created without `{SETTING}: true`, which cannot be set later. To prevent this"


@pytest.mark.parametrize(
    ("kind", "mappings", "settings", "said"),
    [
        (OLD, {}, {}, f"Elasticsearch 8.19.13 {RETURNS}"),
        (OLD, {"a": BARE}, {}, f"Elasticsearch 8.19.13 {RETURNS}"),
        (OLD, {"a": FITTED}, {}, None),
        (OPENSEARCH, {}, {}, f"OpenSearch 2.19.1 {RETURNS}"),
        (OPENSEARCH, {"a": BARE}, {}, f"OpenSearch 2.19.1 {RETURNS}"),
        (OPENSEARCH, {"a": FITTED}, {}, None),
        (NEW, {}, {}, None),
        (NEW, {"a": BARE}, set_to("defaults", "true"), None),
        (NEW, {"a": BARE}, set_to("settings", "true"), None),
        (NEW, {"a": BARE}, set_to("defaults", "false"), FIXED),
        (NEW, {"a": BARE}, set_to("settings", "false"), FIXED),
        (NEW, {"a": BARE}, set_to("defaults", "true") | {"a": {"settings": {SETTING: "false"}}}, FIXED),
        (NEW, {"a": FITTED}, set_to("defaults", "false"), None),
    ],
)
async def test_a_warning_is_printed_if_vectors_stay_in_source(
    kind: tuple[str, str], mappings: Any, settings: Any, said: str | None
) -> None:
    async with opened(kind, settings) as (client, _):
        growth = await growth_of_responses(client, "a", mappings, EMBEDDING)
    assert (growth is None) == (said is None)
    if growth is not None and said is not None:
        assert growth.startswith("a: each document will be about 4.2 KB larger in responses that are not reranked, b")
        assert said in growth


async def test_the_warning_names_each_index() -> None:
    async with opened(NEW, set_to("defaults", "true")) as (client, _):
        growth = await growth_of_responses(client, "alias", {"a": BARE, "b": BARE, "c": FITTED}, EMBEDDING)
    assert growth is not None
    assert growth.startswith("b: each document")


async def test_unreadable_settings_are_ignored() -> None:
    async with opened(NEW) as (client, node):
        node.faults["settings"] = refuses(403)
        growth = await growth_of_responses(client, "a", {"a": BARE}, EMBEDDING)
    assert growth is not None


@pytest.mark.parametrize(("kind", "expected"), [(OLD, {}), (NEW, {SETTING: True}), (OPENSEARCH, {"index.knn": True})])
async def test_a_new_index_excludes_vectors_from_source_if_the_engine_can(
    kind: tuple[str, str], expected: Mapping[str, Any]
) -> None:
    async with opened(kind) as (client, node):
        await create(client, "a", "rag", EMBEDDING, "english")
        await create(client, "b", "rag", None, "english")
    with_vectors, without = (created(request)["settings"] for request in node.requests[-2:])
    assert with_vectors == without | expected


def test_an_unknown_version_gets_no_setting() -> None:
    """Engines reject an index with a setting that they do not know."""
    assert SETTING not in index_for("rag", EMBEDDING, "english", SPELLINGS["elasticsearch"], None)["settings"]


@pytest.mark.parametrize(
    ("source", "is_refused"),
    [
        ({}, False),
        ({"excludes": ["v", "secret"]}, False),
        ({"includes": ["title", "v_hash"]}, False),
        ({"mode": "synthetic"}, False),
        ({"enabled": False}, True),
        ({"excludes": ["v*"]}, True),
        ({"excludes": ["v_hash"]}, True),
        ({"includes": ["title"]}, True),
        ({"includes": ["*"], "excludes": ["*_hash"]}, True),
    ],
)
async def test_an_index_whose_source_excludes_the_hash_is_rejected(source: Any, is_refused: bool) -> None:  # noqa: FBT001
    """Otherwise every run would embed all documents again."""
    async with opened(NEW) as (client, node):
        refused = pytest.raises(CannotLoad, match=r"^a: the mapping leaves 'v_hash' out of `_source`")
        with refused if is_refused else nullcontext():
            await fit(client, {"a": {**BARE, "_source": source}}, EMBEDDING)
    assert bool(node.of("_mapping")) != is_refused


@pytest.mark.parametrize("kind", [OLD, NEW, OPENSEARCH])
async def test_a_refresh_after_adding_the_field_starts_new_segments(kind: tuple[str, str]) -> None:
    """OpenSearch 3.5 with derived source reads vectors in older segments as 1, and rejects updates."""
    async with opened(kind) as (client, node):
        await fit(client, {"a": BARE}, EMBEDDING)
        await fit(client, {"a": FITTED}, EMBEDDING)
    asked = [(request.method, request.path) for request in node.requests if request.path != "/"]
    assert asked == [("PUT", "/a/_mapping"), ("POST", "/a/_refresh")]
