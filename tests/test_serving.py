"""`rerank-proxy serve` as a process before fakes: admin port, reload by signal and by watching, draining."""

import asyncio
import json
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import trustme

from tests.conftest import QUERY
from tests.fakes import Client, FakeEngine, FakeModels, Message, ids, request, waits_for
from tests.integration.commands import Running, running
from tests.test_fault_matrix import KNN, OWN, WITHOUT_SEMANTIC

ROUTE = {"index": "products*", "passage": ["title"]}


@dataclass
class Served:
    """The process, its file, and clients of both ports."""

    command: Running
    file: Path
    settings: dict[str, Any]
    port: int
    admin_port: int
    client: Client
    admin: Client

    def write(self, **settings: Any) -> None:
        """Put other settings in the place of the file, as an editor or an orchestrator does."""
        other = self.file.with_suffix(".new")
        other.write_bytes(msgspec.yaml.encode(self.settings | settings))
        other.replace(self.file)

    async def outcome(self) -> str:
        return (await self.client.search("/products/_search", QUERY)).header("x-rerank")

    async def ask(self, method: str, target: str) -> Message:
        """Ask at the admin port."""
        await self.admin.send(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
        return await self.admin.answer(method)


@asynccontextmanager
async def served(
    folder: Path,
    engine: FakeEngine,
    models: FakeModels,
    *options: str,
    more: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
) -> AsyncIterator[Served]:
    settings = {
        "listen": {"port": 0},
        "admin": {"port": 0},
        "engine": {"url": engine.url, "resolve_timeout_seconds": 30},
        "models": {"url": models.url, "canary": False},
        "routes": [ROUTE],
    } | dict(more or {})
    file = folder / "config.yaml"
    file.write_bytes(msgspec.yaml.encode(settings))
    async with AsyncExitStack() as stack:
        command = await stack.enter_async_context(
            running("serve", "-c", str(file), *options, environment=environment, within=within)
        )
        started = json.loads(await command.until("listening"))
        ports = [urlsplit(started[name]).port or 0 for name in ("address", "admin")]
        clients = [await Client.to(port) for port in ports]
        for client in clients:
            stack.callback(client.close)
        yield Served(command, file, settings, ports[0], ports[1], *clients)


async def test_sighup_reloads_the_settings_unless_they_are_invalid(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    async with served(tmp_path, engine, models) as proxy:
        assert "reranked" == await proxy.outcome()
        proxy.write(routes=[])
        proxy.command.process.send_signal(signal.SIGHUP)
        await proxy.command.until('"reloaded"')
        assert "" == await proxy.outcome()
        proxy.write(routes=[ROUTE | {"tiers": "fast"}])
        proxy.command.process.send_signal(signal.SIGHUP)
        refused = json.loads(await proxy.command.until("reload_failed"))
        assert ("error", True) == (refused["log.level"], "routes[0].tiers: unknown key" in refused["message"])
        assert f"{proxy.file}:" in refused["message"]
        assert ("", 200) == (await proxy.outcome(), (await proxy.ask("GET", "/readyz")).status)


async def test_the_admin_port_reloads_switches_reranking_and_shows_the_state(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    async with served(tmp_path, engine, models) as proxy:
        proxy.write(routes=[ROUTE | {"rank_window_size": 7}], listen={"port": 1})
        reloaded = (await proxy.ask("POST", "/reload")).json()
        assert {"changed": ["routes[0]"], "needs_restart": ["listen.port"]} == reloaded
        shown = (await proxy.ask("GET", "/config")).json()["settings"]
        assert (7, 0) == (shown["routes"][0]["rank_window_size"], shown["listen"]["port"])
        await proxy.ask("POST", "/reranking/off")
        assert "bypassed;reason=switched_off" == await proxy.outcome()
        await proxy.ask("POST", "/reload")
        assert "bypassed;reason=switched_off" == await proxy.outcome()
        await proxy.ask("POST", "/reranking/on")
        assert "reranked" == await proxy.outcome()
        metrics = (await proxy.ask("GET", "/metrics")).content.decode()
        assert 'rerank_proxy_searches_total{outcome="bypassed",reason="switched_off",route="products*"} 2.0' in metrics
        assert 'rerank_proxy_config_reloads_total{result="ok"} 2.0' in metrics


async def test_a_reload_ends_also_if_the_client_that_asked_for_it_leaves(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    async with served(tmp_path, engine, models) as proxy:
        proxy.write(routes=[])
        await proxy.admin.send(b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        proxy.admin.break_off()
        await proxy.command.until('"reloaded"')
        assert "" == await proxy.outcome()


async def test_a_watched_file_is_reloaded(tmp_path: Path, engine: FakeEngine, models: FakeModels) -> None:
    async with served(tmp_path, engine, models, "--watch") as proxy:
        assert "reranked" == await proxy.outcome()
        proxy.write(routes=[])
        await proxy.command.until('"reloaded"')
        assert "" == await proxy.outcome()


async def test_while_draining_it_is_not_ready_and_finishes_running_requests(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    """The running search is reranked, new clients cannot connect, and the exit code is 0."""
    held = asyncio.Event()
    models.faults["rerank"] = waits_for(held)
    async with served(tmp_path, engine, models) as proxy:
        assert {"status": "ready", "reranking": "on"}.items() <= (await proxy.ask("GET", "/readyz")).json().items()
        body = json.dumps(QUERY).encode()
        await proxy.client.send(request("POST", "/products/_search", body, content_type="application/json"))
        await models.until_asked("rerank")
        proxy.command.process.terminate()
        await proxy.command.until("stopping")
        draining = await proxy.ask("GET", "/readyz")
        assert (503, "draining") == (draining.status, draining.json()["status"])
        assert 200 == (await proxy.ask("GET", "/healthz")).status
        held.set()
        assert "reranked" == (await proxy.client.answer()).header("x-rerank")
        assert 0 == await proxy.command.ended()


async def test_while_it_drains_the_settings_are_not_read_again(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    held = asyncio.Event()
    models.faults["rerank"] = waits_for(held)
    async with served(tmp_path, engine, models) as proxy:
        body = json.dumps(QUERY).encode()
        await proxy.client.send(request("POST", "/products/_search", body, content_type="application/json"))
        await models.until_asked("rerank")
        proxy.command.process.terminate()
        await proxy.command.until("stopping")
        proxy.write(routes=[])
        proxy.command.process.send_signal(signal.SIGHUP)
        await proxy.command.until("reload_failed", '"reloaded"')
        assert "the process is ending" in proxy.command.lines[-1]
        proxy.command.process.terminate()
        held.set()
        assert "reranked" == (await proxy.client.answer()).header("x-rerank")
        assert 0 == await proxy.command.ended()


async def test_signals_that_come_while_it_ends_do_not_kill_it(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    """A second SIGTERM would otherwise lose the last log lines."""
    async with served(tmp_path, engine, models) as proxy:
        process = proxy.command.process
        process.terminate()
        while process.returncode is None:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                with suppress(ProcessLookupError):
                    process.send_signal(number)
            await asyncio.sleep(0)
        assert 0 == process.returncode


def _open_files(pid: int) -> set[Path]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(descriptor.readlink())
    return found


async def test_it_may_end_while_it_reads_certificates(tmp_path: Path, engine: FakeEngine, models: FakeModels) -> None:
    """OpenSSL, which reads them in another thread, must not be cleaned up meanwhile: that is a crash.

    They are so many that reading them takes longer than the process waits.
    """
    authorities, certificate = tmp_path / "ca.pem", trustme.CA().cert_pem.bytes()
    authorities.write_bytes(certificate)
    of_models = {"url": models.url, "canary": False, "ca_file": str(authorities)}
    async with served(tmp_path, engine, models, more={"models": of_models}) as proxy:
        for client in (proxy.client, proxy.admin):
            client.close()
        authorities.write_bytes(certificate * 20_000)
        proxy.command.process.send_signal(signal.SIGHUP)
        while authorities not in _open_files(proxy.command.process.pid):  # noqa: ASYNC110  as below
            await asyncio.sleep(0)
        proxy.command.process.terminate()
        assert 0 == await proxy.command.ended()
        assert "stopping" in proxy.command.lines[-1]


HANGS = """
import io, os, select, sys
folder, opened, stat = sys.argv[sys.argv.index("-c") + 1].rpartition("/")[0], io.open, os.stat

def waits(call):
    def waiting(file, *more, **named):
        while str(file).startswith(folder) and os.access(folder + "/gone", os.F_OK):
            os.close(os.open(folder + "/waits", os.O_CREAT))
            select.select([], [], [], 0.05)
        return call(file, *more, **named)
    return waiting

io.open, os.stat = waits(opened), waits(stat)
"""
"""All files of the folder of the settings hang while there is one named `gone`, as on a file server that is away."""


@pytest.mark.parametrize("begun", ["reload", "reload by watching", "spend", "certificates"])
async def test_a_file_that_hangs_neither_stops_requests_nor_the_end(
    tmp_path: Path, engine: FakeEngine, models: FakeModels, begun: str
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HANGS)
    folder = tmp_path / "files"
    folder.mkdir()
    authority = folder / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    more = {
        "spend": {"file": str(folder / "spend.json")},
        "models": {"url": models.url, "canary": False, "ca_file": str(authority)},
    }
    environment = {"PYTHONPATH": str(tmp_path / "site")}
    options = ("--watch",) if begun == "reload by watching" else ()
    async with served(folder, engine, models, *options, more=more, environment=environment) as proxy:
        assert "reranked" == await proxy.outcome()
        if begun == "certificates":
            proxy.write(models={"url": models.url, "canary": False, "ca_file": str(authority), "embed_api": "openai"})
        else:
            proxy.write(routes=[ROUTE])
        (folder / "gone").touch()
        if begun != "spend":
            proxy.command.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(1.5)
        assert "reranked" == await proxy.outcome()
        proxy.command.process.terminate()
        assert 0 == await asyncio.wait_for(proxy.command.ended(), 60)


async def test_a_file_that_hangs_at_the_start_does_not_keep_the_process_from_ending(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    (tmp_path / "site").mkdir()
    settings = {
        "listen": {"port": 0},
        "engine": {"url": engine.url},
        "models": {"url": models.url, "canary": False},
        "spend": {"file": str(tmp_path / "spend" / "spend.json")},
        "routes": [ROUTE],
    }
    file = tmp_path / "config.yaml"
    file.write_bytes(msgspec.yaml.encode(settings))
    site = {"PYTHONPATH": str(tmp_path / "site")}
    hanging = HANGS.replace("startswith(folder)", 'startswith(folder + "/spend")').replace("/gone", "")
    (tmp_path / "site" / "sitecustomize.py").write_text(hanging)
    async with running("serve", "-c", str(file), environment=site) as command:
        while not (tmp_path / "waits").exists():  # noqa: ASYNC110  the process tells nothing else
            await asyncio.sleep(0)
        command.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(1)
        assert command.process.returncode is None
        command.process.terminate()
        assert 0 == await asyncio.wait_for(command.ended(), 60)
        assert not [line for line in command.lines if '"listening"' in line]


async def test_without_standard_input_and_output_it_serves_and_ends(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    """Their descriptors are not given to connections."""
    without = ("sh", "-c", 'exec "$0" "$@" <&- >&-')
    async with served(tmp_path, engine, models, within=without) as proxy:
        assert "reranked" == await proxy.outcome()
        streams = [Path(f"/proc/{proxy.command.process.pid}/fd/{number}") for number in (0, 1)]
        assert [Path(os.devnull)] * 2 == [each.readlink() for each in streams]
        proxy.command.process.terminate()
        assert 0 == await proxy.command.ended()


async def test_settings_from_a_pipe_are_not_read_again(tmp_path: Path, engine: FakeEngine, models: FakeModels) -> None:
    """Reading the pipe again would block for ever, or return a file without routes."""
    settings = {
        "listen": {"port": 0},
        "engine": {"url": engine.url, "resolve_timeout_seconds": 30},
        "models": {"url": models.url, "canary": False},
        "admin": {"port": 0},
        "routes": [ROUTE],
    }
    os.mkfifo(pipe := tmp_path / "config.yaml")
    async with running("serve", "-c", str(pipe)) as command:
        await asyncio.to_thread(pipe.write_bytes, msgspec.yaml.encode(settings))
        started = json.loads(await command.until("listening"))
        command.process.send_signal(signal.SIGHUP)
        refused = json.loads(await command.until("reload_failed", '"reloaded"'))
        assert f"{pipe}: is not a file" in refused["message"]
        client = await Client.to(urlsplit(started["address"]).port or 0)
        assert "reranked" == (await client.search("/products/_search", QUERY)).header("x-rerank")
        client.close()
        command.process.terminate()
        assert 0 == await command.ended()


async def test_an_admin_port_on_another_address_needs_a_token(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("admin: {host: 0.0.0.0, port: 0}\nlisten: {port: 0}\n")
    async with running("serve", "-c", str(file)) as command:
        assert 1 == await command.ended()
    assert "RERANK_PROXY_ADMIN_TOKEN is not set, but the admin port at 0.0.0.0" in "".join(command.lines)


@pytest.mark.parametrize("given", [{}, {"RERANK_PROXY_ADMIN_TOKEN": "the-token-of-the-admin-port"}])
async def test_the_token_appears_nowhere(
    tmp_path: Path, engine: FakeEngine, models: FakeModels, given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    async with served(tmp_path, engine, models) as proxy:
        refused = await proxy.ask("GET", "/config")
        assert (401 if given else 200) == refused.status
        proxy.command.process.terminate()
        await proxy.command.ended()
    assert "the-token-of-the-admin-port" not in "".join(proxy.command.lines) + refused.content.decode()


SEMANTIC = {"field": "embedding", "dimensions": 3, "timeout_seconds": 2}


async def test_every_engine_fault_gets_a_response(tmp_path: Path, engine: FakeEngine, models: FakeModels) -> None:
    """In the client's own search and in the added one; every search is logged and counted."""
    route = ROUTE | {"semantic": SEMANTIC, "rank_window_size": 10, "budget_ms": 60_000}
    told: dict[str, tuple[int, str]] = {}
    async with served(tmp_path, engine, models, more={"routes": [route]}) as proxy:
        assert "reranked" == await proxy.outcome()
        faults = [*(("lexical", name, own.fault) for name, own in OWN.items())]
        faults += [("semantic", name, row.fault) for name, row in KNN.items()]
        for number, (kind, name, fault) in enumerate(faults):
            engine.faults = {kind: fault}
            client = await Client.to(proxy.port)
            body = {"query": {"match": {"title": f"laptop {number}"}}}
            answered = await client.search("/products/_search", body, x_opaque_id=f"{kind} {name}")
            client.close()
            told[f"{kind} {name}"] = answered.status, answered.header("x-rerank")
            assert kind == "lexical" or WITHOUT_SEMANTIC == ids(answered)
        engine.faults = {}
        assert "reranked" == await proxy.outcome()
        counted = (await proxy.ask("GET", "/metrics")).content.decode()
        proxy.command.process.terminate()
        await proxy.command.ended()
    own = {f"lexical {name}": (own.status, f"bypassed;reason={own.reason}") for name, own in OWN.items()}
    added = {f"semantic {name}": (200, f'degraded;stages="semantic";reason={row.reason}') for name, row in KNN.items()}
    assert own | added == told
    lines = {event.get("http.request.id"): event["outcome"] for event in proxy.command.events if "outcome" in event}
    assert {name: outcome.partition(";")[0] for name, (_, outcome) in told.items()} == {
        name: lines[name] for name in told
    }
    found = re.findall(r'rerank_proxy_searches_total\{[^}]*outcome="(\w+)"[^}]*\} ([\d.]+)', counted)
    totals = Counter[str]()
    for outcome, count in found:
        totals[outcome] += int(float(count))
    assert {"reranked": 2, "bypassed": len(OWN), "degraded": len(KNN)} == totals
