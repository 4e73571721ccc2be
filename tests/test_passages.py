"""The text that models see of a document: the allowed fields, in their order, and nothing else."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.ranking.passages import passage_of_tokens, passage_text
from proxy.ranking.tokens import estimated_tokens
from proxy.settings.passage_template import PassageLine, line_of
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
    "html": "<p>Light &amp; <b>fa</b>st</p><script>track('x')</script><ul><li>1 kg</li></ul>",
    "released": "2024-05-03T10:00:00Z",
    "sold": 1714730400000,
    "long": "one two three four five six",
    "width": 30.0,
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
        (["Title: {title}"], "Title: Laptop"),
        (["{price} EUR", "{missing} EUR", "title"], "999.5 EUR\nLaptop"),
        (["{width} by {missing} by {price} cm"], "30 by by 999.5 cm"),
        (["{brand.name}: {{{variants.colour}}}"], "Acme: {red, blue}"),
        (["Tags: {tags}", "{tags}"], "Tags: light, fast\nlight, fast"),
        (["html"], "Light & fast 1 kg"),
        (["{html:raw}"], SOURCE["html"]),
        (["From {released:date}", "{sold:date}", "{title:date}"], "From 2024-05-03\n2024-05-03\nLaptop"),
        (["{long:3}!", "title"], "one two!\nLaptop"),
        (["{long:raw,3}"], "one two"),
    ],
)
def test_fields_become_lines(fields: list[str], expected: str) -> None:
    assert expected == passage_text(SOURCE, lines(fields))


def lines(entries: list[str]) -> list[PassageLine]:
    return list(map(line_of, entries))


def test_lone_surrogates_do_not_reach_a_model() -> None:
    assert "so small ?\nb" == passage_text({"title": "so small \ud83d", "tags": ["b"]}, lines(["title", "tags"]))


@pytest.mark.parametrize(("max_chars", "expected"), [(99, "Laptop\nAcme"), (9, "Laptop\nAc"), (7, "Laptop"), (0, "")])
def test_a_truncated_passage_has_no_trailing_space(max_chars: int, expected: str) -> None:
    assert expected == passage_text(SOURCE, lines(["title", "brand.name"]), max_chars)


PATHS = st.text(alphabet="ab.:", min_size=1)


@given(st.dictionaries(st.text(), strategies.json_values), st.lists(PATHS), st.integers(0, 20))
def test_any_document_gives_a_passage_within_the_limit(source: Any, fields: list[str], limit: int) -> None:
    assert len(passage_text(source, lines(fields), limit)) <= limit
    assert estimated_tokens(passage_of_tokens(source, lines(fields), limit)) <= limit


WRITTEN = st.lists(st.sampled_from(["a", "bc", " ", "\n", "\xa0", "\ud83d", "<p>", "&lt;"]), max_size=9).map("".join)


@settings(max_examples=500)
@given(WRITTEN, WRITTEN, st.integers(0, 20))
def test_a_text_and_an_array_of_it_give_the_same_passage(title: str, body: str, limit: int) -> None:
    """A single text without markup, the most frequent value, is read in a shorter way."""
    read = lines(["title", "body"])
    arrays = passage_text({"title": [title], "body": [body]}, read, limit)
    assert arrays == passage_text({"title": title, "body": body}, read, limit)


@given(strategies.json_values)
def test_other_fields_are_not_in_the_passage(value: Any) -> None:
    allowed = lines(["title", "About: {body}"])
    assert passage_text({"title": "Laptop"}, allowed) == passage_text({"title": "Laptop", "secret": value}, allowed)


def nested(depth: int, value: Any, *, keys: str = "") -> Any:
    for _ in range(depth):
        value = {keys: value} if keys else [value]
    return value


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"tags": nested(2000, ["a", "b"])}, "a, b"),
        ({"tags": nested(2000, {"c": ["a", None, "b"]})}, "c: a, b"),
        ({"tags": nested(2000, ["a", "b"], keys="k")}, "k: " * 2000 + "a, b"),
        ({"tags": [nested(3, None, keys="k"), "a", nested(3, "b", keys="k"), "c"]}, "a, k: k: k: b, c"),
    ],
)
def test_deeply_nested_values_are_read(source: Any, expected: str) -> None:
    assert expected == passage_text(source, lines(["tags"]))


def test_deeply_nested_paths_are_read() -> None:
    deep = nested(2000, {"b": ["x", "y"]})
    assert "x, y, z" == passage_text({"a": [deep, [], {"b": "z"}]}, lines(["a.b"]))


def test_a_passage_ends_with_a_whole_word() -> None:
    source = {"title": "Laptop", "body": "light and fast " * 100}
    text = passage_of_tokens(source, lines(["title", "body"]), 20)
    assert text.startswith("Laptop\nlight and fast ")
    assert set(text.split()) == {"Laptop", "light", "and", "fast"}


def test_markup_at_the_start_of_a_value_does_not_use_up_its_length() -> None:
    source = {"body": "<div>" * 50 + "the text"}
    assert "the text" == passage_of_tokens(source, lines(["body"]), 10)
