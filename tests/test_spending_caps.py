"""Caps, and the order of the brown-out."""

import pytest

from proxy.settings.config import Config, RouteSettings, Spend, SpendCaps
from proxy.upstream.spending.caps import Cap, Level, Period, caps_of, level_at, narrowed_by_spend
from tests.purses import NOON


def test_periods_begin_with_the_utc_day_and_minute() -> None:
    assert ("2026-11-29", "2026-11-29T12:00") == (Period.DAY.key(NOON), Period.MINUTE.key(NOON))
    assert ("2026-11-28", "2026-11-28T23:59") == tuple(period.key(NOON - 43_201) for period in Period)


@pytest.mark.parametrize(
    ("share", "level"),
    [
        (0.0, Level.NORMAL),
        (0.79, Level.NORMAL),
        (0.8, Level.NARROW),
        (0.95, Level.CACHED),
        (1.0, Level.OFF),
        (9.0, Level.OFF),
    ],
)
def test_approaching_a_cap_shrinks_the_window_then_stops_paying_then_reranking(share: float, level: Level) -> None:
    assert level is level_at(share)


def test_a_window_is_never_enlarged() -> None:
    assert [100, 20, 10] == [
        narrowed_by_spend(100, Level.NORMAL),
        narrowed_by_spend(100, Level.NARROW),
        narrowed_by_spend(10, Level.NARROW),
    ]


def test_a_route_has_its_own_caps_and_the_global_ones() -> None:
    config = Config(
        routes=(RouteSettings(index=["a", "b"], spend=SpendCaps(max_usd_per_minute=1)), RouteSettings(index="c")),
        spend=Spend(file="f", max_usd_per_day=5, max_usd_per_minute=2),
    )
    together = (Cap(5, Period.DAY), Cap(2, Period.MINUTE))
    assert ((Cap(1, Period.MINUTE, "a,b"), *together), together, together) == tuple(
        caps_of(config, route) for route in ("a,b", "c", "an index of no route")
    )


def test_a_cap_describes_itself() -> None:
    assert ["$0.5 per day of a", "$5 per minute of all routes"] == [
        str(Cap(0.5, Period.DAY, "a")),
        str(Cap(5, Period.MINUTE)),
    ]
