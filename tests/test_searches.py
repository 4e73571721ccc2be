"""The bodies of the searches made for a client: what each says, and that none forgets a filter."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from proxy.config import RouteSettings
from proxy.dialects import OPENSEARCH
from proxy.planning import EngineSearch, Plan
from proxy.ranking import searches
from proxy.ranking.hits import DocKey, Place
from proxy.request.search_request import SearchRequest, parse
from tests.plans import SEMANTIC, VECTORS, plan_of

TERM = {"term": {"brand": "acme"}}
POST = {"range": {"price": {"lt": 9}}}
WORDS = {"match": {"title": "laptop"}}
QUERY = {"bool": {"must": [WORDS], "filter": [TERM]}}
RELAXED = {"bool": {"must": [{"match_all": {}}], "filter": [TERM]}}
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
    return dataclasses.replace(made, own_parameters=OWN_PARAMETERS, **changes)


def said(search: EngineSearch) -> Any:
    return json.loads(search.body)


Make = Callable[[Plan], EngineSearch]
MADE: dict[str, Make] = {
    "lexical": searches.lexical_search,
    "tail": lambda plan: searches.tail_search(plan, [Place(key) for key in KEYS]),
    "groups": lambda plan: searches.group_search(plan, [b'"a"', None]),
    "head": searches.head_search,
    "semantic": lambda plan: searches.semantic_search(plan, VECTORS, "v", [1.0, 0.0, 0.0]),
    "render": lambda plan: searches.render_search(plan, KEYS),
}
OF_THE_PROXY = [name for name in MADE if name not in {"lexical", "tail"}]


@pytest.mark.parametrize("name", MADE)
def test_every_search_carries_the_clients_filters(name: str) -> None:
    """The query's own, and the `post_filter`."""
    body = json.dumps(said(MADE[name](plan())))
    assert (True, True) == (json.dumps(TERM) in body, json.dumps(POST) in body)


@pytest.mark.parametrize("name", MADE)
def test_every_search_reaches_the_same_documents_in_the_same_way(name: str) -> None:
    """Names, routing, preference, runtime fields and the point in time are the client's."""
    search = MADE[name](plan())
    assert ("products", True) == (search.indices, {("routing", "r"), ("preference", "p")} <= set(search.parameters))
    assert (BODY["runtime_mappings"], BODY["pit"]) == (said(search)["runtime_mappings"], said(search)["pit"])


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
        ("head", set()),
        ("semantic", set()),
    ],
)
def test_what_is_shown_is_asked_for_only_where_hits_are_shown(name: str, keys: set[str]) -> None:
    body = said(MADE[name](plan()))
    assert keys == {"aggs", "highlight", "explain"} & body.keys()
    assert (name in {"lexical", "tail"}) is (body.get("aggs") == BODY["aggs"])


@pytest.mark.parametrize(
    ("name", "start", "size"),
    [
        ("lexical", 0, 10),
        ("tail", 0, 5),
        ("groups", 0, 2),
        ("head", None, 10),
        ("semantic", None, 10),
        ("render", None, 3),
    ],
)
def test_how_many_hits_are_asked_for(name: str, start: int | None, size: int) -> None:
    body = said(MADE[name](plan()))
    assert (start, size) == (body.get("from"), body["size"])


def test_the_clients_own_search_fills_window_and_page() -> None:
    assert 17 == said(searches.lexical_search(plan({**BODY, "from": 12})))["size"]


def test_a_tail_begins_so_much_nearer_and_leaves_the_head_out() -> None:
    search = said(searches.tail_search(plan({**BODY, "from": 12}), [Place(key) for key in KEYS]))
    (excluded,) = search["post_filter"]["bool"]["must_not"]
    assert (9, 5, QUERY, [POST]) == (
        search["from"],
        search["size"],
        search["query"],
        search["post_filter"]["bool"]["filter"],
    )
    assert searches.these_documents(KEYS) == excluded


def test_a_tail_of_groups_leaves_the_heads_groups_out() -> None:
    places = [Place(KEYS[0], b'"a"'), Place(KEYS[1], b"7"), Place(KEYS[2], None)]
    search = said(searches.tail_search(plan({**GROUPED, "from": 12}), places))
    none = {"bool": {"must_not": [{"exists": {"field": "family"}}]}}
    expected = {"bool": {"should": [{"terms": {"family": ["a", 7]}}, none], "minimum_should_match": 1}}
    assert [expected] == search["post_filter"]["bool"]["must_not"]


def test_a_tail_behind_nothing_is_the_clients_own_search() -> None:
    search = said(searches.tail_search(plan(), []))
    assert (3, 5, POST) == (search["from"], search["size"], search["post_filter"])


def test_groups_without_a_value_are_a_group() -> None:
    search = said(searches.group_search(plan(GROUPED), [None]))
    none = {"bool": {"must_not": [{"exists": {"field": "family"}}]}}
    assert [POST, {"bool": {"should": [none], "minimum_should_match": 1}}] == search["post_filter"]["bool"]["filter"]


@pytest.mark.parametrize("name", ["lexical", "tail", "groups", "head"])
def test_what_makes_scores_goes_along_wherever_the_order_is_the_clients_own(name: str) -> None:
    boosted = plan({**GROUPED, "indices_boost": [{"products": 2}]}, "search_type=dfs_query_then_fetch")
    search = MADE[name](boosted)
    assert ([{"products": 2}], "dfs_query_then_fetch") == (
        said(search)["indices_boost"],
        dict(search.parameters)["search_type"],
    )


@pytest.mark.parametrize("name", MADE)
def test_every_search_is_grouped_as_the_clients_own(name: str) -> None:
    """Those that show no hits without what a group holds besides."""
    expected = {"field": "family"} if name in {"head", "semantic"} else GROUPED["collapse"]
    assert expected == said(MADE[name](plan(GROUPED)))["collapse"]


def test_a_knn_search_is_held_to_everything_but_the_words() -> None:
    search = said(searches.semantic_search(plan(), VECTORS, "v", [1.0, 0.0, 0.0]))
    assert [RELAXED, POST] == search["knn"]["filter"]
    assert ("v", [1.0, 0.0, 0.0], 10, 100, "2000ms") == (
        search["knn"]["field"],
        search["knn"]["query_vector"],
        search["knn"]["k"],
        search["knn"]["num_candidates"],
        search["timeout"],
    )
    assert (False, ["title", "body"]) == ("query" in search, search["_source"])


def test_where_an_aliass_filter_holds_too_late_it_is_said_again() -> None:
    vectors = dataclasses.replace(VECTORS, dialect=OPENSEARCH)
    filters = []
    for each in (VECTORS, vectors):
        search = json.dumps(said(searches.semantic_search(plan(alias_filter={"term": {"see": 1}}), each, "v", [1.0])))
        filters.append('{"term": {"see": 1}}' in search)
    assert [False, True] == filters


def test_without_a_reranker_the_knn_search_brings_no_texts() -> None:
    made = plan_of("", BODY, settings=RouteSettings(index="products", semantic=SEMANTIC, rerank=False))
    assert said(searches.semantic_search(made, VECTORS, "v", [1.0]))["_source"] is False


def test_texts_are_asked_for_by_the_documents_alone() -> None:
    search = said(searches.passage_search(plan(), KEYS))
    assert {"bool": {"filter": [searches.these_documents(KEYS)]}} == search["query"]
    assert (3, ["title", "body"], False) == (search["size"], search["_source"], search["track_total_hits"])


def test_documents_are_rendered_for_the_clients_query_and_counted() -> None:
    search = said(searches.render_search(plan(), KEYS))
    assert {"filter": [searches.these_documents(KEYS)], "should": [QUERY]} == search["query"]["bool"]
    assert {"bool": {"filter": [RELAXED, POST]}} == search["post_filter"]
    assert {"matched": {"filter": {"bool": {"filter": [QUERY, RELAXED, POST]}}}} == search["aggs"]


def test_a_document_is_told_by_index_id_and_routing() -> None:
    here = {"bool": {"filter": [{"term": {"_index": "products"}}, {"ids": {"values": ["1", "2"]}}]}}
    there = {"bool": {"filter": [{"term": {"_index": "other"}}, {"ids": {"values": ["1"]}}]}}
    here["bool"]["must_not"] = [{"exists": {"field": "_routing"}}]
    there["bool"]["filter"].append({"term": {"_routing": "r"}})
    assert {"bool": {"should": [here, there], "minimum_should_match": 1}} == searches.these_documents(KEYS)
    assert here == searches.these_documents(KEYS[:2])


@pytest.mark.parametrize("name", ["lexical", "tail", "groups", "render"])
def test_the_proxys_own_fields_are_not_shown(name: str) -> None:
    body = {key: value for key, value in BODY.items() if key != "pit"}
    assert {"excludes": ["v", "v_hash"]} == said(MADE[name](plan({**body, "pit": {"id": "p"}})))["_source"]


def test_the_heads_keys_are_asked_for_without_their_documents() -> None:
    search = said(searches.head_search(plan({**BODY, "indices_boost": [{"a": 2}]})))
    assert (QUERY, False, 50, [{"a": 2}], POST) == (
        search["query"],
        search["_source"],
        search["track_total_hits"],
        search["indices_boost"],
        search["post_filter"],
    )


def written(body: bytes) -> Plan:
    """A plan for a search whose body is written so."""
    request = parse("", body)
    assert isinstance(request, SearchRequest)
    return dataclasses.replace(plan({"query": WORDS}), request=request)


def test_the_clients_own_search_keeps_its_text_in_its_place() -> None:
    """The engine's warnings say on which line and in which column something stands."""
    body = b'{"size": 5,\n "_source": {\n  "include": "a"},"aggs": {"m": {"max": {"field": "p", "missing": 1.50}}}}\n'
    kept = b'{          \n             \n                  "aggs": {"m": {"max": {"field": "p", "missing": 1.50}}}'
    said = b',"_source":{"include":["a"],"excludes":["v","v_hash"]},"from":0,"size":10}\n'
    assert kept + said == searches.lexical_search(written(body)).body


def test_a_page_behind_the_head_keeps_the_text_too() -> None:
    body = b'{"query":{"match": {"title":"laptop"}}, "from":40, "post_filter":{"term":{"a":1.50}}}'
    search = searches.tail_search(written(body), [Place(KEYS[0])]).body
    assert (True, True) == (search.startswith(body[:40] + b" "), b'"filter":[{"term":{"a":1.50}}]' in search)
