"""The admin port: who may ask what, health, metrics, the settings in force, and the kill switch."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from proxy.app.admin import open_admin
from proxy.app.control import BreakerAction, Reloaded, State
from proxy.bounds import ADMIN_CONNECTIONS
from proxy.settings.config import Admin
from proxy.settings.rollout import Switches
from proxy.upstream.spending.report import Costs, MonthCosts
from tests.conftest import Log
from tests.fakes import Client

TOKEN = "token-of-the-admin-port"
GET = ("/metrics", "/config", "/costs", "/reranking", "/breakers")
POST = ("/reload", "/reranking/off", "/reranking/on", "/breakers/open?name=a")


@dataclass
class Breaker:
    """One breaker, called `a`."""

    actions: list[BreakerAction] = field(default_factory=list)

    def states(self) -> Mapping[str, str]:
        return {"a": "closed"}

    def control(self, name: str, action: BreakerAction) -> None:
        if name != "a":
            raise KeyError(name)
        self.actions.append(action)


@dataclass
class Running:
    """A proxy as the port sees it."""

    state: State = State.READY
    switches: Switches = field(default_factory=Switches)
    breakers: Breaker = field(default_factory=Breaker)
    reloaded: Reloaded = field(default_factory=Reloaded)
    reloads: int = 0

    def verdicts(self) -> Mapping[str, Any]:
        return {"engine": {"node-1": "unreachable"}}

    def settings(self) -> Mapping[str, Any]:
        return {"settings": {}}

    def costs(self) -> Costs:
        return Costs([], MonthCosts("2026-11", 1.0, 0.5, 2.0))

    def metrics(self) -> bytes:
        return b"rerank_proxy_ready 1.0\n"

    async def reload(self) -> Reloaded:
        self.reloads += 1
        return self.reloaded


@dataclass
class Answered:
    status: int
    fields: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Operator:
    """Somebody who asks at the port."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self.port = port

    async def ask(self, method: str, target: str, **fields: str) -> Answered:
        async with self._session.request(method, f"http://127.0.0.1:{self.port}{target}", headers=fields) as answered:
            return Answered(answered.status, answered.headers, await answered.read())


@asynccontextmanager
async def opened(running: Running, token: str | None = None) -> AsyncIterator[Operator]:
    async with AsyncExitStack() as stack:
        port = await open_admin(Admin(port=0), running, token, stack)
        assert port is not None
        yield Operator(await stack.enter_async_context(aiohttp.ClientSession()), port)


@pytest.mark.parametrize(("state", "status"), [(State.STARTING, 503), (State.READY, 200), (State.DRAINING, 503)])
async def test_readiness_fails_only_while_starting_or_draining(state: State, status: int) -> None:
    """The body names an unreachable node, but the status stays 200: other replicas would have the same problem."""
    async with opened(Running(state)) as operator:
        ready, alive = await operator.ask("GET", "/readyz"), await operator.ask("GET", "/healthz")
    assert (status, {"status": state, "engine": {"node-1": "unreachable"}}) == (ready.status, ready.json)
    assert (200, {"status": "ok"}) == (alive.status, alive.json)


async def test_with_a_token_only_the_probes_are_open_and_return_only_the_state() -> None:
    async with opened(running := Running(), TOKEN) as operator:
        ready, alive = await operator.ask("GET", "/readyz"), await operator.ask("GET", "/healthz")
        assert (200, {"status": "ready"}, 200) == (ready.status, ready.json, alive.status)
        for method, targets in (("GET", GET), ("POST", POST)):
            for target in targets:
                for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
                    refused = await operator.ask(method, target, **given)
                    assert (401, "Bearer") == (refused.status, refused.fields["WWW-Authenticate"])
        assert (True, 0, []) == (running.switches.reranking, running.reloads, running.breakers.actions)
        for target in GET:
            assert 200 == (await operator.ask("GET", target, Authorization=f"Bearer {TOKEN}")).status
        known = await operator.ask("GET", "/readyz", Authorization=f"Bearer {TOKEN}")
    assert "engine" in known.json


@pytest.mark.parametrize(
    "fields",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}, {"Host": "evil.example:9291"}],
)
async def test_without_a_token_requests_from_web_pages_are_rejected(fields: dict[str, str]) -> None:
    async with opened(running := Running()) as operator:
        assert {403} == {(await operator.ask("POST", target, **fields)).status for target in POST}
        assert {403} == {(await operator.ask("GET", target, **fields)).status for target in GET}
    assert (True, 0) == (running.switches.reranking, running.reloads)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9291", "[::1]:9291", "127.0.0.1:1"])
async def test_without_a_token_requests_from_local_programs_are_accepted(host: str) -> None:
    async with opened(Running()) as operator:
        assert 200 == (await operator.ask("GET", "/config", Host=host)).status


async def test_metrics_are_in_the_text_format_of_prometheus() -> None:
    async with opened(Running()) as operator:
        found = await operator.ask("GET", "/metrics")
    assert ("text/plain; version=0.0.4; charset=utf-8", b"rerank_proxy_ready 1.0\n") == (
        found.fields["Content-Type"],
        found.body,
    )


async def test_the_kill_switch_keeps_its_state(log: Log) -> None:
    async with opened(running := Running()) as operator:
        for position, on in (("off", False), ("off", False), ("on", True)):
            switched = await operator.ask("POST", f"/reranking/{position}")
            asked = await operator.ask("GET", "/reranking")
            assert ({"enabled": on}, {"enabled": on}, on) == (switched.json, asked.json, running.switches.reranking)
    assert [("reranking_switched", "warning", on) for on in (False, False, True)] == [
        (event["event"], event["log_level"], event["enabled"]) for event in log
    ]


@pytest.mark.parametrize(
    ("reloaded", "status", "said"),
    [
        (Reloaded(changed=("routes[0]",)), 200, {"changed": ["routes[0]"], "needs_restart": []}),
        (Reloaded(needs_restart=("listen.port",)), 200, {"changed": [], "needs_restart": ["listen.port"]}),
        (Reloaded("config.yaml:3: routs: unknown key"), 422, {"error": "config.yaml:3: routs: unknown key"}),
    ],
)
async def test_a_reload_reports_its_result(reloaded: Reloaded, status: int, said: Any) -> None:
    async with opened(Running(reloaded=reloaded)) as operator:
        found = await operator.ask("POST", "/reload")
    assert (status, said) == (found.status, found.json)


async def test_a_breaker_is_controlled_by_its_name(log: Log) -> None:
    async with opened(running := Running()) as operator:
        for action in BreakerAction:
            assert {"a": "closed"} == (await operator.ask("POST", f"/breakers/{action}?name=a")).json
        unknown = await operator.ask("POST", "/breakers/open?name=b")
    assert (list(BreakerAction), 404) == (running.breakers.actions, unknown.status)
    assert "use one of a" in unknown.json["error"]


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [("GET", "/", 404), ("GET", "/reload", 405), ("POST", "/reranking/maybe", 404), ("POST", "/metrics", 405)],
)
async def test_an_unknown_path_is_a_json_error(method: str, target: str, status: int) -> None:
    async with opened(Running()) as operator:
        found = await operator.ask(method, target)
    assert (status, ["error"]) == (found.status, list(found.json))
    assert "GET /metrics, GET /config" in found.json["error"]
    assert "POST /reranking/on|off" in found.json["error"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/reranking"])
async def test_head_is_answered_like_get_without_a_body(path: str) -> None:
    """Some monitors ask so."""
    async with opened(Running()) as operator:
        full, head = await operator.ask("GET", path), await operator.ask("HEAD", path)
    assert (200, full.status, b"") == (head.status, 200, head.body)
    assert full.fields["Content-Length"] == head.fields["Content-Length"]


@pytest.mark.parametrize(("path", "methods"), [("/healthz", "GET, HEAD"), ("/reload", "POST")])
async def test_another_method_is_told_which_ones_are_allowed(path: str, methods: str) -> None:
    async with opened(Running()) as operator:
        found = await operator.ask("DELETE", path)
    assert (405, methods) == (found.status, found.fields["Allow"])


async def test_serve_runs_without_metrics_if_the_port_is_taken(log: Log) -> None:
    async with opened(Running()) as operator, AsyncExitStack() as stack:
        assert await open_admin(Admin(port=operator.port), Running(), None, stack) is None
    assert [("admin_unavailable", f"127.0.0.1:{operator.port}")] == [
        (event["event"], event["address"]) for event in log
    ]


async def test_no_port_is_opened_when_admin_is_disabled() -> None:
    async with AsyncExitStack() as stack:
        assert await open_admin(Admin(enabled=False), Running(), None, stack) is None


async def test_an_idle_client_does_not_delay_closing_the_port() -> None:
    stack = AsyncExitStack()
    port = await open_admin(Admin(port=0), Running(), None, stack)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(30):
        await stack.aclose()
    writer.close()


async def test_costs_are_shown_as_numbers() -> None:
    async with opened(Running()) as operator:
        shown = (await operator.ask("GET", "/costs")).json
    assert {"month": "2026-11", "usd": 1.0, "saved_usd": 0.5, "forecast_usd": 2.0} == shown["month"]


@pytest.mark.parametrize(
    "line",
    [
        "Authorization : Bearer {token}",
        "Authorization: Bearer {token}\x00",
        "Authorization: Bearer {token}\r\nContent-Length: 1\r\nContent-Length: 2",
        "Authorization: Bearer {token}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
    ],
)
async def test_a_malformed_request_is_neither_repeated_nor_logged(line: str, log: Log) -> None:
    """The token may be in it."""
    async with opened(Running(), TOKEN) as operator:
        client = await Client.to(operator.port)
        await client.send(f"GET /config HTTP/1.1\r\nHost: p\r\n{line.format(token=TOKEN)}\r\n\r\n".encode())
        refused = await client.left()
        client.close()
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert ([("refused", "warning")], False) == (
        [(event["event"], event["log_level"]) for event in log],
        TOKEN in f"{refused!r} {log}",
    )


async def test_connections_without_a_request_keep_nobody_out(log: Log) -> None:
    """Nor do they use up the descriptors, which searches need."""
    async with opened(Running(), TOKEN) as operator:
        held = [await Client.to(operator.port) for _ in range(3 * ADMIN_CONNECTIONS)]
        for number, client in enumerate(held):
            with suppress(ConnectionError):
                await client.send((b"", b"GET /met", b"POST /reload HTTP/1.1\r\nContent-Length: 9\r\n\r\n")[number % 3])
        assert 200 == (await operator.ask("GET", "/healthz")).status
        async with asyncio.timeout(60):
            await asyncio.gather(*(client.left() for client in held[: 2 * ADMIN_CONNECTIONS]))
        for client in held:
            client.close()


async def test_a_request_in_progress_outlasts_connections_that_wait() -> None:
    class Slow(Running):
        async def reload(self) -> Reloaded:
            asking.set()
            await may_end.wait()
            return Reloaded(changed=("routes[0]",))

    asking, may_end = asyncio.Event(), asyncio.Event()
    async with opened(Slow()) as operator:
        reloading = asyncio.ensure_future(operator.ask("POST", "/reload"))
        await asking.wait()
        held = [await Client.to(operator.port) for _ in range(3 * ADMIN_CONNECTIONS)]
        await held[0].left()
        may_end.set()
        assert ["routes[0]"] == (await reloading).json["changed"]
        for client in held:
            client.close()


@pytest.mark.parametrize("host", ["", "[::1].evil.example", "localhost.evil.example", "127.0.0.1@evil.example", "[::1"])
async def test_only_a_whole_loopback_host_is_one(host: str) -> None:
    async with opened(Running()) as operator:
        assert 403 == (await operator.ask("POST", "/reranking/off", Host=host)).status
