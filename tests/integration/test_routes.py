"""Which searches belong to a route: by the name as requested, and by every index it stands for."""

import pytest

from tests.integration.conftest import Shop, Start, route
from tests.integration.sending import Client

pytestmark = pytest.mark.engine

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
        ("{0.plain}", ""),
        ("{0.index},{0.plain}", "bypassed;reason=mixed_routes"),
        ("_all", "bypassed;reason=mixed_routes"),
        ("*", "bypassed;reason=mixed_routes"),
        ("{0.index}-missing", "bypassed;reason=unresolved"),
    ],
)
async def test_name(names: str, outcome: str, shop: Shop, start: Start) -> None:
    """A search is reranked where all indices lie inside one route, and only then."""
    proxy = Client(await start(route(shop.index)), names.format(shop))
    assert outcome == (await proxy.search(QUERY)).outcome
