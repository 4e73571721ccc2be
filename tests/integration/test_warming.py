"""`rerank-proxy warm --dry-run` on a real engine, compared with what the models then receive."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.integration.commands import begun
from tests.integration.conftest import PATIENT_ENGINE, Shop, Start, route
from tests.integration.engines import RealEngine
from tests.integration.models import ShopModels

pytestmark = [pytest.mark.engine, pytest.mark.engines("elasticsearch-8.19.13", "opensearch-2.19.1")]

TEMPLATE = {"query": {"multi_match": {"query": "{{query}}", "fields": ["title^2", "description"]}}, "size": 5}
TEXTS = ("laptop", "laptop for children", "a desk lamp", "usb cable", "laptop sleeve", "laptop")
WITHOUT_HITS = 1
"""One text finds nothing; it is embedded only if that begins before the engine says so."""


async def warm(folder: Path, *options: str) -> str:
    (folder / "texts").write_text("\n".join(TEXTS))
    (folder / "search.json").write_text(json.dumps(TEMPLATE))
    command = await begun("warm", str(folder / "texts"), "--template", str(folder / "search.json"), *options)
    code = await command.ended()
    assert 0 == code, command.lines
    return "".join(command.lines)


def passages(said: str) -> int:
    return count(said, "passages")


def count(said: str, what: str) -> int:
    found = re.search(rf"([0-9,]+) {what}, about", said)
    assert found is not None, said
    return int(found[1].replace(",", ""))


@pytest.mark.parametrize("semantic", [True, False])
async def test_a_dry_run_forecasts_at_least_what_the_models_receive(
    real_engine: RealEngine, shop: Shop, start: Start, models: ShopModels, tmp_path: Path, *, semantic: bool
) -> None:
    settings = {"rank_window_size": 8, **real_engine.of_route} | ({} if semantic else {"semantic": None})
    one = route(shop.index, **settings)
    whole: dict[str, Any] = {
        "engine": {"url": real_engine.url} | PATIENT_ENGINE,
        "models": {"url": models.url},
        "routes": [one],
    }
    (tmp_path / "config.yaml").write_bytes(msgspec.yaml.encode(whole))
    said = await warm(tmp_path, "--index", shop.index, "--dry-run", "-c", str(tmp_path / "config.yaml"))
    assert [] == models.requests
    url = await start(one)
    warmed = await warm(tmp_path, "--index", shop.index, "--proxy", url)
    assert f"{warmed.partition(' searches: ')[2]}" in said
    sent = sum(len(body["documents"]) for body in models.reranked)
    assert (sent <= passages(said)) if semantic else (sent == passages(said))
    embedded = count(said, "query texts") if semantic and real_engine.has_knn else 0
    assert embedded - WITHOUT_HITS <= len(models.embedded) <= embedded
