"""Sends one request to a model provider, reads its response within limits; every failure becomes an UpstreamError."""

import asyncio
import select
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import TypeVar
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

from proxy.bounds import INFLATED_BYTES_A_TURN, MODEL_RESPONSE_BYTES
from proxy.context.tracing import client_span
from proxy.errors import (
    Lost,
    Malformed,
    Refused,
    TimedOut,
    TooLarge,
    Unreachable,
    UpstreamError,
    connection_error,
)
from proxy.ranking.stages import UNMETERED, Payment, Purse
from proxy.settings.config import Models
from proxy.settings.tls import towards_models
from proxy.upstream.guard import Guards
from proxy.upstream.provider_errors import inner_status, message_of
from proxy.upstream.retries import reason_of

DNS_CACHE_S = 60
"""How long a provider's addresses are cached, so that a new connection need not wait for the resolver."""

WARM_UP_S = 10.0
"""Timeout of the warm-up request; its connection can be reused only after the response."""

_T = TypeVar("_T")
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Transport:
    """A provider's URL and token; the token is sent to that URL only.

    With `guards`, each model has a circuit breaker, a limit of concurrent calls, and at most one retry per call.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        service: str,
        base_url: str,
        token: str | None,
        guards: Guards | None = None,
    ) -> None:
        self.service = service
        self._session = session
        self._token = token
        self._guards = guards
        self.url = base_url.rstrip("/")
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def __repr__(self) -> str:
        return f"Transport({self.service}, {self.url})"

    async def warm_up(self) -> None:
        """Open a connection for the first search, with a request without the token; errors are ignored."""
        with suppress(aiohttp.ClientError, TimeoutError):
            async with (
                asyncio.timeout(WARM_UP_S),
                self._session.head(self.url + "/", allow_redirects=False) as response,
            ):
                await response.read()

    def reject_if_late(self, model: str, seconds: float, *, is_new: bool = True) -> UpstreamError | None:
        """Return the error of a search with too little time left: see `Guard.reject_if_late`."""
        if self._guards is None or seconds <= 0:
            return None
        return self._guards.of(self.service, model).reject_if_late(seconds, is_new=is_new)

    def withheld(self, model: str) -> UpstreamError | None:
        """Return why a model is not called at present: see `Guard.withheld`."""
        return self._guards.of(self.service, model).withheld() if self._guards is not None else None

    def not_called(self, model: str, why: UpstreamError) -> None:
        """Count a call that a search did not make."""
        if self._guards is not None:
            self._guards.of(self.service, model).not_called(why)

    def abandoned(self, model: str, seconds: float) -> None:
        """Record the time after which a search gave up waiting for a model."""
        if self._guards is not None:
            self._guards.of(self.service, model).abandoned(seconds)

    async def ask(  # noqa: PLR0913  a request, and how its response is read
        self,
        path: str,
        body: bytes,
        timeout_seconds: float,
        read: Callable[[bytes], _T],
        response_bytes: int,
        *,
        model: str,
        is_typical: bool = True,
        purse: Purse = UNMETERED,
        tokens: float = 0.0,
    ) -> _T:
        """Send a body and decode the response; raises UpstreamError, Malformed if the response cannot be decoded.

        `is_typical`: see `Guard.call`. `tokens`: as estimated, for the cost that is reserved in the purse; raises
        CapReached.
        """
        with purse.pay(model, tokens) as payment:

            async def attempt(seconds: float) -> _T:
                with client_span(self.service, {"rerank.model": model}) as headers, _charged(payment):
                    content = await self.post(path, body, seconds, response_bytes, headers)
                    found = self._read(content, read)
                    payment.answered(content)
                    return found

            if self._guards is None:
                return await attempt(timeout_seconds)
            return await self._guards.of(self.service, model).call(attempt, timeout_seconds, is_typical=is_typical)

    def _read(self, content: bytes, read: Callable[[bytes], _T]) -> _T:
        """Decode a response with status 200.

        All responses of models are decoded here, so that an unexpected one is reported as Malformed, and not as an
        error in the proxy.
        """
        try:
            return read(content)
        except Malformed:
            if (status := inner_status(content)) is not None:
                raise self._refused(status, content) from None
            raise
        except UpstreamError:
            raise
        except Exception as error:
            raise Malformed(self.service, f"a response that cannot be read: {error!r:.200}") from error

    def _refused(self, status: int, content: bytes, fields: Iterable[tuple[bytes, bytes]] = ()) -> Refused:
        message = message_of(content, self._token)
        return Refused(self.service, status, content, tuple(fields), reason=reason_of(status), message=message)

    async def post(
        self,
        path: str,
        body: bytes,
        timeout_seconds: float,
        response_bytes: int = MODEL_RESPONSE_BYTES,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> bytes:
        """Send a body once; raises Unreachable, Lost, TimedOut, Malformed, or Refused for every status but 200.

        Redirects are not followed, because they would send the token to another host.
        """
        begun = False
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                self._session.post(
                    self.url + path, data=body, headers={**self._headers, **headers}, allow_redirects=False
                ) as response,
            ):
                begun = True
                content = await _content(self.service, response, response_bytes)
        except aiohttp.ConnectionTimeoutError as error:
            raise Unreachable(self.service, f"{self.url}: no connection in time") from error
        except TimeoutError as error:
            raise TimedOut(self.service, f"no answer in {timeout_seconds:.2g} s") from error
        except aiohttp.ClientResponseError as error:
            raise Malformed(self.service, f"{self.url}: no HTTP response: {error.message:.100}") from error
        except aiohttp.ClientError as error:
            lost = Lost if begun else Unreachable
            raise lost(self.service, f"{self.url}: {connection_error(error)}") from error
        if response.status != 200:
            raise self._refused(response.status, content, response.raw_headers)
        return content


@contextmanager
def _charged(payment: Payment) -> Iterator[None]:
    """Count a call that is sent in the block as charged, unless it was rejected or did not arrive."""
    payment.sent()
    try:
        yield
    except Lost:
        raise
    except (Refused, Unreachable):
        payment.free()
        raise


async def _content(service: str, response: aiohttp.ClientResponse, at_most: int) -> bytes:
    """Read a response to its end; raises TooLarge, and Malformed if it has a compression that was not requested."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in {"", "identity", "gzip"}:
        raise Malformed(service, "a response compressed in another way than gzip")
    received = _counted(service, response.content.iter_any(), at_most)
    if encoding == "gzip":
        received = _counted(service, _inflated(service, received), at_most)
    return b"".join([piece async for piece in received])


async def _counted(service: str, pieces: AsyncIterator[bytes], at_most: int) -> AsyncIterator[bytes]:
    """Yield the chunks of a response; raises TooLarge at the limit."""
    total = 0
    async for piece in pieces:
        total += len(piece)
        if total > at_most:
            raise TooLarge(service, f"a response of more than {at_most} bytes")
        yield piece


async def _inflated(service: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Decompress in steps between which other tasks run: a small chunk may expand to a very large one."""
    inflating = zlib.decompressobj(wbits=31)
    async for piece in pieces:
        remaining = piece
        while remaining:
            try:
                yield inflating.decompress(remaining, INFLATED_BYTES_A_TURN)
            except zlib.error as error:
                raise Malformed(service, f"a response that is not gzip: {error}") from error
            remaining = inflating.unconsumed_tail
            await asyncio.sleep(0)
    if not inflating.eof:
        raise Malformed(service, "a response whose gzip ends too early")


class _Connections(aiohttp.TCPConnector):
    """Persistent connections; aiohttp takes bytes that arrive between two calls for the response to the next one."""

    def __init__(self, *, tls: ssl.SSLContext | None) -> None:
        super().__init__(limit=0, keepalive_timeout=60, ttl_dns_cache=DNS_CACHE_S, ssl=tls or True)
        self._kept: WeakSet[asyncio.BaseProtocol] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  aiohttp's own signature
    ) -> aiohttp.connector.Connection:
        """Return a connection that is new, or on which nothing has arrived since its last response."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None or protocol not in self._kept or not _is_out_of_step(protocol):
                if protocol is not None:
                    self._kept.add(protocol)
                return connection
            connection.close()


def _is_out_of_step(protocol: ResponseHandler) -> bool:
    """Whether there is a response, or an end, that no call waits for; it may not have been read yet."""
    if protocol.should_close or protocol.transport is None:
        return True
    poll = select.poll()
    poll.register(protocol.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


def open_session(settings: Models) -> aiohttp.ClientSession:
    """Open connections to a provider as configured; raises ConfigError if a certificate cannot be read."""
    tls = towards_models(settings)
    return models_session(settings.connect_timeout_seconds, tls=tls, proxy=settings.proxy)


def models_session(
    connect_timeout_seconds: float, *, tls: ssl.SSLContext | None = None, proxy: str | None = None
) -> aiohttp.ClientSession:
    """Open a session with a provider: persistent connections, no cookies, no proxy from the environment."""
    return aiohttp.ClientSession(
        connector=_Connections(tls=tls),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # it would decompress a whole chunk at once, regardless of the timeout
        proxy=proxy,
    )
