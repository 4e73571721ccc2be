"""Two-stage search in client code: retrieve with BM25 and kNN, fuse, rerank, cut a page.

`two_stage_after.py` is the same class with the proxy.

    python examples/two_stage_before.py "laptop that survives kids"
"""

import json
import os
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from elasticsearch import Elasticsearch

WINDOW = 50
RANK_CONSTANT = 60
MIN_SIMILARITY = 0.35
PASSAGE = ("category", "title", "description")
EMBEDDING_MODEL = "Qwen/Qwen3-Embedding-4B"
RERANK_MODEL = "Qwen/Qwen3-Reranker-4B"
INSTRUCTION = "Given a shopper's query, judge whether this product is what they mean to buy."

Hit = Mapping[str, Any]


class ProductSearch:
    """Finds products by relevance."""

    def __init__(self, client: Elasticsearch, models_url: str, index: str = "products", dimensions: int = 384) -> None:
        self._client = client
        self._models_url = models_url
        self._index = index
        self._dimensions = dimensions

    def search(self, text: str, *, category: str | None = None, page: int = 0, size: int = 10) -> list[Hit]:
        """Return one page of products, best first."""
        filters = [{"term": {"category": category}}] if category else []
        match = {"multi_match": {"query": text, "fields": ["title^2", "description"]}}
        knn = {
            "field": "embedding",
            "query_vector": self._embed(text),
            "k": WINDOW,
            "num_candidates": 2 * WINDOW,
            "similarity": MIN_SIMILARITY,
            "filter": filters,
        }
        lexical = self._hits(query={"bool": {"must": match, "filter": filters}})
        semantic = self._hits(knn=knn)
        candidates = fuse(lexical, semantic)[:WINDOW]
        scores = self._scores(text, candidates)
        ranked = sorted(zip(scores, candidates, strict=True), key=lambda scored: -scored[0])
        return [hit for _, hit in ranked[page * size : (page + 1) * size]]

    def _hits(self, **search: Any) -> Sequence[Hit]:
        response = self._client.search(
            index=self._index, size=WINDOW, source={"excludes": ["embedding", "embedding_hash"]}, **search
        )
        hits: Sequence[Hit] = response["hits"]["hits"]
        return hits

    def _embed(self, text: str) -> list[float]:
        asked = {
            "model": EMBEDDING_MODEL,
            "input": [f"Instruct: {INSTRUCTION}\nQuery:{text}"],
            "dimensions": self._dimensions,
        }
        vector: list[float] = self._post("/v1/openai/embeddings", asked)["data"][0]["embedding"]
        return vector

    def _scores(self, text: str, hits: Sequence[Hit]) -> list[float]:
        passages = ["\n".join(str(hit["_source"][field]) for field in PASSAGE) for hit in hits]
        asked = {"queries": [text], "documents": passages, "instruction": INSTRUCTION}
        scores: list[float] = self._post(f"/v1/inference/{RERANK_MODEL}", asked)["scores"] if hits else []
        return scores

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"bearer {os.environ.get('DEEPINFRA_TOKEN')}"}
        request = urllib.request.Request(f"{self._models_url}{path}", json.dumps(body).encode(), headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return json.load(response)


def fuse(*rankings: Sequence[Hit]) -> list[Hit]:
    """Merge rankings by reciprocal rank fusion."""
    hits: dict[str, Hit] = {}
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            hits.setdefault(hit["_id"], hit)
            scores[hit["_id"]] = scores.get(hit["_id"], 0.0) + 1 / (RANK_CONSTANT + rank)
    return sorted(hits.values(), key=lambda hit: -scores[hit["_id"]])


def main(text: str) -> None:
    client = Elasticsearch(os.environ.get("SEARCH_URL", "http://127.0.0.1:9200"))
    models_url = os.environ.get("MODELS_URL", "http://127.0.0.1:8080")
    for hit in ProductSearch(client, models_url).search(text):
        print(hit["_id"], hit["_source"]["title"])


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "laptop that survives kids")
