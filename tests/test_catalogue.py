"""The demo's catalogue is a shop's: whole, judged, and with the products that lead keyword search astray."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from demo.shop import PRODUCTS, SHOWN, products, queries
from proxy.commands.evaluation.collection import Query

FIELDS = {"id", "title", "description", "brand", "category", "price", "rating", "reviews", "attributes"}
CATALOGUE = products()
QUERIES = {query.id: query for query in queries()}


def lines(name: str) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in PRODUCTS.with_name(name).read_text(encoding="utf-8").splitlines()]


def words(product: str) -> set[str]:
    return set(f"{CATALOGUE[product]['title']} {CATALOGUE[product]['description']}".lower().replace(".", " ").split())


def test_there_are_a_few_hundred_products_of_several_kinds() -> None:
    assert 200 <= len(CATALOGUE) <= 500
    assert min(Counter(product["category"] for product in CATALOGUE.values()).values()) >= 10


@pytest.mark.parametrize("name", ["products.ndjson", "queries.ndjson"])
def test_ids_are_unique(name: str) -> None:
    assert set(Counter(line["id"] for line in lines(name)).values()) == {1}


def test_no_product_has_two_ids() -> None:
    assert len({product["title"] for product in CATALOGUE.values()}) == len(CATALOGUE)


def test_every_product_has_all_fields() -> None:
    for product in CATALOGUE.values():
        assert product.keys() == FIELDS
        assert all(product[field].strip() for field in ("title", "description", "brand", "category"))
        assert product["attributes"]
        assert all(isinstance(value, str) and value for value in product["attributes"].values())


def test_prices_ratings_and_reviews_are_plausible() -> None:
    for product in CATALOGUE.values():
        assert 1 <= product["price"] <= 5000
        assert 1 <= product["rating"] <= 5
        assert isinstance(product["reviews"], int)
        assert product["reviews"] > 0


def test_each_of_the_twenty_queries_has_good_and_bad_products() -> None:
    assert 20 <= len(QUERIES) <= 30
    for query in QUERIES.values():
        grades = Counter(query.judgments.values())
        assert grades[3] >= 1, query.text
        assert grades[0] >= 3, query.text


def test_judgments_refer_to_existing_products_and_queries_once() -> None:
    judgments = lines("judgments.ndjson")
    assert {line["grade"] for line in judgments} == {0, 1, 2, 3}
    assert {line["product"] for line in judgments} <= CATALOGUE.keys()
    assert {line["query"] for line in judgments} == QUERIES.keys()
    assert len({(line["query"], line["product"]) for line in judgments}) == len(judgments)


def test_the_demo_shows_these_three_queries() -> None:
    assert [QUERIES[name].text for name in SHOWN] == [
        "best laptop for video editing",
        "best budget phone for photography",
        "show me laptops that won't break when my kids use them",
    ]


def graded(query: Query, *, at_least: int) -> set[str]:
    return {name for name, grade in query.judgments.items() if grade >= at_least}


def test_gaming_laptops_match_video_editing_by_words_but_are_not_relevant() -> None:
    assert {"gaming", "laptop", "video", "best", "for"} <= words("lap-001")
    assert QUERIES["q01"].judgments["lap-001"] == 1


def test_relevant_laptops_do_not_contain_the_words_video_editing() -> None:
    perfect = {name for name, grade in QUERIES["q01"].judgments.items() if grade == 3}
    assert len(perfect) >= 3
    assert not [name for name in perfect if {"video", "editing"} <= words(name)]


@pytest.mark.parametrize(
    ("query", "accessory", "repeated"),
    [
        ("q01", "bag-001", {"laptop", "video", "editing"}),
        ("q02", "bag-011", {"phone", "photography", "budget"}),
        ("q03", "bag-005", {"laptops", "kids", "breaking"}),
        ("q10", "pri-010", {"printer", "cheap", "ink"}),
    ],
)
def test_an_accessory_that_repeats_the_query_is_not_relevant(query: str, accessory: str, repeated: set[str]) -> None:
    assert repeated <= {word.strip('",:') for word in words(accessory)}
    assert QUERIES[query].judgments[accessory] == 0


def test_rugged_laptops_are_relevant_for_kids_without_the_word() -> None:
    rugged = {"lap-006", "lap-008", "lap-009"}
    assert rugged <= graded(QUERIES["q03"], at_least=2)
    assert not [name for name in rugged if "kid" in " ".join(words(name))]
