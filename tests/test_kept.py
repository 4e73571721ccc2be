"""The client's first hits that are the very thing that was typed, and keep their place."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ranking.explaining import Kept
from proxy.ranking.hits import DocKey, Scored, keys
from proxy.ranking.kept import AMONG, QueryWords, in_place, kept_hits, likeness
from proxy.settings.passage_template import template_of

PASSAGE = template_of(("title", "text"))


def key(name: str) -> DocKey:
    return DocKey("products", name)


def kept(typed: str, *sources: Any, names: tuple[str, ...] = ()) -> dict[str, tuple[int, str]]:
    lexical = [key(str(number)) for number in range(len(sources))]
    likenesses = [likeness(QueryWords.of(typed), source, PASSAGE, names) for source in sources]
    found = kept_hits(lexical, dict(zip(lexical, likenesses, strict=True)))
    return {each.id: (place.rank, place.reason) for each, place in found.items()}


@pytest.mark.parametrize(
    ("typed", "title"),
    [
        ("blue garden hose", "Blue Garden Hose"),
        ('"STRASSE 9"', "Straße 9"),
        ("blue garden hose", ["A set", "blue garden hose"]),
        ("spider-man: homecoming", "Spider Man Homecoming"),
    ],
)
def test_a_first_field_that_equals_the_words_is_exact(typed: str, title: Any) -> None:
    assert {"1": (2, "exact_match")} == kept(typed, {"title": "Other"}, {"title": title})


@pytest.mark.parametrize("source", [{"title": "Blue garden hose 3"}, {"title": "Hose", "text": "hose pipe"}, {}])
def test_what_has_more_or_other_words_is_not(source: Any) -> None:
    assert {} == kept("hose pipe", source)


def test_only_the_first_hits_keep_their_place() -> None:
    same = {"title": "Garden hose"}
    assert {str(place): (place + 1, "exact_match") for place in range(AMONG)} == kept("garden hose", *[same] * 5)


@pytest.mark.parametrize(("count", "expected"), [(1, {"0"}), (AMONG, {"0", "1", "2"}), (AMONG + 1, set())])
def test_a_value_of_few_hits_identifies_them(count: int, expected: set[str]) -> None:
    """A value of more is a category."""
    sources = [{"title": f"Hose {number}", "sku": ["x", "Garden-Hose"]} for number in range(count)]
    assert expected == set(kept("garden hose", *sources, {"title": "Other"}, names=("sku",)))
    assert {} == kept("garden hose", *sources)


@pytest.mark.parametrize(
    ("typed", "text", "expected"),
    [
        ("acme XPS-13-9310", "Acme laptop xps 13 9310 silver", True),
        ("acme wh1000xm4 headphones", "Headphones WH1000XM4 by Acme", True),
        ("acme (XPS-13-9310)", "Acme laptop XPS-13-9310, silver", True),
        ("acme XPS-13-9310", "Acme laptop XPS-13-93105", False),
        ("acme XPS-13-9310 4006381333931", "Acme laptop XPS-13-9310", False),
        ("acme laptop", "Acme laptop", False),
    ],
)
def test_a_hit_that_has_the_part_number_is_identified(typed: str, text: str, *, expected: bool) -> None:
    found = kept(typed, {"title": "A laptop", "text": text}, {"title": "Acme bag", "text": "for any laptop"})
    assert ({"0": (1, "identifier")} if expected else {}) == found


def test_a_number_that_many_hits_have_identifies_none() -> None:
    sources = [{"title": f"Acme screen {number} 1080p"} for number in range(AMONG + 1)]
    assert {} == kept("acme 1080p screen", *sources)


def test_an_exact_match_says_so_though_it_is_identified_too() -> None:
    assert {"0": (1, "exact_match")} == kept("acme RTX4090", {"title": "Acme RTX4090"})


def test_a_long_text_is_compared_with_nothing() -> None:
    assert {} == kept("garden hose " * 100, {"title": "garden hose " * 100})


def ranking(names: str) -> tuple[Scored, ...]:
    return tuple(Scored(key(name), 1 / place) for place, name in enumerate(names, start=1))


@pytest.mark.parametrize(
    ("order", "places", "expected"),
    [
        ("abcd", {"d": 1}, "dabc"),
        ("abcd", {"d": 2}, "adbc"),
        ("abcd", {"c": 1, "d": 3}, "cadb"),
        ("abcd", {"d": 1, "c": 2, "b": 3}, "dcba"),
        ("abcd", {"a": 3}, "abcd"),
        ("abcd", {"x": 1}, "abcd"),
        ("", {"x": 1}, ""),
        ("a", {"a": 1}, "a"),
    ],
)
def test_a_kept_hit_is_raised_to_its_place(order: str, places: dict[str, int], expected: str) -> None:
    places_of = {key(name): Kept(rank, "exact_match") for name, rank in places.items()}
    found = in_place(ranking(order), places_of)
    assert expected == "".join(each.id for each in keys(found))
    assert [each.score for each in ranking(order)] == [each.score for each in found]


@given(st.permutations("abcdefgh"), st.sets(st.sampled_from("abc")))
def test_no_kept_hit_stands_below_its_rank_and_the_others_stay_in_order(order: list[str], chosen: set[str]) -> None:
    places = {key(name): Kept("abc".index(name) + 1, "exact_match") for name in chosen}
    found = [each.id for each in keys(in_place(ranking("".join(order)), places))]
    assert all(found.index(each.id) < place.rank for each, place in places.items())
    assert [name for name in order if name not in chosen] == [name for name in found if name not in chosen]
