"""One search of one caller, from its names and bytes to how it ends, whichever endpoint it came by."""

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from urllib.parse import parse_qsl

import msgspec

from proxy.bypass import Bypass
from proxy.config import Config
from proxy.dialects import EngineKind
from proxy.errors import Failure, Late, Refused, UpstreamError
from proxy.http1.callers import Field
from proxy.indices import (
    Covered,
    IndexFacts,
    Mixed,
    Resolved,
    Unrouted,
    alias_filter,
    cover,
    is_plain,
    may_concern,
    requested_names,
    route_of,
)
from proxy.journey import Journey
from proxy.pipelines import NONE, is_harmless
from proxy.planning import Plan, VectorSearch, vector_search
from proxy.profiles import PROFILES
from proxy.query.text import UNRELAXED, UserQuery, find_user_query, text_of_clause
from proxy.ranking.heads import Heads, head_key
from proxy.ranking.pipeline import Outcome, run_search
from proxy.ranking.stages import Budget, Embeds, OwnSearches, Run, Scores, Stages
from proxy.request.json_text import take_member
from proxy.request.search_request import SearchRequest, parse, translated
from proxy.request.sort_values import Walk
from proxy.request.steering import MEMBER, Steering, Wrong, read_steering
from proxy.routes import Route, build_routes
from proxy.upstream.accepted import AcceptedSearch
from proxy.upstream.engine import Engine, EngineOfCaller

_NAMES_MAX = 2000
"""Characters of index names that are asked for by a URL; the engine takes lines of 4 KB."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A search as a client asks it: of which indices, with which parameters and body."""

    indices: str
    """The path segment as it was sent, so that aliases keep their filters and routing."""
    query_string: str
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """Those by which a route's searches may say what was typed, by their names in small letters."""
    walk: Walk | None = None
    """Behind which hit of an answer of the proxy's it goes on, where `content` says that as the engine knows it."""

    @property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        return tuple(parse_qsl(self.query_string, keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Routed:
    """A search that a route covers: whose it is, and what its request says of its own reranking."""

    journey: Journey
    caller: EngineOfCaller
    asked: Asked
    covered: Covered
    steering: Steering


@dataclass(frozen=True, slots=True)
class Prepared:
    """A search that is planned, and not yet sent."""

    planned: Run
    head_key: bytes

    async def run(self) -> Outcome:
        """Answer it, or say why the client's own bytes should go on instead."""
        return await run_search(self.planned, self.head_key)


class Searching:
    """Finds a search's route, reads it, plans it and runs it; the first of these that cannot be done ends it."""

    def __init__(
        self, config: Config, engine: Engine, embedder: Embeds, reranker: Scores, discovery: str | None
    ) -> None:
        self.routes = build_routes(config)
        self._config = config
        self._engine = engine
        self._embedder = embedder
        self._reranker = reranker
        self._patience_seconds = config.engine.resolve_timeout_seconds
        self._discovery = engine.for_caller(b"discovery", (("Authorization", discovery),)) if discovery else None
        headers = (route.query_from.header for route in self.routes)
        self._text_headers = frozenset(header.lower() for header in headers if header)
        self._heads = Heads(config.pages.cache_entries, config.pages.cache_seconds)

    def left(self, indices: str, why: Bypass) -> Bypass | Unrouted:
        """Return the bypass of a search that cannot be routed if its names may touch a route."""
        return why if may_concern(self.routes, requested_names(indices)) else Unrouted()

    async def cover(
        self, journey: Journey, caller: EngineOfCaller, asked: Asked, *, anew: bool = False
    ) -> Covered | Unrouted | Bypass:
        """Compare every index that the search reaches for this caller with the routes.

        From memory where the names were asked before; `anew` asks the engine whatever is remembered.
        """
        names = requested_names(asked.indices)
        if names and all(":" in name for name in names) and not may_concern(self.routes, names):
            return Unrouted()  # another cluster's: no alias of this one has a colon
        try:
            async with journey.clock.stage("names"):
                resolved = await _resolved(self._patient(journey, caller, anew=anew), asked, anew=anew)
        except UpstreamError as error:
            return self._cover_unresolved(asked.indices, error)
        match cover(self.routes, resolved, names):
            case Mixed():
                return Bypass("mixed_routes")
            case Unrouted() if not resolved:  # OpenSearch says nothing of a missing index, Elasticsearch 404
                return self.left(asked.indices, Bypass("unresolved", detail="no index has such a name"))
            case found:
                return found

    def _cover_unresolved(self, indices: str, error: UpstreamError) -> Covered | Unrouted | Bypass:
        """Where a caller may not ask what a name stands for, a plain one may still be taken by its letters.

        Each hit's own index is compared with the route before any of it goes to a model.
        """
        names = requested_names(indices)
        route = route_of(self.routes, Resolved(names[0])) if is_plain(names) else None
        if route is not None and isinstance(error, Refused) and error.status == 403:
            return Covered(route)
        is_fault = not isinstance(error, Refused) or error.status >= 500
        return self.left(indices, Bypass("unresolved", detail=str(error), is_fault=is_fault))

    def _patient(self, journey: Journey, caller: EngineOfCaller, *, anew: bool = False) -> EngineOfCaller:
        """Let a search wait for all it asks about its indices no longer than it may in sum."""
        waited = 0.0 if anew else journey.clock.stages.get("names", 0.0) / 1000
        return replace(caller, patience_seconds=max(0.0, self._patience_seconds - waited))

    def steering(self, fields: Sequence[Field], asked: Asked) -> tuple[Asked, Steering | Wrong]:
        """Read what the request says of its own reranking; the engine is not to see it in the body."""
        allowed = self._config.steering
        asked = _translated(replace(asked, headers=_texts(fields, self._text_headers)))
        found = _cut_out(asked.content)
        if found is None:
            return asked, read_steering(fields, None, allowed)
        content, member = found
        try:
            steering = read_steering(fields, msgspec.json.decode(member), allowed)
        except (ValueError, RecursionError) as error:
            steering = Wrong(f"[ext.{MEMBER}] cannot be read: {error}")
        return replace(asked, content=content), steering

    async def run(self, routed: Routed) -> Outcome:
        """Answer a search of a route, or say why the client's own bytes should go on instead."""
        prepared = await self.prepare(routed, OwnSearches())
        return prepared if isinstance(prepared, Bypass) else await prepared.run()

    async def prepare(self, routed: Routed, own: OwnSearches, number: int = 0) -> Prepared | Bypass:
        """Plan a search of a route, ready to be run."""
        plan = await self.plan(routed)
        if isinstance(plan, Bypass):
            return plan
        routed.journey.plan = plan
        run = Run(plan, self._stages(routed), routed.journey.clock, Budget(plan.budget_seconds, own, number))
        return Prepared(run, head_key(plan, routed.caller.identity))

    async def plan(self, routed: Routed) -> Plan | Bypass:
        """Read a search of a route and say what will be done for it; what it takes to know is asked here."""
        if routed.steering.enabled is False:
            return Bypass("steered_off")
        asked = _translated(routed.asked)
        request = parse(asked.query_string, asked.content, asked.walk)
        if isinstance(request, Bypass):
            return request
        return await self._plan(replace(routed, asked=asked), request)

    def _stages(self, routed: Routed) -> Stages:
        return Stages(
            routed.caller,
            self._embedder,
            self._reranker,
            self._heads,
            AcceptedSearch.of(
                self._engine.accepted, routed.caller.identity, routed.covered.indices or {routed.asked.indices}
            ),
            partial(self._covered_now, routed),
            self._config.models.passage_max_chars,
            self._config.engine.added_timeout_seconds,
        )

    async def _plan(self, routed: Routed, request: SearchRequest) -> Plan | Bypass:
        covered, steering = routed.covered, routed.steering
        try:
            async with routed.journey.clock.stage("names"):
                caller = self._patient(routed.journey, routed.caller)
                facts, kind = await asyncio.gather(self._facts(caller, covered), self._kind(caller))
        except Late as error:
            return Bypass("unresolved", detail=str(error), is_fault=True)
        route, known = covered.route, facts or IndexFacts()
        given = steering.query or request.text or _text_of(route, routed.asked, request, known)
        copies = known.copied_from(route.passage)
        user_query = find_user_query(request.query, route.passage, known.is_text, given, copies) or Bypass(
            "no_query_text"
        )
        if isinstance(user_query, Bypass):
            return user_query
        if problem := route.left_out.bypass(user_query) or await self._pipeline(caller, request, known):
            return problem
        window = min(steering.window or route.rank_window_size, route.rank_window_size, known.max_result_window)
        window = min(window, request.rescored or window)
        if request.end + (window if request.walk else 0) > known.max_result_window:
            return Bypass("depth")
        vectors: VectorSearch | Failure | None = None
        if route.semantic:
            vectors = _unfit(request, user_query) or vector_search(
                route, route.semantic, facts, kind.version if kind else None
            )
        if isinstance(vectors, Failure) and vectors.by_design and route.rerank_model is None:
            return Bypass("no_stage")
        return Plan(
            indices=routed.asked.indices,
            request=request,
            route=route,
            user_query=user_query,
            instruction=_instruction(route, steering),
            vectors=vectors if isinstance(vectors, VectorSearch) else None,
            unavailable=vectors if isinstance(vectors, Failure) else None,
            window=window,
            covered=covered.indices,
            alias_filter=alias_filter(covered.reached, known),
            own_parameters=kind.own_parameters if kind else (),
            keeps_empty=kind is None or kind.keeps_empty,
            budget_seconds=steering.budget_ms / 1000 if steering.budget_ms else None,
            explains=bool(steering.explain),
            names=tuple(sorted({known.stored_at(path) for path in user_query.keywords})),
            earlier=self.routes[: self.routes.index(route)],
        )

    async def _covered_now(self, routed: Routed) -> frozenset[str]:
        """Ask anew which indices the search reaches; none where they are no longer this route's."""
        found = await self.cover(routed.journey, routed.caller, routed.asked, anew=True)
        return found.indices if isinstance(found, Covered) and found.route is routed.covered.route else frozenset()

    async def _facts(self, caller: EngineOfCaller, covered: Covered) -> IndexFacts | None:
        """Read the mappings, with the caller's rights or else with those meant for it; at the least the types."""
        indices = covered.indices
        if not indices or sum(map(len, indices)) > _NAMES_MAX:
            indices = frozenset(covered.route.patterns)
        own = self._discovery and replace(self._discovery, patience_seconds=caller.patience_seconds)
        for reader in filter(None, (caller, own)):
            try:
                return await reader.facts(indices)
            except Refused:
                continue
            except Late:
                raise
            except UpstreamError:
                return None
        try:
            return await caller.types(indices)
        except Late:
            raise
        except UpstreamError:
            return None

    async def _kind(self, caller: EngineOfCaller) -> EngineKind | None:
        kind = await caller.kind()
        if self._discovery is not None and (kind is None or kind.version is None):
            return await replace(self._discovery, patience_seconds=caller.patience_seconds).kind()
        return kind

    async def _pipeline(self, caller: EngineOfCaller, request: SearchRequest, facts: IndexFacts) -> Bypass | None:
        """Leave a search alone that runs a pipeline which is not known to be harmless."""
        named = request.pipeline
        if named is None and len(facts.pipelines) == 1:  # of several indices' defaults none is run
            (named,) = facts.pipelines
        if named in (None, NONE, {}):
            return None
        try:
            pipeline = named if isinstance(named, dict) else await caller.pipeline(str(named))
        except UpstreamError:
            return Bypass("pipeline")
        return None if is_harmless(pipeline) else Bypass("pipeline")


_TEXT_MAX = 2000


def _texts(fields: Sequence[Field], names: AbstractSet[str]) -> dict[str, str]:
    """Read the headers that may hold query text; what is no UTF-8 holds none."""
    found: dict[str, str] = {}
    for name, value in fields if names else ():
        if (lower := name.decode("ascii", "replace").lower()) in names:
            with suppress(UnicodeDecodeError):
                found[lower] = value.decode()
    return found


def _text_of(route: Route, asked: Asked, request: SearchRequest, facts: IndexFacts) -> str | None:
    """Read the query text where the route says that it stands; longer ones than a request may give are none."""
    place = route.query_from
    texts = (
        asked.headers.get(place.header.lower()) if place.header else None,
        request.text_at(place.body) if place.body else None,
        text_of_clause(request.query, place.name, route.passage, facts.is_text) if place.name else None,
    )
    said = (text.strip() for text in texts if text)
    return next((text for text in said if 0 < len(text) <= _TEXT_MAX), None)


def _unfit(request: SearchRequest, user_query: UserQuery) -> Failure | None:
    """Say why no document that only kNN finds has a place among this search's own."""
    reason = "own_scores" if request.own_ranking else user_query.unrelaxed
    return Failure("semantic", reason, UNRELAXED[reason], by_design=True) if reason else None


def _instruction(route: Route, steering: Steering) -> str:
    if steering.instruction:
        return steering.instruction
    return PROFILES[steering.profile].instruction if steering.profile else route.instruction


async def _resolved(caller: EngineOfCaller, asked: Asked, *, anew: bool) -> tuple[Resolved, ...]:
    if not asked.indices and (identifier := _point_in_time(asked.content)):
        return await caller.resolved_of_pit(identifier, anew=anew)
    return await caller.resolved(asked.indices, asked.parameters, anew=anew)


def _translated(asked: Asked) -> Asked:
    content, walk = translated(asked.query_string, asked.content)
    return replace(asked, content=content, walk=walk) if walk else asked


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


def _cut_out(content: bytes) -> tuple[bytes, bytes] | None:
    """Take `ext.rerank_proxy` out of a body, and an `ext` with nothing else in it, which templates cannot have.

    None where there is none, or the body is not one that could be read.
    """
    if MEMBER.encode() not in content:
        return None
    try:
        return take_member(content, ("ext", MEMBER), prune=True)
    except (ValueError, RecursionError):
        return None
