"""Runs the stages of one search: retrieval ∥ kNN, fusion, reranking ∥ rendering. A stage that fails is skipped.

Stages return values and never raise: a failure is returned as a Failure beside what succeeded.
"""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import structlog

from proxy.errors import Failure, Lost, Refused, TooComplex, TooLarge, UpstreamError, cause_of
from proxy.outcomes import Bypass
from proxy.parsing.aggregations import facets_of
from proxy.parsing.filter_path import Form
from proxy.ranking.ordering import head_of, make_head, shown_again
from proxy.ranking.paging import Cut, Head, head_page, tail_page
from proxy.ranking.planning import EngineReply, Plan
from proxy.ranking.rendering import (
    Counted,
    Rendered,
    added_facets,
    count_facets,
    in_groups,
    render,
    render_in_groups,
)
from proxy.ranking.repeats import RENDER, looking_ahead, note_saved, observed, repeated
from proxy.ranking.reranking import candidates_of
from proxy.ranking.retrieval import (
    Lexical,
    SemanticHits,
    are_groups,
    confirmed,
    covered,
    group,
    keeps_empty,
    lexical,
    retrieve,
)
from proxy.ranking.search_response import Page, SearchAnswer, render_answer
from proxy.ranking.searches import Facets, head_search, lexical_search, tail_search
from proxy.ranking.stages import Run, Stages

_log = structlog.get_logger("proxy")


@dataclass(frozen=True, slots=True)
class Answered:
    """A reranked search, degraded if there are failures."""

    reply: EngineReply
    """The engine's response that this one is based on."""
    body: bytes
    failures: tuple[Failure, ...]
    candidates: int


@dataclass(frozen=True, slots=True)
class EngineOrder:
    """A bypassed search that is answered from the engine's response, because that is available already."""

    reply: EngineReply
    body: bytes
    why: Bypass


@dataclass(frozen=True, slots=True)
class Relayed:
    """The engine rejected the client's own search; its error is returned to the client."""

    reply: EngineReply
    body: bytes
    why: Bypass


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The response to the client's own search was lost; the engine may have run it, so it is not sent again."""

    error: Lost

    @property
    def why(self) -> Bypass:
        return Bypass("engine_refused", detail=str(self.error), is_fault=True)


@dataclass(frozen=True, slots=True)
class Defect:
    """An error in the proxy after the client's own search was sent, which is therefore not sent again."""

    cause: str

    @property
    def why(self) -> Bypass:
        return Bypass("internal_error", detail=self.cause)


@dataclass(frozen=True, slots=True)
class Unserved:
    """No stage can be run at present, so that the client's own request is passed on, as a degraded search."""

    failures: tuple[Failure, ...]


Result = Answered | EngineOrder | Relayed | Unanswered | Defect | Unserved | Bypass
"""The result of a search; Bypass: pass the client's own request on to the engine."""


async def why_unserved(plan: Plan, stages: Stages, head_key: bytes) -> Unserved | None:
    """Return why a search need not be widened: no model is called at present, and nothing of it is cached.

    A page of a cached ranking is cut from that ranking. The engine's order of the search is cached as well, so that its
    later pages fit when the models are called again.
    """
    if plan.request.is_later_page:
        return None
    failures = [plan.unavailable] if plan.unavailable else []
    not_called: list[partial[None]] = []
    if plan.vectors is not None and plan.user_query.relaxed is not None:
        model, dimensions = plan.vectors.model, plan.vectors.dimensions
        why = await stages.embedder.unavailable(
            plan.sent_text, instruction=plan.instruction, model=model, dimensions=dimensions
        )
        if why is None:
            return None
        failures.append(Failure("semantic", why.reason, str(why)))
        not_called.append(partial(stages.embedder.not_called, model, why))
    for model in plan.rerankers:
        why = await stages.reranker.unavailable(plan.sent_text, instruction=plan.instruction, model=model)
        if why is None:
            return None
        failures.append(Failure("rerank", why.reason, str(why)))
        not_called.append(partial(stages.reranker.not_called, model, why))
    head = await stages.heads.get(head_key) if not_called else None
    if not not_called or (head is not None and not head.untouched):
        return None
    for count in not_called:
        count()
    unserved = Unserved(tuple(dict.fromkeys(failures)))
    counted = plan.request.track_total_hits
    stages.heads.keep(head_key, Head((), None, 0, untouched=True, failures=unserved.failures, counted=counted))
    return unserved


async def run_search(run: Run, head_key: bytes) -> Result:
    """Run a search, or return why the client's own request is passed on instead."""
    try:
        return await (_answer_in_head(run, head_key) if run.plan.in_head else _answer_after_head(run, head_key))
    except UpstreamError as error:
        return result_of_error(error, run.plan.request.form, keeps_empty=run.plan.keeps_empty, changed=True)


def result_of_error(
    error: UpstreamError, form: Form, *, keeps_empty: bool, changed: bool
) -> Relayed | Unanswered | Bypass:
    """Return the result of a client's request that the engine did not answer with 200.

    A request that was sent is not sent again, since that would double the load of an overloaded engine. The exception
    is an error that the proxy's changes (`changed`), such as a wider window, may have caused.
    """
    match error:
        case TooLarge():
            return Bypass("too_large", detail=str(error))
        case TooComplex():
            return Bypass("too_complex", detail=str(error))
        case Refused() if not (changed and _may_be_caused(error)):
            why = Bypass("engine_refused", detail=str(error), is_fault=error.status >= 500)
            body = error.body
            if body.startswith(b"{"):  # `pretty` and the like apply to JSON only
                with suppress(ValueError, RecursionError, TooComplex):
                    body = form.write_refusal(body, keeps_empty=keeps_empty)
            return Relayed(EngineReply(error.status, tuple(error.fields), error.body), body, why)
        case Lost():
            return Unanswered(error)
        case _:
            return Bypass("engine_refused", detail=str(error), is_fault=not isinstance(error, Refused))


def _may_be_caused(refusal: Refused) -> bool:
    return refusal.status == 400 or (refusal.status == 429 and b"circuit_breaking_exception" in refusal.body)


async def _answer_in_head(run: Run, head_key: bytes) -> Result:
    """Answer a page that begins in the head; a later page's own search is sent before the head is looked up."""
    searching = lexical(run, lexical_search(run.plan))
    if not run.plan.request.is_later_page:
        with looking_ahead(run, head_key, None) as informed:
            return await _answer_from(informed, head_key, searching, None)
    own = observed(searching)
    try:
        await asyncio.sleep(0)
        head = await run.stages.heads.get(head_key)
        with looking_ahead(run, head_key, head) as informed:
            return await _answer_from(informed, head_key, own, head)
    finally:
        own.cancel()


async def _answer_from(run: Run, head_key: bytes, own: Awaitable[Lexical], head: Head | None) -> Result:
    """Wait for the client's own search, and for kNN unless the head is cached; then cut the page."""
    plan, semantic = run.plan, SemanticHits()
    if head is None:
        found, semantic = await retrieve(run, own)
    else:
        found = await own
    try:
        run = await _confirmed(run, found.answer, semantic)
        if problem := _not_to_rank(run, found.answer):
            if _is_to_pass_on(plan, found.answer):
                return problem
            return _in_engine_order(run, found, problem)
        return await _ordered(run, head_key, found, semantic, head)
    except TooComplex:
        raise
    except Exception as defect:  # noqa: BLE001  after any error, the engine's order can still be returned
        untouched = _untouched(defect)
        return _answered(run, found, _own_page(run, found, untouched), untouched)


def _is_to_pass_on(plan: Plan, answer: SearchAnswer) -> bool:
    """Whether the client's own request is sent although the engine has answered the widened one.

    Missing shards and the search's own `timeout` are no reason: sending it again would double the client's wait, and
    the load of a cluster that is overloaded, or has just lost nodes.
    """
    if not answer.whole and not answer.is_final:
        return True
    return bool(plan.request.walk and answer.hits)


def _untouched(defect: Exception) -> Head:
    """Log an error in the proxy, and return a head in the engine's own order, with that as its failure."""
    _log.exception("internal_error")
    failure = Failure("rerank", "internal_error", cause_of(defect))
    return Head((), None, 0, untouched=True, failures=(failure,))


def _in_engine_order(run: Run, found: Lexical, why: Bypass) -> EngineOrder:
    """Cut the client's page from the widened response, which starts with the same hits in the same order."""
    if not found.answer.hits:
        return EngineOrder(found.reply, _written(run, found.reply.body), why)
    untouched = Head((), found.answer.total, 0, untouched=True, failures=())
    body = _answered(run, found, _own_page(run, found, untouched), untouched).body
    return EngineOrder(found.reply, body, why)


def _own_page(run: Run, found: Lexical, untouched: Head) -> Page:
    request = run.plan.request
    return head_page(untouched, found.answer, {}, Cut(request.from_, request.size, request.walk), found.answer.total)


async def _ordered(run: Run, head_key: bytes, found: Lexical, semantic: SemanticHits, head: Head | None) -> Answered:
    """Cut a page from a cached head, or from a new one."""
    plan = run.plan
    if head is None:
        head, rendered = await _new_head(run, head_key, found.answer, covered(run, semantic))
    else:
        rendered = await _missing(run, head, found.answer)
    cut = Cut(plan.request.from_, plan.request.size, plan.request.walk)
    extras = head.extras if rendered.failures and not _facets(run, head) else rendered.extras
    total = found.answer.total and found.answer.total.plus(extras, most=plan.request.track_total_hits)
    page = head_page(head, found.answer, rendered.hits, cut, total, keeps_places=bool(rendered.failures))
    return _answered(run, found, replace(page, aggregations=rendered.aggregations), head, rendered.failures)


async def _new_head(run: Run, head_key: bytes, answer: SearchAnswer, semantic: SemanticHits) -> tuple[Head, Rendered]:
    """Rank the candidates, unless the cached ranking was made of the same ones; then only its matches are counted."""
    known = await repeated(run, answer, semantic)
    if known is not None and known.recipe.proof is not None:
        note_saved(run, known.recipe.proof)
        rendered = await render(run, known.recipe.documents.get(RENDER, ()), added_facets(run))
        again = shown_again(run, known, answer, rendered)
        if again == known:
            run.stages.heads.keep(head_key, known)
            return known, rendered
        return await _remembered(run, head_key, answer, again, rendered)
    semantic, groups = await group(run, answer, semantic)
    made = await make_head(run, answer, semantic, groups)
    return await _remembered(run, head_key, answer, *made)


async def _confirmed(run: Run, answer: SearchAnswer, semantic: SemanticHits) -> Run:
    """Resolve the indices again if a hit is from an unknown one; those still unknown count as outside the route."""
    try:
        return await confirmed(run, (*answer.hits, *semantic.hits))
    except UpstreamError:
        return run


async def _missing(run: Run, head: Head, answer: SearchAnswer) -> Rendered:
    """Fetch the documents of a cached head that the client's own search did not return."""
    return await render(run, [key for key in head.keys if key not in answer.by_key], _facets(run, head))


def _facets(run: Run, head: Head) -> Facets:
    """Return the aggregations of the request that count the head's documents, if any do not match its query."""
    return facets_of(run.plan.request.members) if head.extras else {}


async def _remembered(
    run: Run, head_key: bytes, answer: SearchAnswer, head: Head, rendered: Rendered
) -> tuple[Head, Rendered]:
    """Cache a head for later pages, unless a head without failures is cached and the new one has failures.

    Another client with the same credentials may be reading its pages. This page is cut from the cached head, too, so
    that the next page fits, and still reports the failures.
    """
    known = await run.stages.heads.get(head_key) if head.failures else None
    if known is None or known.failures:
        run.stages.heads.keep(head_key, head)
        return head, rendered
    shown = await _missing(run, known, answer)
    return (head, rendered) if shown.failures else (replace(known, failures=head.failures), shown)


async def _answer_after_head(run: Run, head_key: bytes) -> Result:
    """Answer a page after the head with the engine's own page, without the head's documents."""
    head = await _known_head(run, head_key)
    if isinstance(head, Bypass):
        return head
    counting = asyncio.ensure_future(count_facets(run, head.keys, _facets(run, head)))
    try:
        found = await lexical(run, tail_search(run.plan, () if head.untouched else head.places))
        counted = await counting
    finally:
        counting.cancel()
    try:
        run = await _confirmed(run, found.answer, SemanticHits())
        if problem := _unusable(run, found.answer):
            return problem
        if head.extras == len(head.ranking) and keeps_empty(run, found.answer):
            return _in_engine_order(run, found, Bypass("zero_hits"))
        return _answered(run, found, _with_facets(_tail_page(run, head, found), head, counted), head, counted.failures)
    except TooComplex:
        raise
    except Exception as defect:  # noqa: BLE001  as above
        untouched = _untouched(defect)
        return _answered(run, found, _tail_page(run, untouched, found), untouched)


def _tail_page(run: Run, head: Head, found: Lexical) -> Page:
    return tail_page(head, found.answer, most=run.plan.request.track_total_hits)


def _with_facets(page: Page, head: Head, counted: Counted) -> Page:
    """Put the results of `count_facets` into a page; if they are missing, the client's own total is shown, too."""
    own = page.total.plus(-head.extras, most=True) if page.total and counted.failures else page.total
    return replace(page, total=page.total and (counted.total or own), aggregations=counted.aggregations)


async def _known_head(run: Run, head_key: bytes) -> Head | Bypass:
    """Return the cached head, or find which documents are in it; after the head, their order does not matter.

    A cached head whose total was counted with another `track_total_hits` is not used.
    """
    plan = run.plan
    head = await run.stages.heads.get(head_key)
    if head and head.counts(plan.request.track_total_hits):
        return head
    if plan.vectors is None or plan.user_query.relaxed is None:
        return Head((), None, 0, untouched=False, failures=(plan.unavailable,) if plan.unavailable else ())
    found, semantic = await retrieve(run, lexical(run, head_search(plan)))
    if not are_groups(run, found.answer):
        return Bypass("sort")
    run = await _confirmed(run, found.answer, semantic)
    semantic, groups = await group(run, found.answer, covered(run, semantic))
    candidates = candidates_of(run, found.answer, semantic, groups)
    known = {**groups.adopted, **found.answer.by_key}
    rendered = await render_in_groups(run, candidates.keys, known, found.answer, {})
    rendered = replace(rendered, hits={**groups.adopted, **rendered.hits})
    failures = (*semantic.failures, *rendered.failures)
    keeps_places = bool(rendered.failures)  # a document that could not be fetched may be on an earlier page
    ranking = in_groups(run, candidates.ranking, candidates.keys, found.answer, rendered)
    return head_of(run, ranking, found.answer, rendered, groups, failures=failures, keeps_places=keeps_places)


def _not_to_rank(run: Run, answer: SearchAnswer) -> Bypass | None:
    """Return the bypass reason if the client's own response keeps the engine's order."""
    if problem := _unusable(run, answer):
        return problem
    if keeps_empty(run, answer):
        return Bypass("zero_hits")
    return None if are_groups(run, answer) else Bypass("sort")


_PARTIAL = "the engine returned partial results: see `_shards`, `timed_out` and `terminated_early` in the response"


def _unusable(run: Run, answer: SearchAnswer) -> Bypass | None:
    if not answer.whole:
        return Bypass("engine_refused", detail=_PARTIAL)
    if run.plan.outside({hit.key.index for hit in answer.hits}):
        return Bypass("mixed_routes")
    return None


def _answered(run: Run, found: Lexical, page: Page, head: Head, failures: tuple[Failure, ...] = ()) -> Answered:
    failures = tuple(dict.fromkeys((*head.failures, *failures)))
    request = run.plan.request
    body = render_answer(found.answer, page, request.sort, request.hidden)
    return Answered(found.reply, _written(run, body), failures, len(head.ranking))


def _written(run: Run, body: bytes) -> bytes:
    """Apply `filter_path` and the like here: the engine returned everything, because the ranking needs it."""
    return run.plan.request.form.write(body, keeps_empty=run.plan.keeps_empty)
