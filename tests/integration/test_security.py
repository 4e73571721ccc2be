"""With x-pack security: each caller gets through the proxy what they get straight, and every secret goes one way.

Document- and field-level security need a paid licence, or a trial: see `test_interleaved_callers`. A bearer token is a
service account's.
"""

import asyncio
import base64
import http.client
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
import pytest
import structlog
import trustme
from elasticsearch import AsyncElasticsearch

from proxy.app import listen
from proxy.settings.config import Config
from tests.fakes import FakeServer, Message, Stream, answer
from tests.integration.commands import serving
from tests.integration.conftest import PATIENT_ENGINE
from tests.integration.engines import Address, secure_engines
from tests.integration.models import ShopModels
from tests.integration.sending import JSON, Reply, Request
from tests.integration.shop import MODEL, embed

pytestmark = pytest.mark.engine

PASSWORD = "a-password-of-these-tests"
TOKEN = "the-token-of-the-models"
QUERY: Mapping[str, Any] = {"query": {"match": {"title": "laptop"}}, "size": 50}
TITLES = (
    "Laptop",
    "A laptop for kids",
    "Rugged notebook",
    "Laptop sleeve",
    "Phone",
    "A small laptop for video",
    "Hose",
)


def basic(user: str, password: str = PASSWORD) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture(scope="module")
def engine() -> Address:
    """The engine with security as its superuser sees it; a missing one is a failure, never a skip."""
    found = secure_engines()
    if not found or (found[0].url.startswith("https:") and not found[0].ca):
        pytest.fail(
            "REAL_ENGINE_SECURE_URL, REAL_ENGINE_PASSWORD or REAL_ENGINE_CA is not set: run `make test`, or "
            "`python -m demo.engine --tls exec -- pytest -m engine`",
            pytrace=False,
        )
    return found[0]


def asked(url: str, request: Request, ca: str | None = None) -> Reply:
    """Send one request as it is, by TLS where the URL says so."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "https":
        trusted = ssl.create_default_context(cafile=ca)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, port, timeout=60, context=trusted)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        connection.request(request.method, request.target, request.body, dict(request.headers))
        reply = connection.getresponse()
        return Reply(reply.status, reply.reason, reply.getheaders(), reply.read())
    finally:
        connection.close()


def search(names: str, caller: Mapping[str, str], **more: Any) -> Request:
    return Request("POST", f"/{names}/_search", json.dumps({**QUERY, **more}).encode(), {**JSON, **caller})


@dataclass(frozen=True, slots=True)
class World:
    """Two indices, an alias of both, and callers with different rights: the headers each of them sends."""

    first: str
    second: str
    alias: str
    pattern: str
    callers: Mapping[str, Mapping[str, str]]
    discovery: str
    """The Authorization of one who may read mappings and search nothing."""


@pytest.fixture(scope="module")
def world(engine: Address) -> Iterator[World]:
    name = uuid4().hex[:10]
    first, second, alias = f"search-{name}-a", f"search-{name}-b", f"search-{name}-both"
    for index in (first, second):
        _load(engine, index)
    engine.do("POST", "/_aliases", {"actions": [{"add": {"indices": [first, second], "alias": alias}}]})
    roles: dict[str, dict[str, Any]] = {
        "first": {"cluster": ["monitor"], "indices": [_may(first, "read", "view_index_metadata")]},
        "both": {"cluster": ["monitor"], "indices": [_may(f"search-{name}-*", "read", "view_index_metadata")]},
        "reader": {"indices": [_may(first, "read")]},
        "discovery": {"cluster": ["monitor"], "indices": [_may(f"search-{name}-*", "view_index_metadata")]},
    }
    roles["boss"] = roles["both"] | {"run_as": [f"{name}-first"]}
    for role, rights in roles.items():
        engine.do("PUT", f"/_security/role/{name}-{role}", rights)
        engine.do("PUT", f"/_security/user/{name}-{role}", {"password": PASSWORD, "roles": [f"{name}-{role}"]})
    callers = {role: {"Authorization": basic(f"{name}-{role}")} for role in ("first", "both", "reader", "boss")}
    callers["run_as"] = callers["boss"] | {"es-security-runas-user": f"{name}-first"}
    callers["api_key"] = {"Authorization": f"ApiKey {_api_key(engine, f'{name}-first')}"}
    service = "/_security/service/elastic/enterprise-search-server/credential/token"
    callers["bearer"] = {"Authorization": f"Bearer {engine.do('POST', f'{service}/{name}')['token']['value']}"}
    yield World(first, second, alias, f"search-{name}-*", callers, basic(f"{name}-discovery"))
    engine.do("DELETE", f"{service}/{name}")
    engine.do("DELETE", "/_security/api_key", {"username": f"{name}-first"})
    engine.do("DELETE", f"/{first},{second}")
    for role in roles:
        engine.do("DELETE", f"/_security/user/{name}-{role}")
        engine.do("DELETE", f"/_security/role/{name}-{role}")


def _may(names: str, *privileges: str) -> dict[str, Any]:
    return {"names": [names], "privileges": list(privileges)}


def _api_key(engine: Address, user: str) -> str:
    grant = {"grant_type": "password", "username": user, "password": PASSWORD, "api_key": {"name": user}}
    return str(engine.do("POST", "/_security/api_key/grant", grant)["encoded"])


def _load(engine: Address, index: str) -> None:
    vectors = {"type": "dense_vector", "dims": 8, "index": True, "similarity": "cosine"}
    meta = {"rerank_proxy": {"embedding": {"model": MODEL}}}
    properties = {"title": {"type": "text"}, "embedding": vectors}
    one_shard = {"number_of_shards": 1, "number_of_replicas": 0}
    engine.do("PUT", f"/{index}", {"settings": one_shard, "mappings": {"_meta": meta, "properties": properties}})
    lines: list[Any] = []
    for number, title in enumerate(TITLES):
        document = {"title": f"{title} of {index[-1]}", "embedding": embed(title)}
        lines += [{"index": {"_id": f"{index[-1]}{number}"}}, document]
    assert not engine.do("POST", f"/{index}/_bulk?refresh=true", lines)["errors"]


class Recorder(FakeServer):
    """The engine, handing on what it is asked and remembering it; by TLS where a context is given."""

    def __init__(self, engine: Address, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self._engine = engine
        self._tls = tls

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _talk(self, stream: Stream) -> None:
        while request := await stream.request():
            await self.remember(request)
            await stream.send(await asyncio.to_thread(self._handed_on, request))

    def _handed_on(self, request: Message) -> bytes:
        headers = {name.decode(): value.decode() for name, value in request.fields if name != b"host"}
        handed_on = Request(request.method, request.target, request.body, headers)
        reply = asked(self._engine.url, handed_on, self._engine.ca)
        kept = [(name, value) for name, value in reply.fields if name.lower() in {"x-elastic-product", "location"}]
        return answer(reply.status, reply.body, *kept, reason=reply.reason)

    @property
    def credentials(self) -> set[str]:
        return {value for request in self.requests for value in request.all("authorization")}


Start = Callable[..., Awaitable[str]]


@pytest.fixture
async def start(engine: Address, world: World, models: ShopModels) -> AsyncIterator[Start]:
    """Start a proxy with a route on the two indices; what is said goes into the route, or into the engine's section."""
    async with AsyncExitStack() as stack:

        async def start(engine_section: Mapping[str, Any] | None = None, **of_route: Any) -> str:
            section = {"url": engine.url, "ca_file": engine.ca} | PATIENT_ENGINE | dict(engine_section or {})
            patient = {"embed_timeout_seconds": 20, "rerank_timeout_seconds": 20, "connect_timeout_seconds": 20}
            settings = {
                "listen": {"port": 0},
                "engine": section,
                "models": {"url": models.url} | patient,
                "routes": [route(world) | of_route],
            }
            config = msgspec.convert(settings, Config)
            listener = await listen(config, TOKEN, {"DISCOVERY": world.discovery}, stack)
            return f"http://127.0.0.1:{listener.port}"

        yield start


def route(world: World) -> dict[str, Any]:
    semantic = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20}
    return {"index": world.pattern, "passage": ["title"], "semantic": semantic, "budget_ms": 60_000}


async def ask(url: str, request: Request, ca: str | None = None) -> Reply:
    return await asyncio.to_thread(asked, url, request, ca)


def found(reply: Reply) -> list[tuple[str, str]]:
    return [(hit["_index"], hit["_id"]) for hit in reply.hits]


@pytest.mark.parametrize("who", ["first", "both", "reader", "run_as", "api_key", "bearer"])
@pytest.mark.parametrize(
    "names", ["{0.first}", "{0.second}", "*", "{0.alias}", "{0.pattern}", "{0.first},{0.second}", "{0.first},*-b"]
)
async def test_callers_get_what_they_get_without_the_proxy(
    who: str, names: str, engine: Address, world: World, start: Start
) -> None:
    """Whatever credentials and names: the same indices, hits and total, or the same error."""
    request = search(names.format(world), world.callers[who])
    through = await ask(await start(semantic=None), request)
    straight = await ask(engine.url, request, engine.ca)
    assert straight.status == through.status
    if straight.status == 200:
        assert ("reranked", straight.total) == (through.outcome, through.total)
        assert sorted(found(straight)) == sorted(found(through))
    else:
        assert (403, straight.body) == (through.status, through.body)


@pytest.mark.parametrize("who", ["first", "reader", "run_as", "api_key"])
async def test_knn_respects_the_callers_rights(who: str, world: World, start: Start, models: ShopModels) -> None:
    """No other text is sent to a model."""
    reply = await ask(await start(embedding_model=MODEL), search(world.pattern, world.callers[who]))
    assert ("reranked", {world.first}) == (reply.outcome, {index for index, _ in found(reply)})
    assert "a2" in reply.ids  # the notebook, which no word finds
    assert {"a"} == {text[-1] for call in models.reranked for text in call["documents"]}


@pytest.mark.parametrize(
    "sent", [{}, {"Authorization": basic("nobody")}, {"Authorization": "ApiKey bm9uZTpub25l"}, {"Authorization": "x"}]
)
@pytest.mark.parametrize("target", ["/{0.first}/_search", "/", "/{0.first}/_doc/1"])
async def test_a_401_is_relayed_unchanged(
    sent: Mapping[str, str], target: str, engine: Address, world: World, start: Start
) -> None:
    """With the engine's WWW-Authenticate header."""
    request = Request("GET", target.format(world), headers=sent)
    straight, through = await ask(engine.url, request, engine.ca), await ask(await start(), request)
    assert (401, straight.body) == (through.status, through.body)
    assert straight.header("www-authenticate") == through.header("www-authenticate")


@pytest.mark.parametrize(("one", "other"), [("both", "first"), ("boss", "run_as")])
async def test_a_cached_ranking_serves_only_its_caller(one: str, other: str, world: World, start: Start) -> None:
    """Though everything else is the same."""
    url = await start()
    whole = found(await ask(url, search(world.pattern, world.callers[one])))
    page = await ask(url, search(world.pattern, world.callers[other], **{"from": 2}))
    assert {world.first, world.second} == {index for index, _ in whole}
    assert {world.first} == {index for index, _ in found(page)}
    assert "rerank;" in page.header("Server-Timing")  # ranked anew, with the scores of the same passages
    own = found(await ask(await start(), search(world.pattern, world.callers[other])))
    assert own[2:] == found(page)


@pytest.mark.parametrize("start_of_page", [1, 4], ids=["in the head", "after the head"])
async def test_a_caller_who_lost_rights_is_shown_nothing_of_the_cached_ranking(
    start_of_page: int, engine: Address, world: World, start: Start
) -> None:
    """No hits, and no count of them beyond the places that documents of the head keep."""
    role = world.first.rpartition("-")[0]
    narrowed = {"indices": [_may(world.first, "read", "view_index_metadata")]}
    url, name = await start(semantic=None, rank_window_size=4), f"{role}-narrowed"
    engine.do("PUT", f"/_security/role/{name}", {"indices": [_may(world.pattern, "read", "view_index_metadata")]})
    engine.do("PUT", f"/_security/user/{name}", {"password": PASSWORD, "roles": [name]})
    caller, page = (
        {"Authorization": basic(name)},
        {"from": start_of_page, "aggs": {"in": {"terms": {"field": "_index"}}}},
    )
    before = await ask(url, search(world.pattern, caller))
    engine.do("PUT", f"/_security/role/{name}", narrowed)
    through = await ask(url, search(world.pattern, caller, **page))
    straight = await ask(engine.url, search(world.pattern, caller, **page), engine.ca)
    engine.do("DELETE", f"/_security/user/{name}")
    engine.do("DELETE", f"/_security/role/{name}")
    assert {world.first, world.second} == {index for index, _ in found(before)}
    assert {world.first} >= {index for index, _ in found(through)}
    assert straight.json["aggregations"] == through.json["aggregations"]
    hidden = sum(index == world.second for index, _ in found(before)[:4])
    assert straight.total["value"] <= through.total["value"] <= straight.total["value"] + hidden


WAYS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"authorization_env": "DISCOVERY"}, {}, "reranked"),
    ({}, {"embedding_model": MODEL}, "reranked"),
    ({}, {}, 'degraded;stages="semantic";reason=mapping_unreadable'),
]


@pytest.mark.parametrize(("section", "of_route", "outcome"), WAYS)
async def test_a_read_only_caller_gets_knn_by_the_proxys_credentials(
    section: dict[str, Any],
    of_route: dict[str, Any],
    outcome: str,
    engine: Address,
    world: World,
    start: Start,
    models: ShopModels,
) -> None:
    """They are used for mappings only; or the configuration names the model."""
    reader = world.callers["reader"]
    for path in ("/", f"/{world.first}", f"/{world.first}/_mapping"):
        assert 403 == (await ask(engine.url, Request("GET", path, headers=reader), engine.ca)).status
    async with Recorder(engine) as recorder:
        url = await start({"url": recorder.url, **section}, **of_route)
        replies = [await ask(url, search(world.first, reader)) for _ in range(2)]
    assert [outcome] * 2 == [reply.outcome for reply in replies]
    assert (outcome == "reranked") == all("a2" in reply.ids for reply in replies)
    assert ({MODEL} if outcome == "reranked" else set()) == {call["model"] for call in models.embedded}
    by_discovery = {each.target for each in recorder.requests if each.header("authorization") == world.discovery}
    assert ({"/", f"/{world.first}"} if section else set()) == by_discovery
    by_reader = [each.target for each in recorder.requests if each.header("authorization") == reader["Authorization"]]
    assert len(recorder.requests) == len(by_reader) + len(by_discovery)  # nobody else's, and what is known is not asked
    assert (1, 1) == (by_reader.count("/"), by_reader.count(f"/{world.first}"))  # nor what was refused


async def test_resolved_names_and_mappings_are_cached_by_caller(engine: Address, world: World, start: Start) -> None:
    """The engine's version is shared."""
    async with Recorder(engine) as recorder:
        url = await start({"url": recorder.url})
        for who in ("first", "both", "first"):
            await ask(url, search(world.first, world.callers[who]))
    told = [(each.target, each.header("authorization")) for each in recorder.requests if each.method == "GET"]
    both = [world.callers[who]["Authorization"] for who in ("first", "both")]
    paths = (f"/_resolve/index/{world.first}", f"/{world.first}")
    assert sorted([("/", both[0]), *((path, who) for path in paths for who in both)]) == sorted(told)


async def test_credentials_go_only_where_they_belong(
    engine: Address, world: World, models: ShopModels, tmp_path: Path, authority: trustme.CA
) -> None:
    """The caller's to the engine alone, the token to the models alone, and none to the log."""
    _write(authority, tmp_path)
    shown = {"certificate_file": str(tmp_path / "own.crt"), "key_file": str(tmp_path / "own.key")}
    caller = {**world.callers["reader"], "Cookie": "sid=secret-cookie", "X-Forwarded-User": "secret-user"}
    async with Recorder(engine) as recorder:
        settings: dict[str, Any] = {
            "listen": {"port": 0, **shown},
            "engine": {"url": recorder.url, "authorization_env": "DISCOVERY"} | PATIENT_ENGINE,
            "models": {"url": models.url},
            "routes": [route(world)],
            "log": {"level": "debug"},
        }
        environment = {"DEEPINFRA_TOKEN": TOKEN, "DISCOVERY": world.discovery}
        async with serving(tmp_path, settings, environment) as (command, url):
            wrong = caller | {"Authorization": basic("nobody", "secret-password")}
            ca = str(tmp_path / "ca.crt")
            replies = [await ask(url, search(world.pattern, each), ca) for each in (caller, wrong)]
            command.process.terminate()
            await command.ended()
    assert [200, 401] == [reply.status for reply in replies]
    at_models = "".join(message.head.decode() for message in models.requests)
    at_engine = "".join(message.head.decode() for message in recorder.requests)
    said = "".join(command.lines) + "".join(reply.body.decode() for reply in replies)
    secrets = [*caller.values(), wrong["Authorization"], PASSWORD, "secret-password", world.discovery]
    assert [] == [secret for secret in [*secrets, TOKEN] if secret in said]
    assert ([], True) == ([secret for secret in secrets if secret in at_models], TOKEN in at_models)
    assert (False, True) == (TOKEN in at_engine, "secret-cookie" in at_engine)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _write(authority: trustme.CA, folder: Path) -> None:
    own = authority.issue_cert("127.0.0.1")
    own.cert_chain_pems[0].write_to_path(str(folder / "own.crt"))
    own.private_key_pem.write_to_path(str(folder / "own.key"))
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    trustme.CA().cert_pem.write_to_path(str(folder / "other-ca.crt"))


def _demanding(authority: trustme.CA) -> ssl.SSLContext:
    """A server's context that takes only clients with a certificate of this authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_a_client_certificate_is_presented_to_the_engine(
    engine: Address, world: World, start: Start, tmp_path: Path, authority: trustme.CA
) -> None:
    """For requests passed through and for searches."""
    _write(authority, tmp_path)
    files = {"ca_file": "ca.crt", "certificate_file": "own.crt", "key_file": "own.key"}
    async with Recorder(engine, _demanding(authority)) as recorder:
        url = await start({"url": recorder.url} | {key: str(tmp_path / name) for key, name in files.items()})
        passed = await ask(url, Request("GET", "/_security/_authenticate", headers=world.callers["first"]))
        searched = await ask(url, search(world.first, world.callers["first"]))
    assert (200, "reranked") == (passed.status, searched.outcome)


@pytest.mark.parametrize("target", ["/", "/{0.first}/_search"])
async def test_an_untrusted_engine_certificate_is_a_502(
    target: str, engine: Address, world: World, start: Start, tmp_path: Path, authority: trustme.CA
) -> None:
    """In the engine's format; the log has address and reason, and no secret."""
    _write(authority, tmp_path)
    request = Request("GET", target.format(world), headers=world.callers["first"])
    async with Recorder(engine, _demanding(authority)) as recorder:
        with structlog.testing.capture_logs() as log:
            reply = await ask(await start({"url": recorder.url, "ca_file": str(tmp_path / "other-ca.crt")}), request)
    error = reply.json["error"]
    assert (502, "engine_unreachable", []) == (reply.status, error["type"], recorder.requests)
    assert "127.0.0.1" not in reply.body.decode()
    (unreachable,) = [line for line in log if line["event"] == "engine_unreachable"]
    assert f"engine: 127.0.0.1:{recorder.port}: " in unreachable["detail"]
    assert "CERTIFICATE_VERIFY_FAILED" in unreachable["detail"]
    secret = world.callers["first"]["Authorization"].removeprefix("Basic ")
    assert [] == [said for said in (reply.body.decode(), repr(log)) if secret in said]


async def test_the_official_client_connects_by_https(
    engine: Address, world: World, models: ShopModels, tmp_path: Path, authority: trustme.CA
) -> None:
    """It trusts the proxy's certificate as it would trust the engine's."""
    _write(authority, tmp_path)
    shown = {"certificate_file": str(tmp_path / "own.crt"), "key_file": str(tmp_path / "own.key")}
    settings = {
        "listen": {"port": 0, **shown},
        "engine": {"url": engine.url} | ({"ca_file": engine.ca} if engine.ca else {}),
        "models": {"url": models.url},
        "routes": [route(world)],
    }
    async with serving(tmp_path, settings, {"DEEPINFRA_TOKEN": TOKEN}) as (_, url):
        user = base64.b64decode(world.callers["first"]["Authorization"].split()[1]).decode().split(":")[0]
        client = AsyncElasticsearch(url, ca_certs=str(tmp_path / "ca.crt"), basic_auth=(user, PASSWORD))
        async with client:
            reply = await client.search(index=world.first, query=QUERY["query"])
    assert ("https://", "reranked") == (url[:8], reply.meta.headers["x-rerank"])
