"""What the stages of a search share: the services they call, their timings, and the time budget."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec

from proxy.context import Clock, Usage
from proxy.errors import TimedOut, UpstreamError
from proxy.ranking.hits import DocKey
from proxy.ranking.kept import Likeness
from proxy.ranking.paging import Head
from proxy.ranking.planning import EngineReply, EngineSearch, Plan, QueryVector, Relevance
from proxy.ranking.search_response import SearchAnswer, read_answer


class Searches(Protocol):
    """The engine on behalf of one caller. Raises UpstreamError; Refused for every status but 200."""

    async def search(self, search: EngineSearch) -> EngineReply:
        """Run the client's own search."""
        ...

    async def add(self, search: EngineSearch, timeout_seconds: float) -> EngineReply:
        """Run a search in addition to the client's own; raises Busy at the limit of concurrent searches."""
        ...


class Accepts(Protocol):
    """Whether the engine recently accepted such a search: then paid model calls need not wait for its response."""

    def lately(self) -> bool: ...
    def note(self) -> None: ...


class Embeds(Protocol):
    """Embeds queries; errors are returned in the result, and never raised as UpstreamError."""

    async def warm_up(self) -> None: ...
    async def remembers(self, text: str, *, instruction: str, model: str, dimensions: int) -> bool: ...
    async def unavailable(self, text: str, *, instruction: str, model: str, dimensions: int) -> UpstreamError | None:
        """Return why a vector cannot be had: it is not cached, and the model is not called at present."""
        ...

    def not_called(self, model: str, why: UpstreamError) -> None:
        """Count a call that a search did not make, because it is passed on."""
        ...

    async def embed_query(
        self, text: str, *, instruction: str, model: str, dimensions: int, budget: "Budget"
    ) -> QueryVector: ...


class Scores(Protocol):
    """Scores passages; errors are returned in the result, and never raised as UpstreamError."""

    async def warm_up(self) -> None: ...
    async def unavailable(self, query: str, *, instruction: str, model: str) -> UpstreamError | None:
        """Return why nothing can be scored: no score is cached, and the model is not called at present."""
        ...

    def not_called(self, model: str, why: UpstreamError) -> None:
        """Count a call that a search did not make, because it is passed on."""
        ...

    async def score(
        self, query: str, passages: Sequence[str], *, instruction: str, model: str, budget: "Budget"
    ) -> Relevance: ...


@dataclass(frozen=True, slots=True)
class CalledModels:
    """The models as a search calls them."""

    embedder: Embeds
    reranker: Scores


class Remembers(Protocol):
    """A cache of heads, so that the pages of a search are consistent, and later pages need no model calls."""

    async def get(self, key: bytes) -> Head | None: ...
    def keep(self, key: bytes, head: Head) -> None:
        """Store a head; the search does not wait for it."""
        ...


@dataclass(frozen=True, slots=True)
class Stages:
    """The services that the stages of a search call."""

    engine: Searches
    embedder: Embeds
    reranker: Scores
    heads: Remembers
    accepted: Accepts
    covered_now: Callable[[], Awaitable[frozenset[str]]]
    """Resolves again which indices of the search are inside its route."""
    passage_max_tokens: int
    added_timeout_seconds: float
    """The timeout of each added search, except kNN searches."""


class OwnSearches:
    """The client's own searches of one request: the budget starts at the last of their responses."""

    def __init__(self, count: int = 1) -> None:
        self._unanswered = set(range(count))
        self._limits: dict[asyncio.Timeout, float] = {}
        self._answered_at: float | None = None

    def answered(self, number: int) -> None:
        """Note that a search has its response, or will never have one."""
        self._unanswered.discard(number)
        if not self._unanswered and self._answered_at is None:
            self._answered_at = asyncio.get_running_loop().time()
            for limit, seconds in self._limits.items():
                limit.reschedule(self._answered_at + seconds)

    def remaining(self, seconds: float) -> float:
        """Return the remaining part of `seconds`, which start at the last response."""
        if self._answered_at is None:
            return seconds
        return self._answered_at + seconds - asyncio.get_running_loop().time()

    def begin_limit(self, seconds: float) -> asyncio.Timeout:
        """Return a timeout that ends `seconds` after the last response, and is entered at once."""
        limit = asyncio.timeout_at(None if self._answered_at is None else self._answered_at + seconds)
        self._limits[limit] = seconds
        return limit

    def end_limit(self, limit: asyncio.Timeout) -> None:
        """Forget a timeout that has ended."""
        del self._limits[limit]


class Payment(Protocol):
    """The cost of one call of a model, which is settled when the call has ended."""

    def sent(self) -> None:
        """Note that the call is sent, and may be charged from now on."""
        ...

    def free(self) -> None:
        """Note that the call is not charged: it was rejected, or did not arrive."""
        ...

    def answered(self, content: bytes) -> None:
        """Read what the provider charged from its response."""
        ...


class Purse(Protocol):
    """What a search may spend on model calls. What a cache has costs nothing, and needs no purse."""

    def pay(self, model: str, tokens: float) -> AbstractContextManager[Payment]:
        """Reserve the estimated cost of a call while the block runs; raises CapReached."""
        ...

    def saved(self, model: str, tokens: float) -> None:
        """Record that a cache made a call, or a part of it, unnecessary."""
        ...


class Unmetered:
    """A purse that permits everything and records nothing, and its payments."""

    def pay(self, model: str, tokens: float) -> AbstractContextManager[Payment]:  # noqa: ARG002
        return nullcontext(self)

    def saved(self, model: str, tokens: float) -> None: ...

    def sent(self) -> None: ...

    def free(self) -> None: ...

    def answered(self, content: bytes) -> None: ...


UNMETERED = Unmetered()

RESERVE_S = 0.02
"""The part of a budget reserved for rendering the response; at most a tenth of the budget."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The time that the proxy may add to the engine's own; None: each stage has its own limit only."""

    seconds: float | None = None
    own: OwnSearches = field(default_factory=OwnSearches)
    number: int = 0
    """The number of this search among the client's own."""
    purse: Purse = UNMETERED
    """What the search may spend."""

    def begin(self) -> None:
        """Note that the client's own search has its response."""
        self.own.answered(self.number)

    def less(self, seconds: float) -> "Budget":
        """Return the budget of stages that must leave this many seconds to later ones."""
        return self if self.seconds is None else replace(self, seconds=max(0.0, self.seconds - seconds))

    @property
    def for_stages(self) -> float:
        """The seconds for all stages together."""
        return math.inf if self.seconds is None else self.seconds - min(RESERVE_S, self.seconds / 10)

    def remaining(self) -> float:
        """Return the remaining seconds for the stages."""
        return math.inf if self.seconds is None else self.own.remaining(self.for_stages)

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Cancel the block when the budget ends; raises TimedOut, before the block if it has ended already."""
        if self.seconds is None:
            yield
            return
        if self.remaining() <= 0:
            raise self._late()
        limit = self.own.begin_limit(self.for_stages)
        try:
            async with limit:
                yield
        except TimeoutError as error:
            raise self._late() from error
        finally:
            self.own.end_limit(limit)

    def _late(self) -> TimedOut:
        return TimedOut("budget", f"no response within {(self.seconds or 0.0) * 1000:g} ms")


class Ahead(Protocol):
    """The added searches that a cached ranking let the proxy send early."""

    @property
    def head(self) -> Head | None:
        """The cached ranking; None if there is none, or the cache has not answered yet."""
        ...

    async def answer(self, stage: str, search: EngineSearch) -> SearchAnswer | None:
        """Return the response to a search, or None if it was not sent early; raises UpstreamError."""
        ...

    async def answers(self, stages: Sequence[str]) -> Mapping[str, SearchAnswer] | None:
        """Return the response of each stage; None if one was not sent early, or failed."""
        ...


class ReadDocument(msgspec.Struct, frozen=True):
    """What a search needs of the text of a document."""

    passages: tuple[str, ...]
    likeness: Likeness


@dataclass(frozen=True, slots=True)
class AddedSearch:
    """A search that the proxy added, and its response."""

    stage: str
    documents: tuple[DocKey, ...]
    """The documents that it asked for by id."""
    words: float
    """The constant score of the query text, in the search for boosts."""
    answer: SearchAnswer


@dataclass(frozen=True, slots=True)
class Run:
    """One running search: its plan, services, clock, budget and usage."""

    plan: Plan
    stages: Stages
    clock: Clock
    budget: Budget = field(default_factory=Budget)
    usage: Usage = field(default_factory=Usage)
    ahead: Ahead | None = None
    added: list[AddedSearch] = field(default_factory=list)
    """The searches added so far."""
    read: dict[DocKey, ReadDocument] = field(default_factory=dict)
    """The documents read so far."""

    async def search(
        self, stage: str, search: EngineSearch, documents: Sequence[DocKey] = (), words: float = 0.0
    ) -> SearchAnswer:
        """Run a search in addition to the client's own, unless it was sent early; raises UpstreamError."""
        answer = await self.ahead.answer(stage, search) if self.ahead else None
        if answer is None:
            answer = await self.ask(stage, search)
        self.added.append(AddedSearch(stage, tuple(documents), words, answer))
        return answer

    async def ask(self, stage: str, search: EngineSearch) -> SearchAnswer:
        """Send a search in addition to the client's own, timed as this stage; raises UpstreamError."""
        with self.clock.stage(stage):
            async with self.budget.limit():
                reply = await self.stages.engine.add(search, self.stages.added_timeout_seconds)
        return read_answer(reply.body)
