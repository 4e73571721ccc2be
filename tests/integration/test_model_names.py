"""An index records which model really made its vectors, and vectors of another model are not mixed in."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.commands.local_models.minilm import NAME
from tests.fakes import says
from tests.integration.commands import running
from tests.integration.conftest import Start
from tests.integration.engines import WITH_KNN
from tests.integration.loads import Target, ndjson, products
from tests.integration.models import ShopModels
from tests.integration.sending import Client

pytestmark = [pytest.mark.engine, pytest.mark.local_models, WITH_KNN]

CATALOGUE = products(3)
QWEN = "Qwen/Qwen3-Embedding-0.6B"


@pytest.fixture
async def local(engine_url: str, index_name: str) -> AsyncIterator[Target]:
    """An index, and the real local models."""
    async with running("models", "--listen", "127.0.0.1:0") as command:
        yield Target(engine_url, (await command.until("Local models on")).split()[-1], index_name)


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    file = tmp_path / "products.ndjson"
    file.write_bytes(ndjson(CATALOGUE))
    return file


async def model_of(target: Target) -> Any:
    (index,) = (await target.ask("GET", "/_mapping")).values()
    return index["mappings"]["_meta"]["rerank_proxy"]["embedding"]["model"]


async def test_vectors_of_local_models_are_not_searched_by_a_remote_model(
    local: Target, catalogue: Path, models: ShopModels, start: Start
) -> None:
    """kNN is skipped, with the reason in the headers."""
    assert (await local.index_file(catalogue)).code == 0
    assert await model_of(local) == NAME
    semantic = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20}
    route = {"index": f"{local.index}*", "passage": ["title"], "semantic": semantic}
    query = {"query": {"match": {"title": "laptop"}}}
    found = await Client(await start(route, models={"url": local.models}), local.index).search(query)
    assert found.outcome == "reranked"
    models.faults = {"embed": says(b'{"model":"other","data":[{"index":0,"embedding":[1,0,0,0,0,0,0,0]}]}')}
    elsewhere = await Client(await start(route), local.index).search(query)
    assert elsewhere.outcome == 'degraded;stages="semantic";reason=other_model'
    assert sorted(elsewhere.ids) == sorted(found.ids)


async def test_the_index_names_the_model_that_answered_for_a_tier(local: Target, catalogue: Path) -> None:
    """Running the same command again uses the same model."""
    first = await local.index_file(catalogue, "--tier", "fast")
    assert f"the server uses {NAME} for {QWEN}; the index will record {NAME}" in first.said
    assert await model_of(local) == NAME
    second = await local.index_file(catalogue, "--tier", "fast")
    assert (second.code, "0 new, 3 kept" in second.said) == (0, True), second.said


async def test_vectors_of_a_replaced_model_are_not_mixed_with_new_ones(
    local: Target, catalogue: Path, models: ShopModels
) -> None:
    assert (await Target(local.engine, models.url, local.index).index_file(catalogue)).code == 0
    asked = await model_of(local)
    for result in (await local.index_file(catalogue), await local.backfill()):
        assert result.code == 1
        assert (
            f"the index has vectors of {asked} in 'embedding', but the server at models.url uses {NAME}" in result.said
        )
    assert await model_of(local) == asked


async def test_an_index_without_vectors_adopts_the_model_that_answers(
    local: Target, catalogue: Path, models: ShopModels
) -> None:
    """The model recorded before was only planned."""
    assert (await Target(local.engine, models.url, local.index).index_file(catalogue)).code == 0
    body = (await local.ask("GET", ""))[local.index]
    await local.ask("DELETE", "")
    settings = {"knn": body["settings"]["index"]["knn"]} if "knn" in body["settings"]["index"] else {}
    analysis = {"analysis": body["settings"]["index"]["analysis"]}
    await local.ask("PUT", "", {"settings": {"index": settings | analysis}, "mappings": body["mappings"]})
    assert await model_of(local) != NAME
    assert (await local.index_file(catalogue)).code == 0
    assert await model_of(local) == NAME
