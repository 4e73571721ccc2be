"""`index` and `backfill` on OpenSearch: what vectors need, what is rejected, and what is found afterwards."""

from pathlib import Path

import pytest

from tests.integration.conftest import Start, route
from tests.integration.engines import OPENSEARCH, OPENSEARCH_KNN, WITH_PIPELINES
from tests.integration.loads import VECTOR_OPTIONS, Target, ended, ndjson, products
from tests.integration.models import ShopModels
from tests.integration.sending import Client

pytestmark = [pytest.mark.engine, OPENSEARCH_KNN]

CATALOGUE = [*products(10), {"id": "n", "title": "Notebook", "description": "For video editing"}]
MAPPINGS = {"properties": {"title": {"type": "text"}, "description": {"type": "text"}}}
NO_PLUGIN = "this OpenSearch has no k-NN plugin (opensearch-knn), which vectors need: install it on every node, or load"
WITHOUT_KNN = WITH_PIPELINES
"""OpenSearch 3.6 has no plugin for vectors here."""


@pytest.fixture
def target(engine_url: str, models: ShopModels, index_name: str) -> Target:
    return Target(engine_url, models.url, index_name)


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    file = tmp_path / "products.ndjson"
    file.write_bytes(ndjson(CATALOGUE))
    return file


async def test_a_document_found_only_by_its_vector_is_returned_by_the_proxy(
    target: Target, catalogue: Path, start: Start
) -> None:
    assert (await target.index_file(catalogue)).code == 0
    client = Client(await start(route(target.index)), target.index)
    found = await client.search({"query": {"match": {"title": "laptop"}}, "size": 20})
    assert (found.outcome, "n" in found.ids) == ("reranked", True)
    straight = Client(target.engine, target.index)
    assert "n" not in (await straight.search({"query": {"match": {"title": "laptop"}}, "size": 20})).ids


async def test_an_index_without_knn_enabled_is_rejected_with_advice(target: Target) -> None:
    """`index.knn` can only be set when an index is created."""
    await target.ask("PUT", "", {"mappings": MAPPINGS})
    result = await target.backfill(*VECTOR_OPTIONS)
    assert result.code == 1
    (line,) = result.reported
    assert f"{target.index}: the vector field cannot be added: the index was created without `index.knn: true`" in line
    assert "copy the documents to it with _reindex" in line


@OPENSEARCH
async def test_documents_are_loaded_without_vectors(target: Target, catalogue: Path, models: ShopModels) -> None:
    result = await ended(*target.index_arguments(catalogue, "--no-vectors"))
    assert (result.code, models.requests) == (0, []), result.said
    assert (await target.documents()).keys() == {product["id"] for product in CATALOGUE}


@WITHOUT_KNN
async def test_vectors_without_the_knn_plugin_are_rejected(target: Target, catalogue: Path) -> None:
    result = await target.index_file(catalogue)
    assert result.code == 1
    assert f"{target.index} cannot be created: {NO_PLUGIN}" in result.said.splitlines()[-1]


@WITHOUT_KNN
async def test_backfill_without_the_knn_plugin_is_rejected(target: Target) -> None:
    await target.ask("PUT", "", {"mappings": MAPPINGS})
    result = await target.backfill(*VECTOR_OPTIONS)
    assert (result.code, NO_PLUGIN in result.said) == (1, True), result.said
    (index,) = (await target.ask("GET", "/_mapping")).values()
    assert index["mappings"] == MAPPINGS
