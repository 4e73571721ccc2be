"""A small shop: products with words, facets, reviews and vectors whose neighbours are plain to see.

A text's vector counts the concepts its words stand for, so `notebook` lies beside `laptop` though no word agrees.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from proxy.commands.loading.mappings import Embedding
from tests.integration.engines import RealEngine

MODEL = "Qwen/Qwen3-Embedding-4B"
PASSAGE = ("title", "description")
EMBEDDING = Embedding("embedding", MODEL, 8, PASSAGE)

_CONCEPTS = (
    {"laptop", "laptops", "notebook", "notebooks"},
    {"phone", "phones", "handset", "handsets"},
    {"camera", "cameras", "shooter", "photography"},
    {"tablet", "tablets", "slate"},
    {"kids", "children"},
    {"rugged", "tough", "durable"},
    {"video", "editing", "film"},
)
_NOUNS = (("laptop", "notebook"), ("phone", "handset"), ("camera", "shooter"), ("tablet", "slate"))
_FEATURES = (
    "video editing",
    "long days outdoors",
    "children",
    "film and sound",
    "a tough life",
    "the office",
    "travel",
)
_BRANDS = ("acme", "globex", "initech")


def embed(text: str, dimensions: int = 8) -> list[float]:
    """Return a text's vector, of unit length; the eighth number stands for everything that is no concept.

    What there is room for behind it is the text's own, and near to no other's.
    """
    words = re.findall(r"\w+", text.lower())
    counts = [float(sum(word in concept for word in words)) for concept in _CONCEPTS]
    own = hashlib.shake_128(text.encode()).digest(dimensions - 8)
    vector = [*counts, 0.3, *(byte / 255 - 0.5 for byte in own)]
    length = sum(number * number for number in vector) ** 0.5
    return [number / length for number in vector]


def passage(product: Mapping[str, Any]) -> str:
    """Join what a model is shown of a product."""
    return "\n".join(str(product[field]) for field in PASSAGE)


def _product(number: int) -> dict[str, Any]:
    kind = number % 4
    noun = _NOUNS[kind][number // 4 % 2]
    feature = _FEATURES[number * 3 % len(_FEATURES)]
    product: dict[str, Any] = {
        "title": f"{_BRANDS[number % 3].title()} {noun} {100 + number}",
        "description": f"A {noun} for {feature}." + " Comes in a box." * (number % 5),
        "brand": _BRANDS[number % 3],
        "category": _NOUNS[kind][0],
        "price": 50.5 + 37 * (number * 7 % 40),
        "in_stock": number % 5 != 0,
        "released": f"20{10 + number % 15}-0{1 + number % 9}-11",
        "reviews": [
            {"author": f"user{number % 6}", "stars": 1 + number % 5, "text": f"My {noun} is fine"},
            {"author": "anna", "stars": 1 + number % 3, "text": "good value"},
        ],
    }
    return product | {"embedding": embed(passage(product)), "embedding_hash": f"{number:032d}"}


PRODUCTS: Mapping[str, Mapping[str, Any]] = {f"p{number:02d}": _product(number) for number in range(40)}
OTHERS: Mapping[str, Mapping[str, Any]] = {
    f"p{number:02d}": _product(number) | {"title": f"Second laptop {number}"} for number in range(4)
}

PROPERTIES: Mapping[str, Any] = {
    "title": {"type": "text", "fields": {"exact": {"type": "keyword"}}},
    "description": {"type": "text", "analyzer": "english"},
    "brand": {"type": "keyword"},
    "category": {"type": "keyword"},
    "price": {"type": "float"},
    "in_stock": {"type": "boolean"},
    "released": {"type": "date"},
    "reviews": {
        "type": "nested",
        "properties": {"author": {"type": "keyword"}, "stars": {"type": "integer"}, "text": {"type": "text"}},
    },
}
SETTINGS: Mapping[str, Any] = {"number_of_shards": 2, "number_of_replicas": 0, "refresh_interval": -1}


def with_vectors(engine: RealEngine, **settings: Any) -> dict[str, Any]:
    """Spell the shop's index for an engine; one that has no kNN has no vectors."""
    properties = dict(PROPERTIES)
    if engine.has_knn:
        properties |= {EMBEDDING.field: engine.vector(8), EMBEDDING.hash_field: {"type": "keyword"}}
    mappings = {"_meta": EMBEDDING.meta, "properties": properties}
    return {"settings": {**SETTINGS, **engine.settings, **settings}, "mappings": mappings}


WITH_VECTORS: Mapping[str, Any] = {
    "settings": SETTINGS,
    "mappings": {"_meta": EMBEDDING.meta, "properties": {**PROPERTIES, **EMBEDDING.properties}},
}
"""The same as the project's own commands make it on Elasticsearch."""


def without_vectors(products: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return products as somebody has them who never heard of this proxy."""
    own = {EMBEDDING.field, EMBEDDING.hash_field}
    return {
        name: {key: value for key, value in product.items() if key not in own} for name, product in products.items()
    }


def fused(rankings: Sequence[Sequence[str]], rank_constant: int = 60) -> list[str]:
    """Merge rankings of ids by reciprocal rank, as its authors write it."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking, start=1):
            scores[name] = scores.get(name, 0.0) + 1 / (rank_constant + rank)
    return sorted(scores, key=lambda name: -scores[name])
