"""The same search made again while its ranking is cached: what it reuses, and what it no longer waits for.

It is known which documents its added searches will ask for, so these searches run in parallel with the client's own. If
the engine then returns the same hits as before, the cached ranking is valid.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from typing import Any

from proxy.context import Reuse
from proxy.errors import Busy, UpstreamError
from proxy.parsing.aggregations import facets_of
from proxy.ranking.paging import Head, Proof, Recipe
from proxy.ranking.planning import EngineSearch
from proxy.ranking.retrieval import SemanticHits
from proxy.ranking.search_response import SearchAnswer
from proxy.ranking.searches import boost_search, passage_search, render_search
from proxy.ranking.stages import AddedSearch, Run

RENDER, PASSAGES, BOOSTS = "render", "passages", "boosts"
_ABOUT_DOCUMENTS = frozenset({RENDER, PASSAGES, BOOSTS})
"""The stages whose added searches ask for documents of a ranking."""


class SearchesAhead:
    """The added searches of a cached ranking, sent before a stage needs them."""

    def __init__(self, run: Run, head_key: bytes) -> None:
        self._run, self._head_key = run, head_key
        self._sent: dict[str, tuple[EngineSearch, asyncio.Future[SearchAnswer]]] = {}
        self._beginning: asyncio.Future[None] | None = None
        self.head: Head | None = None

    def begin(self, head: Head | None) -> None:
        """Send the searches of this head, or of the cached one, if there is one."""
        self._beginning = observed(self._begin(head))

    async def _begin(self, head: Head | None) -> None:
        run = self._run
        if not run.stages.accepted.lately():
            return
        await asyncio.sleep(0)  # the client's own search and kNN, which take longest, are sent first
        self.head = head or await run.stages.heads.get(self._head_key)
        if self.head is not None:
            for stage, search in _searches(run, self.head, is_later_page=head is not None):
                self._sent[stage] = search, observed(run.ask(stage, search))

    async def answer(self, stage: str, search: EngineSearch) -> SearchAnswer | None:
        """Return the response to a search, or None if another one or none was sent; raises UpstreamError.

        After the first call, no further searches are sent early: they would be too late.
        """
        if self._beginning is not None:
            self._beginning.cancel()
        sent, answer = self._sent.get(stage, (None, None))
        if answer is None or sent != search:
            return None
        try:
            return await asyncio.shield(answer)
        except Busy:
            return None

    async def answers(self, stages: Sequence[str]) -> Mapping[str, SearchAnswer] | None:
        """Return the responses of these stages; None if one of them has none."""
        if any(stage not in self._sent for stage in stages):
            return None
        try:
            return {stage: await asyncio.shield(self._sent[stage][1]) for stage in stages}
        except UpstreamError:
            return None

    def cancel(self) -> None:
        """Cancel what is not needed any more."""
        for task in (self._beginning, *(answer for _, answer in self._sent.values())):
            if task is not None:
                task.cancel()


def observed(work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
    """Start a task; asyncio does not report its error if nothing awaits it."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return task


@contextmanager
def looking_ahead(run: Run, head_key: bytes, head: Head | None) -> Iterator[Run]:
    """Send the added searches of a cached ranking while the block runs the client's own search."""
    ahead = SearchesAhead(run, head_key)
    ahead.begin(head)
    try:
        yield replace(run, ahead=ahead)
    finally:
        ahead.cancel()


def _searches(run: Run, head: Head, *, is_later_page: bool) -> Iterator[tuple[str, EngineSearch]]:
    plan, recipe = run.plan, head.recipe
    counts = bool(head.extras) if is_later_page else plan.adds and not plan.request.sort.leading
    for stage, documents in recipe.documents.items():
        if stage == RENDER:
            yield stage, render_search(plan, documents, facets_of(plan.request.members) if counts else {})
        elif stage == BOOSTS and not is_later_page:
            yield stage, boost_search(plan, documents, recipe.words)
        elif stage == PASSAGES and not (is_later_page or plan.request.source.shows(plan.read_fields)):
            yield stage, passage_search(plan, documents)


def recipe_of(run: Run, head: Head, answer: SearchAnswer, semantic: SemanticHits, model: str) -> Recipe:
    """Return what the same search will need if it is made again; `model` scored its candidates."""
    usual: dict[str, AddedSearch] = {}
    others = 0
    places = set(head.keys)
    for added in run.added:
        if added.stage in _ABOUT_DOCUMENTS and added.stage not in usual and places.issuperset(added.documents):
            usual[added.stage] = added
        else:
            others += 1
    words = usual[BOOSTS].words if BOOSTS in usual else 0.0
    recipe = Recipe({stage: added.documents for stage, added in usual.items()}, words)
    in_groups = bool(head.groups) or bool(run.plan.request.sort.leading)
    if others or in_groups or head.failures or run.usage.reuse.sent:
        return recipe
    answers = {stage: added.answer for stage, added in usual.items() if stage != RENDER}
    return replace(recipe, proof=_proof(run, inputs_hash(run, answer, semantic, answers), model))


def _proof(run: Run, inputs: bytes, model: str) -> Proof:
    usage = run.usage
    reuse = usage.reuse
    return Proof(inputs, int(time.time()), model, reuse.cached, reuse.saved_tokens, usage.without_text, usage.tier)


async def repeated(run: Run, answer: SearchAnswer, semantic: SemanticHits) -> Head | None:
    """Return the cached ranking if it was made of the same responses of the engine, and by the model of the plan.

    Rendered hits do not affect the order, so a slow render leaves time to rank again.
    """
    head = run.ahead.head if run.ahead else None
    proof = head.recipe.proof if head else None
    if run.ahead is None or head is None or proof is None or semantic.failures:
        return None
    if proof.model and (proof.model,) != run.plan.rerankers[:1]:
        return None
    added = await run.ahead.answers([stage for stage in head.recipe.documents if stage != RENDER])
    return head if added is not None and proof.hash == inputs_hash(run, answer, semantic, added) else None


def inputs_hash(run: Run, answer: SearchAnswer, semantic: SemanticHits, added: Mapping[str, SearchAnswer]) -> bytes:
    """Hash what determines a ranking besides its key and the models: the hits and the responses of added searches."""
    plan = run.plan
    having = {name: sorted(indices) for name, indices in plan.vectors.having.items()} if plan.vectors else {}
    inputs = sha256(repr((plan.window, plan.names, sorted(plan.covered), having)).encode())
    for stage, each in {"": answer, **added}.items():
        inputs.update(b"\0%s\0" % stage.encode())
        inputs.update(each.hits_members["hits"])
    for hits in semantic.raw:
        inputs.update(b"\0near\0")
        inputs.update(hits)
    return inputs.digest()


def note_saved(run: Run, proof: Proof) -> None:
    """Record the model calls that a cached ranking made unnecessary."""
    run.usage.without_text += proof.without_text
    run.usage.tier = proof.tier
    if proof.passages:
        run.usage.add_reuse(Reuse(cached=proof.passages, saved_tokens=proof.tokens))
        run.budget.purse.saved(proof.model, proof.tokens)
