"""The proxy put together: which request goes which way, and who does the work.

The only module that knows both the pure core and the doers.
"""

import asyncio
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack

import structlog

from proxy import telemetry
from proxy.bounds import PARAMETERS_BYTES
from proxy.bypass import Bypass
from proxy.config import Config, authorization_of
from proxy.endpoints.asynchronous import AsyncSearches
from proxy.endpoints.front import Front
from proxy.endpoints.multi import answer_multi_search
from proxy.endpoints.nodes import answer_nodes
from proxy.endpoints.single import answer_search
from proxy.http1.callers import Callers
from proxy.http1.exchange import Exchange, Work
from proxy.http1.headers import Hop, new_pseudonym
from proxy.http1.listener import Listener, Patience, serve
from proxy.http1.relay import Upstream, loop_detected
from proxy.passthrough import pass_through
from proxy.routes import Endpoint, NodesQuestion, Search, build_routes, classify
from proxy.searching import Searching
from proxy.tls import towards_clients
from proxy.upstream.embedder import Embedder
from proxy.upstream.engine import Engine
from proxy.upstream.nodes import Nodes
from proxy.upstream.reranker import Reranker
from proxy.upstream.transport import Transport, models_session

GRACE_S = 30.0
"""How long running requests may go on after SIGTERM."""

_log = structlog.get_logger("proxy")


class Proxy:
    """Answers every request: a search of a route by its endpoint, everything else by the engine itself."""

    def __init__(self, front: Front, published_address: str | None) -> None:
        self._front = front
        self._published_address = published_address
        self._async_searches = AsyncSearches(front)

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
                return answer_nodes(front, exchange, self._published_address)
            case Search() as search if front.searching.routes:
                return self._search(exchange, search)
            case _:
                pass_through(exchange, front.upstream)
                return None

    async def _search(self, exchange: Exchange, search: Search) -> None:
        if len(search.query_string) > PARAMETERS_BYTES:
            await self._front.leave(exchange, search.indices, Bypass("too_complex", detail="the URL is too long"))
            return
        match search.endpoint:
            case Endpoint.SEARCH | Endpoint.TEMPLATE:
                await answer_search(self._front, exchange, search)
            case Endpoint.MULTI_SEARCH | Endpoint.MULTI_TEMPLATE:
                await answer_multi_search(self._front, exchange, search)
            case Endpoint.ASYNC_SEARCH:
                await self._async_searches.submit(exchange, search)
            case Endpoint.ASYNC_ANSWER:
                await self._async_searches.poll(exchange, search)


async def open_proxy(config: Config, token: str | None, environment: Mapping[str, str], stack: AsyncExitStack) -> Proxy:
    """Open the connections that a proxy needs; `stack` closes them."""
    nodes = Nodes(config.engine)
    hop = Hop(new_pseudonym() if config.engine.via else None, forwarded_for=config.engine.forwarded_for)
    engine, upstream = Engine(config.engine, nodes, hop), Upstream(nodes, hop)
    stack.push_async_callback(engine.close)
    session = await stack.enter_async_context(models_session(config.models.connect_timeout_seconds))
    settings = config.models
    embedder = Embedder(
        Transport(session, "embedder", settings.url, token),
        timeout_seconds=settings.embed_timeout_seconds,
        query_max_chars=settings.query_max_chars,
        cache_bytes=settings.vector_cache_mb * 2**20,
    )
    reranker = Reranker(
        Transport(session, "reranker", settings.url, token),
        timeout_seconds=settings.rerank_timeout_seconds,
        query_max_chars=settings.query_max_chars,
    )
    searching = Searching(config, engine, embedder, reranker, authorization_of(config, environment))
    callers = Callers(config.callers.ignore, telemetry.warn_of_new_callers)
    front = Front(
        upstream,
        engine,
        searching,
        callers,
        config.log.query_text,
        config.engine.multi_search_reranked,
        config.engine.added_timeout_seconds,
    )
    return Proxy(front, config.engine.published_address)


async def listen(config: Config, token: str | None, environment: Mapping[str, str], stack: AsyncExitStack) -> Listener:
    """Start a proxy; `stack` stops it, after what is running has ended."""
    proxy = await open_proxy(config, token, environment, stack)
    listener = await serve(
        proxy.handle,
        proxy.upstream,
        config.listen.host,
        config.listen.port,
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
        listener = await listen(config, token, environment, stack)
        scheme = "https" if config.listen.certificate_file else "http"
        _log.info(
            "listening",
            address=f"{scheme}://{config.listen.host}:{listener.port}",
            engine=list(config.engine.urls),
            routes=[route.name for route in build_routes(config)],
        )
        await told.wait()
        _log.info("stopping")
