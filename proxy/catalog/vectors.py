"""Vectors as every search and every load here has them: of unit length, and told apart by what made them."""

import hashlib

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


def normalise(vectors: Vectors) -> Vectors:
    """Scale each row to length 1; raises ValueError for a row that has no direction or is not finite."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    if not np.all(np.isfinite(lengths)) or not np.all(lengths > 0):
        raise ValueError("a vector is zero or not finite")
    scaled: Vectors = np.divide(vectors, lengths).astype(np.float32)
    return scaled


def passage_hash(text: str, model: str, dimensions: int) -> str:
    """Say in 32 hex digits of what, by which model and how long a vector is, so that an old one can be told."""
    return hashlib.sha256(f"{model}\0{dimensions}\0{text}".encode()).hexdigest()[:32]
