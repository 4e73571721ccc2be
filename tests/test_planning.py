"""What will be done for a search: which page it begins on, which indices it covers, which vectors it searches."""

from dataclasses import replace

import pytest

from proxy.catalog.dialects import ELASTICSEARCH, ELASTICSEARCH_BEFORE_KNN, OPENSEARCH, Dialect, Version
from proxy.catalog.indices import IndexFacts, VectorField
from proxy.errors import Failure
from proxy.ranking.planning import MIN_SIMILARITY, NUM_CANDIDATES, EngineReply, VectorSearch, vector_search
from proxy.settings.config import RouteSettings, Semantic, Similarity
from proxy.settings.routes import build_route
from tests.plans import SEMANTIC, SETTINGS, plan_of

MATCH = {"match": {"title": "laptop"}}


@pytest.mark.parametrize(("from_", "expected"), [(0, True), (49, True), (50, False), (51, False)])
def test_a_page_starts_within_the_window_or_beyond_it(from_: int, expected: bool) -> None:  # noqa: FBT001
    assert expected is plan_of(body={"query": MATCH, "from": from_}).in_head


@pytest.mark.parametrize(("index", "expected"), [("products", True), ("listed", True), ("logs", False)])
def test_an_index_is_covered_if_listed_or_matched_by_the_route(index: str, expected: bool) -> None:  # noqa: FBT001
    assert expected is plan_of(body={"query": MATCH}, covered=["listed"]).covers(index)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((), False),
        (((b"content-type", b"gzip"),), False),
        (((b"Content-Encoding", b"gzip"),), True),
        (((b"content-encoding", b"identity"),), False),
    ],
)
def test_a_reply_knows_whether_it_was_compressed(fields: tuple[tuple[bytes, bytes], ...], expected: bool) -> None:  # noqa: FBT001
    assert expected is EngineReply(200, fields, b"").compressed


# Which vectors are searched

FIELD = VectorField("dense_vector", 3, "cosine", "m")
KNN_FIELD = VectorField("knn_vector", 3, "l2", "m")
TYPE_ALONE = VectorField("dense_vector", None, None, None)
"""As `_field_caps` tells it to somebody who may not read the mapping."""
FOUND = VectorSearch(
    ELASTICSEARCH, {"v": None}, "m", 3, "cosine", MIN_SIMILARITY, NUM_CANDIDATES, SEMANTIC.timeout_seconds
)


MIXED = Failure("semantic", "mixed_vectors", "v")


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
        (None, facts(replace(FIELD, dimensions=5), replace(FIELD, dimensions=4)), MIXED),
        (None, facts(replace(FIELD, model=None)), Failure("semantic", "unknown_model")),
        ("n", facts(FIELD), Failure("semantic", "other_model", "m")),
    ],
)
def test_vectors_are_searched_only_if_their_model_is_known(
    named: str | None, found: IndexFacts | None, expected: VectorSearch | Failure
) -> None:
    route = build_route(RouteSettings(index="products", embedding_model=named, semantic=SEMANTIC))
    assert expected == vector_search(route, SEMANTIC, found)


IN_A, IN_B = replace(FIELD, index="a"), replace(FIELD, index="b")
IN_BOTH = replace(FOUND, having={"v": frozenset("ab")})
IN_ONE = replace(FOUND, having={"v": frozenset("a")}, only={"v": ("a",)})


@pytest.mark.parametrize(
    ("named", "reached", "forms", "expected"),
    [
        (None, "ab", [IN_A, IN_B], IN_BOTH),
        (None, "abc", [IN_A, IN_B], replace(IN_BOTH, only={"v": ("a", "b")})),
        (None, "", [IN_A], FOUND),
        (None, "a", [IN_A], replace(IN_ONE, only={})),
        (None, "c", [IN_A], Failure("semantic", "no_vector_field", "v")),
        (None, "a", [IN_A, replace(IN_B, model="n")], replace(IN_ONE, only={})),
        (None, "ab", [IN_A, replace(IN_B, dimensions=4)], replace(IN_ONE, partly=MIXED)),
        ("m", "ab", [IN_A, replace(IN_B, model="n")], replace(IN_ONE, partly=MIXED)),
        (None, "ab", [IN_A, replace(IN_B, model="n")], MIXED),
        ("m", "ab", [IN_A, replace(IN_B, similarity="l2_norm")], MIXED),
        ("m", "ab", [replace(IN_A, model="o"), replace(IN_B, model="n")], MIXED),
    ],
)
def test_only_the_indices_with_fitting_vectors_are_searched(
    named: str | None, reached: str, forms: list[VectorField], expected: VectorSearch | Failure
) -> None:
    """If the vectors of two indices fit the route, but not each other, none is searched."""
    route = build_route(RouteSettings(index="*", embedding_model=named, semantic=SEMANTIC))
    known = IndexFacts(indices=frozenset("abc"), vectors={"v": tuple(forms)})
    assert expected == vector_search(route, SEMANTIC, known, reached=frozenset(reached))


def test_each_vector_field_is_searched_where_it_exists() -> None:
    semantic = Semantic(field=("w", "v"), dimensions=3)
    known = IndexFacts(indices=frozenset("abc"), vectors={"v": (IN_A, IN_B), "w": (IN_B,)})
    found = vector_search(build_route(SETTINGS), semantic, known, reached=known.indices)
    assert isinstance(found, VectorSearch)
    assert {"v": ("a", "b"), "w": ("b",)} == found.only
    assert {"c"} == found.unseen({"a", "b", "c"})
    assert not FOUND.unseen({"anything"})


def test_vector_fields_may_have_different_nested_paths() -> None:
    semantic = Semantic(field=("w", "v"), dimensions=3)
    forms = {"v": (FIELD,), "w": (replace(FIELD, path="c"),)}
    found = vector_search(build_route(SETTINGS), semantic, IndexFacts(vectors=forms))
    assert replace(FOUND, fields={"w": "c", "v": None}) == found


def test_a_route_may_set_min_similarity_and_num_candidates() -> None:
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
def test_the_mappings_similarity_overrides_the_settings(
    in_mapping: str | None, in_file: Similarity | None, expected: str
) -> None:
    semantic = Semantic(field="v", dimensions=3, similarity=in_file)
    route = build_route(RouteSettings(index="products", embedding_model="m", semantic=semantic))
    found = vector_search(route, semantic, facts(replace(FIELD, similarity=in_mapping)))
    assert isinstance(found, VectorSearch)
    assert expected == found.similarity


@pytest.mark.parametrize(("version", "expected"), [((8, 3), ELASTICSEARCH_BEFORE_KNN), ((8, 4), ELASTICSEARCH)])
def test_the_knn_syntax_depends_on_the_engines_version(version: Version, expected: Dialect) -> None:
    assert replace(FOUND, dialect=expected) == vector_search(build_route(SETTINGS), SEMANTIC, facts(FIELD), version)


@pytest.mark.parametrize(
    ("score", "similarity", "expected"),
    [(0.65, "cosine", True), (0.64, "cosine", False), (0.9, "hamming", False), (0.0, "cosine", False)],
)
def test_nearness_is_decided_by_the_cosine(score: float, similarity: str, expected: bool) -> None:  # noqa: FBT001
    vectors = VectorSearch(ELASTICSEARCH, {"v": None}, "m", 3, similarity, 0.3, 100, 2.0)
    assert expected is vectors.is_near(score)
