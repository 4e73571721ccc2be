"""Texts compared as words: spellings of one text, and what only repeats a part of another."""

from collections.abc import Sequence

import pytest

from proxy.parsing.words import fold, is_one_word, is_typed_word, letters, unescaped, variants, without_marks


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"Rain  Coat"', ("rain", "coat")),
        ("rain-coat!", ("rain", "coat")),
        ("STRASSE", ("strasse",)),
        ("手机", ("手机",)),
        ("++", ("++",)),
        ("", ()),
    ],
)
def test_case_quotes_and_punctuation_do_not_matter(text: str, words: tuple[str, ...]) -> None:
    assert words == fold(text)


def test_a_hyphenated_compound_equals_the_joined_word() -> None:
    assert letters("head-lamp") == letters("Headlamp")


@pytest.mark.parametrize(
    ("text", "plain"), [(r"dry \(in rain\)\?", "dry (in rain)?"), (r"dry\ feet", "dry feet"), (r"C:\temp", r"C:\temp")]
)
def test_escapes_are_removed_from_the_text(text: str, plain: str) -> None:
    assert plain == unescaped(text)


@pytest.mark.parametrize(
    ("texts", "repeating"),
    [
        (["rain coat", "rain", "coat"], {1, 2}),
        (["rain", "rain coat"], {0}),
        (["head lamp", "headlamp"], {1}),
        (["rain ja", "rain jacket"], {0}),
        (["rain", "coat"], set()),
        ([], set()),
        (["rain coat", *["storm"] * 100], set()),
        (["x" * 30_000, "x"], set()),
    ],
)
def test_a_part_of_a_text_repeats_it(texts: Sequence[str], repeating: set[int]) -> None:
    """Unless there are too many words to compare quickly."""
    assert repeating == variants([letters(text) for text in texts])


@pytest.mark.parametrize(
    ("text", "one", "typed"),
    [
        ("rain", True, True),
        ('"rain"', True, True),
        ("rain coat", False, False),
        ("wi-fi", False, True),
        ("", False, False),
    ],
)
def test_a_single_word_is_recognised(text: str, *, one: bool, typed: bool) -> None:
    assert (one, typed) == (is_one_word(text), is_typed_word(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [("*rain coat*", "rain coat"), ("rain* **coat", "rain coat"), ("5* hotel", "5* hotel"), ("M*A*S*H *", "M*A*S*H *")],
)
def test_wildcards_around_words_are_removed(text: str, words: str) -> None:
    assert words == without_marks(text)
