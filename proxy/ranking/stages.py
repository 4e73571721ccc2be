"""What the steps of a search share: who does the work, how long each stage took, and how long it may take."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from proxy.planning import EngineReply, EngineSearch, Plan
from proxy.ranking.paging import Head
from proxy.ranking.search_response import SearchAnswer, read_answer


class Searches(Protocol):
    """An engine, on behalf of one caller. Raises UpstreamError; Refused for every status but 200."""

    async def search(self, search: EngineSearch, timeout_seconds: float | None = None) -> EngineReply: ...


class Embeds(Protocol):
    async def embed_query(self, text: str, *, instruction: str, model: str, dimensions: int) -> Sequence[float]: ...


class Scores(Protocol):
    async def score(self, query: str, passages: Sequence[str], *, instruction: str, model: str) -> Sequence[float]: ...


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
    passage_max_chars: int
    added_timeout_seconds: float
    """For each search that is added beside the client's own and the kNN search."""


@dataclass(slots=True)
class Clock:
    """How long each stage took, in milliseconds."""

    stages: dict[str, float] = field(default_factory=dict)

    @asynccontextmanager
    async def stage(self, name: str) -> AsyncIterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + (time.perf_counter() - begun) * 1000


@dataclass(frozen=True, slots=True)
class Deadline:
    """When what the proxy adds must be done, in the event loop's time; None: each stage has its own limit alone."""

    at: float | None = None

    @classmethod
    def after(cls, seconds: float | None) -> "Deadline":
        return cls(None if seconds is None else asyncio.get_running_loop().time() + seconds)

    def limit(self) -> asyncio.Timeout:
        """Break off what is awaited inside when the time has come; raises TimeoutError."""
        return asyncio.timeout_at(self.at)


@dataclass(frozen=True, slots=True)
class Run:
    """One search on its way: what every step needs, and nothing that changes but the clock."""

    plan: Plan
    stages: Stages
    clock: Clock

    async def search(self, stage: str, search: EngineSearch) -> SearchAnswer:
        """Add a search to the client's own, and count its time as this stage's; raises UpstreamError."""
        async with self.clock.stage(stage):
            reply = await self.stages.engine.search(search, self.stages.added_timeout_seconds)
            return read_answer(reply.body)
