"""What the programs search: some of the demo's products with vectors, in the form that each engine takes."""

import json
from collections.abc import Mapping
from typing import Any

from demo import shop
from demo.asking import ask
from demo.engines import Engine, Family
from demo.services import ServiceError
from proxy.mappings import Embedding
from tests.integration.sending import Request, send_now

_EVERY = 4
"""Each fourth product is enough for clients, and soon embedded."""
EMBEDDING = Embedding("embedding", "Qwen/Qwen3-Embedding-4B", 384, ("title", "description"))
_KNN_VECTOR = {
    "type": "knn_vector",
    "dimension": EMBEDDING.dimensions,
    "method": {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"},
}
_PROPERTIES = {
    "id": {"type": "keyword"},
    "title": {"type": "text", "fields": {"raw": {"type": "keyword"}}},
    "description": {"type": "text"},
    "brand": {"type": "text", "fields": {"keyword": {"type": "keyword"}}},
    "category": {"type": "keyword"},
    "price": {"type": "float"},
    "rating": {"type": "float"},
    "reviews": {"type": "integer"},
    "attributes": {"type": "object", "enabled": False},
}
_SHARDS = {"number_of_shards": 2, "number_of_replicas": 0}


def has_vectors(engine: Engine) -> bool:
    """Whether it can hold vectors: the OpenSearch that has no k-NN plugin cannot."""
    return engine.family is Family.ELASTICSEARCH or any("knn" in each.artifact.name for each in engine.archives)


def read(models: str) -> Mapping[str, Mapping[str, Any]]:
    """Read the products by id, each with the vector that local models make of it."""
    products = list(shop.products().values())[::_EVERY]
    texts = ["\n".join(str(product[field]) for field in EMBEDDING.passage) for product in products]
    asked = {"model": EMBEDDING.model, "input": texts, "dimensions": EMBEDDING.dimensions}
    made = ask(f"{models}/v1/openai/embeddings", asked).body["data"]
    return {
        product["id"]: {**product, EMBEDDING.field: vector["embedding"]}
        for product, vector in zip(products, made, strict=True)
    }


def load(engine: Engine, url: str, index: str, products: Mapping[str, Mapping[str, Any]]) -> None:
    """Make the index, with vectors where the engine can hold them; raises ServiceError."""
    with_vectors = has_vectors(engine)
    left_out = () if with_vectors else (EMBEDDING.field,)
    lines: list[Any] = []
    for name, product in products.items():
        kept = {key: value for key, value in product.items() if key not in left_out}
        lines += [{"index": {"_id": name}}, kept]
    _demand(url, Request("PUT", f"/{index}", json.dumps(_index(engine, with_vectors=with_vectors)).encode()))
    _demand(url, Request("POST", f"/{index}/_bulk?refresh=true", "".join(f"{json.dumps(x)}\n" for x in lines).encode()))


def drop(url: str, prefix: str) -> None:
    """Delete the indices whose names begin so."""
    for made in ask(f"{url}/_resolve/index/{prefix}*").body["indices"]:
        _demand(url, Request("DELETE", f"/{made['name']}"))


def _index(engine: Engine, *, with_vectors: bool) -> Mapping[str, Any]:
    plain = {"settings": _SHARDS, "mappings": {"properties": _PROPERTIES}}
    if not with_vectors:
        return plain
    on_elasticsearch = engine.family is Family.ELASTICSEARCH
    vectors = EMBEDDING.properties if on_elasticsearch else {EMBEDDING.field: _KNN_VECTOR}
    settings = _SHARDS if on_elasticsearch else {**_SHARDS, "index.knn": True}
    return {"settings": settings, "mappings": {"_meta": EMBEDDING.meta, "properties": {**_PROPERTIES, **vectors}}}


def _demand(url: str, request: Request) -> None:
    reply = send_now(url, request)
    if reply.status >= 300 or b'"errors":true' in reply.body:
        raise ServiceError(f"{request.method} {url}{request.target}: {reply.status} {reply.body[:500]!r}")
