"""How well a passage answers a query, from one model's vectors: the whole texts' nearness and each word's.

MaxSim: Khattab and Zaharia, "ColBERT", SIGIR 2020: each token of the query counts with the nearest token of the
passage.
"""

from dataclasses import dataclass

import numpy as np

from proxy.vectors import Vectors


@dataclass(frozen=True, slots=True)
class TextVectors:
    """A text's vectors, each row of unit length: of the whole, and of its tokens."""

    whole: Vectors
    tokens: Vectors

    @property
    def nbytes(self) -> int:
        return int(self.whole.nbytes + self.tokens.nbytes)


def score(query: TextVectors, passage: TextVectors) -> float:
    """Return half the cosine of the texts and half the tokens' MaxSim, from [-1, 1] mapped to [0, 1]."""
    cosine = float(query.whole @ passage.whole)
    similarities = query.tokens.astype(np.float32) @ passage.tokens.astype(np.float32).T
    max_sim = float(similarities.max(axis=1).mean())
    return min(1.0, max(0.0, (1.0 + (cosine + max_sim) / 2) / 2))
