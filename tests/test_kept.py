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
    likenesses = [
        likeness(QueryWords.of(typed), source, PASSAGE, names, is_top=place < AMONG)
        for place, source in enumerate(sources)
    ]
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
def test_a_first_field_equal_to_the_query_text_is_an_exact_match(typed: str, title: Any) -> None:
    assert {"1": (2, "exact_match")} == kept(typed, {"title": "Other"}, {"title": title})


@pytest.mark.parametrize("source", [{"title": "Blue garden hose 3"}, {"title": "Hose", "text": "hose pipe"}, {}])
def test_other_or_additional_words_are_no_exact_match(source: Any) -> None:
    assert {} == kept("hose pipe", source)


def test_only_the_top_hits_keep_their_rank() -> None:
    same = {"title": "Garden hose"}
    assert {str(place): (place + 1, "exact_match") for place in range(AMONG)} == kept("garden hose", *[same] * 5)


@pytest.mark.parametrize(("count", "expected"), [(1, {"0"}), (AMONG, {"0", "1", "2"}), (AMONG + 1, set())])
def test_a_keyword_value_of_few_hits_is_an_exact_match(count: int, expected: set[str]) -> None:
    """A value that many hits have is a category."""
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
def test_a_hit_with_the_part_number_keeps_its_rank(typed: str, text: str, *, expected: bool) -> None:
    found = kept(typed, {"title": "A laptop", "text": text}, {"title": "Acme bag", "text": "for any laptop"})
    assert ({"0": (1, "identifier")} if expected else {}) == found


def test_a_part_number_of_many_hits_identifies_none() -> None:
    sources = [{"title": f"Acme screen {number} 1080p"} for number in range(AMONG + 1)]
    assert {} == kept("acme 1080p screen", *sources)


def test_an_exact_match_takes_precedence_over_a_part_number() -> None:
    assert {"0": (1, "exact_match")} == kept("acme RTX4090", {"title": "Acme RTX4090"})


def test_a_long_query_text_is_not_compared() -> None:
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
def test_a_kept_hit_is_raised_to_its_rank(order: str, places: dict[str, int], expected: str) -> None:
    places_of = {key(name): Kept(rank, "exact_match") for name, rank in places.items()}
    found = in_place(ranking(order), places_of)
    assert expected == "".join(each.id for each in keys(found))
    assert [each.score for each in ranking(order)] == [each.score for each in found]


@given(st.permutations("abcdefgh"), st.sets(st.sampled_from("abc")))
def test_kept_hits_are_at_their_rank_or_above(order: list[str], chosen: set[str]) -> None:
    places = {key(name): Kept("abc".index(name) + 1, "exact_match") for name in chosen}
    found = [each.id for each in keys(in_place(ranking("".join(order)), places))]
    assert all(found.index(each.id) < place.rank for each, place in places.items())
    assert [name for name in order if name not in chosen] == [name for name in found if name not in chosen]
