"""How providers of models differ, as data: one row for each rerank API and each embeddings API.

Their error messages are read by `provider_errors`, in any of the shapes in use.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from proxy.bounds import RERANK_BATCH_MAX
from proxy.settings.config import EmbedApi, RerankApi, ServiceTier


@dataclass(frozen=True, slots=True)
class RerankFormat:
    """A rerank API: where it is, what its request calls things, and how many passages one call takes."""

    path: str
    """Below the URL of the provider; `{model}` stands for the model's name."""
    query: str
    documents: str
    batch_max: int
    model: str | None = "model"
    """None where the path names the model."""
    instruction: str | None = None
    """None where the API has no such member: the instruction is not sent."""
    queries_are_listed: bool = False
    takes_service_tier: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)

    def path_of(self, model: str) -> str:
        return self.path.replace("{model}", model)

    def encode(
        self,
        query: str,
        passages: Sequence[str],
        instruction: str,
        model: str,
        service_tier: ServiceTier | None = None,
    ) -> bytes:
        """Write a request: one query for all passages."""
        query = without_control_tokens(query)
        body: dict[str, Any] = {self.query: [query] if self.queries_are_listed else query}
        body[self.documents] = [without_control_tokens(passage) for passage in passages]
        if self.instruction is not None:
            body[self.instruction] = without_control_tokens(instruction)
        if self.model is not None:
            body[self.model] = model
        if service_tier is not None and self.takes_service_tier:
            body["service_tier"] = service_tier
        return msgspec.json.encode({**body, **self.more})


def _like_cohere(path: str, batch_max: int, **more: Any) -> RerankFormat:
    return RerankFormat(path, "query", "documents", batch_max, more=more)


DEEPINFRA = RerankFormat(
    "/v1/inference/{model}",
    "queries",
    "documents",
    RERANK_BATCH_MAX,
    model=None,
    instruction="instruction",
    queries_are_listed=True,
    takes_service_tier=True,
    more={"fail_fast": True},  # a refusal at once rather than a place in a queue
)
RERANK_FORMATS: Mapping[RerankApi, RerankFormat] = {
    "deepinfra": DEEPINFRA,
    "cohere": _like_cohere("/v2/rerank", 1000),
    "jina": _like_cohere("/v1/rerank", 1000, return_documents=False),
    "vllm": _like_cohere("/v1/rerank", 1000),
    "openrouter": _like_cohere("/v1/rerank", 1000),  # below https://openrouter.ai/api
    # Hugging Face text-embeddings-inference: more than its --max-client-batch-size, 32 by default, are refused.
    "tei": RerankFormat("/rerank", "query", "texts", 32, model=None, more={"truncate": True}),
}


@dataclass(frozen=True, slots=True)
class EmbedFormat:
    """An embeddings API of OpenAI's shape."""

    path: str
    fails_fast: bool = False
    """Whether it takes `fail_fast`, and `service_tier`; others refuse members that they do not know."""

    def tier(self, service_tier: ServiceTier | None) -> ServiceTier | None:
        """Return the service tier that may be sent."""
        return service_tier if self.fails_fast else None


EMBED_FORMATS: Mapping[EmbedApi, EmbedFormat] = {
    "deepinfra": EmbedFormat("/v1/openai/embeddings", fails_fast=True),
    "openai": EmbedFormat("/v1/embeddings"),
}


# Of Qwen (`<|im_start|>`, `<think>`, the template of its rerankers), Llama (`[INST]`, `<s>`), BERT (`[SEP]`).
_CONTROL_TOKEN = re.compile(
    r"<\|\w{1,40}\|>|</?(?:think|tool_call|tool_response|s)>|<(?:Instruct|Query|Document)>(?=:)"
    r"|\[/?(?:INST|CLS|SEP|MASK|PAD|UNK)\]",
    re.ASCII,
)


def without_control_tokens(text: str) -> str:
    """Put a space in the place of each token by which a prompt template marks its parts.

    Otherwise a document could end its own part of the prompt and write the verdict. The space keeps what stands
    around a token from forming another one.
    """
    return _CONTROL_TOKEN.sub(" ", text)
