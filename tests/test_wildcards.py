"""`*` stands for anything, and nothing else is special."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.parsing.wildcards import matches

patterns = st.text("ab*.", max_size=8)
names = st.text("ab.", max_size=8)


@given(patterns, names)
def test_a_pattern_matches_like_the_equivalent_regular_expression(pattern: str, name: str) -> None:
    said = ".*".join(map(re.escape, pattern.split("*")))
    assert matches(pattern, name) is bool(re.fullmatch(said, name, re.DOTALL))


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [("a*a", "a", False), ("a*a", "aa", True), ("*", "", True), ("", "", True), ("[a]", "a", False), ("*", "\n", True)],
)
def test_prefix_and_suffix_do_not_overlap(pattern: str, name: str, expected: bool) -> None:  # noqa: FBT001
    assert expected is matches(pattern, name)


def test_a_hostile_pattern_takes_linear_time() -> None:
    assert not matches("*a" * 50_000 + "*b", "a" * 200_000)
