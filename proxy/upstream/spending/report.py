"""The report of `costs` and of the admin port: what was spent each day, what the caches saved, caps and a forecast."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from proxy.upstream.spending.caps import Cap, Period
from proxy.upstream.spending.ledger import Account, Book, Ledger, Spent, total
from proxy.upstream.spending.prices import Prices

_RATE_DAYS = 7
_DAY_S = 86_400
_LONGEST_MONTH = timedelta(days=31)


class DayCosts(msgspec.Struct, frozen=True):
    """What one route spent on one model in one UTC day."""

    day: str
    route: str
    model: str
    calls: int
    tokens: int
    usd: float
    estimated_usd: float
    saved_tokens: int
    saved_usd: float


class MonthCosts(msgspec.Struct, frozen=True):
    """The month so far, and what it will cost at the rate of the last seven days."""

    month: str
    usd: float
    saved_usd: float
    forecast_usd: float


class CapState(msgspec.Struct, frozen=True):
    """How much of a cap is spent or reserved."""

    route: str | None
    period: str
    usd: float
    share: float


class Costs(msgspec.Struct, frozen=True):
    """The whole report."""

    days: list[DayCosts]
    month: MonthCosts
    caps: list[CapState] = []
    without_price: list[str] = []
    """Models whose tokens are counted without a cost, because neither the provider nor the settings name a price."""


def costs_of(ledger: Ledger, caps: Iterable[Cap], prices: Prices, now: float) -> Costs:
    """Return the report at a time."""
    book = ledger.days()
    states = [CapState(cap.route, cap.period, cap.usd, ledger.share(cap, now)) for cap in dict.fromkeys(caps)]
    days = [_row(account, spent) for account, spent in sorted(book.items(), key=lambda item: item[0])]
    return Costs(days, _month(book, now), states, models_without_price(book, prices))


def _row(account: Account, spent: Spent) -> DayCosts:
    return DayCosts(
        account.period,
        account.route,
        account.model,
        spent.calls,
        spent.tokens,
        spent.usd,
        spent.estimated_usd,
        spent.saved_tokens,
        spent.saved_usd,
    )


def _month(book: Book, now: float) -> MonthCosts:
    moment = datetime.fromtimestamp(now, UTC)
    month = f"{moment:%Y-%m}"
    so_far = total(spent for account, spent in book.items() if account.period.startswith(month))
    following = (moment.replace(day=1) + _LONGEST_MONTH).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    left_days = (following - moment).total_seconds() / _DAY_S
    return MonthCosts(month, so_far.usd, so_far.saved_usd, so_far.usd + left_days * usd_per_day(book, now))


def usd_per_day(book: Book, now: float) -> float:
    """Return the mean of the last seven days, today included, or of the days since the first one with any spend."""
    first = Period.DAY.key(now - (_RATE_DAYS - 1) * _DAY_S)
    recent = {account.period: 0.0 for account in book if account.period >= first}
    if not recent:
        return 0.0
    begun = datetime.fromisoformat(min(recent)).replace(tzinfo=UTC).timestamp()
    spent = sum(spent.usd for account, spent in book.items() if account.period >= first)
    return spent * _DAY_S / max(now - begun, _DAY_S / 24)


def models_without_price(book: Book, prices: Prices) -> list[str]:
    """Return the models whose tokens were counted without a cost."""
    models = {account.model for account, spent in book.items() if spent.tokens and not spent.usd}
    return sorted(model for model in models if prices.of(model) is None)
