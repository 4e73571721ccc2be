"""The proxy put together: which request goes which way, and what an error becomes.

The only module that knows both the pure core and the doers.
"""

import asyncio
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from urllib.parse import parse_qsl
from uuid import uuid4

import structlog

from proxy import telemetry
from proxy.callers import Field, carried, field_value, identity
from proxy.config import Config
from proxy.errors import Failure, Malformed, Refused, UpstreamError
from proxy.heads import Heads, head_key
from proxy.http1 import BadMessage
from proxy.indices import (
    Covered,
    IndexFacts,
    Mixed,
    Resolved,
    Unrouted,
    cover,
    is_plain,
    may_concern,
    requested_names,
    route_of,
)
from proxy.listener import Answer, Exchange, Listener, serve
from proxy.media import content, gzipped, not_json
from proxy.passthrough import pass_through
from proxy.pipeline import Answered, Clock, KeptEmpty, Outcome, Stages, run
from proxy.planning import EngineReply, Plan, VectorSearch, vector_search
from proxy.query_text import find_user_query
from proxy.routes import Passthrough, Route, Search, build_routes, classify
from proxy.search_request import Bypass, SearchRequest, parse
from proxy.telemetry import SearchLine, Told
from proxy.upstream.embedder import Embedder
from proxy.upstream.engine import Engine, EngineOfCaller
from proxy.upstream.origin import Origin
from proxy.upstream.reranker import Reranker
from proxy.upstream.transport import Transport, models_session

BODY_MAX = 8 * 2**20
"""Bytes of a search's body that are read at most."""
GRACE_S = 30.0
"""How long running requests may go on after SIGTERM."""

_log = structlog.get_logger("proxy")


@dataclass(slots=True)
class _Journey:
    """What is known of a search while it is on its way, for the line in the log."""

    exchange: Exchange
    begun: float = field(default_factory=time.perf_counter)
    clock: Clock = field(default_factory=Clock)
    route: Route | None = None
    plan: Plan | None = None
    candidates: int = 0


class Proxy:
    """Answers every request: a search of a route by the pipeline, everything else by the engine itself."""

    def __init__(self, config: Config, origin: Origin, engine: Engine, models: "Models") -> None:
        self._config = config
        self._routes = build_routes(config)
        self._origin = origin
        self._engine = engine
        self._models = models
        self._heads = Heads(config.pages.cache_entries, config.pages.cache_seconds)

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        match classify(exchange.head.method, exchange.head.target):
            case Search() as search if self._routes:
                await self._search(exchange, search)
            case Search():
                await pass_through(exchange, self._origin, repeatable=True)
            case Passthrough():
                await pass_through(exchange, self._origin)

    async def _search(self, exchange: Exchange, search: Search) -> None:
        """A defect of this proxy costs a search its better order, never its answer."""
        journey = _Journey(exchange)
        try:
            ending = await self._ending(journey, search)
        except (BadMessage, ConnectionError):
            raise
        except Exception:  # noqa: BLE001  whatever it is, the engine can still answer
            _log.exception("internal_error")
            ending = Bypass("internal_error")
        match ending:
            case Unrouted():
                await pass_through(exchange, self._origin, repeatable=True)
            case Bypass(reason):
                outcome = self._conclude(journey, telemetry.bypassed(reason))
                await pass_through(exchange, self._origin, extra_fields=outcome, repeatable=True)
            case KeptEmpty(reply):
                outcome = self._conclude(journey, telemetry.bypassed("zero_hits"))
                await _answer(exchange, reply, reply.body, outcome)
            case Answered(reply, body, failures, candidates):
                journey.candidates = candidates
                outcome = self._conclude(journey, telemetry.ended(failures))
                await _answer(exchange, reply, body, outcome)

    async def _ending(self, journey: _Journey, search: Search) -> Outcome | Unrouted:
        """Find the search's route, read it, plan it, run it; the first that cannot be done ends it."""
        fields = journey.exchange.head.fields
        goes_along = carried(fields)
        if goes_along is None:
            return Bypass("headers") if self._may_concern(search) else Unrouted()
        caller = self._engine.for_caller(identity(fields), goes_along)
        covered = await self._cover(caller, search)
        if not isinstance(covered, Covered):
            return covered
        journey.route = covered.route
        request = await _read(journey.exchange, search)
        if isinstance(request, Bypass):
            return request
        plan = await self._plan(caller, search, covered, request)
        if isinstance(plan, Bypass):
            return plan
        journey.plan = plan
        return await run(plan, self._models.stages(caller, self._heads), head_key(plan, caller.identity), journey.clock)

    def _may_concern(self, search: Search) -> bool:
        return may_concern(self._routes, requested_names(search.indices))

    async def _cover(self, caller: EngineOfCaller, search: Search) -> Covered | Unrouted | Bypass:
        """Hold the routes against every index that the search reaches for this caller."""
        parameters = tuple(parse_qsl(search.query_string, keep_blank_values=True))
        try:
            resolved = await caller.resolved(search.indices, parameters)
        except Refused as refusal:
            return self._cover_unasked(search, may_not_ask=refusal.status == 403)
        except UpstreamError:
            return self._cover_unasked(search, may_not_ask=False)
        match cover(self._routes, resolved):
            case Mixed():
                return Bypass("mixed_routes")
            case found:
                return found

    def _cover_unasked(self, search: Search, *, may_not_ask: bool) -> Covered | Unrouted | Bypass:
        """Where the engine does not say what a name stands for, a plain one may still be taken by its letters.

        Each hit's own index is held against the route before any of it goes to a model.
        """
        names = requested_names(search.indices)
        route = route_of(self._routes, Resolved(names[0])) if is_plain(names) else None
        if may_not_ask and route is not None:
            return Covered(route, frozenset())
        return Bypass("unresolved") if may_concern(self._routes, names) else Unrouted()

    async def _plan(
        self, caller: EngineOfCaller, search: Search, covered: Covered, request: SearchRequest
    ) -> Plan | Bypass:
        route = covered.route
        facts = await self._facts(caller, covered)
        known = facts or IndexFacts()
        user_query = find_user_query(request.query, route.passage, known.is_text)
        if user_query is None:
            return Bypass("no_query_text")
        if request.end > known.max_result_window:
            return Bypass("depth")
        vectors = vector_search(route, route.semantic, facts) if route.semantic else None
        return Plan(
            indices=search.indices,
            request=request,
            route=route,
            user_query=user_query,
            vectors=vectors if isinstance(vectors, VectorSearch) else None,
            unavailable=vectors if isinstance(vectors, Failure) else None,
            window=min(route.rank_window_size, known.max_result_window),
            covered=covered.indices,
        )

    async def _facts(self, caller: EngineOfCaller, covered: Covered) -> IndexFacts | None:
        """Read the mappings, with the caller's rights or else with those meant for it; None where neither may."""
        indices = covered.indices or frozenset(covered.route.patterns)
        for reader in (caller, self._models.discovery(self._engine)):
            if reader is None:
                continue
            try:
                return await reader.facts(indices)
            except Refused:
                continue
            except (UpstreamError, Malformed):
                return None
        return None

    def _conclude(self, journey: _Journey, ended: Told) -> Sequence[Field]:
        """Write the search's line in the log, and return the headers that say the same."""
        journey.clock.stages["total"] = (time.perf_counter() - journey.begun) * 1000
        plan = journey.plan
        opaque_id = field_value(journey.exchange.head.fields, b"x-opaque-id").decode("utf-8", "replace")
        telemetry.log_search(
            SearchLine(
                id=opaque_id or uuid4().hex,
                route=journey.route.name if journey.route else "",
                told=ended,
                stages=journey.clock.stages,
                window=plan.window if plan else 0,
                candidates=journey.candidates,
                query=plan.user_query.text if plan and self._config.log.query_text else None,
            ),
        )
        return telemetry.fields_of(ended, journey.clock.stages)


async def _read(exchange: Exchange, search: Search) -> SearchRequest | Bypass:
    """Read the body, if it is one that can be read here."""
    body = await exchange.read_body(BODY_MAX)
    if body is None:
        return Bypass("too_large")
    fields = exchange.head.fields
    if problem := not_json(fields, has_body=bool(body)):
        return problem
    inflated = content(fields, body, BODY_MAX)
    return inflated if isinstance(inflated, Bypass) else parse(search.query_string, inflated)


# Said anew for a body that was written anew.
_OF_THE_BODY = frozenset((b"content-length", b"content-encoding", b"transfer-encoding", b"connection", b"keep-alive"))


async def _answer(exchange: Exchange, reply: EngineReply, body: bytes, outcome: Sequence[Field]) -> None:
    """Send the engine's answer with another body: its own headers, compressed if it was."""
    kept = [(name, value) for name, value in reply.fields if name.lower() not in _OF_THE_BODY]
    if reply.compressed:
        kept.append((b"content-encoding", b"gzip"))
        body = await asyncio.to_thread(gzipped, body) if len(body) > 2**18 else gzipped(body)
    await exchange.answer(Answer(200, [*kept, *outcome], body))


class Models:
    """The models' provider, and the proxy's own rights to read mappings."""

    def __init__(self, config: Config, embedder: Embedder, reranker: Reranker, environment: Mapping[str, str]) -> None:
        self._config = config
        self._embedder = embedder
        self._reranker = reranker
        named = config.engine.authorization_env
        self._discovery = environment.get(named) if named else None

    def stages(self, caller: EngineOfCaller, heads: Heads) -> Stages:
        return Stages(caller, self._embedder, self._reranker, heads, self._config.models.passage_max_chars)

    def discovery(self, engine: Engine) -> EngineOfCaller | None:
        if not self._discovery:
            return None
        return engine.for_caller(b"discovery", (("Authorization", self._discovery),))


async def open_proxy(config: Config, token: str | None, environment: Mapping[str, str], stack: AsyncExitStack) -> Proxy:
    """Open the connections that a proxy needs; `stack` closes them."""
    engine, origin = Engine(config.engine), Origin(config.engine)
    stack.push_async_callback(engine.close)
    stack.callback(origin.close)
    stack.push_async_callback(origin.finish, GRACE_S)
    session = await stack.enter_async_context(models_session(config.models.connect_timeout_seconds))
    settings = config.models
    embedder = Embedder(
        Transport(session, "embedder", settings.url, token),
        timeout_seconds=settings.embed_timeout_seconds,
        query_max_chars=settings.query_max_chars,
        cache_entries=settings.vector_cache_entries,
    )
    reranker = Reranker(
        Transport(session, "reranker", settings.url, token),
        timeout_seconds=settings.rerank_timeout_seconds,
        query_max_chars=settings.query_max_chars,
    )
    return Proxy(config, origin, engine, Models(config, embedder, reranker, environment))


async def listen(config: Config, token: str | None, environment: Mapping[str, str], stack: AsyncExitStack) -> Listener:
    """Start a proxy; `stack` stops it, after what is running has ended."""
    proxy = await open_proxy(config, token, environment, stack)
    listener = await serve(proxy.handle, config.listen.host, config.listen.port)
    stack.push_async_callback(listener.close, GRACE_S)
    return listener


async def serve_until_told(config: Config, token: str | None, environment: Mapping[str, str]) -> None:
    """Run a proxy until SIGTERM or SIGINT."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with AsyncExitStack() as stack:
        listener = await listen(config, token, environment, stack)
        _log.info(
            "listening",
            address=f"http://{config.listen.host}:{listener.port}",
            engine=list(config.engine.urls),
            routes=[route.name for route in build_routes(config)],
        )
        await told.wait()
        _log.info("stopping")
