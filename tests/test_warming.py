"""`rerank-proxy warm`: what the proxy's caches have afterwards, what it costs, and how it ends."""

import json
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import main
from proxy.commands.evaluation.outcomes import Found, ReportedOutcome
from proxy.commands.warming.command import FAILURES_IN_A_ROW, CannotWarm, CostCap
from proxy.errors import Refused, TimedOut
from tests.fakes import FakeEngine, FakeModels, closed_port, hangs, refuses
from tests.integration.commands import Running, begun
from tests.test_serving import served
from tests.test_spending_serving import COST, capped, outcomes


def match(text: str, **more: Any) -> Any:
    return {"query": {"match": {"title": text}}, **more}


def test_an_address_without_a_scheme_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bodies").write_text(json.dumps(match("a")))
    assert 1 == main(("warm", str(tmp_path / "bodies"), "--index", "a", "--proxy", "127.0.0.1:9201"))
    assert "--proxy: expected a URL like http://127.0.0.1:9201, not '127.0.0.1:9201'" in capsys.readouterr().err


def test_a_proxy_that_does_not_run_is_unreachable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_options_are_checked_like_those_of_eval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], said: str
) -> None:
    (tmp_path / "bodies").write_text(json.dumps(match("a")))
    assert 1 == main(("warm", str(tmp_path / "bodies"), "--index", "a", *more))
    err = capsys.readouterr().err
    assert said in err
    assert "s3cret" not in err


async def begun_warm(folder: Path, port: int, texts: Iterable[str], *options: str) -> Running:
    file = folder / "bodies.ndjson"
    file.write_text("\n".join(json.dumps(match(f"laptop {text}")) for text in texts))
    url = f"http://127.0.0.1:{port}"
    return await begun("warm", str(file), "--index", "products", "--proxy", url, "--concurrency", "1", *options)


async def warm(folder: Path, port: int, *texts: str, options: Sequence[str] = ()) -> tuple[int, str]:
    command = await begun_warm(folder, port, texts, *options)
    return await command.ended(), "".join(command.lines)


async def test_warmed_searches_cost_nothing_later(tmp_path: Path, engine: FakeEngine, models: FakeModels) -> None:
    async with served(tmp_path, engine, models, more=capped(tmp_path, 1.0) | {"steering": []}) as proxy:
        code, said = await warm(tmp_path, proxy.port, "a", "b", "a")
        assert (0, True) == (code, "2 searches: 2 reranked" in said)
        assert ["reranked", "reranked"] == await outcomes(proxy, "a", "b")
        code, said = await warm(tmp_path, proxy.port, "a", "b")
    assert (0, 2) == (code, len(models.of("rerank")))


async def test_warming_stops_at_a_cap(tmp_path: Path, engine: FakeEngine, models: FakeModels) -> None:
    models.cost = COST
    async with served(tmp_path, engine, models, more=capped(tmp_path, 1.5 * COST)) as proxy:
        code, said = await warm(tmp_path, proxy.port, "a", "b", "c", "d")
    assert (3, 1) == (code, len(models.of("rerank")))
    assert "a cap on spend is reached" in said


# -- the cost


RERANKED = ReportedOutcome("reranked")


def test_a_search_is_sent_only_if_its_cost_fits_with_those_in_flight() -> None:
    cap = CostCap(1.0)
    assert cap.allows()
    cap.note(Found((), RERANKED, 0.3))
    cap.in_flight = 1
    assert cap.allows()
    cap.in_flight = 2
    assert not cap.allows()
    cap.note(Found((), RERANKED, 0.0))
    assert (0.3, 0.3) == (cap.spent_usd, cap.largest_usd)


def test_a_possibly_charged_search_counts_like_the_most_expensive_one() -> None:
    cap = CostCap(1.0)
    cap.note(Found((), RERANKED, 0.25))
    cap.note(Found((), ReportedOutcome("degraded", "timeout", "rerank"), 0.0))
    cap.note_unanswered(TimedOut("search"))
    cap.note_unanswered(Refused("search", 503))
    cap.note(Found((), ReportedOutcome("bypassed", "sort")))
    cap.note(Found(()))
    assert 0.75 == cap.spent_usd


def test_warming_stops_if_costs_are_not_reported() -> None:
    with pytest.raises(CannotWarm, match="does not report what a search cost"):
        CostCap(1.0).note(Found((), RERANKED))
    with pytest.raises(CannotWarm, match="mode: shadow"):
        CostCap(1.0).note(Found((), ReportedOutcome("bypassed", "shadow"), 0.0))
    CostCap().note(Found((), RERANKED))


def reporting(folder: Path) -> dict[str, Any]:
    return capped(folder, 1.0) | {"steering": ["cost"]}


@pytest.mark.parametrize("concurrency", ["1", "4"])
async def test_warming_stops_before_the_maximum_and_resumes_without_cost(
    tmp_path: Path, engine: FakeEngine, models: FakeModels, concurrency: str
) -> None:
    models.cost = COST
    options = ("--max-cost", f"{2.5 * COST}", "--concurrency", concurrency)
    async with served(tmp_path, engine, models, more=reporting(tmp_path)) as proxy:
        code, said = await warm(tmp_path, proxy.port, *"abcde", options=options)
        assert (3, 2, True) == (code, len(models.of("rerank")), "--max-cost: another search might exceed it" in said)
        assert "2 searches: 2 reranked, $0.002 of $0.0024" in said
        code, said = await warm(tmp_path, proxy.port, *"abcde", options=options)
        assert (3, 4) == (code, len(models.of("rerank")))
        code, said = await warm(tmp_path, proxy.port, *"abcde", options=options)
    assert (0, 5) == (code, len(models.of("rerank")))
    assert "5 searches: 5 reranked" in said


async def test_a_disallowed_option_is_an_error_at_once(tmp_path: Path, engine: FakeEngine, models: FakeModels) -> None:
    async with served(tmp_path, engine, models) as proxy:
        code, said = await warm(tmp_path, proxy.port, "a", "b", options=("--max-cost", "1"))
    assert (1, True) == (code, "the proxy rejects the option `cost`: add it to `steering`" in said)
    assert "0 searches: none" in said
    assert [] == models.of("rerank")


async def test_background_warming_uses_the_cheap_tier(tmp_path: Path, engine: FakeEngine, models: FakeModels) -> None:
    models.cost = COST
    more = capped(tmp_path, 1.0) | {"steering": ["cost", "background"]}
    async with served(tmp_path, engine, models, more=more) as proxy:
        code, said = await warm(tmp_path, proxy.port, "a", "b", options=("--background", "--max-cost", "1"))
        assert ["reranked", "reranked"] == await outcomes(proxy, "a", "b")
    assert (0, True) == (code, "2 searches: 2 reranked, $0.002 of $1.00" in said)
    assert ["flex", "flex"] == [asked.json()["service_tier"] for asked in models.of("rerank")]


# -- how it ends


async def test_warming_stops_after_consecutive_failures(tmp_path: Path, engine: FakeEngine) -> None:
    engine.faults["lexical"] = hangs
    texts = [f"{number}" for number in range(FAILURES_IN_A_ROW + 5)]
    code, said = await warm(tmp_path, engine.port, *texts, options=("--timeout", "0.05"))
    assert (1, FAILURES_IN_A_ROW) == (code, len(engine.of("lexical")))
    assert f"{FAILURES_IN_A_ROW} searches in a row failed, so the run stopped" in said
    assert "no answer in 0.05 s" in said


async def test_some_failures_do_not_stop_warming(tmp_path: Path, engine: FakeEngine) -> None:
    engine.faults["lexical"] = refuses(503)
    code, said = await warm(tmp_path, engine.port, *"abc")
    assert (1, 3) == (code, len(engine.of("lexical")))
    assert "some searches failed, the first one with: status 503" in said


async def test_an_interrupt_ends_warming_with_a_report(tmp_path: Path, engine: FakeEngine) -> None:
    engine.faults["lexical"] = hangs
    command = await begun_warm(tmp_path, engine.port, "a")
    await engine.until_asked("lexical", 1)
    command.process.send_signal(signal.SIGINT)
    code = await command.ended()
    said = "".join(command.lines)
    assert (130, True, False) == (code, "0 searches: none" in said, "Traceback" in said)
    assert "Run the same command again to continue" in said
