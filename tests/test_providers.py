"""Each provider gets its own request, whose scores come back by passage, and no text of a user writes the prompt."""

import json
from collections.abc import Mapping
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ranking.stages import Budget
from proxy.settings.config import EmbedApi, RerankApi
from proxy.upstream.embedder import Embedder
from proxy.upstream.providers import EMBED_FORMATS, RERANK_FORMATS, without_control_tokens
from proxy.upstream.reranker import Reranker
from proxy.upstream.transport import Transport, models_session
from tests.fakes import FakeServer, answer, says

PASSAGES = ("far", "near")
COHERE = {"query": "q", "documents": ["far", "near"], "model": "vendor/m"}
SORTED = {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]}
"""Sorted by score, as most of them do, so that the index decides."""

# Sources: the providers' API references, as of November 2026.
REQUESTS: Mapping[str, tuple[str, Any, Any]] = {
    "deepinfra": (
        "/v1/inference/vendor/m",
        {"queries": ["q"], "documents": ["far", "near"], "instruction": "i", "fail_fast": True},
        {"scores": [0.1, 0.9], "input_tokens": 2},
    ),
    "cohere": ("/v2/rerank", COHERE, SORTED | {"meta": {"billed_units": {"search_units": 1}}}),
    "jina": ("/v1/rerank", COHERE | {"return_documents": False}, SORTED | {"usage": {"total_tokens": 2}}),
    "vllm": ("/v1/rerank", COHERE, {"results": [{**each, "document": {"text": "x"}} for each in SORTED["results"]]}),
    "openrouter": ("/v1/rerank", COHERE, SORTED),
    "tei": (
        "/rerank",
        {"query": "q", "texts": ["far", "near"], "truncate": True},
        [{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1}],
    ),
}


def test_every_api_that_the_settings_allow_has_a_row() -> None:
    assert set(get_args(RerankApi)) == set(RERANK_FORMATS) == set(REQUESTS)
    assert set(get_args(EmbedApi)) == set(EMBED_FORMATS)


@pytest.mark.parametrize("api", get_args(RerankApi))
async def test_each_rerank_api_is_asked_and_read_in_its_own_way(api: RerankApi) -> None:
    path, asked, said = REQUESTS[api]
    async with FakeServer() as server, models_session(1.0) as session:
        server.faults[path] = says(json.dumps(said).encode())
        transport = Transport(session, "reranker", server.url, None)
        reranker = Reranker(transport, timeout_seconds=60, query_max_chars=10, format_=RERANK_FORMATS[api])
        relevance = await reranker.score("q", PASSAGES, instruction="i", model="vendor/m", budget=Budget())
    assert [(path, asked)] == [(request.target, request.json()) for request in server.requests]
    assert ((0.1, 0.9), None) == (relevance.scores, relevance.error)


async def test_more_passages_than_a_call_takes_are_split() -> None:
    async def scores(_: object, request: Any) -> bytes:
        texts = request.json()["texts"]
        return answer(
            200, json.dumps([{"index": n, "score": int(text) / 100} for n, text in enumerate(texts)]).encode()
        )

    async with FakeServer() as server, models_session(1.0) as session:
        server.faults["/rerank"] = scores
        transport = Transport(session, "reranker", server.url, None)
        reranker = Reranker(transport, timeout_seconds=60, query_max_chars=10, format_=RERANK_FORMATS["tei"])
        relevance = await reranker.score("q", [str(n) for n in range(70)], instruction="i", model="m", budget=Budget())
    assert tuple(n / 100 for n in range(70)) == relevance.scores
    assert all(len(request.json()["texts"]) <= 32 for request in server.requests)


@pytest.mark.parametrize(
    ("api", "path", "more"),
    [
        ("deepinfra", "/v1/openai/embeddings", {"fail_fast": True}),
        ("openai", "/v1/embeddings", {}),
    ],
)
async def test_each_embeddings_api_is_asked_in_its_own_way(api: EmbedApi, path: str, more: Any) -> None:
    async with FakeServer() as server, models_session(1.0) as session:
        server.faults[path] = says(b'{"data":[{"index":0,"embedding":[0,2]}]}')
        transport = Transport(session, "embedder", server.url, None)
        embedder = Embedder(transport, timeout_seconds=60, query_max_chars=10, format_=EMBED_FORMATS[api])
        await embedder.embed_query("q", instruction="i", model="m", dimensions=2, budget=Budget())
    prompt = {"model": "m", "input": ["Instruct: i\nQuery:q"], "encoding_format": "float", "dimensions": 2}
    assert [prompt | more] == [request.json() for request in server.requests]


TOKENS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "[INST]",
    "[/INST]",
    "<s>",
    "</s>",
    "[SEP]",
    "[CLS]",
)


@pytest.mark.parametrize("token", TOKENS)
def test_no_control_token_of_a_prompt_reaches_the_wire(token: str) -> None:
    text = f"a{token}b"
    sent = [
        RERANK_FORMATS["deepinfra"].encode(text, [text], text, "m"),
        RERANK_FORMATS["tei"].encode(text, [text], text, "m"),
    ]
    assert [] == [body for body in sent if token.encode() in body]
    assert "a b" == without_control_tokens(text)


@pytest.mark.parametrize("label", ["<Instruct>:", "<Query>:", "<Document>:"])
def test_the_labels_of_the_rerankers_template_lose_their_brackets(label: str) -> None:
    assert "x  : y" == without_control_tokens(f"x {label} y")


@pytest.mark.parametrize("text", ["5 < 6 | 7 > 3", "<b>bold</b>", "a|b", "[1]", "<Document> of a search", "<||>"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert text == without_control_tokens(text)


@given(st.lists(st.sampled_from((*TOKENS, "<|", "|>", "<", ">", "im_start", "think", "[", "]", "SEP", "x"))))
def test_no_token_comes_out_of_what_stands_around_one(pieces: list[str]) -> None:
    cleaned = without_control_tokens("".join(pieces))
    assert cleaned == without_control_tokens(cleaned)
