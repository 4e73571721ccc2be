"""A window's passages are sent once each, in few batches, and their scores come back by rank."""

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import EqualScores, TimedOut
from proxy.ranking.planning import Relevance
from proxy.upstream.windows import batches_of, is_constant, is_typical, joined, window_of


def hashed(passages: Collection[str]) -> list[bytes]:
    return [passage.encode() for passage in passages]


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [
        (0, 50, []),
        (1, 50, [1]),
        (50, 50, [50]),
        (51, 50, [26, 25]),
        (200, 50, [50] * 4),
        (7, 3, [3, 3, 1]),
        (2, 1, [1, 1]),
    ],
)
def test_passages_are_split_into_as_few_batches_as_possible(count: int, size: int, sizes: list[int]) -> None:
    passages = [f"p{number}" for number in range(count)]
    batches = batches_of(passages, size)
    assert (sizes, passages) == ([len(batch) for batch in batches], [each for batch in batches for each in batch])


@given(passages=st.lists(st.text(alphabet="abc <|im_start|>", max_size=3)))
def test_equal_passages_are_sent_once_and_keep_their_positions(passages: list[str]) -> None:
    window = window_of(passages, hashed)
    assert [*dict.fromkeys(window.ids)] == [*window.texts]
    assert hashed([window.texts[each] for each in window.ids]) == list(window.ids)


def test_passages_are_hashed_as_they_are_sent() -> None:
    window = window_of(["a<|im_end|>b", "a b"], hashed)
    assert ((b"a b", b"a b"), {b"a b": "a b"}) == (window.ids, window.texts)


@given(passages=st.lists(st.sampled_from("abcdef"), max_size=10), scored=st.sets(st.sampled_from("abcdef")))
def test_scores_end_at_the_first_unscored_passage(passages: list[str], scored: set[str]) -> None:
    scores = {each: float(number) for number, each in enumerate(hashed(sorted(scored)), 1)}
    relevance = joined(window_of(passages, hashed), scores, None, None)
    prefix = next((place for place, each in enumerate(passages) if each not in scored), len(passages))
    assert tuple(scores[each] for each in hashed(passages[:prefix])) == relevance.scores


@pytest.mark.parametrize(
    ("scores", "passages", "says_nothing"),
    [
        ([0.5, 0.5, 0.5], ["a", "b", "c"], True),
        ([-3, -3, -3, -3], ["a", "b", "c", "a"], True),
        ([0.5, 0.5, 0.5], ["a", "b", "b"], False),
        ([0.5, 0.5], ["a", "b"], False),
        ([0.5, 0.5, 0.6], ["a", "b", "c"], False),
        ([1, 1, 1], ["a", "b", "c"], False),
        ([0, 0, 0], ["a", "b", "c"], False),
    ],
)
def test_equal_scores_for_different_passages_are_constant(
    scores: list[float],
    passages: list[str],
    says_nothing: bool,  # noqa: FBT001
) -> None:
    """Whether they are cached or new, and whatever other errors occurred."""
    window = window_of(passages, hashed)
    relevance = joined(window, dict(zip(window.ids, scores, strict=True)), "m", TimedOut("reranker"))
    assert (says_nothing, () if says_nothing else tuple(scores)) == (
        isinstance(relevance.error, EqualScores),
        relevance.scores,
    )


def test_no_scores_are_not_constant() -> None:
    assert Relevance((), "m") == joined(window_of(["a", "b", "c"], hashed), {}, "m", None)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([], False), ([0.5], False), ([0.5, 0.5], True), ([0.5, 0.6], False), ([1.0, 1.0], False), ([0.0, 0.0], False)],
)
def test_the_scores_of_one_call_may_be_constant(scores: list[float], expected: bool) -> None:  # noqa: FBT001
    assert expected is is_constant(scores)


@pytest.mark.parametrize(
    ("count", "window", "size", "expected"),
    [
        (50, 50, 50, True),
        (25, 50, 50, True),
        (24, 50, 50, False),
        (1, 50, 50, False),
        (10, 20, 50, True),
        (25, 200, 50, True),
        (24, 200, 50, False),
        (13, 51, 50, True),
        (12, 51, 50, False),
        (1, 1, 50, True),
    ],
)
def test_a_call_is_typical_with_half_of_its_uncached_size(
    count: int,
    window: int,
    size: int,
    expected: bool,  # noqa: FBT001
) -> None:
    assert expected is is_typical(count, window, size)
