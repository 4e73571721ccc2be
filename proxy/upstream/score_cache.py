"""Scores passages without paying or waiting for any of them twice.

A score comes from the store, from a call of another search that is in progress, or from a new call of the reranker. It
depends on the endpoint, the model, the instruction, the query and the passage, and on nothing else: not on the caller,
the document or its index, so it outlives reindexing and changes of fields outside the passage.

Everything known of one query is one entry of the store. While searches use it, it is one `_Query` in memory, so that
between looking a passage up and sending it, nothing else can happen to it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, Protocol

from cachetools import TTLCache

from proxy.bounds import REFUSED_CALLS, SCORES_OF_QUERY
from proxy.context import Reuse
from proxy.errors import CapReached, OtherModel, Refused, TimedOut, UpstreamError
from proxy.ranking.planning import Relevance
from proxy.ranking.stages import UNMETERED, Budget, Purse
from proxy.store.contract import CacheRegion
from proxy.upstream.providers import is_listwise, sent_query
from proxy.upstream.score_entries import ID_LENGTH, NO_SCORES, QueryScores, decode, encode
from proxy.upstream.spending.prices import rerank_tokens
from proxy.upstream.windows import Window, batches_of, is_constant, is_typical, joined, window_of

_SERVICE = "reranker"
REFUSED_S = 5.0
"""How long a call that the provider refused because of its content is not repeated, in seconds."""
_REFUSED_STATUSES = frozenset({400, 413, 422})
_ROUNDS = 2
"""How often a search asks for missing scores: a second time if the server changed its model in between."""
_UNCACHED = 0


class RerankCalls(Protocol):
    """Calls of the reranker, one at a time; errors are returned in the result, and never raised as UpstreamError."""

    batch_size: int
    timeout_seconds: float

    async def warm_up(self) -> None: ...

    def reject_if_late(self, model: str, seconds: float, *, is_new: bool) -> UpstreamError | None:
        """Return the error of a search with too little time left for a call; None if it may call the model."""
        ...

    def withheld(self, model: str) -> UpstreamError | None:
        """Return why the model is not called at present."""
        ...

    def not_called(self, model: str, why: UpstreamError) -> None:
        """Count a call that a search did not make."""
        ...

    def abandoned(self, model: str, seconds: float) -> None:
        """Record the time after which a search gave up waiting for its call."""
        ...

    async def score(  # noqa: PLR0913  a call, and what it may cost
        self,
        query: str,
        passages: Sequence[str],
        *,
        instruction: str,
        model: str,
        is_typical: bool,
        purse: Purse,
    ) -> Relevance: ...


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the passages of a search are scored for."""

    query: str
    instruction: str
    model: str
    purse: Purse
    """What the search may spend on calls that it begins."""


@dataclass(slots=True, eq=False)
class _Call:
    """A call in progress, and the number of searches that wait for it."""

    ids: Sequence[bytes]
    answer: asyncio.Future[Relevance]
    waiting: int = 0


@dataclass(slots=True)
class _Query:
    """The scores of one query and the calls for more of them, as long as anything uses it."""

    key: bytes
    loading: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    users: int = 0
    model: str | None = None
    scores: dict[bytes, tuple[float, int]] = field(default_factory=dict)
    """Each score, and the Unix time until which it is cached; `_UNCACHED`: not cached."""
    needed: Counter[bytes] = field(default_factory=Counter)
    """The number of searches that need each score at present."""
    calls: dict[bytes, _Call] = field(default_factory=dict)
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

    def forget(self, call: _Call) -> None:
        for each in call.ids:
            if self.calls.get(each) is call:
                del self.calls[each]


@dataclass(slots=True)
class _Waiting:
    """The calls that one search waits for, and those that it began itself."""

    calls: list[_Call] = field(default_factory=list)
    own: list[_Call] = field(default_factory=list)

    def join(self, calls: Sequence[_Call]) -> None:
        for call in calls:
            call.waiting += 1
            self.calls.append(call)

    @property
    def sent(self) -> frozenset[bytes]:
        return frozenset(chain.from_iterable([call.ids for call in self.own]))

    @property
    def is_own_unanswered(self) -> bool:
        return any(not call.answer.done() for call in self.own)


class ScoreCache:
    """The reranker with a cache: `Scores`."""

    def __init__(  # noqa: PLR0913  its settings
        self,
        reranker: RerankCalls,
        cache: CacheRegion,
        *,
        endpoint: str,
        query_max_chars: int,
        now: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
        merges: bool = False,
    ) -> None:
        """`endpoint` names the API and its URL: the same model elsewhere scores slightly differently.

        `merges`: calls take so long that what other caches stored meanwhile is read again before writing.
        """
        self._reranker = reranker
        self._cache = cache
        self._endpoint = endpoint
        self._query_max_chars = query_max_chars
        self._now = now
        self._merges = merges
        self._queries: dict[bytes, _Query] = {}
        self._refused: TTLCache[tuple[bytes, ...], Refused] = TTLCache(REFUSED_CALLS, REFUSED_S, timer)
        self._tasks: set[asyncio.Task[None]] = set()

    async def warm_up(self) -> None:
        await self._reranker.warm_up()

    async def score(
        self, query: str, passages: Sequence[str], *, instruction: str, model: str, budget: Budget
    ) -> Relevance:
        """Return the scores of the passages, in their order, up to the first one without a score at the deadline.

        A call is cancelled when no search waits for it any more; until then, its own timeout limits it, and not the
        budget of the search that began it. That search pays for it, whoever receives the scores.
        """
        asked = _Asked(sent_query(query, self._query_max_chars), instruction, model, budget.purse)
        key, window = self._window(asked, passages)
        waiting, error = _Waiting(), None
        limit = self._limit(budget)
        with self._using(key) as known:
            try:
                async with budget.limit():
                    await asyncio.shield(known.loading)
                    with known.need(tuple(window.texts), self._now()):
                        error = await self._complete(asked, known, window, waiting, budget)
            except TimedOut as timeout:
                error = timeout
            finally:
                if isinstance(error, TimedOut) and waiting.is_own_unanswered:
                    self._reranker.abandoned(model, limit)
                _leave(known, waiting)
            relevance = joined(window, known.values, known.model, error)
        return replace(relevance, reuse=_reuse(asked, window, relevance, waiting.sent))

    async def unavailable(self, query: str, *, instruction: str, model: str) -> UpstreamError | None:
        """Return why no passage can be scored: none has a cached score, and the model is not called at present."""
        if (why := self._reranker.withheld(model)) is None:
            return None
        key = self._key(_Asked(sent_query(query, self._query_max_chars), instruction, model, UNMETERED))
        if is_listwise(model) or key in self._queries:
            return None
        value = await self._cache.get(key)
        return None if value is not None and decode(value, self._now()).scores else why

    def not_called(self, model: str, why: UpstreamError) -> None:
        """Count a call that a search did not make."""
        self._reranker.not_called(model, why)

    def _key(self, asked: _Asked) -> bytes:
        return self._cache.key(self._endpoint, asked.model, asked.instruction, asked.query)

    def _window(self, asked: _Asked, passages: Sequence[str]) -> tuple[bytes, Window]:
        """Return the key of the query, and its passages."""
        key = self._key(asked)
        window = window_of(passages, lambda texts: [each[-ID_LENGTH:] for each in self._cache.keys_of([key], texts)])
        return (self._cache.key(key, *window.ids) if is_listwise(asked.model) else key), window

    def _limit(self, budget: Budget) -> float:
        return min(self._reranker.timeout_seconds, budget.remaining())

    async def _complete(
        self, asked: _Asked, known: _Query, window: Window, waiting: _Waiting, budget: Budget
    ) -> UpstreamError | None:
        """Wait until all passages have a score; returns the error because of which the first one has none."""
        rounds = 0
        while rounds < _ROUNDS:
            unscored = [each for each in window.texts if each not in known.scores]
            if not unscored:
                return None
            missing = [each for each in unscored if each not in known.calls]
            if why := self._reranker.reject_if_late(asked.model, self._limit(budget), is_new=bool(missing)):
                return why
            for batch in batches_of(missing, self._reranker.batch_size):
                waiting.own.append(self._begin(asked, known, window, batch))
            calls = list(dict.fromkeys(known.calls[each] for each in unscored))
            waiting.join(calls)
            for call in calls:
                answer = await asyncio.shield(call.answer)
                if isinstance(answer.error, CapReached) and call not in waiting.own:
                    break  # a cap of another search, which ends: this one continues, and no round is used up
                if answer.error is not None:
                    return answer.error  # the scores of later passages are useless without these
            else:
                rounds += 1
        if window.texts.keys() <= known.scores.keys():
            return None
        return OtherModel(_SERVICE, f"the server changes its model between calls for {asked.model}")

    def _begin(self, asked: _Asked, known: _Query, window: Window, ids: Sequence[bytes]) -> _Call:
        answer: asyncio.Future[Relevance] = asyncio.get_running_loop().create_future()
        call = _Call(ids, answer)
        known.calls.update(dict.fromkeys(ids, call))
        if refused := self._refused.get((known.key, *ids)):
            answer.set_result(Relevance((), error=refused))
        else:
            call.answer = asyncio.ensure_future(self._ask(asked, known, call, window))
        return call

    async def _ask(self, asked: _Asked, known: _Query, call: _Call, window: Window) -> Relevance:
        texts = [window.texts[each] for each in call.ids]
        typical = is_typical(len(texts), len(window.texts), self._reranker.batch_size)
        try:
            answer = await self._reranker.score(
                asked.query,
                texts,
                instruction=asked.instruction,
                model=asked.model,
                is_typical=typical,
                purse=asked.purse,
            )
        finally:
            known.forget(call)
        if answer.error is None:
            self._keep(known, call, answer)
        elif isinstance(answer.error, Refused) and answer.error.status in _REFUSED_STATUSES:
            self._refused[(known.key, *call.ids)] = _again(answer.error)
        return answer

    def _keep(self, known: _Query, call: _Call, answer: Relevance) -> None:
        """Keep the scores for the waiting searches, and store them unless they come from a broken server."""
        is_cached = not is_constant(answer.scores)
        known.add(call.ids, answer, int(self._now() + self._cache.seconds) if is_cached else _UNCACHED)
        if is_cached:
            known.is_saved = False
            known.saving = self._background(known, self._save(known, known.saving))

    async def _load(self, known: _Query) -> None:
        value = await self._cache.get(known.key)
        found = NO_SCORES if value is None else decode(value, self._now())
        known.model, known.scores = found.model, dict(found.scores)

    async def _save(self, known: _Query, earlier: asyncio.Future[None] | None) -> None:
        """Write the scores after the earlier write, which would otherwise replace them if it were slow."""
        if earlier is not None:
            await earlier
        if not known.is_saved:
            known.is_saved = True
            if self._merges:
                await self._merge(known)
            value = encode(QueryScores(known.model, known.scores), self._now())
            await self._cache.put(known.key, value)

    async def _merge(self, known: _Query) -> None:
        value = await self._cache.get(known.key)
        stored = NO_SCORES if value is None else decode(value, self._now())
        if stored.model == known.model:
            others = {each: score for each, score in stored.scores.items() if each not in known.scores}
            known.scores = others | known.scores

    @contextmanager
    def _using(self, key: bytes) -> Iterator[_Query]:
        """Keep what is known of a query in memory while the block runs; it is loaded once for concurrent searches."""
        known = self._queries.get(key)
        if known is None:
            known = self._queries[key] = _Query(key)
            known.loading = self._background(known, self._load(known))
        known.users += 1
        try:
            yield known
        finally:
            self._release(known)

    def _release(self, known: _Query) -> None:
        known.users -= 1
        if not known.users:
            del self._queries[known.key]

    def _background(self, known: _Query, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start work that no search cancels; the query stays in memory until its end."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._release(known)

        known.users += 1
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(ended)
        return task


def _reuse(asked: _Asked, window: Window, relevance: Relevance, sent: frozenset[bytes]) -> Reuse:
    """Count the scored passages that this search did not send, and record what it did not have to pay for them."""
    scored = window.ids[: len(relevance.scores)]
    own = set(sent)
    reused: list[str] = []
    for each in scored:
        if each in own:
            own.discard(each)  # an equal passage further down is reused
        else:
            reused.append(window.texts[each])
    if not reused:
        return Reuse(len(sent))
    tokens = rerank_tokens(asked.query, reused, asked.instruction)
    asked.purse.saved(asked.model, tokens)
    return Reuse(len(sent), len(reused), round(tokens))


def _leave(known: _Query, waiting: _Waiting) -> None:
    """Cancel the calls that no other search waits for."""
    for call in waiting.calls:
        call.waiting -= 1
        if not call.waiting:
            known.forget(call)
            call.answer.cancel()


def _again(error: Refused) -> Refused:
    """Return the error for a call that is not repeated, without the response body, which may quote the request."""
    return Refused(_SERVICE, error.status, reason=error.reason, message="just now, for the same query and passages")
