"""`rerank-proxy warm`: what it sends, and that the proxy's caches have it afterwards."""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import main
from proxy.commands.evaluation.errors import CannotEvaluate
from proxy.commands.evaluation.template import read_template
from proxy.commands.warming import bodies_of
from tests.fakes import FakeEngine, FakeModels, closed_port
from tests.integration.commands import begun
from tests.test_serving import served
from tests.test_spending_serving import COST, capped, outcomes

TEMPLATE = read_template(b'{"query": {"match": {"title": "{{query}}"}}, "size": 10}', "t.json")


def match(text: str, **more: Any) -> Any:
    return {"query": {"match": {"title": text}}, **more}


def bodies(*lines: Any) -> list[Any]:
    content = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return [json.loads(body) for body in bodies_of(content.encode(), TEMPLATE)]


PATIENT = {"ext": {"rerank_proxy": {"budget_ms": 60_000}}}


def test_bodies_texts_and_log_lines_become_searches_the_most_frequent_first() -> None:
    log = {"event.action": "search", "log.level": "info", "query": "laptop"}
    other = {"event.action": "reloaded", "log.level": "info"}
    assert [match("laptop", size=10) | PATIENT, match("stand") | PATIENT] == bodies(
        match("stand"), log, "", other, "laptop"
    )


def test_a_text_needs_a_template_and_a_file_a_search() -> None:
    with pytest.raises(CannotEvaluate, match="line 1 is a query text: name the search body for it with --template"):
        bodies_of(b"laptop", None)
    with pytest.raises(CannotEvaluate, match=r"log\.query_text"):
        bodies_of(b'{"event.action": "search"}', None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'laptop\n{"query": ', "line 2 begins like JSON, but is malformed"),
        (b"laptop\n\xff\xfe", "line 2 is not UTF-8"),
    ],
)
def test_a_line_that_cannot_be_read_is_not_taken_for_a_query_text(content: bytes, said: str) -> None:
    with pytest.raises(CannotEvaluate, match=said):
        bodies_of(content, TEMPLATE)


def test_an_address_without_its_scheme_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bodies").write_text(json.dumps(match("a")))
    assert 1 == main(("warm", str(tmp_path / "bodies"), "--index", "a", "--proxy", "127.0.0.1:9201"))
    assert "--proxy: expected a URL like http://127.0.0.1:9201, not '127.0.0.1:9201'" in capsys.readouterr().err


def test_a_proxy_that_is_not_there_is_unreachable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bodies").write_text(json.dumps(match("a")))
    url = f"http://127.0.0.1:{closed_port()}"
    assert 2 == main(("warm", str(tmp_path / "bodies"), "--index", "a", "--proxy", url))
    assert "cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--proxy", "http://me:s3cret@127.0.0.1:1"), "--proxy: remove the credentials: name the variable"),
        (("--proxy", "127.0.0.1:9201"), "--proxy: expected a URL"),
        (("--concurrency", "65"), "--concurrency: at most 64"),
    ],
)
def test_options_are_checked_as_those_of_eval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str
) -> None:
    (tmp_path / "bodies").write_text(json.dumps(match("a")))
    assert 1 == main(("warm", str(tmp_path / "bodies"), "--index", "a", *more))
    err = capsys.readouterr().err
    assert said in err
    assert "s3cret" not in err


async def warm(folder: Path, port: int, *texts: str) -> tuple[int, str]:
    file = folder / "bodies.ndjson"
    file.write_text("\n".join(json.dumps(match(f"laptop {text}")) for text in texts))
    url = f"http://127.0.0.1:{port}"
    command = await begun("warm", str(file), "--index", "products", "--proxy", url, "--concurrency", "1")
    return await command.ended(), "".join(command.lines)


async def test_what_was_warmed_costs_nothing_later(tmp_path: Path, engine: FakeEngine, models: FakeModels) -> None:
    async with served(tmp_path, engine, models, more=capped(tmp_path, 1.0)) as proxy:
        code, said = await warm(tmp_path, proxy.port, "a", "b", "a")
        assert (0, True) == (code, "2 searches: 2 reranked" in said)
        assert ["reranked", "reranked"] == await outcomes(proxy, "a", "b")
        code, said = await warm(tmp_path, proxy.port, "a", "b")
    assert (0, 2) == (code, len(models.of("rerank")))


async def test_it_ends_at_a_cap(tmp_path: Path, engine: FakeEngine, models: FakeModels) -> None:
    models.cost = COST
    async with served(tmp_path, engine, models, more=capped(tmp_path, 1.5 * COST)) as proxy:
        code, said = await warm(tmp_path, proxy.port, "a", "b", "c", "d")
    assert (3, 1) == (code, len(models.of("rerank")))
    assert "a cap on spend is reached" in said
