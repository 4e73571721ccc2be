"""A circuit breaker: whether a model may be called, from how its last calls ended.

A state machine without a clock of its own: each method is given the time, in seconds.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What one call says about its model."""

    WORKS = "works"
    FAILS = "fails"
    MISCONFIGURED = "misconfigured"
    """The token, the account or the name of the model is wrong: every call would end like this one."""
    SILENT = "silent"
    """Nothing: this request alone was wrong, or it was cancelled."""


class Reason(StrEnum):
    """Why a model is not called."""

    BREAKER_OPEN = "breaker_open"
    MISCONFIGURED = "misconfigured"


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a breaker opens, and when it is probed."""

    window_seconds: float = 30.0
    window_calls: int = 200
    failures_min: int = 5
    failure_rate: float = 0.5
    pauses_seconds: Sequence[float] = (5.0, 10.0, 20.0)
    """Until the first probe, the second, and each after that: below the 30 s within which reranking is to recover."""
    misconfigured_pause_seconds: float = 30.0


class BreakerHold(StrEnum):
    """What an operator has decided about a breaker."""

    OPEN = "open"
    CLOSED = "closed"


class BreakerState(StrEnum):
    """Whether calls are made, in the words of metrics and of the admin port."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    MISCONFIGURED = "misconfigured"
    HELD_OPEN = "held_open"
    HELD_CLOSED = "held_closed"


@dataclass(frozen=True, slots=True)
class Admission:
    """A call that may be made."""

    generation: int
    """Of the breaker's state when the call began; the end of a call that began in an earlier state is ignored."""
    is_probe: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """Why and until when no call is made."""

    reason: Reason
    until: float
    probes: int = 0
    """How many probes have failed since it opened."""
    detail: str = ""
    """The error that opened it, in the provider's own words."""


class Breaker:
    """Closed, open until a time, or half-open: one call at a time is made as a probe."""

    def __init__(self, rules: BreakerRules | None = None) -> None:
        self._rules = rules or BreakerRules()
        self._recent: deque[tuple[float, bool]] = deque(maxlen=self._rules.window_calls)
        self._opened: Opened | None = None
        self._probing = False
        self._generation = 0
        self._hold: BreakerHold | None = None

    def hold(self, hold: BreakerHold | None) -> None:
        """Keep it open or closed whatever happens; None lets it judge for itself again, beginning closed."""
        self._hold = hold
        self._change(_HELD_OPEN if hold is BreakerHold.OPEN else None)

    def state(self, now: float) -> BreakerState:
        """Tell its state at this time."""
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
        """None while it is closed."""
        return self._opened

    def refusal(self, now: float) -> Opened | None:
        """Return why no call may be made at this time, if so."""
        opened = self._opened
        return opened if opened and (self._probing or now < opened.until) else None

    def admit(self, now: float) -> Admission | Opened:
        """Begin a call, as the probe where one is due."""
        if refusal := self.refusal(now):
            return refusal
        self._probing = self._opened is not None
        return Admission(self._generation, is_probe=self._probing)

    def conclude(self, admission: Admission, verdict: Verdict, now: float, detail: str = "") -> None:
        """Note how a call ended."""
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
