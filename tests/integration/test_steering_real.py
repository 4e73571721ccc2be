"""Per-request options are applied, and the engine never sees them."""

import hashlib
import json
from typing import Any

import pytest

from proxy.settings.profiles import PROFILES
from tests.fakes import hangs
from tests.integration import shop as catalogue
from tests.integration.comparing import but_score, comparable, without_outcome
from tests.integration.conftest import Open, Shop, Sides
from tests.integration.engines import EVERYWHERE, WITH_KNN, RealEngine
from tests.integration.models import ShopModels, by_hash
from tests.integration.relay import Relay
from tests.integration.sending import JSON, Client, Reply, Request, send

pytestmark = [pytest.mark.engine, EVERYWHERE]

BODY: dict[str, Any] = {"query": {"match": {"title": "laptop"}}, "size": 20, "_source": ["title"]}
HOW = ["headers", "body"]


async def _steered(client: Client, said: dict[str, Any], how: str, body: dict[str, Any] | None = None) -> Reply:
    """Search with options in headers, or in the body's `ext`."""
    asked, headers = dict(body or BODY), dict(JSON)
    if how == "body":
        asked["ext"] = {"rerank_proxy": said}
    else:
        headers |= {f"X-Rerank-{name.replace('_', '-').title()}": _text(value) for name, value in said.items()}
    request = Request("POST", f"/{client.index}/_search", json.dumps(asked).encode(), headers)
    return await send(client.url, request)


def _text(value: Any) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("how", HOW)
async def test_enabled_false_returns_the_engines_order(how: str, open_sides: Open, models: ShopModels) -> None:
    """The search is the engine's own."""
    sides = await open_sides()
    straight, through = await sides.straight.search(BODY), await _steered(sides.through, {"enabled": False}, how)
    assert ("bypassed;reason=steered_off", []) == (through.outcome, models.requests)
    assert comparable(straight) == comparable(without_outcome(through))


@pytest.mark.parametrize("how", HOW)
async def test_enabled_true_reranks(how: str, open_sides: Open) -> None:
    sides = await open_sides()
    usual, through = await sides.through.search(BODY), await _steered(sides.through, {"enabled": True}, how)
    assert ("reranked", usual.json["hits"]) == (through.outcome, through.json["hits"])


@pytest.mark.parametrize("how", HOW)
async def test_a_query_text_option_is_sent_to_the_models_only(
    how: str, real_engine: RealEngine, open_sides: Open, models: ShopModels
) -> None:
    """The engine gets the client's query, which does not contain it."""
    sides = await open_sides()
    through = await _steered(sides.through, {"query": "a notebook for children"}, how)
    expected = (real_engine.without_knn("given_text"), ["a notebook for children"])
    assert expected == (through.outcome, models.reranked[0]["queries"])
    assert sorted((await sides.straight.search({**BODY, "size": 100})).ids[: len(through.ids)]) == sorted(through.ids)
    assert [] == models.embedded


@pytest.mark.parametrize("how", HOW)
async def test_a_query_text_option_found_in_the_query_enables_knn(
    how: str, real_engine: RealEngine, open_sides: Open, models: ShopModels
) -> None:
    """In whatever case."""
    sides = await open_sides()
    query = {"bool": {"must": [{"match": {"description": "office"}}, {"match": {"title": "laptop"}}]}}
    body = {"query": query, "size": 100}
    through = await _steered(sides.through, {"query": "Laptop"}, how, body)
    assert "reranked" == through.outcome
    assert [["Laptop"]] * real_engine.has_knn == [call["queries"] for call in models.reranked]  # else there is one hit
    office = await sides.straight.search({"query": {"match": {"description": "office"}}, "size": 100})
    assert set((await sides.straight.search(body)).ids) <= set(through.ids) <= set(office.ids)
    asked = [call["input"][0].rpartition("Query:")[2] for call in models.embedded]
    assert asked == (["Laptop"] if real_engine.has_knn else [])


@pytest.mark.parametrize("how", HOW)
async def test_a_query_text_option_reranks_a_query_without_text(
    how: str, open_sides: Open, real_engine: RealEngine
) -> None:
    """It orders what the query finds, and nothing more is found."""
    sides = await open_sides()
    body = {"query": {"bool": {"filter": [{"term": {"brand": "acme"}}]}}, "size": 30}
    through = await _steered(sides.through, {"query": "laptop"}, how, body)
    straight = await sides.straight.search(body)
    expected = (real_engine.without_knn("given_text"), sorted(straight.ids), straight.total)
    assert expected == (through.outcome, sorted(through.ids), through.total)


@pytest.mark.parametrize("how", HOW)
async def test_a_window_option_limits_the_reranked_hits(how: str, open_sides: Open, models: ShopModels) -> None:
    """No more than these are reranked."""
    sides = await open_sides()
    through = await _steered(sides.through, {"window": 3}, how)
    assert ("reranked", 3) == (through.outcome, len(models.reranked[0]["documents"]))


@pytest.mark.parametrize("how", HOW)
async def test_an_instruction_option_reaches_the_reranker(how: str, open_sides: Open, models: ShopModels) -> None:
    """A profile's or one of the request's own."""
    sides = await open_sides()
    await _steered(sides.through, {"profile": "legal"}, how)
    await _steered(sides.through, {"profile": "legal", "instruction": "Find the oldest."}, how)
    assert [PROFILES["legal"].instruction, "Find the oldest."] == [call["instruction"] for call in models.reranked]


@pytest.mark.parametrize("how", HOW)
async def test_a_budget_option_limits_the_added_time(how: str, open_sides: Open, models: ShopModels) -> None:
    """Whatever the timeouts of the models."""
    models.faults = {"rerank": hangs}
    sides = await open_sides(sections={"models": {"rerank_timeout_seconds": 600}})
    through = await _steered(sides.through, {"budget_ms": 150}, how)
    assert through.outcome.startswith("degraded")
    assert through.outcome.endswith("reason=timeout")
    assert set((await sides.straight.search(BODY)).ids) <= set(through.ids)


@pytest.mark.parametrize("how", HOW)
async def test_an_explain_option_adds_ranks_and_scores_to_each_hit(how: str, open_sides: Open) -> None:
    """As the engine and the model returned them."""
    sides = await open_sides()
    straight, through = await sides.straight.search(BODY), await _steered(sides.through, {"explain": True}, how)
    lexical = {hit["_id"]: {"rank": rank, "score": hit["_score"]} for rank, hit in enumerate(straight.hits, start=1)}
    for hit in through.hits:
        said, passage = hit["_rerank"], catalogue.passage(catalogue.PRODUCTS[hit["_id"]])
        assert lexical.get(hit["_id"]) == said.get("lexical")
        assert (hit["_score"], by_hash(passage)) == (pytest.approx(said["final"], abs=1e-6), said["rerank"])
        digest = hashlib.sha256(passage.encode()).hexdigest()[:16]
        assert {"sha256": digest, "characters": len(passage)} == said["passage"]
    assert ("reranked", set(lexical)) == (through.outcome, lexical.keys() & set(through.ids))


@WITH_KNN
async def test_the_explanation_is_the_same_on_every_page(open_sides: Open) -> None:
    sides = await open_sides(rank_window_size=4)
    few, many = [await _steered(sides.through, {"explain": True}, "headers", BODY | {"size": size}) for size in (4, 40)]
    assert [hit["_rerank"] for hit in many.hits[:4]] == [hit["_rerank"] for hit in few.hits]


@WITH_KNN
async def test_the_explanation_has_the_rank_and_score_of_knn(real_engine: RealEngine, open_sides: Open) -> None:
    """For what kNN found."""
    sides = await open_sides()
    nearest = await sides.straight.search(real_engine.nearest("embedding", catalogue.embed("laptop"), 50))
    through = await _steered(sides.through, {"explain": True}, "headers")
    said = {hit["_id"]: hit["_rerank"]["semantic"] for hit in through.hits if "semantic" in hit["_rerank"]}
    expected = {hit["_id"]: hit["_score"] for hit in nearest.hits}
    assert {name: pytest.approx(expected[name]) for name in said} == {name: of["score"] for name, of in said.items()}
    assert set(through.ids) - set((await sides.straight.search(BODY)).ids) <= said.keys()


async def test_the_engines_explanation_is_preserved(open_sides: Open) -> None:
    """With `explain: true`, beside the proxy's."""
    sides = await open_sides()
    straight = await sides.straight.search(BODY | {"explain": True})
    through = await _steered(sides.through, {"explain": True}, "headers", BODY | {"explain": True})
    theirs = {hit["_id"]: but_score(hit) for hit in straight.hits}
    ours = {
        hit["_id"]: {key: value for key, value in but_score(hit).items() if key != "_rerank"} for hit in through.hits
    }
    assert theirs == {name: hit for name, hit in ours.items() if name in theirs}


BYPASSED: dict[str, dict[str, Any]] = {
    "size_zero": {**BODY, "size": 0},
    "sort": {**BODY, "sort": ["price"]},
    "no_query_text": {"query": {"term": {"brand": "acme"}}},
    'unknown_key;key="siez"': {**BODY, "siez": 1},
}


@pytest.mark.parametrize("reason", BYPASSED)
async def test_options_are_removed_from_bypassed_searches(reason: str, open_sides: Open) -> None:
    """The engine rejects an unknown `ext`."""
    sides, body = await open_sides(), BYPASSED[reason]
    assert 400 == (await _steered(sides.straight, {"explain": True}, "body", body)).status
    without = await sides.straight.search(body)
    through = await _steered(sides.through, {"explain": True}, "body", body)
    assert f"bypassed;reason={reason}" == through.outcome
    assert comparable(without) == comparable(without_outcome(through))


@pytest.mark.parametrize(
    "spelled", [b'{"ext": {"rerank_proxy": {"window": 3}}, %s', b'{%s, "ext":{"rerank_proxy":{"window":3}}']
)
async def test_removing_options_keeps_every_other_byte(
    spelled: bytes, real_engine: RealEngine, shop: Shop, open_sides: Open
) -> None:
    """Of the client's body."""
    rest = b'"size": 0,  "query":{"match" : {"title":"laptop"}}'
    body = spelled % (rest + b"}" if spelled.endswith(b"%s") else rest) + (b"" if spelled.endswith(b"%s") else b"}")
    async with Relay(real_engine.url) as relay:
        sides = await open_sides(sections={"engine": {"url": relay.url}})
        through = await sides.through.search(body)
        seen = [request.body for request in relay.searches() if request.target.endswith("/_search")]
    assert (200, "bypassed;reason=size_zero") == (through.status, through.outcome)
    assert [True] == [rest in each and b"rerank_proxy" not in each for each in seen]


async def test_option_headers_do_not_reach_the_engine(real_engine: RealEngine, open_sides: Open) -> None:
    """Neither in the client's request nor in added searches."""
    async with Relay(real_engine.url) as relay:
        sides = await open_sides(sections={"engine": {"url": relay.url}})
        await _steered(sides.through, {"window": 3, "query": "secret words"}, "headers")
        names = {name.lower() for request in relay.requests for name in request.headers}
    assert [] == [name for name in names if name.startswith("x-rerank-")]
    assert not any(b"secret words" in request.body for request in relay.requests)


async def test_options_without_a_route_are_left_to_the_engine(shop: Shop, open_sides: Open) -> None:
    """It rejects the unknown `ext`."""
    sides = await open_sides(shop.plain)
    straight = await _steered(sides.straight, {"window": "wide"}, "body")
    through = await _steered(sides.through, {"window": "wide"}, "body")
    assert (400, "") == (straight.status, through.outcome)
    assert comparable(straight) == comparable(through)


WRONG: dict[str, dict[str, Any]] = {
    "no number": {"window": "wide"},
    "too small": {"window": -1},
    "nothing": {"window": 0},
    "no profile": {"profile": "shopping"},
    "unknown": {"model": "Qwen/Qwen3-Reranker-8B"},
    "a field": {"passage": "secret"},
    "too long": {"instruction": "x" * 3000},
    "no switch": {"enabled": "perhaps"},
    "no time": {"budget_ms": -1},
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("said", WRONG.values(), ids=WRONG)
async def test_invalid_options_are_rejected_in_the_engines_format(
    said: dict[str, Any], how: str, open_sides: Open, models: ShopModels
) -> None:
    """No search is sent."""
    sides = await open_sides()
    through = await _steered(sides.through, said, how)
    own = await sides.straight.search({"nosuch": 1})
    assert (400, "bypassed;reason=steering", []) == (through.status, through.outcome, models.requests)
    assert (own.json.keys(), "illegal_argument_exception") == (through.json.keys(), through.json["error"]["type"])
    assert own.header("X-Elastic-Product") == through.header("X-Elastic-Product")


async def test_a_disallowed_option_is_rejected(open_sides: Open) -> None:
    """One that the settings do not list."""
    sides = await open_sides(sections={"steering": ["window"]})
    allowed, refused = (
        await _steered(sides.through, {"window": 3}, "body"),
        await _steered(sides.through, {"query": "x"}, "body"),
    )
    assert (200, 400) == (allowed.status, refused.status)


async def test_multi_search_items_have_their_own_options(shop: Shop, open_sides: Open, models: ShopModels) -> None:
    """An invalid one is an error of its item."""
    sides = await open_sides()
    others = {"query": {"match": {"title": "phone"}}}
    steered = ({"window": 2}, {"window": "x"})
    bodies = [BODY, *(BODY | others | {"ext": {"rerank_proxy": options}} for options in steered)]
    lines = [line for body in bodies for line in ({"index": shop.index}, body)]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    request = Request("POST", "/_msearch", content, {"Content-Type": "application/x-ndjson"})
    through = await send(sides.through.url, request)
    assert "reranked, reranked, bypassed;reason=steering" == through.outcome
    assert [200, 200, 400] == [each["status"] for each in through.json["responses"]]
    assert 2 in {len(call["documents"]) for call in models.reranked}


async def test_searches_with_options_have_pages_of_their_own(open_sides: Open) -> None:
    """Of their own ranking."""
    sides: Sides = await open_sides()
    whole = await _steered(sides.through, {"window": 4}, "body", BODY | {"size": 50})
    pages = [
        await _steered(sides.through, {"window": 4}, "body", BODY | {"from": first, "size": 3})
        for first in range(0, 18, 3)
    ]
    assert whole.ids == [name for page in pages for name in page.ids]
