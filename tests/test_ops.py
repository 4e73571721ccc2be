"""What ops/ offers works: rules and queries name metrics that are there and move, and each tool takes its file."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, get_args

import kubernetes_validate
import msgspec
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from proxy.app import GRACE_S, listen_for, open_proxy
from proxy.app.admin import ROUTES
from proxy.app.control import BreakerAction
from proxy.app.process import Process
from proxy.cli import build_parser
from proxy.context import Ended, RequestRecord
from proxy.outcomes import BYPASS_REASONS, OutcomeName, answered
from proxy.settings.config import Cache, Config, Models, Spend
from proxy.settings.config_file import read
from proxy.settings.credentials import admin_token_of, token_of
from proxy.settings.yaml_file import ConfigError
from proxy.store.redis_store import RedisStore
from proxy.telemetry.log import Telemetry
from proxy.upstream.canary import KNOWN
from tests.canaries import known_scores
from tests.conftest import OTHER, QUERY, TOKEN, Log
from tests.fakes import Client, FakeEngine, FakeModels, closed_port, refuses, request, waits_for
from tests.readme import failures
from tests.redis_server import RedisServer, needs_redis, redis_server

OPS = Path(__file__).parent.parent / "ops"
ALERTS = OPS / "prometheus/alerts.yml"
MANIFESTS: list[Any] = list(yaml.safe_load_all((OPS / "kubernetes/rerank-proxy.yaml").read_text()))
DASHBOARD: Any = json.loads((OPS / "grafana/dashboard.json").read_text())
METRIC = re.compile(r"\b(?:rerank_proxy|process)_\w+")


def tool(name: str) -> str:
    """Find a program; where it is not installed, what needs it is skipped, and CI installs it."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def ran(*command: str, stdin: bytes | None = None) -> str:
    ended = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)  # noqa: S603
    assert 0 == ended.returncode, ended.stdout.decode()
    return ended.stdout.decode()


def of_rules() -> Iterator[str]:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def of_dashboard() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (annotation["expr"] for annotation in DASHBOARD["annotations"]["list"])
    yield from (each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query")


# Metrics


def samples(text: bytes) -> Mapping[str, Mapping[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[str(sorted(sample.labels.items()))] = sample.value
    return found


class ChargingModels(FakeModels):
    """Models whose provider charges."""

    def _scored(self, asked: Any) -> Any:
        return super()._scored(asked) | {"inference_status": {"cost": 0.001, "tokens_input": 42}}


CONSTANT = {"process_max_fds"}
OF_THE_SYSTEM = {"process_resident_memory_bytes"}
"""It moves when the system likes."""


async def lose(server: RedisServer, store: RedisStore) -> None:
    """Let Redis end, and the proxy notice."""
    await server.kill()
    store.try_soon()
    await store.tried()


@needs_redis
async def test_documented_metrics_exist_and_change(
    engine: FakeEngine, settings: Config, log: Log, tmp_path: Path
) -> None:
    """With searches reranked, degraded and waiting, a reload, and an engine that goes down."""
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(ChargingModels())
        redis = await stack.enter_async_context(redis_server(tmp_path))
        cache = Cache(redis_url=f"redis://127.0.0.1:{redis.port}")
        spend = Spend(max_usd_per_minute=1000)
        settings = msgspec.structs.replace(settings, models=Models(url=models.url), cache=cache, spend=spend)
        proxy = await open_proxy(settings, TOKEN, {"RERANK_PROXY_CACHE_KEY": "0123456789abcdef"}, stack)
        process = Process(proxy, lambda: settings, {"DEEPINFRA_TOKEN": TOKEN})
        seen = [samples(process.metrics())]
        assert proxy.fixed.caches.redis is not None
        await proxy.fixed.caches.redis.tried()
        listener = await listen_for(proxy, stack)
        process.serves_on(listener)
        lag = asyncio.ensure_future(process.measure_lag(0.001))
        stack.callback(lag.cancel)
        models.scores |= known_scores(0.9, 0.1)
        proxy.generation.watch_models()
        await models.until_asked("rerank", len(KNOWN))
        client, other = await Client.to(listener.port), await Client.to(listener.port)
        stack.callback(client.close)
        stack.callback(other.close)
        await client.search("/products/_search", QUERY)
        models.faults["rerank"] = refuses(503)
        await client.search("/products/_search", OTHER)
        held = asyncio.Event()
        engine.faults["semantic"] = waits_for(held)
        third = json.dumps({"query": {"match": {"title": "stand"}}}).encode()
        await other.send(request("POST", "/products/_search", third, content_type="application/json"))
        await engine.until_asked("semantic", 3)
        seen.append(samples(process.metrics()))
        await process.reload()
        for name in process.breakers.states():
            process.breakers.control(name, BreakerAction.OPEN)
        process.switches.reranking = False
        seen.append(samples(process.metrics()))
        held.set()
        await other.answer()
        await engine.__aexit__()
        assert 502 == (await client.ask("GET", "/")).status
        await lose(redis, proxy.fixed.caches.redis)
        seen.append(samples(process.metrics()))
        while not seen[-1]["rerank_proxy_event_loop_lag_seconds_count"]["[]"]:
            await asyncio.sleep(0)
            seen.append(samples(process.metrics()))
        seen.append(samples(process.metrics()))
    named = {name for expression in (*of_rules(), *of_dashboard()) for name in METRIC.findall(expression)}
    missing = {name for name in named if name not in seen[-1]}
    still = {name for name in named if all(each.get(name) == seen[0].get(name) for each in seen)}
    assert (set(), CONSTANT & named) == (missing, still - OF_THE_SYSTEM)


def test_documented_reasons_and_outcomes_exist() -> None:
    expressions = " ".join((*of_rules(), *of_dashboard()))
    reasons = set(re.findall(r'reason="(\w+)"', expressions))
    assert reasons
    assert set() == reasons - BYPASS_REASONS.keys() - failures().keys()
    outcomes = {name for found in re.findall(r'outcome!?=~?"([\w|]+)"', expressions) for name in found.split("|")}
    assert set() == outcomes - set(get_args(OutcomeName))


# Prometheus


def test_the_alert_rules_are_valid_and_fire() -> None:
    promtool = tool("promtool")
    ran(promtool, "check", "rules", str(ALERTS))
    ran(promtool, "test", "rules", str(OPS / "prometheus/alerts_test.yml"))


def test_the_dashboards_queries_are_valid(tmp_path: Path) -> None:
    queries = [query.replace("$__rate_interval", "5m").replace("$route", ".*") for query in of_dashboard()]
    queries = [query for query in queries if not query.startswith("label_values(")]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in ran(tool("promtool"), "check", "rules", str(file))


def test_promtool_accepts_the_metrics() -> None:
    telemetry, record = Telemetry(), RequestRecord("")
    search = record.search()
    search.route, search.outcome = 'a "route"\\', answered([])
    search.clock.stages["lexical"] = 1.0
    with capture_logs():
        telemetry.conclude(record, Ended.ANSWERED)
    ran(tool("promtool"), "check", "metrics", stdin=telemetry.metrics.text())


def test_dashboard_panels_have_unique_ids_and_positions() -> None:
    panels = DASHBOARD["panels"]
    assert len(panels) == len({panel["id"] for panel in panels}) == len({str(panel["gridPos"]) for panel in panels})
    assert {"${datasource}"} == {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"}


# systemd


def test_the_systemd_unit_is_valid(tmp_path: Path) -> None:
    """With the program's path in this environment."""
    text = (OPS / "systemd/rerank-proxy.service").read_text()
    program = str(Path(sys.executable).parent / "rerank-proxy")
    unit = tmp_path / "rerank-proxy.service"
    unit.write_text(text.replace("/opt/rerank-proxy/bin/rerank-proxy", program))
    assert "" == ran(tool("systemd-analyze"), "verify", "--man=no", str(unit))
    (command,) = re.findall(r"^ExecStart=\S+ (.*)$", text, re.MULTILINE)
    assert "serve" == build_parser().parse_args(command.split()).command
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert int(seconds) > GRACE_S


# Kubernetes


def manifest(kind: str) -> Any:
    (found,) = [each for each in MANIFESTS if each["kind"] == kind]
    return found


@pytest.mark.parametrize("found", MANIFESTS, ids=lambda each: each["kind"])
@pytest.mark.parametrize("version", ["1.28", "1.34"])
def test_the_kubernetes_manifests_are_valid(found: Any, version: str) -> None:
    kubernetes_validate.validate(found, version, strict=True)


def test_the_manifests_are_consistent() -> None:
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    environment = {each["name"]: "a-secret" for each in container["env"]}
    config = read(manifest("ConfigMap")["data"]["config.yaml"], "config.yaml", environment)
    assert {"http": config.listen.port, "admin": config.admin.port} == ports
    assert {"0.0.0.0"} == {config.listen.host, config.admin.host}
    assert ("a-secret", "a-secret") == (token_of(config, environment), admin_token_of(config, environment))
    with pytest.raises(ConfigError):
        admin_token_of(config, {})
    assert "serve" == build_parser().parse_args(container["args"]).command
    sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > sleep + GRACE_S
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        manifest("Deployment")["spec"]["selector"]["matchLabels"],
        manifest("Service")["spec"]["selector"],
        manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        manifest("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert [labels] * 4 == selectors


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_the_probes_use_paths_of_the_admin_port(probe: str) -> None:
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    asked = container[probe]["httpGet"]
    assert "admin" == asked["port"]
    assert asked["path"] in {route.path for route in ROUTES}


# nginx


@asynccontextmanager
async def nginx(folder: Path, engine: int, proxy: int, share: str) -> AsyncIterator[Client]:
    """Run nginx with the example, its addresses replaced, and so many of the users through the proxy."""
    text, door = (OPS / "nginx/canary.conf").read_text(), folder / "socket"
    addresses = {"127.0.0.1:9200;": f"127.0.0.1:{engine};", "127.0.0.1:9201;": f"127.0.0.1:{proxy};"}
    for old, new in {**addresses, "127.0.0.1:9210;": f"unix:{door};", "5% ": f"{share} "}.items():
        assert old in text
        text = text.replace(old, new)
    file = folder / "nginx.conf"
    file.write_text(text)
    arguments = ("-p", str(folder), "-c", str(file), "-g", f"daemon off; pid {folder}/pid; error_log stderr;")
    process = await asyncio.create_subprocess_exec(tool("nginx"), *arguments)
    try:
        async with asyncio.timeout(60):
            client = await connected(door)
        yield client
        client.close()
    finally:
        process.terminate()
        await process.wait()
        door.unlink(missing_ok=True)


async def connected(door: Path) -> Client:
    """Connect to a socket as soon as it is listened on."""
    while True:
        with suppress(FileNotFoundError, ConnectionRefusedError):
            return Client(*await asyncio.open_unix_connection(door))
        await asyncio.sleep(0)


def test_the_nginx_example_is_valid(tmp_path: Path) -> None:
    ran(tool("nginx"), "-t", "-c", str(OPS / "nginx/canary.conf"), "-g", f"pid {tmp_path}/pid; error_log stderr;")


async def test_nginx_sends_only_searches_of_some_users_to_the_proxy(tmp_path: Path) -> None:
    """If the proxy is down, the engine gets them."""
    async with FakeEngine() as engine, FakeEngine() as proxy:
        async with nginx(tmp_path, engine.port, proxy.port, "50%") as client:
            for number in range(40):
                user = {"x_session_id": f"user{number % 20}"}
                await client.search("/products/_search", QUERY, **user)
                await client.ask("PUT", f"/products/_doc/{number}", b"{}", **user)
            users = {side: {one.header("x-session-id") for one in side.of("lexical")} for side in (engine, proxy)}
            assert (20, set()) == (len(users[engine] | users[proxy]), users[engine] & users[proxy])
            assert (40, 0) == (len(engine.of("other")), len(proxy.of("other")))
        async with nginx(tmp_path, engine.port, closed_port(), "99%") as client:
            before = len(engine.of("lexical"))
            for number in range(10):
                assert 200 == (await client.search("/products/_search", QUERY, x_session_id=f"user{number}")).status
            assert 10 == len(engine.of("lexical")) - before
