"""A kNN search as the engine takes it, and what the engine's scores say."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects import cosine_of, elasticsearch_knn

# Elasticsearch's reference on `dense_vector`, for vectors of unit length.
SCORES: dict[str, Callable[[float], float]] = {
    "cosine": lambda cosine: (1 + cosine) / 2,
    "dot_product": lambda cosine: (1 + cosine) / 2,
    "l2_norm": lambda cosine: 1 / (1 + (2 - 2 * cosine)),
    "max_inner_product": lambda cosine: cosine + 1 if cosine >= 0 else 1 / (1 - cosine),
}


@pytest.mark.parametrize("similarity", SCORES)
@given(cosine=st.floats(-0.999, 1))
def test_an_engines_score_is_turned_back_into_the_cosine(similarity: str, cosine: float) -> None:
    found = cosine_of(SCORES[similarity](cosine), similarity)
    assert found is not None
    assert math.isclose(cosine, found, abs_tol=1e-9)


@pytest.mark.parametrize("similarity", ["hamming", ""])
def test_another_similarity_says_nothing_of_a_cosine(similarity: str) -> None:
    assert cosine_of(0.9, similarity) is None


@pytest.mark.parametrize("score", [0.0, -1.0])
@pytest.mark.parametrize("similarity", SCORES)
def test_a_score_that_no_vector_gets_says_nothing(similarity: str, score: float) -> None:
    assert cosine_of(score, similarity) is None


KNN = {"field": "v", "query_vector": [1.0, 0.0], "k": 5, "num_candidates": 50}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], {"knn": KNN}),
        ([{"term": {"a": 1}}], {"knn": KNN | {"filter": [{"term": {"a": 1}}]}}),
    ],
)
def test_elasticsearch_takes_knn_at_the_top_with_its_filter_inside(
    filters: list[object], expected: dict[str, object]
) -> None:
    assert expected == elasticsearch_knn("v", [1.0, 0.0], 5, 50, filters)
