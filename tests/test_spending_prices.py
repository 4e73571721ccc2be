"""Prices and token estimates."""

import pytest

from proxy.settings.config import Config, Models, Spend
from proxy.settings.profiles import TIERS
from proxy.upstream.spending.meter import prices_of
from proxy.upstream.spending.prices import PRICES, Prices, embed_tokens, rerank_tokens, text_tokens

MODEL = "Qwen/Qwen3-Reranker-4B"


def test_every_model_of_a_tier_has_a_price() -> None:
    assert set(PRICES) == {model for tier in TIERS.values() for model in (tier.embedding, tier.rerank)}


def test_published_prices_apply_to_deepinfra_only() -> None:
    """Local models have the same names, and cost nothing."""
    local = Models(url="http://127.0.0.1:8080")
    elsewhere = Models(rerank_url="https://rerank.example.com")
    assert [0.025, None, None] == [
        prices_of(Config(models=models)).of(MODEL) for models in (Models(), local, elsewhere)
    ]
    assert 1.0 == prices_of(Config(models=local, spend=Spend(prices={MODEL: 1.0}))).of(MODEL)


def test_a_service_tier_changes_the_published_price_but_not_a_configured_one() -> None:
    models = Models(service_tier="priority")
    assert pytest.approx(0.0375) == prices_of(Config(models=models)).of(MODEL)
    assert 1.0 == prices_of(Config(models=models, spend=Spend(prices={MODEL: 1.0}))).of(MODEL)


def test_the_cheap_tier_costs_less_than_the_configured_one() -> None:
    def share(models: Models) -> float:
        return prices_of(Config(models=models)).flex_share

    assert pytest.approx(0.8) == share(Models())
    assert pytest.approx(0.8 / 1.5) == share(Models(service_tier="priority"))
    assert 1.0 == share(Models(url="http://models.internal"))


def test_tokens_of_a_model_without_a_price_cost_nothing() -> None:
    assert (0.0, 0.000005) == (Prices().usd("m", 5), Prices({"m": 1.0}).usd("m", 5))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Accent Pillow with Heart Design - Red/Black", 9),
        ("XPS-13-9310 i7-1185G7 16GB 512GB SSD", 28),
        ("Der Laptop hat einen hochauflösenden Bildschirm", 14),
        ("这款笔记本电脑配备高分辨率屏幕", 8),
    ],
)
def test_estimates_are_close_to_the_tokenizer(text: str, tokens: int) -> None:
    """Counted once with Qwen's vocabulary, which is not part of this project."""
    assert 0.7 * tokens <= text_tokens(text) <= 1.7 * tokens


def test_query_instruction_and_template_are_billed_with_each_passage() -> None:
    one = rerank_tokens("query", ["passage"], "instruction")
    assert one - embed_tokens(["passage"]) > 60
    assert pytest.approx(3 * one) == rerank_tokens("query", ["passage"] * 3, "instruction")
    assert 0 == rerank_tokens("query", [], "instruction")


def test_tokens_of_text_with_lone_surrogates_are_estimated() -> None:
    assert text_tokens("\ud800") > 0
