"""The second stage: candidates fused, reranked, rendered; each document once, a failing part left out."""

import dataclasses
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from proxy.ranking.explaining import Kept
from proxy.ranking.hits import DocKey, keys
from proxy.ranking.ordering import head_of, make_head
from proxy.ranking.paging import Head
from proxy.ranking.rendering import Rendered, render
from proxy.ranking.reranking import candidates_of
from proxy.ranking.retrieval import Groups, SemanticHits
from proxy.ranking.search_response import SearchAnswer, Total, read_answer
from proxy.ranking.stages import Budget
from proxy.settings.config import RouteSettings
from proxy.settings.profiles import BLENDS, STAND_IN
from tests.fakes import Document, FakeEngine, FakeModels, Message, Stream, answer, hangs, refuses, says
from tests.plans import SEMANTIC, SETTINGS, VECTORS, plan_of
from tests.runs import run_of

BODY = {"query": {"match": {"title": "laptop"}}}
ALONE = Groups({}, {}, {})


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


def answer_of(scores: Mapping[str, float], *, total: int = 9) -> SearchAnswer:
    hits = [
        {"_index": "products", "_id": name, "_score": score, "_source": {"title": name.upper()}}
        for name, score in scores.items()
    ]
    return read_answer(json.dumps({"hits": {"total": {"value": total, "relation": "eq"}, "hits": hits}}).encode())


def names(found: Any) -> list[str]:
    return [each.id for each in found]


def key(name: str) -> DocKey:
    return DocKey("products", name)


TITLED = b",".join(
    b'{"_index":"products","_id":"%s","_score":%d,"_source":{"title":"%s"}}' % said
    for said in ((b"a", 3, b"Laptop"), (b"b", 2, b"B"), (b"c", 1, b"C"))
)
ANSWER = answer_of({"a": 3.0, "b": 2.0, "c": 1.0})
NEAR = SemanticHits(answer_of({"d": 0.95, "b": 0.9, "far": 0.4}).hits)


@pytest.mark.parametrize(("window", "expected"), [(10, ["b", "a", "d", "c"]), (2, ["b", "a"]), (1, ["a"])])
async def test_candidates_include_only_near_documents_of_knn(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack, window: int, expected: list[str]
) -> None:
    run = await run_of(plan_of("", BODY, window=window), engine, models, stack)
    assert expected == names(candidates_of(run, ANSWER, NEAR, ALONE).keys)


async def test_a_document_found_by_both_retrievers_need_not_be_near(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    run = await run_of(plan_of("", BODY), engine, models, stack)
    candidates = candidates_of(run, ANSWER, SemanticHits(answer_of({"c": 0.1}).hits), ALONE)
    assert (["c", "a", "b"], ["c"]) == (names(candidates.keys), names(candidates.semantic))


async def test_hits_of_an_index_whose_vectors_are_not_known_keep_their_places(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    """It has joined the search since its mappings were read, by an alias, and kNN is not restricted yet."""
    vectors = dataclasses.replace(VECTORS, having={"v": frozenset({"products"})})
    run = await run_of(plan_of("", BODY, window=10, vectors=vectors), engine, models, stack)
    first = msgspec.structs.replace(ANSWER.hits[0], key=DocKey("joined", "x"))
    answer = dataclasses.replace(ANSWER, hits=(first, *ANSWER.hits[1:]))
    assert ["x", "b", "d", "c"] == names(candidates_of(run, answer, NEAR, ALONE).keys)


async def test_a_group_is_one_candidate(engine: FakeEngine, models: FakeModels, stack: AsyncExitStack) -> None:
    run = await run_of(plan_of("", {**BODY, "collapse": {"field": "f"}}), engine, models, stack)
    groups = Groups({key("d"): b"1", key("a"): b"1", key("b"): b"2"}, {b"1": key("a"), b"2": key("b")}, {})
    assert ["a", "b", "c"] == names(candidates_of(run, ANSWER, SemanticHits(NEAR.hits[:1]), groups).keys)


async def made(
    engine: FakeEngine,
    models: FakeModels,
    stack: AsyncExitStack,
    *,
    semantic: SemanticHits = NEAR,
    budget: Budget | None = None,
    **changes: Any,
) -> tuple[Head, Rendered]:
    run = await run_of(dataclasses.replace(plan_of("", BODY, window=10), **changes), engine, models, stack)
    run = dataclasses.replace(run, budget=budget or Budget())
    run.budget.begin()
    return await make_head(run, ANSWER, semantic, ALONE)


@pytest.fixture
def scored(engine: FakeEngine, models: FakeModels) -> None:
    engine.documents = [Document("d", "D", cosine=0.9)]
    models.scores = {"D": 0.9, "C": 0.8, "B": 0.2, "A": 0.1}


@pytest.mark.usefixtures("scored")
async def test_the_window_is_in_the_rerankers_order(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    head, rendered = await made(engine, models, stack)
    assert (["d", "c", "b", "a"], ["d"], 1) == (names(head.keys), names(rendered.hits), head.extras)
    assert (Total(10), False, ()) == (head.total, head.untouched, head.failures)
    assert {"D", "C", "B", "A"} == set(models.of("rerank")[0].json()["documents"])


@pytest.mark.usefixtures("scored")
@pytest.mark.parametrize(
    ("semantic", "order", "untouched"), [(NEAR, ["b", "a", "d", "c"], False), (SemanticHits(), ["a", "b", "c"], True)]
)
async def test_a_failing_reranker_leaves_the_fused_order(
    engine: FakeEngine,
    models: FakeModels,
    stack: AsyncExitStack,
    semantic: SemanticHits,
    order: list[str],
    untouched: bool,  # noqa: FBT001
) -> None:
    models.faults["rerank"] = refuses(400)
    head, _ = await made(engine, models, stack, semantic=semantic)
    assert (order, untouched) == (names(head.keys), head.untouched)
    assert [("rerank", "refused")] == [(failure.stage, failure.reason) for failure in head.failures]


@pytest.mark.usefixtures("scored")
async def test_a_spent_budget_leaves_the_fused_order(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    models.faults["rerank"] = hangs
    head, _ = await made(engine, models, stack, semantic=SemanticHits(NEAR.hits[1:]), budget=Budget(0.01))
    detail = "budget: no response within 10 ms (0 of 3 passages were scored)"
    assert (["b", "a", "c"], [("rerank", "timeout", detail)]) == (
        names(head.keys),
        [(failure.stage, failure.reason, failure.detail) for failure in head.failures],
    )


@pytest.mark.usefixtures("scored")
async def test_a_spent_budget_drops_documents_that_were_not_rendered(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    engine.faults["render"] = hangs
    head, rendered = await made(engine, models, stack, budget=Budget(0.5))
    assert ({}, [("semantic", "timeout", "budget: no response within 500 ms")]) == (
        rendered.hits,
        [(failure.stage, failure.reason, failure.detail) for failure in head.failures],
    )
    assert ["c", "b", "a"] == names(head.keys)


@pytest.mark.usefixtures("scored")
async def test_a_partly_scored_window_is_reranked_as_far_as_scored(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    """The scores in the response follow this ranking, and not the engine's order."""

    async def refuses_the_second(stream: Stream, asked: Message) -> bytes | None:
        return answer(429, b"{}") if "C" in asked.json()["documents"] else None

    models.faults["rerank"] = refuses_the_second
    models.scores = {"A": 0.1, "B": 0.2}
    run = await run_of(plan_of("", BODY, window=10), engine, models, stack, batch_size=2)
    head, _ = await make_head(run, ANSWER, SemanticHits(), ALONE)
    assert (["b", "a", "c"], False) == (names(head.keys), head.untouched)
    assert [("rerank", "rate_limited", "reranker: status 429 (2 of 3 passages were scored)")] == [
        (failure.stage, failure.reason, failure.detail) for failure in head.failures
    ]


async def test_candidates_without_any_text_are_not_scored(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    """For example if `passage` names no field of the documents: every score would be the same."""
    plan = plan_of("", BODY, settings=RouteSettings(index="products", passage=["titel", "body"]), window=10)
    run = await run_of(plan, engine, models, stack)
    head, _ = await make_head(run, ANSWER, SemanticHits(), ALONE)
    assert (["a", "b", "c"], True, []) == (names(head.keys), head.untouched, models.requests)
    assert [("rerank", "no_passage", "no text in titel, body")] == [
        (failure.stage, failure.reason, failure.detail) for failure in head.failures
    ]


@pytest.mark.usefixtures("scored")
async def test_a_candidate_without_text_keeps_its_rank_and_is_counted(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    titles = {"a": "A", "b": "<br>", "c": "C"}
    hits = [
        {"_index": "products", "_id": name, "_score": 1.0, "_source": {"title": title}}
        for name, title in titles.items()
    ]
    answer = read_answer(json.dumps({"hits": {"hits": hits}}).encode())
    run = await run_of(plan_of("", BODY, window=10), engine, models, stack)
    head, _ = await make_head(run, answer, SemanticHits(), ALONE)
    assert (["c", "b", "a"], 1) == (names(head.keys), run.usage.without_text)
    assert ["A", "C"] == models.of("rerank")[0].json()["documents"]


@pytest.mark.usefixtures("scored")
async def test_the_reranker_receives_only_the_lines_of_the_template(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    settings = RouteSettings(index="products", passage=["title", "Price: {price} EUR", "{maker.name:raw}"])
    sources = {
        "a": {"title": "<b>A</b>", "price": 12.0, "secret": 1},
        "b": {"maker": [{"name": "<b>"}, {"name": "x", "margin": 9}]},
    }
    hits = [{"_index": "products", "_id": name, "_score": 1.0, "_source": source} for name, source in sources.items()]
    answer = read_answer(json.dumps({"hits": {"hits": hits}}).encode())
    run = await run_of(plan_of("", BODY, settings=settings, window=10), engine, models, stack)
    await make_head(run, answer, SemanticHits(), ALONE)
    assert ["A\nPrice: 12 EUR", "<b>, x"] == models.of("rerank")[0].json()["documents"]


@pytest.mark.parametrize(("passages", "order", "count"), [(1, ["b", "c", "a"], 3), (2, ["a", "b", "c"], 4)])
async def test_the_better_of_two_passages_counts(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack, passages: Any, order: list[str], count: int
) -> None:
    filler = "Nothing of interest. " * 20
    titles = {"a": f"A\n{filler}\nA good laptop. {filler}", "b": "B", "c": "C"}
    hits = [
        {"_index": "products", "_id": name, "_score": 1.0, "_source": {"title": title}}
        for name, title in titles.items()
    ]
    answer = read_answer(json.dumps({"hits": {"hits": hits}}).encode())
    settings = RouteSettings(index="products", passage=["title"], passages_per_document=passages)
    plan = dataclasses.replace(plan_of("", BODY, settings=settings, window=10), explains=True)
    run = await run_of(plan, engine, models, stack)
    scores = [0.1, 0.9, 0.5, 0.4] if passages > 1 else [0.1, 0.5, 0.4]
    models.faults["rerank"] = says(json.dumps({"scores": scores}).encode())
    head, _ = await make_head(run, answer, SemanticHits(), ALONE)
    documents = models.of("rerank")[0].json()["documents"]
    assert (order, count) == (names(head.keys), len(documents))
    read = documents[1 if passages > 1 else 0]
    assert head.explanations[key("a")].passage_length == len(read)
    assert ("laptop" in read) == (passages > 1)


@pytest.mark.usefixtures("scored")
async def test_explanations_have_ranks_and_scores(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    head, _ = await made(engine, models, stack, explains=True)
    b = head.explanations[key("b")]
    assert b.lexical is not None
    assert b.semantic is not None
    assert ((2, 2.0), (2, 0.9), 0.2, 1) == (
        (b.lexical.rank, b.lexical.score),
        (b.semantic.rank, b.semantic.score),
        b.rerank,
        b.passage_length,
    )
    assert head.explanations[key("d")].lexical is None


@pytest.mark.parametrize("source", [{}, {"_source": False}])
@pytest.mark.parametrize("rerank", [True, False])
async def test_an_exact_match_is_not_moved_down_by_any_stage(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack, *, rerank: bool, source: Any
) -> None:
    """Neither by the reranker nor by kNN, whether or not the client sees the documents."""
    engine.documents = [Document("a", "Laptop", lexical=3.0), Document("b", "B"), Document("c", "C")]
    answer, near = answer_of({"a": 3.0, "b": 2.0, "c": 1.0}), SemanticHits(answer_of({"b": 0.95, "c": 0.9}).hits)
    answer = answer if source else read_answer(b'{"hits":{"hits":[%s]}}' % TITLED)
    models.scores = {"Laptop": 0.1, "B": 0.8, "C": 0.9}
    settings = RouteSettings(index="products", passage=["title"], semantic=SEMANTIC, rerank=rerank)
    plan = dataclasses.replace(plan_of("", {**BODY, **source}, settings=settings, window=10), explains=True)
    run = await run_of(plan, engine, models, stack)
    head, _ = await make_head(run, answer, near, ALONE)
    assert ("a", Kept(1, "exact_match")) == (head.keys[0].id, head.explanations[key("a")].kept)
    assert head.explanations[key("b")].kept is None


OPPOSED = {"a": 0.2, "b": 0.1, "c": 0.3}
BY_SCORES, BLENDED = ["c", "a", "b"], ["a", "c", "b"]


@pytest.mark.parametrize(
    ("answering", "blend", "expected"),
    [
        (None, None, BY_SCORES),
        ("Qwen/Qwen3-Reranker-4B", None, BY_SCORES),
        (STAND_IN, None, BLENDED),
        (STAND_IN, 0.0, BY_SCORES),
        (None, BLENDS[STAND_IN].weight, BLENDED),
    ],
)
async def test_the_blend_weight_is_the_routes_or_the_responding_models(
    engine: FakeEngine,
    models: FakeModels,
    stack: AsyncExitStack,
    answering: str | None,
    blend: float | None,
    expected: list[str],
) -> None:
    """The local models respond with their own name, whatever model the route names."""
    models.faults["rerank"] = says(json.dumps({"scores": list(OPPOSED.values()), "model": answering}).encode())
    settings = msgspec.structs.replace(SETTINGS, blend=blend, passage=["title"])
    run = await run_of(plan_of("", BODY, settings=settings, window=3), engine, models, stack)
    head, _ = await make_head(run, ANSWER, SemanticHits(), ALONE)
    assert expected == names(head.keys)


@pytest.mark.usefixtures("scored")
async def test_a_hit_beyond_the_window_has_no_lexical_rank(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    """It did not count in the fusion, even if the page is long enough to show it."""
    head, _ = await made(
        engine, models, stack, semantic=SemanticHits(answer_of({"c": 0.95}).hits), window=2, explains=True
    )
    assert {"a": 1, "c": None} == {
        name.id: told.lexical and told.lexical.rank for name, told in head.explanations.items()
    }


@pytest.mark.parametrize(
    "said",
    [
        b'{"hits":{"hits":[]}}',
        b'{"timed_out":true,"hits":{"hits":[]},"aggregations":{"matched":{"doc_count":0}}}',
        b'{"hits":{"hits":[]},"aggregations":{"matched":{"doc_count":0},"\xff":{"doc_count":0}}}',
    ],
)
async def test_documents_that_cannot_be_rendered_are_dropped_and_not_counted(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack, said: bytes
) -> None:
    engine.faults["render"] = says(said)
    head, rendered = await made(engine, models, stack)
    assert (["a", "b", "c"], {}, 0) == (sorted(names(head.keys)), rendered.hits, head.extras)
    assert ["semantic"] == [failure.stage for failure in head.failures]


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        (rb'{"title":"A \ud83d"}', ["A ?", "B"]),
        (b'{"title":"A","n":1e999}', ["A", "B"]),
        (b'{"title":"\xff"}', ["B"]),
        (b'{"title":"A","n":%s}' % (b"[" * 50_000 + b"]" * 50_000), ["B"]),
    ],
)
async def test_a_malformed_document_is_read_as_far_as_possible(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack, source: bytes, texts: list[str]
) -> None:
    run = await run_of(plan_of("", BODY, window=10), engine, models, stack)
    answer = answer_of({"a": 3.0, "b": 2.0})
    odd = msgspec.structs.replace(answer.hits[0], members={**answer.hits[0].members, "_source": msgspec.Raw(source)})
    answer = dataclasses.replace(answer, hits=(odd, answer.hits[1]))
    head, _ = await make_head(run, answer, SemanticHits(), ALONE)
    assert (texts, 2, ()) == (models.of("rerank")[0].json()["documents"], len(head.ranking), head.failures)


async def test_without_missing_documents_no_search_is_sent(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    run = await run_of(plan_of("", BODY), engine, models, stack)
    assert (Rendered(), []) == (await render(run, [], {}), engine.requests)


async def test_a_document_deleted_in_the_meantime_is_not_ranked(
    engine: FakeEngine, models: FakeModels, stack: AsyncExitStack
) -> None:
    run = await run_of(plan_of("", BODY), engine, models, stack)
    candidates = candidates_of(run, ANSWER, NEAR, ALONE)
    head = head_of(run, candidates.ranking, ANSWER, Rendered(), ALONE, failures=())
    assert (["b", "a", "c"], Total(9)) == (names(keys(head.ranking)), head.total)
