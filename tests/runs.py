"""Runs as the app makes them, before the fakes, for tests of single steps."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from proxy.context import Clock
from proxy.ranking.heads import Heads
from proxy.ranking.planning import Plan
from proxy.ranking.stages import Run, Stages
from proxy.settings.config import Engine as Settings
from proxy.store.contract import CacheRegion, Kind
from proxy.store.memory import memory_region
from proxy.upstream.accepted import AcceptedSearch
from proxy.upstream.embedder import Embedder
from proxy.upstream.engine import EngineClient
from proxy.upstream.reranker import Reranker
from proxy.upstream.score_cache import ScoreCache
from proxy.upstream.transport import Transport, models_session
from tests.fakes import FakeEngine, FakeModels


async def nothing() -> frozenset[str]:
    return frozenset()


async def run_of(
    plan: Plan,
    engine: FakeEngine,
    models: FakeModels,
    stack: AsyncExitStack,
    covered_now: Callable[[], Awaitable[frozenset[str]]] | None = None,
    batch_size: int = 1000,
    vectors: CacheRegion | None = None,
) -> Run:
    searching = EngineClient(Settings(url=engine.url))
    stack.push_async_callback(searching.close)
    session = await stack.enter_async_context(models_session(1.0))
    stages = Stages(
        engine=searching.for_caller(b"", ()),
        embedder=Embedder(
            Transport(session, "embedder", models.url, None), timeout_seconds=5, query_max_chars=200, vectors=vectors
        ),
        reranker=ScoreCache(
            Reranker(Transport(session, "reranker", models.url, None), timeout_seconds=5, batch_size=batch_size),
            memory_region(Kind.SCORES, 0),
            endpoint=models.url,
            query_max_chars=200,
        ),
        heads=Heads(memory_region(Kind.RANKINGS, 2**20)),
        accepted=AcceptedSearch.of(searching.accepted, b"", ["products"]),
        covered_now=covered_now or nothing,
        passage_max_tokens=50,
        added_timeout_seconds=5,
    )
    return Run(plan, stages, Clock())
