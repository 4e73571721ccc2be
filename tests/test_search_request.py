"""A search is read as far as it is understood, or bypassed for a reason in the table."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.bounds import BODY_CLAUSES
from proxy.outcomes import BYPASS_REASONS, Bypass
from proxy.parsing.filter_path import Form
from proxy.parsing.search_edits import excluding, translated
from proxy.parsing.search_keys import PARAMETERS, Use
from proxy.parsing.search_request import OF_PIT, SearchRequest, parse
from proxy.parsing.sort_values import BY_SCORE, Sort, Walk, head_value, tail_value
from proxy.parsing.source_filter import PathPlace, SourceFilter
from tests import strategies
from tests.test_turns import TIMES_JSON, json_seconds


def read(query_string: str = "", body: Any = None) -> SearchRequest:
    raw = b"" if body is None else strategies.compact(body)
    request = parse(query_string, raw)
    assert isinstance(request, SearchRequest), request
    return request


def test_an_empty_body_is_a_search_with_defaults() -> None:
    expected = SearchRequest(
        content=b"{}",
        members={},
        parameters=(),
        query=None,
        post_filter=None,
        from_=0,
        size=10,
        sort=Sort(),
        walk=None,
        source=SourceFilter(),
        hidden=frozenset(),
        track_total_hits=10_000,
        form=Form(),
        collapse=None,
        rescored=None,
        text=None,
        pipeline=None,
        own_ranking=False,
    )
    assert expected == parse("", b"")


@pytest.mark.parametrize(
    ("query_string", "body", "reason"),
    [
        ("filter_path=" + ".".join(["a"] * 201), b"", "too_complex"),
        ("filter_path=" + ",-".join(["a*"] * 9), b"", "too_complex"),
        ("_source_excludes=" + ",".join(["a*"] * 101), b"", "too_complex"),
        ("", strategies.compact({"_source": ["*a"] * 101}), "too_complex"),
        ("q=x", b" ", "not_json"),
        ("q=x", b"\n", "not_json"),
        ("", b'{"query":[]}', "not_json"),
        ("", b'{"post_filter":"x"}', "not_json"),
        ("q=x", b'{"query":"x"}', "not_json"),
        ("", b'{"knn":{"field":"v","query_vector":[1]}}', "knn"),
        ("q=x", b'{"knn":{"field":"v","query_vector":[1]}}', "knn"),
        ("", b'{"retriever":{"rrf":{"retrievers":[]}}}', "retriever"),
        ("", b'{"retriever":{"standard":{"collapse":{"field":"a"}}}}', "retriever"),
        ("", b'{"retriever":[]}', "retriever"),
        ("q=x", b'{"retriever":null}', "retriever"),
        ("", b'{"ext":{"other":{}}}', "ext"),
        ("", b'{"ext":null}', "ext"),
        ("", b'{"collapse":{"field":"a","inner_hits":[{"name":"x"},{},{},{},{}]}}', "collapse"),
        ("", b'{"collapse":{"field":"a","inner_hits":[{"name":"x"},7]}}', "collapse"),
        ("", b'{"rescore":[{"window_size":"x"}]}', "rescore"),
        ("", b'{"rescore":[7]}', "rescore"),
        ("", b'{"rescore":{"query":{}},"from":991}', "rescore"),
        ("", b'{"stored_fields":"_none_","docvalue_fields":["_id"],"highlight":{}}', "stored_fields"),
        ("", b'{"stored_fields":"_none_","docvalue_fields":["_id"],"script_fields":{}}', "stored_fields"),
        ("", b'{"stored_fields":"_none_","docvalue_fields":["_id"],"_source":true}', "stored_fields"),
        ("", b'{"stored_fields":"_none_","docvalue_fields":["price"]}', "stored_fields"),
        ("_source=true", b'{"stored_fields":"_none_","docvalue_fields":["_id"]}', "stored_fields"),
        ("", b'{"ext":{"rerank":{"query_context":{"query_text":"x"}},"other":{}}}', "ext"),
        ("", b'{"collapse":["a"]}', "collapse"),
        ("", b'{"_source":7}', "unknown_key"),
        ("", b'{"_source":{"exclude_vectors":null}}', "unknown_key"),
        ("", b'{"size":0}', "size_zero"),
        ("size=0", b'{"size":5}', "size_zero"),
        ("", b'{"size":-1}', "not_json"),
        ("", b'{"size":true}', "not_json"),
        ("", b'{"size":"five"}', "not_json"),
        ("", b'{"size":"-5"}', "not_json"),
        ("", b'{"size":"0"}', "size_zero"),
        ("", b'{"size":[5]}', "not_json"),
        ("", b'{"size":null}', "not_json"),
        ("", b'{"size":1e12}', "not_json"),
        ("", b'{"from":2147483648}', "not_json"),
        ("from=-1", b"", "not_json"),
        ("from=", b"", "not_json"),
        ("size=%C2%B2", b"", "not_json"),
        ("size=" + "9" * 5000, b"", "not_json"),
        ("track_total_hits=%C2%B2", b"", "not_json"),
        ("track_total_hits=", b"", "not_json"),
        ("track_total_hits=" + "9" * 5000, b"", "not_json"),
        ("", b'{"track_total_hits":"x"}', "not_json"),
        ("", b'{"sort":["price"]}', "sort"),
        ("", b'{"pit":{"id":"x"},"sort":["_score","price"]}', "cursor"),
        ("", b'{"sort":{"_score":"asc"}}', "sort"),
        ("", b'{"sort":[{"_score":{"order":"ASC"}},"price"]}', "sort"),
        ("", b'{"sort":["_score",{"_score":"asc"}]}', "sort"),
        ("", b'{"sort":[{"_score":{"mode":"max"}}]}', "sort"),
        ("", b'{"sort":7}', "sort"),
        ("", b'{"search_after":[1.5,2],"sort":["_score","price"]}', "search_after"),
        ("sort=price", b"", "sort"),
        ("sort=_score:asc", b"", "sort"),
        ("", b'{"stored_fields":"_none_"}', "stored_fields"),
        ("", b'{"stored_fields":["a","_source"]}', "stored_fields"),
        ("stored_fields=a,_none_", b"", "stored_fields"),
    ],
)
def test_searches_that_are_not_understood_are_bypassed(query_string: str, body: bytes, reason: str) -> None:
    assert Bypass(reason) == parse(query_string, body)


@pytest.mark.parametrize("sort", ["_score", ["_score"], [], {"_score": "desc"}, [{"_score": {"order": "desc"}}]])
def test_an_explicit_default_sort_counts_as_no_sort(sort: Any) -> None:
    request = read("sort=", {"sort": sort})  # an empty one is taken for none, seen on 8.19.13
    assert (BY_SCORE, sort) == (request.sort, msgspec.json.decode(request.members["sort"]))


@pytest.mark.parametrize(
    "sort", [[{}], {}, "_score", {"_score": "DESC"}, {"_score": {"order": "Desc"}}, {"_score": {}}]
)
def test_every_form_of_a_sort_is_read(sort: Any) -> None:
    assert BY_SCORE == read("", {"sort": sort}).sort


@pytest.mark.parametrize(
    ("query_string", "sort", "places"),
    [
        ("", ["_score", "price"], (0,)),
        ("", {"_score": "desc", "price": "asc"}, (0,)),
        ("", [{"_score": {"order": "desc"}}, {"_script": {"type": "number", "script": "1"}}], (0,)),
        ("", [{"stock": "desc"}, "_score", "id"], (1,)),
        ("", ["_score", "_score"], (0, 1)),
        ("sort=_score:desc", ["_score"], (0, 1)),
        ("sort=_score,price:asc", [], (0,)),
        ("sort=price", ["_score"], (0,)),
    ],
)
def test_further_sort_keys_give_hits_sort_values(query_string: str, sort: Any, places: tuple[int, ...]) -> None:
    assert Sort(places) == read(query_string, {"sort": sort}).sort


@pytest.mark.parametrize("said", [10, "10", "10.0", " 10 ", 10.0, 10.7, "10."])
def test_numbers_are_read_like_the_engines_do(said: Any) -> None:
    request = read("", {"from": said, "size": said})
    assert (10, 10) == (request.from_, request.size)


@pytest.mark.parametrize(("said", "counted"), [("true", True), ("false", False), ("7", 7)])
def test_track_total_hits_may_be_a_string(said: str, counted: Any) -> None:
    assert counted is read("", {"track_total_hits": said}).track_total_hits or counted == 7


@pytest.mark.parametrize("stored", ["_none_", ["_none_"]])
@pytest.mark.parametrize("fields", [["_id", "_score"], [{"field": "_id"}, {"field": "price"}]])
def test_hits_without_ids_are_accepted_if_docvalue_fields_has_them(stored: Any, fields: Any) -> None:
    request = read("", {"stored_fields": stored, "docvalue_fields": fields})
    assert {"_id", "_source", "_routing", "_ignored"} == request.hidden
    assert {"docvalue_fields": fields} == msgspec.json.decode(request.content)
    assert ({"docvalue_fields"}, False) == (set(request.members), request.source.enabled)


@pytest.mark.parametrize(
    ("rescore", "first"),
    [
        (None, None),
        ([], None),
        ({"query": {}}, 10),
        ({"window_size": 512, "query": {}}, 512),
        ([{"window_size": 100, "query": {}}, {"window_size": "20", "query": {}}], 20),
    ],
)
def test_rescore_reaches_as_far_as_its_smallest_window(rescore: Any, first: Any) -> None:
    assert first == read("", {"rescore": rescore}).rescored


def test_collapse_may_be_nested_in_inner_hits() -> None:
    inner = {"name": "x", "collapse": {"field": "b"}, "size": 3}
    assert "a" == read("", {"collapse": {"field": "a", "inner_hits": inner}}).collapse


TIED = {"query": {"match_all": {}}, "sort": ["_score", {"id": "asc"}]}


def walk_from(value: Any, **more: Any) -> tuple[Any, Walk | None]:
    content, walk = translated("", strategies.compact({**TIED, "search_after": [value, 7], **more}))
    return msgspec.json.decode(content).get("search_after"), walk


def test_search_after_beyond_the_window_uses_the_engines_score() -> None:
    value = tail_value(12.5)
    assert ([12.5, 7], Walk(value)) == walk_from(value)


def test_search_after_within_the_window_has_no_engine_value() -> None:
    value = head_value(1.5, 0)
    assert (None, Walk(value)) == walk_from(value)


@pytest.mark.parametrize("value", [12.5, 1.5, 0.5, 0.333333343, 3, None, "1.5", [], 1e9])
def test_search_after_with_engine_values_is_unchanged(value: Any) -> None:
    assert ([value, 7], None) == walk_from(value)


@pytest.mark.parametrize(
    "content",
    [b'{"search_after"', b'["search_after"]', b'{"search_after":[0.12345678901234]}', b'{"a":"search_after"}', b"7"],
)
def test_bodies_without_search_after_are_unchanged(content: bytes) -> None:
    assert (content, None) == translated("", content)


@pytest.mark.parametrize("more", [{"from": 5}, {"collapse": {"field": "brand"}}, {"sort": ["price"]}])
def test_search_after_that_cannot_be_continued_is_bypassed(more: Any) -> None:
    content, walk = translated("", strategies.compact({**TIED, "search_after": [tail_value(2.5), 7]}))
    assert walk is not None
    body = {**msgspec.json.decode(content), **more}
    assert isinstance(parse("", strategies.compact(body), walk), Bypass)


def test_translated_search_after_is_parsed() -> None:
    content, walk = translated("", strategies.compact({**TIED, "search_after": [tail_value(2.5), 7]}))
    request = parse("", content, walk)
    assert isinstance(request, SearchRequest)
    assert (walk, Sort((0,)), content) == (request.walk, request.sort, request.content)


@pytest.mark.parametrize(
    "sort", [[], ["_score"], ["_score", "_shard_doc"], [{"_score": "desc"}, {"_shard_doc": {"order": "desc"}}]]
)
def test_the_order_of_a_point_in_time_may_be_stated(sort: Any) -> None:
    """Each hit has both sort values, also without a sort."""
    body = {"pit": {"id": "x"}, "sort": sort}
    content, walk = translated("", strategies.compact({**body, "search_after": [tail_value(1.5), 7]}))
    assert OF_PIT == read("", body).sort
    assert ([1.5, 7], Walk(tail_value(1.5))) == (msgspec.json.decode(content)["search_after"], walk)


@pytest.mark.parametrize("sort", ["_shard_doc", ["_shard_doc", "_score"], ["_score", "price"]])
def test_a_point_in_time_in_another_order_is_the_engines(sort: Any) -> None:
    found = parse("", strategies.compact({"pit": {"id": "x"}, "sort": sort}))
    assert isinstance(found, Bypass)
    assert found.reason in {"sort", "cursor"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, False),
        ({"from": 20, "size": 100, "sort": ["_score"], "highlight": {"fields": {"a": {}}}}, False),
        ({"aggs": {"x": {"terms": {"field": "c"}}}}, True),
        ({"post_filter": {"term": {"c": 1}}}, True),
        ({"sort": ["_score", {"id": "asc"}]}, True),
    ],
)
def test_facets_and_further_sort_keys_show_a_page_of_results(body: Any, *, expected: bool) -> None:
    """On every page, whatever its size."""
    assert expected == read("", body).is_page


RAIN = {"match": {"a": "rain"}}
ONLY = {"term": {"b": 1}}


@pytest.mark.parametrize(
    ("standard", "plain"),
    [
        ({"sort": ["_score", "id"]}, {"query": RAIN, "sort": ["_score", "id"]}),
        ({"collapse": {"field": "c"}}, {"query": RAIN, "collapse": {"field": "c"}}),
        (
            {"filter": [ONLY], "sort": ["_score"], "min_score": 0.5},
            {"query": {"bool": {"must": [RAIN], "filter": [ONLY]}}, "sort": ["_score"], "min_score": 0.5},
        ),
    ],
)
def test_a_standard_retriever_with_an_order_or_groups_is_read_as_the_plain_search(standard: Any, plain: Any) -> None:
    more = {"size": 3, "aggs": {"x": {"terms": {"field": "c"}}}}
    found = read("", {**more, "retriever": {"standard": {"query": RAIN, **standard}}})
    expected = read("", {**more, **plain})
    assert (expected.query, expected.sort, expected.collapse) == (found.query, found.sort, found.collapse)
    assert (expected.size, expected.own_ranking) == (found.size, found.own_ranking)
    assert expected.members.keys() == found.members.keys()
    assert b'"retriever"' in found.content


@pytest.mark.parametrize(
    "body",
    [
        {"retriever": {"standard": {"query": RAIN, "sort": ["_score"], "search_after": [1]}}},
        {"retriever": {"standard": {"query": RAIN, "sort": ["_score"], "terminate_after": 1}}},
        {"retriever": {"standard": {"query": RAIN, "collapse": {"field": "c"}, "_name": "x"}}},
        {"retriever": {"standard": {"query": RAIN, "collapse": {"field": "c"}}}, "query": RAIN},
        {"retriever": {"standard": {"query": RAIN, "sort": ["_score"]}}, "sort": ["_score"]},
        {"retriever": {"standard": {"sort": ["_score"]}}},
    ],
)
def test_other_standard_retrievers_are_the_engines(body: Any) -> None:
    assert Bypass("retriever") == parse("", strategies.compact(body))


@pytest.mark.parametrize(
    ("query_string", "body", "from_", "size"),
    [
        ("", None, 0, 10),
        ("", {"from": 5, "size": 3}, 5, 3),
        ("from=7", {"from": 5, "size": 3}, 7, 3),
        ("size=1", {"from": 5, "size": 3}, 5, 1),
        ("size=007&from=0", {"size": 0}, 0, 7),
    ],
)
def test_from_and_size_of_the_url_override_the_body(query_string: str, body: Any, from_: int, size: int) -> None:
    request = read(query_string, body)
    assert (from_, size, from_ + size) == (request.from_, request.size, request.end)


@pytest.mark.parametrize(
    ("query_string", "body", "expected"),
    [
        ("", {"query": {"match": {"a": "x"}}}, {"match": {"a": "x"}}),
        ("q=x+y", {"query": {"match": {"a": "z"}}}, {"query_string": {"query": "x y"}}),
        ("q=", None, {"query_string": {"query": ""}}),
        ("", {"retriever": {"standard": {"query": {"match": {"a": "x"}}}}}, {"match": {"a": "x"}}),
        (
            "",
            {"retriever": {"standard": {"query": {"match": {"a": "x"}}, "filter": {"term": {"b": 1}}}}},
            {"bool": {"must": [{"match": {"a": "x"}}], "filter": {"term": {"b": 1}}}},
        ),
        (
            "",
            {"retriever": {"knn": {"field": "v", "query_vector": [1], "k": 5, "num_candidates": 9}}},
            {"knn": {"field": "v", "query_vector": [1], "num_candidates": 9}},
        ),
        (
            "source=%7B%22query%22%3A%7B%22match_all%22%3A%7B%7D%7D%7D&source_content_type=application/json",
            None,
            {"match_all": {}},
        ),
        (
            "q=x&df=t&analyzer=whitespace&default_operator=AND&lenient=false&analyze_wildcard",
            None,
            {
                "query_string": {
                    "query": "x",
                    "default_field": "t",
                    "analyzer": "whitespace",
                    "default_operator": "AND",
                    "lenient": False,
                    "analyze_wildcard": True,
                }
            },
        ),
    ],
)
def test_the_query_of_the_url_overrides_the_body(query_string: str, body: Any, expected: Any) -> None:
    assert expected == read(query_string, body).query


@pytest.mark.parametrize(
    ("query_string", "body", "expected"),
    [
        ("", {"_source": ["a"]}, SourceFilter(includes=("a",))),
        ("_source=false", {"_source": ["a"]}, SourceFilter(enabled=False)),
        ("_source_includes=b", {"_source": ["a"]}, SourceFilter(includes=("b",))),
        ("", {"stored_fields": ["a"]}, SourceFilter(enabled=False, place=PathPlace.NOWHERE)),
        ("", {"stored_fields": "a"}, SourceFilter(enabled=False, place=PathPlace.NOWHERE)),
        ("stored_fields=a", None, SourceFilter(enabled=False, place=PathPlace.NOWHERE)),
        ("", {"script_fields": {"a": {"script": "1"}}}, SourceFilter(enabled=False, place=PathPlace.NOWHERE)),
        ("", {"script_fields": {}}, SourceFilter()),
        ("", {"stored_fields": ["a"], "_source": True}, SourceFilter()),
        ("_source=true", {"stored_fields": ["a"]}, SourceFilter()),
        ("_source_excludes=", {"stored_fields": ["a"]}, SourceFilter()),  # seen on 8.19.13
        ("_source_excludes=b", {"stored_fields": ["a"]}, SourceFilter(excludes=("b",))),
    ],
)
def test_source_is_returned_unless_other_fields_are_requested(
    query_string: str, body: Any, expected: SourceFilter
) -> None:
    assert expected == read(query_string, body).source


@pytest.mark.parametrize(
    ("query_string", "body", "expected"),
    [
        ("", None, 10_000),
        ("", {"track_total_hits": False}, False),
        ("", {"track_total_hits": 5}, 5),
        ("track_total_hits=true", {"track_total_hits": 5}, True),
        ("track_total_hits=false", None, False),
        ("track_total_hits=7", None, 7),
        ("rest_total_hits_as_int=true", None, True),  # one number can only be exact
        ("rest_total_hits_as_int", None, True),
        ("rest_total_hits_as_int=false", None, 10_000),
        ("rest_total_hits_as_int=true&track_total_hits=false", None, False),
    ],
)
def test_track_total_hits_is_read(query_string: str, body: Any, expected: bool | int) -> None:  # noqa: FBT001
    found = read(query_string, body).track_total_hits
    assert (expected, type(expected)) == (found, type(found))


@pytest.mark.parametrize(
    ("query_string", "expected"), [("", False), ("pretty", True), ("pretty=true", True), ("pretty=false", False)]
)
def test_pretty_is_read_from_the_url(query_string: str, expected: bool) -> None:  # noqa: FBT001
    assert expected is read(query_string).form.pretty


@pytest.mark.parametrize(
    "said", ["pretty", "filter_path=took", "pretty=false&filter_path=took", "filter_path=-a&pretty"]
)
def test_reserialised_documents_are_requested_with_pretty(said: str) -> None:
    """Also with `filter_path`; the proxy formats the whole response itself."""
    ((name, value),) = read(said).url(*Use)
    assert ("pretty", True) == (name, value in {"", "true"})


BODY: dict[str, Any] = {
    "query": {"match": {"a": "x"}},
    "from": 0,
    "size": 5,
    "aggs": {},
    "fields": ["a"],
    "runtime_mappings": {},
    "post_filter": {"term": {"b": 1}},
}


@pytest.mark.parametrize(
    ("uses", "keys", "names"),
    [
        ((Use.LEXICAL,), set(), {"q"}),
        ((Use.PER_HIT,), {"fields"}, {"version"}),
        ((Use.EVERYWHERE,), {"runtime_mappings"}, {"routing"}),
        ((Use.PER_HIT, Use.EVERYWHERE), {"fields", "runtime_mappings"}, {"version", "routing"}),
        ((Use.CONSUMED,), {"query", "from", "size", "aggs", "post_filter"}, {"_source"}),
        ((), set(), set()),
    ],
)
def test_members_and_parameters_are_selected_by_their_use(
    uses: tuple[Use, ...], keys: set[str], names: set[str]
) -> None:
    request = read("q=x&version&routing=r&_source=a", BODY)
    assert (keys, names) == (set(request.body(*uses)), {name for name, _ in request.url(*uses)})


def test_members_keep_the_clients_bytes() -> None:
    body = b'{ "aggs" : {"a": {"terms" : {"field":"b", "x":1.50e1}}} , "size":3}'
    request = parse("", body)
    assert isinstance(request, SearchRequest)
    assert b'{"a": {"terms" : {"field":"b", "x":1.50e1}}}' == bytes(request.members["aggs"])


query_strings = st.text() | st.dictionaries(
    st.sampled_from(sorted(PARAMETERS)) | st.text(max_size=3), st.text(max_size=5) | st.integers().map(str), max_size=4
).map(urlencode)
bodies = st.binary() | strategies.search_bodies.map(lambda body: json.dumps(body).encode())


def judge(query_string: str, body: bytes) -> None:
    match parse(query_string, body):
        case Bypass(reason):
            assert reason in BYPASS_REASONS
        case request:
            assert request.size > 0
            assert request.from_ >= 0


@given(query_strings, bodies)
@example("", b'{"query":{"match":{"a":"\\udc00"}}}')
def test_any_bytes_are_parsed_or_bypassed(query_string: str, body: bytes) -> None:
    judge(query_string, body)


@given(st.binary(), st.integers(0, 60), st.integers(0, 60))
def test_any_corrupted_body_is_parsed_or_bypassed(noise: bytes, start: int, end: int) -> None:
    good = strategies.compact(BODY)
    judge("", good[:start] + noise + good[end:])


@given(strategies.query_trees | strategies.search_bodies)
def test_a_parsed_body_can_be_written_again(body: Any) -> None:
    match parse("", strategies.compact({"query": body, "post_filter": body})):
        case SearchRequest(query=query, post_filter=post_filter):
            assert body == json.loads(msgspec.json.encode(query)) == json.loads(msgspec.json.encode(post_filter))
        case Bypass(reason):
            assert reason == "not_json"


def test_search_after_is_translated_once() -> None:
    first, _ = translated("", strategies.compact({**TIED, "search_after": [tail_value(1.9688725), 7]}))
    assert (first, None) == translated("", first)


@pytest.mark.parametrize(
    ("url", "body", "seconds"),
    [
        ("", {}, None),
        ("", {"timeout": "100ms"}, 0.1),
        ("timeout=100ms", {}, 0.1),
        ("timeout=2s", {"timeout": "100ms"}, 2.0),
        ("timeout=-1", {"timeout": "100ms"}, None),
        ("", {"timeout": "-1"}, None),
        ("", {"timeout": "0"}, 0.0),
        ("", {"timeout": "5S"}, 5.0),
        ("", {"timeout": " 5 m"}, 300.0),
        ("", {"timeout": "500micros"}, 0.0005),
        ("", {"timeout": "1h"}, 3600.0),
        ("", {"timeout": "100"}, None),
        ("", {"timeout": "1.5s"}, None),
        ("", {"timeout": 100}, None),
        ("", {"timeout": {"a": 1}}, None),
        ("", {"timeout": "٣s"}, None),
        ("", {"timeout": "9" * 5000 + "s"}, None),
    ],
)
def test_timeout_is_read_like_the_engine_does(url: str, body: Any, seconds: float | None) -> None:
    request = parse(url, strategies.compact(body))
    assert isinstance(request, SearchRequest)
    found = request.timeout_seconds
    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"min_score": 0.5}, True),
        ({"min_score": "0.01"}, True),
        ({"min_score": 0}, False),
        ({"min_score": 0.0}, False),
        ({"knn": [{"field": "v", "query_vector": [1], "k": 5, "num_candidates": 9}]}, True),
        ({"knn": []}, False),
    ],
)
def test_min_score_0_and_an_empty_knn_list_change_nothing(said: Any, expected: bool) -> None:  # noqa: FBT001
    request = parse("", strategies.compact({"query": {"match": {"title": "rain"}}, **said}))
    assert isinstance(request, SearchRequest)
    assert request.own_ranking is expected


def test_a_body_with_too_many_values_to_find_its_members_keeps_its_source() -> None:
    """Names that occur twice need the standard library; the engine rejects them anyway."""
    body = b'{"_source":true,"_source":["*"],"x":[' + b"[]," * BODY_CLAUSES + b"[]]}"
    assert (body, ()) == excluding(body, (), ("vector",))
    assert b'"excludes"' in excluding(body.replace(b'"_source":true,', b""), (), ("vector",))[0]


LARGE = b'{"query":[' + b"[[[]]]," * 300_000 + b'0],"search_after":[1.2345678901234567,"a"],"sort":["_score","id"]}'
STEPS: Mapping[str, Callable[[bytes], object]] = {
    "parse": lambda body: parse("", body),
    "translated": lambda body: translated("", body),
    "excluding": lambda body: excluding(body, (), ("vector",)),
}


@pytest.mark.parametrize("name", STEPS)
def test_unreadable_bodies_are_rejected_quickly(name: str) -> None:
    """Including the garbage collections that decoding causes."""
    times = []
    for _ in range(3):
        began = time.thread_time()
        STEPS[name](LARGE)
        times.append(time.thread_time() - began)
    assert min(times) < TIMES_JSON * json_seconds(len(LARGE))
