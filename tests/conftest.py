"""What most tests at the edges stand on: fakes, a proxy between them, a client, and its log."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import hypothesis
import msgspec
import pytest
import structlog
import uvloop
from xdist.remote import Producer
from xdist.scheduler import LoadGroupScheduling

from demo.engines import ENGINES
from proxy.app import listen
from proxy.settings.config import Admin, Config, Engine, Listen, Models, RouteSettings, Semantic
from proxy.settings.request_options import OPTIONS
from tests.fakes import Client, Document, FakeEngine, FakeModels

# A property is judged by what it finds, not by how fast a shared machine is. The same is asked in each run, so that
# what fails is the change at hand; `deep` looks for what nobody thought of.
hypothesis.settings.register_profile("fast", max_examples=50, deadline=None, derandomize=True)
hypothesis.settings.register_profile("deep", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

_SLOW = frozenset(
    [
        "bench",
        "cost",
        "cut_responses",
        "demo",
        "depths",
        "evaluation_command",
        "isolation",
        "log_writer",
        "ops",
        "process_bounds",
        "serving",
        "several_proxies",
        "spending_serving",
        "store_redis_store",
        "traces",
        "turns",
        "warming",
        "warming_dry_run",
    ]
)
"""Modules whose tests start processes, attack with hundreds of requests, or measure what an input costs."""

PATIENT_MS = 600_000
"""A budget that ends no stage, however slow the machine; tests of the budget set their own."""
TOKEN = "token-of-the-models"
Log = list[Any]

CATALOGUE = (
    Document("a", "Laptop sleeve for laptop", lexical=3.0, cosine=0.4),
    Document("b", "Laptop for editing", lexical=2.0, cosine=0.8),
    Document("c", "Laptop stand", lexical=1.0),
    Document("d", "Mobile workstation", cosine=0.9),
    Document("e", "Garden hose", cosine=0.1),
    Document("x", "Laptop in a log", lexical=1.0, index="logs"),
)
"""BM25 says a b c, kNN says d b a (e is too far), fused b a d c, the models' scores d b c a."""
SCORES = {"Mobile workstation": 0.9, "Laptop for editing": 0.8, "Laptop stand": 0.3, "Laptop sleeve for laptop": 0.1}
QUERY = {"query": {"match": {"title": "laptop"}}}
OTHER = {"query": {"match": {"title": "sleeve"}}}
"""Another search, after which the engine is known to accept those of this caller."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem.removeprefix("test_") in _SLOW:
            item.add_marker(pytest.mark.slow)


class _ByEngine(LoadGroupScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Sends all tests on one engine to one worker: two workers would see each other's searches in its counters."""

    def _split_scope(self, nodeid: str) -> str:
        return next((engine.name for engine in ENGINES if engine.name in nodeid), "")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadGroupScheduling | None:
    """Replace the marks of pytest-xdist 3.8, which pytest 9.2 ignores: it no longer reads `_nodeid`."""
    return _ByEngine(config, log) if config.getoption("dist") == "loadgroup" else None


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests reaches them."""
    for name in os.environ:
        if name == "DEEPINFRA_TOKEN" or name.startswith("RERANK_PROXY_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _usual_log() -> Iterator[None]:
    """A command that ran in the test set the log up for its own standard error, which is closed by the next."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def log() -> Iterator[Log]:
    """Every event that is logged meanwhile."""
    with structlog.testing.capture_logs() as events:
        yield events


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine([document for document in CATALOGUE if document.index == "products"]) as server:
        yield server


@pytest.fixture
async def models() -> AsyncIterator[FakeModels]:
    async with FakeModels(SCORES) as server:
        yield server


@pytest.fixture
def settings(engine: FakeEngine, models: FakeModels) -> Config:
    """A proxy before the fakes, with one route that has every stage."""
    semantic = Semantic(field="embedding", dimensions=3)
    return Config(
        listen=Listen(port=0),
        engine=Engine(url=engine.url, resolve_timeout_seconds=30),
        models=Models(url=models.url, canary=False),  # tests/test_canary.py has it
        admin=Admin(port=0),
        routes=(
            RouteSettings(
                index="products*", passage=["title"], semantic=semantic, rank_window_size=10, budget_ms=PATIENT_MS
            ),
        ),
    )


@contextmanager
def no_free_thread() -> Iterator[None]:
    """Let no thread be started: none has room for its stack."""
    earlier = threading.stack_size(2**46)
    try:
        yield
    finally:
        threading.stack_size(earlier)


StartProxy = Callable[[Config], Awaitable[Client]]


@pytest.fixture
async def start_proxy(log: Log) -> AsyncIterator[StartProxy]:
    """Start a proxy with these settings, and give a client of it."""
    async with AsyncExitStack() as stack:

        async def start(config: Config) -> Client:
            listener = await listen(config, TOKEN, {}, stack)
            client = await Client.to(listener.port)
            stack.callback(client.close)
            return client

        yield start


@pytest.fixture
async def client(start_proxy: StartProxy, settings: Config) -> Client:
    """A client of a proxy with the route."""
    return await start_proxy(settings)


@pytest.fixture
async def steered_client(start_proxy: StartProxy, settings: Config) -> Client:
    """A client of one that takes every option from a request."""
    return await start_proxy(msgspec.structs.replace(settings, steering=OPTIONS))


@pytest.fixture
async def plain_client(start_proxy: StartProxy, settings: Config) -> Client:
    """A client of a proxy without routes, which hands everything on."""
    return await start_proxy(msgspec.structs.replace(settings, routes=()))


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that `serve` runs on."""
    return {"uvloop": uvloop.new_event_loop}
