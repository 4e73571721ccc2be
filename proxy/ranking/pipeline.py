"""Awaits the stages of one search: retrieve ∥, fuse, rerank ∥ render. A stage that fails is left out.

Stages give values, never exceptions: what a stage could not do is a Failure beside what the others could.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import structlog

from proxy.errors import Failure, Lost, Refused, TooComplex, TooLarge, UpstreamError, cause_of
from proxy.outcomes import Bypass
from proxy.ranking.ordering import (
    Rendered,
    candidates_of,
    head_of,
    in_groups,
    make_head,
    render,
    render_in_groups,
)
from proxy.ranking.paging import Cut, Head, head_page, tail_page
from proxy.ranking.planning import EngineReply
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
from proxy.ranking.searches import head_search, lexical_search, tail_search
from proxy.ranking.stages import Run

_log = structlog.get_logger("proxy")


@dataclass(frozen=True, slots=True)
class Answered:
    """A search that came to an end here: reranked, or degraded where there are failures."""

    reply: EngineReply
    """The engine's answer that this one is made of."""
    body: bytes
    failures: tuple[Failure, ...]
    candidates: int


@dataclass(frozen=True, slots=True)
class EngineOrder:
    """The client's own search, answered in the engine's order; it is not sent again only to be left alone."""

    reply: EngineReply
    body: bytes
    why: Bypass


@dataclass(frozen=True, slots=True)
class Relayed:
    """The engine refused the client's own search for a reason of its own: its error is the answer."""

    reply: EngineReply
    body: bytes
    why: Bypass


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The client's own search was sent and lost; since the engine may have run it, it is not sent again."""

    error: Lost

    @property
    def why(self) -> Bypass:
        return Bypass("engine_refused", detail=str(self.error), is_fault=True)


@dataclass(frozen=True, slots=True)
class Defect:
    """The proxy itself failed after the client's own search was sent, which is therefore not sent again."""

    cause: str

    @property
    def why(self) -> Bypass:
        return Bypass("internal_error", detail=self.cause)


Result = Answered | EngineOrder | Relayed | Unanswered | Defect | Bypass
"""What came of a search; a Bypass leaves it to the engine, in the client's own bytes."""


async def run_search(run: Run, head_key: bytes) -> Result:
    """Answer a search, or say why the client's own bytes should go on instead."""
    try:
        return await (_near(run, head_key) if run.plan.in_head else _far(run, head_key))
    except UpstreamError as error:
        return failed(error, partial(_written, run), changed=True)


def failed(error: UpstreamError, write: Callable[[bytes], bytes], *, changed: bool) -> Relayed | Unanswered | Bypass:
    """Say what becomes of a request of the client's that the engine did not answer as one wishes.

    What was sent is not sent again, since an engine that is overloaded would have twice the work. The one exception is
    a refusal that `changed` may have caused, what differs from the client's own bytes, such as a wider window.
    """
    match error:
        case TooLarge():
            return Bypass("too_large", detail=str(error))
        case TooComplex():
            return Bypass("too_complex", detail=str(error))
        case Refused() if not (changed and _may_be_caused(error)):
            why = Bypass("engine_refused", detail=str(error), is_fault=error.status >= 500)
            body = error.body
            if body.startswith(b"{"):  # what is no JSON has no form that could have been asked for
                with suppress(ValueError, RecursionError, TooComplex):
                    body = write(body)
            return Relayed(EngineReply(error.status, tuple(error.fields), error.body), body, why)
        case Lost():
            return Unanswered(error)
        case _:
            return Bypass("engine_refused", detail=str(error), is_fault=not isinstance(error, Refused))


def _may_be_caused(refusal: Refused) -> bool:
    return refusal.status == 400 or (refusal.status == 429 and b"circuit_breaking_exception" in refusal.body)


async def _near(run: Run, head_key: bytes) -> Result:
    """A page that begins in the head."""
    plan = run.plan
    head = run.stages.heads.get(head_key) if plan.request.from_ or plan.request.walk else None
    semantic = SemanticHits()
    if head is None:
        found, semantic = await retrieve(run, lexical_search(plan))
    else:
        found = await lexical(run, lexical_search(plan))
    run = await _confirmed(run, found.answer, semantic)
    if problem := _not_to_rank(run, found.answer):
        if not found.answer.whole or (plan.request.walk and found.answer.hits):
            return problem
        return _in_engine_order(run, found, problem)
    try:
        return await _ordered(run, head_key, found, semantic, head)
    except Exception as defect:  # noqa: BLE001  whatever it is, the engine has answered
        _log.exception("internal_error")
        return _as_the_engine_answered(run, found, Failure("rerank", "internal_error", cause_of(defect)))


def _as_the_engine_answered(run: Run, found: Lexical, failure: Failure) -> Answered:
    """Cut the page from the engine's own order."""
    untouched = Head((), found.answer.total, 0, untouched=True, failures=(failure,))
    return _answered(run, found, _own_page(run, found, untouched), untouched)


def _in_engine_order(run: Run, found: Lexical, why: Bypass) -> EngineOrder:
    """Cut the client's page from the widened response, which begins with the same hits in the same order."""
    if not found.answer.hits:
        return EngineOrder(found.reply, _written(run, found.reply.body), why)
    untouched = Head((), found.answer.total, 0, untouched=True, failures=())
    body = _answered(run, found, _own_page(run, found, untouched), untouched).body
    return EngineOrder(found.reply, body, why)


def _own_page(run: Run, found: Lexical, untouched: Head) -> Page:
    request = run.plan.request
    return head_page(untouched, found.answer, {}, Cut(request.from_, request.size, request.walk))


async def _ordered(run: Run, head_key: bytes, found: Lexical, semantic: SemanticHits, head: Head | None) -> Answered:
    """Cut a page from a head that is remembered, or made now."""
    plan = run.plan
    if head is None:
        semantic, groups = await group(run, found.answer, covered(run, semantic))
        made = await make_head(run, found.answer, semantic, groups)
        head, rendered = await _remembered(run, head_key, found.answer, *made)
    else:
        rendered = await _missing(run, head, found.answer)
    cut = Cut(plan.request.from_, plan.request.size, plan.request.walk)
    page = head_page(head, found.answer, rendered.hits, cut, keeps_places=bool(rendered.failures))
    return _answered(run, found, page, head, rendered.failures)


async def _confirmed(run: Run, answer: SearchAnswer, semantic: SemanticHits) -> Run:
    """Know of each hit whether its index is the route's; what could not be asked in time is taken for outside."""
    try:
        return await confirmed(run, (*answer.hits, *semantic.hits))
    except UpstreamError:
        return run


async def _missing(run: Run, head: Head, answer: SearchAnswer) -> Rendered:
    """Fetch the documents of a remembered head that the client's own search did not bring."""
    return await render(run, [key for key in head.keys if key not in answer.by_key])


async def _remembered(
    run: Run, head_key: bytes, answer: SearchAnswer, head: Head, rendered: Rendered
) -> tuple[Head, Rendered]:
    """Remember a head for the next pages; one that was found whole stands before one that lacks a stage.

    Somebody may be reading its pages with the same credentials. This page is cut from it, too, so that the next one
    fits, and still reports what failed.
    """
    known = run.stages.heads.get(head_key)
    if not head.failures or known is None or known.failures:
        run.stages.heads.put(head_key, head)
        return head, rendered
    shown = await _missing(run, known, answer)
    return (head, rendered) if shown.failures else (replace(known, failures=head.failures), shown)


async def _far(run: Run, head_key: bytes) -> Result:
    """A page behind the head: the engine's own, without the head's documents."""
    head = await _known_head(run, head_key)
    if isinstance(head, Bypass):
        return head
    found = await lexical(run, tail_search(run.plan, () if head.untouched else head.places))
    run = await _confirmed(run, found.answer, SemanticHits())
    if problem := _unusable(run, found.answer):
        return problem
    if head.extras == len(head.ranking) and keeps_empty(run, found.answer):
        return _in_engine_order(run, found, Bypass("zero_hits"))
    return _answered(run, found, tail_page(head, found.answer), head)


async def _known_head(run: Run, head_key: bytes) -> Head | Bypass:
    """Recall the head, or find which documents are in it; their order is of no matter behind it.

    One whose total was counted otherwise than this page asks for is no help to it.
    """
    plan = run.plan
    head = run.stages.heads.get(head_key)
    if head and head.counts(plan.request.track_total_hits):
        return head
    if plan.vectors is None or plan.user_query.relaxed is None:
        return Head((), None, 0, untouched=False, failures=(plan.unavailable,) if plan.unavailable else ())
    found, semantic = await retrieve(run, head_search(plan))
    if not are_groups(run, found.answer):
        return Bypass("sort")
    run = await _confirmed(run, found.answer, semantic)
    semantic, groups = await group(run, found.answer, covered(run, semantic))
    candidates = candidates_of(run, found.answer, semantic, groups)
    known = {**groups.adopted, **found.answer.by_key}
    rendered = await render_in_groups(run, [key for key in candidates.keys if key not in known], found.answer)
    rendered = replace(rendered, hits={**groups.adopted, **rendered.hits})
    failures = (*semantic.failures, *rendered.failures)
    keeps_places = bool(rendered.failures)  # they may stand on a page before this one
    ranking = in_groups(run, candidates.ranking, found.answer, rendered)
    return head_of(ranking, found.answer, rendered, groups, failures, keeps_places=keeps_places)


def _not_to_rank(run: Run, answer: SearchAnswer) -> Bypass | None:
    """Return why the client's own response stays in the engine's order."""
    if problem := _unusable(run, answer):
        return problem
    if keeps_empty(run, answer):
        return Bypass("zero_hits")
    return None if are_groups(run, answer) else Bypass("sort")


def _unusable(run: Run, answer: SearchAnswer) -> Bypass | None:
    if not answer.whole:
        return Bypass("engine_refused")
    if not all(run.plan.covers(hit.key.index) for hit in answer.hits):
        return Bypass("mixed_routes")
    return None


def _answered(run: Run, found: Lexical, page: Page, head: Head, failures: tuple[Failure, ...] = ()) -> Answered:
    failures = tuple(dict.fromkeys((*head.failures, *failures)))
    request = run.plan.request
    body = render_answer(found.answer, page, request.sort, request.hidden)
    return Answered(found.reply, _written(run, body), failures, len(head.ranking))


def _written(run: Run, body: bytes) -> bytes:
    """Write an answer in the form that was asked for: the engine was not told, since the order is made of all of it."""
    return run.plan.request.form.write(body, keeps_empty=run.plan.keeps_empty)
