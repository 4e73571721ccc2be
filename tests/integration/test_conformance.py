"""The conformance corpus: requests as raw bytes, straight and through, without a fault.

The corpus is no part of this repository: where its folder is not beside it, this and nothing else is skipped.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import Start, route
from tests.integration.engines import running_engines
from tests.integration.models import ShopModels

FOLDER = Path(__file__).parents[3] / "shared" / "conformance"
SHIPPED = FOLDER / "corpus.yaml"
ROUTED = [route("", semantic=None) | {"index": "*", "passage": ["title", "body"]}]
SCORES = [r'"(_score|max_score)"\s*:\s*[-+.\deE]+', r'"took"\s*:\s*\d+']
"""What a reranked answer may change while the order stays."""

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no corpus in {FOLDER}"),
]


_TRIES = 4


async def _faults(straight: str, through: str, folder: Path, corpus: Path, *options: str) -> Mapping[str, Any]:
    """Run the corpus; what differs is run again: a `took` in YAML or snappy varies by itself, a fault does not."""
    found = _faulty(await _run(straight, through, folder, corpus, *options))
    for _ in range(_TRIES):
        again = [await _run(straight, through, folder, corpus, *options, "--only", name) for name in found]
        found = {name: differs for results in again for name, differs in _faulty(results).items()}
    return found


async def _run(straight: str, through: str, folder: Path, corpus: Path, *options: str) -> Mapping[str, Any]:
    written = folder / "results.json"
    tool = [str(FOLDER / "diff_http.py"), "--direct", straight, "--proxy", through, "--corpus", str(corpus)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *tool, "--json", str(written), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert written.exists(), said
    results: Mapping[str, Any] = json.loads(written.read_text())["results"]
    written.unlink()
    return results


def _faulty(results: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: result["diffs"] for name, result in results.items() if result["result"] == "DIFF"}


async def test_without_routes_every_response_is_the_engines(start: Start, tmp_path: Path) -> None:
    """On each engine; requests run concurrently, since most of the time is waiting."""

    async def faults(name: str, url: str) -> Mapping[str, Any]:
        (folder := tmp_path / name).mkdir()
        return await _faults(url, await start(engine={"url": url}), folder, SHIPPED)

    found = await asyncio.gather(*(faults(name, url) for name, url in running_engines().items()))
    assert [{}] * len(running_engines()) == found


async def test_searches_outside_the_route_get_the_engines_response(
    engine_url: str, start: Start, tmp_path: Path
) -> None:
    """The same beside a route that these searches do not match."""
    assert {} == await _faults(engine_url, await start(route("shop")), tmp_path, SHIPPED)


async def test_with_a_neutral_model_only_scores_differ(
    engine_url: str, models: ShopModels, start: Start, tmp_path: Path
) -> None:
    """Under a route for everything, with models that keep each order, nothing but scores differs."""
    models.score = lambda _: 1.0
    corpus = yaml.safe_load(SHIPPED.read_text())
    for entry in corpus["requests"]:
        entry["mask"] = [*entry.get("mask", []), *SCORES]
    masked = tmp_path / "corpus.yaml"
    masked.write_text(yaml.safe_dump(corpus, allow_unicode=True))
    url = await start(*ROUTED)
    assert {} == await _faults(engine_url, url, tmp_path, masked)
    assert models.reranked
