"""The proxy put together: which request goes which way, and who does the work.

The only module that knows both the pure core and the doers.
"""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

import structlog

from proxy.bounds import LOG_ID, PARAMETERS_BYTES
from proxy.context import RequestRecord
from proxy.endpoints.answering import Searching, unless_sent
from proxy.endpoints.async_search import AsyncSearches
from proxy.endpoints.front import Front
from proxy.endpoints.multi_search import answer_multi_search
from proxy.endpoints.nodes import answer_nodes
from proxy.endpoints.passthrough import pass_through
from proxy.endpoints.search import answer_search
from proxy.errors import cause_of
from proxy.http1.callers import CallerIdentities, Field, field_value
from proxy.http1.exchange import Exchange, Work
from proxy.http1.headers import Hop, new_pseudonym
from proxy.http1.listener import Listener, Patience, serve
from proxy.http1.messages import BadMessage, RequestHead
from proxy.http1.relay import Upstream, loop_detected
from proxy.outcomes import Bypass
from proxy.settings.config import Config, authorization_of
from proxy.settings.routes import Endpoint, NodesQuestion, Search, build_routes, classify
from proxy.settings.tls import towards_clients
from proxy.telemetry.log import Telemetry, warn_of_new_callers
from proxy.upstream.embedder import Embedder
from proxy.upstream.engine import EngineClient
from proxy.upstream.guard import Guards
from proxy.upstream.nodes import Nodes
from proxy.upstream.reranker import Reranker
from proxy.upstream.transport import Transport, models_session

GRACE_S = 30.0
"""How long running requests may go on after SIGTERM."""

_log = structlog.get_logger("proxy")


class Proxy:
    """Answers every request: a search of a route by its endpoint, everything else by the engine itself."""

    def __init__(self, front: Front, telemetry: Telemetry, published_address: str | None) -> None:
        self.telemetry = telemetry
        self._front = front
        self._published_address = published_address
        self._async_searches = AsyncSearches(front)
        front.upstream.turned_away = self._turned_away

    @property
    def upstream(self) -> Upstream:
        return self._front.upstream

    def handle(self, exchange: Exchange) -> Work | None:
        """Answer one request: by itself where it is handed on, else by what is returned."""
        front, head = self._front, exchange.head
        if self._front.upstream.hop.is_loop(head.control):
            exchange.send(loop_detected(front.upstream.product))
            exchange.client.done(exchange)
            return None
        match classify(head.method, head.target):
            case NodesQuestion() if self._published_address:
                record = exchange.record = record_of(head.fields)
                return self._guarded(exchange, record, answer_nodes(front, exchange, self._published_address))
            case Search() as search if front.searching.routes:
                record = exchange.record = record_of(head.fields)
                return self._guarded(exchange, record, self._search(exchange, record, search))
            case _:
                pass_through(exchange, front.upstream)
                return None

    async def warm_up(self) -> None:
        """Open connections to the models, so that the first searches find them."""
        await self._front.searching.warm_up()

    def _turned_away(self, head: RequestHead, status: int) -> None:
        """Forget a caller whom the engine does not know, or does not allow a search."""
        front = self._front
        if status == 401 or isinstance(classify(head.method, head.target), Search):
            front.engine.forget(front.callers.identity(head.fields))

    async def _search(self, exchange: Exchange, record: RequestRecord, search: Search) -> None:
        if len(search.query_string) > PARAMETERS_BYTES:
            why = Bypass("too_complex", detail="the URL is too long")
            await self._front.bypass(exchange, record.search(), search.indices, why)
            return
        match search.endpoint:
            case Endpoint.SEARCH | Endpoint.TEMPLATE:
                await answer_search(self._front, exchange, record, search)
            case Endpoint.MULTI_SEARCH | Endpoint.MULTI_TEMPLATE:
                await answer_multi_search(self._front, exchange, record, search)
            case Endpoint.ASYNC_SEARCH:
                await self._async_searches.submit(exchange, record, search)
            case Endpoint.ASYNC_ANSWER:
                await self._async_searches.poll(exchange, record, search)

    async def _guarded(self, exchange: Exchange, record: RequestRecord, answering: Work) -> None:
        """Answer a request; where that ends in a defect before anything went out, the engine answers it instead."""
        try:
            await answering
        except (BadMessage, ConnectionError):
            raise
        except Exception as defect:
            if exchange.begun or exchange.relay is not None:
                raise
            _log.exception("internal_error")
            search = record.searches[0] if record.searches else record.search()
            await self._front.respond(
                exchange, search, unless_sent(Bypass("internal_error", detail=cause_of(defect)), record.sent)
            )


def record_of(fields: Sequence[Field]) -> RequestRecord:
    """Begin the record of a request."""
    opaque_id = field_value(fields, b"x-opaque-id")
    return RequestRecord(opaque_id[: 4 * LOG_ID].decode("utf-8", "replace"))


async def open_proxy(config: Config, token: str | None, environment: Mapping[str, str], stack: AsyncExitStack) -> Proxy:
    """Open the connections that a proxy needs; `stack` closes them."""
    nodes = Nodes(config.engine)
    hop = Hop(new_pseudonym() if config.engine.via else None, forwarded_for=config.engine.forwarded_for)
    engine, upstream = EngineClient(config.engine, nodes, hop), Upstream(nodes, hop)
    stack.push_async_callback(engine.close)
    session = await stack.enter_async_context(models_session(config.models.connect_timeout_seconds))
    settings, telemetry = config.models, Telemetry(query_text=config.log.query_text)
    guards = Guards(settings.concurrent_calls, telemetry.count_model_call)
    embedder = Embedder(
        Transport(session, "embedder", settings.url, token, guards),
        timeout_seconds=settings.embed_timeout_seconds,
        query_max_chars=settings.query_max_chars,
        cache_bytes=settings.vector_cache_mb * 2**20,
        service_tier=settings.service_tier,
    )
    reranker = Reranker(
        Transport(session, "reranker", settings.url, token, guards),
        timeout_seconds=settings.rerank_timeout_seconds,
        query_max_chars=settings.query_max_chars,
        batch_size=settings.rerank_batch_size,
        service_tier=settings.service_tier,
    )
    discovery = authorization_of(config, environment)
    searching = Searching(config, engine, embedder, reranker, discovery, pressure=partial(guards.pressure, "reranker"))
    stack.push_async_callback(searching.shadows.close)
    callers = CallerIdentities(config.callers.ignore, warn_of_new_callers)
    front = Front(
        upstream,
        engine,
        searching,
        callers,
        config.engine.multi_search_reranked,
    )
    return Proxy(front, telemetry, config.engine.published_address)


async def listen(
    config: Config,
    token: str | None,
    environment: Mapping[str, str],
    stack: AsyncExitStack,
    *,
    warms_up: bool = False,
) -> Listener:
    """Start a proxy; `stack` stops it, after what is running has ended.

    `warms_up`: open connections to the models beside the start, if there are routes.
    """
    proxy = await open_proxy(config, token, environment, stack)
    if warms_up and config.routes:
        stack.callback(asyncio.ensure_future(proxy.warm_up()).cancel)
    listener = await serve(
        proxy.handle,
        proxy.upstream,
        config.listen.host,
        config.listen.port,
        conclude=proxy.telemetry.conclude,
        tls=towards_clients(config.listen),
        patience=Patience(engine_idle=config.engine.idle_connection_seconds),
    )
    stack.push_async_callback(listener.close, GRACE_S)
    return listener


async def serve_until_told(config: Config, token: str | None, environment: Mapping[str, str]) -> None:
    """Run a proxy until SIGTERM or SIGINT."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _log.warning, "sighup_ignored")
    async with AsyncExitStack() as stack:
        listener = await listen(config, token, environment, stack, warms_up=True)
        scheme = "https" if config.listen.certificate_file else "http"
        _log.info(
            "listening",
            address=f"{scheme}://{config.listen.host}:{listener.port}",
            engine=list(config.engine.urls),
            routes=[route.name for route in build_routes(config)],
        )
        await told.wait()
        _log.info("stopping")
