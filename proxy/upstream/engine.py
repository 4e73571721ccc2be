"""The engine's searches made for a caller, with that caller's own credentials."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from cachetools import TTLCache
from yarl import URL

from proxy.config import Engine as Settings
from proxy.errors import Malformed, Refused, TimedOut, Unreachable
from proxy.indices import IndexFacts, Resolved, read_facts, read_resolution
from proxy.planning import EngineReply, EngineSearch
from proxy.search_request import Parameters
from proxy.upstream.origin import tls_context

SERVICE = "engine"
_T = TypeVar("_T")
CarriedFields = Sequence[tuple[str, str]]

# What decides which indices a name stands for; taken by `_resolve/index` as by `_search`.
_RESOLVING = frozenset({"expand_wildcards", "ignore_unavailable", "allow_no_indices"})
_CACHE_ENTRIES = 4096


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, for whichever node."""

    method: str
    target: str
    fields: CarriedFields
    body: bytes | None = None


class Engine:
    """The nodes of one cluster, asked one after the other while they cannot be reached."""

    def __init__(self, settings: Settings) -> None:
        self._nodes = [url.rstrip("/") for url in settings.urls]
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=settings.search_connections,
                keepalive_timeout=settings.idle_connection_seconds,
                ssl=tls_context(settings) or True,
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        seconds = settings.resolve_cache_seconds
        self._resolved: TTLCache[Any, tuple[Resolved, ...]] = TTLCache(_CACHE_ENTRIES, seconds)
        self._facts: TTLCache[Any, IndexFacts] = TTLCache(_CACHE_ENTRIES, seconds)

    async def close(self) -> None:
        await self._session.close()

    def for_caller(self, identity: bytes, carried: CarriedFields) -> "EngineOfCaller":
        return EngineOfCaller(self, identity, carried)

    async def resolved(
        self, expression: str, parameters: Parameters, identity: bytes, carried: CarriedFields
    ) -> tuple[Resolved, ...]:
        """Ask which indices a name stands for, remembered for seconds; Refused where it may not be asked."""
        asked = tuple(sorted(pair for pair in parameters if pair[0] in _RESOLVING))
        key = (identity, expression, asked)
        if key not in self._resolved:
            name = "*" if expression in {"", "_all"} else expression
            self._resolved[key] = await self._read(read_resolution, f"/_resolve/index/{name}", asked, carried)
        return self._resolved[key]

    async def facts(self, indices: frozenset[str], identity: bytes, carried: CarriedFields) -> IndexFacts:
        """Read what the mappings of indices say, remembered for seconds; Refused where they may not be read."""
        key = (identity, indices)
        if key not in self._facts:
            names = ",".join(quote(name, safe="*") for name in sorted(indices))
            self._facts[key] = await self._read(read_facts, f"/{names}", (), carried)
        return self._facts[key]

    async def _read(
        self, reader: Callable[[Mapping[str, Any]], _T], path: str, parameters: Parameters, carried: CarriedFields
    ) -> _T:
        """Get what the engine says at a path, as a value; raises UpstreamError."""
        fields = [*_without(carried, {"content-type", "accept"}), ("Accept", "application/json")]
        reply = await self.send(Asked("GET", _target(path, parameters), fields))
        try:
            return reader(msgspec.json.decode(reply.body, type=dict[str, Any]))
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise Malformed(SERVICE, f"{path}: {error!r}") from error

    async def send(self, asked: Asked, timeout_seconds: float | None = None) -> EngineReply:
        """Send one request, to the next node when one cannot be reached; raises UpstreamError."""
        unreachable: Unreachable | None = None
        for node in tuple(self._nodes):
            try:
                async with asyncio.timeout(timeout_seconds):
                    return await self._send(node, asked)
            except TimeoutError as error:
                raise TimedOut(SERVICE, f"no answer in {timeout_seconds} s") from error
            except Unreachable as error:
                unreachable = error
                self._nodes.append(self._nodes.pop(0))
        raise unreachable or Unreachable(SERVICE, "no node is configured")

    async def _send(self, node: str, asked: Asked) -> EngineReply:
        """Searches may be repeated: one that dies on a connection that was kept open is sent once more."""
        try:
            return await self._once(node, asked)
        except aiohttp.ClientError as error:
            died = isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
            if not died or isinstance(error, aiohttp.ClientConnectorError):
                raise Unreachable(SERVICE, str(error)) from error
        try:
            return await self._once(node, asked)
        except aiohttp.ClientError as error:
            raise Unreachable(SERVICE, str(error)) from error

    async def _once(self, node: str, asked: Asked) -> EngineReply:
        async with self._session.request(
            asked.method,
            URL(node + asked.target, encoded=True),
            headers=list(asked.fields),
            data=asked.body,
            allow_redirects=False,
        ) as response:
            content = await response.read()
        if response.status != 200:
            raise Refused(SERVICE, response.status, content)
        return EngineReply(response.status, response.raw_headers, content)


@dataclass(frozen=True, slots=True)
class EngineOfCaller:
    """The engine as one caller sees it."""

    engine: Engine
    identity: bytes
    carried: CarriedFields

    async def search(self, search: EngineSearch, timeout_seconds: float | None = None) -> EngineReply:
        """Run one search; raises Refused for every status but 200."""
        path = f"/{search.indices}/_search" if search.indices else "/_search"
        fields = self.carried
        if not any(name.lower() == "content-type" for name, _ in fields):
            fields = [*fields, ("Content-Type", "application/json")]
        asked = Asked("POST", _target(path, search.parameters), fields, search.body)
        return await self.engine.send(asked, timeout_seconds)

    async def resolved(self, expression: str, parameters: Parameters) -> tuple[Resolved, ...]:
        return await self.engine.resolved(expression, parameters, self.identity, self.carried)

    async def facts(self, indices: frozenset[str]) -> IndexFacts:
        return await self.engine.facts(indices, self.identity, self.carried)


def _without(fields: CarriedFields, names: set[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in fields if name.lower() not in names]


def _target(path: str, parameters: Parameters) -> str:
    return f"{path}?{urlencode(parameters)}" if parameters else path
