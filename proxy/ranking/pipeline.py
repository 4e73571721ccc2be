"""Awaits the stages of one search: retrieve ∥, fuse, rerank ∥ render. A stage that fails is left out.

Stages give values, never exceptions: what a stage could not do is a Failure beside what the others could.
"""

from dataclasses import dataclass, replace

from proxy.bypass import Bypass
from proxy.errors import Failure, Malformed, Refused, TooLarge, Unreachable
from proxy.planning import EngineReply
from proxy.ranking.ordering import candidates_of, head_of, in_groups, make_head, render, render_in_groups
from proxy.ranking.paging import Cut, Head, head_page, tail_page
from proxy.ranking.retrieval import Lexical, Semantic, are_groups, group, lexical, retrieve
from proxy.ranking.search_response import Page, SearchAnswer, render_answer
from proxy.ranking.searches import head_search, lexical_search, tail_search
from proxy.ranking.stages import Deadline, Run


@dataclass(frozen=True, slots=True)
class Answered:
    """A search that came to an end here: reranked, or degraded where there are failures."""

    reply: EngineReply
    """The engine's answer that this one is made of."""
    body: bytes
    failures: tuple[Failure, ...]
    candidates: int


@dataclass(frozen=True, slots=True)
class KeptEmpty:
    """The client's own query finds nothing, and so it stays."""

    reply: EngineReply
    body: bytes


Outcome = Answered | KeptEmpty | Bypass


async def run_search(run: Run, head_key: bytes) -> Outcome:
    """Answer a search, or say why the client's own bytes should go on instead."""
    try:
        return await (_near(run, head_key) if run.plan.in_head else _far(run, head_key))
    except TooLarge:
        return Bypass("too_large")
    except (Refused, Unreachable, Malformed):
        return Bypass("engine_refused")


async def _near(run: Run, head_key: bytes) -> Outcome:
    """A page that begins in the head."""
    plan = run.plan
    head = run.stages.heads.get(head_key) if plan.request.from_ or plan.request.walk else None
    semantic, deadline = Semantic(), Deadline()
    if head is None:
        found, semantic, deadline = await retrieve(run, lexical_search(plan))
    else:
        found = await lexical(run, lexical_search(plan))
    if problem := _unusable(run, found.answer):
        return problem
    if _keeps_empty(run, found.answer):
        return _kept_empty(run, found)
    if not are_groups(run, found.answer):
        return Bypass("sort")
    if head is None:
        semantic, groups = await group(run, found.answer, semantic)
        head, rendered = await make_head(run, found.answer, semantic, groups, deadline)
        run.stages.heads.put(head_key, head)
    else:
        rendered = await render(run, [key for key in head.keys if key not in found.answer.by_key])
    cut = Cut(plan.request.from_, plan.request.size, plan.request.walk)
    page = head_page(head, found.answer, rendered.hits, cut)
    return _answered(run, found, page, head, rendered.failures)


async def _far(run: Run, head_key: bytes) -> Outcome:
    """A page behind the head: the engine's own, without the head's documents."""
    head = await _known_head(run, head_key)
    if isinstance(head, Bypass):
        return head
    found = await lexical(run, tail_search(run.plan, () if head.untouched else head.places))
    if problem := _unusable(run, found.answer):
        return problem
    if head.extras == len(head.ranking) and _keeps_empty(run, found.answer):
        return _kept_empty(run, found)
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
    found, semantic, _ = await retrieve(run, head_search(plan))
    if not are_groups(run, found.answer):
        return Bypass("sort")
    semantic, groups = await group(run, found.answer, semantic)
    candidates = candidates_of(run, found.answer, semantic, groups)
    known = {**groups.adopted, **found.answer.by_key}
    rendered = await render_in_groups(run, [key for key in candidates.keys if key not in known], found.answer)
    rendered = replace(rendered, hits={**groups.adopted, **rendered.hits})
    failures = (*semantic.failures, *rendered.failures)
    ranking = in_groups(run, candidates.ranking, found.answer, rendered)
    return head_of(ranking, found.answer, rendered, groups, failures)


def _keeps_empty(run: Run, answer: SearchAnswer) -> bool:
    return answer.found_nothing and run.plan.route.on_zero_hits == "keep_empty"


def _kept_empty(run: Run, found: Lexical) -> KeptEmpty:
    return KeptEmpty(found.reply, _written(run, found.reply.body))


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
