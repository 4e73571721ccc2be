"""Run the proxy for long at mixed load and faults: `python -m demo.engine exec -- python -m tests.soak`."""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import yaml

from demo.engine import free_ports
from demo.services import Service, running
from tests.fakes import closed_port
from tests.integration import shop
from tests.integration.engines import Address
from tests.redis_server import redis_server
from tests.soak.faulty import FaultyModels, disturbed
from tests.soak.load import INDEX, KINDS, PLAIN, SINK, Tally, keep, products
from tests.soak.watch import Findings, Sample, errors_logged, requests_counted, sampled

_SAMPLE_S = 5.0
_RELOAD_S = 20.0
_RELOADED_S = 3.0
_SETTLE_S = 8.0
"""Without load, until what was begun has ended."""
_WINDOWS = (50, 30)
_KEY = "SOAK_CACHE_KEY"
_COLLECTOR = f"http://127.0.0.1:{closed_port()}"
"""Of traces: it is away all the time."""


def _settings(engine: str, models: str, redis: int, admin: int, window: int) -> dict[str, Any]:
    semantic = {"field": "embedding", "dimensions": 8}
    route = {"index": INDEX, "passage": ["title", "description"], "semantic": semantic}
    return {
        "engine": {"url": engine, "resolve_timeout_seconds": 5},
        "models": {"url": models, "canary": False},  # their scores are hashes
        "cache": {
            "rankings_mb": 2,  # all three are full after some minutes
            "vectors_mb": 1,
            "scores_mb": 2,
            "redis_url": f"redis://127.0.0.1:{redis}",
            "key_env": _KEY,
        },
        "admin": {"port": admin},
        "traces": {"url": _COLLECTOR, "share": "20%"},
        "log": {"access": window == _WINDOWS[1]},
        "routes": [route | {"rank_window_size": window, "budget_ms": 600}],
    }


def _load(engine: str) -> None:
    address = Address(engine)
    bare = {"settings": shop.SETTINGS, "mappings": {"properties": shop.PROPERTIES}}
    address.ask("DELETE", f"/{INDEX},{PLAIN},{SINK}?ignore_unavailable=true")
    for index, settings in ((INDEX, shop.WITH_VECTORS), (PLAIN, bare), (SINK, bare)):
        address.do("PUT", f"/{index}", settings)
    documents = products(4000)
    for index, found in ((INDEX, documents), (PLAIN, shop.without_vectors(documents))):
        lines: list[Any] = [line for name, each in found.items() for line in ({"index": {"_id": name}}, each)]
        address.do("POST", f"/{index}/_bulk?refresh=true", lines)


class Soak:
    """One run."""

    def __init__(self, engine: str, seconds: float, folder: Path) -> None:
        self._engine = engine
        self._seconds = seconds
        self._folder = folder
        self._tally = Tally()
        self._samples: list[Sample] = []
        self._begun = time.monotonic()

    async def run(self) -> Findings:
        port, admin = free_ports(2)
        file, log = self._folder / "config.yaml", self._folder / "proxy.log"
        async with FaultyModels() as models, redis_server(self._folder) as redis:
            settings = [_settings(self._engine, models.url, redis.port, admin, window) for window in _WINDOWS]
            file.write_text(yaml.safe_dump(settings[0]))
            arguments = ["serve", "-c", str(file), "--listen", f"127.0.0.1:{port}"]
            with running("the proxy", arguments, port, None, log) as service:
                before = self._sample(service)
                works = (models.run_phases(), disturbed(redis), self._watch(service))
                reloads = self._reload(service, [yaml.safe_dump(each) for each in settings], file)
                await self._under_load((*works, reloads), port)
                await asyncio.sleep(_SETTLE_S)
                after = self._sample(service)
                counted = requests_counted(f"http://127.0.0.1:{admin}")
        self._say(f"model calls: {dict(models.calls)}")
        code = service.process.returncode
        return Findings(self._tally, self._samples, before, after, counted, list(errors_logged(log)), code or 0)

    async def _under_load(self, works: Sequence[Coroutine[Any, Any, None]], port: int) -> None:
        """Let all clients take their turns, and these works run beside them."""
        until = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for kind, (_, count, _) in KINDS.items():
                for number in range(count):
                    tasks.create_task(keep(kind, number, port, self._tally, until))
            beside = [tasks.create_task(work) for work in works]
            await asyncio.sleep(self._seconds)
            until.set()
            for task in beside:
                task.cancel()

    async def _watch(self, service: Service) -> None:
        while True:
            await asyncio.sleep(_SAMPLE_S)
            self._samples.append(self._sample(service))
            if len(self._samples) % 12 == 0:
                last = self._samples[-1]
                used = f"{last.resident_bytes / 2**20:.1f} MB, {last.descriptors} descriptors"
                self._say(f"{last.second:.0f} s: {self._tally.sent} requests, {used}, wrong: {dict(self._tally.wrong)}")

    async def _reload(self, service: Service, settings: Sequence[str], file: Path) -> None:
        """Change between two configurations."""
        number = 0
        while True:
            await asyncio.sleep(_RELOAD_S)
            number += 1
            self._tally.reloads += 1
            await asyncio.to_thread(file.write_text, settings[number % len(settings)])
            service.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(_RELOADED_S)
            self._tally.reloads += 1

    def _sample(self, service: Service) -> Sample:
        return sampled(service.process.pid, time.monotonic() - self._begun)

    @staticmethod
    def _say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30, help="how long (%(default)s)")
    parser.add_argument("--to", type=Path, help="where the proxy's log and settings go (default: nowhere)")
    options = parser.parse_args(arguments)
    engine = os.environ.get("REAL_ENGINE_URL", "")
    if not engine:
        sys.stderr.write("REAL_ENGINE_URL is not set: run `python -m demo.engine exec -- python -m tests.soak`\n")
        return 2
    os.environ[_KEY] = "a-key-for-one-run-of-the-soak"
    _load(engine)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.to or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        findings = asyncio.run(Soak(engine, 60 * options.minutes, folder).run())
    problems = list(findings.problems())
    for line in (*findings.lines(), *(f"PROBLEM: {problem}" for problem in problems)):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{json.dumps({'problems': len(problems), 'requests': findings.tally.sent})}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
