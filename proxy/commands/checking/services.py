"""Check the nodes of the engine, the models and Redis with one real request each."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import msgspec

from proxy.catalog.dialects import EngineKind, read_kind
from proxy.commands.advice import connection_advice, models_advice
from proxy.commands.checking.findings import Finding
from proxy.errors import Refused, TimedOut, Unreachable, UpstreamError
from proxy.ranking.planning import VectorSearch
from proxy.ranking.stages import Budget, Unmetered
from proxy.ranking.tokens import estimated_tokens
from proxy.settings.config import Cache, Config
from proxy.settings.config import Engine as Settings
from proxy.settings.credentials import CacheSecrets
from proxy.settings.routes import Route
from proxy.settings.yaml_file import ConfigError
from proxy.store.opening import open_caches
from proxy.upstream.canary import INSTRUCTION, CanaryVerdict, judged, score_known
from proxy.upstream.charges import reported_in
from proxy.upstream.embedder import Embedder, is_same
from proxy.upstream.engine import EngineClient, EngineOfCaller
from proxy.upstream.pool import CarriedFields
from proxy.upstream.providers import EMBED_FORMATS, RERANK_FORMATS
from proxy.upstream.reranker import Reranker
from proxy.upstream.transport import Transport, open_session

PATIENCE_S = 30.0
"""Timeout of a check: longer than for a search, to distinguish a slow model from a missing one."""
_SUPPORTED_SINCE = {"elasticsearch": (8, 4), "opensearch": (2,)}
_QUERY = "how to reset a forgotten password"
SAMPLE = (
    "Acme TravelBook 14, 35.6 cm (14 inch) full HD display, 16 GB of memory, 512 GB SSD, silver. A light notebook for "
    "travel and for the office: it weighs 1.2 kg, its battery lasts up to 18 hours, and the keyboard is lit. With two "
    "USB-C ports, HDMI and a reader for memory cards. Delivered with Windows 11, a charger and two years of warranty. "
    "Customers praise the bright display and the quiet fan; some miss a larger touchpad."
)
"""What a shop writes about a product: prose, names and numbers."""

T = TypeVar("T")


async def ask_nodes(settings: Settings, carried: CarriedFields) -> AsyncIterator[Finding]:
    """Ask each node which engine it is; if one node answers, an unreachable one is only a note."""
    found = [await _ask_node(settings, url, carried) for url in settings.urls]
    answered = any(finding.kind == "ok" for finding in found)
    for finding in found:
        lost = finding.kind == "unreachable" and answered
        yield Finding("note", finding.place, finding.said) if lost else finding


async def _ask_node(settings: Settings, url: str, carried: CarriedFields) -> Finding:
    engine = EngineClient(msgspec.structs.replace(settings, url=url))
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await _kind(engine.for_caller(b"check", carried), url, authorized=bool(carried))
    except TimeoutError:
        return Finding("unreachable", "engine", f"{url} does not answer within {PATIENCE_S:g} s. Look into its log")
    finally:
        await engine.close()


async def _kind(caller: EngineOfCaller, url: str, *, authorized: bool) -> Finding:
    try:
        kind = read_kind(msgspec.json.decode((await caller.get("/", ())).body))
    except Refused as error:
        return _refused(error, url, authorized=authorized)
    except UpstreamError as error:
        return Finding(
            "unreachable", "engine", f"{url} cannot be reached: {error.detail}. {connection_advice(error.detail)}"
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return Finding("wrong", "engine", f"{url} is neither Elasticsearch nor OpenSearch: correct engine.url")
    return _named(kind, url)


_PRIVILEGES = 'grant `monitor` on the cluster, see "Credentials" in docs/quick-start.md'


def _refused(error: Refused, url: str, *, authorized: bool) -> Finding:
    if error.status in {401, 403} and not authorized:
        said = f"{url} requires credentials ({error.status}): set engine.authorization_env to check the indices, too"
        return Finding("note", "engine", said)
    if error.status == 403:
        said = f"{url} does not permit `GET /` with the credentials of engine.authorization_env (403): {_PRIVILEGES}"
        return Finding("wrong", "engine", said)
    if error.status == 401:
        said = f"{url} rejects the credentials of engine.authorization_env (401): correct the variable"
        return Finding("wrong", "engine", said)
    is_fault = error.status >= 500 or error.status == 429
    advice = "look into the log of the engine, or of a gateway before it" if is_fault else "correct engine.url"
    return Finding("wrong", "engine", f"{url} answers with status {error.status}: {advice}")


def _named(kind: EngineKind, url: str) -> Finding:
    version = kind.version or ()
    said = f"{kind.product} {'.'.join(map(str, version))} at {url}"
    since = _SUPPORTED_SINCE.get(kind.product)
    if since is None or version < since:
        known = ", ".join(f"{name} from {'.'.join(map(str, least))}" for name, least in _SUPPORTED_SINCE.items())
        return Finding("note", "engine", f"{said}: the proxy is made for {known}")
    return Finding("ok", "engine", said)


@dataclass(frozen=True, slots=True)
class ModelQuestion:
    """The model calls of a route's searches; equal ones are checked once."""

    instruction: str
    embedding_model: str | None
    dimensions: int
    held: bool
    """An index has vectors of this model, so the server must not use another one."""
    rerank_models: tuple[str, ...]


def question_of(route: Route, vectors: VectorSearch | None) -> ModelQuestion:
    """Return the model calls of a route; the embedding model is that of its index, if it has vectors."""
    if vectors:
        model, dimensions = vectors.model, vectors.dimensions
        return ModelQuestion(route.instruction, model, dimensions, held=True, rerank_models=route.rerankers)
    semantic = route.semantic
    return ModelQuestion(
        route.instruction,
        route.embedding_model if semantic else None,
        semantic.dimensions if semantic else 0,
        held=False,
        rerank_models=route.rerankers,
    )


async def ask_models(
    config: Config, token: str | None, rerank_token: str | None, questions: Sequence[ModelQuestion]
) -> AsyncIterator[Finding]:
    """Make one real embedding and one real score with each model that the routes use."""
    settings = config.models
    async with open_session(settings) as session:
        embedder = Embedder(
            Transport(session, "embedder", settings.url, token),
            timeout_seconds=PATIENCE_S,
            query_max_chars=settings.query_max_chars,
            format_=EMBED_FORMATS[settings.embed_api],
        )
        reranker = Reranker(
            Transport(session, "reranker", settings.rerank_url or settings.url, rerank_token),
            timeout_seconds=PATIENCE_S,
            format_=RERANK_FORMATS[settings.rerank_api],
        )
        for question in {(each.embedding_model, each.dimensions): each for each in questions}.values():
            if model := question.embedding_model:
                limit = settings.embed_timeout_seconds
                yield await _asked("embedder", model, limit, partial(_embedding, embedder, question))
        for model in dict.fromkeys(model for each in questions for model in each.rerank_models):
            limit = settings.rerank_timeout_seconds
            found = await _asked("reranker", model, limit, partial(_rank, reranker, model))
            yield found
            if found.kind == "ok":
                async for finding in _counted(reranker, model):
                    yield finding


async def _asked(service: str, model: str, limit: float, ask: Callable[[], Awaitable[Finding]]) -> Finding:
    """Call a model and report the time; a call that takes longer than its timeout would be degraded."""
    begun = time.perf_counter()
    try:
        found = await ask()
    except UpstreamError as error:
        away = isinstance(error, Unreachable | TimedOut)
        return Finding("unreachable" if away else "wrong", service, models_advice(error, model))
    seconds = time.perf_counter() - begun
    if found.kind != "ok":
        return found
    if seconds > limit:
        key = "embed_timeout_seconds" if service == "embedder" else "rerank_timeout_seconds"
        said = f"{found.said} in {seconds * 1000:.0f} ms: models.{key} is {limit:g}, so such a search is degraded"
        return Finding("note", service, said)
    return Finding("ok", service, f"{found.said} in {seconds * 1000:.0f} ms")


async def _embedding(embedder: Embedder, question: ModelQuestion) -> Finding:
    model = question.embedding_model or ""
    if not question.held:
        answering = await embedder.served_model(model=model, dimensions=question.dimensions)
        if not is_same(answering.model, model):
            said = (
                f"the server uses {answering.model} for {model}; `index` and `backfill` will record {answering.model}"
            )
            return Finding("note", "embedder", said)
        return Finding("ok", "embedder", f"{model} made a vector of {answering.dimensions} dimensions")
    embedded = await embedder.embed_query(
        _QUERY, instruction=question.instruction, model=model, dimensions=question.dimensions, budget=Budget()
    )
    if embedded.error is not None:
        raise embedded.error
    return Finding("ok", "embedder", f"{model} made a vector of {len(embedded.vector)} dimensions")


class _CountedTokens(Unmetered):
    """The tokens that the provider counts for one call."""

    tokens = 0

    def answered(self, content: bytes) -> None:
        self.tokens = reported_in(content).tokens or 0


async def _counted(reranker: Reranker, model: str) -> AsyncIterator[Finding]:
    """Compare the tokens that the provider counts for a text with the estimate by which passages are cut.

    The estimate is not adjusted by itself, since passages are the keys of cached scores.
    """
    tokens = []
    for passage in (SAMPLE, SAMPLE * 2):
        counted = _CountedTokens()
        await reranker.score(_QUERY, [passage], instruction=INSTRUCTION, model=model, purse=counted)
        tokens.append(counted.tokens)
    if 0 < tokens[0] < tokens[1]:
        ratio = (tokens[1] - tokens[0]) / estimated_tokens(SAMPLE)
        said = f"{model} counts {ratio:.2g} tokens for each that `models.passage_max_tokens` estimates"
        yield Finding("ok", "reranker", said)


async def _rank(reranker: Reranker, model: str) -> Finding:
    scores = await score_known(reranker, model)
    report = judged(scores)
    if report.verdict is CanaryVerdict.WRONG:
        said = f"{model} ranks known pairs wrong: {report.detail}. Check the model server"
        return Finding("wrong", "reranker", said)
    relevant, irrelevant = max(scores[0]), min(scores[0])
    said = f"{model} scored a passage that answers the query {relevant:.2g}, and one that does not {irrelevant:.2g}"
    return Finding("ok", "reranker", said)


async def ask_redis(settings: Cache, secrets: CacheSecrets) -> AsyncIterator[Finding]:
    """Write to the Redis of the caches, if there is one."""
    async with AsyncExitStack() as stack:
        try:
            redis = open_caches(settings, secrets, stack).redis
        except ConfigError as error:
            yield Finding("wrong", "redis", str(error))
            return
        if redis is None:
            return
        if await redis.tried() == "ok":
            yield Finding("ok", "redis", f"{settings.redis_url} can be used")
        else:
            yield Finding("unreachable", "redis", f"{redis.fault}. Without it, each proxy has its own caches")
