"""What the client's query says beyond its words: ratios, tiers, and the order of the candidates."""

import dataclasses
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.ranking.boosts import GREATEST_ODDS, LEAST_ODDS, LEAST_RATIO, STEP, Measured, boosted, boosts_of, constant_of
from proxy.ranking.explaining import Boost
from proxy.ranking.hits import GREATEST_SCORE, DocKey, Ranking, Scored, keys
from proxy.ranking.ordering import make_head
from proxy.ranking.paging import Head
from proxy.ranking.retrieval import Groups, SemanticHits
from proxy.ranking.search_response import SearchAnswer, read_answer
from tests.fakes import Document, FakeEngine, FakeModels, Message, Stream, answer, hangs, refuses, says
from tests.plans import SETTINGS, plan_of
from tests.runs import run_of

NAMES = "abcdefghij"


def key(name: str) -> DocKey:
    return DocKey("products", name)


def ranked(order: str) -> Ranking:
    return tuple(Scored(key(name), float(len(order) - place)) for place, name in enumerate(order))


def measured_of(scores: Mapping[str, float], own: str = NAMES) -> Measured:
    by_key = {key(name): score for name, score in scores.items()}
    return Measured(boosts_of(by_key, {key(name) for name in own}))


def order_of(scores: Mapping[str, float], boosts: Measured, power: float = 1.0, order: str = "") -> str:
    """Order documents by the reranker's scores, their boosts counted."""
    order = order or "".join(sorted(scores, key=lambda name: -scores[name]))
    by_key = {key(name): score for name, score in scores.items()}
    ranking = boosted(ranked(order), boosts, by_key, [], power)
    assert [place.score for place in ranked(order)] == [place.score for place in ranking]
    return "".join(each.id for each in keys(ranking))


MEASURES = st.dictionaries(st.sampled_from(NAMES), st.one_of(st.just(0.0), st.floats(1e-6, GREATEST_SCORE)), min_size=1)
RELEVANCE = st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1))
ORDER = st.permutations(NAMES).map("".join)


@given(MEASURES, st.sets(st.sampled_from(NAMES)))
def test_ratios_are_finite_and_never_raise_documents_only_knn_found(scores: Mapping[str, float], own: set[str]) -> None:
    boosts = measured_of(scores, "".join(own)).boosts
    assert all(0 < boost.ratio < float("inf") for boost in boosts.values())
    assert all(boosts[found].ratio <= 1 for found in boosts if found.id not in own)


@given(MEASURES, st.floats(0.01, 100))
def test_ratios_do_not_depend_on_the_scale(scores: Mapping[str, float], factor: float) -> None:
    boosts = measured_of(scores).boosts
    scaled = measured_of({name: score * factor for name, score in scores.items()}).boosts
    assert boosts.keys() == scaled.keys()
    for found, boost in boosts.items():
        assert boost.ratio == pytest.approx(scaled[found].ratio, rel=0.01)


@given(MEASURES)
def test_only_a_large_step_between_neighbours_ends_a_tier(scores: Mapping[str, float]) -> None:
    boosts = sorted(measured_of(scores).boosts.values(), key=lambda boost: -boost.ratio)
    for above, below in pairwise(boosts):
        assert (below.tier - above.tier) == (above.ratio >= STEP * below.ratio)


@given(MEASURES, RELEVANCE, ORDER, st.sampled_from([0.5, 1.0]))
def test_no_relevance_passes_a_higher_tier(
    scores: Mapping[str, float], relevance: Mapping[str, float], order: str, power: float
) -> None:
    measured = measured_of(scores)
    found = order_of(relevance, measured, power, order)
    assert sorted(order) == sorted(found)
    tiers = [measured.boosts[key(name)].tier for name in found if key(name) in measured.boosts]
    assert sorted(tiers) == tiers


@given(RELEVANCE, ORDER, st.floats(1e-3, 1e6))
def test_without_boosts_the_order_is_unchanged(relevance: Mapping[str, float], order: str, score: float) -> None:
    """Whether it comes from the reranker, from a blend with the fused order, or from fusion alone."""
    assert order == order_of(relevance, measured_of(dict.fromkeys(NAMES, score)), order=order)
    assert order == order_of(relevance, Measured(), order=order)


@given(RELEVANCE, st.sets(st.sampled_from(NAMES)))
def test_a_small_factor_moves_only_near_ties(relevance: Mapping[str, float], raised: set[str]) -> None:
    assume(len(relevance) > 1)
    found = order_of(relevance, measured_of({name: 1.2 if name in raised else 1.0 for name in relevance}))
    for place, above in enumerate(found):
        for below in found[place + 1 :]:
            odds = [
                clamped / (1 - clamped)
                for clamped in (min(max(relevance[name], LEAST_ODDS), GREATEST_ODDS) for name in (above, below))
            ]
            assert odds[0] * 1.2000001 >= odds[1]


@given(st.floats(0.001, 100), st.floats(0.1, 100))
def test_an_additive_boost_lifts_a_weak_match_no_more_than_the_engines_gap(weak: float, boost: float) -> None:
    """Its query text counts as the median in the measurement, and as its own score at the engine."""
    words = sorted([weak, 101.0, 102.0, 103.0, 104.0])
    own = [score + (boost if score == weak else 0) for score in words]
    constant = constant_of(own)
    measured = measured_of({name: constant + (boost if place == 0 else 0) for place, name in enumerate("abcde")})
    ratio = measured.boosts[key("a")].ratio if measured.boosts else 1.0
    assert ratio <= (weak + boost) / weak * 1.0000001


def test_the_lowest_score_of_two_is_that_of_the_query_text() -> None:
    """The other may be a pin's: half of it would outweigh the pin."""
    assert constant_of([1e6, 14.5]) == 14.5


@pytest.mark.parametrize(
    ("scores", "ratios"),
    [
        ({"a": 2.0, "b": 2.0, "c": 1.0}, {"a": 1.0, "b": 1.0, "c": 0.5}),
        ({"a": 0.0, "b": 5.0, "c": 5.0}, {"a": LEAST_RATIO, "b": 1.0, "c": 1.0}),
        ({"a": 0.0, "b": 0.0, "c": 5.0}, {"a": LEAST_RATIO, "b": LEAST_RATIO, "c": 1.0}),
        ({"a": 0.0, "b": 0.0}, {}),
        ({"a": 1.0, "b": 1.004}, {}),
        ({}, {}),
    ],
)
def test_ratios_are_relative_to_unboosted_documents(scores: Mapping[str, float], ratios: Mapping[str, float]) -> None:
    assert ratios == {found.id: boost.ratio for found, boost in measured_of(scores).boosts.items()}


@pytest.mark.parametrize(
    ("boosts", "expected"),
    [
        ({"c": 280.0, "d": 28.0}, "cdab"),
        ({"a": 0.01}, "bcda"),
        ({"c": 3.0}, "abcd"),
        ({"c": 7.0}, "acbd"),
        ({"c": 3.4e38}, "cabd"),
    ],
)
def test_pins_rise_demotions_sink_and_factors_multiply_odds(boosts: Mapping[str, float], expected: str) -> None:
    relevance = {"a": 0.9, "b": 0.6, "c": 0.3, "d": 0.1}
    assert expected == order_of(relevance, measured_of(dict.fromkeys("abcdefghij", 1.0) | dict(boosts)))


def test_a_power_weakens_boosts_within_a_tier() -> None:
    relevance, boosts = {"a": 0.6, "b": 0.4}, measured_of({"a": 1.0, "b": 3.0, "c": 1.0})
    assert ("ba", "ab") == (order_of(relevance, boosts), order_of(relevance, boosts, 0.5))


def test_without_reranker_scores_only_the_tiers_count() -> None:
    assert "dabc" == order_of({}, measured_of({"a": 1.0, "b": 3.0, "c": 1.0, "d": 99.0}), order="abcd")


# -------------------------------------------------------------------------------------------------- beside the reranker

BODY = {"query": {"function_score": {"query": {"match": {"title": "laptop"}}, "functions": [{"weight": 2}]}}}
PLAIN = {"query": {"match": {"title": "laptop"}}}
NEAR = {"d": 0.95, "b": 0.9}
ALONE = Groups({}, {}, {})


def answer_of(scores: Mapping[str, float]) -> SearchAnswer:
    hits = [
        {"_index": "products", "_id": name, "_score": score, "_source": {"title": name.upper()}}
        for name, score in scores.items()
    ]
    return read_answer(json.dumps({"hits": {"total": {"value": 3, "relation": "eq"}, "hits": hits}}).encode())


@pytest.fixture
def _scored(engine: FakeEngine, models: FakeModels) -> None:
    """The reranker says d c b a; the engine's own order is a b c, and only kNN finds d."""
    engine.documents = [Document("d", "D", cosine=0.9, boost=2.0)]
    engine.documents += [Document(name, name.upper(), lexical=3.0) for name in "abc"]
    models.scores = {"D": 0.9, "C": 0.8, "B": 0.2, "A": 0.1}


async def made(
    engine: FakeEngine,
    models: FakeModels,
    body: Any = None,
    near: Mapping[str, float] | None = None,
    **settings: Any,
) -> Head:
    own, semantic = answer_of({"a": 3.0, "b": 2.0, "c": 1.0}), answer_of(NEAR if near is None else near)
    async with AsyncExitStack() as stack:
        plan = plan_of("", BODY if body is None else body, settings=msgspec.structs.replace(SETTINGS, **settings))
        run = await run_of(dataclasses.replace(plan, explains=True), engine, models, stack)
        run.budget.begin()
        return (await make_head(run, own, SemanticHits(semantic.hits), ALONE))[0]


def boost(engine: FakeEngine, **boosts: float) -> None:
    engine.documents = [dataclasses.replace(doc, boost=boosts.get(doc.id, 1.0)) for doc in engine.documents]


def shown(head: Head) -> str:
    return "".join(each.id for each in head.keys)


pytestmark = pytest.mark.usefixtures("_scored")


async def test_a_pinned_document_stays_first_and_is_explained(engine: FakeEngine, models: FakeModels) -> None:
    boost(engine, a=1000.0)
    head = await made(engine, models)
    assert ("adcb", ()) == (shown(head), head.failures)
    told = {found.id: said.boost for found, said in head.explanations.items()}
    assert {"a": Boost(1000.0, 1), "b": Boost(1.0, 2), "c": Boost(1.0, 2), "d": Boost(1.0, 2)} == told
    (asked,) = (each.json() for each in engine.of("boosts"))
    assert {"match_all": {"boost": 2.0}} == asked["query"]["bool"]["should"][0]["function_score"]["query"]
    assert 1 == len(models.of("rerank"))


async def test_documents_only_knn_found_are_not_raised(engine: FakeEngine, models: FakeModels) -> None:
    models.scores |= {"D": 0.01}
    boost(engine, d=1e6)
    assert "cbad" == shown(await made(engine, models))


@pytest.mark.parametrize("rerank", [True, False])
async def test_pins_survive_without_a_reranker(engine: FakeEngine, models: FakeModels, *, rerank: bool) -> None:
    """In the fused order, only one of the two rankings has the pin."""
    boost(engine, c=1000.0)
    models.faults["rerank"] = refuses(400)
    head = await made(engine, models, rerank=rerank)
    assert "c" == shown(head)[0]
    assert ([] if not rerank else ["rerank"]) == [failure.stage for failure in head.failures]


async def test_without_knn_and_reranker_the_engines_order_stays(engine: FakeEngine, models: FakeModels) -> None:
    boost(engine, c=1000.0)
    models.faults["rerank"] = refuses(400)
    head = await made(engine, models, near={})
    assert ("abc", True) == (shown(head), head.untouched)


@pytest.mark.parametrize(
    "fault", [refuses(400), refuses(503), says(b"[]"), says(b'{"hits":{"hits":[]},"timed_out":true}')]
)
async def test_if_the_boost_search_fails_the_clients_order_stays(
    engine: FakeEngine, models: FakeModels, fault: Any
) -> None:
    engine.faults["boosts"] = fault
    head = await made(engine, models)
    assert ("abcd", ["boosts"], False) == (shown(head), [each.stage for each in head.failures], head.untouched)


@pytest.mark.parametrize(
    ("body", "settings", "asked"),
    [
        (BODY, {}, 1),
        (PLAIN, {}, 0),
        (BODY, {"boost_power": 0.0}, 0),
        (BODY, {"boost_power": 0.5}, 1),
        (PLAIN | {"indices_boost": [{"products": 2}]}, {}, 1),
        ({"query": {"bool": {"must": [PLAIN["query"]], "filter": [{"term": {"a": 1}}]}}}, {}, 0),
    ],
)
async def test_no_boost_search_is_sent_for_a_query_without_boosts(
    engine: FakeEngine, models: FakeModels, body: Any, settings: Any, asked: int
) -> None:
    await made(engine, models, body, **settings)
    assert asked == len(engine.of("boosts"))


PARTLY = json.dumps({"_shards": {"total": 2, "failed": 1}, "hits": {"hits": []}}).encode()


@pytest.mark.parametrize("failed", [answer(200, PARTLY), answer(500, b"{}"), answer(400, b"{}")])
async def test_after_a_shard_failure_boosts_are_requested_without_knn_documents(
    engine: FakeEngine, models: FakeModels, failed: bytes
) -> None:
    """`field_value_factor` without `missing`, and a document without the field."""

    async def fails_for_d(_: Stream, asked: Message) -> bytes | None:
        return failed if b'"d"' in asked.content else None

    boost(engine, a=1000.0)
    engine.faults["boosts"] = fails_for_d
    head = await made(engine, models)
    assert ("adcb", (), 2) == (shown(head), head.failures, len(engine.of("boosts")))


async def test_random_scores_are_ignored_and_reported(engine: FakeEngine, models: FakeModels) -> None:
    body = {"query": {"function_score": {"query": PLAIN["query"], "random_score": {}}}}
    head = await made(engine, models, body)
    assert ("dcba", [("boosts", "random_score", True)]) == (
        shown(head),
        [(each.stage, each.reason, each.by_design) for each in head.failures],
    )


async def test_an_infinite_score_is_the_largest_float(engine: FakeEngine, models: FakeModels) -> None:
    """Elasticsearch and OpenSearch write it as text."""
    hits = [{"_index": "products", "_id": name, "_score": "Infinity" if name == "b" else 3.0} for name in "abcd"]
    engine.faults["boosts"] = says(json.dumps({"hits": {"max_score": "Infinity", "hits": hits}}).encode())
    assert "bdca" == shown(await made(engine, models))


async def test_a_hanging_boost_search_ends_with_the_budget(engine: FakeEngine, models: FakeModels) -> None:
    engine.faults["boosts"] = hangs
    own = answer_of({"a": 3.0, "b": 2.0, "c": 1.0})
    async with AsyncExitStack() as stack:
        run = await run_of(plan_of("", BODY), engine, models, stack)
        stages = dataclasses.replace(run.stages, added_timeout_seconds=0.05)
        head, _ = await make_head(dataclasses.replace(run, stages=stages), own, SemanticHits(), ALONE)
    assert ("abc", [("boosts", "timeout")]) == (shown(head), [(each.stage, each.reason) for each in head.failures])
