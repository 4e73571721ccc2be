"""What the steps of a search share: who does the work, how long each stage took, and how long it may take."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from proxy.context import Clock
from proxy.errors import TimedOut
from proxy.ranking.paging import Head
from proxy.ranking.planning import EngineReply, EngineSearch, Plan, Relevance
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
    def remembers(self, text: str, *, instruction: str, model: str, dimensions: int) -> bool: ...
    async def embed_query(self, text: str, *, instruction: str, model: str, dimensions: int) -> Sequence[float]: ...


class Scores(Protocol):
    async def score(self, query: str, passages: Sequence[str], *, instruction: str, model: str) -> Relevance: ...


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
    """The client's own searches of one request: what the proxy may add counts from when the last one is answered."""

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

    @asynccontextmanager
    async def limit(self, seconds: float) -> AsyncIterator[None]:
        """Break off what is awaited inside so many seconds after the last answer; raises TimeoutError."""
        at = None if self._answered_at is None else self._answered_at + seconds
        async with asyncio.timeout_at(at) as limit:
            self._limits[limit] = seconds
            try:
                yield
            finally:
                del self._limits[limit]


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

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Break off what is awaited inside when the budget is spent; raises TimedOut."""
        if self.seconds is None:
            yield
            return
        try:
            async with self.own.limit(self.seconds):
                yield
        except TimeoutError as error:
            raise TimedOut("budget", "the time that the request allows is spent") from error


@dataclass(frozen=True, slots=True)
class Run:
    """One search on its way: what every step needs, and nothing that changes but clock and budget."""

    plan: Plan
    stages: Stages
    clock: Clock
    budget: Budget = field(default_factory=Budget)

    async def search(self, stage: str, search: EngineSearch) -> SearchAnswer:
        """Add a search to the client's own, and count its time as this stage's; raises UpstreamError."""
        async with self.clock.stage(stage), self.budget.limit():
            reply = await self.stages.engine.add(search, self.stages.added_timeout_seconds)
        return read_answer(reply.body)
