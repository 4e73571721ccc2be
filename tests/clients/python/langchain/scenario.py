"""LangChain's Elasticsearch store: texts written, found by words and by vectors, deleted."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from elasticsearch import Elasticsearch
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_elasticsearch import BM25Strategy, DenseVectorStrategy, ElasticsearchRetriever, ElasticsearchStore

from tests.clients.python.sides import Bench, Scenario, Side, demand, equal, in_order, main, passage, same

BENCH = Bench.from_environment()
TEXTS = [passage(product) for product in BENCH.documents.values()]
FOLLOWING = [{"number": number, "brand": product["brand"]} for number, product in enumerate(BENCH.documents.values())]
IDS = list(BENCH.documents)


class Foretold(Embeddings):  # type: ignore[misc]  # its types are in another environment
    """The vectors that the model of these tests gives."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [list(BENCH.vectors[text]) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return list(BENCH.vectors.get(text, [1.0] * 8))  # the store asks for any text's, to learn the length


@contextmanager
def store(side: Side, strategy: Any) -> Iterator[ElasticsearchStore]:
    """A store that holds the shop."""
    made = ElasticsearchStore(side.fresh, es_url=side.url, embedding=Foretold(), strategy=strategy)
    try:
        equal(IDS, made.add_texts(TEXTS, metadatas=FOLLOWING, ids=IDS))
        yield made
    finally:
        made.close()


def _told(documents: list[Document]) -> list[Any]:
    return [[document.page_content, document.metadata] for document in documents]


def by_words(side: Side) -> Any:
    with store(side, BM25Strategy()) as made:
        acme = [{"term": {"metadata.brand.keyword": "acme"}}]
        found = made.similarity_search("laptop for video editing", k=7, filter=acme)
        scored = made.similarity_search_with_score("phone", k=5)
        return [_told(found), [[document.page_content, score] for document, score in scored]]


def by_vectors(side: Side) -> Any:
    with store(side, DenseVectorStrategy()) as made:
        found = made.similarity_search("rugged", k=6)
        scored = made.similarity_search_with_score("children", k=5)
        retriever = made.as_retriever(search_kwargs={"k": 4})
        various = made.max_marginal_relevance_search("laptop", k=3, fetch_k=10)
        told = [_told(found), _told(retriever.invoke("laptop")), _told(various)]
        return [told, [[document.page_content, score] for document, score in scored]]


def life_of_documents(side: Side) -> Any:
    with store(side, BM25Strategy()) as made:
        deleted = made.delete(IDS[:5])
        left = made.similarity_search("laptop", k=40)
        return [deleted, sorted(document.page_content for document in left)]


def life_by_vectors(side: Side) -> Any:
    """What is deleted is found no more, by vectors alone in any route."""
    with store(side, DenseVectorStrategy()) as made:
        deleted = made.delete(IDS[:5])
        return [deleted, _told(made.similarity_search("laptop", k=8))]


def _own_body(words: str) -> dict[str, Any]:
    return {"query": {"match": {"text": words}}, "size": 40}


def retriever(side: Side) -> Any:
    with store(side, BM25Strategy()), Elasticsearch(side.url) as client:
        own = ElasticsearchRetriever(client=client, index_name=side.fresh, body_func=_own_body, content_field="text")
        return _told(own.invoke("laptop"))


def words_are_reranked(bench: Bench) -> None:
    """In the route the documents found by words come in the model's order, and are what was written."""
    straight, through = bench.sides(routed=True)
    with store(through, BM25Strategy()) as made:
        found = [document.page_content for document in made.similarity_search("laptop", k=40)]
        with Elasticsearch(through.url) as client:
            own = ElasticsearchRetriever(
                client=client, index_name=through.fresh, body_func=_own_body, content_field="text"
            )
            equal(found, [document.page_content for document in own.invoke("laptop")])
    in_order(found)
    equal(len(found), len(set(found)))
    demand(set(found) <= set(TEXTS), f"{found}")
    demand({text for text in TEXTS if "laptop" in text} <= set(found), f"lost: {found}")
    with Elasticsearch(straight.url) as client:
        client.indices.delete(index=through.fresh)


SCENARIOS: dict[str, Scenario] = {
    **{see.__name__: same(see) for see in (by_words, by_vectors, life_of_documents, life_by_vectors, retriever)},
    **{f"{see.__name__}_in_route": same(see, routed=True) for see in (by_vectors, life_by_vectors)},
    words_are_reranked.__name__: words_are_reranked,
}

if __name__ == "__main__":
    main(SCENARIOS)
