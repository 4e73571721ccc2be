"""Scores only express the order: they descend, are never negative, and `max_score` is the ranking's."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.conftest import Open, Sides
from tests.integration.engines import EVERYWHERE
from tests.integration.models import ShopModels

pytestmark = [pytest.mark.engine, EVERYWHERE]

QUERY = {"multi_match": {"query": "laptop for children", "fields": ["title", "description"]}}
NEGATIVE = {"bool": {"must": [QUERY], "should": [{"constant_score": {"filter": {"match_all": {}}, "boost": 0}}]}}
HUGE = {"bool": {"must": [QUERY], "should": [{"constant_score": {"filter": {"match_all": {}}, "boost": 1e9}}]}}


def _falls(scores: list[float]) -> bool:
    return scores == sorted(scores, reverse=True)


async def _scores(sides: Sides, body: dict[str, Any]) -> tuple[list[float], float | None]:
    hits = (await sides.through.search(body)).json["hits"]
    return [hit["_score"] for hit in hits["hits"]], hits["max_score"]


@pytest.mark.parametrize("query", [QUERY, NEGATIVE, HUGE], ids=["plain", "zero", "huge"])
@pytest.mark.parametrize("window", [1, 5, 50])
async def test_scores_descend(window: int, query: dict[str, Any], open_sides: Open) -> None:
    sides = await open_sides(rank_window_size=window)
    scores, best = await _scores(sides, {"query": query, "size": 100})
    assert (True, True, scores[0]) == (_falls(scores), min(scores) >= 0, best)


@pytest.mark.parametrize("score", [0.0, 1.0, -3.5, 1e-30, 1e30])
async def test_any_reranker_scores_give_descending_non_negative_scores(
    score: float, open_sides: Open, models: ShopModels
) -> None:
    """Whatever numbers the reranker returns."""
    models.score = lambda document: score * (1 + len(document) % 3)
    sides = await open_sides(rank_window_size=8)
    scores, best = await _scores(sides, {"query": QUERY, "size": 100})
    assert (True, True, scores[0]) == (_falls(scores), min(scores) >= 0, best)


@given(
    window=st.sampled_from([1, 3, 6, 12]),
    first=st.integers(0, 20),
    size=st.integers(1, 12),
    given_scores=st.lists(st.floats(-1e3, 1e3), min_size=7, max_size=7),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_scores_descend_over_all_pages(
    *, window: int, first: int, size: int, given_scores: list[float], open_sides: Open, models: ShopModels
) -> None:
    """Whatever the scores; all pages have one `max_score`."""
    models.score = lambda document: given_scores[len(document) % 7]
    sides = await open_sides(rank_window_size=window)
    page, best = await _scores(sides, {"query": QUERY, "from": first, "size": size})
    whole, of_whole = await _scores(sides, {"query": QUERY, "size": 100})
    assert (page, best, True) == (whole[first : first + size], of_whole, _falls(whole))


async def test_sorting_the_hits_by_score_changes_nothing(open_sides: Open) -> None:
    """A client may sort them again."""
    sides = await open_sides(rank_window_size=12)
    reply = await sides.through.search({"query": QUERY, "size": 100})
    assert reply.ids == [hit["_id"] for hit in sorted(reply.hits, key=lambda hit: -hit["_score"])]


@pytest.mark.parametrize("sort", [["_score"], "_score", [{"_score": "desc"}], []])
async def test_an_explicit_sort_by_score_is_reranked(sort: Any, open_sides: Open) -> None:
    """Hits carry no sort values, as in the engine."""
    sides = await open_sides()
    reply = await sides.through.search({"query": QUERY, "sort": sort})
    assert ("reranked", []) == (reply.outcome, [hit for hit in reply.hits if "sort" in hit])
