"""The API formats of model providers, as tables: one row for each rerank API and each embeddings API.

`provider_errors` reads error messages in all of their formats.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from proxy.bounds import MARKS, RERANK_BATCH_MAX
from proxy.settings.config import EmbedApi, Models, RerankApi, ServiceTier

CallTier = ServiceTier | Literal["flex"]
"""The service tier of a call. `flex` costs less, and may wait ten minutes in the provider's queue."""


@dataclass(frozen=True, slots=True)
class RerankFormat:
    """A rerank API: its path, the names of its request members, and the maximum number of passages per call."""

    path: str
    """Relative to the provider's URL; `{model}` is replaced by the name of the model."""
    query: str
    documents: str
    batch_max: int
    model: str | None = "model"
    """None if the path contains the model's name."""
    instruction: str | None = None
    """None if the API has no such member: the instruction is then not sent."""
    queries_are_listed: bool = False
    takes_service_tier: bool = False
    fails_fast: bool = False
    """Whether it accepts `fail_fast`, for a 429 at once instead of a queue."""
    more: Mapping[str, Any] = field(default_factory=dict)

    def path_of(self, model: str) -> str:
        return self.path.replace("{model}", model)

    def encode(
        self,
        query: str,
        passages: Sequence[str],
        instruction: str,
        model: str,
        service_tier: CallTier | None = None,
    ) -> bytes:
        """Encode a request with one query for all passages."""
        query = without_control_tokens(query)
        body: dict[str, Any] = {self.query: [query] if self.queries_are_listed else query}
        body[self.documents] = all_without_control_tokens(passages)
        if self.instruction is not None:
            body[self.instruction] = without_control_tokens(instruction)
        if self.model is not None:
            body[self.model] = model
        if service_tier is not None and self.takes_service_tier:
            body["service_tier"] = service_tier
        if self.fails_fast and service_tier != "flex":
            body["fail_fast"] = True
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
    fails_fast=True,
)
RERANK_FORMATS: Mapping[RerankApi, RerankFormat] = {
    "deepinfra": DEEPINFRA,
    "cohere": _like_cohere("/v2/rerank", 1000),
    "jina": _like_cohere("/v1/rerank", 1000, return_documents=False),
    "vllm": _like_cohere("/v1/rerank", 1000),
    "openrouter": _like_cohere("/v1/rerank", 1000),  # relative to https://openrouter.ai/api
    # Hugging Face text-embeddings-inference rejects more than its --max-client-batch-size, 32 by default.
    "tei": RerankFormat("/rerank", "query", "texts", 32, model=None, more={"truncate": True}),
}


def rerank_endpoint(models: Models) -> str:
    """Return the name of the reranker's API and its URL, which is part of the key of cached scores."""
    return f"{models.rerank_api} {models.rerank_url or models.url}"


@dataclass(frozen=True, slots=True)
class EmbedFormat:
    """An embeddings API in the format of OpenAI's."""

    path: str
    fails_fast: bool = False
    """Whether it accepts `fail_fast` and `service_tier`; other APIs reject unknown members."""

    def tier(self, service_tier: CallTier | None) -> CallTier | None:
        """Return the service tier to send; None if the API has none."""
        return service_tier if self.fails_fast else None

    def fails_fast_on(self, service_tier: CallTier | None) -> bool:
        """Whether a call on this tier is rejected at once instead of queued."""
        return self.fails_fast and service_tier != "flex"


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
    """Replace every control token of known prompt templates with a space.

    Otherwise a document could close its part of the prompt and supply the verdict. The space prevents the surrounding
    text from forming another token.
    """
    return all_without_control_tokens((text,))[0]


def all_without_control_tokens(texts: Iterable[str]) -> list[str]:
    """Like `without_control_tokens`, for several texts."""
    return [_CONTROL_TOKEN.sub(" ", text) if "<" in text or "[" in text else text for text in texts]


_SIGN = r"[^\w\s\x00-\x7f]"
"""A combining mark, or another sign that may stand between two."""
_MANY_MARKS = re.compile(rf"(?<!{_SIGN}){_SIGN}{{{MARKS // 3 + 1},}}")
"""One sign may be three in NFD (U+1D160)."""


def _with_few_marks(text: str) -> str:
    """Shorten runs of combining marks, since the time to order them for NFC is quadratic in their number."""
    return text if text.isascii() else _MANY_MARKS.sub(_few_of, text)


def _few_of(run: re.Match[str]) -> str:
    is_ordered = unicodedata.is_normalized("NFC", run[0])
    return run[0] if is_ordered else unicodedata.normalize("NFD", run[0][:MARKS])[:MARKS]


def spelled_as_sent(text: str) -> str:
    """Spell a query text as the models receive it: NFC, without control tokens, whitespace collapsed; case kept."""
    # before: it may complete a control token (U+212A becomes K)
    composed = unicodedata.normalize("NFC", _with_few_marks(text))
    return " ".join(without_control_tokens(composed).split())


def sent_query(text: str, max_chars: int) -> str:
    """Return a query as the models receive it: spelled, and cut.

    Caches use it as their key, so that queries share an entry exactly if they are sent as the same text.
    """
    return spelled_as_sent(text)[:max_chars].rstrip()


_LISTWISE = re.compile(r"jina-reranker-v3", re.IGNORECASE)


def is_listwise(model: str) -> bool:
    """Whether a passage's score depends on the other passages of the call, and is reusable only with the same ones."""
    return _LISTWISE.search(model) is not None
