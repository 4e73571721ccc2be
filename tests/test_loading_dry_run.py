"""`--dry-run`: counts what a run would cost, and changes nothing."""

import gzip
import json
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from proxy.catalog.dialects import EngineKind
from proxy.commands.advice import models_advice
from proxy.commands.loading.clients import Action, Outcome
from proxy.commands.loading.commands import IndexOptions, Services, VectorOptions, run_index
from proxy.commands.loading.documents import open_documents
from proxy.commands.loading.dry_run import CountingEmbedder, ReadOnlyEngine
from proxy.commands.loading.errors import CannotLoad
from proxy.commands.loading.index import Loaded
from proxy.commands.loading.mappings import SPELLINGS
from proxy.commands.loading.stopping import Stopping
from proxy.errors import CapReached, OtherModel
from proxy.settings.config import Config
from proxy.upstream.spending.prices import PRICES, Prices

MODEL = "Qwen/Qwen3-Embedding-4B"
EMBEDDER = Prices(PRICES)


@dataclass
class ServedIndex:
    """An engine without any index that notes what it is asked."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    written: int = 0
    spelling = SPELLINGS["elasticsearch"]
    kind = EngineKind("elasticsearch", (8, 19, 13))

    async def ask(
        self, method: str, path: str, body: Any = None, parameters: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        self.asked.append((method, path))
        return {}

    async def bulk(self, actions: AsyncIterable[Action]) -> AsyncGenerator[tuple[bool, Outcome]]:
        async for _ in actions:
            self.written += 1
            yield True, {}

    async def close(self) -> None: ...


async def test_a_file_is_read_whole_and_nothing_is_written(tmp_path: Path) -> None:
    """With the steps of a real run: the index to create, batches, and equal texts once."""
    file = tmp_path / "products.ndjson.gz"
    texts = ["laptop " * 100, "laptop stand", "laptop stand", ""]
    lines = (json.dumps({"id": str(number), "title": text}) for number, text in enumerate(texts))
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    engine, counting, loaded = ServedIndex(), CountingEmbedder(EMBEDDER), Loaded()
    services = Services(ReadOnlyEngine(engine), counting, Stopping())
    options = IndexOptions("products", VectorOptions(profile="e-commerce", passage=("title",)))
    with open_documents(str(file)) as documents:
        await run_index(services, Config(), options, documents, loaded)
    assert (4, 1, 0) == (loaded.written, loaded.without_text, engine.written)
    assert {"GET"} == {method for method, _ in engine.asked}
    assert (2, MODEL) == (counting.texts, counting.model)
    assert 190 < counting.tokens < 210
    assert "2 texts, about 192 tokens of Qwen/Qwen3-Embedding-4B: $0.0000 at $0.02" in counting.report()


async def test_passage_fields_that_no_document_of_the_file_has_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "products.ndjson"
    file.write_text('{"id": "1", "title": "laptop", "maker": {"name": ""}}\n{"id": "2", "title": null, "maker": {}}\n')
    services = Services(ReadOnlyEngine(ServedIndex()), CountingEmbedder(EMBEDDER), Stopping())
    options = IndexOptions("products", VectorOptions(profile="e-commerce", passage=("title", "maker.name", "nofield")))
    with open_documents(str(file)) as documents:
        await run_index(services, Config(), options, documents, Loaded())
    said = " ".join(capsys.readouterr().err.split())
    assert "note: nothing was embedded of maker.name, nofield: no document of the file has a value there" in said


async def test_a_file_without_the_id_field_is_told_from_one_without_documents(tmp_path: Path) -> None:
    file = tmp_path / "products.ndjson"
    file.write_text('{"id": "1", "title": "laptop"}\n')
    services = Services(ReadOnlyEngine(ServedIndex()), CountingEmbedder(EMBEDDER), Stopping())
    options = IndexOptions("products", VectorOptions(profile="e-commerce"), id_field="sku")
    with (
        open_documents(str(file)) as documents,
        pytest.raises(CannotLoad, match="id in 'sku': name another --id-field"),
    ):
        await run_index(services, Config(), options, documents, Loaded())


async def test_reads_reach_the_engine_and_writes_do_not() -> None:
    engine = ServedIndex()
    read_only = ReadOnlyEngine(engine)
    for method, path in (("POST", "/a/_search"), ("POST", "/a/_mget"), ("PUT", "/a"), ("POST", "/a/_refresh")):
        await read_only.ask(method, path)
    assert [("POST", "/a/_search"), ("POST", "/a/_mget")] == engine.asked


def test_free_models_and_missing_prices_are_reported() -> None:
    assert "cost nothing" in CountingEmbedder(EMBEDDER).report()
    assert "set it in `spend.prices`" in CountingEmbedder(Prices(), "local", 1, 5.0).report()
    million = CountingEmbedder(Prices({"m": 0.5}), "m", 10, 2e6).report()
    assert "10 texts, about 2,000,000 tokens of m: $1.0000 at $0.5 per million tokens" == million


@pytest.mark.parametrize(("model", "dimensions"), [(MODEL, 2560), ("other", 1024)])
async def test_the_vector_length_defaults_to_the_models(model: str, dimensions: int) -> None:
    counting = CountingEmbedder(EMBEDDER)
    assert dimensions == (await counting.served_model(model=model, dimensions=None)).dimensions
    assert 3 == (await counting.served_model(model=model, dimensions=3)).dimensions


def test_the_cap_error_says_how_to_continue() -> None:
    assert '"Changing the embedding model"' in models_advice(OtherModel("embedder", "vectors of n instead of m"), "m")
    assert "run it again later, or raise the cap" in models_advice(CapReached("m", "the cap of $5 per day"), "m")
