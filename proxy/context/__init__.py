"""The record of one request: created when it arrives, passed to each step, concluded once when its exchange ends."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from proxy.context.tracing import Trace
from proxy.outcomes import Outcome


class Ended(StrEnum):
    """How the exchange of a request ended: the label of the counter that counts every request."""

    ANSWERED = "answered"
    CLIENT_LEFT = "client_left"
    BROKEN_OFF = "broken_off"
    REFUSED = "refused"
    """Malformed HTTP, or an error response of the proxy before anything was sent."""


@dataclass(slots=True)
class Clock:
    """Milliseconds per stage; a stage that runs twice adds up."""

    stages: dict[str, float] = field(default_factory=dict)
    spans: list[tuple[str, float, float]] = field(default_factory=list)
    """Each run of a stage: its name, begin and end, as from `time.perf_counter`."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as a stage."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            self.stages[name] = self.stages.get(name, 0.0) + (ended - begun) * 1000
            self.spans.append((name, begun, ended))


@dataclass(frozen=True, slots=True)
class Charge:
    """The usage of model calls: tokens, and US dollars as the provider reports them or by the configured prices."""

    tokens: int = 0
    cost_usd: float = 0.0
    estimated_usd: float = 0.0
    """The part of `cost_usd` that is estimated: of calls whose response was not read, but may be charged."""

    def __add__(self, other: "Charge") -> "Charge":
        return Charge(
            self.tokens + other.tokens,
            self.cost_usd + other.cost_usd,
            self.estimated_usd + other.estimated_usd,
        )


NO_CHARGE = Charge()


@dataclass(frozen=True, slots=True)
class Reuse:
    """How many passages of a search were sent to the reranker, and how many scores were reused instead."""

    sent: int = 0
    cached: int = 0
    """Scored, but not sent by this search: cached, in a call of another search, or equal to another passage."""
    saved_tokens: int = 0
    """The tokens that sending them would have used, as estimated."""

    def __add__(self, other: "Reuse") -> "Reuse":
        return Reuse(self.sent + other.sent, self.cached + other.cached, self.saved_tokens + other.saved_tokens)


NO_REUSE = Reuse()


@dataclass(slots=True)
class Usage:
    """The usage of all model calls of one search."""

    charge: Charge = NO_CHARGE
    reuse: Reuse = NO_REUSE
    without_text: int = 0
    """Candidates that the reranker did not read, because none of the passage's fields has a value."""
    tier: str = ""
    """On a route with `tier: auto`, the tier of the reranker that was called last."""

    def add(self, charge: Charge) -> None:
        self.charge += charge

    def add_reuse(self, reuse: Reuse) -> None:
        self.reuse += reuse


@dataclass(slots=True)
class Sent:
    """Whether a client's request was sent to the engine in any form, after which it is not sent again."""

    whole: "Sent | None" = None
    """The request that contains this one, if it is an item of an `_msearch`."""
    by_now: bool = False
    engine_searches: int = 0
    """Searches sent to the engine so far: the client's own, and those that the proxy adds."""

    def note(self) -> None:
        """Record that it is about to be sent, which also holds for the request that contains it."""
        self.by_now = True
        if self.whole is not None:
            self.whole.note()


@dataclass(frozen=True, slots=True)
class Shadow:
    """The result of a shadow run: what reranking would have changed in a search that the engine answered."""

    outcome: Outcome
    change: Mapping[str, float | None] = field(default_factory=dict)
    """The measures of how its order would differ from the engine's, by name."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds per stage, and in `total`."""
    candidates: int = 0


@dataclass(slots=True)
class SearchRecord:
    """One search, with the fields of its log line and its metrics.

    Only the code that answers the search writes it.
    """

    request_id: str
    """The client's `X-Opaque-Id`; empty if it sent none."""
    started: float = field(default_factory=time.perf_counter)
    clock: Clock = field(default_factory=Clock)
    usage: Usage = field(default_factory=Usage)
    sent: Sent = field(default_factory=Sent)
    route: str = ""
    window: int = 0
    candidates: int = 0
    shows_cost: bool = False
    """Whether the client may know what the search cost, and wants to."""
    is_background: bool = False
    """Whether this is a search in the background, whose times are not representative."""
    query_text: str = ""
    trace_id: str = ""
    """Trace id of the client's `traceparent` (W3C Trace Context); empty if it sent none."""
    outcome: Outcome | None = None
    """None while the search is running, and for a search that no route covers."""
    ended: float | None = None
    """When the response was sent."""
    after_response: Callable[[Callable[[], None]], None] | None = None
    """Starts work after the response, such as a shadow run; calls its argument at the end of that work."""
    shadow: Shadow | None = None
    """None without a shadow run."""

    @property
    def concerns_route(self) -> bool:
        return bool(self.route) or self.outcome is not None

    @property
    def tokens(self) -> int:
        return self.usage.charge.tokens

    @property
    def tier(self) -> str:
        return self.usage.tier

    @property
    def reuse(self) -> Reuse:
        return self.usage.reuse

    @property
    def cost_usd(self) -> float:
        return self.usage.charge.cost_usd

    @property
    def estimated_usd(self) -> float:
        return self.usage.charge.estimated_usd

    def timings(self) -> Mapping[str, float]:
        """Return the milliseconds of each stage, and in `total` those since the start, up to the end or now."""
        until = time.perf_counter() if self.ended is None else self.ended
        return self.clock.stages | {"total": (until - self.started) * 1000}


@dataclass(slots=True)
class Access:
    """What an access line says about a request, and its span."""

    method: str
    target: str
    is_logged: bool = True
    """Whether a pass-through request gets an access line."""
    started: float = field(default_factory=time.perf_counter)
    status: int = 0
    """Of the response; 0 until there is one."""


@dataclass(slots=True)
class RequestRecord:
    """One request and its searches."""

    request_id: str
    searches: list[SearchRecord] = field(default_factory=list)
    sent: Sent = field(default_factory=Sent)
    trace_id: str = ""
    access: Access | None = None
    """None if neither access lines nor traces are enabled, which is the default."""
    trace: Trace | None = None
    """None without traces."""

    def search(self) -> SearchRecord:
        """Create the record of a search of this request."""
        begun = SearchRecord(self.request_id, sent=Sent(self.sent), trace_id=self.trace_id)
        self.searches.append(begun)
        return begun
