"""The length of a text in tokens is an estimate that never changes for a text, and a cut text ends with a word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ranking.tokens import characters_of, cut, estimated_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a", 1), ("word", 1), ("words", 2), ("2024", 5), ("笔记本", 3), ("é", 1), ("\ud83d", 1)],
)
def test_tokens_are_estimated_by_bytes_and_digits(text: str, tokens: int) -> None:
    assert tokens == estimated_tokens(text)


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("light and fast", 4, "light and fast"),
        ("light and fast", 3, "light and"),
        ("light and fast", 1, "ligh"),
        ("light   and fast", 2, "light"),
        ("light and fast", 0, ""),
        ("x" * 100, 10, "x" * 40),
        ("轻便的笔记本电脑", 3, "轻便的笔"),
        ("1234 5678", 6, "1234"),
        (f"a {'b' * 100} c", 20, f"a {'b' * 78}"),
    ],
)
def test_a_text_is_truncated_at_the_end_of_a_word_if_possible(text: str, tokens: int, expected: str) -> None:
    assert expected == cut(text, tokens)


@given(st.text(), st.integers(0, 50))
def test_truncation_is_a_prefix_within_the_limit_and_idempotent(text: str, tokens: int) -> None:
    found = cut(text, tokens)
    assert text.startswith(found)
    assert estimated_tokens(found) <= tokens
    assert len(found) < characters_of(tokens)
    assert found == cut(found, tokens)
