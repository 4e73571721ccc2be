"""The second passage of a long document has the query's words, and is chosen without any model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.bounds import CHUNKED_CHARACTERS
from proxy.parsing.words import fold
from proxy.ranking.chunks import passages_of, stems_of
from proxy.ranking.tokens import estimated_tokens

FILLER = "The committee met again and decided nothing of interest to anybody. " * 20
TEXT = f"Annual report\n{FILLER}Wind turbines were installed on the northern ridge. {FILLER}"


def chosen(text: str, query: str, tokens: int = 40) -> tuple[str, ...]:
    return passages_of(text, stems_of(fold(query)), tokens)


def test_a_short_document_has_one_passage() -> None:
    assert ("Annual report",) == chosen("Annual report", "report")


def test_a_long_document_has_a_second_passage_with_the_query_words() -> None:
    first, second = chosen(TEXT, "installing a turbine")
    assert TEXT.startswith(first)
    assert "Wind turbines were installed" in second
    assert second.startswith("Annual report\n")
    assert max(map(estimated_tokens, (first, second))) <= 40


@pytest.mark.parametrize("query", ["solar", "", "a to of", "urbines"])
def test_without_query_words_there_is_no_second_passage(query: str) -> None:
    assert 1 == len(chosen(TEXT, query))


def test_a_rare_word_counts_more_than_a_frequent_one() -> None:
    _, second = chosen(TEXT, "committee decided ridge")
    assert "ridge" in second


def test_ideograph_pairs_are_found_in_text_without_spaces() -> None:
    text = "今天天气很好。" * 60 + "这款笔记本电脑很轻便。" + "今天天气很好。" * 60
    first, second = chosen(text, "笔记本电脑")
    assert "笔记本电脑" not in first
    assert "笔记本电脑" in second


def test_text_beyond_the_limit_is_not_searched() -> None:
    assert 1 == len(chosen("x " * CHUNKED_CHARACTERS + "turbine", "turbine"))


@pytest.mark.parametrize(
    ("words", "stems"),
    [
        (("turbines", "of", "ssd", "x1"), ("turbin", "x1")),
        (("wings", "wing"), ("wing",)),
        (("笔记本", "书"), ("笔记", "记本", "书")),
    ],
)
def test_words_are_matched_by_their_stems(words: tuple[str, ...], stems: tuple[str, ...]) -> None:
    assert stems == stems_of(words)


@given(st.text(), st.text(), st.integers(1, 30))
def test_passages_are_within_the_limit_and_the_first_is_the_beginning(text: str, query: str, tokens: int) -> None:
    first, *second = chosen(text, query, tokens)
    assert text.startswith(first)
    assert len(second) <= 1
    assert all(estimated_tokens(each) <= tokens for each in (first, *second))
