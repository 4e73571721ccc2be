"""Purses before a meter in memory, at a time that a test sets."""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from proxy.context import Usage
from proxy.settings.config import Config, Models, RouteSettings, Spend, SpendCaps
from proxy.upstream.spending.meter import Meter, RoutePurse, Spending

NOON = 1_795_953_600.0
"""2026-11-29T12:00:00Z"""
PRICE = 7.8125
"""US dollars per million tokens of the model `m`."""


@dataclass
class Time:
    """A clock that a test sets."""

    seconds: float = NOON

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Household:
    """A meter and the purses that share it: the routes are `a` and `b`."""

    caps: SpendCaps = field(default_factory=SpendCaps)
    all_caps: SpendCaps = field(default_factory=SpendCaps)
    path: Path | None = None
    time: Time = field(default_factory=Time)

    def __post_init__(self) -> None:
        together = msgspec.structs.asdict(self.all_caps)
        config = Config(
            models=Models(url="http://127.0.0.1:8080"),
            routes=(RouteSettings(index="a", spend=self.caps), RouteSettings(index="b")),
            spend=Spend(file="unused", prices={"m": PRICE}, **together),
        )
        self.meter = Meter(self.path, self.time)
        self.spending = Spending(config, self.meter)

    def purse(self, route: str = "a", usage: Usage | None = None, *, pays: bool = True) -> RoutePurse:
        return self.spending.purse(route, usage, pays=pays)


def purse_with(usage: Usage) -> RoutePurse:
    """Return a purse without caps that records in this usage."""
    return Household().purse(usage=usage)
