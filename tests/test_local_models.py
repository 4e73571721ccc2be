"""The local models speak DeepInfra's wire format: answers, limits, statuses and error shapes."""

import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer

from proxy.bounds import LOCAL_WAITING
from proxy.catalog.vectors import Vectors
from proxy.commands.local_models.app import BANNER, BATCH, create_app
from proxy.commands.local_models.minilm import DIMENSIONS, NAME, MiniLM
from proxy.ranking.stages import Budget
from proxy.store.contract import Kind
from proxy.store.memory import memory_region
from proxy.upstream.embedder import Embedder
from proxy.upstream.reranker import Reranker
from proxy.upstream.transport import Transport

EMBEDDINGS, RERANK = "/v1/openai/embeddings", "/v1/inference/Qwen/Qwen3-Reranker-4B"
QWEN = "Qwen/Qwen3-Embedding-4B"


class Letters:
    """A model whose vectors say which letters each word has; it remembers its batches, and waits when told."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def token_vectors(self, texts: Sequence[str]) -> list[Vectors]:
        self.may_go_on.wait()
        self.batches.append(list(texts))
        return [np.array([_letters(word) for word in ("", *text.split(), "")], dtype=np.float32) for text in texts]

    @property
    def read(self) -> list[str]:
        return sorted(text for batch in self.batches for text in batch)


def _letters(word: str) -> list[float]:
    counts = [0.01] * DIMENSIONS
    for letter in word:
        counts[ord(letter) % DIMENSIONS] += 1
    return counts


Client = TestClient[Any, Any]


@pytest.fixture
def model() -> Letters:
    return Letters()


@pytest.fixture
async def client(model: Letters) -> AsyncIterator[Client]:
    async with TestClient(TestServer(create_app(model))) as found:
        yield found
        model.may_go_on.set()


async def post(client: Client, path: str, body: Any) -> tuple[int, Any]:
    async with client.post(path, json=body) as answer:
        return answer.status, await answer.json()


async def embed(client: Client, **asked: Any) -> Any:
    status, answer = await post(client, EMBEDDINGS, {"model": QWEN, **asked})
    assert status == 200, answer
    return answer


async def rerank(client: Client, queries: list[str], documents: list[str], **asked: Any) -> Any:
    status, answer = await post(client, RERANK, {"queries": queries, "documents": documents, **asked})
    assert status == 200, answer
    return answer


@pytest.mark.parametrize("asked", [QWEN, NAME])
async def test_embeddings_are_in_order_with_the_local_models_name(asked: str, client: Client) -> None:
    """Whatever model was requested: an index must not name another model than the one that made its vectors."""
    answer = await embed(client, model=asked, input=["red shoes", "oak"])
    assert (answer["object"], answer["model"]) == ("list", NAME)
    assert [entry["index"] for entry in answer["data"]] == [0, 1]
    assert [len(entry["embedding"]) for entry in answer["data"]] == [DIMENSIONS, DIMENSIONS]
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


async def test_a_single_text_needs_no_list(client: Client) -> None:
    assert (await embed(client, input="oak"))["data"] == (await embed(client, input=["oak"]))["data"]


@pytest.mark.parametrize("dimensions", [1, 2, 100, DIMENSIONS])
async def test_fewer_dimensions_are_truncated_and_normalised(client: Client, dimensions: int) -> None:
    whole = np.array((await embed(client, input="oak"))["data"][0]["embedding"])
    cut = np.array((await embed(client, input="oak", dimensions=dimensions))["data"][0]["embedding"])
    expected = whole[:dimensions] / np.linalg.norm(whole[:dimensions])
    np.testing.assert_allclose(cut, expected, atol=1e-6)


async def test_base64_embeddings_are_little_endian_floats(client: Client) -> None:
    numbers = (await embed(client, input="oak"))["data"][0]["embedding"]
    encoded = (await embed(client, input="oak", encoding_format="base64"))["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(encoded), dtype="<f4"), numbers, atol=1e-7)


async def test_the_qwen_prompt_is_removed_from_the_query(client: Client, model: Letters) -> None:
    await embed(client, input="Instruct: Given a shopper's query, judge\nQuery:red shoes")
    assert model.read == ["red shoes"]


async def test_one_query_is_scored_against_every_document(client: Client) -> None:
    answer = await rerank(client, ["oak"], ["oak", "zzz"])
    assert answer["scores"][0] == pytest.approx(1.0, abs=1e-3)
    assert answer["scores"][0] > answer["scores"][1] >= 0


async def test_equally_many_queries_and_documents_are_scored_in_pairs(client: Client) -> None:
    pairs = (await rerank(client, ["oak", "zzz"], ["zzz", "zzz"]))["scores"]
    single = [(await rerank(client, [query], ["zzz"]))["scores"][0] for query in ("oak", "zzz")]
    assert pairs == single


async def test_a_rerank_answer_has_what_the_schema_requires(client: Client) -> None:
    answer = await rerank(client, ["red shoes"], ["oak", "oak tree"])
    assert answer["input_tokens"] == 3 + 2 * 2
    assert answer["inference_status"] == {
        "status": "succeeded",
        "runtime_ms": 0,
        "cost": 0.0,
        "tokens_generated": 0,
        "tokens_input": 7,
    }


async def test_the_instruction_has_no_effect(client: Client) -> None:
    plain = await rerank(client, ["oak"], ["oak tree"])
    assert plain == await rerank(client, ["oak"], ["oak tree"], instruction="Prefer shoes")


async def test_without_documents_there_are_no_scores(client: Client) -> None:
    assert (await rerank(client, ["oak"], []))["scores"] == []


async def test_an_unknown_field_is_ignored_as_the_provider_does(client: Client) -> None:
    assert len((await rerank(client, ["oak"], ["oak"], top_n=3, service_tier="default"))["scores"]) == 1


WRONG: tuple[tuple[str, Any, list[str | int], str], ...] = (
    (EMBEDDINGS, {"input": "oak"}, ["body"], "Object missing required field `model`"),
    (EMBEDDINGS, {"model": QWEN, "input": 3}, ["body", "input"], "Expected `str | array`, got `int`"),
    (EMBEDDINGS, {"model": QWEN, "input": [3]}, ["body", "input", 0], "Expected `str`, got `int`"),
    (EMBEDDINGS, {"model": QWEN, "input": "oak", "dimensions": 0}, ["body", "dimensions"], "Expected `int` >= 1"),
    (
        EMBEDDINGS,
        {"model": QWEN, "input": "oak", "dimensions": DIMENSIONS + 1},
        ["body", "dimensions"],
        "this model has 384 dimensions at most",
    ),
    (EMBEDDINGS, {"model": QWEN, "input": "oak", "encoding_format": "hex"}, ["body", "encoding_format"], "Invalid"),
    (EMBEDDINGS, {"model": QWEN, "input": ["oak"] * 1025}, ["body", "input"], "Expected `array` of length <= 1024"),
    (RERANK, {"documents": ["oak"]}, ["body"], "Object missing required field `queries`"),
    (RERANK, {"queries": ["oak"]}, ["body"], "Object missing required field `documents`"),
    (RERANK, {"queries": [], "documents": []}, ["body", "queries"], "as many queries as documents are needed, or one"),
    (
        RERANK,
        {"queries": ["oak", "elm"], "documents": ["oak"] * 3},
        ["body", "queries"],
        "as many queries as documents are needed, or one",
    ),
    (RERANK, {"queries": ["oak"], "documents": ["oak"] * 1025}, ["body", "documents"], "Expected `array` of length"),
    (
        RERANK,
        {"queries": ["oak"], "documents": ["oak"], "instruction": "x" * 2049},
        ["body", "instruction"],
        "Expected `str` of length <= 2048",
    ),
)


@pytest.mark.parametrize(("path", "body", "place", "message"), WRONG)
async def test_invalid_input_is_rejected_with_its_path(
    client: Client, path: str, body: Any, place: list[str | int], message: str
) -> None:
    status, answer = await post(client, path, body)
    (detail,) = answer["detail"]
    assert (status, detail["loc"], detail["type"]) == (422, place, "value_error")
    assert detail["msg"].startswith(message)


@pytest.mark.parametrize("body", [b"{", b'{"queries":["\xff"]}', b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"])
async def test_invalid_json_is_rejected(client: Client, body: bytes) -> None:
    async with client.post(RERANK, data=body) as answer:
        (detail,) = (await answer.json())["detail"]
    assert (answer.status, detail["loc"], detail["type"]) == (422, ["body"], "json_invalid")


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [("GET", "/v1/models", 404, "Not Found"), ("GET", EMBEDDINGS, 405, "Method Not Allowed")],
)
async def test_other_errors_are_one_line(client: Client, method: str, path: str, status: int, detail: str) -> None:
    async with client.request(method, path) as answer:
        assert (answer.status, await answer.json()) == (status, {"detail": detail})


async def test_embeddings_of_texts_are_cached(client: Client, model: Letters) -> None:
    await embed(client, input=["oak", "elm"])
    await rerank(client, ["oak"], ["elm", "ash", "ash"])
    assert model.read == ["ash", "elm", "oak"]


async def test_texts_are_batched_by_length(client: Client, model: Letters) -> None:
    texts = [letter * length for length in (1, 9) for letter in "abcdefgh"[:BATCH]]
    await embed(client, input=texts[::2] + texts[1::2])
    assert sorted(map(sorted, model.batches)) == sorted([texts[:BATCH], texts[BATCH:]])


async def test_other_requests_are_answered_while_the_model_works(client: Client, model: Letters) -> None:
    model.may_go_on.clear()
    slow = asyncio.create_task(embed(client, input="oak"))
    async with client.get("/health") as answer:
        assert (answer.status, (await answer.json())["status"]) == (200, "ok")
    assert not slow.done()
    model.may_go_on.set()
    assert len((await slow)["data"]) == 1


async def busy(client: Client, model: Letters) -> list["asyncio.Task[Any]"]:
    """Let as many requests wait as may, and return them once they do."""
    model.may_go_on.clear()
    waiting = [asyncio.create_task(embed(client, input=f"oak {number}")) for number in range(LOCAL_WAITING)]
    while (await post(client, EMBEDDINGS, {"model": QWEN, "input": [], "fail_fast": True}))[0] == 200:
        pass
    return waiting


@pytest.mark.parametrize(
    ("path", "body"),
    [(EMBEDDINGS, {"model": QWEN, "input": "elm"}), (RERANK, {"queries": ["elm"], "documents": ["e"]})],
)
async def test_a_request_that_should_not_queue_is_rejected_when_busy(
    client: Client, model: Letters, path: str, body: Any
) -> None:
    waiting = await busy(client, model)
    status, answer = await post(client, path, body | {"fail_fast": True})
    model.may_go_on.set()
    await asyncio.gather(*waiting)
    assert (status, answer["error"]["code"]) == (429, "engine_overloaded")
    assert answer["error"]["message"] == "Model busy, retry later"
    assert "elm" not in model.read


async def test_other_requests_queue_when_busy(client: Client, model: Letters) -> None:
    waiting = await busy(client, model)
    late = asyncio.create_task(embed(client, input="elm"))
    model.may_go_on.set()
    await asyncio.gather(*waiting)
    assert len((await late)["data"]) == 1


def test_the_banner_says_what_the_local_models_are_for() -> None:
    said = BANNER.format(url="http://127.0.0.1:8080")
    for words in ("http://127.0.0.1:8080", "all-MiniLM-L6-v2", "stand-in", "not Qwen3", "English only", "no effect"):
        assert words in said


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM()


@pytest.mark.local_models
async def test_the_real_model_ranks_by_meaning_through_the_proxys_own_clients(minilm: MiniLM) -> None:
    async with TestClient(TestServer(create_app(minilm))) as client, ClientSession() as session:
        url = str(client.make_url("/"))[:-1]
        embedder = Embedder(
            Transport(session, "embedder", url, None),
            timeout_seconds=60,
            query_max_chars=200,
            vectors=memory_region(Kind.VECTORS, 2**20),
        )
        reranker = Reranker(Transport(session, "reranker", url, None), timeout_seconds=60)
        texts = ["Budget laptop for students", "Oak dining table"]
        embedded = await embedder.embed_query(
            "cheap notebook", instruction="Find", model=NAME, dimensions=DIMENSIONS, budget=Budget()
        )
        vectors = await embedder.embed_passages(texts, model=NAME, dimensions=None)
        relevance = await reranker.score("cheap notebook", texts, instruction="Find", model="Qwen/Qwen3-Reranker-4B")
    near, far = (float(np.dot(embedded.vector, vector)) for vector in vectors)
    assert near > 0.4 > far
    assert relevance.scores[0] > relevance.scores[1]
    assert NAME == relevance.model
