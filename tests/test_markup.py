"""HTML is removed, whatever its author did, and what only looks like HTML stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ranking.markup import without_markup


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("<p>Light</p><p>and fast</p>", "Light and fast"),
        ("H<sub>2</sub>O and <B class='x'>b</B>old", "H2O and bold"),
        ("one<br/>two<BR >three", "one two three"),
        ('<img alt="a > b" src=x>text', "text"),
        ("<a href='/x?a=1&b=2'>link</a>", "link"),
        ("before<!-- <p>hidden</p> -->after", "before after"),
        ("a<script>if (a < b) { x('</p>') }</script>b<style>p{}</style >c", "a b c"),
        ("a<script src='x'/>b", "a b"),
        ("<!DOCTYPE html><html><head><title>T</title></head><body>B</body></html>", "T B"),
        ("Fish &amp; chips &lt;b&gt; 5&nbsp;&euro; &#65;&#x42;", "Fish & chips <b> 5 € AB"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a b"),
    ],
)
def test_markup_is_removed(text: str, seen: str) -> None:
    assert seen == without_markup(text)


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d",
        "a<b and c>d",
        "a <b && c> d",
        "screws <M8, nuts >M6",
        "List<String>, Map<K, V>, vector<int>",
        "AT&T, R&D; a&b",
        "?a=1&copy=2",
        "I <3 you",
        "5 <6",
        "&#99999999999999999999; &unknownentity;",
        "  two  spaces\n",
        "<",
        "",
    ],
)
def test_text_that_resembles_markup_is_kept(text: str) -> None:
    assert text == without_markup(text)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a<script>b", "a b"),
        ("a<!--b", "a b"),
        ("a<p", "a<p"),
        ("a</p>b", "a b"),
        ("<p title='x>y", "<p title='x>y"),
        ("<script><script>a</script>b", "b"),
    ],
)
def test_malformed_markup_loses_no_text(text: str, seen: str) -> None:
    assert seen == without_markup(text)


@given(st.text(alphabet="<>&;/!-='\" apscript1"))
def test_any_text_is_processed_without_an_error(text: str) -> None:
    assert len(without_markup(text)) <= len(text)
