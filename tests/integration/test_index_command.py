"""`rerank-proxy index` as a process on a real engine: what it accepts, what it preserves, what it rejects."""

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo.engines import ELASTICSEARCH_9
from tests.fakes import Message, Stream, answer
from tests.integration.commands import begun
from tests.integration.engines import WITH_KNN, RealEngine
from tests.integration.loads import VECTOR_OPTIONS, BusyEngine, Ended, Target, ended, ndjson, products, write
from tests.integration.models import ShopModels
from tests.integration.sending import Request, send
from tests.integration.shop import embed

pytestmark = [pytest.mark.engine, WITH_KNN]

CATALOGUE = products(30)


@pytest.fixture
def target(engine_url: str, models: ShopModels, index_name: str) -> Target:
    return Target(engine_url, models.url, index_name)


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    file = tmp_path / "products.ndjson"
    file.write_bytes(ndjson(CATALOGUE))
    return file


def vector_of(product: dict[str, Any]) -> Any:
    return pytest.approx(embed(f"{product['title']}\n{product['description']}"), abs=1e-6)


def length_of(engine: RealEngine, spec: dict[str, Any]) -> Any:
    return spec["dims" if engine.is_elasticsearch else "dimension"]


def said(result: Ended) -> str:
    return result.said.splitlines()[-1]


@pytest.mark.parametrize("form", ["ndjson", "array", "gzipped ndjson", "gzipped array", "standard input"])
async def test_every_file_format_is_loaded_with_ids_and_vectors(form: str, target: Target, tmp_path: Path) -> None:
    content = ndjson(CATALOGUE) if form.endswith(("ndjson", "input")) else json.dumps(CATALOGUE, indent=1).encode()
    content = gzip.compress(content) if form.startswith("gzipped") else content
    file = tmp_path / "f"
    file.write_bytes(content)
    on_input = form == "standard input"
    result = await target.index_file("-" if on_input else file, stdin=content if on_input else None)
    assert result.code == 0, result.said
    documents = await target.documents()
    assert documents.keys() == {product["id"] for product in CATALOGUE}
    for product in CATALOGUE:
        written = documents[product["id"]]
        assert {key: written[key] for key in product} == product
        assert written["embedding"] == vector_of(product)


async def test_the_index_names_the_model_of_its_vectors(
    real_engine: RealEngine, target: Target, catalogue: Path
) -> None:
    """The length is that of the model's own response."""
    result = await ended(*target.index_arguments(catalogue, "--embedding-model", "m", "--passage", "title"))
    assert result.code == 0, result.said
    (mapping,) = (await target.ask("GET", "/_mapping")).values()
    assert mapping["mappings"]["_meta"] == {
        "rerank_proxy": {"embedding": {"model": "m", "dimensions": 8, "passage": ["title"]}}
    }
    assert length_of(real_engine, mapping["mappings"]["properties"]["embedding"]) == 8


async def test_a_second_run_embeds_only_changed_documents(target: Target, catalogue: Path, models: ShopModels) -> None:
    await target.index_file(catalogue)
    models.requests.clear()
    changed = CATALOGUE[0] | {"title": "Phone"}
    priced = CATALOGUE[1] | {"price": 5}
    write(catalogue, changed, priced, *CATALOGUE[2:], *products(1, 100))
    result = await target.index_file(catalogue)
    assert said(result).startswith("31 documents written; vectors: 2 new, 29 kept")
    documents = await target.documents()
    assert len(documents) == 31
    assert documents["p0"]["embedding"] == vector_of(changed)
    assert (documents["p1"]["price"], documents["p1"]["embedding"]) == (5, vector_of(priced))
    embedded = [text for asked in models.embedded for text in asked["input"]]
    assert sorted(embedded[1:]) == [
        "Laptop 100\nFor video editing, kind 2",
        "Phone\nFor video editing, kind 0",
    ]


async def test_a_killed_run_is_resumed(target: Target, tmp_path: Path, models: ShopModels) -> None:
    """What is in the index is not embedded again."""
    many = products(1500)
    file = tmp_path / "many.ndjson"
    file.write_bytes(ndjson(many))

    async def stuck(stream: Stream, request: Message) -> None:
        if len(models.of("embed")) > 16:
            await stream.left()
            raise ConnectionError

    models.faults = {"embed": stuck}
    command = await begun(*target.index_arguments(file, *VECTOR_OPTIONS))
    await models.until_asked("embed", 17)
    command.process.kill()
    await command.ended()
    models.faults = {}
    models.requests.clear()
    await target.ask("POST", "/_refresh")
    there = (await target.ask("GET", "/_count"))["count"]
    assert 0 < there < 1500
    result = await target.index_file(file)
    assert said(result).startswith(f"1,500 documents written; vectors: {1500 - there:,} new, {there:,} kept")
    assert sum(len(asked["input"]) for asked in models.embedded) == 1500 - there + 1
    assert (await target.ask("GET", "/_count"))["count"] == 1500


@pytest.mark.parametrize(
    ("number", "form"), [(signal.SIGTERM, "ndjson"), (signal.SIGINT, "ndjson"), (signal.SIGTERM, "half a gzipped file")]
)
async def test_an_interrupted_load_writes_what_was_embedded(
    number: signal.Signals, form: str, target: Target, tmp_path: Path, models: ShopModels
) -> None:
    """Also while standard input is still open; a second run does the rest."""
    many, go_on = products(10_000), asyncio.Event()

    async def slow(stream: Stream, request: Message) -> None:
        if len(models.of("embed")) > 5:
            await go_on.wait()

    models.faults = {"embed": slow}
    command = await begun(*target.index_arguments("-", *VECTOR_OPTIONS), stdin=b"", keep_open=True)
    assert command.process.stdin is not None
    content = ndjson(many)
    command.process.stdin.write(content if form == "ndjson" else gzip.compress(content)[:-100])
    await models.until_asked("embed", 6)
    command.process.send_signal(number)
    go_on.set()
    assert 128 + number == await command.ended()
    assert command.lines[-1].startswith(f"rerank-proxy: stopped by {number.name}; what was written is kept")
    paid_for = sum(len(asked["input"]) for asked in models.embedded) - 1
    assert 0 < paid_for < len(many)
    assert f"{paid_for} documents written; vectors: {paid_for} new" in "".join(command.lines)
    assert paid_for == len(await target.documents())


async def test_embedded_documents_are_written_when_the_models_fail(
    target: Target, tmp_path: Path, models: ShopModels
) -> None:
    file = tmp_path / "many.ndjson"
    file.write_bytes(ndjson(products(600)))

    async def lost(stream: Stream, request: Message) -> bytes | None:
        return answer(401, b"{}") if len(models.of("embed")) > 5 else None

    models.faults = {"embed": lost}
    result = await target.index_file(file)
    assert result.code == 1
    assert "rejects the token" in said(result)
    written = len(await target.documents())
    assert written >= 64 * 3
    assert f"{written} documents written; vectors: {written} new" in result.said


@pytest.mark.parametrize("content", [b"", b" \n", b"[]", b"[1, 2]", b"nothing\n", b'{"id":', b"\x1f\x8bnot gzip"])
async def test_no_index_is_created_for_a_file_without_documents(content: bytes, target: Target, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(content)
    result = await target.index_file(file)
    assert result.code == 1
    assert "no document" in said(result) or "cannot be read" in said(result)
    reply = await send(target.engine, Request("HEAD", f"/{target.index}"))
    assert reply.status == 404


async def test_malformed_lines_are_reported_and_the_others_loaded(target: Target, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(ndjson(CATALOGUE[:2]) + b'{"id":\n[1]\n' + ndjson(CATALOGUE[2:3]) + b'{"id":"x","price":"much"}\n')
    result = await target.index_file(file)
    lines = result.reported
    assert result.code == 1
    assert lines[0].startswith("line 3: not JSON: ")
    assert lines[1] == "line 4: not a JSON object"
    assert lines[2].startswith("document x: ")
    assert "price" in lines[2]
    assert lines[3] == "3 documents written; vectors: 3 new, 0 kept, 1 without text; 2 malformed, 1 rejected"
    assert (await target.documents()).keys() == {"p0", "p1", "p2"}


async def test_every_malformed_line_is_reported(target: Target, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"bad\n" * 300)
    result = await target.index_file(file)
    assert [line.partition(":")[0] for line in result.said.splitlines()[:-2]] == [f"line {n}" for n in range(1, 301)]


async def first_source(target: Target) -> Any:
    """Read a document as a client does that names no field."""
    (hit,) = (await target.ask("POST", "/_search", {"size": 1}))["hits"]["hits"]
    return hit["_source"]


@pytest.mark.parametrize("settings", [None, {"index.mapping.exclude_source_vectors": False}])
async def test_index_warns_that_responses_will_contain_vectors(
    settings: dict[str, Any] | None, real_engine: RealEngine, target: Target, catalogue: Path
) -> None:
    """A new index leaves vectors out of `_source` if the engine can; an existing one keeps its settings."""
    if settings is not None:
        known = settings if real_engine.name == ELASTICSEARCH_9.name else {}
        await target.ask("PUT", "", {"settings": real_engine.settings | known})
    result = await target.index_file(catalogue)
    source = await first_source(target)
    assert ("embedding" in source) == bool(result.announced), result.said
    assert bool(result.announced) == (real_engine.name != ELASTICSEARCH_9.name or settings is not None)
    assert result.said.splitlines()[: len(result.announced)] == result.announced
    assert (await target.index_file(catalogue)).announced == []


async def test_vectors_are_read_and_updated_during_writes(
    real_engine: RealEngine, target: Target, catalogue: Path
) -> None:
    """OpenSearch 3 with derived source reads vectors as 1 in a segment older than their field."""
    settings = real_engine.settings | {"refresh_interval": -1, "number_of_shards": 1}
    await target.ask("PUT", "", {"settings": settings})
    await target.ask("PUT", "/_doc/feed", {"title": "Laptop"})
    assert (await target.index_file(catalogue)).code == 0
    for product in CATALOGUE:
        await target.ask("POST", f"/_update/{product['id']}", {"doc": {"price": 1}})
    documents = await target.documents()
    for product in CATALOGUE:
        written = documents[product["id"]]
        assert (written["price"], written["embedding"]) == (1, vector_of(product))


async def test_documents_without_text_have_no_vector(target: Target, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b'{"id":"a","brand":"acme"}\n')
    result = await target.index_file(file)
    assert result.code == 0
    assert await target.documents() == {"a": {"id": "a", "brand": "acme"}}


async def test_routing_is_preserved(real_engine: RealEngine, target: Target, tmp_path: Path) -> None:
    """Also if the index requires it, and if vectors are kept."""
    settings = {**real_engine.settings, "number_of_shards": 3}
    await target.ask("PUT", "", {"mappings": {"_routing": {"required": True}}, "settings": settings})
    file = tmp_path / "f"
    file.write_bytes(ndjson([{"_id": "a", "_routing": "r", "_source": {"title": "Laptop"}}]))
    for vectors in ("1 new, 0 kept", "0 new, 1 kept"):
        result = await target.index_file(file)
        assert (result.code, vectors in result.said) == (0, True), result.said
    (hit,) = (await target.ask("POST", "/_search"))["hits"]["hits"]
    assert (hit["_id"], hit["_routing"]) == ("a", "r")


async def test_a_document_larger_than_a_bulk_request_is_loaded(
    real_engine: RealEngine, target: Target, tmp_path: Path
) -> None:
    file = tmp_path / "f"
    # Hardly larger: Elasticsearch 9 reckons five times a document's size against a tenth of the tests' small heap.
    large = {"id": "large", "title": "Laptop", "pages": [["word " * 1000] for _ in range(2100)]}
    file.write_bytes(ndjson([{"id": "a", "title": "Laptop"}, large, {"id": "b", "title": "Phone"}]))
    mappings = {"dynamic": False, "properties": {"title": {"type": "text"}}}
    await target.ask("PUT", "", {"settings": real_engine.settings, "mappings": mappings})
    assert file.stat().st_size > 10 * 2**20
    result = await target.index_file(file)
    assert said(result).startswith("3 documents written"), result.said
    assert (await target.ask("GET", "/_count"))["count"] == 3


def peak_of(*arguments: str) -> int:
    """Run a command to its end, and return the most memory that it had, in MB."""
    process = subprocess.Popen([sys.executable, "-m", "proxy", *arguments], stderr=subprocess.DEVNULL)  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss >> 10


def test_memory_does_not_grow_with_the_file_size(target: Target, tmp_path: Path) -> None:
    """Sixty megabytes are loaded in a fraction of that."""
    document = {"title": "Laptop", "pages": ["word " * 800]}
    one = write(tmp_path / "one", document)
    many = write(tmp_path / "many", *(document | {"id": number} for number in range(15_000)))
    assert many.stat().st_size > 60 * 10**6
    alone = peak_of(*target.index_arguments(one, "--no-vectors"))
    assert peak_of(*target.index_arguments(many, "--no-vectors")) - alone < 40


async def test_without_vectors_no_model_is_called(target: Target, catalogue: Path, models: ShopModels) -> None:
    result = await ended(*target.index_arguments(catalogue, "--no-vectors"))
    assert (result.code, models.requests) == (0, [])
    assert "embedding" not in (await target.documents())["p0"]


async def test_vectors_of_another_length_are_rejected(target: Target, catalogue: Path) -> None:
    await target.index_file(catalogue)
    result = await ended(*target.index_arguments(catalogue, "--dimensions", "4"))
    assert result.code == 1
    assert "the vectors in 'embedding' have 8 dimensions, but 4 are requested" in said(result)


async def test_a_model_of_another_length_than_the_mapping_is_rejected(
    real_engine: RealEngine, target: Target, catalogue: Path
) -> None:
    mappings = {"properties": {"embedding": real_engine.vector(4)}}
    await target.ask("PUT", "", {"settings": real_engine.settings, "mappings": mappings})
    result = await target.index_file(catalogue)
    assert result.code == 1
    assert "have 4 dimensions, but 8 are requested" in said(result)


@pytest.mark.parametrize("option", [("--embedding-model", "another"), ("--tier", "fast")])
async def test_another_model_than_the_indexs_is_rejected(
    option: tuple[str, str], target: Target, catalogue: Path
) -> None:
    """Vectors of equal length would fit, and mean nothing."""
    await target.index_file(catalogue)
    result = await target.index_file(catalogue, *option)
    assert result.code == 1
    assert "vectors of two models cannot be mixed" in said(result)


async def test_a_field_of_another_type_is_rejected(target: Target, catalogue: Path) -> None:
    await target.ask("PUT", "", {"mappings": {"properties": {"embedding": {"type": "keyword"}}}})
    result = await target.index_file(catalogue)
    assert (result.code, "has the type keyword: name another --field" in said(result)) == (1, True)


async def test_index_retries_when_a_model_is_busy(target: Target, catalogue: Path, models: ShopModels) -> None:
    """After 429, the call is repeated, and nothing is lost."""

    async def busy(stream: Stream, request: Message) -> bytes | None:
        said = b'{"error":{"message":"Model busy, retry later","code":"engine_overloaded"}}'
        return answer(429, said) if len(models.of("embed")) in {2, 3} else None

    models.faults = {"embed": busy}
    result = await target.index_file(catalogue)
    assert said(result).startswith("30 documents written; vectors: 30 new"), result.said


async def test_index_retries_when_the_engine_is_busy(target: Target, catalogue: Path) -> None:
    """After 429 to a bulk request or to a lookup of vectors, nothing is lost."""
    await target.index_file(catalogue)
    async with BusyEngine(target.engine, bulk=2, mget=1, refresh=1) as engine:
        result = await Target(engine.url, target.models, target.index).index_file(catalogue)
    assert said(result).startswith("30 documents written; vectors: 0 new, 30 kept"), result.said
    assert sorted(engine.refused) == ["bulk", "bulk", "mget", "refresh"]


async def test_a_rejected_token_ends_the_load(target: Target, catalogue: Path, models: ShopModels) -> None:
    async def refused(stream: Stream, request: Message) -> bytes:
        return answer(401, b'{"detail":"no"}')

    models.faults = {"embed": refused}
    result = await target.index_file(catalogue)
    assert result.code == 1
    assert "rejects the token" in said(result)
    assert len(models.requests) == 1


async def test_unreachable_models_are_an_error_with_advice(target: Target, catalogue: Path) -> None:
    gone = Target(target.engine, "http://127.0.0.1:9", target.index)
    result = await gone.index_file(catalogue)
    assert result.code == 1
    assert "the models cannot be reached" in said(result)
    assert "`rerank-proxy models`" in said(result)


async def test_an_unreachable_engine_is_an_error_with_advice(target: Target, catalogue: Path) -> None:
    result = await Target("http://127.0.0.1:9", target.models, target.index).index_file(catalogue)
    assert result.code == 1
    assert "the engine cannot be reached" in said(result)
    assert "--engine" in said(result)


async def test_creating_an_index_needs_a_profile(target: Target, catalogue: Path) -> None:
    arguments = ("index", str(catalogue), "--name", target.index, "--passage", "title", *target.services)
    result = await ended(*arguments)
    assert (result.code, "--profile" in said(result)) == (1, True)
