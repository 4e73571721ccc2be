"""The engine's searches made for a caller, with that caller's own credentials."""

import asyncio
import hashlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from cachetools import LRUCache, TTLCache

from proxy.config import Engine as Settings
from proxy.dialects import EngineKind, read_kind
from proxy.errors import Malformed, Refused, TimedOut, UpstreamError
from proxy.http1.headers import NO_HOP, Hop
from proxy.indices import IndexFacts, Resolved, read_facts, read_field_caps, read_resolution
from proxy.planning import EngineReply, EngineSearch
from proxy.request.search_request import Parameters
from proxy.upstream.nodes import Nodes
from proxy.upstream.pool import Asked, CarriedFields, EnginePool
from proxy.upstream.sharing import Shared

SERVICE = "engine"
_T = TypeVar("_T")

# What decides which indices a name stands for; taken by `_resolve/index` as by `_search`.
_RESOLVING = frozenset({"expand_wildcards", "ignore_unavailable", "allow_no_indices"})
_CACHE_ENTRIES = 4096
_TOLD_ENTRIES = 256


class _Forbidden:
    """Stands for what a caller may not know."""


class Engine:
    """The engine, asked on behalf of callers; what one caller may know is remembered for that caller."""

    def __init__(self, settings: Settings, nodes: Nodes | None = None, hop: Hop = NO_HOP) -> None:
        self._pool = EnginePool(nodes or Nodes(settings), hop, settings.idle_connection_seconds)
        self._known: TTLCache[Any, Any] = TTLCache(_CACHE_ENTRIES, settings.resolve_cache_seconds)
        self._asked: Shared[Any] = Shared()
        self._told: LRUCache[Any, Any] = LRUCache(_TOLD_ENTRIES)
        self._kind: EngineKind | None = None

    async def close(self) -> None:
        self._pool.close()

    def for_caller(self, identity: bytes, carried: CarriedFields) -> "EngineOfCaller":
        return EngineOfCaller(self, identity, carried)

    async def known(
        self, identity: bytes, reader: Callable[[Mapping[str, Any]], _T], asked: Asked, *, even_forbidden: bool = False
    ) -> _T:
        """Ask what one caller may know, as a value remembered for seconds; raises UpstreamError, Refused among them.

        With `even_forbidden` it is remembered, too, that a caller may not know.
        """
        key = (identity, reader, asked.method, asked.target, asked.body)
        found: _T | _Forbidden | None = self._known.get(key)
        if isinstance(found, _Forbidden):
            raise Refused(SERVICE, 403)
        if found is not None:
            return found
        learnt: _T = await self._asked.ask(key, lambda: self._learn(key, reader, asked, even_forbidden=even_forbidden))
        return learnt

    async def _learn(
        self, key: Hashable, reader: Callable[[Mapping[str, Any]], _T], asked: Asked, *, even_forbidden: bool
    ) -> _T:
        """Read an answer, and remember what it says."""
        try:
            self._known[key] = found = await self._read(reader, asked)
        except Refused as refusal:
            if even_forbidden and refusal.status == 403:
                self._known[key] = _Forbidden()
            raise
        return found

    async def _read(self, reader: Callable[[Mapping[str, Any]], _T], asked: Asked) -> _T:
        """Read an answer; what several callers were told in the same words, a large mapping say, is kept once."""
        reply = await self.send(asked)
        words = (reader, hashlib.sha256(reply.body).digest())
        found: _T | None = self._told.get(words)
        if found is not None:
            return found
        try:
            self._told[words] = found = reader(msgspec.json.decode(reply.body, type=dict[str, Any]))
        except (msgspec.MsgspecError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise Malformed(SERVICE, f"{asked.target}: {error!r}") from error
        return found

    @property
    def told_kind(self) -> EngineKind | None:
        """Which engine it is by the headers of its answers alone."""
        return self._kind

    async def send(self, asked: Asked, timeout_seconds: float | None = None) -> EngineReply:
        """Send one request; raises UpstreamError, Refused for every status but 200."""
        try:
            async with asyncio.timeout(timeout_seconds):
                reply = await self._pool.send(asked)
        except TimeoutError as error:
            raise TimedOut(SERVICE, f"no answer in {timeout_seconds} s") from error
        if reply.status != 200:
            raise Refused(SERVICE, reply.status, reply.body)
        named = any(name.lower() == b"x-elastic-product" for name, _ in reply.fields)
        self._kind = EngineKind("elasticsearch" if named else "opensearch")
        return reply


@dataclass(frozen=True, slots=True)
class EngineOfCaller:
    """The engine as one caller sees it."""

    engine: Engine
    identity: bytes
    carried: CarriedFields

    async def search(self, search: EngineSearch, timeout_seconds: float | None = None) -> EngineReply:
        """Run one search; raises Refused for every status but 200."""
        path = f"/{search.indices}/_search" if search.indices else "/_search"
        return await self.engine.send(self._asked("POST", path, search.parameters, search.body), timeout_seconds)

    async def post(self, path: str, parameters: Parameters, body: bytes, *, lines: bool = False) -> EngineReply:
        """Send another of the client's requests on its behalf; raises Refused for every status but 200."""
        return await self.engine.send(self._asked("POST", path, parameters, body, lines=lines))

    async def get(self, path: str, parameters: Parameters) -> EngineReply:
        """The same for what has no body."""
        return await self.engine.send(Asked("GET", _target(path, parameters), self.carried))

    async def resolved(self, expression: str, parameters: Parameters) -> tuple[Resolved, ...]:
        """Ask which indices a name stands for; raises Refused where that may not be asked."""
        asked = tuple(sorted(pair for pair in parameters if pair[0] in _RESOLVING))
        name = "*" if expression in {"", "_all"} else expression
        return await self._known(read_resolution, f"/_resolve/index/{name}", asked)

    async def resolved_of_pit(self, identifier: str) -> tuple[Resolved, ...]:
        """Ask in which indices a point in time has documents."""
        terms = {"terms": {"field": "_index", "size": _PIT_INDICES_MAX}}
        body = msgspec.json.encode({"pit": {"id": identifier}, "size": 0, "aggs": {"indices": terms}})
        asked = self._asked("POST", "/_search", (), body)
        return await self.engine.known(self.identity, _read_pit, asked)

    async def facts(self, indices: frozenset[str]) -> IndexFacts:
        """Read what the mappings of indices say; a caller who may not is told the types of their fields."""
        names = ",".join(quote(name, safe="*") for name in sorted(indices))
        return await self._known(read_facts, f"/{names}", even_forbidden=True)

    async def types(self, indices: frozenset[str]) -> IndexFacts:
        """Read the types of the fields alone, which every caller may know who may search."""
        names = ",".join(quote(name, safe="*") for name in sorted(indices))
        return await self._known(read_field_caps, f"/{names}/_field_caps", (("fields", "*"),))

    async def kind(self) -> EngineKind | None:
        """Ask which engine it is, and of which version; where that may not be asked, what its answers' headers say."""
        try:
            return await self._known(read_kind, "/", even_forbidden=True)
        except UpstreamError:
            return self.engine.told_kind

    async def pipeline(self, name: str) -> Mapping[str, Any]:
        """Read a search pipeline of OpenSearch."""
        found = await self._known(_as_it_is, f"/_search/pipeline/{quote(name, safe='')}")
        pipeline: Mapping[str, Any] = found.get(name, {})
        return pipeline

    async def _known(
        self,
        reader: Callable[[Mapping[str, Any]], _T],
        path: str,
        parameters: Parameters = (),
        *,
        even_forbidden: bool = False,
    ) -> _T:
        fields = [*_without(self.carried, {"content-type", "accept"}), ("Accept", "application/json")]
        asked = Asked("GET", _target(path, parameters), fields)
        return await self.engine.known(self.identity, reader, asked, even_forbidden=even_forbidden)

    def _asked(self, method: str, path: str, parameters: Parameters, body: bytes, *, lines: bool = False) -> Asked:
        """A request as JSON or as lines of it, in the client's words: a version they name must be `Accept`'s, too."""
        default = "application/x-ndjson" if lines else "application/json"
        said = next((value for name, value in self.carried if name.lower() == "content-type"), default)
        content_type = said if lines else said.replace("x-ndjson", "json")
        fields = [*_without(self.carried, {"content-type"}), ("Content-Type", content_type)]
        return Asked(method, _target(path, parameters), fields, body)


_PIT_INDICES_MAX = 1000


def _read_pit(answer: Mapping[str, Any]) -> tuple[Resolved, ...]:
    return tuple(Resolved(bucket["key"]) for bucket in answer["aggregations"]["indices"]["buckets"])


def _as_it_is(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    return answer


def _without(fields: CarriedFields, names: set[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in fields if name.lower() not in names]


def _target(path: str, parameters: Parameters) -> str:
    return f"{path}?{urlencode(parameters)}" if parameters else path
