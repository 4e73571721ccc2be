"""Protects every model call of a search with a circuit breaker, a bulkhead and at most one retry."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import random
from typing import TypeVar

import structlog
from cachetools import LRUCache

from proxy.bounds import LOG_DETAIL, MODELS_GUARDED
from proxy.errors import Refused, SlowModel, TimedOut, UpstreamError, Withheld
from proxy.upstream.breaker import Breaker, Opened, Reason, Verdict
from proxy.upstream.bulkhead import Bulkhead, Load
from proxy.upstream.latency import Latency
from proxy.upstream.retries import RetryBudget, may_retry, retry_delay, verdict_of

_log = structlog.get_logger("proxy")
_T = TypeVar("_T")
OnCall = Callable[[str, str, str], None]
"""Called with service, model and result for each attempt, and for each call that was not made."""

CANCELLED = "cancelled"
"""The result of a call that was cancelled because the budget of its search ended or the client left."""
_NOTHING_LEFT_S = 0.02
"""A call is retried only if this many seconds remain beyond the model's usual latency."""
_FAIR_S = 0.3
"""A call that timed out sooner than this, in seconds, does not count as a failure of the model."""
_FAIR_FACTOR = 1.5
"""Nor does a call that timed out sooner than the model's usual latency times this factor."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """The sources of time, delay and randomness, which tests replace."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    draw: Callable[[], float] = random


class Guard:
    """The breaker, bulkhead and retry budget of one model at one endpoint."""

    def __init__(  # noqa: PLR0913  its settings
        self,
        service: str,
        model: str,
        most: int,
        clocks: Clocks,
        on_call: OnCall,
        *,
        leading: "Callable[[], Guard | None] | None" = None,
    ) -> None:
        """`leading`: returns another guard of the model; while its breaker is open, no call is made here either."""
        self.breaker = Breaker()
        self.latency = Latency(clocks.now())
        self.bulkhead = Bulkhead(service, most, self.latency)
        self._service = service
        self._model = model
        self._clocks = clocks
        self._on_call = on_call
        self._budget = RetryBudget()
        self._leading = leading or _nobody

    def reject_if_late(self, seconds: float, *, is_new: bool = True) -> UpstreamError | None:
        """Return the error of a search with too little time left for a call; None if it may call the model.

        Counts the search, as a call that was not made or as a possible probe of a slow model.

        `is_new`: the search would need a call of its own, and not wait for one that is running.
        """
        why: UpstreamError | None = None
        if not self.latency.admit(seconds, self._clocks.now()):
            detail = f"{self._model} has lately taken longer than the {seconds * 1000:.0f} ms that are left"
            why = SlowModel(self._service, detail)
        elif is_new:
            why = self.bulkhead.refusal(seconds)
        if why is not None:
            self._on_call(self._service, self._model, why.reason)
        return why

    def withheld(self) -> Withheld | None:
        """Return why the model is not called at present; None if it may be, for a probe at least."""
        refusal = self._refusal(self._clocks.now())
        return self._withheld(refusal) if refusal is not None else None

    def not_called(self, why: UpstreamError) -> None:
        """Count a call that a search did not make."""
        self._on_call(self._service, self._model, why.reason)

    def abandoned(self, seconds: float) -> None:
        """Record the time after which a search gave up waiting for a response."""
        self.latency.abandoned(seconds, self._clocks.now())

    @property
    def is_suspended(self) -> bool:
        """Whether the model is not called until `resume`."""
        return self.breaker.is_suspended

    def suspend(self, detail: str) -> None:
        """Do not call the model until `resume`."""
        before = self.breaker.opened
        self.breaker.suspend(detail[:LOG_DETAIL])
        self._report(before, self.breaker.opened)

    def resume(self) -> None:
        """End a suspension."""
        before = self.breaker.opened
        self.breaker.resume()
        self._report(before, self.breaker.opened)

    async def call(self, attempt: Callable[[float], Awaitable[_T]], seconds: float, *, is_typical: bool = True) -> _T:
        """Call the model and return its response; raises UpstreamError, or Busy or Withheld if no call was made.

        `attempt` makes one call with the timeout that it receives, in seconds. `is_typical`: its time says how long
        the model usually takes.
        """
        deadline = self._clocks.now() + seconds
        self._budget.note_call()
        try:
            return await self._attempt(attempt, seconds, is_typical=is_typical)
        except UpstreamError as error:
            delay = self._delay(error, deadline)
            if delay is None:
                raise
        self._on_call(self._service, self._model, "retried")
        await self._clocks.sleep(delay)
        return await self._attempt(attempt, deadline - self._clocks.now(), is_typical=is_typical)

    def _delay(self, error: UpstreamError, deadline: float) -> float | None:
        """Return the delay before a retry in seconds; None if there is no time or retry budget for one."""
        if not may_retry(error) or self.breaker.refusal(self._clocks.now()):
            return None
        delay = retry_delay(error, self._clocks.draw())
        left = deadline - self._clocks.now() - delay
        if left < (self.latency.usual or 0.0) + _NOTHING_LEFT_S or not self._budget.spend():
            return None
        return delay

    async def _attempt(self, attempt: Callable[[float], Awaitable[_T]], seconds: float, *, is_typical: bool) -> _T:
        begun = self._clocks.now()
        try:
            if refusal := self._refusal(begun):
                raise self._withheld(refusal)
            async with self.bulkhead.turn(seconds) as epoch:
                return await self._admitted(attempt, begun + seconds, epoch, is_typical=is_typical)
        except UpstreamError as error:
            self._on_call(self._service, self._model, error.reason)
            raise
        except asyncio.CancelledError:
            self._on_call(self._service, self._model, CANCELLED)
            raise

    async def _admitted(
        self, attempt: Callable[[float], Awaitable[_T]], deadline: float, epoch: int, *, is_typical: bool
    ) -> _T:
        """Make one call, and record its result in the breaker and the bulkhead."""
        begun = self._clocks.now()
        admission = self.breaker.admit(begun)
        if isinstance(admission, Opened):
            raise self._withheld(admission)
        verdict, load, detail = Verdict.SILENT, Load.UNKNOWN, ""
        try:
            response = await attempt(deadline - begun)
        except UpstreamError as error:
            verdict, load = self._learned(error, self._clocks.now() - begun)
            detail = str(error)[:LOG_DETAIL]
            raise
        except asyncio.CancelledError:
            took = self._clocks.now() - begun
            verdict, load = self._learned(TimedOut(self._service), took)
            detail = f"{self._service}: no answer in {took:.3g} s"
            raise
        else:
            took = self._clocks.now() - begun
            verdict = Verdict.WORKS
            load = Load.SLOW if self.latency.is_exceeded_by(took) else Load.FINE
            if is_typical:
                self.latency.answered(took, self._clocks.now())
            self._on_call(self._service, self._model, "ok")
            return response
        finally:
            self.bulkhead.limit.adapt(load, self.bulkhead.in_flight, epoch)
            before = self.breaker.opened
            self.breaker.conclude(admission, verdict, self._clocks.now(), detail)
            self._report(before, self.breaker.opened)

    def _learned(self, error: UpstreamError, waited: float) -> tuple[Verdict, Load]:
        """Return the verdict of a failed call; a call with too little time for this model has none."""
        enough = max(_FAIR_S, _FAIR_FACTOR * (self.latency.usual or 0.0))
        if isinstance(error, TimedOut) and waited < enough:
            return Verdict.SILENT, Load.UNKNOWN
        match error:
            case Refused(status=429):
                load = Load.TOO_MANY
            case TimedOut():
                load = Load.SLOW
            case _:
                load = Load.UNKNOWN
        return verdict_of(error), load

    def _refusal(self, now: float) -> Opened | None:
        """Return why no call is permitted at this time, by this guard's breaker or by that of the leading one."""
        leading = self._leading()
        return (leading and leading.breaker.refusal(now)) or self.breaker.refusal(now)

    def _withheld(self, refusal: Opened) -> Withheld:
        return Withheld(self._service, refusal.reason, f"{self._model} is not called: {refusal.detail}")

    def _report(self, before: Opened | None, after: Opened | None) -> None:
        """Log once that the breaker has opened, and once that it has closed."""
        named = {"service": self._service, "model": self._model}
        if after is None:
            if before is not None:
                _log.info("model_available", **named)
        elif before is None or before.reason is not after.reason:
            if after.reason is Reason.MISCONFIGURED:
                _log.error("model_misconfigured", **named, detail=after.detail)
            else:
                _log.warning("breaker_open", **named, detail=after.detail)


def _uncounted(*_: str) -> None:
    pass


def _nobody() -> None:
    pass


class Guards:
    """The guards of all models in use, by service and model name."""

    def __init__(
        self,
        most: int,
        on_call: OnCall = _uncounted,
        clocks: Clocks | None = None,
        *,
        leading: "Guards | None" = None,
    ) -> None:
        """`leading`: the guards of the ordinary calls, if these are for calls in the background.

        Calls in the background are slow. So they have their own breakers, bulkheads and latencies, which do not affect
        other calls. A model that ordinary calls may not use, because it fails or an operator says so, is not called
        either.
        """
        self._leading = leading
        self._most = most
        self._on_call = on_call
        self._clocks = clocks or Clocks()
        self._guards: LRUCache[tuple[str, str], Guard] = LRUCache(MODELS_GUARDED)

    def of(self, service: str, model: str) -> Guard:
        guard = self._guards.get((service, model))
        if guard is None:
            guard = self._guards[service, model] = self._new(service, model)
        return guard

    def _new(self, service: str, model: str) -> Guard:
        if self._leading is None:
            return Guard(service, model, self._most, self._clocks, self._on_call)
        leading = partial(self._leading.known, service, model)
        return Guard(f"{service}_background", model, self._most, self._clocks, self._on_call, leading=leading)

    @property
    def all(self) -> Sequence[tuple[tuple[str, str], Guard]]:
        """Return each guard with its service and model, for metrics and the admin port."""
        return tuple(self._guards.items())

    def take_holds(self, earlier: "Guards") -> None:
        """Hold the breakers that an operator held before the clients of the models were replaced."""
        for (service, model), guard in earlier.all:
            if guard.breaker.held is not None:
                self.of(service, model).breaker.hold(guard.breaker.held)

    def known(self, service: str, model: str) -> Guard | None:
        """Return the guard of a model if the model was called before."""
        return self._guards.get((service, model))


class GuardedModels:
    """The load and latency of the models of one service: `LiveModels`."""

    def __init__(self, guards: Guards, service: str) -> None:
        self._guards = guards
        self._service = service

    def pressure(self, model: str) -> float:
        guard = self._guards.known(self._service, model)
        return guard.bulkhead.load if guard else 0.0

    def usual_seconds(self, model: str) -> float | None:
        guard = self._guards.known(self._service, model)
        return guard.latency.usual if guard else None
