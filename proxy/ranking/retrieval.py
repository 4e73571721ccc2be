"""The first stage: runs the client's own search and the kNN search in parallel.

If kNN fails, the lexical hits are returned with a Failure; if the client's own search fails, there is no response.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter

import structlog

from proxy.errors import Failure, Malformed, UpstreamError, cause_of
from proxy.ranking.hits import DocKey, Hit
from proxy.ranking.planning import EngineReply, EngineSearch, VectorSearch
from proxy.ranking.reading import read_ahead
from proxy.ranking.search_response import SearchAnswer, read_answer
from proxy.ranking.searches import group_search, semantic_search
from proxy.ranking.stages import Run

_log = structlog.get_logger("proxy")


@dataclass(frozen=True, slots=True)
class Lexical:
    """The engine's response to the client's own search, widened to the window."""

    reply: EngineReply
    answer: SearchAnswer


@dataclass(frozen=True, slots=True)
class SemanticHits:
    """The hits of the kNN search, or why there are none."""

    hits: tuple[Hit, ...] = ()
    failures: tuple[Failure, ...] = ()
    raw: tuple[bytes, ...] = ()
    """The hits of each vector field, in the engine's bytes."""


async def lexical(run: Run, search: EngineSearch) -> Lexical:
    """Run the client's own search; raises UpstreamError."""
    with run.clock.stage("lexical"):
        try:
            reply = await run.stages.engine.search(search)
        finally:
            run.budget.begin()
        run.stages.accepted.note()
        return Lexical(reply, read_answer(reply.body))


async def retrieve(run: Run, own: Awaitable[Lexical]) -> tuple[Lexical, SemanticHits]:
    """Run kNN beside the client's own search, whose time does not count as added time; raises UpstreamError."""
    plan = run.plan
    if plan.vectors is None or plan.user_query.relaxed is None:
        found = await own
        return found, SemanticHits(failures=(plan.unavailable,) if plan.unavailable else ())
    if plan.request.sort.leading:
        return await _one_after_the_other(run, own, plan.vectors)
    may_cost = asyncio.Event()
    if run.stages.accepted.lately():
        may_cost.set()
    searching = asyncio.ensure_future(_semantic(run, plan.vectors, may_cost))
    try:
        found = await own
        if keeps_empty(run, found.answer) or not found.answer.whole:
            return found, SemanticHits()
        may_cost.set()
        await read_ahead(run, found.answer, searching)
        return found, await searching
    finally:
        searching.cancel()


async def _one_after_the_other(
    run: Run, own: Awaitable[Lexical], vectors: VectorSearch
) -> tuple[Lexical, SemanticHits]:
    """Wait for the hits first: if the leading sort keys (price, date) are all distinct, no model call is needed."""
    found = await own
    if keeps_empty(run, found.answer) or not found.answer.whole or not are_groups(run, found.answer):
        return found, SemanticHits()
    may_cost = asyncio.Event()
    may_cost.set()
    return found, await _semantic(run, vectors, may_cost)


def keeps_empty(run: Run, answer: SearchAnswer) -> bool:
    """Whether the response stays empty: the client's own search finds nothing, and the route keeps empty results."""
    return answer.found_nothing and run.plan.route.on_zero_hits == "keep_empty"


def are_groups(run: Run, answer: SearchAnswer) -> bool:
    """Whether any hits have equal leading sort values, within which they can be reranked; true without such keys.

    False if a hit lacks these values, since its group is unknown.
    """
    hits, leading = answer.hits[: run.plan.window], run.plan.request.sort.leading
    if not leading or len(hits) < 2:
        return True
    values = [hit.sort_values(leading) for hit in hits]
    return all(len(each) == leading for each in values) and len(set(values)) < len(hits)


async def _semantic(run: Run, vectors: VectorSearch, may_cost: asyncio.Event) -> SemanticHits:
    """Return the neighbours; after an error in the proxy, none."""
    try:
        return await _neighbours(run, vectors, may_cost)
    except Exception as defect:  # noqa: BLE001  after any error, the client's own hits can still be reranked
        _log.exception("internal_error")
        return SemanticHits(failures=(Failure("semantic", "internal_error", cause_of(defect)),))


async def _neighbours(run: Run, vectors: VectorSearch, may_cost: asyncio.Event) -> SemanticHits:
    """Embed the query and run kNN, in the part of the budget that is not reserved for the reranker."""
    plan, embedder = run.plan, run.stages.embedder
    if plan.in_head:
        run = replace(run, budget=run.budget.less(plan.reserved_seconds))
    text, instruction, model = plan.sent_text, plan.instruction, vectors.model
    if not may_cost.is_set() and not await embedder.remembers(
        text, instruction=instruction, model=model, dimensions=vectors.dimensions
    ):
        await may_cost.wait()
    with run.clock.stage("embed"):
        embedded = await embedder.embed_query(
            text, instruction=instruction, model=model, dimensions=vectors.dimensions, budget=run.budget
        )
    if embedded.error is not None:
        return SemanticHits(failures=(Failure("semantic", embedded.error.reason, str(embedded.error)),))
    with run.clock.stage("semantic"):
        async with asyncio.TaskGroup() as tasks:
            searching = [tasks.create_task(_nearest(run, vectors, field, embedded.vector)) for field in vectors.fields]
    return _merged(run, [each.result() for each in searching])


async def _nearest(run: Run, vectors: VectorSearch, field: str, vector: Sequence[float]) -> SemanticHits:
    try:
        search = semantic_search(run.plan, vectors, field, vector)
        async with run.budget.limit():
            reply = await run.stages.engine.add(search, vectors.timeout_seconds)
        answer = read_answer(reply.body)
    except UpstreamError as error:
        return SemanticHits(failures=(Failure("semantic", error.reason, str(error)),))
    if not answer.whole:
        return SemanticHits(failures=(Failure("semantic", "partial"),))
    return SemanticHits(answer.hits, raw=(answer.hits_members["hits"],))


def _merged(run: Run, found: Sequence[SemanticHits]) -> SemanticHits:
    """Merge the hits of all vector fields by score, which is comparable between them; a document counts once.

    The result is cut to the window: some engines return k hits per shard.
    """
    best: dict[DocKey, Hit] = {}
    for hit in sorted(chain.from_iterable([each.hits for each in found]), key=attrgetter("score"), reverse=True):
        best.setdefault(hit.key, hit)
    partly = (run.plan.unavailable,) if run.plan.unavailable else ()
    failures = dict.fromkeys((*partly, *chain.from_iterable([each.failures for each in found])))
    raw = tuple(hits for each in found for hits in each.raw)
    return SemanticHits(tuple(best.values())[: run.plan.window], tuple(failures), raw)


async def confirmed(run: Run, hits: Iterable[Hit]) -> Run:
    """Resolve the indices of the search again if a hit comes from an index that is not known to be inside the route."""
    if not run.plan.outside({hit.key.index for hit in hits}):
        return run
    async with run.budget.limit():
        covered = await run.stages.covered_now()
    return replace(run, plan=replace(run.plan, covered=covered))


def covered(run: Run, semantic: SemanticHits) -> SemanticHits:
    """Drop hits of kNN outside the route, so that none of their text is sent to a model.

    Those of an index whose vectors are not known are dropped as well: they may be of another model.
    """
    indices, vectors = {hit.key.index for hit in semantic.hits}, run.plan.vectors
    outside = run.plan.outside(indices)
    if vectors is not None:
        outside |= vectors.unseen(indices)
    return replace(semantic, hits=tuple([hit for hit in semantic.hits if hit.key.index not in outside]))


@dataclass(frozen=True, slots=True)
class Groups:
    """The collapse value of each hit, and the hit that represents each value: if possible, a lexical one."""

    of: dict[DocKey, bytes | None]
    representative: dict[bytes | None, DocKey]
    adopted: Mapping[DocKey, Hit]
    """Representatives fetched for groups that only kNN ranked in the window; the client's own query matches them."""


NO_GROUPS = Groups({}, {}, {})


async def group(run: Run, answer: SearchAnswer, semantic: SemanticHits) -> tuple[SemanticHits, Groups]:
    """Choose the representative of each group of collapsed hits; does nothing without `collapse`.

    The representatives of groups that only kNN found are fetched from the engine; if that fails, these groups are
    dropped.
    """
    path = run.plan.request.collapse
    if path is None:
        return semantic, NO_GROUPS
    of = {hit.key: hit.group(path) for hit in (*semantic.hits, *answer.hits)}
    known = {of[hit.key]: hit.key for hit in reversed(answer.hits)}
    unknown = {of[hit.key]: hit.key for hit in reversed(semantic.hits) if of[hit.key] not in known}
    if not unknown:
        return semantic, Groups(of, known, {})
    try:
        found = await run.search("groups", group_search(run.plan, list(unknown)))
        if outside := run.plan.outside({hit.key.index for hit in found.hits}):
            raise Malformed("engine", f"{min(outside)} is outside the route")
    except UpstreamError as error:
        of_known_groups = tuple(hit for hit in semantic.hits if of[hit.key] in known)
        failure = Failure("semantic", error.reason, str(error))
        return SemanticHits(of_known_groups, (*semantic.failures, failure)), Groups(of, known, {})
    of |= {hit.key: hit.group(path) for hit in found.hits}
    adopted = {of[hit.key]: hit.key for hit in found.hits}
    return semantic, Groups(of, unknown | adopted | known, found.by_key)
