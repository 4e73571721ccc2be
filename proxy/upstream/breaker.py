"""A circuit breaker: decides by the results of recent calls whether a model is called.

A state machine without a clock: the methods take the current time, in seconds.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The result of one call, as the breaker counts it."""

    WORKS = "works"
    FAILS = "fails"
    MISCONFIGURED = "misconfigured"
    """The token, account or model name is wrong, so that every call would fail."""
    SILENT = "silent"
    """Not counted: only this request was wrong, or it was cancelled."""


class Reason(StrEnum):
    """Why a model is not called."""

    BREAKER_OPEN = "breaker_open"
    MISCONFIGURED = "misconfigured"


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """The thresholds for opening a breaker, and the delays before its probes."""

    window_seconds: float = 30.0
    window_calls: int = 200
    failures_min: int = 5
    failure_rate: float = 0.5
    pauses_seconds: Sequence[float] = (5.0, 10.0, 20.0)
    """Delays before the first, the second and all later probes: reranking should recover within 30 s."""
    misconfigured_pause_seconds: float = 30.0


class BreakerHold(StrEnum):
    """The state that an operator has fixed for a breaker."""

    OPEN = "open"
    CLOSED = "closed"


class BreakerState(StrEnum):
    """The state of a breaker, with the names used in metrics and on the admin port."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    MISCONFIGURED = "misconfigured"
    HELD_OPEN = "held_open"
    HELD_CLOSED = "held_closed"


@dataclass(frozen=True, slots=True)
class Admission:
    """Permission for one call."""

    generation: int
    """The state generation in which the call began; results from earlier generations are ignored."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Why no calls are made, and until when."""

    reason: Reason
    until: float
    probes: int = 0
    """The number of probes that have failed since the breaker opened."""
    detail: str = ""
    """The error that opened the breaker, in the provider's own words."""


class Breaker:
    """A breaker is closed, open until a time, or half-open, which permits one call at a time as a probe."""

    def __init__(self, rules: BreakerRules | None = None) -> None:
        self._rules = rules or BreakerRules()
        self._recent: deque[tuple[float, bool]] = deque(maxlen=self._rules.window_calls)
        self._opened: Opened | None = None
        self._probing = False
        self._generation = 0
        self._hold: BreakerHold | None = None
        self._suspended: Opened | None = None

    def hold(self, hold: BreakerHold | None) -> None:
        """Fix the breaker open or closed; None returns it to automatic operation, starting closed or suspended."""
        self._hold = hold
        opened = {BreakerHold.OPEN: _HELD_OPEN, BreakerHold.CLOSED: None, None: self._suspended}
        self._change(opened[hold])

    def suspend(self, detail: str) -> None:
        """Open the breaker as misconfigured until `resume`: successful calls do not show that the cause is gone."""
        if self._suspended is None:
            self._suspended = Opened(Reason.MISCONFIGURED, math.inf, detail=detail)
            if self._hold is None:
                self._change(self._suspended)

    def resume(self) -> None:
        """End a suspension."""
        if self._opened is not None and self._opened is self._suspended:
            self._change(None)
        self._suspended = None

    @property
    def held(self) -> BreakerHold | None:
        """The state that an operator has fixed."""
        return self._hold

    @property
    def is_suspended(self) -> bool:
        return self._suspended is not None

    def state(self, now: float) -> BreakerState:
        """Return the state at this time."""
        match self._hold, self._opened:
            case BreakerHold.OPEN, _:
                return BreakerState.HELD_OPEN
            case BreakerHold.CLOSED, _:
                return BreakerState.HELD_CLOSED
            case _, None:
                return BreakerState.CLOSED
            case _, Opened(reason=Reason.MISCONFIGURED):
                return BreakerState.MISCONFIGURED
            case _, opened:
                return BreakerState.OPEN if now < opened.until else BreakerState.HALF_OPEN

    @property
    def opened(self) -> Opened | None:
        """Why and until when the breaker is open; None if it is closed."""
        return self._opened

    def refusal(self, now: float) -> Opened | None:
        """Return why no call is permitted at this time; None if one is."""
        opened = self._opened
        return opened if opened and (self._probing or now < opened.until) else None

    def admit(self, now: float) -> Admission | Opened:
        """Begin a call, which is the probe if one is due."""
        if refusal := self.refusal(now):
            return refusal
        self._probing = self._opened is not None
        return Admission(self._generation)

    def conclude(self, admission: Admission, verdict: Verdict, now: float, detail: str = "") -> None:
        """Record the result of a call."""
        if admission.generation != self._generation or self._hold is not None:
            return
        if self._opened is not None:
            self._conclude_probe(self._opened, verdict, now, detail)
        elif verdict is Verdict.MISCONFIGURED:
            self._open(Reason.MISCONFIGURED, now, detail)
        elif verdict is not Verdict.SILENT:
            self._recent.append((now, verdict is Verdict.FAILS))
            if verdict is Verdict.FAILS and self._fails_too_often(now):
                self._open(Reason.BREAKER_OPEN, now, detail)

    def _conclude_probe(self, opened: Opened, verdict: Verdict, now: float, detail: str) -> None:
        match verdict:
            case Verdict.WORKS:
                self._change(None)
            case Verdict.FAILS:
                self._open(opened.reason, now, detail or opened.detail, opened.probes + 1)
            case Verdict.MISCONFIGURED:
                self._open(Reason.MISCONFIGURED, now, detail or opened.detail, opened.probes + 1)
            case Verdict.SILENT:
                self._probing = False

    def _fails_too_often(self, now: float) -> bool:
        while self._recent and self._recent[0][0] < now - self._rules.window_seconds:
            self._recent.popleft()
        failures = sum(failed for _, failed in self._recent)
        return failures >= self._rules.failures_min and failures >= self._rules.failure_rate * len(self._recent)

    def _open(self, reason: Reason, now: float, detail: str, probes: int = 0) -> None:
        pauses = self._rules.pauses_seconds
        pause = (
            self._rules.misconfigured_pause_seconds
            if reason is Reason.MISCONFIGURED
            else pauses[min(probes, len(pauses) - 1)]
        )
        self._change(Opened(reason, now + pause, probes, detail))

    def _change(self, opened: Opened | None) -> None:
        self._opened, self._probing = opened, False
        self._generation += 1
        self._recent.clear()


_HELD_OPEN = Opened(Reason.BREAKER_OPEN, math.inf, detail="an operator holds the circuit breaker open")
