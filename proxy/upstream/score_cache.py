"""Scores passages without paying or waiting for any of them twice.

A score comes from the store, from a call of another search that is in progress, or from a new call of the reranker. It
depends on the endpoint, the model, the instruction, the query and the passage, and on nothing else: not on the caller,
the document or its index, so it outlives reindexing and changes of fields outside the passage.

While searches use a query, all that is known of it is one object of `live_queries`, so that nothing else can happen to
a passage between its look-up and its call.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cachetools import TTLCache

from proxy.bounds import REFUSED_CALLS
from proxy.context import Reuse
from proxy.errors import CapReached, OtherModel, Refused, TimedOut, UpstreamError
from proxy.ranking.planning import Relevance
from proxy.ranking.stages import UNMETERED, Budget, Purse
from proxy.store.contract import CacheRegion
from proxy.upstream.live_queries import AwaitedCalls, LiveQueries, LiveQuery, ScoreCall
from proxy.upstream.providers import is_listwise, sent_query
from proxy.upstream.score_entries import ID_LENGTH
from proxy.upstream.spending.prices import rerank_tokens
from proxy.upstream.windows import Window, batches_of, is_typical, joined, window_of

_SERVICE = "reranker"
REFUSED_S = 5.0
"""How long a call that the provider refused because of its content is not repeated, in seconds."""
_REFUSED_STATUSES = frozenset({400, 413, 422})
_ROUNDS = 2
"""How often a search asks for missing scores: a second time if the server changed its model in between."""


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
        self._known = LiveQueries(cache, now, merges=merges)
        self._endpoint = endpoint
        self._query_max_chars = query_max_chars
        self._now = now
        self._refused: TTLCache[tuple[bytes, ...], Refused] = TTLCache(REFUSED_CALLS, REFUSED_S, timer)

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
        waiting, error = AwaitedCalls(), None
        limit = self._limit(budget)
        with self._known.using(key) as known:
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
                known.leave(waiting)
            relevance = joined(window, known.values, known.model, error)
        return replace(relevance, reuse=_reuse(asked, window, relevance, waiting.sent))

    async def unavailable(self, query: str, *, instruction: str, model: str) -> UpstreamError | None:
        """Return why no passage can be scored: none has a cached score, and the model is not called at present."""
        if (why := self._reranker.withheld(model)) is None:
            return None
        key = self._key(_Asked(sent_query(query, self._query_max_chars), instruction, model, UNMETERED))
        if is_listwise(model) or await self._known.has_scores(key):
            return None
        return why

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
        self, asked: _Asked, known: LiveQuery, window: Window, waiting: AwaitedCalls, budget: Budget
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
            calls = list(dict.fromkeys(map(known.calls.__getitem__, unscored)))
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

    def _begin(self, asked: _Asked, known: LiveQuery, window: Window, ids: Sequence[bytes]) -> ScoreCall:
        answer: asyncio.Future[Relevance] = asyncio.get_running_loop().create_future()
        call = ScoreCall(ids, answer)
        known.calls.update(dict.fromkeys(ids, call))
        if refused := self._refused.get((known.key, *ids)):
            answer.set_result(Relevance((), error=refused))
        else:
            call.answer = asyncio.ensure_future(self._ask(asked, known, call, window))
        return call

    async def _ask(self, asked: _Asked, known: LiveQuery, call: ScoreCall, window: Window) -> Relevance:
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
            self._known.keep(known, call, answer)
        elif isinstance(answer.error, Refused) and answer.error.status in _REFUSED_STATUSES:
            self._refused[(known.key, *call.ids)] = _again(answer.error)
        return answer


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


def _again(error: Refused) -> Refused:
    """Return the error for a call that is not repeated, without the response body, which may quote the request."""
    return Refused(_SERVICE, error.status, reason=error.reason, message="just now, for the same query and passages")
