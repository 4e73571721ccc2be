"""Haystack's Elasticsearch document store: written, filtered, found by words and by vectors, deleted."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from haystack import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack_integrations.components.retrievers.elasticsearch import (
    ElasticsearchBM25Retriever,
    ElasticsearchEmbeddingRetriever,
)
from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore

from tests.clients.python.sides import Bench, Scenario, Side, demand, equal, in_order, main, passage, same

BENCH = Bench.from_environment()
TEXTS = {name: passage(product) for name, product in BENCH.documents.items()}
ACME = {"field": "meta.brand", "operator": "==", "value": "acme"}


def _documents() -> list[Document]:
    return [
        Document(
            id=name, content=text, meta={"brand": BENCH.documents[name]["brand"]}, embedding=list(BENCH.vectors[text])
        )
        for name, text in TEXTS.items()
    ]


@contextmanager
def store(side: Side) -> Iterator[ElasticsearchDocumentStore]:
    """A store that holds the shop."""
    made = ElasticsearchDocumentStore(hosts=side.url, index=side.fresh)
    try:
        equal(len(TEXTS), made.write_documents(_documents()))
        yield made
    finally:
        made.close()


def _told(documents: list[Document]) -> list[Any]:
    return [[each.id, each.content, each.meta, each.score] for each in documents]


def by_words(side: Side) -> Any:
    with store(side) as made:
        retriever = ElasticsearchBM25Retriever(document_store=made, top_k=8)
        found = retriever.run("laptop for video editing")["documents"]
        return [_told(found), _told(retriever.run("phone", filters=ACME)["documents"])]


def by_words_later(side: Side) -> Any:
    with store(side) as made:
        retriever = ElasticsearchBM25Retriever(document_store=made, top_k=8)

        async def run() -> Any:
            try:
                return await retriever.run_async("laptop")
            finally:
                await made.close_async()

        return _told(asyncio.run(run())["documents"])


def by_vectors(side: Side) -> Any:
    with store(side) as made:
        retriever = ElasticsearchEmbeddingRetriever(document_store=made, top_k=6)
        found = retriever.run(list(BENCH.vectors["rugged"]))["documents"]
        return [_told(found), _told(retriever.run(list(BENCH.vectors["laptop"]), filters=ACME)["documents"])]


def life_of_documents(side: Side) -> Any:
    """Written once more they are refused or skipped, filtered they are paged through, deleted they are gone."""
    with store(side) as made:
        seen: list[Any] = [made.write_documents(_documents()[:2], policy=DuplicatePolicy.SKIP)]
        try:
            made.write_documents(_documents()[:2], policy=DuplicatePolicy.FAIL)
        except DuplicateDocumentError as error:
            seen.append(str(error))
        seen.append(sorted(_told(made.filter_documents(ACME))))
        seen.append(made.count_documents_by_filter(ACME))
        made.delete_documents(["p00", "p01"])
        seen.append(made.count_documents())
        return [*seen, made.delete_by_filter(ACME, refresh=True), made.count_documents()]


def words_are_reranked(bench: Bench) -> None:
    """In the route the documents found by words come in the model's order; pages are asked for until all are there."""
    _, through = bench.sides(routed=True)
    with store(through) as made:
        for count in (40, 200):
            found = ElasticsearchBM25Retriever(document_store=made, top_k=count, fuzziness="0").run("laptop")[
                "documents"
            ]
            texts = [each.content or "" for each in found]
            in_order(texts)
            equal([TEXTS[each.id] for each in found], texts)
            equal(len(found), len({each.id for each in found}))
            lost = {name for name, text in TEXTS.items() if "laptop" in text} - {each.id for each in found}
            demand(not lost, f"lost: {lost}")
        made.client.indices.delete(index=through.fresh)


SCENARIOS: dict[str, Scenario] = {
    **{see.__name__: same(see) for see in (by_words, by_words_later, by_vectors, life_of_documents)},
    **{f"{see.__name__}_in_route": same(see, routed=True) for see in (by_vectors, life_of_documents)},
    words_are_reranked.__name__: words_are_reranked,
}

if __name__ == "__main__":
    main(SCENARIOS)
