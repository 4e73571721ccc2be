"""`filter_path`: what a client sees of an answer, and that the rest keeps its bytes."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.bounds import FILTER_PATH_DEPTH, FILTER_PATH_PARTS, FILTER_PATH_PATTERNS
from proxy.errors import TooComplex
from proxy.parsing.filter_path import FilterPath, Form, Path, read_filter_path, read_form
from proxy.parsing.wildcards import matches
from tests import strategies

ANSWER: Any = {
    "took": 7,
    "hits": {
        "total": {"value": 2},
        "hits": [
            {"_id": "1", "_source": {"title": "a", "a.b": 1, "tags": [], "more": {}}},
            {"_id": "2", "_source": {"title": "b"}},
            {"_id": "3"},
        ],
    },
    "aggregations": {"brand": {"buckets": [{"key": "x", "doc_count": 1}]}},
}
LESS = {"hits": {"total": {"value": 2}}, "aggregations": {"brand": {"buckets": [{"doc_count": 1}]}}}

Pairs = tuple[tuple[str, str], ...]


def _hits(*hits: Any) -> Any:
    return {"hits": {"hits": list(hits)}}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", ANSWER),
        (",", ANSWER),
        ("took", {"took": 7}),
        (" took , ", {"took": 7}),
        ("t*k", {"took": 7}),
        ("hits.hits._id", _hits({"_id": "1"}, {"_id": "2"}, {"_id": "3"})),
        ("hits.hits._source.title", _hits({"_source": {"title": "a"}}, {"_source": {"title": "b"}})),
        ("*.*._id", _hits({"_id": "1"}, {"_id": "2"}, {"_id": "3"})),
        ("**.title", _hits({"_source": {"title": "a"}}, {"_source": {"title": "b"}})),
        ("**.key,took", {"took": 7, "aggregations": {"brand": {"buckets": [{"key": "x"}]}}}),
        ("hits.total", {"hits": {"total": {"value": 2}}}),
        ("hits.hits._source.tags", _hits({"_source": {"tags": []}})),
        (r"hits.hits._source.a\.b", _hits({"_source": {"a.b": 1}})),
        ("nothing", {}),
        ("hits.hits.nothing", {}),
        ("hits.nothing.*", {}),
        ("took.deeper", {}),
        ("**", ANSWER),
        ("*", ANSWER),
        ("-hits,-aggregations", {"took": 7}),
        ("-hits.hits,-aggregations.brand.buckets.key,-took", LESS),
        ("hits.hits,-**._source", _hits({"_id": "1"}, {"_id": "2"}, {"_id": "3"})),
        ("took,-took", {}),
        ("**.took", {}),
        ("-**.took", ANSWER),
        ("**.hits", {"hits": {"hits": ANSWER["hits"]["hits"]}}),
        ("hits.**.hits", {}),
        ("-**.**", {"took": 7}),
        ("-**", {}),
    ],
)
def test_only_selected_members_remain(said: str, expected: Any) -> None:
    assert strategies.compact(expected) == read_filter_path(said).apply(strategies.compact(ANSWER))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("a", FilterPath((("a",),))),
        ("a.b,-c.*", FilterPath((("a", "b"),), (("c", "*"),))),
        (r"a\.b.c", FilterPath((("a.b", "c"),))),
    ],
)
def test_paths_are_split_at_dots_and_commas(said: str, expected: FilterPath) -> None:
    assert expected == read_filter_path(said)


def test_values_keep_their_bytes() -> None:
    answer = b'{"a":{"b":1e5,"c":0.1000,"d":"\\u00e4"},"x":1}'
    assert b'{"a":{"b":1e5,"c":0.1000,"d":"\\u00e4"}}' == read_filter_path("a").apply(answer)
    assert b'{"a":{"b":1e5}}' == read_filter_path("a.b").apply(answer)


@pytest.mark.parametrize(
    ("said", "pretty", "expected"),
    [
        ("", False, b'{"a":{"b":1},"c":2}'),
        ("a", False, b'{"a":{"b":1}}'),
        ("a", True, b'{\n  "a" : {\n    "b" : 1\n  }\n}\n'),
        ("x", True, b"{ }\n"),
    ],
)
def test_the_rest_is_written_in_the_requested_format(said: str, pretty: bool, expected: bytes) -> None:  # noqa: FBT001
    form = Form(read_filter_path(said), pretty)
    assert expected == form.write(b'{"a":{"b":1},"c":2}', keeps_empty=True)


def test_only_a_response_with_paths_loses_its_white_space() -> None:
    answer = b'{"a":{"b": 1e5, "c" :"x y"}}'
    written = [read_form([("filter_path", said)]).write(answer, keeps_empty=True) for said in ("", ",", "a", "-x")]
    assert [answer, answer, b'{"a":{"b":1e5,"c":"x y"}}', b'{"a":{"b":1e5,"c":"x y"}}'] == written


@pytest.mark.parametrize(
    ("filter_path", "pretty", "said", "written"),
    [
        ("took", "false", b'{"error":{"type":"a"},"status":400}', b'{"error":{"type":"a"},"status":400}'),
        ("took", "false", b'{\n  "error" : "a",\n  "status" : 400\n}\n', b'{"error":"a","status":400}'),
        ("-error", "true", b'{"error":"a","status":400}', b'{\n  "error" : "a",\n  "status" : 400\n}\n'),
        ("error", "false", b'{"id":"x","error":{"type":"a"}}', b'{"error":{"type":"a"}}'),
        ("", "false", b'{"error": "a"}', b'{"error": "a"}'),
    ],
)
def test_the_exception_of_an_error_response_is_not_filtered(
    filter_path: str, pretty: str, said: bytes, written: bytes
) -> None:
    form = read_form([("filter_path", filter_path), ("pretty", pretty)])
    assert written == form.write_refusal(said, keeps_empty=True)


@pytest.mark.parametrize(
    ("said", "kept", "dropped"),
    [
        ("-**.x", b'{"a":[],"b":{"c":{},"d":1}}', b'{"b":{"d":1}}'),
        ("-a.x", b'{"a":[],"b":{"c":{},"d":1}}', b'{"b":{"c":{},"d":1}}'),
        ("-b.d", b'{"a":[],"b":{"c":{}}}', b'{"a":[],"b":{"c":{}}}'),
        ("a,b.c", b'{"a":[],"b":{"c":{}}}', b'{"a":[],"b":{"c":{}}}'),
    ],
)
def test_empty_objects_under_excludes_are_kept_or_dropped_like_the_engine(
    said: str, kept: bytes, dropped: bytes
) -> None:
    """Elasticsearch keeps them, OpenSearch drops them."""
    path, answer = read_filter_path(said), b'{"a":[],"b":{"c":{},"d":1}}'
    assert (kept, dropped) == (path.apply(answer), path.apply(answer, keeps_empty=False))


paths = st.lists(
    st.lists(st.sampled_from(["hits", "_id", "t*", "*", "**", "_source", "title", "took"]), min_size=1, max_size=4)
    .map(".".join)
    .flatmap(lambda path: st.sampled_from([path, f"-{path}"])),
    max_size=3,
).map(",".join)


@given(strategies.answers(), paths)
def test_filtering_twice_changes_nothing(answer: Any, said: str) -> None:
    path = read_filter_path(said)
    once = path.apply(strategies.compact(answer))
    assert once == path.apply(once)


@given(strategies.answers(), st.text())
def test_any_path_is_applied_without_an_error(answer: Any, said: str) -> None:
    assert read_filter_path(said).apply(strategies.compact(answer)).startswith(b"{")


def _ends(paths: Sequence[Path], names: Sequence[str]) -> bool:
    """Whether one of the paths is that of these names: the definition, one way after the other."""
    return any(_leads(path, names) for path in paths)


def _leads(path: Path, names: Sequence[str]) -> bool:
    if not path or not names:
        return not path and not names
    if path[0] == "**":
        return _leads(path[1:], names[1:]) or _leads(path, names[1:])
    return matches(path[0], names[0]) and _leads(path[1:], names[1:])


def _pruned(value: Any, names: Sequence[str], keeps: Callable[[Sequence[str]], bool]) -> Any:
    """Keep the plain values, and what is empty by itself, of whose names one says so; None where that is nothing."""
    if isinstance(value, dict) and value:
        kept = {name: _pruned(member, (*names, name), keeps) for name, member in value.items()}
        return {name: member for name, member in kept.items() if member is not None} or None
    if isinstance(value, list) and value:
        items = [item for item in (_pruned(item, names, keeps) for item in value) if item is not None]
        return items or None
    return value if keeps(names) else None


nested = st.recursive(
    st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "ab"]), inner, max_size=3),
    max_leaves=12,
)
wild = st.lists(st.sampled_from(["a", "b", "a*", "*b", "*", "**"]), min_size=1, max_size=5).map(tuple)


@given(st.dictionaries(st.sampled_from(["a", "b", "ab"]), nested, max_size=3), st.lists(wild, min_size=1, max_size=3))
def test_several_paths_select_the_union(answer: Any, paths: Sequence[Path]) -> None:
    def on_a_path(names: Sequence[str]) -> bool:
        return any(_ends(paths, names[:count]) for count in range(1, len(names) + 1))

    written = strategies.compact(answer)
    included = _pruned(answer, (), on_a_path)
    excluded = _pruned(answer, (), lambda names: not on_a_path(names))
    assert (included or {}) == json.loads(FilterPath(tuple(paths)).apply(written))
    assert (excluded or {}) == json.loads(FilterPath((), tuple(paths)).apply(written))


def test_overlapping_wildcards_take_linear_time() -> None:
    """Backtracking over each `**` would try all choices of 30 out of 60 names."""
    answer = b'{"a":' * 60 + b"1" + b"}" * 60
    assert answer == read_filter_path(".".join(["**"] * 30)).apply(answer)
    assert b"{}" == read_filter_path("-" + ".".join(["**"] * 30)).apply(answer)


@pytest.mark.parametrize(
    "said",
    [
        ".".join(["a"] * (FILTER_PATH_PARTS + 1)),
        ",".join(["-a"] * (FILTER_PATH_PARTS + 1)),
        ",".join(f"a{number}*" for number in range(FILTER_PATH_PATTERNS + 1)),
        "**" + ".a" * (FILTER_PATH_DEPTH + 1),
        ",".join(f"**.{name}{'.*' * 20}.z" for name in "ab"),
    ],
)
def test_a_filter_above_the_work_limit_is_not_applied(said: str) -> None:
    deep = (
        json.dumps(_both(10)).encode()
        if "z" in said
        else b'{"a":' * (FILTER_PATH_DEPTH + 2) + b"1" + b"}" * (FILTER_PATH_DEPTH + 2)
    )
    with pytest.raises(TooComplex):
        Form(read_filter_path(said)).write(deep, keeps_empty=True)


def _both(depth: int) -> Any:
    return {"a": _both(depth - 1), "b": _both(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ((), ()),
        ((("pretty", "false"),), ()),
        ((("pretty", ""),), (("pretty", ""),)),
        ((("pretty", "yes"),), (("pretty", "yes"),)),
        ((("filter_path", "took"),), (("pretty", "true"),)),
        ((("filter_path", "took"), ("pretty", "false")), (("pretty", "true"),)),
        ((("filter_path", "took"), ("pretty", "yes"), ("q", "a")), (("q", "a"), ("pretty", "yes"))),
    ],
)
def test_the_engine_gets_no_filter_path_and_validates_pretty(said: Pairs, asked: Pairs) -> None:
    assert asked == read_form(said).asked(said)
