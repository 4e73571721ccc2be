"""`check` says of each route whether what a search of it needs is there, and what to do where it is not."""

import ast
import inspect
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from proxy import planning
from proxy.checking import ADVICE, Finding, check
from proxy.config import Config
from tests.fakes import FakeServer, Message, answer, closed_port, refuses

MAPPED = {"type": "dense_vector", "dims": 3, "similarity": "cosine"}
META = {"rerank_proxy": {"v": {"model": "m", "dimensions": 3, "passage": ["title"]}}}
FIT = {"_meta": META, "properties": {"v": MAPPED}}


class Cluster(FakeServer):
    """An engine that knows the mappings of its indices. Kinds of its requests: resolve, facts."""

    def __init__(self, **mappings: Any) -> None:
        super().__init__()
        self.mappings = mappings

    def kind(self, request: Message) -> str:
        return "resolve" if request.path.startswith("/_resolve/index/") else "facts"

    def usual(self, request: Message) -> bytes:
        said: Any = {name: {"mappings": mapping} for name, mapping in self.mappings.items()}
        if self.kind(request) == "resolve":
            said = {"indices": [{"name": name} for name in self.mappings], "aliases": [], "data_streams": []}
        return answer(200, msgspec.json.encode(said))


async def findings(
    url: str, *routes: Mapping[str, Any], environment: Mapping[str, str] | None = None, **engine: Any
) -> list[Finding]:
    settings = {"engine": {"url": url, **engine}, "models": {"url": "http://127.0.0.1:1"}, "routes": routes}
    return [found async for found in check(msgspec.convert(settings, Config), environment or {})]


def semantic(**settings: Any) -> dict[str, Any]:
    return {"index": "a*", "semantic": {"field": "v", "dimensions": 3}} | settings


@pytest.mark.parametrize(
    ("mapping", "route", "kind", "said"),
    [
        (FIT, semantic(), "ok", "1 indices, 3 dimensions by m"),
        ({}, {"index": "a*"}, "ok", "1 indices, BM25 and the reranker"),
        (FIT, semantic(embedding_model="m"), "ok", "1 indices, 3 dimensions by m"),
        (
            FIT,
            semantic(embedding_model="n"),
            "wrong",
            "other_model (m): the vectors of the index are from another model",
        ),
        (FIT, semantic(semantic={"field": "v", "dimensions": 4}), "wrong", "other_dimensions (3): "),
        (FIT, semantic(semantic={"field": "w", "dimensions": 3}), "wrong", "no_vector_field (w): "),
        ({"properties": {"v": MAPPED}}, semantic(), "wrong", "unknown_model: "),
        ({"properties": {"v": MAPPED}}, semantic(embedding_model="n"), "ok", "1 indices, 3 dimensions by n"),
        (
            {"properties": {"v": {"type": "knn_vector", "dimension": 3}}},
            semantic(embedding_model="n"),
            "ok",
            "1 indices, 3 dimensions by n",
        ),
        (
            {"properties": {"r": {"type": "nested", "properties": {"v": {"type": "knn_vector", "dimension": 3}}}}},
            semantic(semantic={"field": "r.v", "dimensions": 3}, embedding_model="n"),
            "ok",
            "1 indices, 3 dimensions by n",
        ),
    ],
)
async def test_a_route_is_held_against_the_mapping(mapping: Any, route: Any, kind: str, said: str) -> None:
    async with Cluster(a1=mapping) as cluster:
        *_, found = await findings(cluster.url, route)
    assert (found.kind, found.place) == (kind, "a*")
    assert found.said.startswith(said)


async def test_vectors_of_two_models_in_one_route_are_wrong() -> None:
    other = {"_meta": {"rerank_proxy": {"v": {"model": "n"}}}, "properties": {"v": MAPPED}}
    async with Cluster(a1=FIT, a2=other) as cluster:
        *_, found = await findings(cluster.url, semantic())
    assert (found.kind, found.said.startswith("mixed_vectors")) == ("wrong", True)


async def test_an_index_that_is_not_there_yet_is_worth_a_note() -> None:
    async with Cluster() as cluster:
        *_, found = await findings(cluster.url, semantic())
    assert found == Finding("note", "a*", "no index has such a name yet")


async def test_an_engine_that_refuses_is_worth_a_note_for_each_route() -> None:
    async with Cluster(a1=FIT) as cluster:
        cluster.faults = {"facts": refuses(403)}
        found = await findings(cluster.url, semantic(), semantic(index="b"))
    assert [(entry.kind, entry.place) for entry in found[2:]] == [("note", "a*"), ("note", "b")]


async def test_an_engine_that_is_not_there_is_one_note() -> None:
    found = await findings(f"http://127.0.0.1:{closed_port()}", semantic(), semantic(index="b"))
    assert [(entry.kind, entry.place) for entry in found[2:]] == [("note", "engine")]


async def test_the_proxys_own_authorization_is_used_and_not_told() -> None:
    async with Cluster(a1=FIT) as cluster:
        found = await findings(cluster.url, semantic(), environment={"AUTH": "ApiKey s3cret"}, authorization_env="AUTH")
        assert {request.header("authorization") for request in cluster.requests} == {"ApiKey s3cret"}
    assert "s3cret" not in repr(found)


async def test_no_route_is_fine() -> None:
    found = await findings("http://127.0.0.1:1")
    assert [(entry.kind, entry.said) for entry in found] == [
        ("ok", "no routes: all passes through"),
        ("ok", "DEEPINFRA_TOKEN is not needed"),
    ]


def test_there_is_advice_for_every_reason_to_leave_out_the_semantic_retriever() -> None:
    functions = (planning.vector_search, planning._problem)  # noqa: SLF001
    trees = [ast.parse(inspect.getsource(function)) for function in functions]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    failures = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Failure"]
    reasons = {reason.value for call in failures if isinstance(reason := call.args[1], ast.Constant)}
    assert reasons == ADVICE.keys()
