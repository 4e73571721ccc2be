"""Awaits the stages of one search: retrieve ∥, fuse, rerank ∥ render. A stage that fails is left out.

Stages give values, never exceptions: what a stage could not do is a Failure beside what the others could.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from proxy.dialects import cosine_of
from proxy.errors import Failure, Malformed, Refused, Unreachable, UpstreamError
from proxy.fusion import blend, reorder
from proxy.hits import DocKey, Hit, Ranking, keys
from proxy.paging import Head, fuse, head_page, tail_page
from proxy.planning import (
    MATCHED,
    EngineReply,
    EngineSearch,
    Plan,
    VectorSearch,
    head_search,
    lexical_search,
    passage_search,
    render_search,
    semantic_search,
    tail_search,
)
from proxy.reranking import passage_text
from proxy.search_request import Bypass
from proxy.search_response import Page, SearchAnswer, read_answer, render_answer


class Searches(Protocol):
    """An engine, on behalf of one caller. Raises UpstreamError; Refused for every status but 200."""

    async def search(self, search: EngineSearch, timeout_seconds: float | None = None) -> EngineReply: ...


class Embeds(Protocol):
    async def embed_query(self, text: str, *, instruction: str, model: str, dimensions: int) -> Sequence[float]: ...


class Scores(Protocol):
    async def score(self, query: str, passages: Sequence[str], *, instruction: str, model: str) -> Sequence[float]: ...


class Remembers(Protocol):
    """Heads of rankings, kept for some seconds, so that pages fit together and cost nothing twice."""

    def get(self, key: bytes) -> Head | None: ...
    def put(self, key: bytes, head: Head) -> None: ...


@dataclass(frozen=True, slots=True)
class Stages:
    """Who does what a search needs."""

    engine: Searches
    embedder: Embeds
    reranker: Scores
    heads: Remembers
    passage_max_chars: int


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


Outcome = Answered | KeptEmpty | Bypass


@dataclass(slots=True)
class Clock:
    """How long each stage took, in milliseconds."""

    stages: dict[str, float] = field(default_factory=dict)

    @asynccontextmanager
    async def stage(self, name: str) -> AsyncIterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + (time.perf_counter() - begun) * 1000


@dataclass(frozen=True, slots=True)
class _Retrieved:
    """What the semantic retriever found above its threshold."""

    hits: tuple[Hit, ...] = ()
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rendered:
    """Documents as the client's query shows them, and how many of them it does not match."""

    hits: Mapping[DocKey, Hit] = field(default_factory=dict)
    extras: int = 0
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class _Lexical:
    reply: EngineReply
    answer: SearchAnswer


async def run(plan: Plan, stages: Stages, head_key: bytes, clock: Clock) -> Outcome:
    """Answer a search, or say why the client's own bytes should go on instead."""
    return await _Search(plan, stages, head_key, clock).run()


@dataclass(frozen=True, slots=True)
class _Search:
    """One search on its way; holds what every step needs and nothing that changes but the clock."""

    plan: Plan
    stages: Stages
    head_key: bytes
    clock: Clock

    async def run(self) -> Outcome:
        try:
            return await (self._near() if self.plan.in_head else self._far())
        except (Refused, Unreachable, Malformed):
            return Bypass("engine_refused")

    async def _near(self) -> Outcome:
        """A page that begins in the head."""
        plan = self.plan
        head = self.stages.heads.get(self.head_key) if plan.request.from_ else None
        semantic = _Retrieved()
        if head is None:
            lexical, semantic = await self._retrieve(lexical_search(plan))
        else:
            lexical = await self._lexical(lexical_search(plan))
        if problem := self._unusable(lexical.answer):
            return problem
        if self._keeps_empty(lexical.answer):
            return KeptEmpty(lexical.reply)
        if head is None:
            head, rendered = await self._make_head(lexical.answer, semantic)
        else:
            rendered = await self._render(_missing(head.keys, lexical.answer))
        page = head_page(head, lexical.answer, rendered.hits, plan.request.from_, plan.request.size)
        return self._answered(lexical, page, head, rendered.failures)

    async def _far(self) -> Outcome:
        """A page behind the head: the engine's own, without the head's documents."""
        head = await self._known_head()
        lexical = await self._lexical(tail_search(self.plan, () if head.untouched else head.keys))
        if problem := self._unusable(lexical.answer):
            return problem
        if head.extras == len(head.ranking) and self._keeps_empty(lexical.answer):
            return KeptEmpty(lexical.reply)
        page = tail_page(head, lexical.answer, self.plan.request.track_total_hits)
        return self._answered(lexical, page, head)

    async def _known_head(self) -> Head:
        """Recall the head, or find which documents are in it; their order is of no matter behind it."""
        if head := self.stages.heads.get(self.head_key):
            return head
        if self.plan.vectors is None:
            return Head((), 0, untouched=False, failures=_listed(self.plan.unavailable))
        lexical, semantic = await self._retrieve(head_search(self.plan))
        candidates = self._fuse(lexical.answer, semantic)
        rendered = await self._render(_missing(keys(candidates), lexical.answer))
        shown = _shown(candidates, lexical.answer, rendered)
        return Head(shown, rendered.extras, untouched=False, failures=(*semantic.failures, *rendered.failures))

    def _keeps_empty(self, answer: SearchAnswer) -> bool:
        return answer.found_nothing and self.plan.route.on_zero_hits == "keep_empty"

    def _unusable(self, answer: SearchAnswer) -> Bypass | None:
        if not answer.whole:
            return Bypass("engine_refused")
        if not all(self.plan.covers(hit.key.index) for hit in answer.hits):
            return Bypass("mixed_routes")
        return None

    def _answered(self, lexical: _Lexical, page: Page, head: Head, failures: tuple[Failure, ...] = ()) -> Answered:
        body = render_answer(lexical.answer, page, pretty=self.plan.request.pretty)
        return Answered(lexical.reply, body, tuple(dict.fromkeys((*head.failures, *failures))), len(head.ranking))

    async def _retrieve(self, search: EngineSearch) -> tuple[_Lexical, _Retrieved]:
        """Both retrievers side by side; without the lexical one there is no answer to wait for."""
        if self.plan.vectors is None:
            return await self._lexical(search), _Retrieved(failures=_listed(self.plan.unavailable))
        semantic = asyncio.ensure_future(self._semantic(self.plan.vectors))
        try:
            return await self._lexical(search), await semantic
        finally:
            semantic.cancel()

    async def _lexical(self, search: EngineSearch) -> _Lexical:
        async with self.clock.stage("lexical"):
            reply = await self.stages.engine.search(search)
            return _Lexical(reply, read_answer(reply.body))

    async def _semantic(self, vectors: VectorSearch) -> _Retrieved:
        plan, semantic = self.plan, self.plan.route.semantic
        if plan.user_query.relaxed is None or semantic is None:
            return _Retrieved()
        try:
            async with self.clock.stage("embed"):
                vector = await self.stages.embedder.embed_query(
                    plan.user_query.text,
                    instruction=plan.route.instruction,
                    model=vectors.model,
                    dimensions=vectors.dimensions,
                )
            async with self.clock.stage("semantic"):
                search = semantic_search(plan, vectors, vector, int(semantic.timeout_seconds * 1000))
                reply = await self.stages.engine.search(search, semantic.timeout_seconds)
            return self._retrieved(read_answer(reply.body))
        except UpstreamError as error:
            return _Retrieved(failures=(Failure("semantic", error.reason, str(error)),))

    def _retrieved(self, answer: SearchAnswer) -> _Retrieved:
        if not answer.whole:
            return _Retrieved(failures=(Failure("semantic", "partial"),))
        covered = [hit for hit in answer.hits if self.plan.covers(hit.key.index)]
        return _Retrieved(tuple(covered))

    def _fuse(self, answer: SearchAnswer, semantic: _Retrieved) -> Ranking:
        """Merge the retrievers; what only kNN found must be near enough, since kNN always finds something."""
        lexical = [hit.key for hit in answer.hits[: self.plan.window]]
        found = set(lexical)
        near = [hit.key for hit in semantic.hits if hit.key in found or self._is_near(hit)]
        return fuse(self.plan.route, lexical, near, self.plan.window)

    def _is_near(self, hit: Hit) -> bool:
        vectors = self.plan.vectors
        if vectors is None:
            return False
        similarity = cosine_of(hit.score, vectors.similarity)
        return similarity is not None and similarity >= vectors.min_similarity

    async def _make_head(self, answer: SearchAnswer, semantic: _Retrieved) -> tuple[Head, _Rendered]:
        """Order the candidates, and remember that order for the pages to come."""
        candidates = self._fuse(answer, semantic)
        missing = _missing(keys(candidates), answer)
        async with asyncio.TaskGroup() as tasks:
            rendering = tasks.create_task(self._render(missing))
            ranking, failures = await self._rerank(candidates, answer, semantic)
        rendered = rendering.result()
        reordered = bool(semantic.hits) or (self.plan.route.rerank_model is not None and not failures)
        failures = (*semantic.failures, *rendered.failures, *failures)
        shown = _shown(ranking, answer, rendered)
        head = Head(shown, rendered.extras, untouched=bool(failures) and not reordered, failures=failures)
        self.stages.heads.put(self.head_key, head)
        return head, rendered

    async def _rerank(
        self, candidates: Ranking, answer: SearchAnswer, semantic: _Retrieved
    ) -> tuple[Ranking, tuple[Failure, ...]]:
        route = self.plan.route
        if route.rerank_model is None or len(candidates) < 2:
            return candidates, ()
        order = keys(candidates)
        try:
            texts = await self._passages(order, answer, semantic)
            async with self.clock.stage("rerank"):
                scores = await self.stages.reranker.score(
                    self.plan.user_query.text,
                    list(texts.values()),
                    instruction=route.instruction,
                    model=route.rerank_model,
                )
        except UpstreamError as error:
            return candidates, (Failure("rerank", error.reason, str(error)),)
        reranked = reorder(order, dict(zip(texts, scores, strict=True)))
        return blend(reranked, order, route.blend, route.fusion.rank_constant), ()

    async def _passages(
        self, order: Sequence[DocKey], answer: SearchAnswer, semantic: _Retrieved
    ) -> Mapping[DocKey, str]:
        """Find the candidates' texts: in the hits where they show them whole, else by one more search."""
        known = {hit.key: hit for hit in semantic.hits}
        if self.plan.request.source.shows(self.plan.route.passage):
            known |= answer.by_key
        unknown = [key for key in order if key not in known]
        if unknown:
            async with self.clock.stage("passages"):
                reply = await self.stages.engine.search(passage_search(self.plan, unknown))
                known |= read_answer(reply.body).by_key
        texts = {key: self._text(known[key]) for key in order if key in known}
        return {key: text for key, text in texts.items() if text}

    def _text(self, hit: Hit) -> str:
        source = hit.members.get("_source")
        decoded = msgspec.json.decode(source) if source is not None else {}
        return passage_text(decoded, self.plan.route.passage, self.stages.passage_max_chars)

    async def _render(self, missing: Sequence[DocKey]) -> _Rendered:
        """Fetch documents as the client's query would show them; without that, what kNN alone found is left out."""
        if not missing:
            return _Rendered()
        async with self.clock.stage("render"):
            try:
                answer = read_answer((await self.stages.engine.search(render_search(self.plan, missing))).body)
                matched = _doc_count(answer)
            except UpstreamError as error:
                return _Rendered(failures=(Failure("semantic", error.reason, str(error)),))
        if not answer.whole:
            return _Rendered(failures=(Failure("semantic", "partial"),))
        wanted = set(missing)
        rendered = {hit.key: hit for hit in answer.hits if hit.key in wanted}
        return _Rendered(rendered, len(rendered) - matched)


def _shown(ranking: Ranking, answer: SearchAnswer, rendered: _Rendered) -> Ranking:
    """Leave out what is neither in the client's own hits nor rendered: it has gone, or could not be fetched."""
    shown = answer.by_key.keys() | rendered.hits.keys()
    return tuple(scored for scored in ranking if scored.key in shown)


def _missing(candidates: Sequence[DocKey], answer: SearchAnswer) -> tuple[DocKey, ...]:
    known = answer.by_key
    return tuple(key for key in candidates if key not in known)


def _listed(failure: Failure | None) -> tuple[Failure, ...]:
    return () if failure is None else (failure,)


class _Aggregation(msgspec.Struct):
    doc_count: int


_aggregations = msgspec.json.Decoder(dict[str, _Aggregation])


def _doc_count(answer: SearchAnswer) -> int:
    try:
        found: Any = _aggregations.decode(answer.members["aggregations"])
        return int(found[MATCHED].doc_count)
    except (msgspec.MsgspecError, KeyError) as error:
        raise Malformed("engine", "no count beside the rendered hits") from error
