"""The meter: what a call costs before and after it, and whether a cap permits it."""

import asyncio
import json
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.bounds import SPEND_DAYS
from proxy.context import Charge, Usage
from proxy.errors import CapReached
from proxy.settings.config import SpendCaps
from proxy.upstream.spending.caps import Level
from proxy.upstream.spending.ledger import Account, Spent
from proxy.upstream.spending.meter import RoutePurse
from proxy.upstream.spending.prices import PRICES
from tests.conftest import Log
from tests.purses import NOON, PRICE, Household

DAY = "2026-11-29"
TOKENS = 1000
USD = TOKENS * PRICE / 1e6
"""The cost of so many tokens of `m`."""


def answered(purse: RoutePurse, model: str = "m", **said: Any) -> None:
    with purse.pay(model, TOKENS) as payment:
        payment.sent()
        payment.answered(json.dumps(said).encode())


def spent(home: Household, model: str = "m", route: str = "a") -> Spent | None:
    return home.meter.ledger.days().get(Account(DAY, route, model))


# What a call costs


def test_the_providers_charge_takes_precedence() -> None:
    home, usage = Household(), Usage()
    answered(home.purse(usage=usage), input_tokens=900, inference_status={"cost": 0.5})
    assert (Spent(1, 900, 0.5), Charge(900, 0.5)) == (spent(home), usage.charge)


def test_a_missing_cost_is_that_of_the_tokens_at_the_configured_price() -> None:
    home, usage = Household(), Usage()
    answered(home.purse(usage=usage), usage={"total_tokens": TOKENS})
    assert (Spent(1, TOKENS, USD), Charge(TOKENS, USD)) == (spent(home), usage.charge)


def test_without_reported_tokens_tokens_and_cost_are_estimated() -> None:
    home = Household()
    answered(home.purse())
    assert Spent(1, TOKENS, USD, USD) == spent(home)


def test_a_model_without_a_price_costs_nothing_and_is_reported() -> None:
    home = Household()
    answered(home.purse(), "local", input_tokens=7)
    assert Spent(1, 7) == spent(home, "local")
    assert ["local"] == home.spending.costs().without_price


def test_a_call_without_a_read_response_is_charged_as_estimated() -> None:
    """It was cancelled or timed out, but may be billed all the same."""
    home, usage = Household(), Usage()
    with home.purse(usage=usage).pay("m", TOKENS) as payment:
        payment.sent()
    assert (Spent(1, TOKENS, USD, USD), Charge(TOKENS, USD, USD)) == (spent(home), usage.charge)


def test_a_call_that_was_rejected_or_never_sent_costs_nothing() -> None:
    home = Household()
    with home.purse().pay("m", TOKENS) as payment:
        payment.sent()
        payment.free()
    with home.purse().pay("m", TOKENS):
        pass
    assert spent(home) is None


def test_a_retried_call_costs_what_its_last_attempt_costs() -> None:
    home = Household()
    with home.purse().pay("m", TOKENS) as payment:
        payment.sent()
        payment.free()
        payment.sent()
        payment.answered(b'{"input_tokens":5,"inference_status":{"cost":0.25}}')
    assert Spent(1, 5, 0.25) == spent(home)


def test_estimates_adapt_to_reported_tokens() -> None:
    home = Household()
    for _ in range(50):
        answered(home.purse(), "m", input_tokens=TOKENS // 2, inference_status={"cost": 1})
        answered(home.purse(), "unpriced", input_tokens=TOKENS * 2, inference_status={"cost": 4})
    estimate = home.meter.estimated_usd
    assert pytest.approx(USD / 2, rel=0.01) == estimate("m", TOKENS, home.spending.prices)
    assert pytest.approx(4, rel=0.01) == estimate("unpriced", TOKENS, home.spending.prices)


def test_a_free_local_model_reserves_nothing_once_it_was_called() -> None:
    home = Household()
    published = "Qwen/Qwen3-Reranker-4B"
    assert home.meter.reserved_usd(published, 1e6, home.spending.prices) == 0.025
    answered(home.purse(), published, input_tokens=1)
    assert home.meter.reserved_usd(published, 1e6, home.spending.prices) == 0


def test_a_cheap_tier_call_does_not_lower_later_estimates() -> None:
    home = Household()
    cheap = replace(home.purse(), share=0.5)
    answered(cheap, usage={"total_tokens": TOKENS})
    assert Spent(1, TOKENS, USD / 2) == spent(home)
    answered(cheap, "n", input_tokens=TOKENS, inference_status={"cost": 1.0})
    whole = home.meter.estimated_usd("n", TOKENS, home.spending.prices)
    assert Spent(1, TOKENS, 1.0) == spent(home, "n")
    assert pytest.approx(2.0) == whole


def test_savings_by_caches_are_counted_separately() -> None:
    home = Household()
    home.purse().saved("m", TOKENS)
    assert Spent(saved_tokens=TOKENS, saved_usd=USD) == spent(home)


# Caps


def test_concurrent_calls_do_not_exceed_a_cap_together() -> None:
    home = Household(SpendCaps(max_usd_per_minute=3.5 * USD))
    with ExitStack() as stack:
        for _ in range(100):
            with suppress(CapReached):
                stack.enter_context(home.purse().pay("m", TOKENS)).sent()
    assert Spent(3, 3 * TOKENS, 3 * USD, 3 * USD) == spent(home)


def test_concurrent_calls_without_a_price_reserve_the_highest_published_price() -> None:
    dearest = TOKENS * max(PRICES.values()) / 1e6
    home = Household(SpendCaps(max_usd_per_minute=3.5 * dearest))
    begun = 0
    with ExitStack() as stack:
        for _ in range(100):
            with suppress(CapReached):
                stack.enter_context(home.purse().pay("unpriced", TOKENS)).sent()
                begun += 1
    assert begun == 3
    answered(home.purse(), "unpriced", input_tokens=1)
    assert home.meter.reserved_usd("unpriced", TOKENS, home.spending.prices) == 0


def test_unspent_reservations_are_released() -> None:
    home = Household(SpendCaps(max_usd_per_minute=1.5 * USD))
    for _ in range(5):
        with home.purse().pay("m", TOKENS) as payment:
            payment.sent()
            payment.free()


def test_a_global_cap_limits_all_routes_and_a_routes_cap_only_that_route() -> None:
    home = Household(SpendCaps(max_usd_per_minute=1.5 * USD), SpendCaps(max_usd_per_minute=2.5 * USD))
    answered(home.purse("a"), input_tokens=TOKENS)
    with pytest.raises(CapReached, match=r"m: the call would exceed the cap of \$0.0117188 per minute of a"):
        answered(home.purse("a"), input_tokens=TOKENS)
    answered(home.purse("b"), input_tokens=TOKENS)
    with pytest.raises(CapReached, match="of all routes"):
        answered(home.purse("b"), input_tokens=TOKENS)


def test_a_cap_per_minute_ends_with_the_minute() -> None:
    home = Household(SpendCaps(max_usd_per_minute=1.5 * USD))
    answered(home.purse(), input_tokens=TOKENS)
    with pytest.raises(CapReached):
        answered(home.purse(), input_tokens=TOKENS)
    home.time.seconds += 60
    answered(home.purse(), input_tokens=TOKENS)


def test_a_purse_that_does_not_pay_refuses_each_call_of_a_capped_route() -> None:
    home = Household(SpendCaps(max_usd_per_minute=100))
    with pytest.raises(CapReached, match="nothing is paid"):
        answered(home.purse(pays=False))


def test_levels_rise_with_spend_and_are_logged_once_per_period(log: Log) -> None:
    home = Household(SpendCaps(max_usd_per_minute=10 * USD))
    seen = []
    for _ in range(9):
        answered(home.purse(), input_tokens=TOKENS)
        seen.append(home.spending.update_level("a"))
    answered(home.purse(), input_tokens=TOKENS // 2)
    seen.append(home.spending.update_level("a"))
    home.purse().book("m", Charge(0, USD))
    seen.append(home.spending.update_level("a"))
    home.time.seconds += 60
    assert Level.NORMAL is home.spending.update_level("a")
    assert [Level.NORMAL] * 7 + [Level.NARROW] * 2 + [Level.CACHED, Level.OFF] == seen
    assert ["80%", "95%", "105%"] == [event["detail"].split()[0] for event in log if event["event"] == "spend_cap"]
    assert Level.NORMAL is home.spending.update_level("b")


# The state file


async def test_a_restart_does_not_reset_a_days_spend(tmp_path: Path) -> None:
    path = tmp_path / "spend.json"
    home = Household(SpendCaps(max_usd_per_day=1.5 * USD), path=path)
    answered(home.purse(), input_tokens=TOKENS)
    await home.meter.save()
    later = Household(SpendCaps(max_usd_per_day=1.5 * USD), path=path)
    later.meter.read()
    with pytest.raises(CapReached):
        answered(later.purse(), input_tokens=TOKENS)


async def test_a_clock_that_is_far_behind_does_not_lift_a_cap(tmp_path: Path) -> None:
    """Its day is older than all days whose spend is kept."""
    home = Household(SpendCaps(max_usd_per_day=1.5 * USD), path=tmp_path / "spend.json")
    for _ in range(SPEND_DAYS):
        answered(home.purse(), input_tokens=TOKENS)
        home.time.seconds += 86_400
    await home.meter.save()
    home.time.seconds -= 400 * 86_400
    answered(home.purse(), input_tokens=TOKENS)
    await home.meter.save()
    with pytest.raises(CapReached):
        answered(home.purse(), input_tokens=TOKENS)


async def test_processes_that_share_a_file_see_each_others_spend(tmp_path: Path) -> None:
    homes = [Household(path=tmp_path / "spend.json") for _ in range(2)]
    for home in (*homes, homes[0]):
        answered(home.purse(), input_tokens=TOKENS)
        await home.meter.save()
    assert 3 == homes[0].meter.ledger.days()[Account(DAY, "a", "m")].calls


async def test_a_process_that_spends_nothing_sees_what_others_spend(tmp_path: Path) -> None:
    homes = [Household(SpendCaps(max_usd_per_day=1.5 * USD), path=tmp_path / "spend.json") for _ in range(2)]
    answered(homes[0].purse(), input_tokens=TOKENS)
    for home in homes:
        await home.meter.save()
    with pytest.raises(CapReached):
        answered(homes[1].purse(), input_tokens=TOKENS)


@pytest.mark.parametrize("content", [b"", None], ids=["corrupt", "removed"])
async def test_what_was_spent_outlasts_the_file(tmp_path: Path, log: Log, content: bytes | None) -> None:
    """Of each process once, whichever notices first."""
    path = tmp_path / "spend.json"
    homes = [Household(path=path) for _ in range(2)]
    for home in (*homes, *homes):
        answered(home.purse(), input_tokens=TOKENS)
        await home.meter.save()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    for home in (*homes, *homes, *homes):
        await home.meter.save()
    assert [4, 4] == [home.meter.ledger.days()[Account(DAY, "a", "m")].calls for home in homes]
    assert ["spend_state_corrupt"] * (content is not None) == [event["event"] for event in log]


async def test_a_full_disk_causes_a_warning_and_no_loss(tmp_path: Path, log: Log) -> None:
    new = tmp_path / "spend.json.new"
    new.symlink_to("/dev/full")
    home = Household(path=tmp_path / "spend.json")
    for _ in range(3):
        answered(home.purse(), input_tokens=TOKENS)
        await home.meter.save()
    assert [("warning", "spend_not_saved")] == [(event["log_level"], event["event"]) for event in log]
    assert "No space left" in log[0]["detail"]
    new.unlink()
    await home.meter.save()
    later = Household(path=tmp_path / "spend.json")
    later.meter.read()
    assert 3 == later.meter.ledger.days()[Account(DAY, "a", "m")].calls


async def test_past_minutes_are_dropped_while_the_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "spend.json.new").symlink_to("/dev/full")
    home = Household(path=tmp_path / "spend.json")
    for minute in range(20):
        home.time.seconds = NOON + 60 * minute
        answered(home.purse(), input_tokens=TOKENS)
        await home.meter.save()
    unsaved = home.meter.ledger.begin_save()
    assert [DAY, "2026-11-29T12:19"] == sorted(account.period for account in unsaved)
    assert 20 == unsaved[Account(DAY, "a", "m")].calls


@pytest.mark.parametrize("when", ["at the start", "later"])
async def test_a_corrupt_file_is_reported_and_renamed(tmp_path: Path, log: Log, when: str) -> None:
    path = tmp_path / "spend.json"
    path.write_bytes(b"{")
    home = Household(path=path)
    if when == "at the start":
        home.meter.read()
    answered(home.purse(), input_tokens=TOKENS)
    await home.meter.save()
    await home.meter.save()
    assert [("error", "spend_state_corrupt")] == [(event["log_level"], event["event"]) for event in log]
    assert b"{" == (tmp_path / "spend.json.corrupt-20261129T120000Z").read_bytes()
    assert json.loads(path.read_bytes())["rows"]


async def test_an_unreadable_and_unwritable_file_is_a_warning(tmp_path: Path, log: Log) -> None:
    (tmp_path / "file").touch()
    home = Household(path=tmp_path / "file" / "spend.json")
    home.meter.read()
    answered(home.purse())
    await home.meter.save()
    assert ["spend_not_saved"] == [event["event"] for event in log]


async def test_a_cancelled_save_does_not_count_twice(tmp_path: Path) -> None:
    """Its thread continues to write, and the last save waits for it."""
    home = Household(path=tmp_path / "spend.json")
    answered(home.purse(), input_tokens=TOKENS)
    keeping = asyncio.ensure_future(home.meter.keep_saved(0))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not home.meter.ledger.is_changed
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await home.meter.save()
    assert 1 == json.loads((tmp_path / "spend.json").read_bytes())["rows"][0]["spent"]["calls"]


async def test_without_a_file_everything_is_kept_in_memory() -> None:
    home = Household()
    home.meter.read()
    answered(home.purse(), input_tokens=TOKENS)
    home.time.seconds = NOON + 120
    await home.meter.save()
    assert {("a", "m"): USD} == home.spending.today_usd()
