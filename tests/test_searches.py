"""What is asked of the engine for one search of a client, body by body, and that none forgets a filter."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.dialects import OPENSEARCH
from proxy.parsing.search_keys import BODY_KEYS, PARAMETERS, Use
from proxy.parsing.search_request import SearchRequest, parse
from proxy.ranking.hits import DocKey, RankedDocument
from proxy.ranking.planning import EngineSearch, Plan, shown_source
from proxy.ranking.searches import (
    boost_search,
    facet_search,
    group_search,
    head_search,
    lexical_search,
    passage_search,
    render_search,
    semantic_search,
    tail_search,
    these_documents,
)
from proxy.settings.config import RouteSettings
from tests import strategies
from tests.plans import SEMANTIC, SETTINGS, VECTORS, plan_of

MATCH = {"match": {"title": "laptop"}}
TERM = {"term": {"brand": "apple"}}
INNER = {"nested": {"path": "r", "query": TERM, "inner_hits": {}}}
BARE_INNER = {"nested": {"path": "r", "query": TERM}}
RUNTIME = {"r": {"type": "keyword"}}
OWN = {"excludes": ["v", "v_hash"]}
A, B, C = DocKey("products", "a"), DocKey("products", "b"), DocKey("books", "a")
LEXICAL_ONLY = RouteSettings(index="products", passage=["title"])

# Everything that a search may have, with its use.
EVERYTHING: dict[str, Any] = {
    "query": {"bool": {"must": [MATCH], "filter": [INNER]}},
    "from": 0,
    "size": 5,
    "post_filter": TERM,
    "sort": ["_score"],
    "aggs": {"a": {}},
    "suggest": {},
    "profile": True,
    "track_total_hits": True,
    "indices_boost": [{"products": 2}],
    "timeout": "1s",
    "fields": ["title"],
    "highlight": {"fields": {"title": {}}},
    "version": True,
    "runtime_mappings": RUNTIME,
}


def body_of(search: EngineSearch) -> Any:
    return json.loads(search.body)


def changed(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in (EVERYTHING | changes).items() if value is not None}


def these(index: str, *ids: str) -> Any:
    place = [{"term": {"_index": index}}, {"ids": {"values": list(ids)}}]
    return {"bool": {"filter": place, "must_not": [{"exists": {"field": "_routing"}}]}}


ROUTED = DocKey("products", "a", "r")
ROUTED_ALONE = {
    "bool": {
        "filter": [{"term": {"_index": "products"}}, {"ids": {"values": ["a"]}}, {"term": {"_routing": "r"}}],
    }
}


# The client's own search


@pytest.mark.parametrize(
    ("body", "window", "size"),
    [({}, 50, 50), ({"from": 40, "size": 20}, 50, 60), ({"size": 3}, 2, 3), ({"from": 1, "size": 1}, 2, 2)],
)
def test_the_lexical_search_fills_the_window_and_the_page(body: dict[str, Any], window: int, size: int) -> None:
    search = body_of(lexical_search(plan_of(body={"query": MATCH} | body, window=window)))
    assert {"query": MATCH, "_source": OWN, "from": 0, "size": size} == search


def test_the_lexical_search_differs_from_the_clients_only_in_page_and_fields() -> None:
    search = lexical_search(plan_of(body=EVERYTHING))
    assert changed(size=50, _source=OWN) == body_of(search)
    assert ("products", ()) == (search.indices, search.parameters)


def test_parameters_the_proxy_sets_are_not_repeated() -> None:
    search = lexical_search(plan_of("q=laptop&typed_keys&human&routing=r&_source=title&size=5"))
    assert (("q", "laptop"), ("typed_keys", ""), ("human", ""), ("routing", "r")) == search.parameters
    assert {"_source": {"includes": ["title"], "excludes": ["v", "v_hash"]}, "from": 0, "size": 50} == body_of(search)


@pytest.mark.parametrize(
    ("source", "settings", "expected"),
    [
        (True, SETTINGS, OWN),
        (False, SETTINGS, False),
        (["v"], SETTINGS, {"includes": ["v"], "excludes": ["v_hash"]}),
        (True, LEXICAL_ONLY, True),
        (["a"], LEXICAL_ONLY, {"includes": ["a"]}),
        (False, LEXICAL_ONLY, False),
    ],
)
def test_the_proxys_fields_are_excluded_unless_requested(source: Any, settings: RouteSettings, expected: Any) -> None:
    plan = plan_of(body={"query": MATCH, "_source": source}, settings=settings)
    assert expected == body_of(lexical_search(plan)).get("_source")


def test_a_source_parameter_stays_in_the_url() -> None:
    """With Elasticsearch 9's `_source_exclude_vectors` in the URL, the engine ignores `_source` in the body."""
    plan = plan_of("_source=a&_source_exclude_vectors=true", {"query": MATCH, "_source": ["b"]})
    for search in (lexical_search(plan), render_search(plan, [A], {})):
        assert (("_source_exclude_vectors", "true"), ("_source_includes", "a"), ("_source_excludes", "v,v_hash")) == (
            search.parameters
        )
    assert "_source" not in body_of(render_search(plan, [A], {}))


def test_a_deep_page_is_the_clients_search_without_the_windows_documents() -> None:
    plan = plan_of(body=EVERYTHING | {"from": 60})
    expected = {"bool": {"must_not": [these("products", "a", "b")], "filter": [TERM]}}
    assert changed(**{"from": 58, "_source": OWN, "post_filter": expected}) == body_of(
        tail_search(plan, [RankedDocument(A), RankedDocument(B)])
    )


def test_a_deep_page_without_post_filter_excludes_only_the_windows_documents() -> None:
    search = body_of(tail_search(plan_of(body={"query": MATCH, "from": 60}), [RankedDocument(A)]))
    assert {"bool": {"must_not": [these("products", "a")]}} == search["post_filter"]


def test_a_deep_page_of_an_empty_window_is_the_clients_search() -> None:
    assert changed(**{"from": 60, "_source": OWN}) == body_of(tail_search(plan_of(body=EVERYTHING | {"from": 60}), ()))


allowed = sorted(key for key, use in BODY_KEYS.items() if isinstance(use, Use) and use is not Use.CONSUMED)
refused_by_value = {"sort", "stored_fields", "track_total_hits", "ext", "knn", "rescore"}
values = strategies.json_values.map(strategies.compact)


@given(st.dictionaries(st.sampled_from([key for key in allowed if key not in refused_by_value]), values))
def test_members_keep_the_clients_bytes_in_added_searches(members: dict[str, bytes]) -> None:
    body = json.loads(b"{%s}" % b",".join(b'"%s":%s' % (key.encode(), value) for key, value in members.items()))
    plan = plan_of("q=laptop", body)
    for search in (lexical_search(plan), tail_search(replace(plan, window=0), ())):
        for key, value in members.items():
            assert b'"%s":%s' % (key.encode(), value) in search.body


_MEANT_FOR_MORE = {"q", "sort", "track_total_hits", "_source_exclude_vectors"}
names = sorted(name for name, use in PARAMETERS.items() if isinstance(use, Use) and use is not Use.CONSUMED)


@pytest.mark.parametrize("name", [name for name in names if name not in _MEANT_FOR_MORE])
def test_the_lexical_search_has_all_parameters_of_the_client(name: str) -> None:
    value = "json" if name == "format" else "x"
    plan = plan_of(f"{name}={value}", {"query": MATCH})
    assert ((name, value),) == lexical_search(plan).parameters == tail_search(plan, ()).parameters


# The proxy's own searches


def test_the_search_for_the_window_requests_only_keys_and_total() -> None:
    search = head_search(plan_of("human&routing=r&typed_keys", EVERYTHING))
    assert {
        "query": EVERYTHING["query"],
        "size": 50,
        "_source": False,
        "sort": ["_score"],
        "indices_boost": [{"products": 2}],
        "runtime_mappings": RUNTIME,
        "track_total_hits": True,
        "post_filter": TERM,
    } == body_of(search)
    assert (("routing", "r"),) == search.parameters


def test_the_search_for_the_window_uses_the_urls_query() -> None:
    search = body_of(head_search(plan_of("q=laptop", {"query": TERM})))
    assert {
        "query": {"query_string": {"query": "laptop"}},
        "size": 50,
        "_source": False,
        "track_total_hits": 10_000,
    } == search


def test_knn_has_every_filter_of_the_client() -> None:
    search = semantic_search(plan_of("human&routing=r", EVERYTHING), VECTORS, "v", [1.0, 0.0, 0.0])
    relaxed = {"bool": {"must": [{"match_all": {}}], "filter": [BARE_INNER]}}
    assert {
        "knn": {
            "field": "v",
            "query_vector": [1.0, 0.0, 0.0],
            "k": 50,
            "num_candidates": 100,
            "filter": [relaxed, TERM],
        },
        "size": 50,
        "_source": ["title", "body"],
        "timeout": "2000ms",
        "runtime_mappings": RUNTIME,
    } == body_of(search)
    assert (("routing", "r"),) == search.parameters


def test_knn_without_filters_has_none() -> None:
    knn = body_of(semantic_search(plan_of(body={"query": MATCH}), VECTORS, "v", [1.0]))["knn"]
    assert {"field": "v", "query_vector": [1.0], "k": 50, "num_candidates": 100} == knn


def test_num_candidates_is_at_least_the_window() -> None:
    knn = body_of(semantic_search(plan_of(body={"query": MATCH}, window=200), VECTORS, "v", [1.0]))["knn"]
    assert (200, 200) == (knn["k"], knn["num_candidates"])


def test_without_a_reranker_knn_fetches_no_text() -> None:
    settings = RouteSettings(index="products", semantic=SEMANTIC, rerank=False)
    search = semantic_search(plan_of(body={"query": MATCH}, settings=settings), VECTORS, "v", [1.0])
    assert body_of(search)["_source"] is False


def test_only_the_passage_fields_are_fetched() -> None:
    settings = RouteSettings(index="products", passage=["title", "{price} {currency}", "{a.b:raw} of {title}"])
    search = passage_search(plan_of("", EVERYTHING, settings=settings), [A])
    assert ["title", "price", "currency", "a.b"] == json.loads(search.body)["_source"]


def test_passages_are_fetched_for_the_given_documents() -> None:
    search = passage_search(plan_of("human&routing=r", EVERYTHING), [A, C])
    documents = {"bool": {"should": [these("books", "a"), these("products", "a")], "minimum_should_match": 1}}
    assert {
        "query": {"bool": {"filter": [documents]}},
        "size": 2,
        "_source": ["title", "body"],
        "track_total_hits": False,
        "runtime_mappings": RUNTIME,
    } == body_of(search)
    assert (("routing", "r"),) == search.parameters


def test_documents_are_rendered_and_counted_by_the_clients_query() -> None:
    search = render_search(plan_of("human&routing=r&typed_keys", EVERYTHING), [A, B], {})
    relaxed = {"bool": {"must": [{"match_all": {}}], "filter": [BARE_INNER]}}
    own = {"bool": {"must": [MATCH], "filter": [BARE_INNER]}}
    assert {
        "query": {"bool": {"filter": [these("products", "a", "b")], "should": [EVERYTHING["query"]]}},
        "size": 2,
        "sort": ["_score"],
        "aggs": {"matched": {"filter": {"bool": {"filter": [own, relaxed, TERM]}}}},
        "post_filter": {"bool": {"filter": [relaxed, TERM]}},
        "track_total_hits": False,
        "_source": OWN,
        "fields": ["title"],
        "highlight": {"fields": {"title": {}}},
        "version": True,
        "runtime_mappings": RUNTIME,
    } == body_of(search)
    assert (("human", ""), ("routing", "r")) == search.parameters


ONLY_ORDERS = msgspec.structs.replace(SETTINGS, semantic=msgspec.structs.replace(SEMANTIC, adds=False))


def test_knn_that_may_not_add_hits_is_filtered_by_the_whole_query() -> None:
    plan = plan_of("", EVERYTHING, settings=ONLY_ORDERS)
    own = {"bool": {"must": [MATCH], "filter": [BARE_INNER]}}
    assert [own, TERM] == body_of(semantic_search(plan, VECTORS, "v", [1.0]))["knn"]["filter"]
    assert {"filter": [these("products", "a")], "must": [EVERYTHING["query"]]} == body_of(render_search(plan, [A], {}))[
        "query"
    ]["bool"]


def raw(value: Any) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(json.dumps(each).encode()) for name, each in value.items()}


BRANDS = {"brands": {"terms": {"field": "brand"}}}
RELAXED = {"bool": {"must": [{"match_all": {}}], "filter": [BARE_INNER]}}
WIDENED = {
    "bool": {
        "should": [
            EVERYTHING["query"],
            {"bool": {"filter": [these("products", "a", "b"), RELAXED]}},
        ],
        "minimum_should_match": 1,
    }
}


def test_facets_are_counted_by_the_search_that_renders_the_documents() -> None:
    """Over the client's own matches and these documents; its hits are these documents alone."""
    plan = plan_of("human&routing=r&typed_keys&timeout=2s&error_trace", EVERYTHING)
    search = render_search(plan, [A, B], raw(BRANDS))
    plain, documents = body_of(render_search(plan, [A, B], {})), these("products", "a", "b")
    own = {"bool": {"must": [MATCH], "filter": [BARE_INNER]}}
    assert plain | {
        "query": WIDENED,
        "aggs": {**BRANDS, "matched": {"filter": {"bool": {"filter": [documents, own, RELAXED, TERM]}}}},
        "post_filter": {"bool": {"filter": [documents, RELAXED, TERM]}},
        "highlight": {"highlight_query": own, "fields": {"title": {}}},
        "timeout": "1s",
    } == body_of(search)
    assert (("human", ""), ("routing", "r"), ("typed_keys", ""), ("timeout", "2s")) == search.parameters


def test_facets_of_a_deep_page_are_counted_without_hits() -> None:
    search = facet_search(plan_of("human&routing=r&typed_keys", EVERYTHING), [A, B], raw(BRANDS))
    assert {
        "query": WIDENED,
        "size": 0,
        "aggs": BRANDS,
        "post_filter": TERM,
        "track_total_hits": True,
        "timeout": "1s",
        "runtime_mappings": RUNTIME,
    } == body_of(search)
    assert (("routing", "r"), ("typed_keys", "")) == search.parameters


def test_the_name_of_the_proxys_aggregation_is_unique() -> None:
    taken = {"matched": {"terms": {"field": "brand"}}, "matched_": {"terms": {"field": "brand"}}}
    asked = body_of(render_search(plan_of(body=EVERYTHING), [A], raw(taken)))["aggs"]
    assert (["matched", "matched_", "matched__"], taken["matched"]) == (list(asked), asked["matched"])


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([A], these("products", "a")),
        ([B, A], these("products", "a", "b")),
        (
            [A, C, B],
            {"bool": {"should": [these("books", "a"), these("products", "a", "b")], "minimum_should_match": 1}},
        ),
        ([ROUTED], ROUTED_ALONE),
        ([ROUTED, A], {"bool": {"should": [these("products", "a"), ROUTED_ALONE], "minimum_should_match": 1}}),
    ],
)
def test_documents_are_selected_by_index_id_and_routing(keys: list[DocKey], expected: Any) -> None:
    assert expected == these_documents(keys)


@given(strategies.query_trees, st.none() | strategies.query_trees)
def test_every_search_of_a_plan_can_be_serialised(query: Any, post_filter: Any) -> None:
    must = {"bool": {"must": [MATCH, query]}}
    plan = plan_of(body={"query": must} | ({} if post_filter is None else {"post_filter": post_filter}))
    assert must == body_of(lexical_search(plan))["query"] == body_of(head_search(plan))["query"]
    assert [must] == body_of(render_search(plan, [A], {}))["query"]["bool"]["should"]
    filters = body_of(semantic_search(plan, VECTORS, "v", [1.0]))["knn"].get("filter", [])
    assert (post_filter in filters) is (post_filter not in (None, {"match_all": {}}))


def test_the_proxys_fields_are_the_vector_and_its_hash() -> None:
    assert ("v", "v_hash") == SEMANTIC.added_fields


# What holds for each of them

POST = {"range": {"price": {"lt": 9}}}
QUERY = {"bool": {"must": [MATCH], "filter": [TERM]}}
BODY = {
    "query": QUERY,
    "post_filter": POST,
    "aggs": {"a": {"terms": {"field": "brand"}}},
    "highlight": {"fields": {"title": {}}},
    "runtime_mappings": {"r": {"type": "long"}},
    "pit": {"id": "p"},
    "explain": True,
    "from": 3,
    "size": 5,
    "track_total_hits": 50,
}
URL = "routing=r&preference=p&typed_keys=true&version=true"
KEYS = [DocKey("products", "1"), DocKey("products", "2"), DocKey("other", "1", "r")]
GROUPED = {**BODY, "collapse": {"field": "family", "inner_hits": {"name": "all"}}}
OWN_PARAMETERS = (("search_pipeline", "_none"),)


def plan(body: Any = None, query_string: str = URL, **changes: Any) -> Plan:
    made = plan_of(query_string, body or BODY, window=10)
    return replace(made, own_parameters=OWN_PARAMETERS, **changes)


Make = Callable[[Plan], EngineSearch]
MADE: dict[str, Make] = {
    "lexical": lexical_search,
    "tail": lambda plan: tail_search(plan, [RankedDocument(key) for key in KEYS]),
    "groups": lambda plan: group_search(plan, [b'"a"', None]),
    "head": head_search,
    "semantic": lambda plan: semantic_search(plan, VECTORS, "v", [1.0, 0.0, 0.0]),
    "render": lambda plan: render_search(plan, KEYS, {}),
    "counted": lambda plan: render_search(plan, KEYS, raw({"a": {"terms": {"field": "brand"}}})),
    "facets": lambda plan: facet_search(plan, KEYS, raw({"a": {"terms": {"field": "brand"}}})),
}
OF_THE_PROXY = [name for name in MADE if name not in {"lexical", "tail"}]


@pytest.mark.parametrize("name", MADE)
def test_every_search_has_the_clients_filters(name: str) -> None:
    """Those of the query, and the `post_filter`."""
    body = json.dumps(body_of(MADE[name](plan())))
    assert (True, True) == (json.dumps(TERM) in body, json.dumps(POST) in body)


@pytest.mark.parametrize("name", MADE)
def test_every_search_has_the_clients_routing_and_preference(name: str) -> None:
    """And its index names, runtime fields and point in time."""
    search = MADE[name](plan())
    assert ("products", True) == (search.indices, {("routing", "r"), ("preference", "p")} <= set(search.parameters))
    assert (BODY["runtime_mappings"], BODY["pit"]) == (body_of(search)["runtime_mappings"], body_of(search)["pit"])


@pytest.mark.parametrize("name", MADE)
def test_only_the_proxys_own_searches_opt_out_of_pipelines(name: str) -> None:
    assert (name in OF_THE_PROXY) is (OWN_PARAMETERS[0] in MADE[name](plan()).parameters)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("lexical", {"aggs", "highlight", "explain"}),
        ("tail", {"aggs", "highlight", "explain"}),
        ("groups", {"highlight", "explain"}),
        ("render", {"aggs", "highlight", "explain"}),
        ("counted", {"aggs", "highlight", "explain"}),
        ("facets", {"aggs"}),
        ("head", set()),
        ("semantic", set()),
    ],
)
def test_display_options_are_requested_only_for_displayed_hits(name: str, keys: set[str]) -> None:
    body = body_of(MADE[name](plan()))
    assert keys == {"aggs", "highlight", "explain"} & body.keys()
    assert (name in {"lexical", "tail", "counted", "facets"}) is ("a" in body.get("aggs", ()))


@pytest.mark.parametrize(
    ("name", "start", "size"),
    [
        ("lexical", 0, 10),
        ("tail", 0, 5),
        ("groups", 0, 2),
        ("head", None, 10),
        ("semantic", None, 10),
        ("render", None, 3),
        ("counted", None, 3),
        ("facets", None, 0),
    ],
)
def test_each_search_requests_the_necessary_number_of_hits(name: str, start: int | None, size: int) -> None:
    body = body_of(MADE[name](plan()))
    assert (start, size) == (body.get("from"), body["size"])


def test_a_deep_page_of_groups_excludes_the_windows_groups() -> None:
    places = [RankedDocument(KEYS[0], b'"a"'), RankedDocument(KEYS[1], b"7"), RankedDocument(KEYS[2], None)]
    search = body_of(tail_search(plan({**GROUPED, "from": 12}), places))
    none = {"bool": {"must_not": [{"exists": {"field": "family"}}]}}
    expected = {"bool": {"should": [{"terms": {"family": ["a", 7]}}, none], "minimum_should_match": 1}}
    assert [expected] == search["post_filter"]["bool"]["must_not"]


def test_documents_without_a_collapse_value_are_one_group() -> None:
    search = body_of(group_search(plan(GROUPED), [None]))
    none = {"bool": {"must_not": [{"exists": {"field": "family"}}]}}
    assert [POST, {"bool": {"should": [none], "minimum_should_match": 1}}] == search["post_filter"]["bool"]["filter"]


@pytest.mark.parametrize("name", ["lexical", "tail", "groups", "head"])
def test_options_that_affect_scores_are_sent_where_scores_count(name: str) -> None:
    boosted = plan({**GROUPED, "indices_boost": [{"products": 2}]}, "search_type=dfs_query_then_fetch")
    search = MADE[name](boosted)
    assert ([{"products": 2}], "dfs_query_then_fetch") == (
        body_of(search)["indices_boost"],
        dict(search.parameters)["search_type"],
    )


def test_the_boost_search_requests_only_scores_of_the_same_documents() -> None:
    """It has no `collapse`, and no `min_score`, which is meant for scores with the query text."""
    boosted = {**BODY, "min_score": 3, "indices_boost": [{"products": 2}]}
    search = boost_search(plan(boosted, f"{URL}&search_type=dfs_query_then_fetch"), KEYS, 4.5)
    body, parameters = body_of(search), dict(search.parameters)
    assert {"query", "size", "_source", "track_total_hits", "indices_boost", "runtime_mappings", "pit"} == body.keys()
    assert ("r", "p", "dfs_query_then_fetch") == tuple(
        parameters[name] for name in ("routing", "preference", "search_type")
    )
    assert [OWN_PARAMETERS[0]] == [pair for pair in search.parameters if pair in OWN_PARAMETERS]
    assert (False, False, len(KEYS)) == (body["_source"], body["track_total_hits"], body["size"])
    assert [{"match_all": {"boost": 4.5}}] == body["query"]["bool"]["should"]


def test_the_boost_search_rescores_all_documents_as_the_clients_search() -> None:
    pin = {"ids": {"values": ["1"], "boost": 1e6}}
    boosted = plan({**BODY, "rescore": {"window_size": 10, "query": {"rescore_query": {**pin}}}})
    body = body_of(boost_search(boosted, KEYS, 4.5))
    assert [{"window_size": len(KEYS), "query": {"rescore_query": pin}}] == body["rescore"]
    assert [{"match_all": {"boost": 4.5}}] == body["query"]["bool"]["should"]


@pytest.mark.parametrize("name", [name for name in MADE if name != "facets"])
def test_every_search_is_collapsed_like_the_clients(name: str) -> None:
    """Without inner hits where no hits are shown; facets and totals count documents, not groups."""
    expected = {"field": "family"} if name in {"head", "semantic"} else GROUPED["collapse"]
    assert expected == body_of(MADE[name](plan(GROUPED)))["collapse"]


def test_the_alias_filter_is_repeated_in_opensearch_knn() -> None:
    vectors = replace(VECTORS, dialect=OPENSEARCH)
    filters = []
    for each in (VECTORS, vectors):
        search = json.dumps(body_of(semantic_search(plan(alias_filter={"term": {"see": 1}}), each, "v", [1.0])))
        filters.append('{"term": {"see": 1}}' in search)
    assert [False, True] == filters


@pytest.mark.parametrize("name", ["lexical", "tail", "groups", "render"])
def test_the_proxys_own_fields_are_not_shown(name: str) -> None:
    body = {key: value for key, value in BODY.items() if key != "pit"}
    assert {"excludes": ["v", "v_hash"]} == body_of(MADE[name](plan({**body, "pit": {"id": "p"}})))["_source"]


def written(body: bytes) -> Plan:
    """A plan for a search whose body is written so."""
    request = parse("", body)
    assert isinstance(request, SearchRequest)
    return replace(plan({"query": MATCH}), request=request, source=shown_source(request.source, SEMANTIC))


def test_the_lexical_search_keeps_lines_and_columns_of_the_clients_text() -> None:
    """The engine's warnings name the line and column."""
    body = b'{"size": 5,\n "_source": {\n  "include": "a"},"aggs": {"m": {"max": {"field": "p", "missing": 1.50}}}}\n'
    kept = b'{          \n             \n                  "aggs": {"m": {"max": {"field": "p", "missing": 1.50}}}'
    own = b',"_source":{"include":["a"],"excludes":["v","v_hash"]},"from":0,"size":10}\n'
    assert kept + own == lexical_search(written(body)).body


def test_a_deep_page_keeps_lines_and_columns_of_the_clients_text() -> None:
    body = b'{"query":{"match": {"title":"laptop"}}, "from":40, "post_filter":{"term":{"a":1.50}}}'
    search = tail_search(written(body), [RankedDocument(KEYS[0])]).body
    assert (True, True) == (search.startswith(body[:40] + b" "), b'"filter":[{"term":{"a":1.50}}]' in search)
