"""Which requests are searches, and what a route says where its file is silent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.settings.config import Config, Fusion, RouteSettings, Semantic
from proxy.settings.profiles import PRIORITIES, PROFILES, TIERS
from proxy.settings.routes import Endpoint, NodesQuestion, Passthrough, Search, build_route, build_routes, classify


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        (b"GET", b"/_search", Search(Endpoint.SEARCH, "", "")),
        (b"POST", b"/products/_search", Search(Endpoint.SEARCH, "products", "")),
        (b"GET", b"/a,b*/_search?q=x&pretty", Search(Endpoint.SEARCH, "a,b*", "q=x&pretty")),
        (b"GET", b"/_all/_search", Search(Endpoint.SEARCH, "_all", "")),
        (b"GET", b"/%3Clogs-%7Bnow%2Fd%7D%3E/_search", Search(Endpoint.SEARCH, "%3Clogs-%7Bnow%2Fd%7D%3E", "")),
        (b"GET", b"/i/_search?a?b", Search(Endpoint.SEARCH, "i", "a?b")),
        (b"GET", b"/*/_search", Search(Endpoint.SEARCH, "*", "")),
        (b"GET", b"/i%2F_search", None),
        (b"GET", b"/i/%5Fsearch", None),
        (b"GET", b"/_search/", Search(Endpoint.SEARCH, "", "")),
        (b"GET", b"//_search", None),
        (b"GET", b"/_cat/_search", None),
        (b"GET", b"/%5Fcat/_search", None),
        (b"GET", b"/i/_doc/_search", None),
        (b"POST", b"/i/_search/template?a", Search(Endpoint.TEMPLATE, "i", "a")),
        (b"GET", b"/_search/template", Search(Endpoint.TEMPLATE, "", "")),
        (b"GET", b"/i/_search//?q=/", Search(Endpoint.SEARCH, "i", "q=/")),
        (b"POST", b"/_msearch?a", Search(Endpoint.MULTI_SEARCH, "", "a")),
        (b"GET", b"/i,j/_msearch", Search(Endpoint.MULTI_SEARCH, "i,j", "")),
        (b"POST", b"/_msearch/template", Search(Endpoint.MULTI_TEMPLATE, "", "")),
        (b"POST", b"/i/_msearch/template", Search(Endpoint.MULTI_TEMPLATE, "i", "")),
        (b"POST", b"/i/_async_search?a", Search(Endpoint.ASYNC_SEARCH, "i", "a")),
        (b"POST", b"/_async_search", Search(Endpoint.ASYNC_SEARCH, "", "")),
        (b"GET", b"/_async_search/ab==?a", Search(Endpoint.ASYNC_ANSWER, "", "a", "ab==")),
        (b"GET", b"/i/_async_search", None),
        (b"DELETE", b"/_async_search/ab==", None),
        (b"GET", b"/_async_search/", None),
        (b"GET", b"/_async_search/status/ab==", None),
        (b"GET", b"/i/_async_search/template", None),
        (b"POST", b"/i/_search/scroll", None),
        (b"POST", b"/i/_count", None),
        (b"PUT", b"/i/_search", None),
        (b"HEAD", b"/i/_search", None),
        (b"get", b"/i/_search", None),
        (b"GET", "/ü/_search".encode(), None),
        (b"GET", b"http://engine/i/_search", None),
        (b"GET", b"*", None),
        (b"GET", b"", None),
    ],
)
def test_a_search_is_recognised_by_method_and_raw_target(method: bytes, target: bytes, expected: Search | None) -> None:
    found = classify(method, target)
    assert (expected or Passthrough) == (found if expected else type(found))


@pytest.mark.parametrize("target", [b"/_nodes", b"/_nodes/_all/http?a", b"/_nodes/http"])
def test_a_nodes_request_is_recognised(target: bytes) -> None:
    assert (NodesQuestion, Passthrough) == (type(classify(b"GET", target)), type(classify(b"POST", target)))


@given(st.binary(), st.binary())
def test_any_request_is_classified(method: bytes, target: bytes) -> None:
    assert isinstance(classify(method, target), Search | NodesQuestion | Passthrough)


def test_a_minimal_route_has_the_defaults_of_its_profile() -> None:
    profile = PROFILES["e-commerce"]
    route = build_route(RouteSettings(index="products*"))
    assert ("products*", ("products*",)) == (route.name, route.patterns)
    assert (profile.instruction, profile.passage, profile.embedded) == (
        route.instruction,
        route.passage.entries,
        route.embedded,
    )
    assert (profile.rank_window_size, TIERS[profile.tier].rerank) == (route.rank_window_size, route.rerank_model)
    assert (TIERS[profile.tier].embedding, False) == (route.embedding_model, route.embedding_model_named)
    assert (None, Fusion(), None, "keep_empty") == (route.semantic, route.fusion, route.blend, route.on_zero_hits)
    assert 1500 == route.budget_ms


def test_settings_of_a_route_override_its_profile() -> None:
    semantic = Semantic(field="v", dimensions=3)
    route = build_route(
        RouteSettings(
            index=["a", "b"],
            profile="legal",
            instruction="judge",
            passage=["t"],
            embedding_model="mine",
            rerank_model="yours",
            semantic=semantic,
            rank_window_size=7,
            blend=0.5,
            on_zero_hits="semantic",
        )
    )
    assert ("a,b", ("a", "b"), "legal", "judge", ("t",)) == (
        route.name,
        route.patterns,
        route.profile,
        route.instruction,
        route.passage.entries,
    )
    assert ("mine", True, "yours", semantic) == (
        route.embedding_model,
        route.embedding_model_named,
        route.rerank_model,
        route.semantic,
    )
    assert (7, 0.5, "semantic") == (route.rank_window_size, route.blend, route.on_zero_hits)


@pytest.mark.parametrize(
    ("settings", "tier"),
    [
        (RouteSettings(index="i", profile="support"), PROFILES["support"].tier),
        (RouteSettings(index="i", profile="support", tier="precision"), "precision"),
        *((RouteSettings(index="i", priority=priority), tier) for priority, tier in PRIORITIES.items()),  # type: ignore[arg-type]  # its keys are the words
    ],
)
def test_priority_tier_or_profile_selects_the_models(settings: RouteSettings, tier: str) -> None:
    route = build_route(settings)
    assert (TIERS[tier].embedding, TIERS[tier].rerank) == (route.embedding_model, route.rerank_model)


def test_a_route_without_reranking_has_no_reranker() -> None:
    assert build_route(RouteSettings(index="i", rerank=False, rerank_model="x")).rerank_model is None


def test_routes_keep_the_order_of_the_file() -> None:
    config = Config(routes=(RouteSettings(index="b"), RouteSettings(index="a")))
    assert ["b", "a"] == [route.name for route in build_routes(config)]


@pytest.mark.parametrize(
    ("profile", "usual"), [("e-commerce", "balanced"), ("support", "balanced"), ("legal", "precision")]
)
def test_a_route_may_use_its_profiles_reranker_or_the_fast_one(profile: str, usual: str) -> None:
    route = build_route(RouteSettings(index="i", profile=profile, tier="auto", rerank_fallbacks=("other",)))
    rerankers = (TIERS[usual].rerank, TIERS["fast"].rerank, "other")
    assert (TIERS[usual].embedding, rerankers) == (route.embedding_model, route.rerankers)
    assert [usual, "fast", ""] == [route.tier_of(model) for model in rerankers]
    assert route.tier_switch is not None
    assert 1000 == route.tier_switch.fast_above_rate


def test_all_rerankers_of_a_route_are_listed_once() -> None:
    named = RouteSettings(index="i", rerank_model="a", rerank_fallbacks=("b", "a"))
    alone = RouteSettings(index="i", rerank=False)
    assert [("a", "b"), ()] == [build_route(each).rerankers for each in (named, alone)]
    assert "" == build_route(named).tier_of("a")
