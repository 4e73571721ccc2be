"""Plans as the app makes them, for tests of what follows from a plan."""

from collections.abc import Iterable
from typing import Any

from proxy.catalog.dialects import ELASTICSEARCH
from proxy.errors import Failure
from proxy.parsing.query_text import find_user_query, with_rescores
from proxy.parsing.search_request import SearchRequest, parse
from proxy.ranking.planning import Plan, VectorSearch, shown_source
from proxy.settings.config import RouteSettings, Semantic
from proxy.settings.routes import build_route
from tests.strategies import compact

SEMANTIC = Semantic(field="v", dimensions=3)
SETTINGS = RouteSettings(index="products", passage=["title", "body"], semantic=SEMANTIC, rank_window_size=50)
VECTORS = VectorSearch(ELASTICSEARCH, {"v": None}, "m", 3, "cosine", 0.3, 100, 2.0)


def plan_of(
    query_string: str = "",
    body: Any = None,
    *,
    settings: RouteSettings = SETTINGS,
    indices: str = "products",
    window: int = 50,
    vectors: VectorSearch | None = VECTORS,
    unavailable: Failure | None = None,
    covered: Iterable[str] = ("products",),
) -> Plan:
    request = parse(query_string, compact(body or {}))
    assert isinstance(request, SearchRequest), request
    route = build_route(settings)
    user_query = find_user_query(request.query, route.text_fields, lambda _: True)
    assert user_query is not None
    user_query = with_rescores(user_query, request.rescores, lambda _: True)
    return Plan(
        indices=indices,
        request=request,
        source=shown_source(request.source, route.semantic),
        route=route,
        user_query=user_query,
        instruction=route.instruction,
        sent_text=route.redaction.redacted(user_query.text),
        vectors=vectors,
        unavailable=unavailable,
        window=window,
        covered=frozenset(covered),
    )
