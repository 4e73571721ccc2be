"""LlamaIndex's Elasticsearch store: nodes written, found by words, by vectors and by both, deleted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.vector_stores.elasticsearch import AsyncBM25Strategy, AsyncDenseVectorStrategy, ElasticsearchStore

from tests.clients.python.sides import Bench, Scenario, Side, demand, equal, in_order, later, main, passage, same

BENCH = Bench.from_environment()
TEXTS = {name: passage(product) for name, product in BENCH.documents.items()}


def _nodes() -> list[TextNode]:
    """The shop as nodes, each of a document of its own."""
    return [
        TextNode(
            id_=name,
            text=TEXTS[name],
            metadata={"brand": product["brand"]},
            embedding=list(BENCH.vectors[TEXTS[name]]),
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"of-{name}")},
        )
        for name, product in BENCH.documents.items()
    ]


@asynccontextmanager
async def store(side: Side, strategy: Any) -> AsyncIterator[ElasticsearchStore]:
    """A store that holds the shop."""
    made = ElasticsearchStore(index_name=side.fresh, es_url=side.url, retrieval_strategy=strategy)
    try:
        equal(list(TEXTS), await made.async_add(_nodes()))
        yield made
    finally:
        await made.client.close()


async def _asked(
    made: ElasticsearchStore, words: str, mode: VectorStoreQueryMode, count: int
) -> VectorStoreQueryResult:
    brand = MetadataFilters(filters=[MetadataFilter(key="brand", value="acme")])
    vector = None if mode is VectorStoreQueryMode.TEXT_SEARCH else list(BENCH.vectors[words])
    query = VectorStoreQuery(
        query_str=words, query_embedding=vector, similarity_top_k=count, mode=mode, filters=brand if count < 8 else None
    )
    return await made.aquery(query)


def _told(found: VectorStoreQueryResult) -> list[Any]:
    texts = [node.get_content() for node in found.nodes or []]
    return [found.ids, found.similarities, texts]


async def by_words(side: Side) -> Any:
    async with store(side, AsyncBM25Strategy()) as made:
        mode = VectorStoreQueryMode.TEXT_SEARCH
        return [_told(await _asked(made, words, mode, count)) for words, count in (("laptop", 6), ("phone", 20))]


async def by_vectors(side: Side) -> Any:
    async with store(side, AsyncDenseVectorStrategy()) as made:
        mode = VectorStoreQueryMode.DEFAULT
        return [_told(await _asked(made, words, mode, count)) for words, count in (("rugged", 6), ("children", 20))]


async def life_of_nodes(side: Side) -> Any:
    """Nodes are deleted by their document and by their ids, and got by ids."""
    async with store(side, AsyncDenseVectorStrategy()) as made:
        await made.adelete("of-p00")
        await made.adelete_nodes(["p01", "p02"])
        await made.client.indices.refresh(index=side.fresh)
        left = (await made.client.count(index=side.fresh)).body
        return [left, _told(await _asked(made, "laptop", VectorStoreQueryMode.DEFAULT, 12))]


def words_are_reranked(bench: Bench) -> None:
    asyncio.run(_words_are_reranked(bench))


async def _words_are_reranked(bench: Bench) -> None:
    """In the route the nodes found by words come in the model's order, and are what was written."""
    _, through = bench.sides(routed=True)
    async with store(through, AsyncBM25Strategy()) as made:
        found = await _asked(made, "laptop", VectorStoreQueryMode.TEXT_SEARCH, 40)
        await made.client.indices.delete(index=through.fresh)
    names, texts = found.ids or [], [node.get_content() for node in found.nodes or []]
    in_order(texts)
    equal([TEXTS[name] for name in names], texts)
    equal(len(names), len(set(names)))
    demand({name for name, text in TEXTS.items() if "laptop" in text} <= set(names), f"lost: {names}")


SCENARIOS: dict[str, Scenario] = {
    **{see.__name__: same(later(see)) for see in (by_words, by_vectors, life_of_nodes)},
    **{f"{see.__name__}_in_route": same(later(see), routed=True) for see in (by_vectors, life_of_nodes)},
    words_are_reranked.__name__: words_are_reranked,
}

if __name__ == "__main__":
    main(SCENARIOS)
