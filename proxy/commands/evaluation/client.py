"""Sends the search of each judged query to both addresses over HTTP, some queries at a time."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
from msgspec import Raw, Struct
from yarl import URL

from proxy.bounds import EVALUATED_RESPONSE_BYTES
from proxy.commands.evaluation.errors import CannotEvaluate
from proxy.commands.evaluation.outcomes import (
    COST_HEADER,
    HEADER,
    FailedSearch,
    Found,
    Pair,
    read_cost,
    read_outcome,
)
from proxy.commands.loading.patience import patiently
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

_PASSING = {429, 502, 503, 504}
_FEW_FAILURES, _TOLERATED_SHARE = 10, 0.02
"""There is no verdict if more searches fail than both this number and this share of all."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address of searches, with its credentials and TLS settings."""

    name: str
    url: str
    authorization: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Sending:
    """How searches are sent."""

    target: str
    """Path and URL parameters, after the address."""
    id_field: str | None = None
    concurrency: int = 4
    timeout_seconds: float = 60.0
    patience_seconds: float = 20.0
    """Seconds for which a search is retried while the address is busy."""


Search = tuple[str, bytes]
"""A query's id, and the body of its search."""
Keep = Callable[[str, Pair], None]
"""Called with a query's id and both responses."""


class Untrusted(Unreachable):
    """The certificate of the address is not trusted."""


class EvaluationStopped(CannotEvaluate):
    """Not all queries were sent; the results so far can be reported."""


class OutOfReach(EvaluationStopped):
    """An address cannot be reached."""


async def ask_both(
    addresses: tuple[Address, Address],
    sending: Sending,
    searches: Iterator[Search],
    count: int,
    keep: Keep,
) -> None:
    """Send each search to both addresses, and pass the responses to `keep`.

    The first search is sent alone, because an error there affects all of them. Raises CannotEvaluate.
    """
    async with _opened() as session:
        asking = _Asking(session, addresses, sending, keep, count)
        query, body = next(searches)
        keep(query, asking.demand_answered(await asking.pair(body)))
        workers = min(sending.concurrency, count - 1)
        try:
            async with asyncio.TaskGroup() as group:
                await asyncio.gather(*(group.create_task(asking.work(searches)) for _ in range(workers)))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None


@asynccontextmanager
async def _opened() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session: no cookies, and no proxy or password from the environment."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    ) as session:
        yield session


@dataclass(slots=True)
class _Asking:
    session: aiohttp.ClientSession
    addresses: tuple[Address, Address]
    sending: Sending
    keep: Keep
    count: int
    failed: int = 0

    async def work(self, searches: Iterator[Search]) -> None:
        """Take searches from the shared iterator until there are none."""
        for query, body in searches:
            self.keep(query, self._counted(await self.pair(body)))

    async def pair(self, body: bytes) -> Pair:
        baseline, proxy = await asyncio.gather(*(self._reply(address, body) for address in self.addresses))
        return Pair(baseline, proxy)

    async def _reply(self, address: Address, body: bytes) -> Found | FailedSearch:
        """Send one search, with retries while the address is busy; raises OutOfReach."""
        try:
            return await patiently(
                lambda: search(self.session, address, self.sending, body), _is_passing, self.sending.patience_seconds
            )
        except Unreachable as error:
            raise OutOfReach(f"{address.url} {_why_unreachable(error, address.name)}") from None
        except UpstreamError as error:
            return FailedSearch(_reason(error))

    def demand_answered(self, pair: Pair) -> Pair:
        for address, reply in zip(self.addresses, (pair.baseline, pair.proxy), strict=True):
            if isinstance(reply, FailedSearch):
                raise CannotEvaluate(f"{address.url} failed on the first search: {reply.detail}. {_advice(reply)}")
        return pair

    def _counted(self, pair: Pair) -> Pair:
        failed = [reply for reply in (pair.baseline, pair.proxy) if isinstance(reply, FailedSearch)]
        self.failed += len(failed)
        if failed and self.failed > max(_FEW_FAILURES, _TOLERATED_SHARE * self.count):
            raise EvaluationStopped(
                f"{self.failed} searches failed, the last one by: {failed[-1].detail}. {_advice(failed[-1])}"
            )
        return pair


def _why_unreachable(error: Unreachable, option: str) -> str:
    if isinstance(error, Untrusted):
        return f"cannot be trusted: {error.detail}. Name the certificates to trust with --ca-file"
    return f"cannot be reached: {error.detail}. Start it, or correct --{option}"


def _is_passing(error: Exception) -> bool:
    return isinstance(error, Lost) or (isinstance(error, Refused) and error.status in _PASSING)


_ADVICE: Mapping[str, str] = {
    "status 400": "Correct the template",
    "status 401": "Name the variable that holds the Authorization header with --authorization-env",
    "status 403": "Use credentials that may search the index, with --authorization-env",
    "status 404": "Correct --index",
    "no answer": "Give it more time with --timeout, or send fewer searches at once with --concurrency",
    "a hit": "Let the template return this field, or name another one with --id-field",
}


def _advice(failed: FailedSearch) -> str:
    found = (advice for begin, advice in _ADVICE.items() if failed.detail.startswith(begin))
    return next(found, "Send the same search with curl, and read the log there")


_TYPE = re.compile(r"\w{1,80}")


def _reason(error: UpstreamError) -> str:
    """Summarise an error; of the engine's errors only the type, since the rest differs by query."""
    if not isinstance(error, Refused):
        return error.detail
    try:
        cause = msgspec.json.decode(error.body)["error"]
        kind = (cause.get("root_cause") or [cause])[0]["type"]
        return f"status {error.status}, {kind}" if _TYPE.fullmatch(kind) else f"status {error.status}"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError, AttributeError):
        return f"status {error.status}"


async def search(session: aiohttp.ClientSession, address: Address, sending: Sending, body: bytes) -> Found:
    """Send one search; raises UpstreamError. Redirects are not followed, because they would forward credentials."""
    headers = {"Content-Type": "application/json"}
    if address.authorization:
        headers["Authorization"] = address.authorization
    url = URL(address.url.rstrip("/") + sending.target, encoded=True)
    try:
        async with (
            asyncio.timeout(sending.timeout_seconds),
            session.post(url, data=body, headers=headers, allow_redirects=False, ssl=address.tls or True) as response,
        ):
            content = await _content(response)
            outcome = response.headers.get(HEADER)
            cost = read_cost(response.headers.get(COST_HEADER, ""))
    except aiohttp.ClientConnectorCertificateError as error:
        raise Untrusted("search", str(error.certificate_error)) from None
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise Unreachable("search", connection_error(error)) from None
    except TimeoutError:
        raise TimedOut("search", f"no answer in {sending.timeout_seconds:g} s") from None
    except aiohttp.ClientError as error:
        raise Lost("search", str(error)) from None
    if response.status != 200:
        raise Refused("search", response.status, content)
    documents = documents_of(content, sending.id_field)
    return Found(documents, None if outcome is None else read_outcome(outcome), cost)


async def _content(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > EVALUATED_RESPONSE_BYTES:
            most = EVALUATED_RESPONSE_BYTES >> 20
            raise TooLarge("search", f"more than {most} MB: let the template request less of `_source`")
    return bytes(content)


class _Hit(Struct, rename={"id": "_id", "source": "_source"}):
    id: str | None = None
    source: Raw = Raw(b"null")
    fields: Raw = Raw(b"null")


class _Hits(Struct):
    hits: list[_Hit]


class _Response(Struct, rename={"shards": "_shards"}):
    hits: _Hits
    timed_out: bool = False
    shards: dict[str, Any] = {}


def documents_of(content: bytes, id_field: str | None) -> tuple[str, ...]:
    """Return the distinct ids of a response's hits: `_id`, or the value of a field; raises Malformed."""
    try:
        response = msgspec.json.decode(content, type=_Response)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed("search", "not a response of _search") from error
    if response.timed_out or response.shards.get("failed"):
        raise Malformed("search", "an incomplete response: timed out, or without some shards")
    return tuple(dict.fromkeys(_identity(hit, id_field) for hit in response.hits.hits))


def _identity(hit: _Hit, id_field: str | None) -> str:
    value = hit.id if id_field is None else _first_of(hit, id_field)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Malformed("search", f"a hit has no {id_field or '_id'}")
    return str(value)


def _first_of(hit: _Hit, path: str) -> Any:
    """Return the first value of a field in `fields`, or by its path in `_source`."""
    fields, value = msgspec.json.decode(hit.fields), msgspec.json.decode(hit.source)
    if isinstance(fields, dict) and fields.get(path):
        return fields[path][0]
    if isinstance(value, dict) and path in value:
        return value[path]
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
