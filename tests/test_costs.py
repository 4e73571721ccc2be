"""`rerank-proxy costs`: from the state file, and from a running proxy."""

import json
from pathlib import Path

import msgspec
import pytest

from proxy.cli import main
from proxy.commands.costs import lines, usd
from proxy.upstream.spending.caps import Period
from proxy.upstream.spending.ledger import Account, Spent
from proxy.upstream.spending.report import CapState, Costs, DayCosts, MonthCosts
from proxy.upstream.spending.state import encode
from tests.fakes import FakeEngine, FakeModels, FakeServer, Stream, answer, closed_port
from tests.integration.commands import begun
from tests.test_serving import served

DAY = DayCosts("2026-11-29", "products*", "m", 1200, 3_000_000, 0.075, 0.001, 500, 0.02)
COSTS = Costs(
    [msgspec.structs.replace(DAY, day="2026-11-28"), DAY],
    MonthCosts("2026-11", 1.5, 0.25, 2.0),
    [CapState(None, Period.DAY, 5.0, 0.3), CapState("products*", Period.MINUTE, 0.05, 0.8)],
    ["local"],
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a configuration with a state file of one day."""
    (tmp_path / "spend.json").write_bytes(encode({Account("2026-11-28", "a", "m"): Spent(2, 20, 0.5)}))
    (tmp_path / "config.yaml").write_text(f"spend: {{file: {tmp_path}/spend.json, max_usd_per_day: 5}}\n")
    return tmp_path


def test_the_table_has_the_requested_days_their_sum_the_forecast_and_the_caps() -> None:
    assert [
        "day         route      model  calls     tokens    cost  estimated  saved",
        "2026-11-29  products*  m      1,200  3,000,000  $0.075     $0.001  $0.02",
        "total                         1,200  3,000,000  $0.075     $0.001  $0.02",
        "",
        "2026-11: $1.50 so far, $2.00 by its end at the rate of the last 7 days; the caches saved $0.25",
        "cap of all routes: 30% of $5.00 per day",
        "cap of products*: 80% of $0.05 per minute",
        "local: the provider reports no cost, and no price is known. Set it in `spend.prices`",
    ] == list(lines(COSTS, 1))


def test_before_the_first_call_there_is_no_table() -> None:
    assert "no model was called yet" == next(lines(Costs([], MonthCosts("2026-11", 0, 0, 0)), 7))


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        (0, "$0.00"),
        (1234.5, "$1,234.50"),
        (0.1, "$0.10"),
        (0.012345, "$0.012"),
        (0.0001, "$0.0001"),
        (1e-6, "$1.0e-06"),
    ],
)
def test_small_amounts_are_not_shown_as_zero(amount: float, said: str) -> None:
    assert said == usd(amount)


def test_the_state_file_is_read_if_there_is_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(("costs", "-c", str(folder / "config.yaml"), "--json"))
    said = json.loads(capsys.readouterr().out)
    assert [("2026-11-28", "a", "m", 2, 20, 0.5)] == [
        tuple(row[name] for name in ("day", "route", "model", "calls", "tokens", "usd")) for row in said["days"]
    ]


def test_a_corrupt_file_is_reported_and_not_changed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "spend.json").write_bytes(b"{")
    assert 1 == main(("costs", "-c", str(folder / "config.yaml")))
    assert "spend.json cannot be read" in capsys.readouterr().err
    assert b"{" == (folder / "spend.json").read_bytes()


def test_an_address_without_a_scheme_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(("costs", "-c", str(folder / "config.yaml"), "--admin", "127.0.0.1:9291"))
    assert "--admin: expected a URL like http://127.0.0.1:9291, not '127.0.0.1:9291'" in capsys.readouterr().err


def test_a_proxy_that_does_not_run_is_unreachable(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    assert 2 == main(("costs", "-c", str(folder / "config.yaml"), "--admin", url))
    said = capsys.readouterr().err
    assert ("cannot be reached" in said, "--admin URL" in said) == (True, True)


def test_an_admin_port_is_asked_without_a_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless one is named: it may name the variable of the token."""
    monkeypatch.chdir(tmp_path)
    assert 2 == main(("costs", "--admin", f"http://127.0.0.1:{closed_port()}"))
    assert "cannot be reached" in capsys.readouterr().err
    for words in ((), ("-c", "other.yaml", "--admin", "http://127.0.0.1:9291")):
        assert 1 == main(("costs", *words))
        assert "yaml: cannot be read" in capsys.readouterr().err


async def test_costs_of_a_running_proxy_are_read_from_its_admin_port(
    tmp_path: Path, engine: FakeEngine, models: FakeModels
) -> None:
    models.cost = 0.25
    async with served(tmp_path, engine, models) as proxy:
        assert "reranked" == await proxy.outcome()
        command = await begun("costs", "-c", str(proxy.file), "--admin", f"http://127.0.0.1:{proxy.admin_port}")
        assert command.process.stdout is not None
        said = (await command.process.stdout.read()).decode()
        assert 0 == await command.ended()
    assert "$0.25" in said


@pytest.mark.parametrize(
    ("status", "said"), [(401, "rejects the admin token"), (200, "is not an admin port of this proxy")]
)
async def test_another_server_is_not_taken_for_an_admin_port(folder: Path, status: int, said: str) -> None:
    async def answers(stream: Stream) -> None:
        await stream.request()
        await stream.send(answer(status, b"{}"))

    async with FakeServer() as server:
        server.script = answers
        command = await begun("costs", "-c", str(folder / "config.yaml"), "--admin", server.url)
        assert 1 == await command.ended()
    assert said in command.lines[-1]
