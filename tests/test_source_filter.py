"""What of `_source` is shown, as body and URL say it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.parsing.source_filter import PathPlace, SourceFilter, read_source, source_of_url
from tests import strategies

ALL, NONE = SourceFilter(), SourceFilter(enabled=False)
OLD_NAMES = SourceFilter(includes=("a",), excludes=("b",), names=("include", "exclude"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, ALL),
        (False, NONE),
        ("a.*", SourceFilter(includes=("a.*",))),
        (["a", "b"], SourceFilter(includes=("a", "b"))),
        ([], ALL),
        ({"includes": ["a"], "excludes": "b"}, SourceFilter(includes=("a",), excludes=("b",))),
        ({"include": "a", "exclude": ["b"]}, OLD_NAMES),
        ({"exclude": "b"}, SourceFilter(excludes=("b",), names=("includes", "exclude"))),
        ({}, ALL),
        ({"includes": "a", "include": "b"}, None),
        ({"exclude_vectors": True}, SourceFilter(exclude_vectors=True)),
        ({"includes": "a", "exclude_vectors": False}, SourceFilter(includes=("a",), exclude_vectors=False)),
        ({"exclude_vectors": "true"}, None),
        ({"exclude_vectors": None}, None),
        ({"includes": {"a": 1}}, None),
        ({"includes": [1]}, None),
        (["a", 1], None),
        (7, None),
        (None, None),
    ],
)
def test_all_forms_of_source_in_the_body_are_read(value: Any, expected: SourceFilter | None) -> None:
    assert expected == read_source(value)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, None),
        ({"size": "3"}, None),
        ({"_source": "true"}, ALL),
        ({"_source": "false"}, NONE),
        ({"_source": ""}, ALL),
        ({"_source": "a,b"}, SourceFilter(includes=("a", "b"))),
        ({"_source_includes": "a,,b"}, SourceFilter(includes=("a", "b"))),
        ({"_source_excludes": "a"}, SourceFilter(excludes=("a",))),
        ({"_source": "a", "_source_includes": "b"}, SourceFilter(includes=("b",))),  # seen on 8.19.13
        ({"_source": "a", "_source_excludes": "b"}, SourceFilter(includes=("a",), excludes=("b",))),
        ({"_source": "false", "_source_includes": "a"}, SourceFilter(enabled=False, includes=("a",))),
        ({"_source_exclude_vectors": ""}, None),
        ({"_source_exclude_vectors": "true"}, SourceFilter(exclude_vectors=True, place=PathPlace.URL)),
        ({"_source_exclude_vectors": "x"}, SourceFilter(place=PathPlace.URL)),
        (
            {"_source_exclude_vectors": "false", "_source": "a"},
            SourceFilter(includes=("a",), exclude_vectors=False, place=PathPlace.URL),
        ),
    ],
)
def test_all_forms_of_source_in_the_url_are_read(params: dict[str, str], expected: SourceFilter | None) -> None:
    assert expected == source_of_url(params)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (SourceFilter(includes=("a",)), ()),
        (SourceFilter(place=PathPlace.URL), ()),
        (SourceFilter(enabled=False, place=PathPlace.URL), (("_source", "false"),)),
        (
            SourceFilter(includes=("a", "b"), excludes=("c",), place=PathPlace.URL),
            (("_source_includes", "a,b"), ("_source_excludes", "c")),
        ),
    ],
)
def test_the_filter_stays_in_the_url_next_to_url_only_parameters(
    source: SourceFilter, expected: tuple[tuple[str, str], ...]
) -> None:
    assert expected == source.parameters()


@pytest.mark.parametrize(
    ("source", "paths", "expected"),
    [
        (ALL, ["title", "body"], True),
        (NONE, ["title"], False),
        (NONE, [], False),
        (SourceFilter(includes=("title",)), ["title"], True),
        (SourceFilter(includes=("title",)), ["title", "body"], False),
        (SourceFilter(includes=("brand",)), ["brand.name"], True),
        (SourceFilter(includes=("brand.name",)), ["brand"], False),
        (SourceFilter(includes=("bra*",)), ["brand.name"], True),
        (SourceFilter(includes=("*.name",)), ["brand.name"], True),
        (SourceFilter(includes=("titles",)), ["title"], False),
        (SourceFilter(excludes=("title",)), ["title"], False),
        (SourceFilter(excludes=("brand",)), ["brand.name"], False),
        (SourceFilter(excludes=("brand.name",)), ["brand"], False),
        (SourceFilter(excludes=("brand.*",)), ["brand"], False),
        (SourceFilter(excludes=("*.name",)), ["brand"], False),
        (SourceFilter(excludes=("brands",)), ["brand"], True),
        (SourceFilter(excludes=("br*x",)), ["title"], True),
        (SourceFilter(includes=("title",), excludes=("t*",)), ["title"], False),
    ],
)
def test_paths_are_shown_whole_or_not(source: SourceFilter, paths: list[str], expected: bool) -> None:  # noqa: FBT001
    assert expected is source.shows(paths)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (ALL, SourceFilter(excludes=("v", "v_hash"))),
        (NONE, NONE),
        (SourceFilter(includes=("v",)), SourceFilter(includes=("v",), excludes=("v_hash",))),
        (SourceFilter(excludes=("v", "x")), SourceFilter(excludes=("v", "x", "v_hash"))),
        (SourceFilter(includes=("*",)), SourceFilter(includes=("*",), excludes=("v", "v_hash"))),
        (SourceFilter(includes=("v_*",)), SourceFilter(includes=("v_*",), excludes=("v",))),
        (SourceFilter(includes=("v*",)), SourceFilter(includes=("v*",))),
        (SourceFilter(exclude_vectors=False), SourceFilter(exclude_vectors=False)),
        (SourceFilter(exclude_vectors=True), SourceFilter(excludes=("v", "v_hash"), exclude_vectors=True)),
    ],
)
def test_the_proxys_own_fields_are_excluded_unless_requested(source: SourceFilter, expected: SourceFilter) -> None:
    assert expected == source.without(["v", "v_hash"])


paths = st.lists(st.text("ab.*", min_size=1, max_size=4), max_size=3).map(tuple)
filters = st.just(NONE) | st.builds(SourceFilter, st.just(value=True), paths, paths, st.none() | st.booleans())


def test_the_names_of_the_lists_are_the_clients() -> None:
    """The engine accepts the old names, with a warning."""
    source = read_source({"exclude": "x"})
    assert source is not None
    assert {"exclude": ["x", "v"]} == source.without(["v"]).render()


@given(filters)
def test_a_rendered_filter_is_read_as_the_same(source: SourceFilter) -> None:
    assert source == read_source(source.render())


@given(strategies.json_values)
def test_any_value_is_read_without_an_error(value: Any) -> None:
    assert isinstance(read_source(value), SourceFilter | None)


LEAVES = frozenset({"a.b", "a.x"})


def remaining(source: SourceFilter) -> set[str]:
    """Which leaves the engine leaves, tried out one by one on names without a wildcard."""
    included = {leaf for leaf in LEAVES if not source.includes or any(under(leaf, name) for name in source.includes)}
    return {leaf for leaf in included if not any(under(leaf, name) for name in source.excludes)}


def under(leaf: str, name: str) -> bool:
    return leaf == name or leaf.startswith(f"{name}.")


names = st.lists(st.sampled_from(["a", "a.b", "a.x", "c", "a.bx"]), max_size=3).map(tuple)


@given(st.builds(SourceFilter, st.just(value=True), names, names))
def test_shown_paths_are_returned_completely(source: SourceFilter) -> None:
    if source.shows(["a"]):
        assert remaining(source) == LEAVES
