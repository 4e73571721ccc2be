"""The table of profiles says what the issue of each use is, and its tiers fit the models."""

import pytest

from proxy.settings.config import RouteSettings
from proxy.settings.profiles import CHOICES, PRIORITIES, PRIORITY_MEANINGS, PROFILES, TIERS, Profile

EACH = pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))

CRITERIA = {
    "technical-docs": ("working code", "step-by-step"),
    "support": ("directly", "easily", "not technical"),
    "academic": ("peer-reviewed", "recent", "empirical evidence"),
    "e-commerce": ("purchase intent", "price", "reviews", "features", "variant", "accessory", "brand", "size"),
    "legal": ("binding precedent", "statute", "secondary sources", "recent decisions"),
}


def test_there_are_the_ten_classic_uses_and_an_eleventh() -> None:
    assert set(PROFILES) == {
        "rag",
        "e-commerce",
        "knowledge",
        "support",
        "legal",
        "academic",
        "code",
        "recommendation",
        "recruitment",
        "medical",
        "technical-docs",
    }


@EACH
def test_each_profile_can_be_used_for_a_route(profile: Profile) -> None:
    route = RouteSettings(index="a", instruction=profile.instruction, rank_window_size=profile.rank_window_size)
    assert len(route.instruction or "") <= 2048
    assert 1 <= profile.rank_window_size <= 1000
    assert profile.tier in TIERS
    assert profile.passage


@EACH
def test_an_instruction_is_a_sentence_in_english_about_what_is_judged(profile: Profile) -> None:
    assert profile.instruction.startswith("Given ")
    assert "judge" in profile.instruction
    assert profile.instruction.endswith(".")
    assert profile.instruction.isascii()


@pytest.mark.parametrize(("name", "words"), CRITERIA.items())
def test_an_instruction_contains_the_criteria_of_its_use_case(name: str, words: tuple[str, ...]) -> None:
    said = PROFILES[name].instruction.lower()
    assert [word for word in words if word not in said] == []


def test_profiles_differ() -> None:
    assert len({profile.instruction for profile in PROFILES.values()}) == len(PROFILES)


@pytest.mark.parametrize(
    ("tier", "size", "dimensions"), [("fast", "0.6B", 1024), ("balanced", "4B", 2560), ("precision", "8B", 4096)]
)
def test_the_models_of_a_tier_have_the_same_size(tier: str, size: str, dimensions: int) -> None:
    models = TIERS[tier]
    assert (models.embedding, models.rerank) == (f"Qwen/Qwen3-Embedding-{size}", f"Qwen/Qwen3-Reranker-{size}")
    assert models.dimensions == dimensions


def test_every_priority_has_a_tier_and_a_meaning() -> None:
    assert PRIORITIES.keys() == PRIORITY_MEANINGS.keys()
    assert set(PRIORITIES.values()) <= TIERS.keys()


def test_the_ways_to_set_up_a_route_are_embeddings_a_reranker_and_both() -> None:
    assert [choice.name for choice in CHOICES] == ["embeddings alone", "add a reranker", "a reranker alone"]
