"""The text that models see of a document: the allowed fields, in their order, and nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ranking.reranking import passage_text
from tests import strategies

SOURCE: dict[str, Any] = {
    "title": "  Laptop ",
    "price": 999.5,
    "in_stock": True,
    "none": None,
    "empty": "   ",
    "tags": ["light", None, "", ["fast"]],
    "brand": {"name": "Acme", "since": 1990, "motto": None},
    "variants": [{"colour": "red"}, {"colour": "blue"}, {"size": 3}],
    "a.b": "dotted",
    "a.c": {"d": "half dotted"},
    "secret": "cost price 12",
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], ""),
        (["title"], "Laptop"),
        (["price", "title"], "999.5\nLaptop"),
        (["in_stock"], "true"),
        (["none", "empty", "missing", "title"], "Laptop"),
        (["tags"], "light, fast"),
        (["brand"], "name: Acme, since: 1990"),
        (["brand.name"], "Acme"),
        (["brand.name.below"], ""),
        (["variants.colour"], "red, blue"),
        (["variants"], "colour: red, colour: blue, size: 3"),
        (["a.b"], "dotted"),
        (["a.c.d"], "half dotted"),
    ],
)
def test_fields_become_lines(fields: list[str], expected: str) -> None:
    assert expected == passage_text(SOURCE, fields)


def test_half_a_character_does_not_reach_a_model() -> None:
    assert "so small ?\nb" == passage_text({"title": "so small \ud83d", "tags": ["b"]}, ["title", "tags"])


@pytest.mark.parametrize(("max_chars", "expected"), [(None, "Laptop\nAcme"), (9, "Laptop\nAc"), (7, "Laptop"), (0, "")])
def test_a_passage_is_cut_without_a_blank_end(max_chars: int | None, expected: str) -> None:
    assert expected == passage_text(SOURCE, ["title", "brand.name"], max_chars)


@given(st.dictionaries(st.text(), strategies.json_values), st.lists(st.text()), st.integers(0, 20))
def test_no_document_is_too_odd_and_no_limit_is_passed(source: Any, fields: list[str], limit: int) -> None:
    assert len(passage_text(source, fields, limit)) <= limit


@given(strategies.json_values)
def test_a_field_that_is_not_allowed_leaves_no_trace(value: Any) -> None:
    assert passage_text({"title": "Laptop"}, ["title", "body"]) == passage_text(
        {"title": "Laptop", "secret": value}, ["title", "body"]
    )
