"""Two-stage search through the proxy: one search call.

`two_stage_before.py` is the same class without the proxy.

python examples/two_stage_after.py "laptop that survives kids"
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

from elasticsearch import Elasticsearch

Hit = Mapping[str, Any]


class ProductSearch:
    """Finds products by relevance."""

    def __init__(self, client: Elasticsearch, index: str = "products") -> None:
        self._client = client
        self._index = index

    def search(self, text: str, *, category: str | None = None, page: int = 0, size: int = 10) -> list[Hit]:
        """Return one page of products, best first."""
        filters = [{"term": {"category": category}}] if category else []
        match = {"multi_match": {"query": text, "fields": ["title^2", "description"]}}
        response = self._client.search(
            index=self._index, query={"bool": {"must": match, "filter": filters}}, from_=page * size, size=size
        )
        hits: list[Hit] = response["hits"]["hits"]
        return hits


def main(text: str) -> None:
    client = Elasticsearch(os.environ.get("SEARCH_URL", "http://127.0.0.1:9201"))
    for hit in ProductSearch(client).search(text):
        print(hit["_id"], hit["_source"]["title"])


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "laptop that survives kids")
