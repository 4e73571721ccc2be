"""What is known of a query while searches use it: its scores, and the calls for more of them that are in progress.

Everything known of one query is one entry of the store. While searches use it, it is one `LiveQuery` in memory.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from proxy.bounds import SCORES_OF_QUERY
from proxy.ranking.planning import Relevance
from proxy.store.contract import CacheRegion
from proxy.upstream.score_entries import NO_SCORES, QueryScores, decode, encode
from proxy.upstream.windows import is_constant

_UNCACHED = 0


@dataclass(slots=True, eq=False)
class ScoreCall:
    """A call in progress, and the number of searches that wait for it."""

    ids: Sequence[bytes]
    answer: asyncio.Future[Relevance]
    waiting: int = 0


@dataclass(slots=True)
class LiveQuery:
    """The scores of one query and the calls for more of them, as long as anything uses it."""

    key: bytes
    loading: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    users: int = 0
    model: str | None = None
    scores: dict[bytes, tuple[float, int]] = field(default_factory=dict)
    """Each score, and the Unix time until which it is cached; `_UNCACHED`: not cached."""
    needed: Counter[bytes] = field(default_factory=Counter)
    """The number of searches that need each score at present."""
    calls: dict[bytes, ScoreCall] = field(default_factory=dict)
    is_saved: bool = True
    saving: asyncio.Future[None] | None = None
    """The last write to the store."""

    @property
    def values(self) -> dict[bytes, float]:
        return {each: score for each, (score, _) in self.scores.items()}

    @contextmanager
    def need(self, ids: Sequence[bytes], now: float) -> Iterator[None]:
        """Keep the scores of these passages while the block runs; those that have expired only if they are in use.

        A query that is searched for all the time may never leave the memory, so its scores expire here as well.
        """
        for each in ids:
            if each in self.scores and self.scores[each][1] <= now and not self.needed[each]:
                del self.scores[each]
        self.needed.update(ids)
        try:
            yield
        finally:
            self.needed.subtract(ids)
            self.needed = +self.needed

    def add(self, ids: Sequence[bytes], answer: Relevance, until: int) -> None:
        """Add the scores of a call; if they are of another model than those so far, only they are comparable."""
        if answer.model != self.model:
            self.scores.clear()
            self.model = answer.model
        for each, score in zip(ids, answer.scores, strict=True):
            self.scores.pop(each, None)  # so that the newest are last
            self.scores[each] = (score, until)
        excess = max(0, len(self.scores) - SCORES_OF_QUERY)
        for each in list(islice((each for each in self.scores if not self.needed[each]), excess)):
            del self.scores[each]

    def forget(self, call: ScoreCall) -> None:
        for each in call.ids:
            if self.calls.get(each) is call:
                del self.calls[each]

    def leave(self, waiting: "AwaitedCalls") -> None:
        """Cancel the calls that no other search waits for."""
        for call in waiting.calls:
            call.waiting -= 1
            if not call.waiting:
                self.forget(call)
                call.answer.cancel()


@dataclass(slots=True)
class AwaitedCalls:
    """The calls that one search waits for, and those that it began itself."""

    calls: list[ScoreCall] = field(default_factory=list)
    own: list[ScoreCall] = field(default_factory=list)

    def join(self, calls: Sequence[ScoreCall]) -> None:
        for call in calls:
            call.waiting += 1
            self.calls.append(call)

    @property
    def sent(self) -> frozenset[bytes]:
        return frozenset(chain.from_iterable([call.ids for call in self.own]))

    @property
    def is_own_unanswered(self) -> bool:
        return any(not call.answer.done() for call in self.own)


class LiveQueries:
    """The queries that searches use at present, each loaded from the store once and saved after each call."""

    def __init__(self, cache: CacheRegion, now: Callable[[], float], *, merges: bool) -> None:
        """`merges`: what other caches stored meanwhile is read again before writing."""
        self._cache = cache
        self._now = now
        self._merges = merges
        self._queries: dict[bytes, LiveQuery] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @contextmanager
    def using(self, key: bytes) -> Iterator[LiveQuery]:
        """Keep what is known of a query in memory while the block runs; it is loaded once for concurrent searches."""
        known = self._queries.get(key)
        if known is None:
            known = self._queries[key] = LiveQuery(key)
            known.loading = self._background(known, self._load(known))
        known.users += 1
        try:
            yield known
        finally:
            self._release(known)

    async def has_scores(self, key: bytes) -> bool:
        """Whether any score of a query is cached, or may be soon."""
        return key in self._queries or bool((await self._stored(key)).scores)

    def keep(self, known: LiveQuery, call: ScoreCall, answer: Relevance) -> None:
        """Keep the scores for the waiting searches, and store them unless they come from a broken server."""
        is_cached = not is_constant(answer.scores)
        known.add(call.ids, answer, int(self._now() + self._cache.seconds) if is_cached else _UNCACHED)
        if is_cached:
            known.is_saved = False
            known.saving = self._background(known, self._save(known, known.saving))

    async def _load(self, known: LiveQuery) -> None:
        found = await self._stored(known.key)
        known.model, known.scores = found.model, dict(found.scores)

    async def _stored(self, key: bytes) -> QueryScores:
        value = await self._cache.get(key)
        return NO_SCORES if value is None else decode(value, self._now())

    async def _save(self, known: LiveQuery, earlier: asyncio.Future[None] | None) -> None:
        """Write the scores after the earlier write, which would otherwise replace them if it were slow."""
        if earlier is not None:
            await earlier
        if not known.is_saved:
            known.is_saved = True
            if self._merges:
                await self._merge(known)
            value = encode(QueryScores(known.model, known.scores), self._now())
            await self._cache.put(known.key, value)

    async def _merge(self, known: LiveQuery) -> None:
        stored = await self._stored(known.key)
        if stored.model == known.model:
            others = {each: score for each, score in stored.scores.items() if each not in known.scores}
            known.scores = others | known.scores

    def _release(self, known: LiveQuery) -> None:
        known.users -= 1
        if not known.users:
            del self._queries[known.key]

    def _background(self, known: LiveQuery, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start work that no search cancels; the query stays in memory until its end."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._release(known)

        known.users += 1
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(ended)
        return task
