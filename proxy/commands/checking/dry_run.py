"""`rerank-proxy check --search`: what `serve` would do with one search body.

The functions of `serve` resolve, parse and plan the search, which needs the engine. It stops before calling a model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import msgspec

from proxy.catalog.indices import Unrouted
from proxy.commands.checking.routes import ADVICE
from proxy.context import SearchRecord
from proxy.endpoints.answering import Searching
from proxy.endpoints.routing import NotRouted, SearchCall
from proxy.errors import Failure, TimedOut, Unreachable, UpstreamError
from proxy.outcomes import BYPASS_REASONS, Bypass, answered, bypassed
from proxy.parsing.query_text import UNRELAXED
from proxy.ranking.planning import Plan, VectorSearch
from proxy.ranking.searches import semantic_search
from proxy.settings.config import Config
from proxy.settings.credentials import authorization_of
from proxy.settings.request_options import Wrong
from proxy.upstream.engine import EngineClient, EngineOfCaller


@dataclass(frozen=True, slots=True)
class DryRun:
    """The outcome a search would have, as in `X-Rerank`, and details."""

    outcome: str
    details: Mapping[str, Any] = field(default_factory=dict)
    failed: bool = False
    """The search would get an error."""


class _NoModels:
    """Takes the place of the models, which a dry run never calls."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"a dry run has no {name}")


async def dry_run(config: Config, environment: Mapping[str, str], call: SearchCall) -> DryRun:
    """Parse and plan a search as `serve` would; raises ConfigError, and UpstreamError if the engine is unreachable."""
    authorization = authorization_of(config, environment)
    carried = (("Authorization", authorization),) if authorization else ()
    patient = msgspec.structs.replace(config.engine, resolve_timeout_seconds=60)  # no client is waiting
    config = msgspec.structs.replace(config, engine=patient)
    engine = EngineClient(config.engine)
    try:
        caller = engine.for_caller(b"check", carried)
        await reach(caller, call)
        models: Any = _NoModels()
        return await _planned(Searching(config, engine, models, models, authorization), caller, call)
    finally:
        await engine.close()


async def _planned(searching: Searching, caller: EngineOfCaller, call: SearchCall) -> DryRun:
    async def body() -> bytes:
        return call.content

    record = SearchRecord("")
    routed = await searching.route(record, caller, call, body)
    if isinstance(routed, NotRouted):
        return _not_routed(record, routed.why)
    plan = await searching.planner.plan(routed)
    route = {"route": record.route}
    if isinstance(plan, Bypass):
        return _bypassed(plan, route)
    details = route | _details(plan)
    if plan.route.rollout.mode == "shadow":
        return _bypassed(Bypass("shadow"), details)
    return DryRun(answered(_failures(plan)).header.decode(), details)


def _not_routed(record: SearchRecord, why: Unrouted | Bypass | Wrong) -> DryRun:
    route = {"route": record.route} if record.route else {}
    match why:
        case Unrouted():
            return DryRun("untouched", {"because": "no route covers any index of this search"})
        case Bypass():
            return _bypassed(why, route)
        case Wrong(reason):
            return DryRun("refused", route | {"because": reason}, failed=True)


def _failures(plan: Plan) -> tuple[Failure, ...]:
    return (plan.unavailable,) if plan.unavailable else ()


async def reach(caller: EngineOfCaller, call: SearchCall) -> None:
    """Check that the engine is reachable: otherwise the only result would be that the search is bypassed."""
    try:
        await caller.resolved(call.indices, call.parameters)
    except (Unreachable, TimedOut):
        raise
    except UpstreamError:
        return


def _bypassed(bypass: Bypass, details: Mapping[str, Any]) -> DryRun:
    """Explain a bypass, with the key or parameter that caused it, and the error."""
    found = {"key": bypass.key, "detail": bypass.detail}
    because = {"because": BYPASS_REASONS[bypass.reason], **{name: said for name, said in found.items() if said}}
    return DryRun(bypassed(bypass).header.decode(), {**details, **because})


def _details(plan: Plan) -> dict[str, Any]:
    request = plan.request
    said: dict[str, Any] = {
        "query_text": plan.user_query.text,
        **({"sent_to_models": plan.sent_text} if plan.sent_text != plan.user_query.text else {}),
        "page": f"from {request.from_}, size {request.size}",
        "window": plan.window,
        "reranker": ", else ".join(plan.rerankers) or "none: the fused order is kept",
    }
    skipped = _why_no_knn(plan)
    if skipped or plan.vectors is None:
        return said | {"kNN": f"skipped: {skipped}"}
    return said | {"kNN": _knn(plan, plan.vectors), "query_without_text": plan.user_query.relaxed}


def _why_no_knn(plan: Plan) -> str:
    """Return why kNN is skipped; empty if it is not."""
    if plan.route.semantic is None:
        return "the route has no `semantic`"
    if plan.unavailable is None:
        return ""
    reason = plan.unavailable.reason
    return f"{reason}: {UNRELAXED.get(reason) or ADVICE[reason]}"


def _knn(plan: Plan, vectors: VectorSearch) -> dict[str, Any]:
    """Return the kNN search of each field as it would be sent, without its vector."""
    bodies = {name: msgspec.json.decode(semantic_search(plan, vectors, name, ()).body) for name in vectors.fields}
    return {"model": vectors.model, "min_similarity": vectors.min_similarity, "searches": bodies}
