"""The search that a route of the proxy makes, as an application would write it itself with one aiohttp session.

The same engine searches and model calls in the same order as the proxy's: BM25 beside embedding and kNN, reciprocal
rank fusion, and reranking beside fetching the documents that kNN alone found. It has no timeouts, no retries, no
breaker, no cache, no degrading and no paging.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

Hit = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shop:
    """What is searched, and how."""

    engine: str
    models: str
    index: str
    window: int
    dimensions: int
    embed_model: str
    rerank_model: str
    instruction: str
    passage: tuple[str, ...] = ("title", "description")
    field: str = "embedding"
    rank_constant: int = 10
    batch: int = 50
    """Passages in one call of the reranker, as the proxy splits them by default."""


class ByHand:
    """Searches a shop on one session."""

    def __init__(self, session: aiohttp.ClientSession, shop: Shop) -> None:
        self._session = session
        self._shop = shop

    async def search(self, words: str, query: Mapping[str, Any], size: int = 10) -> list[Hit]:
        """Return the best hits for a query, and for the words in it."""
        shop = self._shop
        lexical, near = await asyncio.gather(
            self._hits({"query": query, "size": shop.window, "_source": {"excludes": [shop.field]}}), self._near(words)
        )
        known = {hit["_id"]: hit for hit in (*near, *lexical)}
        rankings = [[hit["_id"] for hit in hits] for hits in (lexical, near)]
        candidates = fused(rankings, shop.rank_constant)[: shop.window]
        own = {hit["_id"] for hit in lexical}
        passages = ["\n".join(str(known[name]["_source"][field]) for field in shop.passage) for name in candidates]
        scores, rendered = await asyncio.gather(
            self._scores(words, passages), self._rendered(query, [name for name in candidates if name not in own])
        )
        known |= {hit["_id"]: hit for hit in rendered}
        best = sorted(zip(scores, candidates, strict=True), key=lambda pair: -pair[0])[:size]
        return [known[name] | {"_score": score} for score, name in best]

    async def _post(self, url: str, body: Any) -> Any:
        async with self._session.post(url, json=body) as response:
            response.raise_for_status()
            return await response.json()

    async def _hits(self, body: Any) -> list[Hit]:
        found = await self._post(f"{self._shop.engine}/{self._shop.index}/_search", body)
        hits: list[Hit] = found["hits"]["hits"]
        return hits

    async def _near(self, words: str) -> list[Hit]:
        shop = self._shop
        prompt = f"Instruct: {shop.instruction}\nQuery:{words}"
        asked = {"model": shop.embed_model, "input": [prompt], "dimensions": shop.dimensions}
        answer = await self._post(f"{shop.models}/v1/openai/embeddings", asked)
        vector = answer["data"][0]["embedding"]
        knn = {"field": shop.field, "query_vector": vector, "k": shop.window, "num_candidates": max(100, shop.window)}
        return await self._hits({"knn": knn, "size": shop.window, "_source": [*shop.passage]})

    async def _rendered(self, query: Mapping[str, Any], ids: Sequence[str]) -> list[Hit]:
        if not ids:
            return []
        both = {"bool": {"filter": [{"ids": {"values": ids}}], "should": [query]}}
        return await self._hits({"query": both, "size": len(ids), "_source": {"excludes": [self._shop.field]}})

    async def _scores(self, words: str, passages: Sequence[str]) -> list[float]:
        starts = range(0, len(passages), self._shop.batch)
        batches = [passages[start : start + self._shop.batch] for start in starts]
        found = await asyncio.gather(*(self._scored(words, batch) for batch in batches))
        return [score for scores in found for score in scores]

    async def _scored(self, words: str, passages: Sequence[str]) -> list[float]:
        asked = {"queries": [words], "documents": passages, "instruction": self._shop.instruction}
        answer = await self._post(f"{self._shop.models}/v1/inference/{self._shop.rerank_model}", asked)
        scores: list[float] = answer["scores"]
        return scores


def fused(rankings: Sequence[Sequence[str]], rank_constant: int) -> list[str]:
    """Merge rankings by reciprocal rank."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking, start=1):
            scores[name] = scores.get(name, 0.0) + 1 / (rank_constant + rank)
    return sorted(scores, key=lambda name: -scores[name])
