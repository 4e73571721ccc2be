"""`--dry-run`: the same command, with an engine that is only read and a model that only counts what it would cost."""

from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from proxy.catalog.dialects import EngineKind
from proxy.catalog.vectors import Vectors
from proxy.commands.loading.clients import Action, EngineApi, Outcome
from proxy.commands.loading.mappings import Spelling
from proxy.settings.profiles import TIERS
from proxy.upstream.embedder import ServedModel
from proxy.upstream.spending.prices import Prices, embed_tokens

_READS = ("_search", "_mget", "_count")
_DIMENSIONS = 1024
"""Assumed of a model that is in no tier: no vector is written."""


class ReadOnlyEngine:
    """An engine whose indices are not created, changed or refreshed; every write is reported as done."""

    def __init__(self, client: EngineApi) -> None:
        self._client = client

    @property
    def kind(self) -> EngineKind:
        return self._client.kind

    @property
    def spelling(self) -> Spelling:
        return self._client.spelling

    async def ask(
        self, method: str, path: str, body: Any = None, parameters: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        if method != "GET" and not path.endswith(_READS):
            return {}
        return await self._client.ask(method, path, body, parameters)

    async def bulk(self, actions: AsyncIterable[Action]) -> AsyncGenerator[tuple[bool, Outcome]]:
        async for action in actions:
            yield True, {"_index": action["_index"], "_id": action["_id"], "status": 200}

    async def close(self) -> None:
        await self._client.close()


@dataclass(slots=True)
class CountingEmbedder:
    """An embedder that calls no model: its vectors are zeros."""

    prices: Prices
    model: str = ""
    texts: int = 0
    tokens: float = 0.0

    async def served_model(self, *, model: str, dimensions: int | None) -> ServedModel:
        own = (tier.dimensions for tier in TIERS.values() if tier.embedding == model)
        return ServedModel(model, dimensions or next(own, _DIMENSIONS))

    async def embed_passages(self, texts: Sequence[str], *, model: str, dimensions: int | None) -> Vectors:
        self.model = model
        self.texts += len(texts)
        self.tokens += embed_tokens(texts)
        return np.zeros((len(texts), dimensions or _DIMENSIONS), dtype=np.float32)

    def report(self) -> str:
        """Report what the run would cost."""
        if not self.texts:
            return "no text needs a new vector: the run would cost nothing"
        said = f"{self.texts:,} texts, about {self.tokens:,.0f} tokens of {self.model}"
        price = self.prices.of(self.model)
        if price is None:
            return f"{said}; its price is not known: set it in `spend.prices`"
        return f"{said}: ${self.prices.usd(self.model, self.tokens):,.4f} at ${price:g} per million tokens"
