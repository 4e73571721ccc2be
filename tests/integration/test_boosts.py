"""Boosts and pins of the client's query, as real engines score them, with a reranker that does not know them."""

import math
from typing import Any

import pytest

from tests.integration import shop as catalogue
from tests.integration.conftest import Open, OpenIndex
from tests.integration.engines import EVERYWHERE, WITH_KNN, RealEngine
from tests.integration.models import ShopModels, by_hash

pytestmark = [pytest.mark.engine, EVERYWHERE]

WORDS: dict[str, Any] = {"match": {"title": "laptop"}}
PIN, SECOND = "p16", "p08"
LEAST_ODDS, GREATEST_ODDS = 0.01 / 0.99, 0.99 / 0.01


def scored(*functions: Any, **said: Any) -> dict[str, Any]:
    return {"function_score": {"query": WORDS, "functions": list(functions), **said}}


def ids(*names: str, boost: float) -> dict[str, Any]:
    return {"ids": {"values": list(names), "boost": boost}}


PINNED: dict[str, Any] = {
    "a clause of a weight beyond all others": {"bool": {"should": [WORDS, ids(PIN, boost=1e6)]}},
    "a function of such a weight": {
        "bool": {"should": [WORDS, {"function_score": {"query": {"ids": {"values": [PIN]}}, "weight": 1e6}}]}
    },
    "hero products": {
        "dis_max": {"queries": [{"bool": {"should": [ids(PIN, boost=1e4), ids(SECOND, boost=1e3)]}}, WORDS]}
    },
    "beside required words": {"bool": {"must": [WORDS], "should": [ids(PIN, boost=1000)]}},
    "a constant": {
        "bool": {"should": [WORDS, {"constant_score": {"filter": {"ids": {"values": [PIN]}}, "boost": 5000}}]}
    },
    "a multiplied weight": scored({"filter": {"ids": {"values": [PIN]}}, "weight": 1000}),
    "beside popularity": {
        "bool": {
            "should": [
                scored({"field_value_factor": {"field": "price", "modifier": "log1p"}}, boost_mode="multiply"),
                ids(PIN, boost=1e6),
            ],
            "filter": [{"range": {"price": {"gte": 1}}}],
        }
    },
    "beside words in a filter": {"bool": {"filter": [WORDS], "should": [ids(PIN, boost=1000)]}},
    "beside words in functions": {
        "function_score": {
            "query": {"match_all": {}},
            "functions": [{"filter": WORDS, "weight": 10}, {"filter": {"ids": {"values": [PIN]}}, "weight": 1e4}],
            "score_mode": "sum",
            "min_score": 2,
        }
    },
    "beyond a float": scored({"filter": {"ids": {"values": [PIN]}}, "weight": 3e38}, boost_mode="multiply"),
}


def but(text: str, score: float) -> Any:
    """Score this document so, and others by nothing that they say."""
    return lambda document: score if document.startswith(text) else by_hash(document)


def explained(query: Any, **members: Any) -> dict[str, Any]:
    return {"query": query, "size": 40, "ext": {"rerank_proxy": {"explain": True}}, **members}


def ratios_of(hits: list[Any]) -> dict[str, float]:
    return {hit["_id"]: hit["_rerank"].get("boost", {}).get("ratio", 1.0) for hit in hits}


def is_knn_only(hit: Any) -> bool:
    return "lexical" not in hit["_rerank"]


@pytest.mark.parametrize("query", PINNED.values(), ids=PINNED)
async def test_a_pinned_document_stays_first(query: Any, open_sides: Open, models: ShopModels) -> None:
    sides = await open_sides()
    models.score = but(catalogue.PRODUCTS[PIN]["title"], 0.0001)
    straight = await sides.straight.search({"query": query, "size": 40})
    through = await sides.through.search({"query": query, "size": 40})
    assert ("reranked", PIN, PIN) == (through.outcome.split(";")[0], straight.ids[0], through.ids[0])
    assert set(straight.ids) <= set(through.ids)
    assert all(math.isfinite(hit["_score"]) for hit in through.hits)


def rescored(*queries: Any, **weights: Any) -> dict[str, Any]:
    entries = [{"window_size": 50, "query": {"rescore_query": query, **weights}} for query in queries]
    return {"query": WORDS, "size": 40, "rescore": entries}


POPULAR = {"function_score": {"functions": [{"field_value_factor": {"field": "price", "modifier": "log1p"}}]}}


@pytest.mark.parametrize(
    "body",
    [
        rescored({"constant_score": {"filter": {"ids": {"values": [PIN]}}, "boost": 1e5}}),
        rescored({"bool": {"should": [{"match_phrase": {"title": "laptop"}}, ids(PIN, boost=1e5)]}}),
        rescored(POPULAR, {"function_score": {"functions": [{"filter": {"ids": {"values": [PIN]}}, "weight": 1e5}]}}),
        rescored(scored({"filter": {"ids": {"values": [PIN]}}, "weight": 1e4}), score_mode="multiply"),
    ],
)
async def test_a_document_pinned_by_rescore_stays_first(body: Any, open_sides: Open, models: ShopModels) -> None:
    sides = await open_sides()
    models.score = but(catalogue.PRODUCTS[PIN]["title"], 0.0001)
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert ("reranked", PIN, PIN) == (through.outcome, straight.ids[0], through.ids[0])
    assert set(straight.ids) <= set(through.ids)


async def test_a_rescore_by_the_query_text_needs_no_boost_search(open_sides: Open) -> None:
    sides = await open_sides()
    through = await sides.through.search(rescored({"match_phrase": {"title": {"query": "laptop", "slop": 2}}}))
    assert "reranked" == through.outcome
    assert "boosts" not in through.header("Server-Timing")


@pytest.mark.parametrize(
    "query",
    [
        {"boosting": {"positive": WORDS, "negative": {"ids": {"values": [PIN]}}, "negative_boost": 0.01}},
        scored({"filter": {"match": {"title": catalogue.PRODUCTS[PIN]["title"].split()[-1]}}, "weight": 0.01}),
    ],
    ids=["boosting", "a function of other words in the field of the query text"],
)
async def test_a_demoted_document_stays_at_the_bottom(query: Any, open_sides: Open, models: ShopModels) -> None:
    sides = await open_sides()
    models.score = but(catalogue.PRODUCTS[PIN]["title"], 0.9999)
    through = await sides.through.search({"query": query, "size": 40})
    assert ("reranked", PIN) == (through.outcome, through.ids[-1])


async def test_a_small_boost_factor_moves_only_near_ties(open_sides: Open, models: ShopModels) -> None:
    sides = await open_sides()
    through = await sides.through.search(explained(scored({"filter": {"term": {"brand": "acme"}}, "weight": 1.2})))
    assert "reranked" == through.outcome
    assert {1.0, 1.2} == {round(ratio, 4) for ratio in ratios_of(through.hits).values()}
    scores = [min(max(hit["_rerank"]["rerank"], 0.01), 0.99) for hit in through.hits]
    odds = [score / (1 - score) for score in scores]
    for place, above in enumerate(odds):
        assert all(above * 1.20001 >= below for below in odds[place + 1 :])


async def test_an_additive_boost_lifts_a_weak_match_no_more_than_in_the_engines_order(open_sides: Open) -> None:
    sides = await open_sides()
    bonus = {"constant_score": {"filter": {"term": {"in_stock": False}}, "boost": 0.8}}
    words = {"match": {"title": {"query": "acme laptop 116"}}}
    query = {"bool": {"must": [words], "should": [bonus]}}
    plain = {hit["_id"]: hit["_score"] for hit in (await sides.straight.search({"query": words, "size": 40})).hits}
    through = await sides.through.search(explained(query))
    weak = [found for found, score in plain.items() if score <= sorted(plain.values())[len(plain) // 2]]
    ratios = ratios_of(through.hits)
    assert any(ratios[found] > 1 for found in weak)
    assert all(ratios[found] <= (plain[found] + 0.8) / plain[found] + 1e-5 for found in weak)


@pytest.mark.parametrize(
    "query",
    [
        scored({"field_value_factor": {"field": "price", "modifier": "log1p"}}),
        scored({"gauss": {"price": {"origin": 100, "scale": 10, "decay": 0.01}}}),
        {"bool": {"should": [WORDS, ids("p04", "p12", boost=1e6)]}},
        scored({"filter": {"term": {"in_stock": False}}, "weight": 0}),
    ],
)
@WITH_KNN
async def test_documents_that_only_knn_found_are_never_raised_by_boosts(query: Any, open_sides: Open) -> None:
    sides = await open_sides()
    through = await sides.through.search(explained(query))
    found = [hit for hit in through.hits if is_knn_only(hit)]
    assert ("reranked", True) == (through.outcome, bool(found))
    assert all(0 < hit["_rerank"].get("boost", {"ratio": 1})["ratio"] <= 1 for hit in found)
    assert all(math.isfinite(hit["_score"]) for hit in through.hits)


@WITH_KNN
async def test_a_boost_field_that_knn_documents_lack_causes_no_error(
    open_index: OpenIndex, real_engine: RealEngine
) -> None:
    settings = catalogue.with_vectors(real_engine)
    documents = {
        name: {key: value for key, value in product.items() if key != "price" or "laptop" in product["title"]}
        for name, product in catalogue.PRODUCTS.items()
    }
    sides = await open_index(settings, documents)
    through = await sides.through.search(explained(scored({"field_value_factor": {"field": "price"}})))
    assert ("reranked", True) == (through.outcome, any(is_knn_only(hit) for hit in through.hits))
    assert len(set(ratios_of(through.hits).values())) > 2


@pytest.mark.parametrize(
    ("query", "header"),
    [
        (scored({"field_value_factor": {"field": "price"}}, boost_mode="replace"), "bypassed;reason=boost_alone"),
        (
            {"script_score": {"query": WORDS, "script": {"source": "doc['price'].value"}}},
            "bypassed;reason=boost_alone",
        ),
        (scored({"random_score": {}}), 'reranked;stages="boosts";reason=random_score'),
    ],
)
async def test_boosts_that_cannot_be_applied_are_reported(query: Any, header: str, open_sides: Open) -> None:
    sides = await open_sides(semantic=None)
    assert header == (await sides.through.search({"query": query, "size": 40})).outcome


async def test_no_boost_search_is_sent_for_a_query_without_boosts(open_sides: Open) -> None:
    sides = await open_sides()
    for query in (WORDS, {"bool": {"must": [WORDS], "filter": [{"term": {"brand": "acme"}}]}}):
        through = await sides.through.search(explained(query))
        assert "reranked" == through.outcome
        assert "boosts" not in through.header("Server-Timing")
