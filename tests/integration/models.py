"""DeepInfra's two endpoints for the shop: vectors and scores that a test can foretell."""

import hashlib
from collections.abc import Callable
from typing import Any

from tests.fakes import FakeModels
from tests.integration.shop import embed

Score = Callable[[str], float]


def by_hash(document: str) -> float:
    """Score a document by nothing it says, so that the order is no other retriever's."""
    return int.from_bytes(hashlib.sha256(document.encode()).digest()[:6], "big") / 2**48


class ShopModels(FakeModels):
    """Knows the shop's concepts; scores by `score`."""

    def __init__(self) -> None:
        super().__init__()
        self.score: Score = by_hash

    @property
    def embedded(self) -> list[Any]:
        """The bodies of the calls to the embedder."""
        return [request.json() for request in self.of("embed")]

    @property
    def reranked(self) -> list[Any]:
        """The bodies of the calls to the reranker."""
        return [request.json() for request in self.of("rerank")]

    def _embedded(self, asked: Any) -> Any:
        vectors = [embed(text.rpartition("\nQuery:")[2], asked.get("dimensions", 8)) for text in asked["input"]]
        return {"data": [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]}

    def _scored(self, asked: Any) -> Any:
        return {"scores": [self.score(document) for document in asked["documents"]], "input_tokens": 1}
