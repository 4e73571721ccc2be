"""A retriever for retrieval-augmented generation: the best passages for a question, as a prompt with sources.

python examples/rag_retriever.py "Which laptop survives a drop?"
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from elasticsearch import Elasticsearch

BUDGET_MS = 2000


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text that may answer a question, and where it is from."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Passages, best first, and the outcome of the proxy: `reranked`, or why not."""

    passages: Sequence[Passage]
    outcome: str


class Retriever:
    """Retrieves passages through the proxy."""

    def __init__(
        self, client: Elasticsearch, index: str = "products", fields: Sequence[str] = ("title", "description")
    ) -> None:
        # A per-request option: the proxy may add this much time (or budget_ms of the route, if that is less), then the
        # best order known so far is returned.
        self._client = client.options(headers={"X-Rerank-Budget-Ms": str(BUDGET_MS)})
        self._index = index
        self._fields = tuple(fields)

    def retrieve(self, question: str, limit: int = 5) -> Retrieved:
        response = self._client.search(
            index=self._index,
            query={"multi_match": {"query": question, "fields": self._fields}},
            source={"includes": self._fields},
            size=limit,
        )
        passages = [
            Passage(hit["_id"], "\n".join(str(hit["_source"][field]) for field in self._fields))
            for hit in response["hits"]["hits"]
        ]
        return Retrieved(passages, response.meta.headers.get("x-rerank") or "not a search of a route")


def prompt(question: str, passages: Sequence[Passage]) -> str:
    """Ask a language model to answer from the passages alone."""
    sources = "\n\n".join(f"[{number}] {passage.text}" for number, passage in enumerate(passages, start=1))
    return (
        f"Answer the question from these sources alone, and name them by number.\n\n{sources}\n\nQuestion: {question}"
    )


def main(question: str) -> None:
    client = Elasticsearch(os.environ.get("SEARCH_URL", "http://127.0.0.1:9201"))
    retrieved = Retriever(client).retrieve(question)
    print(prompt(question, retrieved.passages))
    print(f"\n({retrieved.outcome})")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "Which laptop survives a drop?")
