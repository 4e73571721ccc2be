"""The whole product with the real local models, each command as a process."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.commands import begun, running, serving
from tests.integration.sending import Client

pytestmark = [pytest.mark.engine, pytest.mark.local_models]

TEXT = "show me laptops that won't break when my kids use them"
PRODUCTS: dict[str, tuple[str, str]] = {
    "rugged": ("Durable notebook for children", "Spill-proof keyboard, survives every drop from a school desk."),
    "stand": ("Show stand", "It won't break when you use it: show them what you sell."),
    "gaming": ("Gaming laptop 17 inch", "Fast graphics for the newest games, lights in all colours."),
    "ultra": ("Ultrabook", "Thin and light, for people on the road."),
    "phone": ("Phone with two cameras", "Sharp pictures by day and by night."),
    "hose": ("Garden hose", "Twenty metres, with a nozzle."),
}


async def test_reranking_improves_the_order_with_real_models(engine_url: str, index_name: str, tmp_path: Path) -> None:
    """What BM25 ranks high for its words falls below what the user meant, although that has none of the words."""
    file = tmp_path / "products.ndjson"
    documents = [{"id": name, "title": title, "description": text} for name, (title, text) in PRODUCTS.items()]
    file.write_text("".join(json.dumps(document) + "\n" for document in documents))
    async with running("models", "--listen", "127.0.0.1:0") as models:
        models_url = (await models.until("Local models on")).split()[-1]
        of_route: dict[str, Any] = {
            "index": index_name,
            "passage": ["title", "description"],
            "semantic": {"field": "embedding", "dimensions": 384},
            "budget_ms": 60_000,
            "blend": 0,
        }
        settings = {"engine": {"url": engine_url}, "models": {"url": models_url}, "routes": [of_route]}
        async with serving(tmp_path, settings) as (_, url):
            loading = await begun("index", str(file), "--name", index_name, "-c", str(tmp_path / "config.yaml"))
            assert 0 == await loading.ended(), loading.lines
            body = {"query": {"multi_match": {"query": TEXT, "fields": ["title^2", "description"]}}}
            straight = await Client(engine_url, index_name).search(body)
            through = await Client(url, index_name).search(body)
    assert ("reranked", "stand", "rugged") == (through.outcome, straight.ids[0], through.ids[0])
    assert "hose" not in through.ids
