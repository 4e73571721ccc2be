"""Finds the route of a search: which indices it reaches for its caller, and what its request may set."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlencode

import msgspec

from proxy.bounds import INDEX_NAMES_BYTES
from proxy.catalog.indices import (
    Covered,
    Mixed,
    Resolved,
    Unrouted,
    cover,
    is_plain,
    may_concern,
    requested_names,
    route_of,
)
from proxy.context import SearchRecord
from proxy.endpoints.turns import Turns
from proxy.errors import Refused, UpstreamError
from proxy.http1.callers import Field
from proxy.outcomes import Bypass
from proxy.parsing.json_text import take_member
from proxy.parsing.search_edits import excluding, translated
from proxy.parsing.sort_values import Walk
from proxy.settings.config import Config
from proxy.settings.request_options import MEMBER, Steering, Wrong, read_steering
from proxy.settings.routes import Route
from proxy.upstream.engine import EngineOfCaller

_FEW_NAMES = 2**8
"""Bytes of index names that are compared with the routes at once; a multi-search may have a thousand times as many."""
ReadBody = Callable[[], Awaitable[bytes | Bypass]]


@dataclass(frozen=True, slots=True)
class SearchCall:
    """A search as sent by the client."""

    indices: str
    """The path segment as sent, so that aliases keep their filters and routing."""
    query_string: str
    content: bytes = b""
    fields: Sequence[Field] = ()
    """The headers of the request."""
    is_template: bool = False
    walk: Walk | None = None
    """The hit of an earlier response that a `search_after` continues from, if `content` now has the engine's values."""
    rewritten: bool = False
    """Whether `content` differs from what the client sent."""

    @property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        return tuple(parse_qsl(self.query_string, keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Routed:
    """A search covered by a route, with its per-request options removed from the body."""

    record: SearchRecord
    caller: EngineOfCaller
    call: SearchCall
    covered: Covered
    options: Steering


@dataclass(frozen=True, slots=True)
class NotRouted:
    """A search that is not reranked: no route covers it, it is bypassed, or its options are rejected."""

    call: SearchCall
    """The search to pass on: the client's, without the per-request options."""
    why: Unrouted | Bypass | Wrong


class Router:
    """Finds the route that covers a search."""

    def __init__(self, config: Config, routes: Sequence[Route], turns: Turns) -> None:
        self._routes = routes
        self._allowed = config.steering
        self._patience_seconds = config.engine.resolve_timeout_seconds
        self._turns = turns

    async def route(
        self, record: SearchRecord, caller: EngineOfCaller, call: SearchCall, read_body: ReadBody
    ) -> Routed | NotRouted:
        """Find a search's route and read its per-request options; without a route, the body is not read."""
        if not (call.indices or call.is_template):  # only the body of a point-in-time search names its indices
            content = await read_body()
            call = call if isinstance(content, Bypass) else replace(call, content=content)
        covered = await self.cover(record, caller, call)
        if isinstance(covered, Unrouted):
            return NotRouted(call, covered)
        if isinstance(covered, Covered):
            record.route = covered.route.name
        content = await read_body()
        if isinstance(content, Bypass):
            return NotRouted(call, covered if isinstance(covered, Bypass) else content)
        await self._turns.take()
        call, options = self.options(replace(call, content=content))
        if isinstance(covered, Bypass):
            return NotRouted(call, covered)
        if isinstance(options, Wrong):
            return NotRouted(call, options)
        record.shows_cost, record.is_background = bool(options.cost), bool(options.background)
        call = _without_hidden_vectors(call, covered.route)
        return Routed(record, replace(caller, sent=record.sent), call, covered, options)

    def unroutable(self, indices: str, why: Bypass) -> Bypass | Unrouted:
        """Return the bypass reason if an unresolvable search might touch a route."""
        is_long = len(indices) > INDEX_NAMES_BYTES
        return why if is_long or may_concern(self._routes, requested_names(indices)) else Unrouted()

    async def cover(
        self, record: SearchRecord, caller: EngineOfCaller, call: SearchCall, *, anew: bool = False
    ) -> Covered | Unrouted | Bypass:
        """Compare every index that the search reaches for this caller with the routes.

        Resolved names are cached; `anew` always asks the engine.
        """
        if len(call.indices) > INDEX_NAMES_BYTES:
            return Bypass("too_complex", detail=f"{len(call.indices)} bytes of index names")
        if len(call.indices) > _FEW_NAMES:
            await self._turns.take()
        names = requested_names(call.indices)
        if names and all(":" in name for name in names) and not may_concern(self._routes, names):
            return Unrouted()  # another cluster's: no alias of this one has a colon
        try:
            with record.clock.stage("names"):
                resolved = await _resolved(patient(record, caller, self._patience_seconds, anew=anew), call, anew=anew)
        except UpstreamError as error:
            return self._cover_unresolved(call.indices, error)
        match cover(self._routes, resolved, names):
            case Mixed():
                return Bypass("mixed_routes")
            case Unrouted() if names and not resolved:  # a missing name on OpenSearch; Elasticsearch returns 404
                return self.unroutable(call.indices, Bypass("unresolved", detail="no index has such a name"))
            case found:
                return found

    def _cover_unresolved(self, indices: str, error: UpstreamError) -> Covered | Unrouted | Bypass:
        """Match a plain name with the route patterns if the caller may not resolve it.

        Each hit's own index is compared with the route before any of its text is sent to a model.
        """
        names = requested_names(indices)
        route = route_of(self._routes, Resolved(names[0])) if is_plain(names) else None
        if route is not None and isinstance(error, Refused) and error.status == 403:
            return Covered(route)
        is_fault = not isinstance(error, Refused) or error.status >= 500
        return self.unroutable(indices, Bypass("unresolved", detail=str(error), is_fault=is_fault))

    def options(self, call: SearchCall) -> tuple[SearchCall, Steering | Wrong]:
        """Read the per-request options from headers and body, and remove those in the body."""
        allowed = self._allowed
        call = in_engines_values(call)
        found = cut_options(call.content)
        if found is None:
            return call, read_steering(call.fields, None, allowed)
        content, member = found
        try:
            options = read_steering(call.fields, msgspec.json.decode(member), allowed)
        except (ValueError, RecursionError) as error:
            options = Wrong(f"[ext.{MEMBER}] cannot be read: {error}")
        return replace(call, content=content, rewritten=True), options

    async def covered_now(self, routed: Routed) -> frozenset[str]:
        """Resolve again which indices the search reaches; empty if they are no longer covered by this route."""
        found = await self.cover(routed.record, routed.caller, routed.call, anew=True)
        return found.indices if isinstance(found, Covered) and found.route == routed.covered.route else frozenset()


def patient(record: SearchRecord, caller: EngineOfCaller, seconds: float, *, anew: bool = False) -> EngineOfCaller:
    """Limit the total time that a search waits for lookups about its indices."""
    waited = 0.0 if anew else record.clock.stages.get("names", 0.0) / 1000
    return replace(caller, patience_seconds=max(0.0, seconds - waited))


async def _resolved(caller: EngineOfCaller, call: SearchCall, *, anew: bool) -> tuple[Resolved, ...]:
    if not call.indices and (identifier := _point_in_time(call.content)):
        return await caller.resolved_of_pit(identifier, anew=anew)
    return await caller.resolved(call.indices, call.parameters, anew=anew)


def in_engines_values(call: SearchCall) -> SearchCall:
    """Replace the sort values of a response of the proxy, in a `search_after`, by the engine's own."""
    content, walk = translated(call.query_string, call.content)
    return replace(call, content=content, walk=walk, rewritten=True) if walk else call


class _PointInTime(msgspec.Struct):
    id: str


class _Body(msgspec.Struct):
    pit: _PointInTime | None = None


_body = msgspec.json.Decoder(_Body)


def _point_in_time(content: bytes) -> str | None:
    if b'"pit"' not in content:
        return None
    try:
        pit = _body.decode(content).pit
    except (ValueError, RecursionError):
        return None
    return pit.id if pit else None


def _without_hidden_vectors(call: SearchCall, route: Route) -> SearchCall:
    """Exclude the route's vector fields from `_source`, if the route says so."""
    is_set = route.semantic is not None and route.semantic.exclude_from_source
    return without_vectors(call, route) if is_set else call


def without_vectors(call: SearchCall, route: Route) -> SearchCall:
    """Exclude the route's vector fields from `_source`; a template is only known once rendered."""
    semantic = route.semantic
    if semantic is None or call.is_template:
        return call
    content, parameters = excluding(call.content, call.parameters, semantic.added_fields)
    query_string = call.query_string if parameters == call.parameters else urlencode(parameters)
    rewritten = call.rewritten or content != call.content
    return replace(call, content=content, query_string=query_string, rewritten=rewritten)


def cut_options(content: bytes) -> tuple[bytes, bytes] | None:
    """Split a body into the engine's part and `ext.rerank_proxy`; an empty `ext`, which templates cannot have, is cut.

    Returns None if there is none, or the body cannot be read.
    """
    if MEMBER.encode() not in content:
        return None
    try:
        return take_member(content, ("ext", MEMBER), prune=True)
    except (ValueError, RecursionError):
        return None
