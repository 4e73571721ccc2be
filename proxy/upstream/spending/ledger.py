"""The amounts spent, by period, route and model: what the state file has, what was added since, what is reserved."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from proxy.bounds import SPEND_DAYS, SPEND_MODELS
from proxy.upstream.spending.caps import Cap, Period

OTHER = "other"
"""The name under which models beyond the limit are counted together: an index may name any model."""


class Spent(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was spent, and what the caches saved."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    estimated_usd: float = 0.0
    """The part of `usd` that is estimated."""
    saved_tokens: int = 0
    saved_usd: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.calls + other.calls,
            self.tokens + other.tokens,
            self.usd + other.usd,
            self.estimated_usd + other.estimated_usd,
            self.saved_tokens + other.saved_tokens,
            self.saved_usd + other.saved_usd,
        )

    def at_least(self, other: "Spent") -> "Spent":
        """Return the higher of both in each respect."""
        return Spent(*map(max, msgspec.structs.astuple(self), msgspec.structs.astuple(other)))


NOTHING_SPENT = Spent()


class Account(NamedTuple):
    """What an amount is booked under."""

    period: str
    """A UTC day or minute, as `Period.key` writes it."""
    route: str
    model: str

    @property
    def is_day(self) -> bool:
        return "T" not in self.period


Book = Mapping[Account, Spent]


def added(*books: Book) -> dict[Account, Spent]:
    """Add books account by account."""
    total: dict[Account, Spent] = {}
    for book in books:
        for account, spent in book.items():
            total[account] = total.get(account, NOTHING_SPENT) + spent
    return total


def at_least(book: Book, known: Book) -> Book:
    """Return a book whose amounts are nowhere lower than was known before: amounts only grow."""
    more = {account: book.get(account, NOTHING_SPENT).at_least(spent) for account, spent in known.items()}
    return {**book, **more}


def recent(book: Book, now: float) -> dict[Account, Spent]:
    """Drop what neither caps nor reports need: past minutes, and all but the newest days with any spend.

    Days are counted, not compared with the clock: one that is wrong for a while must not cost today's spend. The day
    that it shows is kept, too, however long ago: its caps hold now.
    """
    minute = Period.MINUTE.key(now)
    days = {*sorted({account.period for account in book if account.is_day})[-SPEND_DAYS:], Period.DAY.key(now)}
    return {
        account: spent
        for account, spent in book.items()
        if (account.period in days if account.is_day else account.period >= minute)
    }


class Ledger:
    """What was spent by all processes that share a state file, as of the last time it was read, and by this one."""

    def __init__(self) -> None:
        self._saved: Book = {}
        self._saving: Book = {}
        self._own: dict[Account, Spent] = {}
        self._usd: defaultdict[tuple[str, str | None], float] = defaultdict(float)
        """US dollars by period and route; None: of all routes."""
        self._reserved: defaultdict[str | None, float] = defaultdict(float)
        self._models: set[str] = set()

    # -- bookings

    def add(self, now: float, route: str, model: str, spent: Spent) -> None:
        if model not in self._models:
            if len(self._models) >= SPEND_MODELS:
                model = OTHER
            self._models.add(model)
        for period in Period:
            key = period.key(now)
            account = Account(key, route, model)
            self._own[account] = self._own.get(account, NOTHING_SPENT) + spent
            self._usd[key, route] += spent.usd
            self._usd[key, None] += spent.usd

    def reserve(self, route: str, usd: float) -> None:
        """Reserve an amount, or with a negative one release it."""
        self._reserved[route] += usd
        self._reserved[None] += usd

    def share(self, cap: Cap, now: float, usd: float = 0.0) -> float:
        """Return which share of a cap is spent or reserved, with `usd` on top."""
        spent = self._usd.get((cap.period.key(now), cap.route), 0.0)
        return (spent + max(0.0, self._reserved.get(cap.route, 0.0)) + usd) / cap.usd

    def days(self) -> Book:
        """Return what was spent each day."""
        books = (self._saved, self._saving, self._own)
        return {account: spent for account, spent in added(*books).items() if account.is_day}

    # -- the state file

    @property
    def known(self) -> Book:
        """What the state file had when it was last read."""
        return self._saved

    def begin_save(self) -> Book:
        """Return what was added since the last save, which `saved` or `not_saved` concludes."""
        self._saving, self._own = self._own, {}
        return self._saving

    def saved(self, book: Book) -> None:
        """Take over what the state file has now, which includes what was saved."""
        self._saved, self._saving = book, {}
        self._count()

    def not_saved(self, now: float) -> None:
        """Keep what could not be saved for the next time, without past minutes, which would accumulate."""
        self._own, self._saving = added(self._saving, self._own), {}
        self.forget(now)

    def forget(self, now: float) -> None:
        """Drop past minutes and days that no report needs."""
        self._own = recent(self._own, now)
        self._saved = recent(self._saved, now)
        self._count()

    @property
    def is_changed(self) -> bool:
        return bool(self._own)

    def _count(self) -> None:
        self._usd = defaultdict(float)
        for account, spent in added(self._saved, self._saving, self._own).items():
            self._usd[account.period, account.route] += spent.usd
            self._usd[account.period, None] += spent.usd


def total(spent: Iterable[Spent]) -> Spent:
    """Add amounts."""
    return sum(spent, NOTHING_SPENT)
