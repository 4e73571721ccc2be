"""Answers one search of one caller, for every endpoint: finds its route, makes its plan, returns its result."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode

import msgspec
import structlog

from proxy.bounds import BACKGROUND_BUDGET_S, GIVEN_TEXT, NAMES_IN_A_URL
from proxy.catalog.dialects import EngineKind
from proxy.catalog.indices import (
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
from proxy.catalog.pipelines import NONE, is_harmless
from proxy.context import SearchRecord, Sent, Shadow
from proxy.endpoints.shadowing import BUSY, GIVES_WAY, LATER_PAGE, Shadows, run_shadow
from proxy.endpoints.turns import Turns
from proxy.errors import Failure, Late, Refused, TooComplex, UpstreamError, cause_of
from proxy.http1.callers import Field, field_value
from proxy.http1.messages import BadMessage
from proxy.outcomes import Bypass, answered, bypassed
from proxy.parsing.evidence import LinkedFields
from proxy.parsing.filter_path import read_form
from proxy.parsing.json_text import take_member
from proxy.parsing.query_text import UNRELAXED, UserQuery, find_user_query, text_of_clause
from proxy.parsing.search_request import SearchRequest, excluding, parse, translated
from proxy.parsing.sort_values import Walk
from proxy.ranking.heads import Heads, head_key, scope_of
from proxy.ranking.pipeline import Defect, Result, Unserved, run_search, unserved
from proxy.ranking.planning import Plan, VectorSearch, vector_search
from proxy.ranking.pressure import LiveModels, UncalledModels, narrowed, reserved_seconds
from proxy.ranking.searches import added_fields
from proxy.ranking.stages import Budget, CalledModels, Embeds, OwnSearches, Run, Scores, Stages
from proxy.ranking.tiers import AutoTier
from proxy.settings.config import Config
from proxy.settings.profiles import PROFILES
from proxy.settings.request_options import MEMBER, Steering, Wrong, read_steering
from proxy.settings.rollout import Switches
from proxy.settings.routes import Route, build_routes
from proxy.store.contract import CacheRegion, Kind
from proxy.store.memory import memory_region
from proxy.upstream.accepted import AcceptedSearch
from proxy.upstream.engine import EngineClient, EngineOfCaller
from proxy.upstream.providers import spelled_as_sent
from proxy.upstream.spending.caps import Level, narrowed_by_spend
from proxy.upstream.spending.meter import Meter, Spending

_log = structlog.get_logger("proxy")
_T = TypeVar("_T")
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A planned search that has not been sent yet."""

    planned: Run
    head_key: bytes
    sent: Sent

    async def run(self) -> Result:
        """Run the search, or return why the client's own request is passed on instead."""
        return unless_sent(await guarded(run_search(self.planned, self.head_key)), self.sent)


class Searching:
    """Answers searches in three steps, each of which may end one: `route`, `plan`, and `Prepared.run`."""

    def __init__(  # noqa: PLR0913  the services it uses
        self,
        config: Config,
        engine: EngineClient,
        embedder: Embeds,
        reranker: Scores,
        discovery: str | None,
        *,
        models: LiveModels | None = None,
        switches: Switches | None = None,
        meter: Meter | None = None,
        rankings: CacheRegion | None = None,
        background: CalledModels | None = None,
    ) -> None:
        """`background`: the clients of the models for searches in the background."""
        self.routes = build_routes(config)
        self._config = config
        self.shadows = Shadows()
        self._turns = Turns()
        self._engine = engine
        self._called = CalledModels(embedder, reranker)
        self._background = background or self._called
        self.models = models or UncalledModels()
        self._switches = switches or Switches()
        self.spending = Spending(config, meter or Meter())
        self._patience_seconds = config.engine.resolve_timeout_seconds
        self._discovery = engine.for_caller(b"discovery", (("Authorization", discovery),)) if discovery else None
        self._tiers = {
            route.name: AutoTier(route.tier_switch.fast_above_rate) for route in self.routes if route.tier_switch
        }
        self._heads = Heads(rankings or memory_region(Kind.RANKINGS, 0), scope_of(config))

    async def warm_up(self) -> None:
        """Open a connection to each model service."""
        await asyncio.gather(self._called.embedder.warm_up(), self._called.reranker.warm_up())

    # -- route

    async def route(
        self, record: SearchRecord, caller: EngineOfCaller, call: SearchCall, read_body: ReadBody
    ) -> Routed | NotRouted:
        """Find a search's route and read its per-request options; without a route, the body is not read."""
        found = await guarded(self._route(record, caller, call, read_body))
        return NotRouted(call, found) if isinstance(found, Bypass) else found

    async def _route(
        self, record: SearchRecord, caller: EngineOfCaller, call: SearchCall, read_body: ReadBody
    ) -> Routed | NotRouted:
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
        call = _as_set(call, covered.route)
        return Routed(record, replace(caller, sent=record.sent), call, covered, options)

    def unroutable(self, indices: str, why: Bypass) -> Bypass | Unrouted:
        """Return the bypass reason if an unresolvable search might touch a route."""
        return why if may_concern(self.routes, requested_names(indices)) else Unrouted()

    async def cover(
        self, record: SearchRecord, caller: EngineOfCaller, call: SearchCall, *, anew: bool = False
    ) -> Covered | Unrouted | Bypass:
        """Compare every index that the search reaches for this caller with the routes.

        Resolved names are cached; `anew` always asks the engine.
        """
        names = requested_names(call.indices)
        if names and all(":" in name for name in names) and not may_concern(self.routes, names):
            return Unrouted()  # another cluster's: no alias of this one has a colon
        try:
            async with record.clock.stage("names"):
                resolved = await _resolved(self._patient(record, caller, anew=anew), call, anew=anew)
        except UpstreamError as error:
            return self._cover_unresolved(call.indices, error)
        match cover(self.routes, resolved, names):
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
        route = route_of(self.routes, Resolved(names[0])) if is_plain(names) else None
        if route is not None and isinstance(error, Refused) and error.status == 403:
            return Covered(route)
        is_fault = not isinstance(error, Refused) or error.status >= 500
        return self.unroutable(indices, Bypass("unresolved", detail=str(error), is_fault=is_fault))

    def _patient(self, record: SearchRecord, caller: EngineOfCaller, *, anew: bool = False) -> EngineOfCaller:
        """Limit the total time that a search waits for lookups about its indices."""
        waited = 0.0 if anew else record.clock.stages.get("names", 0.0) / 1000
        return replace(caller, patience_seconds=max(0.0, self._patience_seconds - waited))

    def options(self, call: SearchCall) -> tuple[SearchCall, Steering | Wrong]:
        """Read the per-request options from headers and body, and remove those in the body."""
        allowed = self._config.steering
        call = _translated(call)
        found = cut_options(call.content)
        if found is None:
            return call, read_steering(call.fields, None, allowed)
        content, member = found
        try:
            options = read_steering(call.fields, msgspec.json.decode(member), allowed)
        except (ValueError, RecursionError) as error:
            options = Wrong(f"[ext.{MEMBER}] cannot be read: {error}")
        return replace(call, content=content, rewritten=True), options

    # -- plan

    async def answer(self, routed: Routed) -> Result:
        """Plan and run a search of a route."""
        prepared = await self.prepare(routed, OwnSearches())
        return await prepared.run() if isinstance(prepared, Prepared) else prepared

    async def prepare(self, routed: Routed, own: OwnSearches, number: int = 0) -> Prepared | Unserved | Bypass:
        """Plan a search of a route."""
        if routed.covered.route.rollout.mode == "shadow":
            return self._not_rolled_out(routed) or self._shadowed(routed)
        return await self._prepare(routed, own, number)

    async def _prepare(self, routed: Routed, own: OwnSearches, number: int = 0) -> Prepared | Unserved | Bypass:
        plan = await guarded(self.plan(routed))
        if isinstance(plan, Bypass):
            return plan
        routed.record.window, routed.record.query_text = plan.window, plan.user_query.text
        record, route, stages = routed.record, plan.route.name, self._stages(routed)
        key = head_key(plan, routed.caller.identity)
        if isinstance(without := await guarded(unserved(plan, stages, key)), Unserved | Bypass):
            return without
        purse = self.spending.purse(
            route,
            record.usage,
            pays=self.spending.update_level(route) < Level.CACHED,
            is_background=bool(routed.options.background),
        )
        run = Run(plan, stages, record.clock, Budget(plan.budget_seconds, own, number, purse), record.usage)
        return Prepared(run, key, record.sent)

    def _shadowed(self, routed: Routed) -> Bypass:
        """Let the engine answer a search, and rerank it in a shadow run after its response was sent."""
        record = routed.record
        record.after_response = partial(self.shadows.begin, record, partial(self._shadow, routed))
        return Bypass("shadow")

    async def _shadow(self, routed: Routed) -> Shadow:
        record, model = routed.record, routed.covered.route.rerank_model
        if model is not None and self.models.pressure(model) >= GIVES_WAY:
            return BUSY
        own = SearchRecord(record.request_id, route=record.route, usage=record.usage)
        options = msgspec.structs.replace(routed.options, background=None)  # few shadow runs may run at a time
        prepared = await self._prepare(
            replace(routed, record=own, caller=replace(routed.caller, sent=own.sent), options=options), OwnSearches()
        )
        record.window, record.query_text = own.window, own.query_text
        if isinstance(prepared, Unserved):
            return Shadow(answered(prepared.failures))
        if isinstance(prepared, Bypass):
            return Shadow(bypassed(prepared))
        request = prepared.planned.plan.request
        if request.is_later_page:
            return LATER_PAGE
        shadow = replace(await run_shadow(prepared.planned), stages=own.timings())
        record.candidates = shadow.candidates
        return shadow

    async def plan(self, routed: Routed) -> Plan | Bypass:
        """Parse a search of a route, rendering its template first, and make its plan."""
        if why := self._not_rolled_out(routed):
            return why
        call: SearchCall | Bypass = routed.call
        if routed.call.is_template:
            call = await _rendered(routed.caller, routed.call, self._config.engine.added_timeout_seconds)
        if isinstance(call, Bypass):
            return call
        await self._turns.take()
        call = _translated(call)
        request = parse(call.query_string, call.content, call.walk)
        if isinstance(request, Bypass):
            return request
        return await self._plan(replace(routed, call=call), request)

    def _not_rolled_out(self, routed: Routed) -> Bypass | None:
        """Return the bypass reason that the kill switch, the options or the route determine, whatever the query is."""
        if not self._switches.reranking:
            return Bypass("switched_off")
        if routed.options.enabled is False:
            return Bypass("steered_off")
        return routed.covered.route.rollout.bypass(routed.options, routed.call.fields)

    def _stages(self, routed: Routed) -> Stages:
        called = self._background if routed.options.background else self._called
        return Stages(
            routed.caller,
            called.embedder,
            called.reranker,
            self._heads,
            AcceptedSearch.of(
                self._engine.accepted, routed.caller.identity, routed.covered.indices or {routed.call.indices}
            ),
            partial(self._covered_now, routed),
            self._config.models.passage_max_tokens,
            self._config.engine.added_timeout_seconds,
        )

    async def _plan(self, routed: Routed, request: SearchRequest) -> Plan | Bypass:
        covered, options, route = routed.covered, routed.options, routed.covered.route
        try:
            async with routed.record.clock.stage("names"):
                caller = self._patient(routed.record, routed.caller)
                facts, kind = await self._described(caller, covered)
        except Late as error:
            return Bypass("unresolved", detail=str(error), is_fault=True)
        known = facts or IndexFacts()
        await self._turns.take()
        user_query = _user_query(routed, request, known)
        if isinstance(user_query, Bypass):
            return user_query
        spelled = spelled_as_sent(user_query.text)
        unfit = self._excluded(routed, user_query, spelled) or self._unpaid(route, request)
        if problem := unfit or await self._pipeline(caller, request, known):
            return problem
        at_rest = _window_at_rest(route, options, request, known.max_result_window)
        if isinstance(at_rest, Bypass):
            return at_rest
        reranker, is_fast = self._choose_reranker(route)
        vectors = _vectors(route, request, user_query, facts, kind)
        if isinstance(vectors, Failure) and vectors.by_design and route.rerank_model is None:
            return Bypass("no_stage")
        budget = _budget_seconds(route, options, request)
        return Plan(
            indices=routed.call.indices,
            request=request,
            route=route,
            user_query=user_query,
            instruction=route.redaction.redacted(_instruction(route, options)),
            sent_text=route.redaction.cut(spelled, self._config.models.query_max_chars),
            vectors=vectors if isinstance(vectors, VectorSearch) else None,
            unavailable=vectors if isinstance(vectors, Failure) else None,
            window=at_rest if request.is_later_page else self._window_now(at_rest, route, reranker),
            window_at_rest=at_rest,
            covered=covered.indices,
            alias_filter=alias_filter(covered.reached, known),
            own_parameters=kind.own_parameters if kind else (),
            keeps_empty=kind is None or kind.keeps_empty,
            budget_seconds=budget,
            reserved_seconds=reserved_seconds(budget, self.models.usual_seconds(reranker)) if reranker else 0.0,
            is_fast=is_fast,
            explains=bool(options.explain),
            names=tuple(sorted({known.stored_at(path) for path in user_query.keywords})),
            earlier=self.routes[: self.routes.index(route)],
        )

    def _excluded(self, routed: Routed, user_query: UserQuery, spelled: str) -> Bypass | None:
        """Return the bypass reason if the route does not rerank searches with this query text."""
        route, fields = routed.covered.route, routed.call.fields
        return (
            route.rollout.bypass_by_text(routed.options, fields, route.name, user_query.text)
            or route.text_bypass.bypass(user_query)
            or route.redaction.refusal(spelled, self._config.models.query_max_chars)
            or _ordered_by_boosts(route, user_query)
        )

    def _window_now(self, at_rest: int, route: Route, reranker: str | None) -> int:
        """Return the window of a new search at this spend and load."""
        window = narrowed_by_spend(at_rest, self.spending.update_level(route.name))
        return narrowed(window, self.models.pressure(reranker)) if reranker else window

    def _unpaid(self, route: Route, request: SearchRequest) -> Bypass | None:
        """Bypass a search of a route that has exceeded a cap, unless it continues a ranking, which may be cached."""
        is_over = not request.is_later_page and self.spending.update_level(route.name) is Level.OFF
        return Bypass("spend_cap") if is_over else None

    def _choose_reranker(self, route: Route) -> tuple[str | None, bool]:
        """Count a search, and return the reranker to call first and whether it is the faster one of `tier: auto`."""
        if route.tier_switch is None:
            return route.rerank_model, False
        tier = self._tiers[route.name]
        if tier.note(asyncio.get_running_loop().time()):
            shown = route.tier_switch.fast if tier.is_fast else route.tier_switch.usual
            _log.info("tier_changed", route=route.name, tier=shown)
        return (route.tier_switch.fast_model if tier.is_fast else route.rerank_model), tier.is_fast

    async def _covered_now(self, routed: Routed) -> frozenset[str]:
        """Resolve again which indices the search reaches; empty if they are no longer covered by this route."""
        found = await self.cover(routed.record, routed.caller, routed.call, anew=True)
        return found.indices if isinstance(found, Covered) and found.route == routed.covered.route else frozenset()

    async def _described(self, caller: EngineOfCaller, covered: Covered) -> tuple[IndexFacts | None, EngineKind | None]:
        """Read the mappings, and in parallel the kind of engine, unless that is known."""
        kind = caller.engine.recent_kind
        if kind is not None and kind.version is not None:
            return await self._facts(caller, covered), kind
        return await asyncio.gather(self._facts(caller, covered), self._kind(caller))

    async def _facts(self, caller: EngineOfCaller, covered: Covered) -> IndexFacts | None:
        """Read the mappings as the caller, otherwise as the proxy; if neither may, only the types of the fields."""
        indices = covered.indices
        if not indices or sum(map(len, indices)) > NAMES_IN_A_URL:
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
        """Bypass a search with a search pipeline that is not known to be harmless."""
        named = request.pipeline
        if named is None and len(facts.pipelines) == 1:  # default pipelines are not run for indices with different ones
            (named,) = facts.pipelines
        if named in (None, NONE, {}):
            return None
        try:
            pipeline = named if isinstance(named, dict) else await caller.pipeline(str(named))
        except UpstreamError:
            return Bypass("pipeline")
        return None if is_harmless(pipeline) else Bypass("pipeline")


def _text_of(route: Route, fields: Sequence[Field], request: SearchRequest, facts: IndexFacts) -> str | None:
    """Return the query text from where the route's `query_from` specifies; a text longer than the limit is ignored."""
    place = route.query_from
    texts = (
        _header_text(fields, place.header) if place.header else None,
        request.text_at(place.body) if place.body else None,
        text_of_clause(request.query, place.name, route.text_fields, facts.is_text) if place.name else None,
    )
    stripped = (text.strip() for text in texts if text)
    return next((text for text in stripped if 0 < len(text) <= GIVEN_TEXT), None)


def _header_text(fields: Sequence[Field], name: str) -> str | None:
    with suppress(UnicodeDecodeError):
        return field_value(fields, name.lower().encode()).decode()
    return None


def _user_query(routed: Routed, request: SearchRequest, facts: IndexFacts) -> UserQuery | Bypass:
    """Find the query text: in the options, in the request, where the route says, or in the query."""
    route = routed.covered.route
    given = routed.options.query or request.text or _text_of(route, routed.call.fields, request, facts)
    links = LinkedFields(facts.copied_from(route.text_fields), facts.aliases)
    found = find_user_query(request.query, route.text_fields, facts.is_text, given, links)
    return found or Bypass("no_query_text")


def _window_at_rest(route: Route, options: Steering, request: SearchRequest, most: int) -> int | Bypass:
    """Return the window without load, or the bypass reason if the page is beyond the engine's last hit (`most`)."""
    window = min(options.window or route.rank_window_size, route.rank_window_size, most)
    window = min(window, request.rescored or window)
    is_too_deep = request.end + (window if request.walk else 0) > most
    return Bypass("depth") if is_too_deep else window


def _ordered_by_boosts(route: Route, user_query: UserQuery) -> Bypass | None:
    """Bypass a search whose order is determined by boosts alone, regardless of query text."""
    alone = user_query.boosts is not None and user_query.boosts.alone
    return Bypass("boost_alone") if alone and route.boost_power else None


def _vectors(
    route: Route, request: SearchRequest, user_query: UserQuery, facts: IndexFacts | None, kind: EngineKind | None
) -> VectorSearch | Failure | None:
    """Return the kNN search, or why there is none; None if the route has no `semantic`."""
    if route.semantic is None:
        return None
    version = kind.version if kind else None
    return _unfit(request, user_query) or vector_search(route, route.semantic, facts, version)


def _unfit(request: SearchRequest, user_query: UserQuery) -> Failure | None:
    """Return why documents found by kNN only cannot be ranked among this search's own hits."""
    reason = "own_scores" if request.own_ranking else user_query.unrelaxed
    return Failure("semantic", reason, UNRELAXED[reason], by_design=True) if reason else None


def _budget_seconds(route: Route, options: Steering, request: SearchRequest) -> float:
    """Return the time budget in seconds: the route's, lowered by per-request options or the client's `timeout`."""
    of_route = BACKGROUND_BUDGET_S if options.background else route.budget_ms / 1000
    of_request = math.inf if options.budget_ms is None else options.budget_ms / 1000
    of_client = math.inf if request.timeout_seconds is None else request.timeout_seconds
    return min(of_route, of_request, of_client)


def _instruction(route: Route, options: Steering) -> str:
    if options.instruction:
        return options.instruction
    return PROFILES[options.profile].instruction if options.profile else route.instruction


async def _resolved(caller: EngineOfCaller, call: SearchCall, *, anew: bool) -> tuple[Resolved, ...]:
    if not call.indices and (identifier := _point_in_time(call.content)):
        return await caller.resolved_of_pit(identifier, anew=anew)
    return await caller.resolved(call.indices, call.parameters, anew=anew)


def _translated(call: SearchCall) -> SearchCall:
    content, walk = translated(call.query_string, call.content)
    return replace(call, content=content, walk=walk, rewritten=True) if walk else call


# The members of a template request, and URL parameters that Elasticsearch 8.19.13 ignores with a template.
_TEMPLATE_KEYS = frozenset({"source", "id", "params"})
_IGNORED = frozenset({"from", "size", "q", "df", "sort", "_source", "_source_includes", "_source_excludes", "stats"})


class _RenderedTemplate(msgspec.Struct):
    template_output: msgspec.Raw


_rendered_template = msgspec.json.Decoder(_RenderedTemplate)
_template = msgspec.json.Decoder(dict[str, msgspec.Raw])


async def _rendered(caller: EngineOfCaller, call: SearchCall, timeout_seconds: float) -> SearchCall | Bypass:
    """Render a template with the caller's permissions; returns the resulting search."""
    try:
        if unknown := [key for key in _template.decode(call.content) if key not in _TEMPLATE_KEYS]:
            return Bypass("template", detail=unknown[0])
        reply = await caller.render(call.content, timeout_seconds)
        output = bytes(_rendered_template.decode(reply.body).template_output)
    except (UpstreamError, ValueError, RecursionError) as error:
        return Bypass("template", detail=str(error))
    kept = [pair for pair in call.parameters if pair[0] not in _IGNORED]
    return replace(call, query_string=urlencode(read_form(kept).asked(kept)), content=output, is_template=False)


async def guarded(step: Awaitable[_T]) -> _T | Bypass:
    """Await a step of a search; on an error in the proxy, log it and bypass the search."""
    try:
        return await step
    except (BadMessage, ConnectionError):
        raise
    except TooComplex as error:
        return Bypass("too_complex", detail=str(error))
    except Exception as error:  # noqa: BLE001  after any error, the engine can still answer
        _log.exception("internal_error")
        return Bypass("internal_error", detail=cause_of(error))


def unless_sent(found: _T | Bypass, sent: Sent) -> _T | Bypass | Defect:
    """Turn an error in the proxy into a Defect if the search was sent to the engine, so that it is not sent again."""
    if isinstance(found, Bypass) and found.reason == "internal_error" and sent.by_now:
        return Defect(found.detail)
    return found


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


def to_pass_on(routed: Routed, result: Result) -> SearchCall:
    """Return the search to pass on. If no model could serve it, vectors are excluded as if it had been reranked."""
    return without_vectors(routed.call, routed.covered.route) if isinstance(result, Unserved) else routed.call


def _as_set(call: SearchCall, route: Route) -> SearchCall:
    """Exclude the route's vector fields from `_source`, if the route says so."""
    is_set = route.semantic is not None and route.semantic.exclude_from_source
    return without_vectors(call, route) if is_set else call


def without_vectors(call: SearchCall, route: Route) -> SearchCall:
    """Exclude the route's vector fields from `_source`; a template is only known once rendered."""
    semantic = route.semantic
    if semantic is None or call.is_template:
        return call
    content, parameters = excluding(call.content, call.parameters, added_fields(semantic.fields))
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
