"""What is asked of the engine for one search of a client, body by body."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import RouteSettings, Semantic
from proxy.dialects import ELASTICSEARCH, ELASTICSEARCH_BEFORE_KNN, OPENSEARCH, Dialect, Version
from proxy.errors import Failure
from proxy.indices import IndexFacts, VectorField
from proxy.planning import MIN_SIMILARITY, NUM_CANDIDATES, EngineReply, EngineSearch, VectorSearch, vector_search
from proxy.ranking.hits import DocKey, Place
from proxy.ranking.searches import (
    head_search,
    lexical_search,
    own_fields,
    passage_search,
    render_search,
    semantic_search,
    tail_search,
    these_documents,
)
from proxy.request.search_keys import BODY_KEYS, PARAMETERS, Use
from proxy.routes import build_route
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
URL = "q=laptop&typed_keys&human&routing=r&_source=title&size=5"


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


def test_the_lexical_search_is_the_clients_but_for_its_page_and_the_proxys_fields() -> None:
    search = lexical_search(plan_of(body=EVERYTHING))
    assert changed(size=50, _source=OWN) == body_of(search)
    assert ("products", ()) == (search.indices, search.parameters)


def test_parameters_that_the_proxy_sets_itself_are_not_sent_along() -> None:
    search = lexical_search(plan_of(URL))
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
def test_the_proxys_own_fields_are_left_out_unless_named(source: Any, settings: RouteSettings, expected: Any) -> None:
    plan = plan_of(body={"query": MATCH, "_source": source}, settings=settings)
    assert expected == body_of(lexical_search(plan)).get("_source")


def test_a_page_behind_the_head_is_the_clients_without_the_heads_documents() -> None:
    plan = plan_of(body=EVERYTHING | {"from": 60})
    expected = {"bool": {"must_not": [these("products", "a", "b")], "filter": [TERM]}}
    assert changed(**{"from": 58, "_source": OWN, "post_filter": expected}) == body_of(
        tail_search(plan, [Place(A), Place(B)])
    )


def test_without_a_post_filter_the_heads_documents_are_all_that_is_excluded() -> None:
    search = body_of(tail_search(plan_of(body={"query": MATCH, "from": 60}), [Place(A)]))
    assert {"bool": {"must_not": [these("products", "a")]}} == search["post_filter"]


def test_a_page_behind_no_head_is_the_clients_own() -> None:
    assert changed(**{"from": 60, "_source": OWN}) == body_of(tail_search(plan_of(body=EVERYTHING | {"from": 60}), ()))


allowed = sorted(key for key, use in BODY_KEYS.items() if isinstance(use, Use) and use is not Use.CONSUMED)
refused_by_value = {"sort", "stored_fields", "track_total_hits", "ext", "knn"}
values = strategies.json_values.map(strategies.compact)


@given(st.dictionaries(st.sampled_from([key for key in allowed if key not in refused_by_value]), values))
def test_members_survive_planning_in_the_clients_bytes(members: dict[str, bytes]) -> None:
    body = json.loads(b"{%s}" % b",".join(b'"%s":%s' % (key.encode(), value) for key, value in members.items()))
    plan = plan_of("q=laptop", body)
    for search in (lexical_search(plan), tail_search(replace(plan, window=0), ())):
        for key, value in members.items():
            assert b'"%s":%s' % (key.encode(), value) in search.body


names = sorted(name for name, use in PARAMETERS.items() if isinstance(use, Use) and use is not Use.CONSUMED)


@pytest.mark.parametrize("name", [name for name in names if name not in {"q", "sort", "track_total_hits"}])
def test_each_parameter_goes_along_with_the_clients_own_search(name: str) -> None:
    plan = plan_of(f"{name}=x", {"query": MATCH})
    assert ((name, "x"),) == lexical_search(plan).parameters == tail_search(plan, ()).parameters


# The proxy's own searches


def test_the_heads_keys_and_the_total_are_asked_for_alone() -> None:
    search = head_search(plan_of("human&routing=r&typed_keys", EVERYTHING))
    assert {
        "query": EVERYTHING["query"],
        "size": 50,
        "_source": False,
        "indices_boost": [{"products": 2}],
        "runtime_mappings": RUNTIME,
        "track_total_hits": True,
        "post_filter": TERM,
    } == body_of(search)
    assert (("routing", "r"),) == search.parameters


def test_the_heads_keys_are_those_of_the_urls_query() -> None:
    search = body_of(head_search(plan_of("q=laptop", {"query": TERM})))
    assert {
        "query": {"query_string": {"query": "laptop"}},
        "size": 50,
        "_source": False,
        "track_total_hits": 10_000,
    } == search


def test_knn_searches_under_everything_that_excludes() -> None:
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


def test_knn_without_a_condition_has_no_filter() -> None:
    knn = body_of(semantic_search(plan_of(body={"query": MATCH}), VECTORS, "v", [1.0]))["knn"]
    assert {"field": "v", "query_vector": [1.0], "k": 50, "num_candidates": 100} == knn


def test_a_window_wider_than_num_candidates_widens_them() -> None:
    knn = body_of(semantic_search(plan_of(body={"query": MATCH}, window=200), VECTORS, "v", [1.0]))["knn"]
    assert (200, 200) == (knn["k"], knn["num_candidates"])


def test_without_a_reranker_knn_fetches_no_text() -> None:
    settings = RouteSettings(index="products", semantic=SEMANTIC, rerank=False)
    search = semantic_search(plan_of(body={"query": MATCH}, settings=settings), VECTORS, "v", [1.0])
    assert body_of(search)["_source"] is False


def test_passages_are_the_routes_fields_of_these_documents() -> None:
    search = passage_search(plan_of("human&routing=r", EVERYTHING), [A, C])
    documents = {"bool": {"should": [these("products", "a"), these("books", "a")], "minimum_should_match": 1}}
    assert {
        "query": {"bool": {"filter": [documents]}},
        "size": 2,
        "_source": ["title", "body"],
        "track_total_hits": False,
        "runtime_mappings": RUNTIME,
    } == body_of(search)
    assert (("routing", "r"),) == search.parameters


def test_documents_are_rendered_and_counted_as_the_clients_query_sees_them() -> None:
    search = render_search(plan_of("human&routing=r&typed_keys", EVERYTHING), [A, B])
    relaxed = {"bool": {"must": [{"match_all": {}}], "filter": [BARE_INNER]}}
    own = {"bool": {"must": [MATCH], "filter": [BARE_INNER]}}
    assert {
        "query": {"bool": {"filter": [these("products", "a", "b")], "should": [EVERYTHING["query"]]}},
        "size": 2,
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


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([A], these("products", "a")),
        ([B, A], these("products", "b", "a")),
        (
            [A, C, B],
            {"bool": {"should": [these("products", "a", "b"), these("books", "a")], "minimum_should_match": 1}},
        ),
        ([ROUTED], ROUTED_ALONE),
        ([ROUTED, A], {"bool": {"should": [ROUTED_ALONE, these("products", "a")], "minimum_should_match": 1}}),
    ],
)
def test_documents_are_named_by_index_id_and_routing(keys: list[DocKey], expected: Any) -> None:
    assert expected == these_documents(keys)


@given(strategies.query_trees, st.none() | strategies.query_trees)
def test_every_search_of_a_plan_can_be_written(query: Any, post_filter: Any) -> None:
    must = {"bool": {"must": [MATCH, query]}}
    plan = plan_of(body={"query": must} | ({} if post_filter is None else {"post_filter": post_filter}))
    assert must == body_of(lexical_search(plan))["query"] == body_of(head_search(plan))["query"]
    assert [must] == body_of(render_search(plan, [A]))["query"]["bool"]["should"]
    filters = body_of(semantic_search(plan, VECTORS, "v", [1.0]))["knn"].get("filter", [])
    assert (post_filter in filters) is (post_filter not in (None, {"match_all": {}}))


# The plan


@pytest.mark.parametrize(("from_", "expected"), [(0, True), (49, True), (50, False), (51, False)])
def test_a_page_begins_in_the_head_or_behind_it(from_: int, expected: bool) -> None:  # noqa: FBT001
    assert expected is plan_of(body={"query": MATCH, "from": from_}).in_head


@pytest.mark.parametrize(("index", "expected"), [("products", True), ("listed", True), ("logs", False)])
def test_an_index_is_covered_when_it_was_listed_or_lies_in_the_route(index: str, expected: bool) -> None:  # noqa: FBT001
    assert expected is plan_of(body={"query": MATCH}, covered=["listed"]).covers(index)


def test_the_proxys_fields_are_the_vector_and_its_hash() -> None:
    assert ("v", "v_hash") == own_fields(("v",))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((), False),
        (((b"content-type", b"gzip"),), False),
        (((b"Content-Encoding", b"gzip"),), True),
        (((b"content-encoding", b"identity"),), False),
    ],
)
def test_a_reply_says_whether_it_came_compressed(fields: tuple[tuple[bytes, bytes], ...], expected: bool) -> None:  # noqa: FBT001
    assert expected is EngineReply(200, fields, b"").compressed


# Which vectors are searched

FIELD = VectorField("dense_vector", 3, "cosine", "m")
KNN_FIELD = VectorField("knn_vector", 3, "l2", "m")
TYPE_ALONE = VectorField("dense_vector", None, None, None)
"""As `_field_caps` tells it to somebody who may not read the mapping."""
FOUND = VectorSearch(
    ELASTICSEARCH, {"v": None}, "m", 3, "cosine", MIN_SIMILARITY, NUM_CANDIDATES, SEMANTIC.timeout_seconds
)


def facts(*fields: VectorField) -> IndexFacts:
    return IndexFacts(vectors={"v": fields} if fields else {})


@pytest.mark.parametrize(
    ("named", "found", "expected"),
    [
        (None, facts(FIELD), FOUND),
        (None, facts(FIELD, FIELD), FOUND),
        ("m", facts(FIELD), FOUND),
        ("m", facts(replace(FIELD, model=None)), FOUND),
        ("m", facts(TYPE_ALONE), FOUND),
        (None, facts(TYPE_ALONE), Failure("semantic", "mapping_unreadable")),
        (None, facts(replace(FIELD, path="c")), replace(FOUND, fields={"v": "c"})),
        (None, facts(FIELD, replace(FIELD, path="c")), Failure("semantic", "mixed_vectors", "v")),
        (None, None, Failure("semantic", "mapping_unreadable")),
        (None, facts(), Failure("semantic", "no_vector_field", "v")),
        (None, facts(FIELD, replace(FIELD, model="n")), Failure("semantic", "mixed_vectors", "v")),
        (None, facts(FIELD, replace(FIELD, similarity="l2_norm")), Failure("semantic", "mixed_vectors", "v")),
        (None, facts(KNN_FIELD), replace(FOUND, dialect=OPENSEARCH, similarity="l2")),
        (None, facts(replace(FIELD, kind="rank_vectors")), Failure("semantic", "unknown_vector_type", "rank_vectors")),
        (None, facts(replace(FIELD, dimensions=4)), Failure("semantic", "other_dimensions", "4")),
        (None, facts(FIELD, replace(FIELD, dimensions=4)), Failure("semantic", "mixed_vectors", "v")),
        (None, facts(replace(FIELD, model=None)), Failure("semantic", "unknown_model")),
        ("n", facts(FIELD), Failure("semantic", "other_model", "m")),
    ],
)
def test_vectors_are_searched_only_where_it_is_known_what_made_them(
    named: str | None, found: IndexFacts | None, expected: VectorSearch | Failure
) -> None:
    route = build_route(RouteSettings(index="products", embedding_model=named, semantic=SEMANTIC))
    assert expected == vector_search(route, SEMANTIC, found)


def test_several_fields_may_stand_in_several_kinds_of_nested_documents() -> None:
    semantic = Semantic(field=("w", "v"), dimensions=3)
    forms = {"v": (FIELD,), "w": (replace(FIELD, path="c"),)}
    found = vector_search(build_route(SETTINGS), semantic, IndexFacts(vectors=forms))
    assert replace(FOUND, fields={"w": "c", "v": None}) == found


def test_a_route_may_set_the_threshold_and_the_breadth_of_its_knn() -> None:
    semantic = Semantic(
        field="v", dimensions=3, min_similarity=0.0, num_candidates=7, oversample=3.0, timeout_seconds=5.0
    )
    route = build_route(RouteSettings(index="products", semantic=semantic))
    expected = VectorSearch(ELASTICSEARCH, {"v": None}, "m", 3, "cosine", 0.0, 7, 5.0, 3.0)
    assert expected == vector_search(route, semantic, facts(FIELD))


@pytest.mark.parametrize(
    ("in_mapping", "in_file", "expected"),
    [("l2_norm", "dot_product", "l2_norm"), (None, "dot_product", "dot_product"), (None, None, "cosine")],
)
def test_a_similarity_is_the_mappings_before_the_files(
    in_mapping: str | None, in_file: str | None, expected: str
) -> None:
    semantic = Semantic(field="v", dimensions=3, similarity=in_file)
    route = build_route(RouteSettings(index="products", embedding_model="m", semantic=semantic))
    found = vector_search(route, semantic, facts(replace(FIELD, similarity=in_mapping)))
    assert isinstance(found, VectorSearch)
    assert expected == found.similarity


@pytest.mark.parametrize(("version", "expected"), [((8, 3), ELASTICSEARCH_BEFORE_KNN), ((8, 4), ELASTICSEARCH)])
def test_vectors_are_searched_as_the_engines_version_does(version: Version, expected: Dialect) -> None:
    assert replace(FOUND, dialect=expected) == vector_search(build_route(SETTINGS), SEMANTIC, facts(FIELD), version)


@pytest.mark.parametrize(
    ("score", "similarity", "expected"),
    [(0.65, "cosine", True), (0.64, "cosine", False), (0.9, "hamming", False), (0.0, "cosine", False)],
)
def test_what_only_knn_finds_is_near_by_its_cosine(score: float, similarity: str, expected: bool) -> None:  # noqa: FBT001
    vectors = VectorSearch(ELASTICSEARCH, {"v": None}, "m", 3, similarity, 0.3, 100, 2.0)
    assert expected is vectors.is_near(score)
