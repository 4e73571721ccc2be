"""New settings while requests run: all of them or none, and what has begun ends as it began."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from dataclasses import replace as replace_document
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from proxy.app import Proxy, listen_for, open_proxy
from proxy.app.control import BreakerAction, State
from proxy.app.process import Process, certificate_files
from proxy.settings.config import Admin, Callers, Config, Engine, Listen, Models
from proxy.settings.config import Log as LogSettings
from proxy.settings.config_file import read
from proxy.settings.yaml_file import ConfigError
from proxy.upstream.breaker import BreakerState
from tests.conftest import OTHER, QUERY, SCORES, TOKEN, Log, no_free_thread
from tests.endpoint_engine import DOCUMENTS, EndpointEngine, recorded
from tests.fakes import Client, Document, FakeEngine, FakeModels, ids, request, waits_for

RERANKED = ["d", "b", "c", "a"]
replace = msgspec.structs.replace


@dataclass
class Server:
    """A running proxy, and the settings that it finds when it reads them again."""

    process: Process
    proxy: Proxy
    port: int
    stack: AsyncExitStack
    found: Callable[[], Config]

    async def client(self) -> Client:
        client = await Client.to(self.port)
        self.stack.callback(client.close)
        return client


Start = Callable[[Config], Awaitable[Server]]


@pytest.fixture
async def start(log: Log) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def start(config: Config) -> Server:
            proxy = await open_proxy(config, TOKEN, {}, stack)

            def found() -> Config:
                return server.found()

            process = Process(proxy, found, {"DEEPINFRA_TOKEN": TOKEN})
            listener = await listen_for(proxy, stack)
            process.serves_on(listener)
            server = Server(process, proxy, listener.port, stack, lambda: config)
            return server

        yield start


async def outcome(server: Server, **fields: str) -> str:
    client = await server.client()
    return (await client.search("/products/_search", QUERY, **fields)).header("x-rerank")


def events(log: Log, name: str) -> list[Any]:
    return [event for event in log if event["event"] == name]


async def test_without_a_free_thread_a_reload_says_so_and_searches_go_on(start: Start, settings: Config) -> None:
    server = await start(settings)
    server.found = lambda: replace(settings, routes=())
    with no_free_thread():
        reloaded = await server.process.reload()
        assert ("the settings cannot be read now: can't start new thread", ()) == (reloaded.error, reloaded.changed)
        assert "reranked" == await outcome(server)
    assert "" == (await server.process.reload()).error
    assert "" == await outcome(server)


async def test_new_settings_apply_to_new_requests_only(
    start: Start, settings: Config, models: FakeModels, log: Log
) -> None:
    held = asyncio.Event()
    models.faults["rerank"] = waits_for(held)
    server = await start(settings)
    client = await server.client()
    body = msgspec.json.encode(QUERY)
    await client.send(request("POST", "/products/_search", body, content_type="application/json"))
    await models.until_asked("rerank")
    server.found = lambda: replace(settings, routes=(), models=replace(settings.models, connect_timeout_seconds=9))
    reloaded = await server.process.reload()
    assert "" == await outcome(server)
    held.set()
    answered = await client.answer()
    assert ("reranked", RERANKED) == (answered.header("x-rerank"), ids(answered))
    assert (("models.connect_timeout_seconds", "routes[0]"), ()) == (reloaded.changed, reloaded.needs_restart)
    assert [reloaded.changed] == [tuple(event["changed"]) for event in events(log, "reloaded")]
    server.found = lambda: settings
    await server.process.reload()
    assert "reranked" == await outcome(server)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("routes:\n  - index: a\n    tiers: fast\n", "f.yaml:3: routes[0].tiers: unknown key, did you mean `tier`?"),
        ("routes: [", "f.yaml:1: invalid YAML"),
        ("listen:\n  certificate_file: /none\n", "listen.certificate_file: /none: cannot be read"),
        ("engine: {authorization_env: UNSET}", "UNSET is not set, but engine.authorization_env names it"),
    ],
)
async def test_an_invalid_file_changes_nothing_and_is_reported_with_key_and_line(
    start: Start, settings: Config, log: Log, text: str, said: str
) -> None:
    server = await start(settings)
    server.found = lambda: read(text, "f.yaml", {})
    reloaded = await server.process.reload()
    assert (True, ()) == (reloaded.error.startswith(said), reloaded.changed)
    assert "reranked" == await outcome(server)
    (event,) = events(log, "reload_failed")
    assert ("error", True) == (event["log_level"], event["detail"].startswith(said))
    assert b'rerank_proxy_config_reloads_total{result="failed"} 1.0' in server.process.metrics()


async def test_keys_that_need_a_restart_are_named_and_keep_their_values(start: Start, settings: Config) -> None:
    server = await start(settings)
    server.found = lambda: replace(
        settings,
        listen=Listen(port=1),
        engine=replace(settings.engine, url="http://192.0.2.1:9200", resolve_timeout_seconds=20),
        admin=Admin(port=2),
        log=LogSettings(level="debug", query_text=True),
    )
    reloaded = await server.process.reload()
    assert ("admin.port", "engine.url", "listen.port", "log.level") == reloaded.needs_restart
    assert ("engine.resolve_timeout_seconds", "log.query_text") == reloaded.changed
    shown = server.process.settings()["settings"]
    assert (0, settings.engine.url, 20) == (
        shown["listen"]["port"],
        shown["engine"]["url"],
        shown["engine"]["resolve_timeout_seconds"],
    )
    assert "reranked" == await outcome(server)
    again = await server.process.reload()
    assert (reloaded.needs_restart, ()) == (again.needs_restart, again.changed)


async def test_settings_without_a_file_cannot_be_reloaded(settings: Config, log: Log) -> None:
    async with AsyncExitStack() as stack:
        proxy = await open_proxy(settings, TOKEN, {}, stack)
        assert "the settings were not read from a file" == (await Process(proxy, None, {}).reload()).error


async def test_forced_breakers_stay_forced_when_the_models_change(start: Start, settings: Config) -> None:
    server = await start(settings)
    assert "reranked" == await outcome(server)
    (name,) = [name for name in server.process.breakers.states() if name.startswith("reranker")]
    server.process.breakers.control(name, BreakerAction.OPEN)
    server.found = lambda: replace(settings, models=replace(settings.models, query_max_chars=1999))
    await server.process.reload()
    assert BreakerState.HELD_OPEN == server.process.breakers.states()[name]
    answered = await (await server.client()).search("/products/_search", OTHER)  # no score of it is cached
    assert 'degraded;stages="rerank";reason=breaker_open' == answered.header("x-rerank")


async def test_unchanged_models_keep_their_connections_and_vectors(
    start: Start, settings: Config, engine: FakeEngine, models: FakeModels
) -> None:
    server = await start(settings)
    await outcome(server)
    server.found = lambda: replace(settings, routes=(replace(settings.routes[0], rank_window_size=9),))
    await server.process.reload()
    assert "reranked" == await outcome(server)
    assert (1, 1) == (len(models.of("embed")), len(models.of("rerank")))
    before = models.connections
    server.found = lambda: replace(
        server.proxy.generation.config, models=Models(url=models.url, canary=False, query_max_chars=5)
    )
    await server.process.reload()
    assert "reranked" == await outcome(server)
    assert (2, True) == (len(models.of("embed")), models.connections > before)


async def test_an_earlier_generation_is_closed_when_its_last_request_has_ended(
    start: Start, settings: Config, models: FakeModels
) -> None:
    """Whichever of several reloads its models have survived."""
    held = asyncio.Event()
    models.faults["rerank"] = waits_for(held)
    server = await start(settings)
    client = await server.client()
    body = msgspec.json.encode(QUERY)
    await client.send(request("POST", "/products/_search", body, content_type="application/json"))
    await models.until_asked("rerank")
    first = server.proxy.generation
    for number in range(3):  # the same models, then others, twice
        others = replace(settings.models, query_max_chars=2000 + number)
        server.found = partial(replace, settings, models=others)
        await server.process.reload()
    assert (1, 1) == (first.running, len(models.open))
    held.set()
    assert "reranked" == (await client.answer()).header("x-rerank")
    await models.until_left()
    assert 0 == first.running


async def test_a_client_that_does_not_read_keeps_no_generation(
    start: Start, settings: Config, engine: FakeEngine
) -> None:
    engine.documents = [Document("a", "laptop " + "x" * 10_000_000, lexical=1.0)]
    server = await start(settings)
    client = await server.client()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport reads, too
    await client.send(request("POST", "/products/_search", msgspec.json.encode(QUERY), content_type="application/json"))
    await engine.until_asked("lexical")
    while server.proxy.generation.running:  # noqa: ASYNC110  it has no event
        await asyncio.sleep(0)
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert ("reranked", ["a"]) == ((answered := await client.answer()).header("x-rerank"), ids(answered))
    assert 200 == (await client.ask("GET", "/_cat/health")).status


async def test_a_generation_with_running_requests_is_not_closed(
    start: Start, settings: Config, models: FakeModels
) -> None:
    server = await start(settings)
    body = msgspec.json.encode(QUERY)
    held, searching = [asyncio.Event(), asyncio.Event()], []
    for number, event in enumerate(held):
        models.faults["rerank"] = waits_for(event)
        searching.append(client := await server.client())
        await client.send(request("POST", "/products/_search", body, content_type="application/json"))
        await models.until_asked("rerank", number + 1)
        others = replace(settings.models, query_max_chars=2001 + number)  # else both searches share one call
        server.found = partial(replace, settings, models=others)
        await server.process.reload()
    for event, client in zip(held, searching, strict=True):
        event.set()
        assert "reranked" == (await client.answer()).header("x-rerank")


@pytest.mark.parametrize(("window", "found"), [(10, "reranked"), (9, "")])
async def test_a_submitted_search_survives_a_reload_with_the_same_route(
    start: Start, settings: Config, window: int, found: str
) -> None:
    """If the route is another one or has changed, the engine's own response is relayed."""
    async with EndpointEngine(DOCUMENTS) as engine:
        settings = replace(settings, engine=replace(settings.engine, url=engine.url))
        server = await start(settings)
        client = await server.client()
        engine.running = True
        await client.search("/products/_async_search", QUERY)
        engine.running = False
        routes = (replace(settings.routes[0], rank_window_size=window),)
        server.found = lambda: replace(settings, routes=routes, steering=())
        await server.process.reload()
        answered = await client.ask("GET", f"/_async_search/{recorded('async_search.json')['id']}")
        assert (200, found) == (answered.status, answered.header("x-rerank"))
        client.close()


async def test_a_search_that_is_being_submitted_during_a_reload_stays_known(start: Start, settings: Config) -> None:
    async with EndpointEngine(DOCUMENTS) as engine:
        settings = replace(settings, engine=replace(settings.engine, url=engine.url))
        server = await start(settings)
        client = await server.client()
        held = asyncio.Event()
        engine.running, engine.faults["_async_search"] = True, waits_for(held)
        body = msgspec.json.encode(QUERY)
        await client.send(request("POST", "/products/_async_search", body, content_type="application/json"))
        await engine.until_asked("_async_search")
        server.found = lambda: replace(settings, steering=())
        await server.process.reload()
        held.set()
        assert "bypassed;reason=running" == (await client.answer()).header("x-rerank")
        engine.running = False
        answered = await client.ask("GET", f"/_async_search/{recorded('async_search.json')['id']}")
        assert "reranked" == answered.header("x-rerank")
        client.close()


@pytest.mark.parametrize("reloads", [False, True])
async def test_a_submitted_search_of_an_alias_survives_a_reload(
    start: Start, settings: Config, *, reloads: bool
) -> None:
    documents = [replace_document(each, index="products-2") for each in DOCUMENTS if each.index != "logs"]
    async with EndpointEngine(documents) as engine:
        engine.aliases = {"shop": ["products-1"]}
        routes = (replace(settings.routes[0], index="shop"),)
        settings = replace(settings, engine=replace(settings.engine, url=engine.url), routes=routes)
        server = await start(settings)
        client = await server.client()
        engine.running = True
        await client.search("/shop/_async_search", QUERY)
        engine.running, engine.aliases = False, {"shop": ["products-2"]}
        if reloads:
            server.found = lambda: replace(settings, steering=())
            await server.process.reload()
        answered = await client.ask("GET", f"/_async_search/{recorded('async_search.json')['id']}")
        assert "reranked" == answered.header("x-rerank")
        client.close()


async def test_ignored_headers_are_reloaded(start: Start, settings: Config, engine: FakeEngine) -> None:
    server = await start(settings)
    server.found = lambda: replace(settings, callers=Callers(ignore=("cf-ray",)))
    await server.process.reload()
    for number in range(2):
        assert "reranked" == await outcome(server, cf_ray=f"ray{number}")
    assert 1 == len(engine.of("resolve"))


async def test_log_options_are_reloaded(start: Start, settings: Config, log: Log) -> None:
    server = await start(settings)
    client = await server.client()
    await client.ask("GET", "/_cat/health")
    server.found = lambda: replace(settings, log=LogSettings(access=True, query_text=True))
    await server.process.reload()
    await client.ask("GET", "/_cat/health?v=1")
    await outcome(server)
    assert [("GET", "/_cat/health", "v=1", 200)] == [
        (line["method"], line["path"], line["query_string"], line["status"]) for line in events(log, "access")
    ]
    assert ["laptop"] == [line["query"] for line in events(log, "search")]


# TLS


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def show(authority: trustme.CA, file: Path) -> None:
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(file))


async def handshake(port: int, authority: trustme.CA) -> asyncio.StreamWriter:
    return (await asyncio.open_connection("127.0.0.1", port, ssl=trusting(authority)))[1]


async def test_a_new_certificate_is_used_for_new_connections(start: Start, settings: Config, tmp_path: Path) -> None:
    one, other, file = trustme.CA(), trustme.CA(), tmp_path / "proxy.pem"
    show(one, file)
    server = await start(replace(settings, listen=Listen(port=0, certificate_file=str(file))))
    earlier = Client(*await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting(one)))
    show(other, file)
    server.found = lambda: server.proxy.generation.config
    await server.process.reload()
    (await handshake(server.port, other)).close()
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(server.port, one)
    assert "reranked" == (await earlier.search("/products/_search", QUERY)).header("x-rerank")
    file.write_text("no certificate")
    assert "holds no certificate" in (await server.process.reload()).error
    (await handshake(server.port, other)).close()
    earlier.close()


async def test_the_engines_authority_is_reloaded(start: Start, settings: Config, tmp_path: Path) -> None:
    own, other, file = trustme.CA(), trustme.CA(), tmp_path / "ca.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.issue_cert("127.0.0.1").configure_cert(context)

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    engine = await asyncio.start_server(answers, "127.0.0.1", 0, ssl=context)
    port = engine.sockets[0].getsockname()[1]
    other.cert_pem.write_to_path(str(file))
    server = await start(replace(settings, engine=Engine(url=f"https://127.0.0.1:{port}", ca_file=str(file))))
    assert 502 == (await (await server.client()).ask("GET", "/")).status
    own.cert_pem.write_to_path(str(file))
    await server.process.reload()
    client = await server.client()
    assert 200 == (await client.ask("GET", "/")).status
    client.close()
    engine.close()


async def test_connections_opened_in_advance_are_not_used_after_a_reload(
    start: Start, settings: Config, engine: FakeEngine
) -> None:
    """They were opened with the earlier certificates."""
    server = await start(settings)
    before = 0
    while before < 3:  # the third one is spare
        client = await server.client()
        await client.ask("GET", "/_nodes")
        client.close()
        await asyncio.sleep(0)
        before = engine.connections
    await server.process.reload()
    await (await server.client()).ask("GET", "/_nodes")
    assert engine.requests[-1].connection > before


async def test_the_models_authority_is_reloaded(start: Start, settings: Config, tmp_path: Path) -> None:
    """Also if the file has the same name; one that cannot be read changes nothing."""
    own, other, file = trustme.CA(), trustme.CA(), tmp_path / "ca.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.issue_cert("127.0.0.1").configure_cert(context)
    other.cert_pem.write_to_path(str(file))
    async with FakeModels(SCORES, tls=context) as models:
        secure = replace(settings.models, url=models.url, ca_file=str(file))
        server = await start(replace(settings, models=secure))
        assert "unreachable" in await outcome(server)
        await server.process.reload()
        own.cert_pem.write_to_path(str(file))
        assert "unreachable" in await outcome(server)
        assert "" == (await server.process.reload()).error
        assert "reranked" == await outcome(server)
        before = server.proxy.generation.models
        await server.process.reload()
        assert before is server.proxy.generation.models
        file.write_text("no certificate")
        assert "models.ca_file" in (await server.process.reload()).error
        assert "reranked" == await outcome(server)


def test_the_files_of_all_certificates_are_watched() -> None:
    named = Config(
        listen=Listen(certificate_file="a", key_file="b"),
        engine=Engine(url="https://e", ca_file="c", certificate_file="d", key_file="e"),
        models=Models(ca_file="f"),
    )
    assert list("abdecf") == [str(path) for path in certificate_files(named)]


# Watching


async def test_a_changed_watched_file_is_reloaded(start: Start, settings: Config, tmp_path: Path, log: Log) -> None:
    """Also if a symbolic link is redirected to a file of the same size and time, and after an invalid file."""
    file, certificate = tmp_path / "config.yaml", tmp_path / "proxy.pem"
    file.write_text("one")
    show(trustme.CA(), certificate)
    server = await start(replace(settings, listen=Listen(port=0, certificate_file=str(certificate))))
    reads = asyncio.Queue[str]()
    loop = asyncio.get_running_loop()

    def found() -> Config:
        text = file.read_text()
        loop.call_soon_threadsafe(reads.put_nowait, text)
        if text == "mistake":
            raise ConfigError("f.yaml:1: a mistake")
        return server.proxy.generation.config

    server.found = found
    watching = asyncio.ensure_future(server.process.watch(file, 0.001))
    await asyncio.sleep(0)
    file.write_text("mistake")
    assert "mistake" == await reads.get()
    (tmp_path / "other").write_text("another")
    os.utime(tmp_path / "other", ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    file.unlink()
    file.symlink_to(tmp_path / "other")
    while "another" != await reads.get():
        pass
    show(trustme.CA(), certificate)
    assert "another" == await reads.get()
    watching.cancel()
    assert events(log, "reload_failed")


def test_a_process_is_starting_until_it_serves() -> None:
    assert ["starting", "ready", "draining"] == list(State)
