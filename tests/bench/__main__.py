"""Measure the proxy: `python -m demo.engine exec -- python -m tests.bench`; only the part `engine` needs an engine."""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from demo.asking import ask
from demo.engine import free_ports
from demo.services import running
from tests.bench import passthrough, repeated, reranked, scores, stalled
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
    log, admin = {"level": "warning"}, {"port": 0}
    of_models = {"url": models, "canary": False}
    return {"engine": patient, "models": of_models, "log": log, "admin": admin, "routes": [route]}


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
    parser.add_argument("--only", choices=tuple(_PARTS), help="one of the parts (default: all)")
    parser.add_argument("--pairs", type=int, default=300, help="requests of each case on the engine (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of each other case (%(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of each round and proxy (%(default)s)")
    parser.add_argument("--searches", type=int, default=100, help="reranked, of each round (%(default)s)")
    parser.add_argument("--to", type=Path, default=HERE, help="where results.json and the pictures go")
    options = parser.parse_args(arguments)
    options.to.mkdir(parents=True, exist_ok=True)
    parts = [options.only] if options.only else list(_PARTS)
    if "engine" in parts and not os.environ.get("REAL_ENGINE_URL"):
        sys.stderr.write("REAL_ENGINE_URL is not set: run `make bench`\n")
        return 2
    try:
        for part in parts:
            _PARTS[part](options)
    except Missing as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"Written: results.json and pictures in {options.to}\n")
    return 0


def _bench_passthrough(options: argparse.Namespace) -> None:
    sys.stdout.write(f"{passthrough.heading()}\n")
    measured = passthrough.measure(options.rounds, options.seconds)
    machine = _machine() | {"rounds": options.rounds, "seconds": options.seconds}
    _keep(options.to, {"passthrough": {"machine": machine, **measured.plain()}})
    picture = svg([row.figure() for row in measured.rows], "CPU of a request, beside aiohttp's", "1 = aiohttp")
    (options.to / "passthrough.svg").write_text(picture)


def _bench_reranked(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder, reranked.stand_ins(Path(folder)) as (site, engine):
        _keep_reranked(options, "reranked", site, engine, Path(folder))


def _keep_reranked(
    options: argparse.Namespace, key: str, site: reranked.Site, engine: int | None, folder: Path
) -> None:
    sys.stdout.write(f"{reranked.heading()}\n")
    rows: list[reranked.Row] = []
    for row in reranked.measure(site, engine, folder, options.rounds, options.searches):
        rows.append(row)
        _write(reranked.line(row))
    machine = _machine() | {"rounds": options.rounds, "searches": options.searches}
    _keep(options.to, {key: {"machine": machine, "rows": [row.plain() for row in rows]}})
    picture = svg(
        [row.figure() for row in rows], "CPU of a reranked search, beside the same made by hand", "1 = by hand"
    )
    (options.to / f"{key}.svg").write_text(picture)


def _bench_stalled(options: argparse.Namespace) -> None:
    _write(stalled.heading())
    rows: list[stalled.Stalled] = []
    with tempfile.TemporaryDirectory() as folder, reranked.stand_ins(Path(folder)) as (site, _):
        for row in stalled.measure(site, Path(folder), options.rounds, 4 * options.searches):
            rows.append(row)
            _write(stalled.line(row))
    machine = _machine() | {"rounds": options.rounds, "searches": options.searches}
    _keep(options.to, {"stalled": {"machine": machine, **stalled.Conditions(tuple(rows)).plain()}})


def _bench_cached(options: argparse.Namespace) -> None:
    scores.main([])
    repeated.main(["--count", str(options.searches)])


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _bench_engine(options: argparse.Namespace) -> None:
    url = os.environ["REAL_ENGINE_URL"]
    name = str(ask(f"{url}/").body["version"]["number"])
    with tempfile.TemporaryDirectory() as folder:
        engine = RealEngine(f"elasticsearch-{name}", f"http://{urlsplit(url).netloc}")
        measured = asyncio.run(measure(engine, options.pairs, Path(folder)))
        with reranked.stand_ins(Path(folder)) as (site, _):
            real = replace(site, engine=engine.url, index=ROUTED, dimensions=8, critical_ms=None)
            _keep_reranked(options, "reranked_real", real, None, Path(folder))
    _keep(options.to, written(measured, engine.name, options.pairs))
    (options.to / "results.svg").write_text(svg(measured))


_PARTS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "passthrough": _bench_passthrough,
    "reranked": _bench_reranked,
    "stalled": _bench_stalled,
    "cached": _bench_cached,
    "engine": _bench_engine,
}


if __name__ == "__main__":
    sys.exit(main())
