"""What the steps of a search share: who does the work, how long each stage took, and how long it may take."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from proxy.context import Clock, Usage
from proxy.errors import TimedOut
from proxy.ranking.paging import Head
from proxy.ranking.planning import EngineReply, EngineSearch, Plan, QueryVector, Relevance
from proxy.ranking.search_response import SearchAnswer, read_answer


class Searches(Protocol):
    """An engine, on behalf of one caller. Raises UpstreamError; Refused for every status but 200."""

    async def search(self, search: EngineSearch) -> EngineReply:
        """Run the client's own search."""
        ...

    async def add(self, search: EngineSearch, timeout_seconds: float) -> EngineReply:
        """Run a search beside the client's own; raises Busy where too many are running."""
        ...


class Accepts(Protocol):
    """Whether the engine has lately accepted such a search, so that it may cost money."""

    def lately(self) -> bool: ...
    def note(self) -> None: ...


class Embeds(Protocol):
    """A service that embeds queries. What goes wrong is a value of its result, never an UpstreamError raised."""

    async def warm_up(self) -> None: ...
    def remembers(self, text: str, *, instruction: str, model: str, dimensions: int) -> bool: ...
    async def embed_query(
        self, text: str, *, instruction: str, model: str, dimensions: int, budget: "Budget"
    ) -> QueryVector: ...


class Scores(Protocol):
    """A service that scores passages. What goes wrong is a value of its result, never an UpstreamError raised."""

    async def warm_up(self) -> None: ...
    async def score(
        self, query: str, passages: Sequence[str], *, instruction: str, model: str, budget: "Budget"
    ) -> Relevance: ...


class Remembers(Protocol):
    """Heads of rankings, kept for some seconds, so that pages fit together and cost nothing twice."""

    def get(self, key: bytes) -> Head | None: ...
    def put(self, key: bytes, head: Head) -> None: ...


@dataclass(frozen=True, slots=True)
class Stages:
    """Who does what a search needs."""

    engine: Searches
    embedder: Embeds
    reranker: Scores
    heads: Remembers
    accepted: Accepts
    covered_now: Callable[[], Awaitable[frozenset[str]]]
    """Asks the engine anew which indices of the search lie inside its route."""
    passage_max_chars: int
    added_timeout_seconds: float
    """For each search that is added beside the client's own and the kNN search."""


class OwnSearches:
    """The client's own searches of one request: the budget counts from the response to the last one."""

    def __init__(self, count: int = 1) -> None:
        self._unanswered = set(range(count))
        self._limits: dict[asyncio.Timeout, float] = {}
        self._answered_at: float | None = None

    def answered(self, number: int) -> None:
        """Take one off the list: it has been answered, or never will be."""
        self._unanswered.discard(number)
        if not self._unanswered and self._answered_at is None:
            self._answered_at = asyncio.get_running_loop().time()
            for limit, seconds in self._limits.items():
                limit.reschedule(self._answered_at + seconds)

    def remaining(self, seconds: float) -> float:
        """Return what is left of so many seconds; all of them while a search is unanswered."""
        if self._answered_at is None:
            return seconds
        return self._answered_at + seconds - asyncio.get_running_loop().time()

    @asynccontextmanager
    async def limit(self, seconds: float) -> AsyncIterator[None]:
        """Cancel what is awaited inside so many seconds after the last response; raises TimeoutError."""
        at = None if self._answered_at is None else self._answered_at + seconds
        async with asyncio.timeout_at(at) as limit:
            self._limits[limit] = seconds
            try:
                yield
            finally:
                del self._limits[limit]


RESERVE_S = 0.02
"""Kept of a budget for making the response; of a small budget a tenth."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How long the proxy may add to the engine's own time; None: each stage has its own limit alone."""

    seconds: float | None = None
    own: OwnSearches = field(default_factory=OwnSearches)
    number: int = 0
    """Which of the client's own searches this one is."""

    def begin(self) -> None:
        """Note that the client's own search has been answered."""
        self.own.answered(self.number)

    @property
    def for_stages(self) -> float:
        """Seconds that stages may take, in sum."""
        return math.inf if self.seconds is None else self.seconds - min(RESERVE_S, self.seconds / 10)

    def remaining(self) -> float:
        """Return the seconds that are left for stages."""
        return math.inf if self.seconds is None else self.own.remaining(self.for_stages)

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Cancel what is awaited inside when the budget ends; one that has ended begins nothing. Raises TimedOut."""
        if self.seconds is None:
            yield
            return
        late = TimedOut("budget", f"no response within {self.seconds * 1000:g} ms")
        if self.remaining() <= 0:
            raise late
        try:
            async with self.own.limit(self.for_stages):
                yield
        except TimeoutError as error:
            raise late from error


@dataclass(frozen=True, slots=True)
class Run:
    """One search on its way: what every step needs, and nothing that changes but clock, budget and usage."""

    plan: Plan
    stages: Stages
    clock: Clock
    budget: Budget = field(default_factory=Budget)
    usage: Usage = field(default_factory=Usage)

    async def search(self, stage: str, search: EngineSearch) -> SearchAnswer:
        """Add a search to the client's own, and count its time as this stage's; raises UpstreamError."""
        async with self.clock.stage(stage), self.budget.limit():
            reply = await self.stages.engine.add(search, self.stages.added_timeout_seconds)
        return read_answer(reply.body)
