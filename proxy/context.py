"""The record of one request: made where it enters, handed down, and concluded once when its exchange has ended."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from proxy.outcomes import Outcome


class Ended(StrEnum):
    """How the exchange of a request ended: the label of the one counter that every request ends in."""

    ANSWERED = "answered"
    CLIENT_LEFT = "client_left"
    BROKEN_OFF = "broken_off"
    REFUSED = "refused"
    """Not HTTP that can be read, or answered with an error of the proxy's own before anything was sent."""


@dataclass(slots=True)
class Clock:
    """Milliseconds that each stage took; a stage that runs twice adds up."""

    stages: dict[str, float] = field(default_factory=dict)

    @asynccontextmanager
    async def stage(self, name: str) -> AsyncIterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + (time.perf_counter() - begun) * 1000


@dataclass(frozen=True, slots=True)
class Charge:
    """What model calls took: tokens, and US dollars as far as the provider reports them."""

    tokens: int = 0
    cost_usd: float = 0.0

    def __add__(self, other: "Charge") -> "Charge":
        return Charge(self.tokens + other.tokens, self.cost_usd + other.cost_usd)


NO_CHARGE = Charge()


@dataclass(slots=True)
class Usage:
    """The charge of all model calls of one search."""

    charge: Charge = NO_CHARGE

    def add(self, charge: Charge) -> None:
        self.charge += charge


@dataclass(slots=True)
class Sent:
    """Whether a client's request has been sent to the engine, in whatever form: then it is not sent again."""

    whole: "Sent | None" = None
    """The request that this one is a part of, as an item is of an `_msearch`."""
    by_now: bool = False
    engine_searches: int = 0
    """Searches of the engine made for it so far: the client's own, and those that the proxy adds."""

    def note(self) -> None:
        """Note that it is about to be sent, and with it a part of the whole."""
        self.by_now = True
        if self.whole is not None:
            self.whole.note()


@dataclass(frozen=True, slots=True)
class Shadow:
    """What reranking would have made of a search that the engine answered."""

    outcome: Outcome
    change: Mapping[str, float | None] = field(default_factory=dict)
    """How its order would differ from the engine's, by the name of each measure."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of each stage, and in `total`."""
    candidates: int = 0


@dataclass(slots=True)
class SearchRecord:
    """One search: the facts of its line in the log and of its counter.

    Written by the function that answers the search, and by no other.
    """

    request_id: str
    """The client's `X-Opaque-Id`; empty where it sent none."""
    started: float = field(default_factory=time.perf_counter)
    clock: Clock = field(default_factory=Clock)
    usage: Usage = field(default_factory=Usage)
    sent: Sent = field(default_factory=Sent)
    route: str = ""
    window: int = 0
    candidates: int = 0
    query_text: str = ""
    trace_id: str = ""
    """Of the client's `traceparent` (W3C Trace Context); empty where it sent none."""
    outcome: Outcome | None = None
    """None while the search goes on, and for a search that concerns no route."""
    ended: float | None = None
    """When its client had the response."""
    after_response: Callable[[Callable[[], None]], None] | None = None
    """Begins what is done for it when its client has the response, and calls what it is given when that has ended."""
    shadow: Shadow | None = None
    """None for a search without a shadow run."""

    @property
    def concerns_route(self) -> bool:
        return bool(self.route) or self.outcome is not None

    @property
    def tokens(self) -> int:
        return self.usage.charge.tokens

    @property
    def cost_usd(self) -> float:
        return self.usage.charge.cost_usd

    def timings(self) -> Mapping[str, float]:
        """Return the milliseconds of each stage, and of all of it until its end, or until now."""
        until = time.perf_counter() if self.ended is None else self.ended
        return self.clock.stages | {"total": (until - self.started) * 1000}


@dataclass(slots=True)
class Access:
    """The facts of the access line of a request that passes through."""

    method: str
    target: str
    started: float = field(default_factory=time.perf_counter)
    status: int = 0
    """Of the response; 0 while there is none."""


@dataclass(slots=True)
class RequestRecord:
    """One request and the searches in it."""

    request_id: str
    searches: list[SearchRecord] = field(default_factory=list)
    sent: Sent = field(default_factory=Sent)
    trace_id: str = ""
    access: Access | None = None
    """None where access lines are off, which is the default."""

    def search(self) -> SearchRecord:
        """Begin the record of a search of this request."""
        begun = SearchRecord(self.request_id, sent=Sent(self.sent), trace_id=self.trace_id)
        self.searches.append(begun)
        return begun
