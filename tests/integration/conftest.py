"""The real engine these tests talk to, a shop loaded into it, and proxies in front of it with foretellable models."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from demo.engines import DEFAULT
from proxy.app import listen
from proxy.settings.config import Config
from proxy.settings.request_options import OPTIONS
from tests.integration import shop as catalogue
from tests.integration.engines import RealEngine, running_engines
from tests.integration.models import ShopModels
from tests.integration.outcomes import Outcomes, Record
from tests.integration.sending import Client, Request, send, send_now


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on each of the engines it is marked with, as far as they were started; else on the default one."""
    if "real_engine" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("engines")
        names = [name for name in marker.args if name in running_engines()] if marker else [DEFAULT.name]
        metafunc.parametrize("real_engine", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def real_engine(request: pytest.FixtureRequest) -> RealEngine:
    """The running engine; a missing one is a failure, never a skip."""
    url = running_engines().get(request.param, "")
    if not url:
        pytest.fail(
            "REAL_ENGINE_URL is not set: run `make test`, or `python -m demo.engine exec -- pytest -m engine`",
            pytrace=False,
        )
    return RealEngine(request.param, url.rstrip("/"))


@pytest.fixture(scope="session")
def engine_url(real_engine: RealEngine) -> str:
    """Base URL of the running engine, without a slash at the end."""
    return real_engine.url


@pytest.fixture
async def index_name(engine_url: str) -> AsyncIterator[str]:
    """A name no other test uses; the indices whose names begin so, if the test makes any, are deleted after it."""
    name = f"test-{uuid4().hex[:12]}"
    yield name
    made = await send(engine_url, Request("GET", f"/_resolve/index/{name}*"))
    for index in made.json["indices"]:
        await send(engine_url, Request("DELETE", f"/{index['name']}"))


@pytest.fixture(scope="session")
def _outcomes() -> Iterator[Outcomes]:
    """What the tests are to see; with UPDATE_OUTCOMES=1, what they saw is written when all have run."""
    outcomes = Outcomes.read()
    yield outcomes
    outcomes.save()


@pytest.fixture
def record_outcome(_outcomes: Outcomes, real_engine: RealEngine) -> Record:
    """Compare the outcome of a kind of search on this engine with the one expected."""
    return lambda way, outcome: _outcomes.record(way, real_engine.name, outcome)


Load = Callable[[str, Mapping[str, Any], Mapping[str, Mapping[str, Any]]], None]


@pytest.fixture(scope="session")
def load(real_engine: RealEngine) -> Load:
    """Create an index with these documents; they have vectors where the engine knows what to do with them."""

    def load(index: str, settings: Mapping[str, Any], documents: Mapping[str, Mapping[str, Any]]) -> None:
        documents = documents if real_engine.has_knn else catalogue.without_vectors(documents)
        lines: list[Any] = [
            line for name, document in documents.items() for line in ({"index": {"_id": name}}, document)
        ]
        bulk = "".join(json.dumps(line) + "\n" for line in lines).encode()
        _demand(real_engine.url, Request("PUT", f"/{index}", json.dumps(settings).encode()))
        _demand(real_engine.url, Request("POST", f"/{index}/_bulk?refresh=true", bulk))

    return load


def _demand(url: str, request: Request) -> None:
    reply = send_now(url, request)
    if reply.status >= 300 or b'"errors":true' in reply.body:
        pytest.fail(f"{request.method} {request.target}: {reply.status} {reply.body[:500]!r}", pytrace=False)


@dataclass(frozen=True, slots=True)
class Shop:
    """The names under which the shop is found; all but `plain` lie inside a route on `<index>*`."""

    index: str
    second: str
    acme: str
    """An alias of the index that shows one brand only."""
    plain: str
    """The same products in an index that has no vectors and lies in no route."""


@pytest.fixture(scope="session")
def shop(real_engine: RealEngine, load: Load) -> Iterator[Shop]:
    """The shop, loaded once on each engine; nobody changes it."""
    name = uuid4().hex[:12]
    names = Shop(f"shop-{name}", f"shop-{name}-second", f"shop-{name}-acme", f"plain-{name}")
    load(names.index, catalogue.with_vectors(real_engine), catalogue.PRODUCTS)
    load(names.second, catalogue.with_vectors(real_engine), catalogue.OTHERS)
    bare = {"settings": catalogue.SETTINGS, "mappings": {"properties": catalogue.PROPERTIES}}
    load(names.plain, bare, catalogue.without_vectors(catalogue.PRODUCTS))
    alias = {"index": names.index, "alias": names.acme, "filter": {"term": {"brand": "acme"}}}
    _demand(real_engine.url, Request("POST", "/_aliases", json.dumps({"actions": [{"add": alias}]}).encode()))
    yield names
    _demand(real_engine.url, Request("DELETE", f"/{names.index},{names.second},{names.plain}"))


@pytest.fixture
async def models() -> AsyncIterator[ShopModels]:
    """Models whose vectors and scores can be foretold."""
    async with ShopModels() as fake:
        yield fake


Start = Callable[..., Awaitable[str]]
PATIENT = {"connect_timeout_seconds": 20, "embed_timeout_seconds": 20, "rerank_timeout_seconds": 20}
PATIENT_ENGINE = {"added_timeout_seconds": 20, "resolve_timeout_seconds": 20}
"""Enough on any machine; tests of what takes too long say so themselves."""
CACHE_KEY = {"RERANK_PROXY_CACHE_KEY": "that-all-proxies-of-a-test-have"}


@pytest.fixture
async def start(engine_url: str, models: ShopModels) -> AsyncIterator[Start]:
    """Start a proxy with these routes, and more of its settings by name; returns its URL."""
    async with AsyncExitStack() as stack:

        async def start(*routes: Mapping[str, Any], **sections: Mapping[str, Any]) -> str:
            settings: dict[str, Any] = {
                "listen": {"port": 0},
                "engine": {"url": engine_url} | PATIENT_ENGINE | dict(sections.pop("engine", {})),
                "models": {"url": models.url} | PATIENT | dict(sections.pop("models", {})),
                "routes": routes,
                "steering": OPTIONS,
            }
            config = msgspec.convert(settings | sections, Config)
            listener = await listen(config, None, CACHE_KEY, stack)
            return f"http://127.0.0.1:{listener.port}"

        yield start


def route(index: str, **settings: Any) -> dict[str, Any]:
    """Write a route on an index and those whose names begin alike."""
    semantic = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20}
    patient = {"semantic": semantic, "budget_ms": 60_000}
    return {"index": f"{index}*", "passage": ["title", "description"]} | patient | settings


@dataclass(frozen=True, slots=True)
class Sides:
    """The same client twice: straight at the engine, and through a proxy."""

    straight: Client
    through: Client


Open = Callable[..., Awaitable[Sides]]


@pytest.fixture
def open_sides(real_engine: RealEngine, shop: Shop, start: Start) -> Open:
    """Start a proxy with a route on the shop, and return clients on both sides of it.

    Where the engine has no kNN the route says so.
    """

    async def open_sides(
        index: str | None = None, *, sections: Mapping[str, Any] | None = None, **settings: Any
    ) -> Sides:
        url = await start(route(shop.index, **(real_engine.of_route | settings)), **(sections or {}))
        name = index or shop.index
        return Sides(Client(real_engine.url, name), Client(url, name))

    return open_sides


OpenIndex = Callable[..., Awaitable[Sides]]


@pytest.fixture
def open_index(real_engine: RealEngine, index_name: str, load: Load, start: Start) -> OpenIndex:
    """Make an index of the test's own with a route on it, and return clients on both sides of a proxy."""

    async def open_index(
        settings: Mapping[str, Any], documents: Mapping[str, Mapping[str, Any]], **of_route: Any
    ) -> Sides:
        load(index_name, settings, documents)
        url = await start(route(index_name, **(real_engine.of_route | of_route)))
        return Sides(Client(real_engine.url, index_name), Client(url, index_name))

    return open_index
