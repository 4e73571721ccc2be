"""A kNN search as each engine takes it, and what the engines' scores say."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.dialects import (
    ELASTICSEARCH,
    ELASTICSEARCH_BEFORE_KNN,
    OPENSEARCH,
    Dialect,
    EngineKind,
    KnnSearch,
    Version,
    dialect_of,
    read_kind,
)

DIALECTS = (ELASTICSEARCH, ELASTICSEARCH_BEFORE_KNN, OPENSEARCH)


def _half(cosine: float) -> float:
    return (1 + cosine) / 2


def _of_distance(cosine: float) -> float:
    return 1 / (1 + (2 - 2 * cosine))


def _of_inner_product(cosine: float) -> float:
    return cosine + 1 if cosine >= 0 else 1 / (1 - cosine)


# The references on `dense_vector`, `script_score` and k-NN "spaces", for vectors of unit length.
SCORES: Mapping[str, Mapping[str, Callable[[float], float]]] = {
    "elasticsearch": {
        "cosine": _half,
        "dot_product": _half,
        "l2_norm": _of_distance,
        "max_inner_product": _of_inner_product,
    },
    "elasticsearch before 8.4": dict.fromkeys(("cosine", "dot_product", "l2_norm"), lambda cosine: cosine + 1),
    "opensearch": {"cosinesimil": _half, "l2": _of_distance, "innerproduct": _of_inner_product},
}
SPACES = [(dialect, similarity) for dialect in DIALECTS for similarity in SCORES[dialect.name]]


def test_every_similarity_has_a_reference_value() -> None:
    assert {name: set(scores) for name, scores in SCORES.items()} == {
        dialect.name: set(dialect.similarity) for dialect in DIALECTS
    }
    assert [] == [dialect.name for dialect in DIALECTS if dialect.default_similarity not in dialect.similarity]


@pytest.mark.parametrize(("dialect", "similarity"), SPACES)
@given(cosine=st.floats(-0.999, 1))
def test_the_cosine_is_computed_from_the_engines_score(dialect: Dialect, similarity: str, cosine: float) -> None:
    found = dialect.cosine_of(SCORES[dialect.name][similarity](cosine), similarity)
    assert found is not None
    assert math.isclose(cosine, found, abs_tol=1e-9)


@pytest.mark.parametrize("similarity", ["hamming", ""])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_other_similarities_give_no_cosine(dialect: Dialect, similarity: str) -> None:
    assert dialect.cosine_of(0.9, similarity) is None


@pytest.mark.parametrize("score", [0.0, -1.0])
@pytest.mark.parametrize(("dialect", "similarity"), SPACES)
def test_an_impossible_score_gives_no_cosine(dialect: Dialect, similarity: str, score: float) -> None:
    assert dialect.cosine_of(score, similarity) is None


TERM = {"term": {"a": 1}}
THERE = {"exists": {"field": "v"}}


COSINE = {"source": "cosineSimilarity(params.vector, 'v') + 1.0", "params": {"vector": [1.0, 0.0]}}
KNN_SCORE = {
    "lang": "knn",
    "source": "knn_score",
    "params": {"field": "v", "query_value": [1.0, 0.0], "space_type": "l2"},
}


def over(k: int, **filters: Any) -> Any:
    nearest = {"knn": {"v": {"vector": [1.0, 0.0], "k": k, **filters}}}
    return {"script_score": {"query": nearest, "script": KNN_SCORE}}


def by_script(*filters: Any) -> dict[str, Any]:
    return {"query": {"script_score": {"query": {"bool": {"filter": [*filters, THERE]}}, "script": COSINE}}}


def search(*filters: Any, oversample: float | None = None) -> KnnSearch:
    return KnnSearch("v", [1.0, 0.0], 5, 50, filters, oversample, similarity="l2")


def nested(*filters: Any, oversample: float | None = None) -> KnnSearch:
    return replace(search(*filters, oversample=oversample), path="c")


def inside(query: Any) -> Any:
    return {"nested": {"path": "c", "score_mode": "max", "query": query}}


def compared(*filters: Any, script: Any) -> Any:
    scored = inside({"script_score": {"query": THERE, "script": script}})
    return {"query": {"bool": {"must": [scored], "filter": list(filters)}}}


IN_INDICES = {"terms": {"_index": ["a", "b"]}}


def restricted(query: Any) -> Any:
    return {"query": {"bool": {"must": [query], "filter": [IN_INDICES]}}}


TOP = {"field": "v", "query_vector": [1.0, 0.0], "k": 5, "num_candidates": 50}
CLAUSE = {"vector": [1.0, 0.0], "k": 5}


@pytest.mark.parametrize(
    ("dialect", "asked", "expected"),
    [
        (ELASTICSEARCH, search(), {"knn": TOP}),
        (ELASTICSEARCH, search(TERM), {"knn": TOP | {"filter": [TERM]}}),
        (ELASTICSEARCH, search(oversample=3.0), {"knn": TOP | {"rescore_vector": {"oversample": 3.0}}}),
        (ELASTICSEARCH_BEFORE_KNN, search(), by_script()),
        (ELASTICSEARCH_BEFORE_KNN, search(TERM, oversample=3.0), by_script(TERM)),
        (ELASTICSEARCH, nested(TERM), {"knn": TOP | {"filter": [TERM]}}),
        (ELASTICSEARCH_BEFORE_KNN, nested(), compared(script=COSINE)),
        (ELASTICSEARCH_BEFORE_KNN, nested(TERM), compared(TERM, script=COSINE)),
        (OPENSEARCH, nested(), {"query": inside({"knn": {"v": CLAUSE}})}),
        (OPENSEARCH, nested(TERM), compared(TERM, script=KNN_SCORE)),
        (OPENSEARCH, search(), {"query": {"knn": {"v": CLAUSE}}}),
        (OPENSEARCH, search(TERM), {"query": {"knn": {"v": CLAUSE | {"filter": {"bool": {"filter": [TERM]}}}}}}),
        (OPENSEARCH, search(oversample=1.5), {"query": over(8)}),
        (OPENSEARCH, search(TERM, oversample=5000.0), {"query": over(10_000, filter={"bool": {"filter": [TERM]}})}),
        (OPENSEARCH, nested(oversample=3.0), {"query": inside(over(15))}),
        (OPENSEARCH, nested(TERM, oversample=3.0), compared(TERM, script=KNN_SCORE)),
        (ELASTICSEARCH, replace(search(TERM), indices=["a", "b"]), {"knn": TOP | {"filter": [TERM, IN_INDICES]}}),
        (ELASTICSEARCH_BEFORE_KNN, replace(search(), indices=["a", "b"]), restricted(by_script()["query"])),
        (ELASTICSEARCH_BEFORE_KNN, replace(nested(), indices=["a", "b"]), restricted(compared(script=COSINE)["query"])),
        (OPENSEARCH, replace(search(), indices=["a", "b"]), restricted({"knn": {"v": CLAUSE}})),
    ],
)
def test_each_dialect_places_vector_and_filter(dialect: Dialect, asked: KnnSearch, expected: Mapping[str, Any]) -> None:
    assert expected == dialect.knn(asked)


@pytest.mark.parametrize(
    ("kind", "version", "expected"),
    [
        ("dense_vector", None, ELASTICSEARCH),
        ("dense_vector", (8, 3, 3), ELASTICSEARCH_BEFORE_KNN),
        ("dense_vector", (7, 17, 28), ELASTICSEARCH_BEFORE_KNN),
        ("dense_vector", (8, 4, 0), ELASTICSEARCH),
        ("dense_vector", (9, 4, 3), ELASTICSEARCH),
        ("knn_vector", (2, 19, 1), OPENSEARCH),
        ("knn_vector", None, OPENSEARCH),
        ("rank_vectors", (9, 0, 0), None),
    ],
)
def test_the_field_and_the_version_choose_the_dialect(
    kind: str, version: Version | None, expected: Dialect | None
) -> None:
    assert expected is dialect_of(kind, version)


@pytest.mark.parametrize(
    ("said", "expected", "own"),
    [
        ({"number": "8.19.13", "build_flavor": "default"}, EngineKind("elasticsearch", (8, 19, 13)), ()),
        ({"number": "9.0.0-SNAPSHOT"}, EngineKind("elasticsearch", (9, 0, 0)), ()),
        (
            {"number": "3.6.0", "distribution": "opensearch"},
            EngineKind("opensearch", (3, 6, 0)),
            (("search_pipeline", "_none"),),
        ),
    ],
)
def test_the_engine_is_recognised_by_its_response(
    said: Any, expected: EngineKind, own: tuple[tuple[str, str], ...]
) -> None:
    found = read_kind({"version": said})
    assert (expected, own) == (found, found.own_parameters)


@pytest.mark.parametrize(("product", "expected"), [("elasticsearch", True), ("opensearch", False)])
def test_some_engines_keep_objects_emptied_by_filter_path(product: str, expected: bool) -> None:  # noqa: FBT001
    """Seen on Elasticsearch 8.19.13 and 9.4.3, and OpenSearch 2.19.1 and 3.6.0."""
    assert expected is EngineKind(product).keeps_empty
