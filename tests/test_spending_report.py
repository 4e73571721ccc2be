"""The report of what the models cost."""

import pytest

from proxy.settings.config import SpendCaps
from proxy.upstream.spending.ledger import Account, Spent
from proxy.upstream.spending.report import CapState, usd_per_day
from tests.purses import NOON, Household

DAY_S = 86_400


def home_with(*usd: float) -> Household:
    """So much was spent each day, up to today."""
    home = Household(SpendCaps(max_usd_per_day=8))
    for ago, each in enumerate(reversed(usd)):
        spent = Spent(calls=2, tokens=20, usd=each, saved_tokens=10, saved_usd=each / 2)
        home.meter.ledger.add(NOON - ago * DAY_S, "a", "m", spent)
    return home


def test_the_report_has_an_ordered_row_per_day_route_and_model() -> None:
    costs = home_with(1.0, 2.0).spending.costs()
    assert [("2026-11-28", "a", "m", 2, 20, 1.0, 0.5), ("2026-11-29", "a", "m", 2, 20, 2.0, 1.0)] == [
        (row.day, row.route, row.model, row.calls, row.tokens, row.usd, row.saved_usd) for row in costs.days
    ]
    assert [CapState("a", "day", 8, 0.25)] == costs.caps


def test_the_forecast_extrapolates_the_last_seven_days() -> None:
    """At noon of the 29th of 30 days, one and a half days are left."""
    month = home_with(*[100.0] * 3, *[1.0] * 6, 0.5).spending.costs().month
    assert ("2026-11", 306.5, 153.25) == (month.month, month.usd, month.saved_usd)
    assert pytest.approx(306.5 + 1.5) == month.forecast_usd


def test_the_rate_of_a_new_proxy_starts_at_its_first_day() -> None:
    assert 0.0 == usd_per_day({}, NOON)
    today = {Account("2026-11-29", "a", "m"): Spent(usd=3.0)}
    assert pytest.approx(6.0) == usd_per_day(today, NOON)
    assert pytest.approx(72.0) == usd_per_day(today, NOON - DAY_S / 2 + 60)


def test_past_months_do_not_count() -> None:
    home = home_with(5.0)
    home.time.seconds = NOON + 3 * DAY_S
    assert ("2026-12", 0.0) == (home.spending.costs().month.month, home.spending.costs().month.usd)
