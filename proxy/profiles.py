"""The uses of reranking this proxy knows: one table of instruction, tier, window, passage and mapping.

`TIERS` and `PRIORITIES` are the decision matrix: which size of model for which need.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Models:
    """The pair of models of a tier."""

    embedding: str
    rerank: str


@dataclass(frozen=True, slots=True)
class Profile:
    """A use of reranking: what its route says where the file is silent."""

    name: str
    instruction: str
    tier: str
    rank_window_size: int
    passage: tuple[str, ...]
    mapping: str


TIERS: dict[str, Models] = {
    "fast": Models("Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Reranker-0.6B"),
    "balanced": Models("Qwen/Qwen3-Embedding-4B", "Qwen/Qwen3-Reranker-4B"),
    "precision": Models("Qwen/Qwen3-Embedding-8B", "Qwen/Qwen3-Reranker-8B"),
}

PRIORITIES: dict[str, str] = {
    "speed-and-cost": "fast",
    "balanced": "balanced",
    "accuracy": "precision",
    "high-volume": "fast",
    "critical": "precision",
}

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="e-commerce",
            instruction="Given a shopper's query, judge whether this product is what they mean to buy.",
            tier="balanced",
            rank_window_size=50,
            passage=("title", "brand", "description"),
            mapping="e-commerce.json",
        ),
    )
}
