"""The Python clients as their users have them, through the proxy and straight, each in an environment of its own."""

import asyncio
import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from demo.engine_files import cache_folder, only_one
from demo.engines import ELASTICSEARCH_8, ELASTICSEARCH_9, OPENSEARCH_2, OPENSEARCH_3
from proxy.app import listen
from proxy.settings.config import Config
from tests.clients.python.sides import score
from tests.fakes import FakeServer, Script, Stream, answer, closed_port
from tests.integration import shop
from tests.integration.commands import Running, serving
from tests.integration.conftest import PATIENT
from tests.integration.engines import Address, running_engines
from tests.integration.models import ShopModels

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent / "python"
ELASTICSEARCH = (ELASTICSEARCH_8.name, ELASTICSEARCH_9.name)
OPENSEARCH = (OPENSEARCH_2.name, OPENSEARCH_3.name)
WITHOUT_KNN = (OPENSEARCH_3.name,)
QUERIES = ("laptop", "laptop for video editing", "phone", "rugged", "children")

_INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r")
_KNN_VECTOR = {
    "type": "knn_vector",
    "dimension": 8,
    "method": {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"},
}


@dataclass(frozen=True, slots=True)
class Suite:
    """A script of scenarios, the environment it runs in, and the engines it runs against."""

    name: str
    environment: str
    script: str
    engines: Sequence[str]
    passage: Sequence[str] = shop.PASSAGE
    """The fields in which the client keeps a document's text."""
    vector: str = "embedding"


SUITES = (
    Suite("elasticsearch8", "elasticsearch8", "elasticsearch8.scenario", ELASTICSEARCH),
    Suite("elasticsearch8-async", "elasticsearch8", "elasticsearch8.asynchronous", ELASTICSEARCH),
    Suite("elasticsearch8-dsl", "elasticsearch8", "elasticsearch8.dsl", ELASTICSEARCH),
    Suite("elasticsearch9", "elasticsearch9", "elasticsearch8.scenario", (ELASTICSEARCH_9.name,)),
    Suite("elasticsearch9-async", "elasticsearch9", "elasticsearch8.asynchronous", (ELASTICSEARCH_9.name,)),
    Suite("elasticsearch9-dsl", "elasticsearch9", "elasticsearch8.dsl", (ELASTICSEARCH_9.name,)),
    Suite("elasticsearch9-refused", "elasticsearch9", "elasticsearch9.scenario", (ELASTICSEARCH_8.name,)),
    Suite("opensearch", "opensearch", "opensearch.scenario", OPENSEARCH),
    Suite("opensearch-async", "opensearch", "opensearch.asynchronous", OPENSEARCH),
    Suite("langchain", "langchain", "langchain.scenario", ELASTICSEARCH, ("text",), "vector"),
    Suite("llama_index", "llama_index", "llama_index.scenario", ELASTICSEARCH, ("content",)),
    Suite("haystack", "haystack", "haystack.scenario", ELASTICSEARCH, ("content",)),
)
# Those that run: `make test` starts every engine that the machine has a Java for, and says which it left out.
RUNS = [
    pytest.param(suite, engine, id=f"{suite.name}-{engine}")
    for suite in SUITES
    for engine in suite.engines
    if engine in running_engines()
]


def environment(name: str) -> Path:
    """Return the Python of a client's environment, made anew when what it is made of changes."""
    requirements = HERE / name / "requirements.txt"
    made_of = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache_folder() / "clients" / f"{name}-{made_of}"
    ready, python = folder / "ready", folder / "bin" / "python"
    with only_one(folder.with_suffix(".lock"), f"another process installs {name}, waiting for it"):
        if not ready.exists():
            _run(sys.executable, "-m", "venv", "--clear", str(folder))
            _run(str(python), *_INSTALL, str(requirements))
            ready.touch()
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}: {done.stderr[-2000:]}", pytrace=False)


@pytest.fixture
def engine_address(engine: str) -> Address:
    """The engine of this run; one that does not run is a failure, never a skip."""
    url = running_engines().get(engine)
    if not url:
        pytest.fail(
            f"{engine} does not run: `make test`, or `python -m demo.engine --engine all exec -- pytest tests/clients`",
            pytrace=False,
        )
    return Address(url)


@pytest.fixture
def names(engine_address: Address, suite: Suite, engine: str) -> Iterator[str]:
    """How the names of this run's indices begin: the shop is in one in the route and in one that is not."""
    names = f"clients-{uuid4().hex[:12]}"
    bare = {"settings": shop.SETTINGS, "mappings": {"properties": shop.PROPERTIES}}
    _load(engine_address, f"{names}-plain", bare, shop.without_vectors(shop.PRODUCTS))
    _load(engine_address, f"{names}-routed", *_with_vectors(engine))
    yield names
    for index in engine_address.do("GET", f"/_resolve/index/{names}*")["indices"]:
        engine_address.do("DELETE", f"/{index['name']}")


def _with_vectors(engine: str) -> tuple[Mapping[str, Any], Mapping[str, Mapping[str, Any]]]:
    """The shop as that engine can hold it."""
    if engine in WITHOUT_KNN:
        bare = {"settings": shop.SETTINGS, "mappings": {"properties": shop.PROPERTIES}}
        return bare, shop.without_vectors(shop.PRODUCTS)
    if engine in ELASTICSEARCH:
        return shop.WITH_VECTORS, shop.PRODUCTS
    mappings = shop.WITH_VECTORS["mappings"]
    properties = mappings["properties"] | {"embedding": _KNN_VECTOR}
    return {
        "settings": {**shop.SETTINGS, "index.knn": True},
        "mappings": {**mappings, "properties": properties},
    }, shop.PRODUCTS


def _load(address: Address, index: str, body: Mapping[str, Any], documents: Mapping[str, Mapping[str, Any]]) -> None:
    address.do("PUT", f"/{index}", body)
    lines = [line for name, document in documents.items() for line in ({"index": {"_id": name}}, document)]
    assert not address.do("POST", f"/{index}/_bulk?refresh=true", lines)["errors"]


def _flaky() -> Script:
    """Break the connection at each of the first two requests, and be an engine for those that follow."""
    requests = itertools.count(1)

    async def script(stream: Stream) -> None:
        while await stream.request():
            if next(requests) <= 2:
                stream.break_off()
                raise ConnectionError
            await stream.send(answer(200, b"{}", ("X-Elastic-Product", "Elasticsearch")))

    return script


async def _silent(stream: Stream) -> None:
    await stream.left()


async def _failing(stack: AsyncExitStack) -> dict[str, str]:
    """Start proxies before engines that fail, each in its way."""
    flaky, silent = FakeServer(), FakeServer()
    flaky.script, silent.script = _flaky(), _silent
    for server in (flaky, silent):
        await stack.enter_async_context(server)
    return {
        "away_url": await _plain_proxy(stack, f"http://127.0.0.1:{closed_port()}"),
        "flaky_url": await _plain_proxy(stack, flaky.url),
        "silent_url": await _plain_proxy(stack, silent.url),
        "silent_engine_url": silent.url,
    }


async def _plain_proxy(stack: AsyncExitStack, engine_url: str) -> str:
    config = msgspec.convert({"listen": {"port": 0}, "engine": {"url": engine_url}}, Config)
    return f"http://127.0.0.1:{(await listen(config, None, {}, stack)).port}"


@asynccontextmanager
async def _read_on(command: Running) -> AsyncIterator[None]:
    """Read what a command writes, so that it is never held up."""

    async def reading() -> None:
        with suppress(AssertionError):
            await command.until("\0")

    task = asyncio.create_task(reading())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _told(suite: Suite, names: str, engine: str, failing: Mapping[str, str]) -> str:
    """What a script is told beside the two addresses."""
    documents = shop.without_vectors(shop.PRODUCTS)
    texts = [*QUERIES, *(shop.passage(product) for product in shop.PRODUCTS.values())]
    vectors = {text: shop.embed(text) for text in texts}
    return json.dumps(
        {"names": names, "documents": documents, "vectors": vectors, "has_knn": engine not in WITHOUT_KNN, **failing}
    )


def _route(suite: Suite, names: str, engine: str) -> Mapping[str, Any]:
    semantic = {"field": suite.vector, "dimensions": 8, "timeout_seconds": 20}
    route = {"index": f"{names}-routed*", "passage": list(suite.passage), "rank_window_size": 50, "budget_ms": 60_000}
    return route if engine in WITHOUT_KNN else route | {"semantic": semantic}


@pytest.mark.parametrize(("suite", "engine"), RUNS)
async def test_a_client_cannot_tell(
    suite: Suite, engine: str, engine_address: Address, names: str, tmp_path: Path
) -> None:
    """Every scenario of the client's script is fulfilled: nothing differs but the order of searches in the route."""
    python = await asyncio.to_thread(environment, suite.environment)
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(ShopModels())
        models.score = score
        settings = {
            "engine": {"url": engine_address.url, "added_timeout_seconds": 20, "resolve_timeout_seconds": 20},
            "models": {"url": models.url} | PATIENT,
            "routes": [_route(suite, names, engine)],
        }
        command, url = await stack.enter_async_context(serving(tmp_path, settings))
        told = _told(suite, names, engine, await _failing(stack))
        await stack.enter_async_context(_read_on(command))
        script = await asyncio.create_subprocess_exec(
            str(python),
            *("-W", "error::ResourceWarning", "-m", f"tests.clients.python.{suite.script}"),
            cwd=ROOT,
            env={**os.environ, "ENGINE_URL": engine_address.url, "PROXY_URL": url, "SCENARIO": told},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await script.communicate()
        assert [] == [event for event in command.events if event.get("log.level") == "error"]
    assert script.returncode == 0, said.decode()
