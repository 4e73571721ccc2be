"""Vectors are of length 1 and told apart by what made them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog.vectors import normalise, passage_hash

numbers = st.floats(-(2.0**60), 2.0**60, width=32).filter(lambda number: number == 0 or abs(number) > 2.0**-60)
rows = st.lists(numbers, min_size=3, max_size=3).filter(any)


@given(st.lists(rows, min_size=1, max_size=4))
def test_rows_are_normalised_and_keep_their_direction(matrix: list[list[float]]) -> None:
    vectors = np.array(matrix, dtype=np.float32)
    unit = normalise(vectors)
    assert unit.dtype == np.float32
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.sum(unit * vectors.astype(np.float64), axis=-1), lengths, rtol=1e-5)


def test_a_single_vector_is_a_row() -> None:
    assert [0.6, 0.8] == pytest.approx(normalise(np.array([3, 4], dtype=np.float32)).tolist())


@pytest.mark.parametrize("row", [[0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_a_zero_vector_is_rejected(row: list[float]) -> None:
    with pytest.raises(ValueError, match="zero or not finite"):
        normalise(np.array([[1.0, 0.0], row], dtype=np.float32))


def test_a_hash_has_32_hex_digits_and_is_stable() -> None:
    assert passage_hash("Laptop", "m", 384) == passage_hash("Laptop", "m", 384)
    assert len(f"{int(passage_hash('Laptop', 'm', 384), 16):032x}") == 32


@pytest.mark.parametrize("other", [("laptop", "m", 384), ("Laptop", "n", 384), ("Laptop", "m", 383)])
def test_the_hash_depends_on_text_model_and_length(other: tuple[str, str, int]) -> None:
    assert passage_hash("Laptop", "m", 384) != passage_hash(*other)
