"""Unit vectors, and the hash that shows whether a stored vector is still current."""

import hashlib

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


def normalise(vectors: Vectors) -> Vectors:
    """Scale each row to length 1; raises ValueError for a row that is zero or not finite."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    if not np.all(np.isfinite(lengths)) or not np.all(lengths > 0):
        raise ValueError("a vector is zero or not finite")
    scaled: Vectors = np.divide(vectors, lengths).astype(np.float32)
    return scaled


def passage_hash(text: str, model: str, dimensions: int) -> str:
    """Return 32 hex digits that depend on text, model and dimensions: if they differ, a stored vector is outdated."""
    return hashlib.sha256(f"{model}\0{dimensions}\0{text}".encode()).hexdigest()[:32]
