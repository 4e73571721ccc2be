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
from proxy.upstream.providers import (
    EMBED_FORMATS,
    RERANK_FORMATS,
    is_listwise,
    sent_query,
    without_control_tokens,
)
from proxy.upstream.reranker import Reranker
from proxy.upstream.transport import Transport, models_session
from tests.fakes import FakeServer, says

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


def test_every_configurable_api_has_a_row() -> None:
    assert set(get_args(RerankApi)) == set(RERANK_FORMATS) == set(REQUESTS)
    assert set(get_args(EmbedApi)) == set(EMBED_FORMATS)


@pytest.mark.parametrize("api", get_args(RerankApi))
async def test_each_rerank_api_has_its_request_and_response_format(api: RerankApi) -> None:
    path, asked, said = REQUESTS[api]
    async with FakeServer() as server, models_session(1.0) as session:
        server.faults[path] = says(json.dumps(said).encode())
        transport = Transport(session, "reranker", server.url, None)
        reranker = Reranker(transport, timeout_seconds=60, format_=RERANK_FORMATS[api])
        relevance = await reranker.score("q", PASSAGES, instruction="i", model="vendor/m")
    assert [(path, asked)] == [(request.target, request.json()) for request in server.requests]
    assert ((0.1, 0.9), None) == (relevance.scores, relevance.error)


@pytest.mark.parametrize(("api", "expected"), [("tei", 32), ("deepinfra", 500), ("jina", 500)])
async def test_a_call_has_no_more_passages_than_the_api_allows(api: RerankApi, expected: int) -> None:
    async with models_session(1.0) as session:
        transport = Transport(session, "reranker", "http://localhost", None)
        reranker = Reranker(transport, timeout_seconds=1, batch_size=500, format_=RERANK_FORMATS[api])
    assert expected == reranker.batch_size


@pytest.mark.parametrize(
    ("api", "path", "more"),
    [
        ("deepinfra", "/v1/openai/embeddings", {"fail_fast": True}),
        ("openai", "/v1/embeddings", {}),
    ],
)
async def test_each_embeddings_api_has_its_request_format(api: EmbedApi, path: str, more: Any) -> None:
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
def test_control_tokens_are_removed_from_texts(token: str) -> None:
    text = f"a{token}b"
    sent = [
        RERANK_FORMATS["deepinfra"].encode(text, [text], text, "m"),
        RERANK_FORMATS["tei"].encode(text, [text], text, "m"),
    ]
    assert [] == [body for body in sent if token.encode() in body]
    assert "a b" == without_control_tokens(text)


@pytest.mark.parametrize("label", ["<Instruct>:", "<Query>:", "<Document>:"])
def test_template_labels_in_texts_lose_their_brackets(label: str) -> None:
    assert "x  : y" == without_control_tokens(f"x {label} y")


@pytest.mark.parametrize("text", ["5 < 6 | 7 > 3", "<b>bold</b>", "a|b", "[1]", "<Document> of a search", "<||>"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert text == without_control_tokens(text)


@given(st.lists(st.sampled_from((*TOKENS, "<|", "|>", "<", ">", "im_start", "think", "[", "]", "SEP", "x"))))
def test_removing_a_control_token_creates_no_other(pieces: list[str]) -> None:
    cleaned = without_control_tokens("".join(pieces))
    assert cleaned == without_control_tokens(cleaned)


_PIECES = st.sampled_from([*"a\u0301\u0323\u0344\u212a[]MASK <|>_ \n\u00a0", "\u0301" * 29, "\u0344" * 30])


@given(st.lists(_PIECES).map("".join), st.integers(1, 90))
def test_a_query_is_sent_as_it_is_cached(text: str, most: int) -> None:
    sent = sent_query(text, most)
    assert (sent, sent, sent) == (sent_query(sent, most), without_control_tokens(sent), " ".join(sent.split()))
    assert most >= len(sent)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("  Red \t\n shoes ", "Red shoes"),
        ("cafe\u0301", "caf\u00e9"),
        ("a [MAS\u212a] b", "a b"),
        ("12345678901234567 90", "12345678901234567"),
        ("<|im_end|>", ""),
        ("\u2026" * 40, "\u2026" * 18),
    ],
)
def test_a_query_keeps_its_words_and_case(text: str, sent: str) -> None:
    assert sent == sent_query(text, 18)


def test_excessive_combining_marks_are_removed() -> None:
    assert "x\u0323" + "\u0301" * 29 + "y" == sent_query("x" + "\u0301" * 29 + "\u0323" * 9 + "y", 99)


@pytest.mark.parametrize(
    ("model", "expected"),
    [("jina-reranker-v3.5", True), ("jinaai/Jina-Reranker-V3", True), ("jina-reranker-v2-base-multilingual", False)],
)
def test_listwise_models_are_recognised(model: str, expected: bool) -> None:  # noqa: FBT001
    assert expected is is_listwise(model)
