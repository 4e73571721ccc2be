"""What an index holds and what is wanted are settled without mixing models, and errors say what to do."""

import re
from dataclasses import replace
from typing import Any

import pytest

from proxy.commands.loading.clients import Outcome
from proxy.commands.loading.commands import VectorOptions, wanted
from proxy.commands.loading.errors import CannotLoad
from proxy.commands.loading.mappings import Embedding
from proxy.commands.loading.target import (
    Wanted,
    check_model,
    check_passage,
    engine_advice,
    held_embedding,
    rejection_reason,
)
from proxy.errors import Refused, TimedOut, Unreachable
from proxy.settings.config import Config, RouteSettings, Semantic
from proxy.settings.profiles import PROFILES, TIERS
from proxy.upstream.embedder import ServedModel

HELD = Embedding("v", "m", 3, ("title",))
MAPPING = {"_meta": HELD.meta, "properties": HELD.properties}
SILENT = Wanted("v", None, "default", None, None, ("body",))


def other(**said: Any) -> dict[str, Any]:
    return {"_meta": replace(HELD, **said).meta}


@pytest.mark.parametrize(
    ("mappings", "wish", "settled"),
    [
        ({}, SILENT, None),
        ({"a": {}}, SILENT, None),
        ({"a": MAPPING}, SILENT, HELD),
        ({"a": {}, "b": MAPPING}, SILENT, HELD),
        ({"a": MAPPING}, replace(SILENT, field="other"), None),
        ({"a": MAPPING}, replace(SILENT, model="m", dimensions=3), HELD),
        ({"a": MAPPING}, replace(SILENT, passage=("body",)), replace(HELD, passage=("body",))),
    ],
)
def test_the_vector_metadata_of_an_index_takes_precedence(
    mappings: Any, wish: Wanted, settled: Embedding | None
) -> None:
    assert held_embedding(mappings, wish) == settled


@pytest.mark.parametrize(
    ("mappings", "wish", "said"),
    [
        ({"a": MAPPING}, replace(SILENT, dimensions=4), r"'v' have 3 dimensions, but 4 are requested"),
        ({"a": MAPPING, "b": other(model="n")}, SILENT, r"several models in 'v': m \(3\), n \(3\)"),
        ({"a": MAPPING, "b": other(dimensions=4)}, SILENT, r"several models in 'v': m \(3\), m \(4\)"),
    ],
)
def test_vectors_of_two_models_or_lengths_in_one_field_are_rejected(mappings: Any, wish: Wanted, said: str) -> None:
    with pytest.raises(CannotLoad, match=said):
        held_embedding(mappings, wish)


@pytest.mark.parametrize(
    ("asked", "answering", "said"),
    [
        ("n", "n", r"has vectors of m in 'v', but n is requested: .* use a server that has m"),
        ("m", "n", r"has vectors of m in 'v', but the server at models.url uses n, whatever model is requested"),
        ("n", "p", r"but the server at models.url uses p"),
    ],
)
def test_vectors_of_two_models_never_mix(asked: str, answering: str, said: str) -> None:
    with pytest.raises(CannotLoad, match=said):
        check_model(HELD, asked, answering)


@pytest.mark.parametrize("asked", ["m", "n"])
def test_the_model_that_responds_is_compared(asked: str) -> None:
    check_model(HELD, asked, "M")


def test_new_vectors_are_recorded_with_the_model_that_responds() -> None:
    assert SILENT.embedding(ServedModel("n", 9)) == Embedding("v", "n", 9, ("body",))
    assert replace(SILENT, passage=("x",)).embedding(ServedModel("n", 9)) == Embedding("v", "n", 9, ("x",))


@pytest.mark.parametrize(
    ("properties", "passage"),
    [
        ({"title": {"type": "text"}}, ("title", "none")),
        ({"reviews": {"properties": {"text": {"type": "text"}}}}, ("reviews",)),
        ({"reviews": {"type": "nested", "properties": {"text": {"type": "text"}}}}, ("reviews.text",)),
        ({"raw": {"type": "object", "enabled": False}}, ("raw.text",)),
        ({"raw": {"dynamic": "false", "properties": {"a": {"type": "keyword"}}}}, ("{raw.text:raw}",)),
    ],
)
def test_an_index_needs_at_least_one_passage_field(properties: Any, passage: tuple[str, ...]) -> None:
    check_passage({"a": {"properties": properties}}, replace(HELD, passage=passage), is_named=False)


TITLE = {"type": "text", "fields": {"raw": {"type": "keyword"}}}


@pytest.mark.parametrize(
    ("passage", "said"),
    [
        (("title", "titel"), "--passage: titel is not in the mapping, did you mean `title`?"),
        (("title", "nofield"), "--passage: nofield is not in the mapping; expected one of: title"),
        (("title", "title.raw"), "--passage: title.raw is a multi-field: documents have title"),
        (("title", "label", "x"), "--passage: label is an alias: documents have title; x is not in the mapping"),
    ],
)
def test_a_named_field_that_documents_cannot_have_is_rejected(passage: tuple[str, ...], said: str) -> None:
    """A field of the route or the profile is only reported: documents without it are embedded as searches read them."""
    mappings = {"a": {"properties": {"title": TITLE, "label": {"type": "alias", "path": "title"}}}}
    embedding = replace(HELD, passage=passage)
    with pytest.raises(CannotLoad, match=re.escape(said)):
        check_passage(mappings, embedding, is_named=True)
    noted = check_passage(mappings, embedding, is_named=False)
    assert f"note: nothing is embedded of {', '.join(passage[1:])}: not in the mapping" == noted
    assert check_passage(mappings, replace(HELD, passage=("title",)), is_named=True) is None


@pytest.mark.parametrize("properties", [{}, {"titles": {"type": "text"}}])
def test_an_index_without_any_passage_field_is_rejected(properties: Any) -> None:
    with pytest.raises(CannotLoad, match=r"the index has none of the fields title: .* --passage"):
        check_passage({"a": {"properties": properties}}, HELD, is_named=False)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Refused("engine", 401), "the engine rejects the credentials (401): correct the variable"),
        (Refused("engine", 403), "the credentials of engine.authorization_env do not permit this (403)"),
        (Refused("engine", 400, b'{"error":{"reason":"no"}}'), "the engine returned 400: no"),
        (Refused("engine", 400, b'{"error":"no","status":400}'), "the engine returned 400: no (400)"),
        (Refused("engine", 500, b'"no"'), "the engine returned 500: no"),
        (Refused("engine", 502, b"<html>"), "the engine returned 502: <html>"),
        (Refused("engine", 502, b'"\xff"'), 'the engine returned 502: "\ufffd"'),
        (
            Unreachable("engine", "refused"),
            "the engine cannot be reached: refused. Start it, or correct its URL: engine.url or --engine",
        ),
        (TimedOut("engine", "no answer in 1 s"), "the engine cannot be reached: no answer in 1 s. Start it"),
    ],
)
def test_an_engine_error_has_advice(error: Any, said: str) -> None:
    assert engine_advice(error).startswith(said)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ({"status": 400, "error": {"type": "t", "reason": "no"}}, "no"),
        ({"status": 400, "error": {"reason": "no", "caused_by": {"reason": "why"}}}, "no: why"),
        ({"status": 400, "error": {"reason": "no: why", "caused_by": {"reason": "why"}}}, "no: why"),
        ({"status": 413, "error": "ApiError(413)"}, "the request with this document is larger than"),
        ({"status": 503, "error": "gone"}, "gone (503)"),
    ],
)
def test_a_rejection_is_reported_with_its_reason(outcome: Outcome, said: str) -> None:
    assert rejection_reason(outcome).startswith(said)


# What is wanted: the command line before the route, the route before the profile

ROUTED = Config(
    routes=(
        RouteSettings(
            index="a*", profile="rag", tier="fast", semantic=Semantic(field="w", dimensions=5), passage=["x"]
        ),
        RouteSettings(index="named", embedding_model="named-model"),
    )
)
FAST, BALANCED, PRECISION = (TIERS[name].embedding for name in ("fast", "balanced", "precision"))


@pytest.mark.parametrize(
    ("index", "options", "wish"),
    [
        ("a1", VectorOptions(), Wanted("w", None, FAST, 5, None, ("x",))),
        ("b", VectorOptions(), Wanted("embedding", None, BALANCED, None, None, ())),
        (
            "b",
            VectorOptions(profile="legal"),
            Wanted("embedding", None, PRECISION, None, None, PROFILES["legal"].embedded),
        ),
        ("a1", VectorOptions(profile="legal"), Wanted("w", None, FAST, 5, None, PROFILES["legal"].embedded)),
        ("a1", VectorOptions(tier="precision"), Wanted("w", PRECISION, FAST, 5, None, ("x",))),
        ("a1", VectorOptions(model="n", tier="precision"), Wanted("w", "n", FAST, 5, None, ("x",))),
        (
            "named",
            VectorOptions(),
            Wanted("embedding", "named-model", "named-model", None, None, PROFILES["e-commerce"].embedded),
        ),
        (
            "a1",
            VectorOptions(field="u", dimensions=7, passage=("p", "q")),
            Wanted("u", None, FAST, 7, ("p", "q"), ("x",)),
        ),
    ],
)
def test_the_command_line_overrides_the_route_and_the_route_the_profile(
    index: str, options: VectorOptions, wish: Wanted
) -> None:
    assert wanted(ROUTED, index, options) == wish
