"""Per-hit explanations: the ranks and scores of a hit in each stage, returned if the client requests them.

They contain only numbers, and a hash and the length of the text that was sent to a model.
"""

import hashlib
from dataclasses import dataclass

import msgspec

MEMBER = "_rerank"
"""The member of a hit that holds its explanation; no engine uses this name."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A document's rank (from 1) and score in one retriever."""

    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Kept:
    """A hit's minimum rank (from 1 in the engine's order), and the reason for it."""

    rank: int
    reason: str


@dataclass(frozen=True, slots=True)
class Boost:
    """The boost of a document by the client's query, beyond its query text."""

    ratio: float
    """Relative to the median of the candidates that match the query."""
    tier: int
    """From 1; all documents of a tier rank above those of the next."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The ranks and scores of one document; None for a stage that did not process it."""

    lexical: Origin | None = None
    semantic: Origin | None = None
    fused: float | None = None
    rerank: float | None = None
    passage_hash: str | None = None
    passage_length: int | None = None
    kept: Kept | None = None
    boost: Boost | None = None
    tier: str | None = None
    """The tier of the reranker, on a route with `tier: auto`."""

    def render(self, final: float | None) -> msgspec.Raw:
        """Return it as JSON, with `final`, the score in the response."""
        said = {
            "lexical": self.lexical and {"rank": self.lexical.rank, "score": self.lexical.score},
            "semantic": self.semantic and {"rank": self.semantic.rank, "score": self.semantic.score},
            "fused": self.fused,
            "rerank": self.rerank,
            "tier": self.tier,
            "kept": self.kept and {"rank": self.kept.rank, "reason": self.kept.reason},
            "boost": self.boost and {"ratio": self.boost.ratio, "tier": self.boost.tier},
            "final": final,
            "passage": self.passage_hash and {"sha256": self.passage_hash, "characters": self.passage_length},
        }
        return msgspec.Raw(msgspec.json.encode({name: value for name, value in said.items() if value is not None}))


def text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
