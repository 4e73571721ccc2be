"""An exact match keeps its rank on a real engine, although the reranker would put it last."""

from typing import Any

import pytest

from tests.integration.conftest import OpenIndex, Sides
from tests.integration.engines import EVERYWHERE
from tests.integration.models import ShopModels

pytestmark = [pytest.mark.engine, EVERYWHERE]

SETTINGS = {
    "settings": {"number_of_shards": 1},
    "mappings": {
        "properties": {
            "title": {"type": "text", "fields": {"raw": {"type": "keyword"}}},
            "description": {"type": "text"},
            "code": {"type": "keyword"},
            "maker": {"type": "keyword"},
        }
    },
}
PRODUCTS: dict[str, dict[str, Any]] = {
    f"h{number}": {
        "title": f"Globex garden hose {number} metres",
        "description": f"A garden hose of {number} metres, green, for a river or garden.",
        "code": f"GH {number}",
        "maker": "globex garden hose",
    }
    for number in range(10, 30)
} | {
    "exact": {"title": "Garden Hose", "description": "A garden hose.", "code": "River Blue", "maker": "acme"},
    "part": {"title": "Globex hose GX-7714-B", "description": "For pumps.", "code": "R9", "maker": "globex"},
    "other": {"title": "Globex pump GX-7715-B", "description": "Needs a hose of the same series.", "code": "R8"},
}


def not_wanted(document: str) -> float:
    """Score what is meant below everything else."""
    return 0.1 if document.startswith(("Garden Hose\n", "Globex hose GX-7714-B")) else 0.9


async def opened(open_index: OpenIndex, models: ShopModels) -> Sides:
    models.score = not_wanted
    return await open_index(SETTINGS, PRODUCTS, semantic=None)


def search(text: str, *fields: str) -> dict[str, Any]:
    return {"query": {"multi_match": {"query": text, "fields": list(fields), "type": "most_fields"}}, "size": 30}


def by_words_or(text: str, **term: Any) -> dict[str, Any]:
    words = {"multi_match": {"query": text, "fields": ["title", "description"]}}
    return {"query": {"bool": {"should": [words, {"term": term}], "minimum_should_match": 1}}, "size": 30}


CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "its title": (search("garden HOSE", "title", "description"), "exact", "exact_match"),
    "its title as a keyword": (search("Garden Hose", "title^2", "title.raw"), "exact", "exact_match"),
    "a keyword field": (search("River Blue", "code^9", "title", "description"), "exact", "exact_match"),
    "a keyword in a term": (by_words_or("river blue hose", code={"value": "GH 12"}), "", ""),
    "the same words in a term": (
        by_words_or("River Blue", code={"value": "River Blue", "boost": 9}),
        "exact",
        "exact_match",
    ),
    "brand and part number": (search("globex GX-7714-B", "title^2", "description"), "part", "identifier"),
}


@pytest.mark.parametrize(("body", "name", "reason"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("shown", [{}, {"_source": False}, {"_source": ["maker"]}], ids=["whole", "none", "other"])
async def test_an_exact_match_keeps_its_rank(
    body: dict[str, Any], name: str, reason: str, shown: Any, open_index: OpenIndex, models: ShopModels
) -> None:
    sides = await opened(open_index, models)
    body = body | shown
    straight = await sides.straight.search(body)
    through = await sides.through.search(body | {"ext": {"rerank_proxy": {"explain": True}}})
    assert "reranked" == through.outcome
    kept = {hit["_id"]: hit["_rerank"]["kept"] for hit in through.hits if "kept" in hit["_rerank"]}
    if not name:
        assert {} == kept
        return
    rank = straight.ids.index(name) + 1
    assert {name: {"rank": rank, "reason": reason}} == kept
    assert (rank - 1, sorted(straight.ids)) == (through.ids.index(name), sorted(through.ids))


async def test_a_value_of_many_hits_is_no_exact_match(open_index: OpenIndex, models: ShopModels) -> None:
    """It is the name of a brand, not of a product."""
    sides = await opened(open_index, models)
    body = search("globex garden hose", "maker^9", "title", "description")
    through = await sides.through.search(body | {"ext": {"rerank_proxy": {"explain": True}}})
    assert ("reranked", []) == (through.outcome, [hit["_id"] for hit in through.hits if "kept" in hit["_rerank"]])


async def test_pages_with_an_exact_match_fit_together(open_index: OpenIndex, models: ShopModels) -> None:
    sides = await opened(open_index, models)
    body = search("garden hose", "title", "description")
    whole = (await sides.through.search(body)).ids
    pages = [await sides.through.search(body | {"from": first, "size": 7}) for first in range(0, 28, 7)]
    assert whole == [name for page in pages for name in page.ids]
