"""`warm --dry-run`: what the searches would cost, without a model call and without the running proxy.

The functions of `serve` run each search on the engine, with models that only count. What Redis has cached costs
nothing; it is read, and nothing is written to it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, TypeVar

import msgspec

from proxy.catalog.indices import Unrouted
from proxy.commands.checking.dry_run import reach
from proxy.commands.costs import usd
from proxy.commands.evaluation.outcomes import read_outcome
from proxy.commands.loading.backfill import Pace
from proxy.commands.loading.progress import ShownProgress
from proxy.commands.warming.searches import FrequentSearches
from proxy.context import SearchRecord
from proxy.endpoints.answering import Searching
from proxy.endpoints.front import response_to
from proxy.endpoints.routing import NotRouted, SearchCall
from proxy.errors import TimedOut, UpstreamError, Withheld
from proxy.outcomes import Bypass
from proxy.ranking.pipeline import Answered, Result, Unserved
from proxy.ranking.planning import Plan, QueryVector, Relevance
from proxy.ranking.stages import Budget, OwnSearches, Purse
from proxy.settings.config import Config
from proxy.settings.credentials import CacheSecrets
from proxy.store.contract import CacheRegion, SharedStore, Store, Timed
from proxy.store.layered import MemoryFirst
from proxy.store.opening import Caches, open_caches
from proxy.upstream.embedder import SERVICE as EMBEDDER
from proxy.upstream.embedder import Embedder, query_prompt
from proxy.upstream.engine import EngineClient, EngineOfCaller
from proxy.upstream.providers import EMBED_FORMATS, rerank_endpoint, sent_query
from proxy.upstream.score_cache import ScoreCache
from proxy.upstream.spending.prices import Prices, embed_tokens, rerank_tokens
from proxy.upstream.transport import Transport

SAMPLED = 200
"""Of more searches than this, so many are run, and the others counted alike."""
_PATIENT_MS = 600_000
_PATIENT_S = 60.0
_T = TypeVar("_T")
_NOT_CALLED = "dry_run"


@dataclass(slots=True)
class ModelCount:
    """What one model would receive."""

    texts: float = 0.0
    tokens: float = 0.0

    def add(self, texts: float, tokens: float) -> None:
        self.texts += texts
        self.tokens += tokens


@dataclass(slots=True)
class WarmingForecast:
    """What the searches would cost, at most."""

    searches: int
    sampled: int
    redis: str | None
    """`ok` or `unreachable`; None if the settings name no Redis."""
    longest_tokens: float
    """The tokens of the longest passage, which is assumed where none is known."""
    beside_tokens: float = 0.0
    """The most tokens of query, instruction and template, which are billed with each passage."""
    outcomes: Counter[str] = field(default_factory=Counter)
    queries: dict[str, ModelCount] = field(default_factory=dict)
    """Query texts without a cached vector, by embedding model."""
    passages: dict[str, ModelCount] = field(default_factory=dict)
    """Passages without a cached score, by reranker."""
    assumed: Counter[str] = field(default_factory=Counter)
    """Documents that kNN may find for queries without a cached vector, by reranker; their text is not known."""
    candidates: int = 0
    cached_queries: int = 0
    cached_passages: int = 0
    cached_tokens: int = 0

    @property
    def is_useful(self) -> bool:
        """Whether any search would be reranked."""
        return any(name.startswith(("reranked", "degraded")) for name in self.outcomes)

    @property
    def _factor(self) -> float:
        return self.searches / self.sampled

    def models(self) -> Iterator[tuple[str, str, ModelCount]]:
        """Return each model with what it would receive for all searches."""
        for model, count in self.queries.items():
            yield "query texts", model, ModelCount(count.texts * self._factor, count.tokens * self._factor)
        for model in self.passages.keys() | self.assumed.keys():
            count = self.passages.get(model, ModelCount())
            texts = count.texts + self.assumed[model] * self._mean.texts
            tokens = count.tokens + self.assumed[model] * self._mean.tokens
            yield "passages", model, ModelCount(texts * self._factor, tokens * self._factor)

    @property
    def _mean(self) -> ModelCount:
        """Passages and tokens of one document; a long document has two passages."""
        if not self.candidates:
            return ModelCount(1.0, self.longest_tokens + self.beside_tokens)
        texts = self.cached_passages + sum(count.texts for count in self.passages.values())
        tokens = self.cached_tokens + sum(count.tokens for count in self.passages.values())
        return ModelCount(texts / self.candidates, tokens / self.candidates)

    def lines(self, prices: Prices) -> Iterator[str]:
        """Describe the forecast, at the price of the usual service tier."""
        alike = f"; {self.sampled:,} were run, and the others counted alike" if self.sampled < self.searches else ""
        yield f"dry run, no model was called: {self.searches:,} searches{alike}"
        yield ", ".join(f"{round(count * self._factor):,} {name}" for name, count in self.outcomes.most_common())
        total, unpriced = 0.0, []
        for what, model, count in self.models():
            price = prices.of(model)
            cost = prices.usd(model, count.tokens)
            total += cost
            if price is None:
                unpriced.append(model)
            shown = "its price is not known: set it in `spend.prices`" if price is None else usd(cost)
            yield f"{count.texts:,.0f} {what}, about {count.tokens:,.0f} tokens of {model}: {shown}"
        if self.assumed:
            share = round(sum(self.assumed.values()) * self._factor)
            yield f"they include {share:,} documents that are assumed: kNN may find them once a query has its vector"
        yield self._cached()
        more = ", without the models that have no price" if unpriced else ""
        yield f"at most about {usd(total)}{more}: the proxy may have more in its memory, which costs nothing"

    def _cached(self) -> str:
        if self.redis is None:
            return "no Redis is configured (`cache.redis_url`), so nothing counts as cached"
        if self.redis != "ok":
            return "Redis is unreachable, so nothing counts as cached"
        passages, queries = (round(count * self._factor) for count in (self.cached_passages, self.cached_queries))
        return f"cached in Redis or equal, and not counted: {passages:,} passages, {queries:,} query texts"


class _Unwritten:
    """A shared store that is only read."""

    def __init__(self, store: SharedStore) -> None:
        self._store = store

    async def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        return await self._store.get(keys)

    async def get_timed(self, keys: Sequence[bytes]) -> Sequence[Timed | None]:
        return await self._store.get_timed(keys)

    async def put(self, entries: Mapping[bytes, bytes], seconds: float) -> None: ...


class _NoCalls(Transport):
    """The endpoint of a model that is never called."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def reject_if_late(self, model: str, seconds: float, *, is_new: bool = True) -> UpstreamError | None:  # noqa: ARG002
        return Withheld(EMBEDDER, _NOT_CALLED, model)

    def withheld(self, model: str) -> UpstreamError | None:  # noqa: ARG002
        return None

    async def ask(self, *_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a dry run calls no model")


class CountingQueries:
    """Returns cached vectors, and counts the queries without one: `Embeds`."""

    def __init__(self, embedder: Embedder, max_chars: int, forecast: WarmingForecast) -> None:
        self._embedder = embedder
        self._max_chars = max_chars
        self._forecast = forecast
        self._counted: set[tuple[str, str]] = set()
        self.missed = 0

    async def warm_up(self) -> None: ...

    async def remembers(self, text: str, *, instruction: str, model: str, dimensions: int) -> bool:
        return await self._embedder.remembers(text, instruction=instruction, model=model, dimensions=dimensions)

    async def unavailable(self, text: str, *, instruction: str, model: str, dimensions: int) -> None: ...
    def not_called(self, model: str, why: UpstreamError) -> None: ...

    async def embed_query(
        self, text: str, *, instruction: str, model: str, dimensions: int, budget: Budget
    ) -> QueryVector:
        found = await self._embedder.embed_query(
            text, instruction=instruction, model=model, dimensions=dimensions, budget=budget
        )
        if found.error is None:
            self._forecast.cached_queries += 1
            return found
        self.missed += 1
        prompt = query_prompt(instruction, sent_query(text, self._max_chars))
        if (model, prompt) not in self._counted:
            self._counted.add((model, prompt))
            self._forecast.queries.setdefault(model, ModelCount()).add(1, embed_tokens((prompt,)))
        return found


class CountingReranker:
    """Counts the passages that it would score, and keeps their order: `RerankCalls`."""

    timeout_seconds = _PATIENT_S

    def __init__(self, batch_size: int, forecast: WarmingForecast) -> None:
        self.batch_size = batch_size
        self._forecast = forecast

    async def warm_up(self) -> None: ...

    def reject_if_late(self, model: str, seconds: float, *, is_new: bool) -> UpstreamError | None:  # noqa: ARG002
        return None

    def withheld(self, model: str) -> UpstreamError | None:  # noqa: ARG002
        return None

    def not_called(self, model: str, why: UpstreamError) -> None: ...

    def abandoned(self, model: str, seconds: float) -> None: ...

    async def score(  # noqa: PLR0913  as `Reranker.score`
        self,
        query: str,
        passages: Sequence[str],
        *,
        instruction: str,
        model: str,
        is_typical: bool,  # noqa: ARG002
        purse: Purse,  # noqa: ARG002
    ) -> Relevance:
        tokens = rerank_tokens(query, passages, instruction)
        self._forecast.passages.setdefault(model, ModelCount()).add(len(passages), tokens)
        return Relevance(tuple(1 / (2 + rank) for rank in range(len(passages))))


@dataclass(frozen=True, slots=True)
class DrySettings:
    """The settings of a dry run, and its secrets."""

    config: Config
    cache_secrets: CacheSecrets
    authorization: str | None = field(repr=False)
    """Of the searches."""
    discovery: str | None = field(repr=False)
    """Of the proxy itself, as in `engine.authorization_env`."""


async def forecast_of(
    settings: DrySettings, index: str, searches: FrequentSearches, pace: Pace, shown: ShownProgress
) -> WarmingForecast:
    """Run the searches, or a sample of them, with models that only count; raises UpstreamError, ConfigError."""
    config = _patient(settings.config)
    sample = searches.sample(SAMPLED)
    async with AsyncExitStack() as stack:
        caches = open_caches(config.cache, settings.cache_secrets, stack)
        redis = caches.redis
        state = None if redis is None else str(await redis.tried())
        forecast = WarmingForecast(len(searches), len(sample), state, config.models.passage_max_tokens)
        engine = EngineClient(config.engine)
        stack.push_async_callback(engine.close)
        queries = _queries(config, _read_only(caches.vectors, caches), forecast)
        scores = _scores(config, _read_only(caches.scores, caches), forecast)
        carried = (("Authorization", settings.authorization),) if settings.authorization else ()
        caller = engine.for_caller(b"warm", carried)
        await reach(caller, SearchCall(index, ""))
        searching = Searching(config, engine, queries, scores, settings.discovery)
        for number, body in enumerate(sample, start=1):
            await pace.spend(1)
            missed = queries.missed
            record, plan, result = await in_time(_run(searching, caller, SearchCall(index, "", body)))
            _note(forecast, record, plan, result, is_without_vector=queries.missed > missed)
            shown.show(number, number)
        return forecast


def _patient(config: Config) -> Config:
    """Give each search all the time that it needs, and run those of `mode: shadow`, which the proxy pays for, too."""
    routes = tuple(
        msgspec.structs.replace(route, budget_ms=_PATIENT_MS, mode="on" if route.mode == "shadow" else route.mode)
        for route in config.routes
    )
    engine = msgspec.structs.replace(config.engine, resolve_timeout_seconds=_PATIENT_S)
    return msgspec.structs.replace(config, routes=routes, engine=engine)


def _read_only(region: CacheRegion, caches: Caches) -> CacheRegion:
    """Return a region that keeps new values in memory only."""
    memory = caches.memory[region.kind]
    store: Store = memory if caches.redis is None else MemoryFirst(memory, _Unwritten(caches.redis))
    return replace(region, store=store)


def _queries(config: Config, vectors: CacheRegion, forecast: WarmingForecast) -> CountingQueries:
    models = config.models
    embedder = Embedder(
        _NoCalls(models.url),
        timeout_seconds=_PATIENT_S,
        query_max_chars=models.query_max_chars,
        vectors=vectors,
        format_=EMBED_FORMATS[models.embed_api],
    )
    return CountingQueries(embedder, models.query_max_chars, forecast)


def _scores(config: Config, scores: CacheRegion, forecast: WarmingForecast) -> ScoreCache:
    models = config.models
    return ScoreCache(
        CountingReranker(models.rerank_batch_size, forecast),
        scores,
        endpoint=rerank_endpoint(models),
        query_max_chars=models.query_max_chars,
    )


async def in_time(running: Awaitable[_T], seconds: float = _PATIENT_S) -> _T:
    """Wait for the engine, which may take as long as it wants in `serve`; raises TimedOut."""
    try:
        async with asyncio.timeout(seconds):
            return await running
    except TimeoutError:
        raise TimedOut("engine", f"no answer to a search in {seconds:g} s") from None


async def _run(
    searching: Searching, caller: EngineOfCaller, call: SearchCall
) -> tuple[SearchRecord, Plan | None, Result | NotRouted]:
    async def body() -> bytes:
        return call.content

    record = SearchRecord("")
    routed = await searching.route(record, caller, call, body)
    if isinstance(routed, NotRouted):
        return record, None, routed
    prepared = await searching.prepare(routed, OwnSearches())
    if isinstance(prepared, Bypass | Unserved):
        return record, None, prepared
    return record, prepared.planned.plan, await prepared.run()


def _note(
    forecast: WarmingForecast,
    record: SearchRecord,
    plan: Plan | None,
    result: Result | NotRouted,
    *,
    is_without_vector: bool,
) -> None:
    forecast.outcomes[_outcome(result)] += 1
    reuse = record.usage.reuse
    forecast.cached_passages += reuse.cached
    forecast.cached_tokens += reuse.saved_tokens
    candidates = result.candidates if isinstance(result, Answered) else 0
    forecast.candidates += candidates
    if is_without_vector and plan is not None and plan.adds and plan.rerankers:
        beside = rerank_tokens(plan.sent_text, ("",), plan.instruction)
        forecast.beside_tokens = max(forecast.beside_tokens, beside)
        forecast.assumed[plan.rerankers[0]] += max(0, plan.window - candidates)


def _outcome(result: Result | NotRouted) -> str:
    """Return the outcome that the search would have with all vectors."""
    why = result.why if isinstance(result, NotRouted) else result
    if isinstance(why, Unrouted):
        return "not a search of a route"
    if isinstance(why, Answered):
        why = replace(why, failures=tuple(failure for failure in why.failures if failure.reason != _NOT_CALLED))
    return str(read_outcome(response_to(why).outcome.header.decode()))
