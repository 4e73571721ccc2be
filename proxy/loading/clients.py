"""The engine as a load asks it: by the client that its makers wrote, Elasticsearch's or OpenSearch's.

Elasticsearch's refuses every other product, so there are two. All that differs between them is in this module.
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

from proxy.config import Config, Engine
from proxy.errors import Refused, TimedOut, Unreachable, UpstreamError
from proxy.loading.errors import CannotLoad
from proxy.loading.mappings import SPELLINGS, Spelling
from proxy.tls import towards_engine
from proxy.upstream.engine import Engine as UpstreamEngine
from proxy.upstream.engine import EngineOfCaller

Action = dict[str, Any]
"""One document of a bulk request, in the words of the clients' helpers."""
Outcome = Mapping[str, Any]
"""What the engine says of one."""

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


class Client(Protocol):
    """An engine, open. Whatever goes wrong is an UpstreamError."""

    @property
    def spelling(self) -> Spelling:
        """How this engine spells a mapping."""

    async def ask(
        self, method: str, path: str, body: Any = None, parameters: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """Send one request; raises Refused for every status that is an error."""

    def bulk(self, actions: AsyncIterable[Action]) -> AsyncGenerator[tuple[bool, Outcome]]:
        """Write documents, again those the engine is too busy for; what became of each, in no order.

        Raises UpstreamError where the engine refuses all of a request, but for its size.
        """

    async def close(self) -> None: ...


class ElasticsearchClient:
    """By elasticsearch-py."""

    spelling = SPELLINGS["elasticsearch"]

    def __init__(self, settings: Engine, headers: Mapping[str, str]) -> None:
        self._client = AsyncElasticsearch(
            list(settings.urls),
            headers=headers,
            request_timeout=_TIMEOUT_S,
            retry_on_timeout=True,
            retry_on_status=(),  # what is busy is asked again by `ask_engine`
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
    """By opensearch-py."""

    spelling = SPELLINGS["opensearch"]

    def __init__(self, settings: Engine, headers: Mapping[str, str]) -> None:
        logging.getLogger("opensearch").setLevel(logging.CRITICAL)  # it writes a line for each answer with an error
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
    """Raise what went wrong with a whole request, which the helpers say of each of its documents."""
    if "exception" in said and said["status"] != TOO_LARGE:
        raise translated(said["exception"])


_CLIENTS: Mapping[str, Callable[[Engine, Mapping[str, str]], Client]] = {
    "elasticsearch": ElasticsearchClient,
    "opensearch": OpenSearchClient,
}


async def open_client(config: Config, authorization: str | None) -> Client:
    """Open the client of the engine that answers there, with the rights meant for a load.

    Raises UpstreamError, and CannotLoad where it is another product.
    """
    headers = {"Authorization": authorization} if authorization else {}
    engine = UpstreamEngine(config.engine)
    try:
        product = await _product(engine.for_caller(b"load", tuple(headers.items())))
    finally:
        await engine.close()
    if product not in _CLIENTS:
        raise CannotLoad(f"{product} answers there: documents are loaded into {' and '.join(_CLIENTS)}")
    return _CLIENTS[product](config.engine, headers)


async def _product(caller: EngineOfCaller) -> str:
    """Ask which engine it is; who may not ask that is told by the headers of an answer they may have."""
    kind = await caller.kind()
    if kind is None:
        await caller.resolved("_all", ())
        kind = await caller.kind()
    return kind.product if kind else "no known engine"
