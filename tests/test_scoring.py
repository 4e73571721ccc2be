"""A score is made of the texts' nearness and of each word's nearest, and stays between 0 and 1."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from proxy.catalog.vectors import Vectors
from proxy.commands.local_models.scoring import WORDS_SHARE, TextVectors, score, text_vectors

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def text(*words: list[float], first: list[float] = EAST, last: list[float] = EAST) -> TextVectors:
    return text_vectors(np.array([first, *words, last], dtype=np.float32))


tokens = arrays(np.float32, st.tuples(st.integers(1, 5), st.just(2)), elements=st.floats(0.125, 8, width=32))


def test_a_text_is_nearest_to_itself() -> None:
    assert score(text(EAST, NORTH), text(EAST, NORTH)) == pytest.approx(1.0, abs=1e-3)


def test_opposite_texts_score_0() -> None:
    assert score(text(EAST), text(WEST, first=WEST, last=WEST)) == 0.0


def test_each_query_word_counts_with_its_nearest_word() -> None:
    query, passage = text(EAST, NORTH), text(NORTH, EAST, WEST)
    cosine = float(query.whole @ passage.whole)
    assert score(query, passage) == pytest.approx((1 + WORDS_SHARE * 1.0 + (1 - WORDS_SHARE) * cosine) / 2)


def test_special_tokens_count_for_the_whole_text_only() -> None:
    found = text(NORTH, first=EAST, last=WEST)
    assert found.words.tolist() == [NORTH]
    assert found.whole.tolist() == NORTH


def test_a_text_without_words_has_a_score_too() -> None:
    assert score(text(), text(EAST)) == pytest.approx(1.0)


@given(query=tokens, passage=tokens)
def test_scores_stay_between_0_and_1(query: Vectors, passage: Vectors) -> None:
    assert 0.0 <= score(text_vectors(query), text_vectors(-passage)) <= 1.0


@given(query=tokens, passage=tokens)
def test_vectors_are_normalised(query: Vectors, passage: Vectors) -> None:
    for found in (text_vectors(query), text_vectors(passage)):
        lengths = np.linalg.norm(np.vstack([found.whole, found.words.astype(np.float32)]), axis=1)
        np.testing.assert_allclose(lengths, 1.0, atol=2e-3)


def test_the_size_includes_both_kinds_of_vectors() -> None:
    assert text(EAST, NORTH).nbytes == 2 * 4 + 2 * 2 * 2
