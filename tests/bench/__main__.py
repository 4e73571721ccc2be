"""Measure the proxy: `python -m demo.engine exec -- python -m tests.bench`; `--only passthrough` needs no engine."""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from demo.asking import ask
from demo.engine import free_ports
from demo.services import running
from tests.bench import passthrough
from tests.bench.baselines.servers import Missing
from tests.bench.cases import PLAIN, ROUTED, SINK, WINDOW, Bench, figures
from tests.bench.drawing import svg
from tests.bench.measuring import Asked, Figure, Side
from tests.integration import shop
from tests.integration.engines import RealEngine
from tests.integration.models import ShopModels

HERE = Path(__file__).parent
_PRODUCTS = 20_000


async def _load(engine: RealEngine) -> None:
    """Load the shop's products over and over, with vectors, and once more without."""
    side = await Side.of(engine.url)
    bare = {"settings": shop.SETTINGS, "mappings": {"properties": shop.PROPERTIES}}
    for index, settings in ((ROUTED, shop.with_vectors(engine)), (PLAIN, bare), (SINK, bare)):
        await side.ask(Asked("PUT", f"/{index}", json.dumps(settings).encode()))
    products = [*shop.PRODUCTS.values()]
    without = [*shop.without_vectors(shop.PRODUCTS).values()]
    for index, kind in ((ROUTED, products), (PLAIN, without)):
        for first in range(0, _PRODUCTS, 2000):
            numbers = range(first, first + 2000)
            lines = "".join(f'{{"index":{{"_id":"{n}"}}}}\n{json.dumps(kind[n % len(kind)])}\n' for n in numbers)
            await side.ask(Asked("POST", f"/{index}/_bulk", lines.encode(), "application/x-ndjson"))
        await side.ask(Asked("POST", f"/{index}/_forcemerge?max_num_segments=1", b""))
        await side.ask(Asked("POST", f"/{index}/_refresh", b""))
    side.close()


def _settings(engine: str, models: str) -> dict[str, Any]:
    semantic = {"field": "embedding", "dimensions": 8}
    route = {"index": ROUTED, "passage": ["title", "description"], "semantic": semantic, "rank_window_size": WINDOW}
    patient = {"url": engine, "resolve_timeout_seconds": 20}  # a cold engine's first answer is none of the figures
    return {
        "engine": patient,
        "models": {"url": models, "canary": False},
        "log": {"level": "warning"},
        "routes": [route],
    }


async def measure(engine: RealEngine, pairs: int, folder: Path) -> list[Figure]:
    """Start the proxy before the engine and before models that answer at once, and measure case by case."""
    measured: list[Figure] = []
    await _load(engine)
    async with ShopModels() as models:
        file = folder / "config.yaml"
        file.write_text(yaml.safe_dump(_settings(engine.url, models.url)))
        (port,) = free_ports(1)
        with ExitStack() as stack:
            arguments = ["serve", "-c", str(file), "--listen", f"127.0.0.1:{port}"]
            proxy = stack.enter_context(running("the proxy", arguments, port, None, folder / "proxy.log"))
            async for figure in figures(Bench(engine.url, proxy.url, pairs)):
                measured.append(figure)
                _say(figure)
    return measured


def _say(figure: Figure) -> None:
    numbers = f"{figure.baseline:9.2f} {figure.through:9.2f} {figure.unit:<10}"
    sys.stdout.write(f"{figure.name:<22} {figure.ratio:5.2f}   {numbers} {figure.meaning}\n")
    sys.stdout.flush()


def written(measured: Sequence[Figure], engine: str, pairs: int) -> dict[str, Any]:
    """Return the results of the cases on an engine as JSON has them, with what they were measured on."""
    cases = [asdict(figure) | {"ratio": round(figure.ratio, 3)} for figure in measured]
    return {"machine": _machine() | {"engine": engine, "pairs": pairs}, "cases": cases}


def _machine() -> dict[str, Any]:
    return {"processors": os.cpu_count(), "python": platform.python_version()}


def _keep(folder: Path, results: Mapping[str, Any]) -> None:
    """Replace these parts of the results in a folder."""
    file = folder / "results.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**kept, **results}, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", choices=("engine", "passthrough"), help="one of the two parts (default: both)")
    parser.add_argument("--pairs", type=int, default=300, help="requests of each case on the engine (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of each pass-through case (%(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of each round and proxy (%(default)s)")
    parser.add_argument("--to", type=Path, default=HERE, help="where results.json and the pictures go")
    options = parser.parse_args(arguments)
    options.to.mkdir(parents=True, exist_ok=True)
    url = os.environ.get("REAL_ENGINE_URL", "")
    if options.only != "passthrough" and not url:
        sys.stderr.write("REAL_ENGINE_URL is not set: run `make bench`\n")
        return 2
    if options.only != "engine":
        try:
            _bench_passthrough(options)
        except Missing as error:
            sys.stderr.write(f"{error}\n")
            return 2
    if options.only != "passthrough":
        _bench_engine(url, options)
    sys.stdout.write(f"Written: results.json and pictures in {options.to}\n")
    return 0


def _bench_passthrough(options: argparse.Namespace) -> None:
    sys.stdout.write(f"{passthrough.heading()}\n")
    measured = passthrough.measure(options.rounds, options.seconds)
    machine = _machine() | {"rounds": options.rounds, "seconds": options.seconds}
    _keep(options.to, {"passthrough": {"machine": machine, **measured.plain()}})
    picture = svg([row.figure() for row in measured.rows], "CPU of a request, beside aiohttp's", "1 = aiohttp")
    (options.to / "passthrough.svg").write_text(picture)


def _bench_engine(url: str, options: argparse.Namespace) -> None:
    name = str(ask(f"{url}/").body["version"]["number"])
    with tempfile.TemporaryDirectory() as folder:
        engine = RealEngine(f"elasticsearch-{name}", f"http://{urlsplit(url).netloc}")
        measured = asyncio.run(measure(engine, options.pairs, Path(folder)))
    _keep(options.to, written(measured, engine.name, options.pairs))
    (options.to / "results.svg").write_text(svg(measured))


if __name__ == "__main__":
    sys.exit(main())
