"""Caps on spend, and what searches may still cost near a cap: they become cheaper step by step."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from functools import lru_cache

from proxy.settings.config import Config, SpendCaps


class Period(StrEnum):
    """The period of a cap: it begins with each UTC day or minute."""

    DAY = "day"
    MINUTE = "minute"

    def key(self, now: float) -> str:
        """Return the name of the period of a time: 2026-11-29, or 2026-11-29T16:45."""
        return _name(self, int(now // 60))


@lru_cache(8)
def _name(period: Period, minute: int) -> str:
    """Each call of a model is booked under the same few names for a minute."""
    return datetime.fromtimestamp(minute * 60, UTC).strftime(_FORMATS[period])


_FORMATS: Mapping[Period, str] = {Period.DAY: "%Y-%m-%d", Period.MINUTE: "%Y-%m-%dT%H:%M"}


class Level(IntEnum):
    """What the searches of a route may cost."""

    NORMAL = 0
    NARROW = 1
    """A smaller window."""
    CACHED = 2
    """Nothing: only cached vectors and scores are used."""
    OFF = 3
    """They are not reranked."""


_STEPS: Sequence[tuple[float, Level]] = ((1.0, Level.OFF), (0.95, Level.CACHED), (0.8, Level.NARROW))
"""The level from each share of a cap upwards, the highest first.

No call may exceed a cap, so a share of 1 is reached only if calls cost more than was estimated, or if another process
spends from the same cap.
"""
NARROW_WINDOW = 20
"""The maximum window at `NARROW`."""


def level_at(share: float) -> Level:
    """Return the level when this share of a cap is spent or reserved."""
    return next((level for least, level in _STEPS if share >= least), Level.NORMAL)


def narrowed_by_spend(window: int, level: Level) -> int:
    """Return the window of a new search at this level."""
    return window if level is Level.NORMAL else min(window, NARROW_WINDOW)


@dataclass(frozen=True, slots=True)
class Cap:
    """A maximum of US dollars in a period."""

    usd: float
    period: Period
    route: str | None = None
    """None: of all routes together."""

    def __str__(self) -> str:
        whose = "all routes" if self.route is None else self.route
        return f"${self.usd:g} per {self.period} of {whose}"


def caps_of(config: Config, route: str) -> tuple[Cap, ...]:
    """Return the caps that hold for a route: its own, and those of all routes together."""
    own = next((each.spend for each in config.routes if each.name == route), SpendCaps())
    return (*_caps(own, route), *_caps(config.spend, None))


def _caps(settings: SpendCaps, route: str | None) -> Iterable[Cap]:
    for usd, period in ((settings.max_usd_per_day, Period.DAY), (settings.max_usd_per_minute, Period.MINUTE)):
        if usd is not None:
            yield Cap(usd, period, route)
