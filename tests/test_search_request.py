"""A search is read as far as it is understood, or bypassed for a reason in the table."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.bounds import BODY_CLAUSES, PARAMETERS_BYTES
from proxy.bypass import BYPASS_REASONS, Bypass
from proxy.request.filter_path import Form
from proxy.request.search_keys import BODY_KEYS, PARAMETERS, Use
from proxy.request.search_request import SearchRequest, parse
from proxy.request.source_filter import Place, SourceFilter
from tests import strategies


def read(query_string: str = "", body: Any = None) -> SearchRequest:
    raw = b"" if body is None else strategies.compact(body)
    request = parse(query_string, raw)
    assert isinstance(request, SearchRequest), request
    return request


def test_nothing_asked_is_a_search_with_defaults() -> None:
    expected = SearchRequest(
        content=b"{}",
        members={},
        parameters=(),
        query=None,
        post_filter=None,
        from_=0,
        size=10,
        source=SourceFilter(),
        track_total_hits=10_000,
        form=Form(),
        collapse=None,
        text=None,
        pipeline=None,
        own_ranking=False,
    )
    assert expected == parse("", b"") == parse("", b" \n")


REFUSED_BODIES = [reason_of for reason_of in BODY_KEYS.items() if isinstance(reason_of[1], str)]
REFUSED_PARAMETERS = [reason_of for reason_of in PARAMETERS.items() if isinstance(reason_of[1], str)]


@pytest.mark.parametrize(("key", "reason"), REFUSED_BODIES)
def test_each_key_of_the_body_that_is_not_touched_has_its_reason(key: str, reason: str) -> None:
    assert Bypass(reason) == parse("", strategies.compact({key: 1}))


@pytest.mark.parametrize(("name", "reason"), REFUSED_PARAMETERS)
def test_each_parameter_that_is_not_touched_has_its_reason(name: str, reason: str) -> None:
    assert Bypass(reason) == parse(f"{name}=1", b"")


@pytest.mark.parametrize("table", [BODY_KEYS, PARAMETERS])
def test_every_reason_in_the_tables_is_explained(table: Mapping[str, Use | str]) -> None:
    assert {use for use in table.values() if isinstance(use, str)} <= BYPASS_REASONS.keys()


@pytest.mark.parametrize(
    ("query_string", "body", "reason"),
    [
        ("", b"{", "not_json"),
        ("", b"{} x", "not_json"),
        ("", b"[]", "not_json"),
        ("", b"7", "not_json"),
        ("", b'{"size":1,"size":2}', "not_json"),
        ("", b'{"query":{"term":{"a":1,"a":2}}}', "not_json"),
        ("", b'{"query":{"term":{"a":NaN}}}', "not_json"),
        ("", b'{"query":{"term":{"a":1e400}}}', "not_json"),
        ("", b'{"query":{"term":{"a":"\\ud800"}}}', "not_json"),
        ("", b"\xff{}", "not_json"),
        ("", b"\xef\xbb\xbf{}", "not_json"),
        ("", b'{"query":' + b"[" * 5000, "too_complex"),
        ("", b'{"query":' + b"[" * BODY_CLAUSES + b"]" * BODY_CLAUSES + b"}", "too_complex"),
        ("", b'{"aggs":[%s]}' % b",".join([b"{}"] * BODY_CLAUSES), "too_complex"),
        ("filter_path=" + ".".join(["a"] * 201), b"", "too_complex"),
        ("q=" + "a" * PARAMETERS_BYTES, b"", "too_complex"),
        ("filter_path=" + ",-".join(["a*"] * 9), b"", "too_complex"),
        ("_source_excludes=" + ",".join(["a*"] * 101), b"", "too_complex"),
        ("", strategies.compact({"_source": ["*a"] * 101}), "too_complex"),
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
        ("", b'{"collapse":{"field":"a","inner_hits":[{"name":"x"},{"name":"y"}]}}', "collapse"),
        ("", b'{"collapse":{"field":"a","inner_hits":{"collapse":{"field":"b"}}}}', "collapse"),
        ("", b'{"ext":{"rerank":{"query_context":{"query_text":"x"}},"other":{}}}', "ext"),
        ("source={}", b"", "format"),
        ("source={}&source_content_type=application/yaml", b"", "format"),
        ("source={}&source_content_type=application/json", b"{}", "unknown_parameter"),
        ("source_content_type=application/json", b"{}", "unknown_parameter"),
        ("", b'{"collapse":["a"]}', "collapse"),
        ("", b'{"zzz":1}', "unknown_key"),
        ("", b'{"_source":7}', "unknown_key"),
        ("", b'{"_source":{"exclude_vectors":null}}', "unknown_key"),
        ("", b'{"size":0}', "size_zero"),
        ("size=0", b'{"size":5}', "size_zero"),
        ("", b'{"size":-1}', "not_json"),
        ("", b'{"size":true}', "not_json"),
        ("", b'{"size":"5"}', "not_json"),
        ("", b'{"size":5.0}', "not_json"),
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
        ("", b'{"sort":["_score","price"]}', "cursor"),
        ("sort=_score,price", b"", "cursor"),
        ("", b'{"sort":{"_score":"asc"}}', "sort"),
        ("sort=price", b"", "sort"),
        ("sort=_score:asc", b"", "sort"),
        ("", b'{"stored_fields":"_none_"}', "stored_fields"),
        ("", b'{"stored_fields":["a","_source"]}', "stored_fields"),
        ("stored_fields=a,_none_", b"", "stored_fields"),
        ("zzz", b"", "unknown_parameter"),
        ("zzz=1", b"", "unknown_parameter"),
        ("size=1&size=2", b"", "unknown_parameter"),
        ("q=%FF", b"", "unknown_parameter"),
        ("q=a;size=3", b"", "unknown_parameter"),
    ],
)
def test_what_is_not_understood_or_too_much_is_bypassed(query_string: str, body: bytes, reason: str) -> None:
    assert Bypass(reason) == parse(query_string, body)


def test_as_many_clauses_and_names_as_are_allowed_are_read() -> None:
    aggregations = b'{"_source":%s,"aggs":[%s]}' % (
        strategies.compact([f"{number}" for number in range(200_000)]),
        b",".join([b"{}"] * (BODY_CLAUSES - 3)),
    )
    assert isinstance(parse("filter_path=" + ".".join(["a"] * 200), aggregations), SearchRequest)


@pytest.mark.parametrize("sort", ["_score", ["_score"], [], {"_score": "desc"}, [{"_score": {"order": "desc"}}]])
@pytest.mark.parametrize("in_url", ["_score:desc", "_score", ""])  # an empty one is taken for none, seen on 8.19.13
def test_a_sort_that_says_no_more_than_the_default_is_none(sort: Any, in_url: str) -> None:
    assert sort == msgspec.json.decode(read(f"sort={in_url}", {"sort": sort}).members["sort"])


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
def test_the_page_is_the_urls_before_the_bodys(query_string: str, body: Any, from_: int, size: int) -> None:
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
def test_the_query_that_counts_is_the_urls_before_the_bodys(query_string: str, body: Any, expected: Any) -> None:
    assert expected == read(query_string, body).query


@pytest.mark.parametrize(
    ("query_string", "body", "expected"),
    [
        ("", {"_source": ["a"]}, SourceFilter(includes=("a",))),
        ("_source=false", {"_source": ["a"]}, SourceFilter(enabled=False)),
        ("_source_includes=b", {"_source": ["a"]}, SourceFilter(includes=("b",))),
        ("", {"stored_fields": ["a"]}, SourceFilter(enabled=False, place=Place.NOWHERE)),
        ("", {"stored_fields": "a"}, SourceFilter(enabled=False, place=Place.NOWHERE)),
        ("stored_fields=a", None, SourceFilter(enabled=False, place=Place.NOWHERE)),
        ("", {"script_fields": {"a": {"script": "1"}}}, SourceFilter(enabled=False, place=Place.NOWHERE)),
        ("", {"script_fields": {}}, SourceFilter()),
        ("", {"stored_fields": ["a"], "_source": True}, SourceFilter()),
        ("_source=true", {"stored_fields": ["a"]}, SourceFilter()),
        ("_source_excludes=", {"stored_fields": ["a"]}, SourceFilter()),  # seen on 8.19.13
        ("_source_excludes=b", {"stored_fields": ["a"]}, SourceFilter(excludes=("b",))),
    ],
)
def test_source_is_shown_unless_other_fields_are_asked_for(
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
def test_how_far_hits_are_counted(query_string: str, body: Any, expected: bool | int) -> None:  # noqa: FBT001
    found = read(query_string, body).track_total_hits
    assert (expected, type(expected)) == (found, type(found))


@pytest.mark.parametrize(
    ("query_string", "expected"), [("", False), ("pretty", True), ("pretty=true", True), ("pretty=false", False)]
)
def test_pretty_is_said_in_the_url(query_string: str, expected: bool) -> None:  # noqa: FBT001
    assert expected is read(query_string).form.pretty


@pytest.mark.parametrize(
    "said", ["pretty", "filter_path=took", "pretty=false&filter_path=took", "filter_path=-a&pretty"]
)
def test_documents_that_the_engine_writes_anew_under_a_form_it_is_asked_to_write_anew(said: str) -> None:
    """Under `filter_path` as under `pretty`; how the whole is written is settled here."""
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
        ((Use.LEXICAL,), {"aggs"}, {"q"}),
        ((Use.PER_HIT,), {"fields"}, {"version"}),
        ((Use.EVERYWHERE,), {"runtime_mappings"}, {"routing"}),
        ((Use.PER_HIT, Use.EVERYWHERE), {"fields", "runtime_mappings"}, {"version", "routing"}),
        ((Use.CONSUMED,), {"query", "from", "size", "post_filter"}, {"_source"}),
        ((), set(), set()),
    ],
)
def test_members_and_parameters_are_told_by_their_use(uses: tuple[Use, ...], keys: set[str], names: set[str]) -> None:
    request = read("q=x&version&routing=r&_source=a", BODY)
    assert (keys, names) == (set(request.body(*uses)), {name for name, _ in request.url(*uses)})


def test_a_members_bytes_are_the_clients() -> None:
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
def test_no_bytes_are_too_odd_to_be_read_or_bypassed(query_string: str, body: bytes) -> None:
    judge(query_string, body)


@given(st.binary(), st.integers(0, 60), st.integers(0, 60))
def test_no_damage_to_a_good_body_is_too_odd(noise: bytes, start: int, end: int) -> None:
    good = strategies.compact(BODY)
    judge("", good[:start] + noise + good[end:])


@given(strategies.query_trees | strategies.search_bodies)
def test_a_body_that_is_read_can_be_written_again(body: Any) -> None:
    match parse("", strategies.compact({"query": body, "post_filter": body})):
        case SearchRequest(query=query, post_filter=post_filter):
            assert body == json.loads(msgspec.json.encode(query)) == json.loads(msgspec.json.encode(post_filter))
        case Bypass(reason):
            assert reason == "not_json"
