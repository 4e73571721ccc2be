"""Lines of the log have the names of the Elastic Common Schema, and no others than the documentation lists."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from proxy.context import Access, Charge, Ended, RequestRecord, Reuse, Shadow
from proxy.outcomes import Outcome
from proxy.settings.config import Log as Settings
from proxy.telemetry.ecs import EVENT_OUTCOMES, FIELDS, to_ecs
from proxy.telemetry.log import Telemetry, configure
from tests.readme import LOG_FIELDS, ecs_name

ALWAYS = {"ecs.version", "service.name"}


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[list[Any]]:
    """The lines of a search that has every field, and of a request that passed through."""
    before = structlog.get_config()
    with (tmp_path / "log").open("w+b", buffering=0) as file:
        writer = configure(Settings(), file.fileno())
        assert writer is not None
        telemetry = Telemetry(query_text=True)
        record = RequestRecord("mine", trace_id="0af7651916cd43dd8448eb211c80319c")
        search = record.search()
        search.route, search.window, search.candidates, search.query_text = "products", 50, 7, "laptop"
        search.outcome = Outcome("degraded", ("rerank",), "timeout", "reranker: no answer", "key")
        search.clock.stages["lexical"] = 1.26
        search.usage.add(Charge(42, 0.001, 0.0004))
        search.usage.add_reuse(Reuse(3, 4, 500))
        search.usage.tier, search.usage.without_text = "fast", 1
        search.sent.engine_searches = 2
        search.is_background = True
        search.shadow = Shadow(Outcome("reranked"))
        telemetry.conclude(record, Ended.ANSWERED)
        access = Access("GET", "/_cat/health?q=laptop", status=200)
        telemetry.conclude(RequestRecord("other", trace_id="1" * 32, access=access), Ended.ANSWERED)
        writer.close(60)
        file.seek(0)
        yield [json.loads(line) for line in file.read().splitlines()]
    structlog.configure(**before)


def test_a_search_and_an_access_line_have_the_documented_fields_and_no_others(lines: list[Any]) -> None:
    for kind, line in zip(("search", "access"), lines, strict=True):
        documented = {ecs_name(name) for name, (where, _) in LOG_FIELDS.items() if kind in where or where == "all"}
        derived = {"event.duration", "event.outcome"} if kind == "search" else {"event.duration"}
        assert documented | derived | ALWAYS | {"id"} == line.keys()


def test_the_most_important_fields_come_first(lines: list[Any]) -> None:
    assert ["@timestamp", "log.level", "message"] == list(lines[0])[:3]
    assert ("warning", "reranker: no answer") == (lines[0]["log.level"], lines[0]["message"])
    assert ("info", "access") == (lines[1]["log.level"], lines[1]["message"])


def test_a_duration_is_in_nanoseconds(lines: list[Any]) -> None:
    for line in lines:
        assert line["event.duration"] == round(line["ms"]["total"] * 1e6)
    assert 1.3 == lines[0]["ms"]["lexical"]


def test_an_access_line_has_the_request_and_its_result(lines: list[Any]) -> None:
    access = lines[1]
    asked = ("http.request.method", "url.path", "url.query", "http.response.status_code", "ended")
    assert ("GET", "/_cat/health", "q=laptop", 200, "answered") == tuple(access[name] for name in asked)
    assert ("other", "1" * 32) == (access["http.request.id"], access["trace.id"])


@pytest.mark.parametrize(("outcome", "said"), EVENT_OUTCOMES.items())
def test_the_outcome_of_a_search_is_mapped_to_the_schema(outcome: str, said: str) -> None:
    named = to_ecs(None, "", {"event": "search", "outcome": outcome})
    assert (said, outcome) == (named["event.outcome"], named["outcome"])
    assert said in {"success", "failure", "unknown"}


def test_field_names_are_unique() -> None:
    names = [ecs_name(name) for name in {*FIELDS, *LOG_FIELDS}]
    assert len(names) == len(set(names))


def test_fields_unknown_to_the_schema_keep_their_names() -> None:
    named = to_ecs(None, "", {"event": "listening", "address": "http://127.0.0.1:9201"})
    assert ("http://127.0.0.1:9201", "listening") == (named["address"], named["message"])
