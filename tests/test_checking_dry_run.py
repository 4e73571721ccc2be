"""`check --search` says what would happen to a search as `serve` would do it, and asks no model."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from proxy.commands.checking.dry_run import DryRun, dry_run
from proxy.endpoints.routing import SearchCall
from proxy.errors import UpstreamError
from proxy.settings.config import Config, Redact
from tests.fakes import Client, Document, FakeEngine, FakeModels, closed_port

QUERY = {"query": {"bool": {"must": {"match": {"title": "laptop"}}, "filter": {"term": {"brand": "kite"}}}}}


async def ran(
    settings: Config, body: Any = QUERY, index: str = "products", query_string: str = "", **route: Any
) -> DryRun:
    routes = [msgspec.structs.replace(each, **route) for each in settings.routes]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await dry_run(
        msgspec.structs.replace(settings, routes=tuple(routes)), {}, SearchCall(index, query_string, content)
    )


async def test_a_search_that_would_be_reranked_is_explained(settings: Config, models: FakeModels) -> None:
    """With the route, the query text, the query without that text, and the kNN search."""
    found = await ran(settings, QUERY | {"from": 20, "size": 5})
    assert "reranked" == found.outcome
    said = found.details
    assert ("products*", "laptop", "from 20, size 5", 10) == tuple(
        said[name] for name in ("route", "query_text", "page", "window")
    )
    relaxed = {"bool": {"must": {"match_all": {}}, "filter": {"term": {"brand": "kite"}}}}
    assert relaxed == said["query_without_text"]
    knn = said["kNN"]["searches"]["embedding"]["knn"]
    assert ("embedding", [], relaxed) == (knn["field"], knn["query_vector"], knn["filter"][0])
    assert [] == models.requests


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"query": {"query_string": {"query": "red OR brand:kite"}}}, "query_syntax"),
        ({"query": {"match": {"title": "shoes"}}, "min_score": 1}, "own_scores"),
    ],
)
async def test_the_reason_for_skipping_knn_is_reported(settings: Config, body: Any, why: str) -> None:
    found = await ran(settings, body)
    assert f'reranked;stages="semantic";reason={why}' == found.outcome
    assert found.details["kNN"].startswith("skipped: ")
    assert why in found.details["kNN"]


async def test_a_route_in_shadow_mode_is_reported(settings: Config) -> None:
    found = await ran(settings, mode="shadow")
    assert ("bypassed;reason=shadow", "laptop", 10) == (
        found.outcome,
        found.details["query_text"],
        found.details["window"],
    )


async def test_a_route_without_vectors_skips_knn(settings: Config) -> None:
    assert "skipped: the route has no `semantic`" == (await ran(settings, semantic=None)).details["kNN"]


async def test_unsearchable_vectors_are_reported_as_degraded(settings: Config, engine: FakeEngine) -> None:
    engine.model = None
    found = await ran(settings)
    assert 'degraded;stages="semantic";reason=unknown_model' == found.outcome
    assert "run `rerank-proxy backfill`" in found.details["kNN"]


@pytest.mark.parametrize(
    ("body", "query_string", "outcome"),
    [
        (QUERY | {"sort": "price"}, "", "bypassed;reason=sort"),
        (QUERY | {"rescore": [7]}, "", "bypassed;reason=rescore"),
        (QUERY | {"klingon": 1}, "", 'bypassed;reason=unknown_key;key="klingon"'),
        (QUERY, "scroll=1m", "bypassed;reason=scroll"),
        ({"query": {"term": {"brand": "kite"}}}, "", "bypassed;reason=no_query_text"),
        (b"{", "", "bypassed;reason=not_json"),
        (QUERY | {"ext": {"rerank_proxy": {"enabled": False}}}, "", "bypassed;reason=steered_off"),
    ],
)
async def test_the_bypass_reason_is_reported(settings: Config, body: Any, query_string: str, outcome: str) -> None:
    found = await ran(settings, body, query_string=query_string)
    assert outcome == found.outcome
    assert found.details["because"]
    assert ("klingon" if "klingon" in outcome else None) == found.details.get("key")
    assert not found.failed


async def test_the_key_that_caused_a_bypass_is_reported(settings: Config) -> None:
    found = await ran(settings, index="products-of-nobody")
    assert ("bypassed;reason=unresolved", "no index has such a name") == (found.outcome, found.details["detail"])


async def test_a_search_that_would_be_rejected_fails(settings: Config) -> None:
    found = await ran(settings, QUERY | {"ext": {"rerank_proxy": {"windw": 1}}})
    assert ("refused", True) == (found.outcome, found.failed)
    assert "did you mean `window`" in found.details["because"]


async def test_a_search_without_a_route_is_passed_through(settings: Config, engine: FakeEngine) -> None:
    engine.documents.append(Document("x", "Laptop in a log", index="logs"))
    assert "untouched" == (await ran(settings, index="logs")).outcome


async def test_an_unreachable_engine_raises(settings: Config) -> None:
    away = msgspec.structs.replace(settings.engine, url=f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(UpstreamError):
        await ran(msgspec.structs.replace(settings, engine=away))


BODIES: Mapping[str, Any] = {
    "match": QUERY,
    "sorted": QUERY | {"sort": "price"},
    "no words": {"query": {"match_all": {}}},
    "min_score": QUERY | {"min_score": 0.1},
    "size 0": QUERY | {"size": 0},
}


@pytest.mark.parametrize("name", BODIES)
async def test_the_outcome_is_that_of_serve(settings: Config, client: Client, name: str) -> None:
    served = await client.search("/products/_search", BODIES[name])
    assert served.header("x-rerank") == (await ran(settings, BODIES[name])).outcome


async def test_what_the_models_would_receive_is_shown_where_it_differs(settings: Config) -> None:
    body = {"query": {"match": {"title": "laptop of a@example.com"}}}
    redacted = await ran(settings, body, redact=Redact(kinds=("email",)))
    assert "laptop of [email]" == redacted.details["sent_to_models"]
    assert "sent_to_models" not in (await ran(settings, body)).details
    bypassed = await ran(settings, body, redact=Redact(kinds=("email",), query="bypass"))
    assert "bypassed;reason=sensitive" == bypassed.outcome
