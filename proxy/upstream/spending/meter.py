"""The meter of a process: what each call costs, before and after it, and whether a cap permits it."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
from cachetools import LRUCache

from proxy.bounds import SPEND_MODELS
from proxy.context import NO_CHARGE, Charge, Usage
from proxy.errors import CapReached
from proxy.settings.config import Config
from proxy.upstream.charges import reported_in
from proxy.upstream.spending.caps import NARROW_WINDOW, Cap, Level, Period, caps_of, level_at
from proxy.upstream.spending.ledger import Ledger, Spent
from proxy.upstream.spending.prices import PRICES, TIER_FACTORS, Prices, Reported
from proxy.upstream.spending.report import Costs, costs_of
from proxy.upstream.spending.state import Corrupt, StateFile
from proxy.upstream.threads import apart

_log = structlog.get_logger("proxy")
SAVE_S = 1.0
"""Seconds between two saves of the state file, which a crash may lose."""
LAST_SAVE_S = 5.0
"""Seconds that the process waits for the last save."""
_WEIGHT = 0.2
"""The weight of the last call in the observed price and the observed error of the token estimate."""


@dataclass(slots=True)
class _Observed:
    """What the calls of a model showed: its price, and the error of the estimates of its tokens."""

    usd_per_token: float | None = None
    tokens_per_estimated: float | None = None

    def learn(self, estimated_tokens: float, reported: Reported) -> None:
        if not reported.tokens:
            return
        if estimated_tokens:
            self.tokens_per_estimated = _moved(self.tokens_per_estimated, reported.tokens / estimated_tokens)
        if reported.cost_usd is not None:
            self.usd_per_token = _moved(self.usd_per_token, reported.cost_usd / reported.tokens)


def _moved(average: float | None, value: float) -> float:
    return value if average is None else average + _WEIGHT * (value - average)


class Meter:
    """What the process spends, of all routes and models; it survives reloads, and with a state file also restarts."""

    def __init__(self, path: Path | None = None, now: Callable[[], float] = time.time) -> None:
        self.ledger = Ledger()
        self.now = now
        self._file = StateFile(path) if path else None
        self._observed: LRUCache[str, _Observed] = LRUCache(SPEND_MODELS)
        self._saving = asyncio.Lock()
        self._is_failing = False

    # -- calls

    def estimated_usd(self, model: str, tokens: float, prices: Prices) -> float:
        """Estimate the cost of a call: by the configured price, or that of earlier calls; 0 if both are unknown."""
        known = self._observed.get(model) or _Observed()
        tokens *= 1.0 if known.tokens_per_estimated is None else known.tokens_per_estimated
        if prices.of(model) is None and known.usd_per_token is not None:
            return tokens * known.usd_per_token
        return prices.usd(model, tokens)

    def reserved_usd(self, model: str, tokens: float, prices: Prices) -> float:
        """Return what to reserve for a call: its estimated cost.

        Before the first response of a model without a configured price, it is estimated by the published price, or by
        the highest one of those if this model has none: else calls at once would reserve nothing.
        """
        is_known = prices.of(model) is not None or model in self._observed
        assumed = prices if is_known else Prices({model: PRICES.get(model, _HIGHEST)})
        return self.estimated_usd(model, tokens, assumed)

    def observe(self, model: str, estimated_tokens: float, reported: Reported) -> None:
        """Learn from what a provider reports about a call."""
        self._observed.setdefault(model, _Observed()).learn(estimated_tokens, reported)

    # -- the state file

    def read(self) -> None:
        """Read the state file, if there is one; a corrupt one is set aside. Blocks, never raises."""
        if self._file is None:
            return
        try:
            self.ledger.saved(self._file.read())
            self._remember_prices()
        except Corrupt as error:
            self._set_aside(self._file, error)
        except OSError as error:
            self._failed(self._file, error)

    def _remember_prices(self) -> None:
        for account, spent in self.ledger.days().items():
            self.observe(account.model, 0.0, Reported(spent.tokens, spent.usd))

    async def save(self) -> None:
        """Save what was spent, and read what others spent; after an error, it is kept in memory for the next time."""
        async with self._saving:
            now = self.now()
            if self._file is None:
                self.ledger.forget(now)
                return
            book = self.ledger.begin_save()
            try:
                self.ledger.saved(await apart(partial(self._file.add, book, now, self.ledger.known)))
                self.ledger.forget(now)
            except Corrupt as error:
                self.ledger.not_saved(now)
                await apart(partial(self._set_aside, self._file, error))
            except OSError as error:
                self.ledger.not_saved(now)
                self._failed(self._file, error)
            except BaseException:
                self.ledger.not_saved(now)
                raise
            else:
                self._is_failing = False

    async def save_last(self, seconds: float = LAST_SAVE_S) -> None:
        """Save at the end of the process, which waits for it only so long."""
        try:
            async with asyncio.timeout(seconds):
                await self.save()
        except TimeoutError:
            if self._file is not None:
                self._failed(self._file, OSError(f"no end after {seconds:g} s"))

    async def keep_saved(self, every_seconds: float = SAVE_S) -> None:
        """Save regularly."""
        while True:
            await asyncio.sleep(every_seconds)
            # The thread that writes cannot be cancelled: what it saves must not be saved again at the end.
            await asyncio.shield(asyncio.ensure_future(self.save()))

    def _set_aside(self, file: StateFile, corrupt: Corrupt) -> None:
        try:
            aside = file.set_aside(self.now())
        except OSError as error:
            self._failed(file, error)
            return
        if aside is not None:
            _log.error(
                "spend_state_corrupt",
                detail=f"{file.path} cannot be read: {corrupt}. It is now {aside.name}; a process that had read it "
                "before writes it anew, one that starts counts from 0, so that its caps ignore what was spent before",
            )

    def _failed(self, file: StateFile, error: OSError) -> None:
        """Warn once, until a save succeeds again."""
        if not self._is_failing:
            self._is_failing = True
            _log.warning(
                "spend_not_saved",
                detail=f"{file.path}: {error.strerror or error}. Spend is counted in memory, and a restart would lose "
                "it; saving is tried again every second",
            )


_HIGHEST = max(PRICES.values())
_MEANINGS: Mapping[Level, str] = {
    Level.NARROW: f"at most {NARROW_WINDOW} candidates are reranked",
    Level.CACHED: "only cached vectors and scores are used",
    Level.OFF: "searches are not reranked until the period ends",
}


class Spending:
    """What the searches of each route may spend under one configuration."""

    def __init__(self, config: Config, meter: Meter) -> None:
        self.meter = meter
        self.prices = prices_of(config)
        self._config = config
        self._caps: dict[str, tuple[Cap, ...]] = {}
        self._logged: dict[str, tuple[str, Level]] = {}
        """The highest level of each route that was logged, and in which period."""

    def caps(self, route: str) -> tuple[Cap, ...]:
        """Return the caps that hold for a route."""
        if route not in self._caps:
            self._caps[route] = caps_of(self._config, route)
        return self._caps[route]

    def costs(self) -> Costs:
        """Return the report of what was spent."""
        caps = (cap for route in self._config.routes for cap in self.caps(route.name))
        return costs_of(self.meter.ledger, caps, self.prices, self.meter.now())

    def shares(self) -> Mapping[tuple[str, ...], float]:
        """Return the share of its nearest cap of each route that has one."""
        names = (route.name for route in self._config.routes)
        return {(name,): self.share(name) for name in names if self.caps(name)}

    def today_usd(self) -> Mapping[tuple[str, ...], float]:
        """Return what was spent today, by route and model."""
        today = Period.DAY.key(self.meter.now())
        days = self.meter.ledger.days()
        return {(account.route, account.model): spent.usd for account, spent in days.items() if account.period == today}

    def share(self, route: str) -> float:
        """Return which share of its nearest cap is spent or reserved; 0 without a cap."""
        now = self.meter.now()
        return max((self.meter.ledger.share(cap, now) for cap in self.caps(route)), default=0.0)

    def update_level(self, route: str) -> Level:
        """Return what the searches of a route may cost now, and log when it first rises in a period."""
        caps = self.caps(route)
        if not caps:
            return Level.NORMAL
        now, ledger = self.meter.now(), self.meter.ledger
        share, nearest = max(((ledger.share(cap, now), cap) for cap in caps), key=lambda found: found[0])
        level = level_at(share)
        period, highest = self._logged.get(route, ("", Level.NORMAL))
        if level > (highest if period == nearest.period.key(now) else Level.NORMAL):
            self._logged[route] = (nearest.period.key(now), level)
            detail = f"{share:.0%} of {nearest} are spent or reserved: {_MEANINGS[level]}"
            _log.warning("spend_cap", route=route, detail=detail)
        return level

    def purse(
        self, route: str, usage: Usage | None = None, *, pays: bool = True, is_background: bool = False
    ) -> "RoutePurse":
        """Return the purse of a search, or of a command; `usage` also records what it spends."""
        share = self.prices.flex_share if is_background else 1.0
        return RoutePurse(self, route, usage or Usage(), pays, share)


def prices_of(config: Config) -> Prices:
    """Return the prices under a configuration; the published ones are those of DeepInfra."""
    models = config.models
    of_deepinfra = "deepinfra.com" in models.url and models.rerank_url is None
    return Prices(config.spend.prices, of_deepinfra, TIER_FACTORS[models.service_tier or "default"])


@dataclass(frozen=True, slots=True)
class RoutePurse:
    """What a search may spend; records what its calls cost, and what caches saved it."""

    spending: Spending
    route: str
    usage: Usage
    pays: bool = True
    """False: only what costs nothing."""
    share: float = 1.0
    """What its calls cost, as a share of other calls of the model; the whole price is reserved."""

    @contextmanager
    def pay(self, model: str, tokens: float) -> "Iterator[CallPayment]":
        """Reserve the estimated cost of a call while the block runs; raises CapReached."""
        meter, ledger = self.spending.meter, self.spending.meter.ledger
        usd = meter.reserved_usd(model, tokens, self.spending.prices)
        self._permit(model, usd)
        payment = CallPayment(self, model, tokens)
        ledger.reserve(self.route, usd)
        try:
            yield payment
        finally:
            ledger.reserve(self.route, -usd)
            payment.settle()

    def _permit(self, model: str, usd: float) -> None:
        now, ledger = self.spending.meter.now(), self.spending.meter.ledger
        caps = self.spending.caps(self.route)
        if not self.pays and caps:
            raise CapReached(model, "nothing is paid near a cap on spend")
        for cap in caps:
            if ledger.share(cap, now, usd) > 1.0:
                is_brief = cap.period is Period.MINUTE
                raise CapReached(model, f"the call would exceed the cap of {cap}", is_brief=is_brief)

    def saved(self, model: str, tokens: float) -> None:
        """Record that a cache made the model's work on some tokens unnecessary."""
        meter = self.spending.meter
        usd = meter.estimated_usd(model, tokens, self.spending.prices)
        meter.ledger.add(meter.now(), self.route, model, Spent(saved_tokens=round(tokens), saved_usd=usd))

    def book(self, model: str, charge: Charge) -> None:
        """Record what a call cost."""
        spent = Spent(1, charge.tokens, charge.cost_usd, charge.estimated_usd)
        self.spending.meter.ledger.add(self.spending.meter.now(), self.route, model, spent)
        self.usage.add(charge)


@dataclass(slots=True)
class CallPayment:
    """The cost of one call, and of its retry: what the provider reports, otherwise an estimate."""

    purse: RoutePurse
    model: str
    tokens: float
    """As estimated."""
    charge: Charge = NO_CHARGE
    _is_open: bool = False

    def sent(self) -> None:
        """Note that the call is sent, and may be charged from now on."""
        self._is_open = True

    def free(self) -> None:
        """Note that the call is not charged: it was rejected, or did not arrive."""
        self._is_open = False

    def answered(self, content: bytes) -> None:
        """Read what the provider charged from its response, or else count the tokens at the configured price."""
        self._is_open = False
        reported = reported_in(content)
        spending = self.purse.spending
        share = self.purse.share
        whole_usd = None if reported.cost_usd is None else reported.cost_usd / share
        spending.meter.observe(self.model, self.tokens, Reported(reported.tokens, whole_usd))
        tokens = round(self.tokens) if reported.tokens is None else reported.tokens
        usd = share * spending.prices.usd(self.model, tokens) if reported.cost_usd is None else reported.cost_usd
        self.charge += Charge(tokens, usd, usd if reported.tokens is None and reported.cost_usd is None else 0.0)

    def settle(self) -> None:
        """Book the call; one whose response was not read counts as estimated."""
        if self._is_open:
            spending = self.purse.spending
            usd = spending.meter.estimated_usd(self.model, self.tokens, spending.prices)
            self.charge += Charge(round(self.tokens), usd, usd)
        if self.charge != NO_CHARGE:
            self.purse.book(self.model, self.charge)
