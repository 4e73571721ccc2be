"""Names, patterns and aliases against routes, and what mappings say."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.indices import (
    Covered,
    IndexFacts,
    Mixed,
    Resolved,
    Unrouted,
    VectorField,
    alias_filter,
    cover,
    flatten,
    is_plain,
    may_concern,
    read_facts,
    read_field_caps,
    read_resolution,
    requested_names,
    route_of,
)
from proxy.settings.config import RouteSettings
from proxy.settings.routes import Route, build_route


def route(*patterns: str) -> Route:
    return build_route(RouteSettings(index=list(patterns)))


PRODUCTS, BOOKS, ALL, SHOP, SYSTEM = (
    route("products*"),
    route("books", "papers"),
    route("*"),
    route("shop"),
    route(".own*"),
)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", ()),
        ("a", ("a",)),
        ("a,b*,-bc", ("a", "b*", "-bc")),
        ("a%2Cb", ("a", "b")),
        ("%3Clogs-%7Bnow%2Fd%7D%3E", ("<logs-{now/d}>",)),
        (",a,,", ("a",)),
    ],
)
def test_a_path_segment_is_split_into_names(expression: str, expected: tuple[str, ...]) -> None:
    assert expected == requested_names(expression)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a"], True),
        (["a-b_all"], True),
        ([], False),
        (["a", "b"], False),
        (["a*"], False),
        (["-a"], False),
        (["<logs-{now/d}>"], False),
        (["other:a"], False),
        (["_all"], False),
    ],
)
def test_a_plain_name_has_no_pattern(names: Sequence[str], expected: bool) -> None:  # noqa: FBT001
    assert expected is is_plain(names)


def test_resolved_names_include_the_indices_of_aliases_and_streams() -> None:
    answer = {
        "indices": [{"name": "b", "attributes": ["open"]}, {"name": "a"}],
        "aliases": [{"name": "shop", "indices": ["a", "c"]}],
        "data_streams": [{"name": "logs", "backing_indices": ".ds-logs-1"}],
    }
    expected = (Resolved(".ds-logs-1", "logs"), Resolved("a"), Resolved("a", "shop"), Resolved("b"))
    assert (*expected, Resolved("c", "shop")) == read_resolution(answer)
    assert () == read_resolution({})


def test_a_stream_has_several_backing_indices() -> None:
    answer = {"data_streams": [{"name": "logs", "backing_indices": [".ds-1", ".ds-2"]}]}
    assert (Resolved(".ds-1", "logs"), Resolved(".ds-2", "logs")) == read_resolution(answer)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (Resolved("products"), PRODUCTS),
        (Resolved("products-2024"), PRODUCTS),
        (Resolved("my-products"), ALL),
        (Resolved("papers"), BOOKS),
        (Resolved("papers2"), ALL),
        (Resolved(".hidden"), None),
        (Resolved(".own-1"), SYSTEM),
        (Resolved(".ds-1", "books"), BOOKS),
        (Resolved(".ds-1", "products-alias"), None),  # a wildcard does not cover an alias's name
        (Resolved("products\n"), PRODUCTS),
    ],
)
def test_the_first_matching_route_covers_an_index(entry: Resolved, expected: Route | None) -> None:
    assert expected == route_of([PRODUCTS, BOOKS, SYSTEM, ALL], entry)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*", "eu:products", False),
        ("*products", "eu:products", False),
        ("products*", "products::failures", False),
        ("eu*", "eu:products", False),
        ("eu:products", "eu:products", True),
        ("eu:*", "eu:products", True),
        ("*:products", "eu:products", True),
        ("eu:*", "us:products", False),
        ("eu:*", "products", False),
        ("*:*", "products", False),
    ],
)
def test_a_remote_name_needs_a_pattern_with_a_colon(pattern: str, name: str, expected: bool) -> None:  # noqa: FBT001
    """Otherwise texts of another cluster would be sent to the model."""
    found = route_of([route(pattern)], Resolved(name)), may_concern([route(pattern)], [name])
    assert (expected, expected) == (found[0] is not None, found[1])


def test_indices_of_a_remote_alias_are_remote() -> None:
    """In `_resolve/index/eu:*` of Elasticsearch 8.19.13, only the alias's own name contains the cluster."""
    answer = {
        "indices": [{"name": "eu:products"}],
        "aliases": [{"name": "eu:shop", "indices": ["products"]}],
        "data_streams": [{"name": "eu:logs", "backing_indices": [".ds-logs-1"]}],
    }
    expected = {Resolved("eu:products"), Resolved("eu:products", "eu:shop"), Resolved("eu:.ds-logs-1", "eu:logs")}
    assert expected == set(read_resolution(answer))
    assert isinstance(cover([PRODUCTS, ALL], read_resolution(answer)), Unrouted)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["products"], Covered),
        (["products::failures"], Mixed),
        (["products::data"], Mixed),
        (["products", "logs::failures"], Mixed),
    ],
)
def test_a_selector_is_covered_only_by_a_pattern_with_it(names: list[str], expected: type) -> None:
    """Elasticsearch 8.19.13 resolves `products::data` to `products`."""
    assert expected is type(cover([PRODUCTS], [Resolved("products")], names))
    spelled_out = [route("products", *names)]
    assert Covered is type(cover(spelled_out, [Resolved("products")], names))


@pytest.mark.parametrize("pattern", ["a.c", "a?c", "a[b]c", "a+"])
def test_only_the_star_is_special_in_a_pattern(pattern: str) -> None:
    assert route_of([route(pattern)], Resolved("abc")) is None
    assert route_of([route(pattern)], Resolved(pattern)) is not None


@pytest.mark.parametrize(
    ("resolved", "expected"),
    [
        ([], Unrouted),
        ([Resolved("other")], Unrouted),
        ([Resolved("products"), Resolved("other")], Mixed),
        ([Resolved("products"), Resolved("books")], Mixed),
        ([Resolved("x", "shop"), Resolved("y", "shop")], Covered),
        ([Resolved("x"), Resolved("x", "shop")], Covered),
        ([Resolved("x", "shop"), Resolved("x", "elsewhere")], Covered),
        ([Resolved("products", "elsewhere"), Resolved("products-2")], Covered),
    ],
)
def test_a_search_is_covered_only_if_one_route_has_all_indices(resolved: list[Resolved], expected: type) -> None:
    assert expected is type(cover([PRODUCTS, BOOKS, SHOP], resolved))


@given(st.lists(st.builds(Resolved, st.sampled_from(["products-1", "books", "x"]), st.sampled_from(["", "shop"]))))
def test_all_covered_indices_are_in_one_route(resolved: list[Resolved]) -> None:
    match cover([PRODUCTS, BOOKS, SHOP], resolved):
        case Covered(found, reached) as covered:
            assert tuple(resolved) == reached
            assert {entry.index for entry in resolved} == covered.indices
            assert all(any(route_of([found], e) for e in resolved if e.index == index) for index in covered.indices)
        case Unrouted():
            assert not any(route_of([PRODUCTS, BOOKS, SHOP], entry) for entry in resolved)
        case Mixed():
            assert len({entry.index for entry in resolved}) > 1


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["other", "products"], True),
        (["other"], False),
        (["products*"], True),
        (["product*"], True),
        (["*-2026"], True),
        (["p*s*x*"], True),
        (["*"], True),
        (["_all"], True),
        ([], True),
        (["prod*-x", "logs*"], True),
        (["books*"], False),
        (["books*", "-products"], False),
        ([".products*"], False),
        (["<products-{now/d}>"], True),
        (["<logs-{now/d{yyyy.MM}}>"], False),
        (["<products-{now/d{yyyy.MM.dd|+12:00}}>"], True),
        (["elsewhere:products", "*:products*"], False),
        (["*:products*", "product*"], True),
    ],
)
def test_whether_a_name_may_concern_a_route_is_known_before_resolving(names: list[str], expected: bool) -> None:  # noqa: FBT001
    assert expected is may_concern([PRODUCTS], names)


MAPPING: dict[str, Any] = {
    "title": {"type": "text", "fields": {"raw": {"type": "keyword"}}},
    "brand": {"properties": {"name": {"type": "keyword"}}},
    "reviews": {"type": "nested", "properties": {"text": {"type": "text"}}},
}


def test_a_mapping_is_flattened_to_leaves_and_multi_fields() -> None:
    expected = {"title": "text", "title.raw": "keyword", "brand.name": "keyword", "reviews.text": "text"}
    assert expected == {path: spec["type"] for path, spec in flatten(MAPPING)}


def index(properties: dict[str, Any], meta: dict[str, Any] | None = None, window: str | None = None) -> dict[str, Any]:
    settings = {"index": {} if window is None else {"max_result_window": window}}
    return {"mappings": {"_meta": {"rerank_proxy": meta or {}}, "properties": properties}, "settings": settings}


def test_facts_are_combined_over_all_indices() -> None:
    dense = {"type": "dense_vector", "dims": 3, "similarity": "dot_product"}
    facts = read_facts(
        {
            "a": index({"title": {"type": "text"}, "v": dense}, {"v": {"model": "m"}}, "500"),
            "b": index({"title": {"type": "keyword"}, "v": {"type": "dense_vector"}}),
        }
    )
    assert (
        IndexFacts(
            indices=frozenset({"a", "b"}),
            types={"title": frozenset({"text", "keyword"}), "v": frozenset({"dense_vector"})},
            vectors={
                "v": (
                    VectorField("dense_vector", 3, "dot_product", "m"),
                    VectorField("dense_vector", 0, "cosine", None),
                )
            },
            max_result_window=500,
        )
        == facts
    )
    assert ["a", "b"] == [form.index for form in facts.vectors["v"]]


BY_INDEX = {"term": {"_index": "a1"}}
ONLY, OTHER = {"term": {"tenant": "x"}}, {"term": {"tenant": "y"}}


@pytest.mark.parametrize(
    ("reached", "seen"),
    [
        ([], None),
        ([Resolved("a1")], None),
        ([Resolved("a1", "open")], None),
        (
            [Resolved("a1", "mine")],
            [{"bool": {"filter": [BY_INDEX], "should": [ONLY], "minimum_should_match": 1}}],
        ),
        (
            [Resolved("a1", "mine"), Resolved("a1", "theirs")],
            [{"bool": {"filter": [BY_INDEX], "should": [ONLY, OTHER], "minimum_should_match": 1}}],
        ),
        ([Resolved("a1", "mine"), Resolved("a1")], None),
        (
            [Resolved("a1", "mine"), Resolved("b1", "open")],
            [
                {"bool": {"filter": [BY_INDEX], "should": [ONLY], "minimum_should_match": 1}},
                {"bool": {"filter": [{"term": {"_index": "b1"}}]}},
            ],
        ),
    ],
)
def test_alias_filters_become_one_query_per_index(reached: list[Resolved], seen: Any) -> None:
    """An index that is also reached by its name, or by an alias without a filter, is not filtered."""
    aliases = {"mine": {"filter": ONLY}, "theirs": {"filter": OTHER}, "open": {}}
    facts = read_facts({"a1": {"aliases": aliases}, "b1": {"aliases": {"open": {}}}})
    expected = None if seen is None else {"bool": {"should": seen, "minimum_should_match": 1}}
    assert expected == alias_filter(reached, facts)


def test_opensearch_vector_mappings_are_read() -> None:
    vector = {"type": "knn_vector", "dimension": 3, "method": {"name": "hnsw", "space_type": "cosinesimil"}}
    assert {"v": (VectorField("knn_vector", 3, "cosinesimil", None),)} == read_facts(
        {"a": index({"v": vector})}
    ).vectors


NESTED: list[tuple[str, str | None]] = [("v", None), ("o.v", None), ("c.v", "c"), ("c.o.v", "c"), ("c.d.v", "c.d")]
HOLDERS = {"c": "nested", "c.d": "nested", "o": "object", "c.o": "object", "c.": "nested", "cc": "nested"}


def test_a_vectors_nested_path_is_the_innermost_one() -> None:
    vector = {"v": {"type": "dense_vector", "dims": 3}}
    inner = {"d": {"type": "nested", "properties": vector}, "o": {"properties": vector}}
    outer = {"c": {"type": "nested", "properties": inner | vector}, "o": {"properties": vector}}
    found = read_facts({"a": index(outer | vector)}).vectors
    assert dict(NESTED) == {path: field.path for path, (field,) in found.items()}


def test_nested_paths_are_read_from_field_caps() -> None:
    forms = HOLDERS | {path: "dense_vector" for path, _ in NESTED}
    found = read_field_caps({"fields": {path: {kind: {}} for path, kind in forms.items()}}).vectors
    assert dict(NESTED) == {path: field.path for path, (field,) in found.items()}


@pytest.mark.parametrize("answer", [{}, {"a": {}}, {"a": {"mappings": {}, "settings": {}}}])
def test_an_index_without_a_mapping_has_no_facts(answer: dict[str, Any]) -> None:
    assert IndexFacts(indices=frozenset(answer)) == read_facts(answer)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("title", True), ("title^3", True), ("title.raw", False), ("brand.name", False), ("unknown", True)],
)
def test_text_fields_and_unmapped_fields_are_searched_as_text(path: str, expected: bool) -> None:  # noqa: FBT001
    assert expected is read_facts({"a": index(MAPPING)}).is_text(path)


def test_a_field_alias_is_searched_as_its_field() -> None:
    properties = {
        "title": {"type": "text"},
        "brand": {"type": "keyword"},
        "label": {"type": "alias", "path": "title"},
        "a": {"properties": {"maker": {"type": "alias", "path": "brand"}}},
    }
    facts = read_facts({"i": {"mappings": {"properties": properties}}})
    assert {"label": "title", "a.maker": "brand"} == facts.aliases
    assert [True, True, False] == [facts.is_text(path) for path in ("label", "label^2", "a.maker")]
    assert [True, False] == [facts.in_source(path) for path in ("title", "label")]
    assert ["title", "brand"] == [facts.stored_at(path) for path in ("label", "a.maker")]


def test_copy_to_fields_are_read() -> None:
    properties = {
        "title": {"type": "text", "copy_to": "everything"},
        "a": {"properties": {"body": {"type": "text", "copy_to": ["everything", "suggest"]}}},
        "everything": {"type": "text"},
    }
    facts = read_facts({"i": {"mappings": {"properties": properties}}})
    assert {"everything", "suggest"} == facts.copied_from(["title", "a.body", "other"])
    assert {"everything"} == facts.copied_from(["title"])
    assert frozenset() == facts.copied_from([])


def test_text_fields_that_are_also_keywords_are_known() -> None:
    also = {"type": "text", "fields": {"keyword": {"type": "keyword"}, "folded": {"type": "text"}}}
    properties = {
        "tenant": also,
        "a": {"properties": {"brand": also, "code": {"type": "keyword"}}},
        "body": {"type": "text"},
    }
    assert {"tenant", "a.brand"} == read_facts({"i": {"mappings": {"properties": properties}}}).also_keywords
    caps: dict[str, Any] = {
        "tenant": {"text": {}},
        "tenant.keyword": {"keyword": {}},
        "a": {"object": {}},
        "a.code": {"keyword": {}},
    }
    assert {"tenant"} == read_field_caps({"fields": caps}).also_keywords


@pytest.mark.parametrize(
    ("path", "expected"),
    [("title.raw", "title"), ("a.code", "a.code"), ("b.code", "b.code"), ("code", "code"), ("x.y", "x.y"), ("", "")],
)
def test_a_multi_field_has_the_value_of_its_parent(path: str, expected: str) -> None:
    types = {"title": {"text"}, "title.raw": {"keyword"}, "a.code": {"keyword"}, "b": {"object"}, "b.code": {"keyword"}}
    facts = IndexFacts(types={name: frozenset(found) for name, found in types.items()})
    assert expected == facts.stored_at(path)
