"""How a hit came to its place, said beside it where the client wants to know.

Numbers only: of the text that a model was sent, no more than a hash and a length.
"""

import hashlib
from dataclasses import dataclass

import msgspec

MEMBER = "_rerank"
"""The hit's member; the engine gives a hit none of that name."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a retriever had a document: its rank, from 1, and its score."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Kept:
    """A hit's rank in the client's own order, from 1, and why it falls no lower."""

    rank: int
    reason: str


@dataclass(frozen=True, slots=True)
class Boost:
    """How much the client's query says for a document beyond the words."""

    ratio: float
    """To the median of the candidates that the query matches."""
    tier: int
    """From 1: a document of a higher tier stands above every one of a lower."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The numbers behind one document's place; None where a stage did not see it."""

    lexical: Origin | None = None
    semantic: Origin | None = None
    fused: float | None = None
    rerank: float | None = None
    passage_hash: str | None = None
    passage_length: int | None = None
    kept: Kept | None = None
    boost: Boost | None = None

    def render(self, final: float | None) -> msgspec.Raw:
        """Write it, with the score that is shown."""
        said = {
            "lexical": self.lexical and {"rank": self.lexical.rank, "score": self.lexical.score},
            "semantic": self.semantic and {"rank": self.semantic.rank, "score": self.semantic.score},
            "fused": self.fused,
            "rerank": self.rerank,
            "kept": self.kept and {"rank": self.kept.rank, "reason": self.kept.reason},
            "boost": self.boost and {"ratio": self.boost.ratio, "tier": self.boost.tier},
            "final": final,
            "passage": self.passage_hash and {"sha256": self.passage_hash, "characters": self.passage_length},
        }
        return msgspec.Raw(msgspec.json.encode({name: value for name, value in said.items() if value is not None}))


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
