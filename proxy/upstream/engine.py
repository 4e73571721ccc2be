"""Sends searches to the engine on behalf of a caller, with that caller's own credentials."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from proxy.bounds import PIT_INDICES
from proxy.catalog.dialects import EngineKind, read_kind
from proxy.catalog.indices import IndexFacts, Resolved, read_facts, read_field_caps, read_resolution
from proxy.context import Sent
from proxy.errors import Refused, TimedOut, UpstreamError
from proxy.http1.headers import NO_HOP, Hop
from proxy.http1.relay import TURNED_AWAY
from proxy.parsing.decoding import Parameters
from proxy.ranking.planning import EngineReply, EngineSearch
from proxy.settings.config import Engine as Settings
from proxy.upstream.accepted import Accepted
from proxy.upstream.added import AddedSearches
from proxy.upstream.discovery import Discovery, Question, Reader
from proxy.upstream.nodes import Nodes
from proxy.upstream.pool import CarriedFields, EnginePool, EngineRequest

SERVICE = "engine"
_T = TypeVar("_T")

# Parameters that determine which indices a name resolves to; `_resolve/index` accepts them like `_search`.
_RESOLVING = frozenset({"expand_wildcards", "ignore_unavailable", "allow_no_indices"})
_UNKNOWN = frozenset({401})
"""The status with which the engine rejects credentials; after other errors of `_render` the caller may still search."""


class EngineClient:
    """The client of the engine; what it learns about indices is cached per caller identity."""

    def __init__(self, settings: Settings, nodes: Nodes | None = None, hop: Hop = NO_HOP) -> None:
        self._pool = EnginePool(nodes or Nodes(settings), hop, settings.idle_connection_seconds)
        self.accepted = Accepted()
        self._catalog = Discovery(settings.resolve_cache_seconds, turned_away=self.accepted.forget)
        self.added = AddedSearches(settings.added_searches)
        self._kind: EngineKind | None = None
        self._versioned: tuple[EngineKind, float] | None = None
        self._fresh_seconds = settings.resolve_cache_seconds

    async def close(self) -> None:
        await self._catalog.close()
        await self._pool.close()

    def for_caller(self, identity: bytes, carried: CarriedFields, sent: Sent | None = None) -> "EngineOfCaller":
        return EngineOfCaller(self, identity, carried, sent=sent or Sent())

    async def known(
        self,
        identity: bytes,
        reader: Reader[_T],
        asked: EngineRequest,
        *,
        patience_seconds: float | None = None,
        anew: bool = False,
    ) -> _T:
        """Return what this caller may know of the indices, from the cache or the engine; raises UpstreamError."""

        async def ask() -> bytes:
            return (await self.send(asked)).body

        question = Question(identity, (asked.method, asked.target, asked.body), reader, ask)
        return await self._catalog.get(question, patience_seconds=patience_seconds, anew=anew)

    def forget(self, identity: bytes) -> None:
        """Delete everything cached for a caller whose credentials or permissions the engine rejected."""
        self._catalog.forget(identity)
        self.accepted.forget(identity)

    @property
    def kind_in_headers(self) -> EngineKind | None:
        """The engine's product and version according to the headers of its responses."""
        return self._kind

    @property
    def recent_kind(self) -> EngineKind | None:
        """The engine's product and version, if any caller has recently read them; they are not confidential."""
        if self._versioned is None or time.monotonic() - self._versioned[1] >= self._fresh_seconds:
            return None
        return self._versioned[0]

    def learned(self, kind: EngineKind) -> None:
        self._versioned = kind, time.monotonic()

    async def send(self, asked: EngineRequest, timeout_seconds: float | None = None) -> EngineReply:
        """Send one request; raises UpstreamError, Refused for every status but 200."""
        try:
            async with asyncio.timeout(timeout_seconds):
                reply = await self._pool.send(asked)
        except TimeoutError as error:
            raise TimedOut(SERVICE, f"no answer in {timeout_seconds} s") from error
        if reply.status != 200:
            raise Refused(SERVICE, reply.status, reply.body, reply.fields)
        named = any(name.lower() == b"x-elastic-product" for name, _ in reply.fields)
        self._kind = EngineKind("elasticsearch" if named else "opensearch")
        return reply


@dataclass(frozen=True, slots=True)
class EngineOfCaller:
    """The engine with the credentials of one caller."""

    engine: EngineClient
    identity: bytes
    carried: CarriedFields
    patience_seconds: float | None = None
    """Timeout of lookups about indices; None: wait for the response."""
    sent: Sent = field(default_factory=Sent)
    """Whether the client's own request was sent; requests that the proxy adds are not counted."""

    def answered_items(self, statuses: Iterable[int]) -> None:
        """Handle the statuses of the searches of a multi-search."""
        if not TURNED_AWAY.isdisjoint(statuses):
            self.engine.forget(self.identity)

    async def search(self, search: EngineSearch) -> EngineReply:
        """Run the client's own search; raises Refused for every status but 200."""
        self.sent.note()
        self.sent.engine_searches += 1
        return await self._sent(self._search(search))

    async def add(self, search: EngineSearch, timeout_seconds: float) -> EngineReply:
        """Run a search in addition to the client's own; raises Busy at the limit of concurrent searches."""
        async with self.engine.added.turn():
            self.sent.engine_searches += 1
            return await self._sent(self._search(search), timeout_seconds)

    async def post(self, path: str, parameters: Parameters, body: bytes, *, lines: bool = False) -> EngineReply:
        """Send another of the client's requests on its behalf; raises Refused for every status but 200."""
        self.sent.note()
        return await self._sent(self._asked("POST", path, parameters, body, lines=lines))

    async def render(self, template: bytes, timeout_seconds: float) -> EngineReply:
        """Render a search template with the caller's permissions; raises Busy as `add` does."""
        async with self.engine.added.turn():
            asked = self._asked("POST", "/_render/template", (), template)
            return await self._sent(asked, timeout_seconds, turned_away=_UNKNOWN)

    async def get(self, path: str, parameters: Parameters) -> EngineReply:
        """Send a client's request that only reads, and may therefore be sent twice; raises like `post`."""
        return await self._sent(EngineRequest("GET", _target(path, parameters), self.carried))

    async def _sent(
        self, asked: EngineRequest, timeout_seconds: float | None = None, turned_away: frozenset[int] = TURNED_AWAY
    ) -> EngineReply:
        """Send a request; if the engine rejects the caller, delete everything cached for that caller."""
        try:
            return await self.engine.send(asked, timeout_seconds)
        except Refused as refusal:
            if refusal.status in turned_away:
                self.engine.forget(self.identity)
            raise

    async def resolved(self, expression: str, parameters: Parameters, *, anew: bool = False) -> tuple[Resolved, ...]:
        """Resolve index names; raises Refused if the caller may not."""
        asked = tuple(sorted(pair for pair in parameters if pair[0] in _RESOLVING))
        name = "*" if expression in {"", "_all"} else expression
        return await self._known(read_resolution, f"/_resolve/index/{name}", asked, anew=anew)

    async def resolved_of_pit(self, identifier: str, *, anew: bool = False) -> tuple[Resolved, ...]:
        """Return the indices in which a point in time has documents."""
        terms = {"terms": {"field": "_index", "size": PIT_INDICES}}
        body = msgspec.json.encode({"pit": {"id": identifier}, "size": 0, "aggs": {"indices": terms}})
        asked = self._asked("POST", "/_search", (), body)
        return await self.engine.known(
            self.identity, _read_pit, asked, patience_seconds=self.patience_seconds, anew=anew
        )

    async def facts(self, indices: frozenset[str]) -> IndexFacts:
        """Read the mappings of indices; raises Refused if the caller may not."""
        names = ",".join(quote(name, safe="*") for name in sorted(indices))
        return await self._known(read_facts, f"/{names}")

    async def types(self, indices: frozenset[str]) -> IndexFacts:
        """Read the types of the fields only, which every caller who may search them can read."""
        names = ",".join(quote(name, safe="*") for name in sorted(indices))
        return await self._known(read_field_caps, f"/{names}/_field_caps", (("fields", "*"),))

    async def kind(self) -> EngineKind | None:
        """Return the engine's product and version; if the caller may not read them, those in its response headers."""
        if recent := self.engine.recent_kind:
            return recent
        try:
            kind = await self._known(read_kind, "/")
        except UpstreamError:
            return self.engine.kind_in_headers
        self.engine.learned(kind)
        return kind

    async def pipeline(self, name: str) -> Mapping[str, Any]:
        """Read a search pipeline of OpenSearch."""
        found = await self._known(_as_it_is, f"/_search/pipeline/{quote(name, safe='')}")
        pipeline: Mapping[str, Any] = found.get(name, {})
        return pipeline

    async def _known(
        self,
        reader: Reader[_T],
        path: str,
        parameters: Parameters = (),
        *,
        anew: bool = False,
    ) -> _T:
        fields = [*_without(self.carried, {"content-type", "accept"}), ("Accept", "application/json")]
        asked = EngineRequest("GET", _target(path, parameters), fields)
        return await self.engine.known(self.identity, reader, asked, patience_seconds=self.patience_seconds, anew=anew)

    def _search(self, search: EngineSearch) -> EngineRequest:
        path = f"/{search.indices}/_search" if search.indices else "/_search"
        return self._asked("POST", path, search.parameters, search.body)

    def _asked(
        self, method: str, path: str, parameters: Parameters, body: bytes, *, lines: bool = False
    ) -> EngineRequest:
        """Build a request with a JSON or NDJSON body; an API version in its media type must be in `Accept`, too."""
        default = "application/x-ndjson" if lines else "application/json"
        said = next((value for name, value in self.carried if name.lower() == "content-type"), default)
        content_type = said if lines else said.replace("x-ndjson", "json")
        fields = [*_without(self.carried, {"content-type"}), ("Content-Type", content_type)]
        return EngineRequest(method, _target(path, parameters), fields, body)


def _read_pit(answer: Mapping[str, Any]) -> tuple[Resolved, ...]:
    """Read the indices; without a shard that the caller may search, there are no aggregations."""
    if answer.get("_shards", {}).get("total") == 0:
        return ()
    return tuple(Resolved(bucket["key"]) for bucket in answer["aggregations"]["indices"]["buckets"])


def _as_it_is(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    return answer


def _without(fields: CarriedFields, names: set[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in fields if name.lower() not in names]


def _target(path: str, parameters: Parameters) -> str:
    return f"{path}?{urlencode(parameters)}" if parameters else path
