"""A generation: everything created from one configuration, closed when it was replaced and its requests have ended."""

from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field

from proxy.bounds import BACKGROUND_CALL_S, BACKGROUND_CALLS
from proxy.endpoints.answering import Searching
from proxy.endpoints.async_search import AsyncSearches
from proxy.endpoints.front import Front
from proxy.http1.callers import CallerIdentities
from proxy.http1.relay import Upstream
from proxy.ranking.stages import CalledModels
from proxy.settings.config import Config
from proxy.settings.config import Models as ModelSettings
from proxy.settings.credentials import authorization_of, rerank_token_of, token_of
from proxy.settings.rollout import Switches
from proxy.settings.routes import build_routes
from proxy.settings.tls import models_authority
from proxy.store.opening import Caches
from proxy.telemetry.log import Telemetry, warn_of_new_callers
from proxy.upstream.canary import ROUTE, Canary, CanaryScores
from proxy.upstream.embedder import Embedder
from proxy.upstream.engine import EngineClient
from proxy.upstream.guard import GuardedModels, Guards
from proxy.upstream.nodes import Nodes
from proxy.upstream.providers import EMBED_FORMATS, RERANK_FORMATS, CallTier, rerank_endpoint
from proxy.upstream.reranker import Reranker
from proxy.upstream.score_cache import ScoreCache
from proxy.upstream.spares import Spares
from proxy.upstream.spending.meter import Meter
from proxy.upstream.transport import Transport, open_session


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets of a configuration, from the environment."""

    embed_token: str | None
    rerank_token: str | None
    authorization: str | None

    def __repr__(self) -> str:
        return "Secrets(***)"


def secrets_of(config: Config, environment: Mapping[str, str]) -> Secrets:
    """Read the secrets that a configuration names; raises ConfigError."""
    return secrets_with(config, token_of(config, environment), environment)


def secrets_with(config: Config, token: str | None, environment: Mapping[str, str]) -> Secrets:
    """Read the secrets other than the token of `models.url`; raises ConfigError."""
    return Secrets(token, rerank_token_of(config, token, environment), authorization_of(config, environment))


@dataclass(frozen=True, slots=True)
class Fixed:
    """What exists once per process, and is not affected by reloads."""

    nodes: Nodes
    spares: Spares
    engine: EngineClient
    upstream: Upstream
    telemetry: Telemetry
    caches: Caches
    switches: Switches = field(default_factory=Switches)
    meter: Meter = field(default_factory=Meter)
    canary_scores: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """The first scores of each model's canary."""


@dataclass(frozen=True, slots=True)
class ModelClients:
    """The clients of the models, with their connections."""

    settings: ModelSettings
    secrets: Secrets
    embedder: Embedder
    scores: ScoreCache
    guards: Guards
    canary: Canary
    background: CalledModels
    """The clients of the same models for searches in the background."""
    authority: bytes = b""
    """The content of `models.ca_file`."""

    def __repr__(self) -> str:
        return f"ModelClients({self.settings.url})"

    def serve(self, settings: ModelSettings, secrets: Secrets) -> bool:
        """Whether they were created from the same model settings, tokens and certificate authority."""
        tokens = (secrets.embed_token, secrets.rerank_token)
        same_tokens = (self.secrets.embed_token, self.secrets.rerank_token) == tokens
        return self.settings == settings and same_tokens and self.authority == models_authority(settings)


def used_rerankers(config: Config) -> Iterator[str]:
    """Return the rerankers that searches may call, for their canaries; none without `models.canary`."""
    if config.models.canary:
        for route in build_routes(config):
            if route.rollout.mode != "off":
                yield from route.rerankers


class Generation:
    """Everything created from one configuration; a request uses the generation in which it began.

    The next generation takes over the clients of unchanged models, so generations are closed in the order of their
    creation.
    """

    def __init__(
        self, config: Config, models: ModelClients, front: Front, async_searches: AsyncSearches, stack: AsyncExitStack
    ) -> None:
        self.config = config
        self.models = models
        self.front = front
        self.async_searches = async_searches
        self.logs_access = config.log.access
        self.published_address = config.engine.published_address
        self.running = 0
        self._stack = stack

    @contextmanager
    def request(self) -> Iterator[None]:
        """Keep the generation open while a request runs."""
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    def watch_models(self) -> None:
        """Begin the canaries of the models in the background."""
        purse = self.front.searching.spending.purse(ROUTE)
        self.models.canary.watch(used_rerankers(self.config), purse)

    def hand_over(self) -> AsyncExitStack:
        """Leave the clients of the models to the next generation, which will close them."""
        return self._stack.pop_all()

    async def close(self) -> None:
        """Cancel the shadow runs, and close everything that the next generation has not taken over."""
        await self.front.searching.shadows.close()
        await self._stack.aclose()


async def first_generation(config: Config, secrets: Secrets, fixed: Fixed) -> Generation:
    """Create the generation of the first configuration."""
    stack = AsyncExitStack()
    models = await _open_models(config.models, secrets, fixed, stack)
    callers = CallerIdentities(config.callers.ignore, warn_of_new_callers)
    front = _front(config, secrets, fixed, models, callers)
    return Generation(config, models, front, AsyncSearches(front), stack)


async def next_generation(config: Config, secrets: Secrets, fixed: Fixed, earlier: Generation) -> Generation:
    """Create the generation of a new configuration, and take over what has not changed."""
    same_models = earlier.models.serve(config.models, secrets)
    opened = AsyncExitStack()
    models = earlier.models if same_models else await _open_models(config.models, secrets, fixed, opened)
    if not same_models:
        models.guards.take_holds(earlier.models.guards)
    same_callers = earlier.config.callers == config.callers
    callers = earlier.front.callers if same_callers else CallerIdentities(config.callers.ignore, warn_of_new_callers)
    front = _front(config, secrets, fixed, models, callers)
    async_searches = AsyncSearches(front, earlier.async_searches)
    return Generation(config, models, front, async_searches, earlier.hand_over() if same_models else opened)


async def _open_models(settings: ModelSettings, secrets: Secrets, fixed: Fixed, stack: AsyncExitStack) -> ModelClients:
    session = await stack.enter_async_context(open_session(settings))
    on_call = fixed.telemetry.count_model_call
    guards = Guards(settings.concurrent_calls, on_call)
    behind = Guards(min(BACKGROUND_CALLS, settings.concurrent_calls), on_call, leading=guards)
    embed_token, rerank_url = secrets.embed_token, settings.rerank_url or settings.url
    calls = ModelCalls(settings.embed_timeout_seconds, settings.rerank_timeout_seconds, settings.service_tier)
    slow_calls = ModelCalls(BACKGROUND_CALL_S, BACKGROUND_CALL_S, "flex")
    of_embedder = (session, "embedder", settings.url, embed_token)
    of_reranker = (session, "reranker", rerank_url, secrets.rerank_token)
    reranker = calls.reranker(settings, Transport(*of_reranker, guards))
    canary = Canary(
        reranker,
        calls.reranker(settings, Transport(*of_reranker)),
        guards,
        CanaryScores(settings.canary_file, fixed.canary_scores),
    )
    stack.push_async_callback(canary.close)
    return ModelClients(
        settings,
        secrets,
        calls.embedder(settings, Transport(*of_embedder, guards), fixed.caches),
        _score_cache(settings, reranker, fixed.caches),
        guards,
        canary,
        CalledModels(
            slow_calls.embedder(settings, Transport(*of_embedder, behind), fixed.caches),
            _score_cache(
                settings, slow_calls.reranker(settings, Transport(*of_reranker, behind)), fixed.caches, merges=True
            ),
        ),
        models_authority(settings),
    )


@dataclass(frozen=True, slots=True)
class ModelCalls:
    """How the models are called: with which timeouts, in seconds, and on which service tier."""

    embed_timeout: float
    rerank_timeout: float
    tier: CallTier | None

    def embedder(self, settings: ModelSettings, transport: Transport, caches: Caches) -> Embedder:
        return Embedder(
            transport,
            timeout_seconds=self.embed_timeout,
            query_max_chars=settings.query_max_chars,
            vectors=caches.vectors,
            format_=EMBED_FORMATS[settings.embed_api],
            service_tier=self.tier,
        )

    def reranker(self, settings: ModelSettings, transport: Transport) -> Reranker:
        return Reranker(
            transport,
            timeout_seconds=self.rerank_timeout,
            batch_size=settings.rerank_batch_size,
            format_=RERANK_FORMATS[settings.rerank_api],
            service_tier=self.tier,
        )


def _score_cache(settings: ModelSettings, reranker: Reranker, caches: Caches, *, merges: bool = False) -> ScoreCache:
    """Return a cache that shares what is stored with the others, but not the calls in progress."""
    endpoint = rerank_endpoint(settings)
    return ScoreCache(
        reranker, caches.scores, endpoint=endpoint, query_max_chars=settings.query_max_chars, merges=merges
    )


def _front(config: Config, secrets: Secrets, fixed: Fixed, models: ModelClients, callers: CallerIdentities) -> Front:
    searching = Searching(
        config,
        fixed.engine,
        models.embedder,
        models.scores,
        secrets.authorization,
        models=GuardedModels(models.guards, "reranker"),
        switches=fixed.switches,
        meter=fixed.meter,
        rankings=fixed.caches.rankings,
        background=models.background,
    )
    return Front(fixed.upstream, fixed.engine, searching, callers, config.engine.multi_search_reranked)
