"""Makes the plan of a search of a route, from its request, the mappings of its indices, load and spend."""

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec
import structlog

from proxy.bounds import BACKGROUND_BUDGET_S, GIVEN_TEXT, NAMES_IN_A_URL
from proxy.catalog.dialects import EngineKind
from proxy.catalog.indices import Covered, IndexFacts, alias_filter
from proxy.catalog.passage_fields import missing_fields
from proxy.catalog.pipelines import NONE, is_harmless
from proxy.endpoints.routing import Routed, SearchCall, in_engines_values, patient
from proxy.endpoints.turns import Turns
from proxy.errors import Failure, Late, Refused, UpstreamError
from proxy.http1.callers import Field, field_value
from proxy.outcomes import Bypass
from proxy.parsing.evidence import LinkedFields
from proxy.parsing.filter_path import read_form
from proxy.parsing.query_text import UNRELAXED, UserQuery, find_user_query, text_of_clause, with_rescores
from proxy.parsing.search_request import SearchRequest, parse
from proxy.ranking.load import AutoTier, LiveModels, narrowed, reserved_seconds
from proxy.ranking.planning import Plan, VectorSearch, shown_source, vector_search
from proxy.settings.config import Config
from proxy.settings.profiles import PROFILES
from proxy.settings.request_options import Steering
from proxy.settings.rollout import Switches
from proxy.settings.routes import Route
from proxy.upstream.engine import EngineOfCaller
from proxy.upstream.providers import spelled_as_sent
from proxy.upstream.spending.caps import Level, narrowed_by_spend
from proxy.upstream.spending.meter import Spending

_log = structlog.get_logger("proxy")


class _Understood(NamedTuple):
    """A search of a route with its query text, and what is known of its indices and of the engine."""

    routed: Routed
    request: SearchRequest
    user_query: UserQuery
    spelled: str
    """The query text as it is sent to models, before it is redacted and cut."""
    facts: IndexFacts | None
    """None if the mappings cannot be read."""
    known: IndexFacts
    """The facts; empty ones if there are none."""
    kind: EngineKind | None


class Planner:
    """Makes plans, or finds why a search is bypassed."""

    def __init__(  # noqa: PLR0913  what plans depend on
        self,
        config: Config,
        routes: Sequence[Route],
        turns: Turns,
        *,
        models: LiveModels,
        switches: Switches,
        spending: Spending,
        discovery: EngineOfCaller | None,
    ) -> None:
        """`discovery`: the engine with the proxy's own credentials, for callers that may not read mappings."""
        self._routes = routes
        self._engine_settings = config.engine
        self._query_max_chars = config.models.query_max_chars
        self._turns = turns
        self._models = models
        self._switches = switches
        self._spending = spending
        self._discovery = discovery
        self._unchecked = {
            route.name for route, settings in zip(routes, config.routes, strict=True) if settings.passage is not None
        }
        """Routes that name their own passage fields, which are compared with the mapping at their first search."""
        self._tiers = {route.name: AutoTier(route.tier_switch.fast_above_rate) for route in routes if route.tier_switch}

    async def plan(self, routed: Routed) -> Plan | Bypass:
        """Parse a search of a route, rendering its template first, and make its plan."""
        if why := self.not_rolled_out(routed):
            return why
        call = routed.call
        if call.is_template:
            rendered = await _rendered(routed.caller, call, self._engine_settings.added_timeout_seconds)
            if isinstance(rendered, Bypass):
                return rendered
            call = in_engines_values(rendered)
        await self._turns.take()
        request = parse(call.query_string, call.content, call.walk)
        if isinstance(request, Bypass):
            return request
        return await self._plan(replace(routed, call=call), request)

    def not_rolled_out(self, routed: Routed) -> Bypass | None:
        """Return the bypass reason that the kill switch, the options or the route determine, whatever the query is."""
        if not self._switches.reranking:
            return Bypass("switched_off")
        if routed.options.enabled is False:
            return Bypass("steered_off")
        return routed.covered.route.rollout.bypass(routed.options, routed.call.fields)

    async def _plan(self, routed: Routed, request: SearchRequest) -> Plan | Bypass:
        covered, route = routed.covered, routed.covered.route
        try:
            with routed.record.clock.stage("names"):
                caller = patient(routed.record, routed.caller, self._engine_settings.resolve_timeout_seconds)
                facts, kind = await self._facts_and_kind(caller, covered)
        except Late as error:
            return Bypass("unresolved", detail=str(error), is_fault=True)
        known = facts or IndexFacts(pipelines=None)
        self._check_passage_once(covered, known)
        await self._turns.take()
        user_query = _user_query(routed, request, known)
        if isinstance(user_query, Bypass):
            return user_query
        spelled = spelled_as_sent(user_query.text)
        problem = self._excluded(routed, request, user_query, spelled) or self._unpaid(route, request)
        problem = problem or await self._pipeline(caller, request, known)
        return problem or self._decided(_Understood(routed, request, user_query, spelled, facts, known, kind))

    def _decided(self, search: _Understood) -> Plan | Bypass:
        """Decide on window, models and vectors, by the route, the options, load and spend."""
        routed, request, user_query, spelled, facts, known, kind = search
        covered, options, route = routed.covered, routed.options, routed.covered.route
        at_rest = _window_at_rest(route, options, request, known.max_result_window)
        if isinstance(at_rest, Bypass):
            return at_rest
        reranker, is_fast = self._choose_reranker(route)
        vectors = _vectors(covered, request, user_query, facts, kind)
        if isinstance(vectors, Failure) and vectors.by_design and route.rerank_model is None:
            return Bypass("no_stage")
        budget = _budget_seconds(route, options, request)
        return Plan(
            indices=routed.call.indices,
            request=request,
            source=shown_source(request.source, route.semantic),
            route=route,
            user_query=user_query,
            instruction=route.redaction.redacted(_instruction(route, options)),
            sent_text=route.redaction.cut(spelled, self._query_max_chars),
            vectors=vectors if isinstance(vectors, VectorSearch) else None,
            unavailable=vectors.partly if isinstance(vectors, VectorSearch) else vectors,
            window=at_rest if request.is_later_page else self._window_now(at_rest, route, reranker),
            window_at_rest=at_rest,
            covered=covered.indices,
            alias_filter=alias_filter(covered.reached, known),
            own_parameters=kind.own_parameters if kind and known.pipelines is not None else (),
            keeps_empty=kind is None or kind.keeps_empty,
            budget_seconds=budget,
            reserved_seconds=reserved_seconds(budget, self._models.usual_seconds(reranker)) if reranker else 0.0,
            is_fast=is_fast,
            explains=bool(options.explain),
            names=tuple(sorted({known.stored_at(path) for path in user_query.keywords})),
            earlier=self._routes[: self._routes.index(route)],
        )

    def _check_passage_once(self, covered: Covered, facts: IndexFacts) -> None:
        """Warn once of passage fields that the documents of a route cannot have, if the whole mapping is known."""
        route = covered.route
        if route.name not in self._unchecked or facts.pipelines is None:
            return
        self._unchecked.remove(route.name)
        if missing := missing_fields(route.passage.fields, facts):
            _log.warning(
                "passage_field_missing",
                route=route.name,
                indices=sorted(covered.indices),
                detail=f"{'; '.join(missing.values())}: correct `passage` of the route, unless the engine hides the "
                "field from this caller (field-level security)",
            )

    def _excluded(self, routed: Routed, request: SearchRequest, user_query: UserQuery, spelled: str) -> Bypass | None:
        """Return the bypass reason if the route does not rerank searches with this query text."""
        route, fields = routed.covered.route, routed.call.fields
        return (
            route.rollout.bypass_by_text(routed.options, fields, route.name, user_query.text)
            or route.text_bypass.bypass(user_query, is_page=request.is_page)
            or route.redaction.refusal(spelled, self._query_max_chars)
            or _ordered_by_boosts(route, user_query)
        )

    def _window_now(self, at_rest: int, route: Route, reranker: str | None) -> int:
        """Return the window of a new search at this spend and load."""
        window = narrowed_by_spend(at_rest, self._spending.update_level(route.name))
        return narrowed(window, self._models.pressure(reranker)) if reranker else window

    def _unpaid(self, route: Route, request: SearchRequest) -> Bypass | None:
        """Bypass a search of a route that has exceeded a cap, unless it continues a ranking, which may be cached."""
        is_over = not request.is_later_page and self._spending.update_level(route.name) is Level.OFF
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

    async def _facts_and_kind(
        self, caller: EngineOfCaller, covered: Covered
    ) -> tuple[IndexFacts | None, EngineKind | None]:
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
        default = facts.pipelines or ()
        if named is None and len(default) == 1:  # default pipelines are not run for indices with different ones
            (named,) = default
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
    links = LinkedFields(facts.copied_from(route.text_fields), facts.aliases, facts.also_keywords)
    found = find_user_query(request.query, route.text_fields, facts.is_text, given, links)
    if found is None:
        return Bypass("no_query_text")
    return with_rescores(found, request.rescores, facts.is_text) if "rescore" in request.members else found


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
    covered: Covered, request: SearchRequest, user_query: UserQuery, facts: IndexFacts | None, kind: EngineKind | None
) -> VectorSearch | Failure | None:
    """Return the kNN search, or why there is none; None if the route has no `semantic`."""
    route = covered.route
    if route.semantic is None:
        return None
    version = kind.version if kind else None
    why = _why_no_knn(request, user_query)
    return why or vector_search(route, route.semantic, facts, version, covered.indices)


def _why_no_knn(request: SearchRequest, user_query: UserQuery) -> Failure | None:
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
