"""Assembles the proxy: creates its parts from the settings, and dispatches each request to an endpoint.

The only package that imports both the pure core and the clients of the services.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import structlog

from proxy.app.generation import Fixed, Generation, first_generation, secrets_with
from proxy.bounds import LOG_ID
from proxy.context import Access, RequestRecord
from proxy.context.tracing import Trace, begin_trace, current_trace, trace_id_of
from proxy.endpoints.answering import unless_sent
from proxy.endpoints.front import Front
from proxy.endpoints.multi_search import answer_multi_search
from proxy.endpoints.nodes import answer_nodes
from proxy.endpoints.passthrough import pass_through
from proxy.endpoints.search import answer_search
from proxy.endpoints.turns import requester
from proxy.errors import cause_of
from proxy.http1.callers import Field, field_value
from proxy.http1.exchange import Exchange, Work
from proxy.http1.framing import BadMessage
from proxy.http1.headers import Hop, new_pseudonym
from proxy.http1.listener import Listener, Patience, serve
from proxy.http1.messages import RequestHead
from proxy.http1.relay import Upstream, loop_detected
from proxy.outcomes import Bypass
from proxy.parsing.decoding import unreadable
from proxy.settings.config import Config, TraceSettings, percent
from proxy.settings.credentials import cache_secrets_of
from proxy.settings.routes import Endpoint, NodesQuestion, Search, classify
from proxy.settings.tls import towards_clients
from proxy.settings.yaml_file import ConfigError
from proxy.store.opening import open_caches
from proxy.telemetry.log import ExportsTraces, Telemetry
from proxy.telemetry.metrics import Metrics
from proxy.upstream.engine import EngineClient
from proxy.upstream.held import Held, held_for_request
from proxy.upstream.nodes import Nodes
from proxy.upstream.spares import Spares
from proxy.upstream.spending.meter import Meter
from proxy.upstream.threads import apart

GRACE_S = 30.0
"""Seconds that running requests may take to finish after SIGTERM."""

_log = structlog.get_logger("proxy")


class Proxy:
    """Answers every request: searches of routes by an endpoint, everything else by passing it through."""

    def __init__(self, fixed: Fixed, generation: Generation) -> None:
        self.fixed = fixed
        self.telemetry = fixed.telemetry
        self.upstream = fixed.upstream
        self._generation = generation
        self._retired: list[Generation] = []
        self._closing: asyncio.Task[None] | None = None
        self._held = Held()
        self.upstream.turned_away = self._turned_away

    @property
    def generation(self) -> Generation:
        """The generation that answers new requests."""
        return self._generation

    def replace(self, successor: Generation) -> None:
        """Use another generation for new requests; running requests finish with their own."""
        self._retired.append(self._generation)
        self._generation = successor
        self.telemetry.query_text = successor.config.log.query_text
        self._close_retired()

    def handle(self, exchange: Exchange) -> Work | None:
        """Answer a request or pass it through; returns the work to await, if any."""
        generation, head = self._generation, exchange.head
        if generation.logs_access or self.telemetry.traces is not None:
            method, target = head.method.decode(), head.target.decode("latin-1")
            exchange.record = record_of(head.fields, Access(method, target, generation.logs_access))
            exchange.record.trace = self._trace(method, head)
        if self.upstream.hop.is_loop(head.control):
            exchange.send(loop_detected(self.upstream.product))
            exchange.client.done(exchange)
            return None
        match classify(head.method, head.target):
            case NodesQuestion() if generation.published_address:
                return self._guarded(exchange, partial(self._nodes, exchange, generation.published_address))
            case Search() as search if generation.front.searching.routes:
                return self._guarded(exchange, partial(self._search, exchange, search))
            case _:
                pass_through(exchange, self.upstream)
                return None

    def _trace(self, method: str, head: RequestHead) -> Trace | None:
        traces = self.telemetry.traces
        if traces is None:
            return None
        return begin_trace(method, field_value(head.fields, b"traceparent").decode("latin-1"), traces.share)

    def warm_up(self, stack: AsyncExitStack) -> None:
        """Open connections to the models in the background, so that the first searches need not wait for them."""
        searching = self._generation.front.searching
        if searching.routes:
            stack.callback(asyncio.ensure_future(searching.warm_up()).cancel)

    def _turned_away(self, exchange: Exchange, status: int) -> None:
        """Delete what is cached for a caller whose credentials the engine rejects, or who may not search."""
        front, head = self._generation.front, exchange.head
        if status == 401 or isinstance(classify(head.method, head.target), Search):
            front.engine.forget(front.callers.identity(front.fields(exchange)))

    @staticmethod
    async def _nodes(exchange: Exchange, published_address: str, generation: Generation, _: RequestRecord) -> None:
        await answer_nodes(generation.front, exchange, published_address)

    async def _search(self, exchange: Exchange, search: Search, generation: Generation, record: RequestRecord) -> None:
        front = generation.front
        if why := unreadable(search.query_string):
            await front.bypass(exchange, record.search(), search, why)
            return
        match search.endpoint:
            case Endpoint.SEARCH | Endpoint.TEMPLATE:
                await answer_search(front, exchange, record, search)
            case Endpoint.MULTI_SEARCH | Endpoint.MULTI_TEMPLATE:
                await answer_multi_search(front, exchange, record, search)
            case Endpoint.ASYNC_SEARCH:
                await generation.async_searches.submit(exchange, record, search)
            case Endpoint.ASYNC_ANSWER:
                await generation.async_searches.poll(exchange, record, search)

    async def _guarded(self, exchange: Exchange, answer: Callable[[Generation, RequestRecord], Work]) -> None:
        """Answer a request; after an error in the proxy, the engine answers if nothing was sent to the client yet."""
        generation = self._generation
        record = exchange.record = exchange.record or record_of(exchange.head.fields)
        current_trace.set(record.trace)  # of this task, which is that of this request
        requester.set(exchange)
        try:
            with generation.request(), held_for_request(self._held, partial(_is_unread, exchange)):
                await self._answered(generation.front, exchange, record, answer(generation, record))
        finally:
            self._close_retired()

    async def _answered(self, front: Front, exchange: Exchange, record: RequestRecord, answering: Work) -> None:
        try:
            await answering
        except (BadMessage, ConnectionError):
            raise
        except Exception as defect:
            if exchange.begun or exchange.relay is not None:
                raise
            _log.exception("internal_error")
            search = record.searches[0] if record.searches else record.search()
            await front.respond(
                exchange, search, unless_sent(Bypass("internal_error", detail=cause_of(defect)), record.sent)
            )

    def _close_retired(self) -> None:
        """Close earlier generations without running requests, oldest first, because later ones may use their parts."""
        idle = self._closing is None or self._closing.done()
        if self._retired and not self._retired[0].running and idle:
            self._closing = asyncio.get_running_loop().create_task(self._close_eldest())

    async def _close_eldest(self) -> None:
        while self._retired and not self._retired[0].running:
            await self._retired.pop(0).close()

    async def close(self) -> None:
        """Close all generations."""
        if self._closing is not None:
            await self._closing
        for generation in (*self._retired, self._generation):
            await generation.close()
        self._retired.clear()


def _is_unread(exchange: Exchange) -> bool:
    """Whether the client has not yet read most of the response."""
    return exchange.client.paused and not exchange.client.ended


def record_of(fields: Sequence[Field], access: Access | None = None) -> RequestRecord:
    """Create the record of a request."""
    opaque_id = field_value(fields, b"x-opaque-id")
    trace_id = trace_id_of(field_value(fields, b"traceparent").decode("latin-1"))
    return RequestRecord(opaque_id[: 4 * LOG_ID].decode("utf-8", "replace"), trace_id=trace_id, access=access)


async def open_proxy(
    config: Config,
    token: str | None,
    environment: Mapping[str, str],
    stack: AsyncExitStack,
    telemetry: Telemetry | None = None,
) -> Proxy:
    """Create a proxy with its connections; `stack` closes them."""
    nodes = Nodes(config.engine)
    stack.callback(nodes.close)
    hop = Hop(new_pseudonym() if config.engine.via else None, forwarded_for=config.engine.forwarded_for)
    telemetry = telemetry or Telemetry(query_text=config.log.query_text)
    telemetry.traces = _open_traces(config.traces, telemetry.metrics, stack)
    caches = open_caches(config.cache, cache_secrets_of(config, environment), stack)
    meter = Meter(Path(config.spend.file) if config.spend.file else None)
    await apart(meter.read)
    stack.push_async_callback(meter.save_last)
    engine = EngineClient(config.engine, nodes, hop)
    spares = Spares(nodes)
    stack.callback(spares.drop)
    fixed = Fixed(nodes, spares, engine, Upstream(spares, hop), telemetry, caches, meter=meter)
    stack.push_async_callback(fixed.engine.close)
    secrets = secrets_with(config, token, environment)
    proxy = Proxy(fixed, await first_generation(config, secrets, fixed))
    stack.push_async_callback(proxy.close)
    return proxy


def _open_traces(settings: TraceSettings, metrics: Metrics, stack: AsyncExitStack) -> ExportsTraces | None:
    """Begin to export traces if the settings name a collector; raises ConfigError without the extra for it."""
    if settings.url is None:
        return None
    try:
        from proxy.telemetry.traces import Traces  # noqa: PLC0415  its packages are an extra
    except ImportError as error:
        raise ConfigError(f"traces.url needs OpenTelemetry, which is not installed ({error.name}): {_OTEL}") from error
    traces = Traces(settings.url, percent(settings.share) / 100, metrics.exported)
    stack.push_async_callback(traces.close)
    return traces


_OTEL = "pip install -c constraints.txt '.[otel]' in a checkout of this project"


async def listen(
    config: Config,
    token: str | None,
    environment: Mapping[str, str],
    stack: AsyncExitStack,
    *,
    warms_up: bool = False,
) -> Listener:
    """Start a proxy; `stack` stops it after the running requests have finished.

    `warms_up`: if there are routes, also open connections to the models.
    """
    proxy = await open_proxy(config, token, environment, stack)
    if warms_up:
        proxy.warm_up(stack)
    return await listen_for(proxy, stack)


async def listen_for(proxy: Proxy, stack: AsyncExitStack) -> Listener:
    """Open the proxy's port; `stack` closes it after the running requests have finished."""
    config = proxy.generation.config
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
