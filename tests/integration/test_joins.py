"""Parent-child joins: query text on a child finds its parent, and each kind is ranked among its own."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration import shop as catalogue
from tests.integration.comparing import but_score
from tests.integration.conftest import Sides, Start, route
from tests.integration.demands import FILTERS, queries
from tests.integration.engines import EVERYWHERE, WITH_KNN, Address, RealEngine
from tests.integration.models import ShopModels
from tests.integration.sending import Client

pytestmark = [pytest.mark.engine, EVERYWHERE]

EVERYTHING = {"field": "embedding", "dimensions": 8, "timeout_seconds": 20, "min_similarity": -1}
WORDS = {"match": {"description": "laptop"}}
ACME = {"term": {"brand": "acme"}}
CHEAP = {"range": {"price": {"lt": 700}}}
PRAISED = {"range": {"stars": {"gte": 3}}}
ANY: dict[str, Any] = {"match_all": {}}


def _opinion(query: Any, **more: Any) -> Any:
    return {"has_child": {"type": "opinion", "query": query, **more}}


def _of_product(query: Any, **more: Any) -> Any:
    return {"has_parent": {"parent_type": "product", "query": query, **more}}


def _both(*clauses: Any) -> Any:
    return {"bool": {"must": clauses}}


def _not(clause: Any) -> Any:
    return {"bool": {"must_not": [clause]}}


def _opinions(number: int, product: dict[str, Any]) -> list[dict[str, Any]]:
    """What was written of a product: nothing of some."""
    words = f"A fine {product['category']}, as good as it is {'dear' if number % 2 else 'cheap'}"
    return [
        {"title": f"Opinion {each}", "description": words, "stars": 1 + (number + each) % 5}
        for each in range(number // 5 % 3)
    ]


def _lines(engine: RealEngine) -> Iterator[Any]:
    products = catalogue.PRODUCTS if engine.has_knn else catalogue.without_vectors(catalogue.PRODUCTS)
    for number, (name, product) in enumerate(products.items()):
        yield from ({"index": {"_id": name, "routing": name}}, {**product, "kin": "product"})
        for each, opinion in enumerate(_opinions(number, dict(product))):
            vector = {"embedding": catalogue.embed(catalogue.passage(opinion))} if engine.has_knn else {}
            kin = {"kin": {"name": "opinion", "parent": name}}
            yield from ({"index": {"_id": f"{name}-{each}", "routing": name}}, opinion | kin | vector)


@pytest.fixture(scope="module")
def family(real_engine: RealEngine) -> Iterator[str]:
    """An index of products and of what was written of them, both with vectors."""
    engine, name = Address(real_engine.url), f"family-{uuid4().hex[:12]}"
    made = catalogue.with_vectors(real_engine)
    relations = {"kin": {"type": "join", "relations": {"product": "opinion"}}, "stars": {"type": "integer"}}
    made["mappings"]["properties"] |= relations
    engine.do("PUT", f"/{name}", made)
    assert not engine.do("POST", f"/{name}/_bulk?refresh=true", list(_lines(real_engine)))["errors"]
    yield name
    engine.do("DELETE", f"/{name}")


async def _sides(engine: RealEngine, start: Start, family: str) -> Sides:
    settings = {"semantic": EVERYTHING, "rank_window_size": 100} | engine.of_route
    return Sides(Client(engine.url, family), Client(await start(route(family, **settings)), family))


async def _ids(sides: Sides, query: Any, **rest: Any) -> set[str]:
    return set((await sides.straight.search({"query": query, "size": 200, **rest})).ids)


QUERIES: dict[str, tuple[Any, Any]] = {
    "has_child": (_opinion(WORDS), _opinion(ANY)),
    "has_child, a demand inside": (_opinion(_both(WORDS, PRAISED)), _opinion(PRAISED)),
    "has_child, an exclusion inside": (_opinion(_both(WORDS, _not(PRAISED))), _opinion(_not(PRAISED))),
    "has_child, a demand beside": (_both(_opinion(WORDS), ACME), _both(_opinion(ANY), ACME)),
    "has_child, so many": (_opinion(WORDS, min_children=2), _opinion(ANY, min_children=2)),
    "has_child for words beside": (_both({"match": {"title": "laptop"}}, _opinion(PRAISED)), _opinion(PRAISED)),
    "has_child excluded": (_both({"match": {"title": "laptop"}}, _not(_opinion(ANY))), _not(_opinion(ANY))),
    "has_child, scored": (_opinion(WORDS, score_mode="max"), _opinion(ANY)),
    "has_parent": (_of_product(WORDS), _of_product(ANY)),
    "has_parent, a demand inside": (_of_product(_both(WORDS, CHEAP)), _of_product(CHEAP)),
    "has_parent, a demand beside": (_both(_of_product(WORDS), PRAISED), _both(_of_product(ANY), PRAISED)),
    "has_parent for words beside": (_both(WORDS, _of_product(ACME)), _of_product(ACME)),
    "has_parent, scored": (_of_product(WORDS, score=True), _of_product(ANY)),
    "parents of words' kin": (_opinion(_of_product(WORDS)), _opinion(_of_product(ANY))),
}


@pytest.mark.parametrize(("query", "admits"), QUERIES.values(), ids=QUERIES)
async def test_joined_documents_keep_the_filters_of_the_query(
    *, query: Any, admits: Any, real_engine: RealEngine, start: Start, family: str, models: ShopModels
) -> None:
    """All documents that the query finds, and those of the same kind that satisfy its filters, and no others."""
    sides = await _sides(real_engine, start, family)
    own = await _ids(sides, query)
    admitted = await _ids(sides, admits) if real_engine.has_knn else own
    through = await sides.through.search({"query": query, "size": 200})
    assert ("reranked", own | admitted, True) == (through.outcome, set(through.ids), bool(own))
    assert len(through.ids) == len(set(through.ids)) == through.total["value"]
    assert [["laptop"]] == [call["queries"] for call in models.reranked]


async def test_max_children_skips_knn(real_engine: RealEngine, start: Start, family: str) -> None:
    """How many children match without the query text is not known."""
    sides = await _sides(real_engine, start, family)
    query = _opinion(WORDS, max_children=1)
    through = await sides.through.search({"query": query, "size": 200})
    expected = (real_engine.without_knn("own_scores"), await _ids(sides, query), True)
    assert expected == (through.outcome, set(through.ids), bool(through.ids))


@pytest.mark.parametrize("of", [_opinion, _of_product])
async def test_joined_documents_are_rendered_with_routing_and_inner_hits(
    of: Any, real_engine: RealEngine, start: Start, family: str
) -> None:
    """As the client's own query shows them."""
    sides = await _sides(real_engine, start, family)
    query = of(WORDS, inner_hits={"size": 1, "_source": ["title"]})
    body = {"query": query, "size": 200, "_source": ["title", "kin"]}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    theirs = {hit["_id"]: but_score(hit) for hit in straight.hits}
    ours = {hit["_id"]: but_score(hit) for hit in through.hits}
    assert theirs == {name: ours[name] for name in theirs}
    only_near = [hit for name, hit in ours.items() if name not in theirs]
    assert real_engine.has_knn is bool(only_near)
    for hit in only_near:
        (kin,) = hit["inner_hits"].values()
        assert ([], hit["_id"].partition("-")[0]) == (kin["hits"]["hits"], hit["_routing"])


_KIN = st.sampled_from([_opinion(PRAISED), _opinion(ANY, min_children=2), _of_product(ACME), _of_product(CHEAP)])


@pytest.fixture
def proxies() -> dict[str, Sides]:
    """What the examples of one property share."""
    return {}


@WITH_KNN
@given(drawn=queries(FILTERS | _KIN), post=st.none() | _KIN)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_join_query_keeps_its_filters(
    *, drawn: tuple[Any, Any], post: Any, real_engine: RealEngine, start: Start, family: str, proxies: dict[str, Sides]
) -> None:
    """Nothing excluded appears, and all that is admitted does."""
    if "sides" not in proxies:
        proxies["sides"] = await _sides(real_engine, start, family)
    sides, (query, relaxed) = proxies["sides"], drawn
    rest = {"post_filter": post} if post else {}
    own = await _ids(sides, query, **rest)
    expected = ("reranked", own | await _ids(sides, relaxed, **rest)) if own else ("bypassed;reason=zero_hits", own)
    through = await sides.through.search({"query": query, "size": 200, **rest})
    assert (*expected, len(through.ids)) == (through.outcome, set(through.ids), len(set(through.ids)))
