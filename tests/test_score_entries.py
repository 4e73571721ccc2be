"""The scores of a query as bytes: what expires, what is too much, and what cannot be read."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.bounds import SCORES_OF_QUERY
from proxy.upstream.score_entries import NO_SCORES, QueryScores, decode, encode

NOW = 1_700_000_000.0
LATER = int(NOW) + 60

ids = st.binary(min_size=8, max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)


def entry(*numbers: int, until: int = LATER) -> QueryScores:
    return QueryScores("m", {number.to_bytes(8, "big"): (number / 7, until) for number in numbers})


@given(model=st.none() | st.text(min_size=1, max_size=60), scores=st.dictionaries(ids, finite, min_size=1))
def test_entries_are_read_as_written(model: str | None, scores: dict[bytes, float]) -> None:
    """To the last bit: a cached score equals the model's."""
    known = QueryScores(model, {each: (score, LATER) for each, score in scores.items()})
    assert known == decode(encode(known, NOW), NOW)


@pytest.mark.parametrize("name", ["m" * 251, "\ud800"], ids=["long", "surrogate"])
def test_scores_of_a_model_with_an_unusual_name_are_not_cached(name: str) -> None:
    assert NO_SCORES == decode(encode(QueryScores(name, entry(1).scores), NOW), NOW)


def test_a_pair_takes_20_bytes() -> None:
    assert 20 == len(encode(entry(1, 2), NOW)) - len(encode(entry(1), NOW))


def test_expired_scores_are_neither_written_nor_read() -> None:
    known = QueryScores("m", {**entry(1).scores, **entry(2, until=int(NOW)).scores})
    assert entry(1) == decode(encode(known, NOW), NOW)
    assert NO_SCORES == decode(encode(entry(1), NOW), LATER)


def test_the_newest_scores_of_a_query_are_kept() -> None:
    known = entry(*range(SCORES_OF_QUERY + 2))
    assert entry(*range(2, SCORES_OF_QUERY + 2)) == decode(encode(known, NOW), NOW)


@given(value=st.binary(max_size=200))
def test_corrupt_bytes_contain_no_scores(value: bytes) -> None:
    read = decode(value, NOW)
    assert all(math.isfinite(score) for score, _ in read.scores.values())


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x02" + encode(entry(1), NOW)[1:],
        encode(entry(1), NOW)[:-1],
        encode(entry(1), NOW) + b"x",
        encode(QueryScores("m", {bytes(8): (math.nan, LATER)}), NOW),
        encode(QueryScores("m", {bytes(8): (math.inf, LATER)}), NOW),
        b"\x01\x02\xff\xff" + encode(entry(1), NOW)[3:],
    ],
    ids=["empty", "another version", "cut", "longer", "nan", "infinite", "no name"],
)
def test_a_foreign_value_is_a_miss(value: bytes) -> None:
    assert NO_SCORES == decode(value, NOW)
