"""Answers one search of one caller, for every endpoint: finds its route, makes its plan, returns its result."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import msgspec
import structlog

from proxy.context import SearchRecord, Sent, Shadow
from proxy.endpoints.planner import Planner
from proxy.endpoints.routing import NotRouted, ReadBody, Routed, Router, SearchCall, without_vectors
from proxy.endpoints.shadowing import BUSY, GIVES_WAY, LATER_PAGE, Shadows, run_shadow
from proxy.endpoints.turns import Turns
from proxy.errors import TooComplex, cause_of
from proxy.http1.framing import BadMessage
from proxy.outcomes import Bypass, answered, bypassed
from proxy.ranking.heads import Heads, head_key, scope_of
from proxy.ranking.load import LiveModels, UncalledModels
from proxy.ranking.pipeline import Defect, Result, Unserved, run_search, why_unserved
from proxy.ranking.stages import Budget, CalledModels, Embeds, OwnSearches, Run, Scores, Stages
from proxy.settings.config import Config
from proxy.settings.rollout import Switches
from proxy.settings.routes import build_routes
from proxy.store.contract import CacheRegion, Kind
from proxy.store.memory import memory_region
from proxy.upstream.accepted import AcceptedSearch
from proxy.upstream.engine import EngineClient, EngineOfCaller
from proxy.upstream.spending.caps import Level
from proxy.upstream.spending.meter import Meter, Spending

_log = structlog.get_logger("proxy")
_T = TypeVar("_T")


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
    """Answers searches in three steps, each of which may end one: `route`, `Planner.plan`, and `Prepared.run`."""

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
        self._engine = engine
        self._called = CalledModels(embedder, reranker)
        self._background = background or self._called
        self.models = models or UncalledModels()
        self.spending = Spending(config, meter or Meter())
        turns = Turns()
        self.router = Router(config, self.routes, turns)
        self.planner = Planner(
            config,
            self.routes,
            turns,
            models=self.models,
            switches=switches or Switches(),
            spending=self.spending,
            discovery=engine.for_caller(b"discovery", (("Authorization", discovery),)) if discovery else None,
        )
        self._heads = Heads(rankings or memory_region(Kind.RANKINGS, 0), scope_of(config))

    async def warm_up(self) -> None:
        """Open a connection to each model service."""
        await asyncio.gather(self._called.embedder.warm_up(), self._called.reranker.warm_up())

    async def route(
        self, record: SearchRecord, caller: EngineOfCaller, call: SearchCall, read_body: ReadBody
    ) -> Routed | NotRouted:
        """Find a search's route and read its per-request options; without a route, the body is not read."""
        found = await guarded(self.router.route(record, caller, call, read_body))
        return NotRouted(call, found) if isinstance(found, Bypass) else found

    async def answer(self, routed: Routed) -> Result:
        """Plan and run a search of a route."""
        prepared = await self.prepare(routed, OwnSearches())
        return await prepared.run() if isinstance(prepared, Prepared) else prepared

    async def prepare(self, routed: Routed, own: OwnSearches, number: int = 0) -> Prepared | Unserved | Bypass:
        """Plan a search of a route."""
        if routed.covered.route.rollout.mode == "shadow":
            return self.planner.not_rolled_out(routed) or self._shadowed(routed)
        return await self._prepare(routed, own, number)

    async def _prepare(self, routed: Routed, own: OwnSearches, number: int = 0) -> Prepared | Unserved | Bypass:
        plan = await guarded(self.planner.plan(routed))
        if isinstance(plan, Bypass):
            return plan
        routed.record.window, routed.record.query_text = plan.window, plan.user_query.text
        record, route, stages = routed.record, plan.route.name, self._stages(routed)
        key = head_key(plan, routed.caller.identity)
        if isinstance(without := await guarded(why_unserved(plan, stages, key)), Unserved | Bypass):
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
            partial(self.router.covered_now, routed),
            self._config.models.passage_max_tokens,
            self._config.engine.added_timeout_seconds,
        )


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


def to_pass_on(routed: Routed, result: Result) -> SearchCall:
    """Return the search to pass on. If no model could serve it, vectors are excluded as if it had been reranked."""
    return without_vectors(routed.call, routed.covered.route) if isinstance(result, Unserved) else routed.call
