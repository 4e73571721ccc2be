"""The order of a reranked search: two rankings fused, the window reranked, the rest in the client's own order."""

import gzip
import json
from dataclasses import replace
from typing import Any

import pytest

from tests.integration import shop as catalogue
from tests.integration.comparing import assert_handed_on
from tests.integration.conftest import Open, OpenIndex, Sides
from tests.integration.engines import ELASTICSEARCH, EVERYWHERE, OPENSEARCH_KNN, WITH_KNN, RealEngine
from tests.integration.models import ShopModels, by_hash
from tests.integration.sending import JSON, Reply, Request, send

pytestmark = [pytest.mark.engine, WITH_KNN]

TEXT = "laptop for video editing"
QUERY = {"multi_match": {"query": TEXT, "fields": ["title", "description"]}}
ANY = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20, "min_similarity": -1}


async def _nearest(real_engine: RealEngine, sides: Sides, k: int) -> list[str]:
    """Ask the engine itself for the products nearest to the text."""
    return (await sides.straight.search(real_engine.nearest("embedding", catalogue.embed(TEXT), k))).ids


async def _matching(sides: Sides) -> list[str]:
    return (await sides.straight.search({"query": QUERY, "size": 100})).ids


def _by_score(names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: -by_hash(catalogue.passage(catalogue.PRODUCTS[name])))


async def _through(sides: Sides) -> Reply:
    return await sides.through.search({"query": QUERY, "size": 100})


@EVERYWHERE
async def test_without_vectors_the_window_is_reranked(open_sides: Open) -> None:
    """The rest keeps its order."""
    sides = await open_sides(semantic=None, rank_window_size=8)
    matching = await _matching(sides)
    assert _by_score(matching[:8]) + matching[8:] == (await _through(sides)).ids


async def test_without_a_reranker_the_order_is_that_of_rrf(real_engine: RealEngine, open_sides: Open) -> None:
    """Cut at the window, then the client's own order."""
    sides = await open_sides(rerank=False, rank_window_size=12, semantic=ANY)
    matching = await _matching(sides)
    head = catalogue.fused([matching[:12], await _nearest(real_engine, sides, 12)])[:12]
    assert head + [name for name in matching if name not in head] == (await _through(sides)).ids


async def test_with_both_stages_the_fused_window_is_reranked(real_engine: RealEngine, open_sides: Open) -> None:
    """The fused window in the reranker's order."""
    sides = await open_sides(rank_window_size=12, semantic=ANY)
    matching = await _matching(sides)
    head = _by_score(catalogue.fused([matching[:12], await _nearest(real_engine, sides, 12)])[:12])
    assert head + [name for name in matching if name not in head] == (await _through(sides)).ids


async def test_a_product_described_in_other_words_is_found(open_sides: Open) -> None:
    """One that means something else is not."""
    sides = await open_sides()
    ids = (await sides.through.search({"query": {"match": {"title": "laptop"}}, "size": 100})).ids
    notebooks = {name for name, product in catalogue.PRODUCTS.items() if "notebook" in product["title"]}
    unlike = {name for name, product in catalogue.PRODUCTS.items() if product["category"] != "laptop"}
    assert (notebooks, set()) == (notebooks & set(ids), unlike & set(ids))


async def test_equal_reranker_scores_keep_the_fused_order(open_sides: Open, models: ShopModels) -> None:
    """The order of the first stage."""
    models.score = lambda _: 1.0
    sides = await open_sides(rank_window_size=12, semantic=ANY)
    fused = await open_sides(rank_window_size=12, semantic=ANY, rerank=False)
    assert (await _through(fused)).ids == (await _through(sides)).ids


@pytest.mark.parametrize("source", [True, False, ["brand"], {"excludes": ["desc*"]}])
async def test_models_receive_the_passage_fields_of_the_route(
    source: object, real_engine: RealEngine, open_sides: Open, models: ShopModels
) -> None:
    """Whole and in its order, whatever `_source` the client requests."""
    sides = await open_sides(rank_window_size=12, semantic=ANY)
    names = catalogue.fused([(await _matching(sides))[:12], await _nearest(real_engine, sides, 12)])[:12]
    await sides.through.search({"query": QUERY, "_source": source})
    passages = [catalogue.passage(catalogue.PRODUCTS[name]) for name in names]
    assert [(passages, [TEXT])] == [(call["documents"], call["queries"]) for call in models.reranked]


@pytest.mark.parametrize("source", [True, False, ["brand"]])
async def test_passage_templates_read_numbers_dates_and_nested_values(
    source: object, open_sides: Open, models: ShopModels
) -> None:
    """Whatever `_source` the client requests."""
    lines = ["title", "Brand: {brand}", "{price} EUR", "Since {released:date}", "Reviews: {reviews.text}", "{none} cm"]
    sides = await open_sides(rank_window_size=12, semantic=None, passage=lines)
    names = (await _matching(sides))[:12]
    await sides.through.search({"query": QUERY, "_source": source})
    (asked,) = models.reranked
    assert list(map(_labelled, names)) == asked["documents"]


def _labelled(name: str) -> str:
    product = catalogue.PRODUCTS[name]
    price = f"{product['price']:g} EUR"
    reviews = ", ".join(review["text"] for review in product["reviews"])
    return "\n".join(
        (product["title"], f"Brand: {product['brand']}", price, f"Since {product['released']}", f"Reviews: {reviews}")
    )


async def test_a_query_is_embedded_once_with_the_indexs_model(open_sides: Open, models: ShopModels) -> None:
    """With the instruction, and at the length of the vectors."""
    sides = await open_sides(tier="precision", instruction="Find it.")
    await _through(sides)
    await _through(sides)
    asked = [(call["model"], call["input"], call["dimensions"]) for call in models.embedded]
    assert [(catalogue.MODEL, [f"Instruct: Find it.\nQuery:{TEXT}"], 8)] == asked


async def test_changing_the_tier_later_changes_only_the_reranker(open_sides: Open, models: ShopModels) -> None:
    """The embedder stays that of the index."""
    await _through(await open_sides(tier="fast"))
    used = [call.path for call in models.of("rerank")] + [call["model"] for call in models.embedded]
    assert ["/v1/inference/Qwen/Qwen3-Reranker-0.6B", catalogue.MODEL] == used


NOTHING = {"identifiers": False, "autocomplete": False}
FORMS: dict[str, Any] = {
    "match": {"match": {"title": "laptop"}},
    "match, long": {"match": {"title": {"query": "laptop", "operator": "and", "fuzziness": "AUTO"}}},
    "match_phrase": {"match_phrase": {"title": "acme laptop"}},
    "match_phrase, long": {"match_phrase": {"title": {"query": "acme laptop", "slop": 1}}},
    "match_phrase_prefix": {"match_phrase_prefix": {"title": "acme laptop 1"}},
    "match_phrase_prefix, long": {"match_phrase_prefix": {"title": {"query": "laptop 1", "max_expansions": 20}}},
    "match_bool_prefix": {"match_bool_prefix": {"title": "laptop ac"}},
    "match_bool_prefix, long": {"match_bool_prefix": {"title": {"query": "laptop ac", "operator": "and"}}},
    "multi_match": {"multi_match": {"query": "laptop", "fields": ["title^3", "description"], "type": "cross_fields"}},
    "multi_match of all": {"multi_match": {"query": "laptop", "type": "bool_prefix", "fields": ["title", "desc*"]}},
    "combined_fields": {"combined_fields": {"query": "acme laptop", "fields": ["title"]}},
    "query_string": {"query_string": {"query": "laptop", "default_field": "title"}},
    "query_string of all": {"query_string": {"query": "laptop"}},
    "simple_query_string": {"simple_query_string": {"query": "laptop", "fields": ["title"]}},
    "bool must": {"bool": {"must": {"match": {"title": "laptop"}}}},
    "bool should": {"bool": {"should": [{"match": {"title": "laptop"}}, {"match": {"description": "laptop"}}]}},
    "bool in bool": {"bool": {"must": [{"bool": {"should": [{"match": {"title": "laptop"}}]}}]}},
}


@EVERYWHERE
@pytest.mark.parametrize("query", FORMS.values(), ids=FORMS)
async def test_every_query_form_is_reranked_by_its_text(query: Any, open_sides: Open, models: ShopModels) -> None:
    """Nothing that it finds is lost."""
    sides = await open_sides(bypass=NOTHING)
    straight = await sides.straight.search({"query": query, "size": 100})
    through = await sides.through.search({"query": query, "size": 100})
    if straight.status != 200:
        assert_handed_on(straight, through)
        return
    assert ("reranked", True) == (through.outcome, set(straight.ids) <= set(through.ids))
    assert "laptop" in models.reranked[0]["queries"][0]


WAYS: dict[str, Request] = {
    "GET with a body": Request("GET", "", json.dumps({"query": QUERY}).encode()),
    "chunked": Request("POST", "", json.dumps({"query": QUERY}).encode(), JSON, chunked=True),
    "gzip in": Request(
        "POST", "", gzip.compress(json.dumps({"query": QUERY}).encode()), {**JSON, "Content-Encoding": "gzip"}
    ),
    "gzip out": Request("POST", "", json.dumps({"query": QUERY}).encode(), {**JSON, "Accept-Encoding": "gzip"}),
    "media type of 8": Request(
        "POST",
        "",
        json.dumps({"query": QUERY}).encode(),
        dict.fromkeys(("Accept", "Content-Type"), "application/vnd.elasticsearch+json;compatible-with=8"),
    ),
    "media type of 7": Request(
        "POST",
        "",
        json.dumps({"query": QUERY}).encode(),
        dict.fromkeys(("Accept", "Content-Type"), "application/vnd.elasticsearch+json;compatible-with=7"),
    ),
    "charset": Request(
        "POST", "", json.dumps({"query": QUERY}).encode(), {"Content-Type": "application/json; charset=UTF-8"}
    ),
}


@EVERYWHERE
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_every_way_to_send_a_search_has_the_same_hits(way: Request, open_sides: Open) -> None:
    """In the format that the engine uses for it."""
    sides = await open_sides()
    asked = replace(way, target=f"/{sides.through.index}/_search")
    straight, through = await send(sides.straight.url, asked), await send(sides.through.url, asked)
    if straight.status != 200:
        assert_handed_on(straight, through)
        return
    usual = await sides.through.search({"query": QUERY})
    assert ("reranked", usual.ids, usual.total) == (through.outcome, through.ids, through.total)
    assert {tuple(hit) for hit in straight.hits} == {tuple(hit) for hit in through.hits}
    for name in ("Content-Type", "Content-Encoding", "X-Elastic-Product"):
        assert straight.header(name) == through.header(name)


async def _similar(similarity: str, real_engine: RealEngine, open_index: OpenIndex) -> None:
    """However an index compares its vectors, what only kNN found is at least as similar as the route demands."""
    settings = catalogue.with_vectors(real_engine)
    settings["mappings"]["properties"]["embedding"] = real_engine.vector(8, similarity)
    semantic = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20, "min_similarity": 0.6}
    sides = await open_index(settings, catalogue.PRODUCTS, semantic=semantic)
    matching, found = set(await _matching(sides)), set((await _through(sides)).ids)
    near = {name for name, product in catalogue.PRODUCTS.items() if _cosine(product["embedding"]) >= 0.6}
    assert matching | near == found


@ELASTICSEARCH
@pytest.mark.parametrize("similarity", ["cosine", "dot_product", "l2_norm", "max_inner_product"])
async def test_every_elasticsearch_similarity_is_supported(
    similarity: str, real_engine: RealEngine, open_index: OpenIndex
) -> None:
    await _similar(similarity, real_engine, open_index)


@OPENSEARCH_KNN
@pytest.mark.parametrize("similarity", ["cosinesimil", "l2", "innerproduct"])
async def test_every_opensearch_space_type_is_supported(
    similarity: str, real_engine: RealEngine, open_index: OpenIndex
) -> None:
    await _similar(similarity, real_engine, open_index)


def _cosine(vector: list[float]) -> float:
    return sum(one * other for one, other in zip(vector, catalogue.embed(TEXT), strict=True))


ABOVE: dict[str, tuple[dict[str, Any], str, int, str]] = {
    "size": ({"query": QUERY, "size": 7}, "size=3", 3, TEXT),
    "from": ({"query": QUERY, "from": 0, "size": 100}, "from=2&size=4", 4, TEXT),
    "q": ({"query": QUERY, "size": 3}, "q=acme+phone", 3, "acme phone"),
    "q and its field": ({"size": 3}, "q=phone&df=title&default_operator=AND", 3, "phone"),
    "sort": ({"query": QUERY, "size": 2}, "sort=_score:desc", 2, TEXT),
}


@pytest.mark.parametrize(("body", "query_string", "count", "text"), ABOVE.values(), ids=ABOVE)
async def test_url_parameters_override_the_body(
    *, body: dict[str, Any], query_string: str, count: int, text: str, open_sides: Open, models: ShopModels
) -> None:
    """As in the engine."""
    sides = await open_sides()
    through = await sides.through.search(body, query_string)
    assert ("reranked", count, text) == (through.outcome, len(through.ids), models.reranked[0]["queries"][0])
