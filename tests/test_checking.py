"""`check` says whether a file, the engine, its indices and the models are all right, and what to do where not."""

import ast
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from proxy.commands.checking.findings import Finding, exit_code
from proxy.commands.checking.routes import ADVICE
from proxy.commands.checking.run import check
from proxy.ranking import planning
from proxy.settings.config import Config
from proxy.settings.yaml_file import YamlFile
from tests.canaries import known_scores
from tests.fakes import FakeModels, FakeServer, Message, answer, closed_port, refuses, says
from tests.redis_server import free_port, needs_redis, redis_server

MAPPED = {"type": "dense_vector", "dims": 3, "similarity": "cosine"}
TITLE = {"title": {"type": "text"}}
META = {"rerank_proxy": {"v": {"model": "m", "dimensions": 3, "passage": ["title"]}}}
FIT = {"_meta": META, "properties": {"v": MAPPED, **TITLE}}


class Cluster(FakeServer):
    """An engine that knows the mappings of its indices. Kinds of its requests: version, resolve, facts."""

    def __init__(self, **mappings: Any) -> None:
        super().__init__()
        self.mappings = mappings
        self.aliases: dict[str, list[str]] = {}
        self.version: Any = {"version": {"number": "8.19.13"}}

    def kind(self, request: Message) -> str:
        if request.path == "/":
            return "version"
        return "resolve" if request.path.startswith("/_resolve/index/") else "facts"

    def usual(self, request: Message) -> bytes:
        asked = request.path.rpartition("/")[2].split(",")
        known = {name: mapping for name, mapping in self.mappings.items() if any(fnmatchcase(name, a) for a in asked)}
        said: Any = {name: {"mappings": mapping} for name, mapping in known.items()}
        if self.kind(request) == "resolve":
            aliases = [{"name": name, "indices": held} for name, held in self.aliases.items() if name in asked]
            said = {"indices": [{"name": name} for name in known], "aliases": aliases, "data_streams": []}
        return answer(200, msgspec.json.encode(self.version if self.kind(request) == "version" else said))


GOOD_SCORES = known_scores(0.9, 0.1)


async def findings(
    url: str | list[str],
    *routes: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    models: Mapping[str, Any] | None = None,
    cache: Mapping[str, Any] | None = None,
    sections: Mapping[str, Any] | None = None,
    offline: bool = False,
    **engine: Any,
) -> list[Finding]:
    """Check settings with these routes; the models are fine where nothing is said."""
    async with FakeModels(GOOD_SCORES) as fine:
        settings = {
            "engine": {"url": url, **engine},
            "models": models or {"url": fine.url},
            "cache": cache or {},
            **(sections or {}),
            "routes": routes,
        }
        file = YamlFile.parse(yaml.safe_dump(msgspec.to_builtins(settings)), "config.yaml")
        config = msgspec.convert(settings, Config)
        return [found async for found in check(config, environment or {}, file, offline=offline)]


def at(place: str, found: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(entry.kind, entry.said) for entry in found if entry.place == place]


def semantic(**settings: Any) -> dict[str, Any]:
    return {"index": "a*", "passage": ["title"], "semantic": {"field": "v", "dimensions": 3}} | settings


@pytest.mark.parametrize(
    ("mapping", "route", "kind", "said"),
    [
        (FIT, semantic(), "ok", "1 index, 3 dimensions by m"),
        (
            {"properties": {"title": {"type": "text"}}},
            {"index": "a*", "passage": ["title"]},
            "ok",
            "1 index, BM25 and the reranker",
        ),
        (FIT, semantic(embedding_model="m"), "ok", "1 index, 3 dimensions by m"),
        (
            FIT,
            semantic(embedding_model="n"),
            "wrong",
            "other_model (m): the vectors of the index are from another model",
        ),
        (FIT, semantic(semantic={"field": "v", "dimensions": 4}), "wrong", "other_dimensions (3): "),
        (FIT, semantic(semantic={"field": "w", "dimensions": 3}), "wrong", "no_vector_field (w): "),
        ({"properties": {"v": MAPPED, **TITLE}}, semantic(), "wrong", "unknown_model: "),
        ({"properties": {"v": MAPPED, **TITLE}}, semantic(embedding_model="n"), "ok", "1 index, 3 dimensions by n"),
        (
            {"properties": {"v": {"type": "knn_vector", "dimension": 3}, **TITLE}},
            semantic(embedding_model="n"),
            "ok",
            "1 index, 3 dimensions by n",
        ),
        (
            {
                "properties": {
                    "r": {"type": "nested", "properties": {"v": {"type": "knn_vector", "dimension": 3}}},
                    **TITLE,
                }
            },
            semantic(semantic={"field": "r.v", "dimensions": 3}, embedding_model="n"),
            "ok",
            "1 index, 3 dimensions by n",
        ),
    ],
)
async def test_a_route_is_compared_with_the_mapping(mapping: Any, route: Any, kind: str, said: str) -> None:
    async with Cluster(a1=mapping) as cluster:
        (found,) = at("a*", await findings(cluster.url, route))
    assert found[0] == kind
    assert found[1].startswith(said)


async def test_indices_without_vectors_beside_one_with_them_are_noted() -> None:
    async with Cluster(a1=FIT, a2={"properties": TITLE}, a3={"properties": TITLE}) as cluster:
        (fits, (kind, said)) = at("a*", await findings(cluster.url, semantic()))
    assert ("ok", "3 indices, 3 dimensions by m") == fits
    assert ("note", "2 of 3 indices have no vector field 'v': kNN finds nothing there") == (
        kind,
        said.partition(",")[0],
    )


async def test_vectors_of_two_models_in_one_route_are_an_error() -> None:
    other = {"_meta": {"rerank_proxy": {"v": {"model": "n"}}}, "properties": {"v": MAPPED, **TITLE}}
    async with Cluster(a1=FIT, a2=other) as cluster:
        (found,) = at("a*", await findings(cluster.url, semantic()))
    assert (found[0], found[1].startswith("mixed_vectors")) == ("wrong", True)


async def test_vectors_that_do_not_fit_the_route_are_named() -> None:
    """KNN searches the others."""
    other = {"_meta": {"rerank_proxy": {"v": {"model": "n"}}}, "properties": {"v": MAPPED, **TITLE}}
    async with Cluster(a1=FIT, a2=other) as cluster:
        fits, (kind, said) = at("a*", await findings(cluster.url, semantic(embedding_model="m")))
    assert ("ok", "2 indices, 3 dimensions by m") == fits
    assert ("wrong", "mixed_vectors (not searched: a2)") == (kind, said.partition(": the indices")[0])


async def test_a_missing_index_is_a_warning() -> None:
    async with Cluster() as cluster:
        assert [("note", "no index has this name yet")] == at("a*", await findings(cluster.url, semantic()))


async def test_an_engine_that_rejects_requests_is_a_warning_per_route() -> None:
    async with Cluster(a1=FIT, b=FIT) as cluster:
        cluster.faults = {"facts": refuses(403)}
        found = await findings(cluster.url, semantic(), semantic(index="b"))
    assert {"a*": "note", "b": "note"} == {entry.place: entry.kind for entry in found if entry.place in {"a*", "b"}}


# Passages.

UNMAPPED = ["brand", "category", "price", "currency", "rating", "reviews", "color", "size", "attributes", "description"]


@pytest.mark.parametrize(
    ("passage", "found"),
    [
        (["title"], []),
        (["maker"], []),
        (["maker.name"], []),
        (["meaning.text"], []),
        (["titel"], [("wrong", "passage: titel is not in the mapping, did you mean `title`?")]),
        (["title", "maker.nam"], [("wrong", "passage: maker.nam is not in the mapping, did you mean `maker.name`?")]),
        (["title.english"], [("wrong", "passage: title.english is a multi-field: documents have title")]),
        (["label"], [("wrong", "passage: label is an alias: documents have title")]),
        (["title", "Maker: {maker.name}", "{facts.weight} kg", "{flat.colour}", "{raw.text:raw}"], []),
        (
            ["title", "By {maker.nam}"],
            [("wrong", "passage: maker.nam is not in the mapping, did you mean `maker.name`?")],
        ),
        (
            None,
            [
                ("note", f"passage: not in the mapping, of the profile e-commerce: {', '.join(UNMAPPED)}"),
            ],
        ),
    ],
)
async def test_a_passage_is_compared_with_the_mapping(passage: Any, found: Any) -> None:
    """A misspelt field has no text, and then every hit gets the same score."""
    mapping = {
        "properties": {
            "title": {"type": "text", "fields": {"english": {"type": "text"}}},
            "label": {"type": "alias", "path": "title"},
            "maker": {"properties": {"name": {"type": "keyword"}}},
            "facts": {"dynamic": False, "properties": {"colour": {"type": "keyword"}}},
            "flat": {"type": "flattened"},
            "meaning": {"type": "semantic_text"},
            "raw": {"type": "object", "enabled": False},
        }
    }
    route = {"index": "a*"} | ({"passage": passage} if passage else {})
    async with Cluster(a1=mapping) as cluster:
        said = at("a*", await findings(cluster.url, route))
    assert [("ok", "1 index, BM25 and the reranker"), *found] == said


async def test_a_profile_without_any_existing_field_is_an_error() -> None:
    async with Cluster(a1={"properties": {"heading": {"type": "text"}}}) as cluster:
        said = at("a*", await findings(cluster.url, {"index": "a*"}))
    said_of_passage = "the mapping has no field title, brand, description of the profile e-commerce: set `passage`"
    assert [("ok", "1 index, BM25 and the reranker"), ("wrong", f"passage: {said_of_passage}")] == said


# Routes beside each other.


@pytest.mark.parametrize(
    ("first", "second", "kinds"),
    [
        ("a*", "b*", []),
        ("a-*", "a*", []),
        ("a*", "a-*", ["wrong"]),
        ("*", ".a*", []),
        ("a*", ["b", "a-*"], ["wrong"]),
        ("a*", "a", ["note"]),
        ("a", "a", ["wrong"]),
        ("a*", "a*", ["wrong"]),
        (["b", "b"], "a", ["wrong"]),
    ],
)
async def test_routes_shadowed_by_earlier_ones_are_found(first: Any, second: Any, kinds: Sequence[str]) -> None:
    found = await findings("http://127.0.0.1:1", {"index": first}, {"index": second}, offline=True)
    assert kinds == [entry.kind for entry in found if "].index" in entry.place]


async def test_an_unused_route_is_named_with_its_line() -> None:
    found = await findings("http://127.0.0.1:1", {"index": "a*"}, {"index": "a-1*"}, offline=True)
    (entry,) = [entry for entry in found if entry.kind == "wrong"]
    assert re.fullmatch(r"config.yaml:\d+: routes\[1\].index", entry.place)
    assert "'a-1*' is never used: routes[0] (a*) comes first" in entry.said


async def test_a_route_after_a_pattern_is_an_error_for_an_index_but_not_for_an_alias() -> None:
    async with Cluster(a1=FIT, b1=FIT) as cluster:
        cluster.aliases = {"aa": ["b1"]}
        routes = semantic(), semantic(index="a1"), semantic(index="aa")
        found = await findings(cluster.url, *routes)
    assert ["ok"] == [kind for kind, _ in at("aa", found)]
    assert [("wrong", "every index belongs to an earlier route (a*): move this route above it")] == at("a1", found)


# The engine.


@pytest.mark.parametrize(
    ("version", "kind", "said"),
    [
        ({"number": "8.19.13"}, "ok", "elasticsearch 8.19.13 at "),
        ({"number": "3.6.0", "distribution": "opensearch"}, "ok", "opensearch 3.6.0 at "),
        ({"number": "9.4.3-SNAPSHOT"}, "ok", "elasticsearch 9.4.3 at "),
        ({"number": "7.17.0"}, "note", "elasticsearch 7.17.0 at "),
    ],
)
async def test_engine_and_version_are_reported(version: Any, kind: str, said: str) -> None:
    async with Cluster() as cluster:
        cluster.version = {"version": version}
        (found,) = at("engine", await findings(cluster.url))
    assert found[0] == kind
    assert found[1].startswith(said + cluster.url)


async def test_another_server_is_an_error() -> None:
    async with Cluster() as cluster:
        for fault in (says(b"<html>"), says(b"[]"), says(b"{}"), refuses(404), refuses(502)):
            cluster.faults = {"version": fault}
            ((kind, _),) = at("engine", await findings(cluster.url))
            assert kind == "wrong"


@pytest.mark.parametrize(("status", "advice"), [(404, "correct engine.url"), (503, "look into the log of the engine")])
async def test_the_advice_for_an_engine_error_depends_on_its_status(status: int, advice: str) -> None:
    async with Cluster() as cluster:
        cluster.faults = {"version": refuses(status)}
        ((_, said),) = at("engine", await findings(cluster.url))
    assert f"status {status}: {advice}" in said


async def test_an_unreachable_engine_is_reported_once() -> None:
    found = await findings(f"http://127.0.0.1:{closed_port()}", semantic(), semantic(index="b"))
    assert ["unreachable"] == [kind for kind, _ in at("engine", found)]
    assert [] == [entry for entry in found if entry.place in {"a*", "b"}]
    assert 2 == exit_code(found)


async def test_one_unreachable_node_of_several_is_a_warning() -> None:
    async with Cluster(a1=FIT) as cluster:
        found = await findings([f"http://127.0.0.1:{closed_port()}", cluster.url], semantic())
    assert ["note", "ok"] == [kind for kind, _ in at("engine", found)]
    assert 0 == exit_code(found)


@pytest.mark.parametrize(("status", "authorized", "kind"), [(401, False, "note"), (403, True, "wrong")])
async def test_rejected_credentials_are_an_error_and_missing_ones_a_warning(
    *, status: int, authorized: bool, kind: str
) -> None:
    settings: Any = {"authorization_env": "AUTH", "environment": {"AUTH": "ApiKey s3cret"}} if authorized else {}
    async with Cluster(a1=FIT) as cluster:
        cluster.faults = dict.fromkeys(("version", "resolve", "facts"), refuses(status))
        found = await findings(cluster.url, semantic(), **settings)
    ((said, text),) = at("engine", found)
    assert (said, "engine.authorization_env" in text) == (kind, True)
    assert "s3cret" not in repr(found)


async def test_the_proxys_own_authorization_is_used_and_not_printed() -> None:
    async with Cluster(a1=FIT) as cluster:
        found = await findings(cluster.url, semantic(), environment={"AUTH": "ApiKey s3cret"}, authorization_env="AUTH")
        assert {request.header("authorization") for request in cluster.requests} == {"ApiKey s3cret"}
    assert "s3cret" not in repr(found)


# The models.


async def test_one_real_embedding_and_one_real_score_are_requested() -> None:
    async with Cluster(a1=FIT) as cluster, FakeModels(GOOD_SCORES) as models:
        found = await findings(cluster.url, semantic(rerank_model="r"), models={"url": models.url})
        (embedding,), (scoring, *_) = models.of("embed"), models.of("rerank")
    assert "m made a vector of 3 dimensions" in at("embedder", found)[0][1]
    assert "r scored a passage that answers the query 0.9, and one that does not 0.1" in at("reranker", found)[0][1]
    assert ("m", 3) == (embedding.json()["model"], embedding.json()["dimensions"])
    assert "/v1/inference/r" == scoring.path
    assert 0 == exit_code(found)


async def test_routes_with_the_same_models_need_one_call() -> None:
    async with Cluster(a1=FIT, b1=FIT) as cluster, FakeModels(GOOD_SCORES) as models:
        await findings(cluster.url, semantic(), semantic(index="b*"), models={"url": models.url})
        asked = [request.content for request in models.of("rerank")]
        assert (1, len(set(asked))) == (len(models.of("embed")), len(asked))


@pytest.mark.parametrize(("per_character", "counts"), [(0.0, []), (0.25, ["0.85"]), (0.5, ["1.7"])])
async def test_the_providers_tokens_are_compared_with_the_estimate(per_character: float, counts: list[str]) -> None:
    async with Cluster(a1=FIT) as cluster, FakeModels(GOOD_SCORES) as models:
        models.tokens_per_character = per_character
        said = at("reranker", await findings(cluster.url, semantic(rerank_model="r"), models={"url": models.url}))
    told = [f"r counts {count} tokens for each that `models.passage_max_tokens` estimates" for count in counts]
    assert told == [each for _, each in said[1:]]


@pytest.mark.parametrize(
    ("package", "place", "sections"),
    [
        ("redis", "redis", {"cache": {"redis_url": "redis://127.0.0.1:1"}}),
        ("opentelemetry", "traces", {"traces": {"url": "http://127.0.0.1:1"}}),
    ],
)
async def test_a_missing_extra_is_an_error_with_its_installation(
    package: str, place: str, sections: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    found = await findings("http://127.0.0.1:1", environment=REDIS_KEY, sections=sections, offline=True)
    ((kind, said),) = at(place, found)
    assert ("wrong", True) == (kind, "pip install -c constraints.txt" in said)


async def test_a_state_file_in_a_missing_folder_is_an_error() -> None:
    sections = {"spend": {"file": "/no/such/spend.json"}}
    models = {"canary_file": "/no/such/scores.json"}
    found = await findings("http://127.0.0.1:1", models=models, sections=sections, offline=True)
    for place, file in (("spend.file", "spend.json"), ("models.canary_file", "scores.json")):
        said = f"/no/such/{file} cannot be written: /no/such does not exist, or this user may not write to it"
        assert [("wrong", f"{said}. Create it, or name another file")] == at(place, found)


async def test_a_state_file_that_is_a_folder_is_an_error(tmp_path: Path) -> None:
    sections = {"spend": {"file": str(tmp_path)}}
    found = await findings("http://127.0.0.1:1", models={"canary_file": "/dev/null"}, sections=sections, offline=True)
    for place, name in (("spend.file", tmp_path), ("models.canary_file", "/dev/null")):
        assert [("wrong", f"{name} is not a regular file: name another one")] == at(place, found)


async def test_no_model_is_called_without_a_route_or_with_offline() -> None:
    async with Cluster(a1=FIT) as cluster, FakeModels() as models:
        await findings(cluster.url, models={"url": models.url})
        await findings(cluster.url, semantic(), models={"url": models.url}, offline=True)
        assert ([], 1) == (models.requests, len(cluster.requests))


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (refuses(401), "wrong", "rejects the token"),
        (refuses(402), "wrong", "top up the account"),
        (refuses(404), "wrong", "correct models.url or the model"),
        (refuses(500), "wrong", "status 500"),
        (says(b"<html>"), "wrong", "response cannot be used"),
    ],
)
async def test_models_that_reject_the_call_are_an_error(fault: Any, kind: str, said: str) -> None:
    async with Cluster(a1=FIT) as cluster, FakeModels(GOOD_SCORES) as models:
        models.faults = {"embed": fault, "rerank": fault}
        found = await findings(cluster.url, semantic(), models={"url": models.url})
    for place in ("embedder", "reranker"):
        ((found_kind, text),) = at(place, found)
        assert (kind, True) == (found_kind, said in text)


async def test_unreachable_models_are_reported() -> None:
    async with Cluster(a1=FIT) as cluster:
        found = await findings(cluster.url, semantic(), models={"url": f"http://127.0.0.1:{closed_port()}"})
    assert ["unreachable", "unreachable"] == [entry.kind for entry in found if "er" == entry.place[-2:]]
    assert 2 == exit_code(found)


async def test_a_model_with_constant_scores_is_an_error() -> None:
    async with Cluster(a1=FIT) as cluster, FakeModels(known_scores(0.5, 0.5)) as models:
        found = await findings(cluster.url, semantic(), models={"url": models.url})
    assert ["wrong"] == [kind for kind, _ in at("reranker", found)]


async def test_a_model_that_misranks_known_pairs_is_an_error() -> None:
    async with Cluster(a1=FIT) as cluster, FakeModels(known_scores(0.1, 0.9)) as models:
        found = await findings(cluster.url, semantic(rerank_fallbacks=("other",)), models={"url": models.url})
    assert ["wrong", "wrong"] == [kind for kind, _ in at("reranker", found)]
    assert "ranks known pairs wrong: for the query [how to reset" in at("reranker", found)[0][1]


async def test_another_model_than_the_indexs_is_an_error_or_a_warning_without_vectors() -> None:
    said = {"model": "other", "data": [{"index": 0, "embedding": [1.0, 0.0, 0.0]}]}
    async with FakeModels(GOOD_SCORES) as models:
        models.faults = {"embed": says(msgspec.json.encode(said))}
        async with Cluster(a1=FIT) as cluster:
            held = await findings(cluster.url, semantic(), models={"url": models.url})
        async with Cluster() as cluster:
            fresh = await findings(cluster.url, semantic(), models={"url": models.url})
    assert ["wrong"] == [kind for kind, _ in at("embedder", held)]
    assert ["note"] == [kind for kind, _ in at("embedder", fresh)]
    assert at("embedder", fresh)[0][1].startswith("the server uses other for Qwen/Qwen3-Embedding-4B")


async def test_a_model_slower_than_the_budget_is_a_warning() -> None:
    async with Cluster(a1=FIT) as cluster, FakeModels(GOOD_SCORES) as models:
        limits = {"embed_timeout_seconds": 1e-6, "rerank_timeout_seconds": 1e-6}
        found = await findings(cluster.url, semantic(), models={"url": models.url, **limits})
    assert ["note", "note"] == [entry.kind for entry in found if entry.place in {"embedder", "reranker"}]
    assert "models.rerank_timeout_seconds is 1e-06, so such a search is degraded" in at("reranker", found)[0][1]


async def test_implausible_times_are_a_warning() -> None:
    first = {"index": "a", "budget_ms": 2, "semantic": {"field": "v", "dimensions": 3, "timeout_seconds": 2000}}
    models = {"rerank_timeout_seconds": 3000}
    found = await findings("http://127.0.0.1:1", first, models=models, offline=True)
    assert [
        ("routes[0].budget_ms", "2 ms are too short for a model call: are seconds meant? Write 1500 for 1.5 seconds"),
        ("models.rerank_timeout_seconds", "3000 seconds are long for a search: are milliseconds meant? Write 3"),
        ("routes[0].semantic.timeout_seconds", "2000 seconds are long for a search: are milliseconds meant? Write 2"),
    ] == [(each.place.rpartition(" ")[2], each.said) for each in found if "meant?" in each.said]


@pytest.mark.parametrize(("offline", "kind", "code"), [(False, "wrong", 1), (True, "note", 0)])
async def test_a_missing_token_is_an_error_and_offline_a_warning(*, offline: bool, kind: str, code: int) -> None:
    async with Cluster(a1=FIT) as cluster:
        found = await findings(cluster.url, semantic(), models={"url": "https://api.example.com"}, offline=offline)
    assert [kind] == [kind for kind, _ in at("token", found)]
    assert [] == at("embedder", found)
    assert code == exit_code(found)


async def test_no_route_is_fine() -> None:
    found = await findings("http://127.0.0.1:1", offline=True)
    assert [(entry.kind, entry.said) for entry in found] == [
        ("ok", "no routes: everything passes through"),
        ("ok", "DEEPINFRA_TOKEN is not needed"),
    ]


@pytest.mark.parametrize(
    ("kinds", "code"),
    [((), 0), (("ok", "note"), 0), (("unreachable", "ok"), 2), (("unreachable", "wrong"), 1), (("wrong",), 1)],
)
def test_the_exit_code_tells_the_worst_finding(kinds: Sequence[Any], code: int) -> None:
    assert code == exit_code([Finding(kind, "", "") for kind in kinds])


def test_there_is_advice_for_every_reason_to_leave_out_the_semantic_retriever() -> None:
    functions = (planning.vector_search, planning._fit)  # noqa: SLF001
    trees = [ast.parse(inspect.getsource(function)) for function in functions]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    failures = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Failure"]
    reasons = {reason.value for call in failures if isinstance(reason := call.args[1], ast.Constant)}
    assert reasons == ADVICE.keys()


@pytest.mark.parametrize("offline", [True, False])
async def test_unreadable_certificates_of_the_models_are_an_error(*, offline: bool) -> None:
    """`serve` would not start with these settings either; the models are not called."""
    async with Cluster() as engine:
        models = {"url": "https://127.0.0.1:1", "ca_file": "/no/such/file"}
        environment = {"DEEPINFRA_TOKEN": "token"}
        found = await findings(engine.url, models=models, environment=environment, offline=offline)
    ((kind, said),) = at("models", found)
    assert ("wrong", True) == (kind, said.startswith("models.ca_file: /no/such/file: cannot be read"))
    assert [("ok", "DEEPINFRA_TOKEN is set")] == at("token", found)


REDIS_KEY = {"RERANK_PROXY_CACHE_KEY": "0123456789abcdef"}


@needs_redis
async def test_a_redis_that_can_be_written_to_is_fine(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, Cluster() as engine:
        url = f"redis://127.0.0.1:{server.port}"
        found = await findings(engine.url, cache={"redis_url": url}, environment=REDIS_KEY)
    assert [("ok", f"{url} can be used")] == at("redis", found)


async def test_an_unreachable_redis_is_reported_with_its_consequences() -> None:
    async with Cluster() as engine:
        url = f"redis://127.0.0.1:{free_port()}"
        found = await findings(engine.url, cache={"redis_url": url}, environment=REDIS_KEY)
    ((kind, said),) = at("redis", found)
    assert "unreachable" == kind
    assert said.startswith("ConnectionError: Error 111 connecting to 127.0.0.1")
    assert said.endswith("Without it, each proxy has its own caches")


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize(
    ("cache", "environment", "said"),
    [
        ({"redis_url": "redis://a"}, {}, "RERANK_PROXY_CACHE_KEY is not set, but cache.redis_url needs it"),
        (
            {"redis_url": "rediss://a", "redis_ca_file": "none.pem"},
            REDIS_KEY,
            "cache.redis_ca_file: none.pem",
        ),
    ],
)
async def test_cache_settings_that_serve_rejects_are_an_error(
    cache: dict[str, Any], environment: dict[str, str], said: str, *, offline: bool
) -> None:
    async with Cluster() as engine:
        found = await findings(engine.url, cache=cache, environment=environment, offline=offline)
    ((kind, why),) = at("redis", found)
    assert ("wrong", True) == (kind, why.startswith(said))


async def test_an_unconfigured_redis_is_not_mentioned() -> None:
    async with Cluster() as engine:
        assert [] == at("redis", await findings(engine.url))
