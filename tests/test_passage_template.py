"""Entries of a passage: field names as ever, and lines with labels; what cannot be read is an error that says what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.settings.passage_template import (
    Notation,
    PassageField,
    embedded,
    entries_of,
    line_of,
    template_of,
)


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ("title", (PassageField("title"),)),
        ("a.b", (PassageField("a.b"),)),
        ("odd name: x", (PassageField("odd name: x"),)),
        ("{title}", (PassageField("title"),)),
        ("Brand: {brand}", ("Brand: ", PassageField("brand"))),
        ("{price} EUR", (PassageField("price"), " EUR")),
        ("{a:}", (PassageField("a"),)),
        ("{ a } x {b}", (PassageField("a"), " x ", PassageField("b"))),
        ("{body:300}", (PassageField("body", tokens=300),)),
        ("{code:raw}", (PassageField("code", Notation.RAW),)),
        ("{day:date}", (PassageField("day", Notation.DATE),)),
        ("{code:300, raw}", (PassageField("code", Notation.RAW, 300),)),
        ("{{{a}}}", ("{", PassageField("a"), "}")),
        ("a }} {{ {b}", ("a } { ", PassageField("b"))),
    ],
)
def test_an_entry_is_a_field_or_a_line_of_text_and_fields(entry: str, parts: object) -> None:
    assert parts == line_of(entry).parts


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("", "is empty: expected the name of a field"),
        ("{}", "`{}` names no field"),
        ("x {:9}", "`{:9}` names no field"),
        ("Brand: {brand", "has an unpaired `{`: write `{field}` for a field, `{{` for the brace"),
        ("Brand: brand}", "has an unpaired `}`: write `{field}` for a field, `}}` for the brace"),
        ("{a{b}}", "has an unpaired `{`"),
        ("{{a}}", "names no field: write one in braces"),
        ("{a:0}", "expected a number of tokens, `raw` or `date`"),
        ("{a:-1}", "expected a number of tokens"),
        ("{a:1,2}", "each at most once"),
        ("{a:raw,date}", "each at most once"),
        ("{a:upper}", "`{a:upper}`: expected a number"),
        ("{a:٣}", "expected a number"),
    ],
)
def test_an_invalid_entry_is_an_error_with_its_cause(entry: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r".+") as caught:
        line_of(entry)
    assert problem in str(caught.value)


@given(st.text(alphabet="{}:,ab1 "))
def test_any_entry_is_accepted_or_rejected(entry: str) -> None:
    try:
        line = line_of(entry)
    except ValueError:
        return
    assert line.fields


def test_a_template_lists_each_field_once() -> None:
    assert ("title", "a.b", "price") == template_of(("title", "{a.b} {price}", "{title:5}")).fields


def test_labelled_lines_are_embedded_only_without_other_lines() -> None:
    assert ("title", "{body:raw}") == embedded(("title", "{price} EUR", "{body:raw}"))
    assert ("Title: {title}", "{price} EUR") == embedded(("Title: {title}", "{price} EUR"))


def test_command_line_entries_are_separated_by_commas_outside_braces() -> None:
    assert ("title", "Code: {code:raw,30}", "body") == entries_of("title,Code: {code:raw,30},body")
