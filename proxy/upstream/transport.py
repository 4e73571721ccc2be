"""One request to a models' provider, its response read within bounds, and whatever goes wrong as an UpstreamError."""

import asyncio
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import TypeVar

import aiohttp

from proxy.bounds import INFLATED_BYTES_A_TURN, MODEL_RESPONSE_BYTES
from proxy.errors import Lost, Malformed, Refused, TimedOut, TooLarge, Unreachable, UpstreamError
from proxy.settings.config import Models
from proxy.settings.tls import towards_models
from proxy.upstream.guard import Guards
from proxy.upstream.provider_errors import inner_status, message_of
from proxy.upstream.retries import reason_of

DNS_CACHE_S = 60
"""How long a provider's addresses are remembered: no search that opens a connection waits for the resolver."""

WARM_UP_S = 10.0
"""How long the answer to a warm-up is waited for, without which its connection cannot be used."""

_T = TypeVar("_T")


class Transport:
    """Where a provider is and the token it knows us by, which goes there and nowhere else.

    With `guards`, each model has a breaker, a limit of concurrent calls, and at most one retry of a call.
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
        self._base_url = base_url.rstrip("/")
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def __repr__(self) -> str:
        return f"Transport({self.service}, {self._base_url})"

    async def warm_up(self) -> None:
        """Open a connection, so that the first search finds one; without the token, and whatever comes of it."""
        with suppress(aiohttp.ClientError, TimeoutError):
            async with (
                asyncio.timeout(WARM_UP_S),
                self._session.head(self._base_url + "/", allow_redirects=False) as response,
            ):
                await response.read()

    async def ask(  # noqa: PLR0913  a request, and how its response is read
        self,
        path: str,
        body: bytes,
        timeout_seconds: float,
        read: Callable[[bytes], _T],
        response_bytes: int,
        *,
        model: str,
    ) -> _T:
        """Send a body and read the response; raises UpstreamError, Malformed for any that cannot be read."""

        async def attempt(seconds: float) -> _T:
            return self._read(await self.post(path, body, seconds, response_bytes), read)

        if self._guards is None:
            return await attempt(timeout_seconds)
        return await self._guards.of(self.service, model).call(attempt, timeout_seconds)

    def _read(self, content: bytes, read: Callable[[bytes], _T]) -> _T:
        """Read a response with status 200.

        The one place where a model's response is read: what a reader does not expect of it must not look like a
        defect of the proxy.
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
        self, path: str, body: bytes, timeout_seconds: float, response_bytes: int = MODEL_RESPONSE_BYTES
    ) -> bytes:
        """Send a body once; raises Unreachable, Lost, TimedOut, Malformed, or Refused for every status but 200.

        Redirects are not followed, since they would carry the token elsewhere.
        """
        begun = False
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                self._session.post(
                    self._base_url + path, data=body, headers=self._headers, allow_redirects=False
                ) as response,
            ):
                begun = True
                content = await _content(self.service, response, response_bytes)
        except aiohttp.ConnectionTimeoutError as error:
            raise Unreachable(self.service, f"{self._base_url}: no connection in time") from error
        except TimeoutError as error:
            raise TimedOut(self.service, f"no answer in {timeout_seconds:.2g} s") from error
        except aiohttp.ClientResponseError as error:
            raise Malformed(self.service, f"{self._base_url}: no HTTP response: {error.message:.100}") from error
        except aiohttp.ClientError as error:
            lost = Lost if begun else Unreachable
            raise lost(self.service, f"{self._base_url}: {error}") from error
        if response.status != 200:
            raise self._refused(response.status, content, response.raw_headers)
        return content


async def _content(service: str, response: aiohttp.ClientResponse, at_most: int) -> bytes:
    """Read a response to its end; raises TooLarge, and Malformed where it is compressed in another way than asked."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in {"", "identity", "gzip"}:
        raise Malformed(service, "a response compressed in another way than gzip")
    received = _counted(service, response.content.iter_any(), at_most)
    pieces = _inflated(service, received) if encoding == "gzip" else received
    return b"".join([piece async for piece in _counted(service, pieces, at_most)])


async def _counted(service: str, pieces: AsyncIterator[bytes], at_most: int) -> AsyncIterator[bytes]:
    """Hand pieces on while there are no more bytes in them than there may be."""
    total = 0
    async for piece in pieces:
        total += len(piece)
        if total > at_most:
            raise TooLarge(service, f"a response of more than {at_most} bytes")
        yield piece


async def _inflated(service: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Decompress piece by piece, and let everything else run in between: a small piece may hold a very large one."""
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


def open_session(settings: Models) -> aiohttp.ClientSession:
    """Open connections to a provider as the settings say; raises ConfigError where a certificate cannot be read."""
    tls = towards_models(settings)
    return models_session(settings.connect_timeout_seconds, tls=tls, proxy=settings.proxy)


def models_session(
    connect_timeout_seconds: float, *, tls: ssl.SSLContext | None = None, proxy: str | None = None
) -> aiohttp.ClientSession:
    """Open connections to a provider: kept open between searches, no cookies, no proxies from the environment."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60, ttl_dns_cache=DNS_CACHE_S, ssl=tls or True),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # it takes all that a piece holds at once, whatever the time limit says
        proxy=proxy,
    )
