"""The engine for loading, through the official Python client of Elasticsearch or OpenSearch.

There are two because Elasticsearch's client refuses other products. Everything that differs is in this module.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from typing import Any, Protocol

import msgspec
import opensearchpy
from elastic_transport.client_utils import DEFAULT
from elasticsearch import ApiError, AsyncElasticsearch, TransportError
from elasticsearch.helpers import async_streaming_bulk as elasticsearch_bulk
from opensearchpy.helpers import async_streaming_bulk as opensearch_bulk

from proxy.catalog.dialects import EngineKind
from proxy.commands.loading.errors import CannotLoad
from proxy.commands.loading.mappings import SPELLINGS, Spelling
from proxy.errors import Refused, TimedOut, Unreachable, UpstreamError
from proxy.settings.config import Config, Engine
from proxy.settings.tls import towards_engine
from proxy.upstream.engine import EngineClient as UpstreamEngine
from proxy.upstream.engine import EngineOfCaller

Action = dict[str, Any]
"""One document of a bulk request, as the clients' helpers take it."""
Outcome = Mapping[str, Any]
"""The engine's result for one document."""

TOO_LARGE = 413
_SERVICE = "engine"
_TIMEOUT_S = 120
_RETRIES = 3
_BULK: Mapping[str, Any] = {
    "chunk_size": 500,
    "max_chunk_bytes": 10 * 2**20,
    "max_retries": 12,
    "initial_backoff": 0.5,
    "max_backoff": 30,
    "raise_on_error": False,
    "raise_on_exception": False,
}


class EngineApi(Protocol):
    """An open client of the engine. All its errors are UpstreamErrors."""

    @property
    def kind(self) -> EngineKind:
        """The engine and its version."""

    @property
    def spelling(self) -> Spelling:
        """The mapping syntax of this engine."""

    async def ask(
        self, method: str, path: str, body: Any = None, parameters: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """Send one request; raises Refused for an error status."""

    def bulk(self, actions: AsyncIterable[Action]) -> AsyncGenerator[tuple[bool, Outcome]]:
        """Write documents, with retries while the engine is busy; yields the outcome of each, in any order.

        Raises UpstreamError if the engine rejects a whole request, unless it is too large.
        """

    async def close(self) -> None: ...


class ElasticsearchClient:
    """Elasticsearch through elasticsearch-py."""

    spelling = SPELLINGS["elasticsearch"]

    def __init__(self, settings: Engine, headers: Mapping[str, str], kind: EngineKind) -> None:
        self.kind = kind
        self._client = AsyncElasticsearch(
            list(settings.urls),
            headers=headers,
            request_timeout=_TIMEOUT_S,
            retry_on_timeout=True,
            retry_on_status=(),  # `ask_engine` retries while the engine is busy
            max_retries=_RETRIES,
            http_compress=True,
            ssl_context=towards_engine(settings) or DEFAULT,
        )

    async def ask(
        self, method: str, path: str, body: Any = None, parameters: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        headers = {"accept": "application/json"} | ({"content-type": "application/json"} if body is not None else {})
        try:
            answer = await self._client.perform_request(method, path, params=parameters, headers=headers, body=body)
        except (ApiError, TransportError) as error:
            raise _of_elasticsearch(error) from error
        found: Mapping[str, Any] = answer.body
        return found

    async def bulk(self, actions: AsyncIterable[Action]) -> AsyncGenerator[tuple[bool, Outcome]]:
        try:
            async for ok, outcome in elasticsearch_bulk(self._client, actions, **_BULK):
                (said,) = outcome.values()
                _raise_for_all(said, _of_elasticsearch)
                yield ok, said
        except TransportError as error:
            raise _of_elasticsearch(error) from error

    async def close(self) -> None:
        await self._client.close()


def _of_elasticsearch(error: ApiError | TransportError) -> UpstreamError:
    match error:
        case ApiError(status_code=status, body=body):
            return Refused(_SERVICE, status, msgspec.json.encode(body))
        case TransportError(message=message):
            return Unreachable(_SERVICE, message)


class OpenSearchClient:
    """OpenSearch through opensearch-py."""

    spelling = SPELLINGS["opensearch"]

    def __init__(self, settings: Engine, headers: Mapping[str, str], kind: EngineKind) -> None:
        self.kind = kind
        logging.getLogger("opensearch").setLevel(logging.CRITICAL)  # it logs a line for each error response
        self._client = opensearchpy.AsyncOpenSearch(
            list(settings.urls),
            headers=dict(headers),
            timeout=_TIMEOUT_S,
            retry_on_timeout=True,
            retry_on_status=(),
            max_retries=_RETRIES,
            http_compress=True,
            ssl_context=towards_engine(settings),
        )

    async def ask(
        self, method: str, path: str, body: Any = None, parameters: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        try:
            found: Mapping[str, Any] = await self._client.transport.perform_request(
                method, path, params=dict(parameters or {}), body=body
            )
        except opensearchpy.TransportError as error:
            raise _of_opensearch(error) from error
        return found

    async def bulk(self, actions: AsyncIterable[Action]) -> AsyncGenerator[tuple[bool, Outcome]]:
        async for ok, outcome in opensearch_bulk(self._client, actions, **_BULK):
            (said,) = outcome.values()
            _raise_for_all(said, _of_opensearch)
            yield ok, said

    async def close(self) -> None:
        await self._client.close()


def _of_opensearch(error: opensearchpy.TransportError) -> UpstreamError:
    match error:
        case opensearchpy.ConnectionTimeout():
            return TimedOut(_SERVICE, f"no answer in {_TIMEOUT_S} s")
        case opensearchpy.ConnectionError():
            return Unreachable(_SERVICE, str(error.info))
        case _:
            return Refused(_SERVICE, int(error.status_code), msgspec.json.encode(error.info))


def _raise_for_all(said: Outcome, translated: Callable[[Any], UpstreamError]) -> None:
    """Raise the error of a whole request, which the helpers report for each of its documents."""
    if "exception" in said and said["status"] != TOO_LARGE:
        raise translated(said["exception"])


_CLIENTS: Mapping[str, Callable[[Engine, Mapping[str, str], EngineKind], EngineApi]] = {
    "elasticsearch": ElasticsearchClient,
    "opensearch": OpenSearchClient,
}


async def open_client(config: Config, authorization: str | None) -> EngineApi:
    """Open a client for the engine at `engine.url`, with the proxy's own credentials.

    Raises UpstreamError, and CannotLoad if it is another product.
    """
    headers = {"Authorization": authorization} if authorization else {}
    engine = UpstreamEngine(config.engine)
    try:
        kind = await _kind(engine.for_caller(b"load", tuple(headers.items())))
    finally:
        await engine.close()
    if kind.product not in _CLIENTS:
        raise CannotLoad(
            f"the server at engine.url is {kind.product}: documents can be loaded into {' and '.join(_CLIENTS)}"
        )
    return _CLIENTS[kind.product](config.engine, headers, kind)


async def _kind(caller: EngineOfCaller) -> EngineKind:
    """Return the engine's kind; if the caller may not read it, take it from the headers of another response."""
    kind = await caller.kind()
    if kind is None:
        await caller.resolved("_all", ())
        kind = await caller.kind()
    return kind or EngineKind("no known engine")
