"""`rerank-proxy backfill` as a process on a real engine: it adds vectors to an index and keeps them current."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from demo.engines import ELASTICSEARCH_9
from proxy.catalog.vectors import passage_hash
from tests.fakes import Message, Stream, waits_for
from tests.integration.commands import Running, begun, running
from tests.integration.conftest import Start, route
from tests.integration.engines import WITH_KNN, RealEngine
from tests.integration.loads import VECTOR_OPTIONS, BusyEngine, Target, products
from tests.integration.models import ShopModels
from tests.integration.sending import Client, Request, send
from tests.integration.shop import embed

pytestmark = [pytest.mark.engine, WITH_KNN]

MODEL = "Qwen/Qwen3-Embedding-4B"
CATALOGUE = {product["id"]: product for product in products(30)}
MAPPINGS = {
    "_meta": {"owner": "somebody"},
    "dynamic": "strict",
    "properties": {
        "id": {"type": "keyword"},
        "title": {"type": "text"},
        "description": {"type": "text"},
        "price": {"type": "integer"},
    },
}


@pytest.fixture
async def target(real_engine: RealEngine, models: ShopModels, index_name: str) -> Target:
    """An index of somebody's own, strict about its fields and without vectors."""
    target = Target(real_engine.url, models.url, index_name)
    await target.ask("PUT", "", {"settings": real_engine.settings, "mappings": MAPPINGS})
    await target.put(CATALOGUE)
    return target


def is_current(document: Mapping[str, Any]) -> bool:
    """Whether a document's vector and hash are those of its text."""
    text = f"{document['title']}\n{document['description']}"
    vector = pytest.approx(embed(text), abs=1e-6)
    return bool(document["embedding_hash"] == passage_hash(text, MODEL, 8) and document["embedding"] == vector)


async def current(target: Target) -> set[str]:
    """Name the documents that have a current vector."""
    found = await target.documents()
    return {name for name, document in found.items() if "embedding_hash" in document and is_current(document)}


async def until_current(command: Running, target: Target, *names: str) -> None:
    """Look at the index after each round of a watch, until these documents have current vectors."""
    while not set(names) <= await current(target):
        await command.until("have a current vector")


async def test_backfill_adds_the_field_its_metadata_and_the_vectors(real_engine: RealEngine, target: Target) -> None:
    """The rest of the mapping and of the documents is unchanged."""
    result = await target.backfill(*VECTOR_OPTIONS)
    assert result.code == 0
    (reported,) = result.reported
    assert reported == (
        "100.0% of 30 documents with text have a current vector: 30 new, 0 changed during the run, 0 rejected; "
        "0 documents without text"
    )
    (index,) = (await target.ask("GET", "/_mapping")).values()
    assert index["mappings"]["_meta"] == {
        "owner": "somebody",
        "rerank_proxy": {"embedding": {"model": MODEL, "dimensions": 8, "passage": ["title", "description"]}},
    }
    length = "dims" if real_engine.is_elasticsearch else "dimension"
    assert index["mappings"]["properties"]["embedding"][length] == 8
    documents = await target.documents()
    assert {name: {key: document[key] for key in CATALOGUE[name]} for name, document in documents.items()} == CATALOGUE
    assert await current(target) == CATALOGUE.keys()


async def test_a_second_run_skips_current_vectors(target: Target, models: ShopModels) -> None:
    await target.backfill(*VECTOR_OPTIONS)
    models.requests.clear()
    result = await target.backfill()
    assert result.said.startswith("100.0% of 30 documents with text have a current vector: 0 new"), result.said
    assert len(models.embedded) <= 2
    assert max((await target.ask("POST", "/_search", {"version": True}))["hits"]["hits"], key=_version)["_version"] == 2


def _version(hit: Any) -> int:
    return int(hit["_version"])


async def test_documents_that_a_feed_overwrites_are_embedded_again(target: Target, models: ShopModels) -> None:
    """A full write drops the vector; a partial one keeps the old vector, or changes another field."""
    await target.backfill(*VECTOR_OPTIONS)
    await target.put({"p1": CATALOGUE["p1"]})
    await target.ask("POST", "/_update/p2", {"doc": {"title": "Phone"}})
    await target.ask("POST", "/_update/p3", {"doc": {"price": 7}})
    await target.ask("POST", "/_refresh")
    assert await current(target) == CATALOGUE.keys() - {"p1", "p2"}
    result = await target.backfill()
    assert " 2 new" in result.said
    assert await current(target) == CATALOGUE.keys()


async def test_a_vector_that_an_update_drops_is_embedded_again(real_engine: RealEngine, target: Target) -> None:
    """With the vector excluded from `_source`, only its hash is kept; Elasticsearch 9.2 and later keep both."""
    mappings = MAPPINGS | {"_source": {"excludes": ["embedding"]}}
    await target.ask("DELETE", "")
    await target.ask("PUT", "", {"settings": real_engine.settings, "mappings": mappings})
    await target.put(CATALOGUE)
    await target.backfill(*VECTOR_OPTIONS)
    await target.ask("POST", "/_update/p1?refresh=true", {"doc": {"price": 1}})
    again = await target.backfill()
    lost = 0 if real_engine.name == ELASTICSEARCH_9.name else 1
    assert f"100.0% of 30 documents with text have a current vector: {lost} new" in again.said
    await target.ask("POST", "/_refresh")
    assert (await target.ask("POST", "/_count", {"query": {"exists": {"field": "embedding"}}}))["count"] == 30


async def test_an_index_whose_source_excludes_the_hash_is_rejected_before_any_write(
    real_engine: RealEngine, target: Target
) -> None:
    """Otherwise, each round of a watch would embed again what the previous one wrote."""
    mappings = MAPPINGS | {"_source": {"excludes": ["embedding*"]}}
    await target.ask("DELETE", "")
    await target.ask("PUT", "", {"settings": real_engine.settings, "mappings": mappings})
    await target.put(CATALOGUE)
    result = await target.backfill(*VECTOR_OPTIONS)
    assert (result.code, "the mapping leaves 'embedding_hash' out of `_source`" in result.said) == (1, True)
    (index,) = (await target.ask("GET", "/_mapping")).values()
    assert index["mappings"] == mappings


async def test_a_document_whose_text_was_removed_loses_its_vector(target: Target) -> None:
    await target.backfill(*VECTOR_OPTIONS)
    await target.ask("POST", "/_update/p1", {"doc": {"title": "", "description": None}})
    await target.ask("POST", "/_refresh")
    result = await target.backfill()
    assert "of 29 documents" in result.said
    assert "1 document without text" in result.said
    written = (await target.documents())["p1"]
    assert (written.get("embedding"), written["embedding_hash"]) == (None, None)
    again = await target.backfill()
    assert "1 document without text" in again.said


async def test_a_lone_surrogate_in_a_text_does_not_stop_the_run(target: Target, models: ShopModels) -> None:
    """A feed cuts an emoji in two, and the engine keeps the half; the model does not receive it."""
    await target.put({"p1": CATALOGUE["p1"] | {"title": "laptop \ud83d"}})
    result = await target.backfill(*VECTOR_OPTIONS)
    assert (0, True) == (result.code, result.reported[0].startswith("100.0% of 30 documents"))
    shown = [text for asked in models.embedded for text in asked["input"]]
    assert [f"laptop ?\n{CATALOGUE['p1']['description']}"] == [text for text in shown if text.startswith("laptop ?")]


async def test_a_killed_run_is_resumed(target: Target, models: ShopModels) -> None:
    await target.put({product["id"]: product for product in products(300)})

    async def stuck(stream: Stream, request: Message) -> None:
        if len(models.of("embed")) > 3:
            await stream.left()
            raise ConnectionError

    models.faults = {"embed": stuck}
    command = await begun(*target.backfill_arguments(*VECTOR_OPTIONS))
    await models.until_asked("embed", 4)
    command.process.kill()
    await command.ended()
    models.faults = {}
    there = len(await current(target))
    assert 0 < there < 300
    result = await target.backfill()
    assert f" {300 - there} new" in result.said
    assert len(await current(target)) == 300


async def test_a_document_that_changes_during_the_run_is_not_overwritten(target: Target, models: ShopModels) -> None:
    """It keeps its new text, and the next round embeds it."""
    go_on = asyncio.Event()
    held = waits_for(go_on)

    async def second_waits(stream: Stream, request: Message) -> None:
        if len(models.of("embed")) > 2:
            await held(stream, request)

    await target.ask("PUT", "/_mapping", {"properties": {"stock": {"type": "integer"}}})
    models.faults = {"embed": second_waits}
    command = await begun(*target.backfill_arguments(*VECTOR_OPTIONS))
    await models.until_asked("embed", 3)
    await target.put({"p1": CATALOGUE["p1"] | {"title": "Camera", "stock": 3}})
    go_on.set()
    assert await command.ended() == 0
    assert " 29 new, 1 changed during the run" in command.lines[-1]
    assert command.lines[-1].startswith("96.7% of 30")
    written = (await target.documents())["p1"]
    assert written == CATALOGUE["p1"] | {"title": "Camera", "stock": 3}
    await target.backfill()
    assert await current(target) == CATALOGUE.keys()


async def test_the_rate_limit_is_respected(target: Target, models: ShopModels) -> None:
    """At twenty a second, thirty documents are written in two parts, one second apart."""
    begin = time.monotonic()
    result = await target.backfill(*VECTOR_OPTIONS, "--rate", "20")
    assert result.code == 0
    assert time.monotonic() - begin >= 1
    assert [len(asked["input"]) for asked in models.embedded][-2:] == [20, 10]


async def test_backfill_retries_when_the_engine_is_busy(target: Target) -> None:
    async with BusyEngine(target.engine, bulk=2, search=1, refresh=1, docs=1) as engine:
        result = await Target(engine.url, target.models, target.index).backfill(*VECTOR_OPTIONS)
    assert result.said.splitlines()[-1].startswith("100.0% of 30"), result.said
    assert {"bulk", "search", "refresh", "docs"} == set(engine.refused)


@pytest.fixture
async def watching(target: Target) -> AsyncIterator[Running]:
    arguments = target.backfill_arguments(*VECTOR_OPTIONS, "--watch", "--interval", "0.2")
    async with running(*arguments) as command:
        await command.until("have a current vector")
        yield command


async def test_watch_embeds_new_and_changed_documents(target: Target, watching: Running, models: ShopModels) -> None:
    """Full and partial writes and new documents are embedded, and only these are read."""
    models.requests.clear()
    await target.put({"p1": CATALOGUE["p1"], "new": {"title": "Tablet", "description": "For kids"}})
    await target.ask("POST", "/_update/p2", {"doc": {"title": "Phone"}})
    await until_current(watching, target, *CATALOGUE, "new")
    texts = {text for asked in models.embedded for text in asked["input"]}
    assert texts >= {"Tablet\nFor kids"}
    assert len(texts) <= 4


async def test_watch_sees_writes_before_the_index_is_refreshed(target: Target, watching: Running) -> None:
    """Also in an index that nobody else refreshes."""
    await target.ask("PUT", "/_settings", {"index": {"refresh_interval": -1}})
    for number in range(5):
        await target.ask("PUT", f"/_doc/late{number}", {"title": f"Late {number}", "description": "x"})
    await until_current(watching, target, *(f"late{number}" for number in range(5)))


async def test_watch_survives_an_outage_of_the_models(target: Target, watching: Running, models: ShopModels) -> None:
    async def gone(stream: Stream, request: Message) -> bytes:
        return b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n"

    models.faults = {"embed": gone}
    await target.put({"p1": CATALOGUE["p1"] | {"title": "Camera"}})
    line = await watching.until("retrying")
    assert "rejects the token" in line
    models.faults = {}
    await until_current(watching, target, "p1")


async def test_watch_follows_an_alias_to_its_new_index(
    real_engine: RealEngine, target: Target, models: ShopModels
) -> None:
    """A feed that builds a new index every night and moves the alias gets vectors there, too."""
    engine_url = real_engine.url
    alias, second = f"alias-{uuid4().hex[:8]}", Target(engine_url, models.url, f"{target.index}-second")
    await _alias(engine_url, {"add": {"index": target.index, "alias": alias}})
    watched = Target(engine_url, models.url, alias)
    arguments = watched.backfill_arguments(*VECTOR_OPTIONS, "--watch", "--interval", "0.2")
    try:
        async with running(*arguments) as command:
            await command.until("have a current vector")
            await second.ask("PUT", "", {"settings": real_engine.settings, "mappings": MAPPINGS})
            await second.put({"p1": CATALOGUE["p1"]})
            moved = (
                {"remove": {"index": target.index, "alias": alias}},
                {"add": {"index": second.index, "alias": alias}},
            )
            await _alias(engine_url, *moved)
            await until_current(command, second, "p1")
    finally:
        await second.ask("DELETE", "")


async def _alias(engine: str, *actions: Mapping[str, Any]) -> None:
    reply = await send(engine, Request("POST", "/_aliases", json.dumps({"actions": actions}).encode()))
    assert reply.status == 200


async def test_searches_work_while_only_some_documents_have_vectors(target: Target, start: Start) -> None:
    """With vectors for half of the documents, kNN finds those and BM25 finds all."""
    await target.put({"n1": {"title": "Notebook", "description": "For film"}})
    url = await start(route(target.index))
    before = await Client(url, target.index).search({"query": {"match": {"title": "laptop"}}, "size": 50})
    assert before.outcome.startswith("degraded")
    assert set(before.ids) == CATALOGUE.keys()
    await target.backfill(*VECTOR_OPTIONS)
    await target.put({name: CATALOGUE[name] for name in ("p1", "p2")})
    half = await Client(await start(route(target.index)), target.index).search(
        {"query": {"match": {"title": "laptop"}}, "size": 50}
    )
    assert half.outcome == "reranked"
    assert set(half.ids) == {*CATALOGUE, "n1"}


async def test_bypassed_searches_return_no_vectors_when_the_route_hides_them(
    real_engine: RealEngine, target: Target, start: Start
) -> None:
    """The response is the engine's, without the fields that `backfill` added."""
    await target.backfill(*VECTOR_OPTIONS)
    await target.ask("POST", "/_refresh")
    semantic = {"field": "embedding", "dimensions": 8, "exclude_from_source": True}
    client = Client(await start(route(target.index, semantic=semantic)), target.index)
    bodies: list[dict[str, Any]] = [
        {},
        {"_source": ["*"]},
        {"_source": {"excludes": ["price"]}},
    ]
    named = {"sort": ["id"], "size": 1, "_source": ["title", "embedding"]}
    found = [await client.search({"sort": ["id"], "size": 1, **body}) for body in bodies]
    assert {"bypassed;reason=sort"} == {each.outcome for each in found}
    sources = [each.json["hits"]["hits"][0]["_source"] for each in found]
    whole = set(CATALOGUE["p1"])
    assert [whole, whole, whole - {"price"}] == [set(source) for source in sources]
    straight = Client(real_engine.url, target.index)
    assert (await straight.search(named)).json["hits"] == (await client.search(named)).json["hits"]


async def test_an_update_keeps_the_vector(target: Target) -> None:
    """Also where the engine does not store it in `_source`: Elasticsearch 9.2 and later."""
    await target.backfill(*VECTOR_OPTIONS)
    await target.ask("POST", "/_update/p1?refresh=true", {"doc": {"price": 1}})
    again = await target.backfill(*VECTOR_OPTIONS)
    assert again.said.startswith("100.0% of 30 documents with text have a current vector: 0 new"), again.said
    assert set(CATALOGUE) == await current(target)


async def test_update_by_query_and_reindex_keep_the_vectors(
    real_engine: RealEngine, target: Target, models: ShopModels
) -> None:
    """A copy is not embedded again."""
    await target.backfill(*VECTOR_OPTIONS)
    await target.ask("POST", "/_refresh")
    await target.ask("POST", "/_update_by_query?refresh=true", {"script": {"source": "ctx._source.price = 1"}})
    assert await current(target) == CATALOGUE.keys()
    copy = Target(target.engine, target.models, f"{target.index}-copy")
    (index,) = (await target.ask("GET", "/_mapping")).values()
    await copy.ask("PUT", "", {"settings": real_engine.settings, "mappings": index["mappings"]})
    body = json.dumps({"source": {"index": target.index}, "dest": {"index": copy.index}}).encode()
    reply = await send(target.engine, Request("POST", "/_reindex?refresh=true", body))
    assert (reply.status, reply.json["failures"]) == (200, [])
    again = await copy.backfill()
    assert again.reported[0].startswith("100.0% of 30 documents with text have a current vector: 0 new"), again.said
    assert await current(copy) == CATALOGUE.keys()


async def test_backfill_warns_that_responses_will_contain_vectors(
    real_engine: RealEngine, target: Target, tmp_path: Path
) -> None:
    """Not if the route hides them, or the engine leaves vectors out of `_source` by itself."""
    semantic = {"field": "embedding", "dimensions": 8, "exclude_from_source": True}
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"routes": [{"index": target.index, "semantic": semantic}]}))
    tried = await target.backfill(*VECTOR_OPTIONS, "--dry-run")
    silenced = await target.backfill(*VECTOR_OPTIONS, "--dry-run", "--config", str(config))
    result = await target.backfill(*VECTOR_OPTIONS)
    await target.ask("POST", "/_refresh")
    (hit,) = (await target.ask("POST", "/_search", {"size": 1}))["hits"]["hits"]
    assert ("embedding" in hit["_source"]) == bool(result.announced), result.said
    assert bool(result.announced) == (real_engine.name != ELASTICSEARCH_9.name)
    assert (tried.announced, silenced.announced) == (result.announced, [])
    assert result.said.splitlines()[: len(result.announced)] == result.announced
    assert (await target.backfill()).announced == []


async def test_a_missing_index_is_an_error_with_advice(engine_url: str, models: ShopModels) -> None:
    result = await Target(engine_url, models.url, f"none-{uuid4().hex[:8]}").backfill(*VECTOR_OPTIONS)
    assert result.code == 1
    assert "there is no index none-" in result.said
    assert "creates one" in result.said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--dimensions", "8"), "it is not known which fields to embed: give --passage FIELD,... or --profile"),
        (("--dimensions", "8", "--passage", "body,text"), "the index has none of the fields body, text"),
        (
            ("--dimensions", "8", "--passage", "title,titel"),
            "--passage: titel is not in the mapping, did you mean `title`",
        ),
        (("--dimensions", "8", "--passage", "title", "--field", "price"), "the field 'price' has the type integer"),
    ],
)
async def test_unusable_arguments_are_rejected_before_any_write(
    options: tuple[str, ...], said: str, target: Target
) -> None:
    result = await target.backfill(*options)
    assert result.code == 1
    assert said in result.said
    (index,) = (await target.ask("GET", "/_mapping")).values()
    assert index["mappings"] == MAPPINGS


async def test_a_copy_without_the_mapping_of_the_original_is_rejected(target: Target) -> None:
    """It has vectors, but does not say of which model; the message says how to copy."""
    assert (await target.backfill(*VECTOR_OPTIONS)).code == 0
    await target.ask("POST", "/_refresh")
    copy = f"{target.index}-copy"
    body = {"source": {"index": target.index}, "dest": {"index": copy}}
    await send(target.engine, Request("POST", "/_reindex?refresh=true", json.dumps(body).encode()))
    try:
        result = await replace(target, index=copy).backfill(*VECTOR_OPTIONS)
    finally:
        await send(target.engine, Request("DELETE", f"/{copy}"))
    assert (1, True) == (result.code, '"Copying an index"' in result.said)
