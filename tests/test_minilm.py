"""The model is the one recorded, found in its package, and reads each text alike in any company."""

from importlib import metadata

import numpy as np
import pytest

from proxy.bounds import LOCAL_TOKENS
from proxy.commands.local_models.minilm import DIMENSIONS, LocalModelsMissing, MiniLM, verified
from proxy.commands.local_models.scoring import TextVectors, score, text_vectors
from proxy.upstream.canary import KNOWN, CanaryVerdict, judged

REAL = pytest.mark.local_models


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM()


@REAL
def test_each_token_has_a_vector_of_the_models_length(model: MiniLM) -> None:
    (found,) = model.token_vectors(["red shoes"])
    assert found.shape == (4, DIMENSIONS)


@REAL
def test_a_texts_vectors_do_not_depend_on_its_batch(model: MiniLM) -> None:
    (alone,) = model.token_vectors(["red shoes"])
    _, beside = model.token_vectors(["a far longer text about how laptops are repaired in small shops", "red shoes"])
    np.testing.assert_allclose(text_vectors(alone).whole, text_vectors(beside).whole, atol=0.02)


@REAL
def test_a_long_text_is_truncated_at_the_models_limit(model: MiniLM) -> None:
    (found,) = model.token_vectors(["word " * 1000])
    assert len(found) == LOCAL_TOKENS


@REAL
def test_texts_of_equal_meaning_are_near(model: MiniLM) -> None:
    query, near, far = (text_vectors(each) for each in model.token_vectors(["cheap notebook", "budget laptop", "oak"]))
    assert query.whole @ near.whole > 0.5 > query.whole @ far.whole


@REAL
def test_known_pairs_are_ranked_correctly(model: MiniLM) -> None:
    """Otherwise the canary would suspend the local models."""

    def vectors(text: str) -> TextVectors:
        return text_vectors(model.token_vectors([text])[0])

    scores = [[score(vectors(known.query), vectors(each)) for each in known.passages] for known in KNOWN]
    assert CanaryVerdict.OK is judged(scores).verdict


def test_a_missing_package_is_an_error_with_advice() -> None:
    with pytest.raises(
        LocalModelsMissing,
        match=r"^the package not-installed is not installed: pip install -c constraints\.txt '\.\[local\]'",
    ):
        verified("not-installed", "model.onnx", "00")


def test_a_file_missing_in_its_package_is_named() -> None:
    with pytest.raises(LocalModelsMissing, match=r"^the package pytest has no model\.onnx: reinstall it"):
        verified("pytest", "model.onnx", "00")


def test_a_file_with_another_checksum_is_rejected() -> None:
    name = next(file.name for file in metadata.files("pytest") or () if file.name == "entry_points.txt")
    with pytest.raises(LocalModelsMissing, match=r"entry_points\.txt is not the expected file \(SHA-256 [0-9a-f]"):
        verified("pytest", name, "00")
