"""Which searches belong to a route: decided by the requested name and by every index it resolves to."""

import json
from typing import Any

import pytest

from tests.integration import shop as catalogue
from tests.integration.comparing import assert_handed_on
from tests.integration.conftest import OpenIndex, Shop, Start, route
from tests.integration.engines import WITH_KNN, RealEngine
from tests.integration.models import ShopModels
from tests.integration.sending import Client, Request, send

pytestmark = [pytest.mark.engine, WITH_KNN]

QUERY = {"query": {"match": {"title": "laptop"}}}


@pytest.mark.parametrize(
    ("names", "outcome"),
    [
        ("{0.index}", "reranked"),
        ("{0.second}", "reranked"),
        ("{0.index}*", "reranked"),
        ("{0.index},{0.second}", "reranked"),
        ("{0.index}*,-{0.second}", "reranked"),
        ("{0.acme}", "reranked"),
        ("%3C{0.index}%3E", "reranked"),
        ("{0.index}%2C{0.second}", "reranked"),
        ("{0.index},{0.index}", "reranked"),
        ("{0.plain}", ""),
        ("{0.plain},{0.plain}-missing", ""),
        ("nowhere:{0.index}", ""),
        ("{0.index},{0.plain}", "bypassed;reason=mixed_routes"),
        ("_all", "bypassed;reason=mixed_routes"),
        ("*", "bypassed;reason=mixed_routes"),
        ("{0.index}-missing", "bypassed;reason=unresolved"),
    ],
)
async def test_a_search_is_reranked_only_if_all_its_indices_are_in_one_route(
    names: str, outcome: str, shop: Shop, start: Start
) -> None:
    """However the names are written."""
    proxy = Client(await start(route(shop.index)), names.format(shop))
    assert outcome == (await proxy.search(QUERY)).outcome


async def test_the_first_matching_route_is_used(shop: Shop, start: Start, models: ShopModels) -> None:
    """In the order of the file."""
    special, general = route(shop.second, instruction="special"), route(shop.index, instruction="general")
    url = await start(special, general)
    for index in (shop.second, shop.index):
        await Client(url, index).search(QUERY)
    assert ["special", "general"] == [call["instruction"] for call in models.reranked]


async def test_a_search_of_two_routes_is_bypassed(shop: Shop, start: Start) -> None:
    """It belongs to neither."""
    url = await start(route(shop.second), route(shop.index))
    both = await Client(url, f"{shop.index},{shop.second}").search(QUERY)
    assert "bypassed;reason=mixed_routes" == both.outcome


async def test_a_search_of_all_indices_is_bypassed(shop: Shop, start: Start, engine_url: str) -> None:
    """It reaches indices outside the route."""
    request = Request("POST", "/_search", json.dumps(QUERY).encode())
    reply = await send(await start(route(shop.index)), request)
    assert "bypassed;reason=mixed_routes" == reply.outcome


async def test_a_route_on_an_alias_covers_searches_by_that_name_only(
    open_index: OpenIndex, shop: Shop, start: Start, models: ShopModels
) -> None:
    """Its indices by other names are not covered."""
    url = await start({**route(""), "index": shop.acme})
    named, itself = await Client(url, shop.acme).search(QUERY), await Client(url, shop.index).search(QUERY)
    assert ("reranked", "") == (named.outcome, itself.outcome)


@pytest.mark.parametrize("parameters", ["ignore_unavailable=true", "expand_wildcards=all", "allow_no_indices=false"])
async def test_parameters_that_affect_name_resolution_affect_routing(
    parameters: str, shop: Shop, start: Start, engine_url: str
) -> None:
    """`expand_wildcards` and the like."""
    names = f"{shop.index},{shop.index}-missing"
    url = await start(route(shop.index))
    straight = await Client(engine_url, names).search(QUERY, parameters)
    through = await Client(url, names).search(QUERY, parameters)
    assert straight.status == through.status
    if straight.status == 200:
        assert "reranked" == through.outcome
    else:
        assert_handed_on(straight, through)


async def test_an_index_added_to_an_alias_is_not_sent_to_models(
    real_engine: RealEngine, open_index: OpenIndex, models: ShopModels
) -> None:
    """While the alias's earlier indices are cached, no text of others is sent."""
    bare = {"settings": catalogue.SETTINGS, "mappings": {"properties": catalogue.PROPERTIES}}
    sides = await open_index(catalogue.with_vectors(real_engine), catalogue.PRODUCTS)
    url, index = sides.straight.url, sides.straight.index
    alias, outside = f"{index}-alias", f"outside-{index}"
    await _put(url, f"/{index}/_alias/{alias}")
    client = Client(sides.through.url, alias)
    assert "reranked" == (await client.search(QUERY)).outcome
    asked = len(models.requests)
    try:
        await _put(url, f"/{outside}", bare)
        await _put(url, f"/{outside}/_doc/secret?refresh=true", {"title": "secret laptop"})
        await _put(url, f"/{outside}/_alias/{alias}")
        reply = await client.search(QUERY)
    finally:
        await send(url, Request("DELETE", f"/{outside}"))
    assert ("bypassed;reason=mixed_routes", True) == (reply.outcome, "secret" in reply.ids)
    assert asked == len(models.requests)


async def _put(url: str, target: str, body: object = None) -> None:
    reply = await send(url, Request("PUT", target, json.dumps(body).encode() if body else b""))
    assert reply.status < 300, reply.body


@pytest.mark.parametrize(
    ("pattern", "names", "reaches"),
    [
        ("*", "eu:{0.index}", False),
        ("*{0.index}", "eu:{0.index}", False),
        ("*", "eu:{0.acme}", False),
        ("eu:*", "eu:{0.index}", True),
        ("eu:{0.acme}", "eu:{0.acme}", True),
    ],
)
async def test_remote_indices_need_a_pattern_with_a_colon(
    real_engine: RealEngine,
    shop: Shop,
    start: Start,
    models: ShopModels,
    pattern: str,
    names: str,
    reaches: bool,  # noqa: FBT001
) -> None:
    """Otherwise no text of them is sent to a model; here the remote cluster is the same one."""
    url = real_engine.url
    address = "/_nodes/_local/transport?filter_path=nodes.*.transport.publish_address"
    (node,) = (await send(url, Request("GET", address))).json["nodes"].values()
    try:
        await _put(url, "/_cluster/settings", _remote([node["transport"]["publish_address"]]))
        client = Client(await start({**route(""), "index": pattern.format(shop)}), names.format(shop))
        reply = await client.search(QUERY)
    finally:
        await _put(url, "/_cluster/settings", _remote(None))
    assert (200, True) == (reply.status, all(hit["_index"] == f"eu:{shop.index}" for hit in reply.hits))
    assert (reaches, reaches) == (bool(models.requests), reply.outcome != "")


def _remote(seeds: list[str] | None) -> dict[str, Any]:
    return {"persistent": {"cluster": {"remote": {"eu": {"seeds": seeds}}}}}
