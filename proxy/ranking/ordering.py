"""The second stage: fuses, reranks and renders the candidates into the head of the ranking.

If the reranker fails, the fused order is kept, with a Failure.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from proxy.bounds import REDACTION_MARGIN
from proxy.errors import Busy, Failure, Malformed, SlowModel, UpstreamError, Withheld
from proxy.parsing.json_text import read
from proxy.ranking.boosts import Measured, boosted, measure
from proxy.ranking.explaining import Explanation, Kept, Origin, hash_of
from proxy.ranking.fusion import blend, reorder
from proxy.ranking.hits import DocKey, Hit, Ranking, Scored, keys
from proxy.ranking.kept import Likeness, QueryWords, Source, in_place, kept_hits, likeness
from proxy.ranking.paging import Head, fuse, pinned_first
from proxy.ranking.planning import Plan, Relevance
from proxy.ranking.reranking import passage_text
from proxy.ranking.retrieval import Groups, SemanticHits
from proxy.ranking.search_response import SearchAnswer
from proxy.ranking.searches import MATCHED, passage_search, render_search
from proxy.ranking.stages import Run
from proxy.settings.profiles import blend_of


@dataclass(frozen=True, slots=True)
class Candidates:
    """The top documents of the fused ranking, which will be reranked."""

    ranking: Ranking
    semantic: Sequence[DocKey]

    @property
    def keys(self) -> tuple[DocKey, ...]:
        return keys(self.ranking)


def candidates_of(run: Run, answer: SearchAnswer, semantic: SemanticHits, groups: Groups) -> Candidates:
    """Fuse the two retrievers, without documents that only kNN found and that are below the minimum similarity."""
    plan = run.plan
    lexical = [hit.key for hit in answer.hits[: plan.window]]
    found = set(lexical)
    near: dict[DocKey, None] = {}
    for hit in semantic.hits:
        key = groups.representative.get(groups.of.get(hit.key), hit.key) if groups.of else hit.key
        if key in found or (plan.vectors is not None and plan.vectors.is_near(hit.score)):
            near.setdefault(key)
    return Candidates(fuse(plan.route, lexical, list(near), plan.window), tuple(near))


@dataclass(frozen=True, slots=True)
class Reranked:
    """The candidates in the reranker's order; those without a score follow in the fused order."""

    ranking: Ranking
    failures: tuple[Failure, ...] = ()
    scores: Mapping[DocKey, float] = field(default_factory=dict)
    texts: Mapping[DocKey, str] = field(default_factory=dict)
    likenesses: Mapping[DocKey, Likeness] = field(default_factory=dict)
    tier: str = ""
    """The tier of the model that scored, on a route with `tier: auto`."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """Documents rendered by the client's query, and how many of them do not match it."""

    hits: Mapping[DocKey, Hit] = field(default_factory=dict)
    extras: int = 0
    failures: tuple[Failure, ...] = ()


async def make_head(run: Run, answer: SearchAnswer, semantic: SemanticHits, groups: Groups) -> tuple[Head, Rendered]:
    """Rank the candidates; returns the head and those of its hits that the client's own search did not return."""
    candidates = candidates_of(run, answer, semantic, groups)
    known = {**groups.adopted, **answer.by_key}
    async with asyncio.TaskGroup() as tasks:
        missing = [key for key in candidates.keys if key not in known]
        rendering = tasks.create_task(render_in_groups(run, missing, answer))
        measuring = tasks.create_task(measure(run, candidates.keys, known))
        reranked = await _rerank(run, candidates, answer, semantic)
    rendered = rendering.result()
    rendered = replace(rendered, hits={**groups.adopted, **rendered.hits})
    reordered = bool(semantic.hits or reranked.scores)
    reordered |= run.plan.route.rerank_model is not None and not reranked.failures
    measured = measuring.result()
    failures = (*semantic.failures, *rendered.failures, *reranked.failures, *measured.failures)
    window = answer.hits[: run.plan.window]  # hits after the window are not ranked, however long the page
    kept = kept_hits([hit.key for hit in window], reranked.likenesses)
    ranking = reranked.ranking
    if reordered:
        ranking = boosted(ranking, measured, reranked.scores, [hit.key for hit in window], run.plan.route.boost_power)
    ranking = in_groups(run, in_place(pinned_first(ranking, answer.hits), kept), answer, rendered)
    head = head_of(ranking, answer, rendered, groups, failures)
    explanations = (
        _explanations(candidates, window, semantic, reranked, kept=kept, measured=measured) if run.plan.explains else {}
    )
    untouched, counted = bool(failures) and not reordered, run.plan.request.track_total_hits
    return replace(head, untouched=untouched, explanations=explanations, counted=counted), rendered


def head_of(  # noqa: PLR0913  the parts of a head
    ranking: Ranking,
    answer: SearchAnswer,
    rendered: Rendered,
    groups: Groups,
    failures: tuple[Failure, ...],
    *,
    keeps_places: bool = False,
) -> Head:
    """Build a head, without documents that are neither among the client's own hits nor rendered: they were deleted.

    `keeps_places`: keep these documents in the head, though they are not shown, so that pages after the head fit those
    before.
    """
    there = answer.by_key.keys() | rendered.hits.keys()
    shown = tuple(scored for scored in ranking if keeps_places or scored.key in there)
    return Head(
        shown,
        answer.total and answer.total.plus(rendered.extras),
        rendered.extras,
        untouched=False,
        failures=failures,
        groups={scored.key: groups.of.get(scored.key) for scored in shown} if groups.of else {},
    )


async def _rerank(run: Run, candidates: Candidates, answer: SearchAnswer, semantic: SemanticHits) -> Reranked:
    plan, order = run.plan, candidates.keys
    model = plan.route.rerank_model
    if len(order) < 2 or (model is None and not candidates.semantic):
        return Reranked(candidates.ranking)
    likenesses: Mapping[DocKey, Likeness] = {}
    failures: tuple[Failure, ...] = ()
    try:
        if model is None:
            own = [key for key in order if key in answer.by_key]
            _, likenesses = await _passages(run, own, answer, semantic)
            return Reranked(candidates.ranking, likenesses=likenesses)
        texts, likenesses = await _passages(run, order, answer, semantic)
        if not texts:
            fields = ", ".join(plan.route.passage)
            failure = Failure("rerank", "no_passage", f"no text in {fields}")
            return Reranked(candidates.ranking, (failure,), likenesses=likenesses)
        relevance, model = await _first_scores(run, texts, plan.rerankers)
    except UpstreamError as error:
        failures = () if model is None else (Failure("rerank", error.reason, str(error)),)
        return Reranked(candidates.ranking, failures, likenesses=likenesses)
    failures = _unscored(relevance, len(texts))
    if not relevance.scores:
        return Reranked(candidates.ranking, failures, likenesses=likenesses)
    scores = dict(zip(texts, relevance.scores, strict=False))  # maybe fewer: the others follow in their order
    weight = blend_of(relevance.model or model).weight if plan.route.blend is None else plan.route.blend
    blended = blend(reorder(order, scores), order, weight, plan.route.fusion.rank_constant)
    return Reranked(blended, failures, scores, texts, likenesses, plan.route.tier_of(model))


async def _first_scores(run: Run, texts: Mapping[DocKey, str], models: Sequence[str]) -> tuple[Relevance, str]:
    """Score with the first model that can be called; a failed call is not repeated with another model."""
    first, *others = models
    relevance, model = await _scores(run, texts, first), first
    for other in others:
        if not _passes_on(run, relevance, other):
            continue
        relevance, model = await _scores(run, texts, other), other
    return relevance, model


def _passes_on(run: Run, relevance: Relevance, other: str) -> bool:
    """Whether a search that got no scores calls another model.

    A fallback is for models whose calls are suspended. The faster model of `tier: auto` is also for the time that a
    larger one does not have.
    """
    switch, error = run.plan.route.tier_switch, relevance.error
    if switch is not None and other == switch.fast_model and isinstance(error, SlowModel | Busy):
        return not relevance.scores
    return isinstance(error, Withheld)


async def _scores(run: Run, texts: Mapping[DocKey, str], model: str) -> Relevance:
    async with run.clock.stage("rerank"):
        relevance = await run.stages.reranker.score(
            run.plan.sent_text,
            list(texts.values()),
            instruction=run.plan.instruction,
            model=model,
            budget=run.budget,
        )
    run.usage.add(relevance.charge)
    run.usage.tier = run.plan.route.tier_of(model)
    return relevance


def _unscored(relevance: Relevance, count: int) -> tuple[Failure, ...]:
    if relevance.error is None:
        return ()
    detail = f"{relevance.error} ({len(relevance.scores)} of {count} passages were scored)"
    return (Failure("rerank", relevance.error.reason, detail),)


async def _passages(
    run: Run, order: Sequence[DocKey], answer: SearchAnswer, semantic: SemanticHits
) -> tuple[Mapping[DocKey, str], Mapping[DocKey, Likeness]]:
    """Read the passages from the hits if their `_source` has all fields, otherwise with one more search.

    Returns the texts for the reranker, only of documents inside the route, and the exact matches with the query text.
    """
    plan, room = run.plan, run.stages.passage_max_chars
    known = {hit.key: hit for hit in semantic.hits} if plan.route.rerank_model else {}
    if plan.request.source.shows(plan.read_fields):
        known |= answer.by_key
    unknown = [key for key in order if key not in known]
    if unknown:
        known |= (await run.search("passages", passage_search(plan, unknown))).by_key
    texts, likenesses, typed = {}, {}, QueryWords.of(plan.user_query.text)
    for key in order:
        if key in known:
            source = _source_of(known[key])  # decoded one at a time: it takes many times the memory of its bytes
            likenesses[key] = likeness(typed, source, plan.route.passage, plan.names)
            if plan.covers(key.index) and (text := _sent_of(plan, source, room)):
                texts[key] = text
    return texts, likenesses


def _sent_of(plan: Plan, source: Source, most: int) -> str:
    """Return the passage of a document as the reranker receives it; empty if there is none."""
    return plan.route.redaction.sendable(passage_text(source, plan.route.passage, most + REDACTION_MARGIN), most)


def _source_of(hit: Hit) -> Source:
    """Decode `_source`; a document whose `_source` is unreadable has no text, and keeps its fused rank."""
    try:
        source: Source = read(hit.members["_source"])
    except (KeyError, ValueError, RecursionError):
        return {}
    return source


async def render(run: Run, missing: Sequence[DocKey]) -> Rendered:
    """Fetch documents as the client's query would render them; on failure, documents found by kNN only are dropped."""
    if not missing:
        return Rendered()
    try:
        answer = await run.search("render", render_search(run.plan, missing))
        matched = _doc_count(answer)
    except UpstreamError as error:
        return Rendered(failures=(Failure("semantic", error.reason, str(error)),))
    if not answer.whole:
        return Rendered(failures=(Failure("semantic", "partial"),))
    wanted = set(missing)
    rendered = {hit.key: hit for hit in answer.hits if hit.key in wanted}
    return Rendered(rendered, len(rendered) - matched)


async def render_in_groups(run: Run, missing: Sequence[DocKey], answer: SearchAnswer) -> Rendered:
    """Fetch documents, without those whose leading sort values no hit of the window has: their place is unknown."""
    rendered = await render(run, missing)
    begun = _groups_begun(run, answer)
    if not begun:
        return rendered
    leading = run.plan.request.sort.leading
    kept = [key for key, hit in rendered.hits.items() if hit.sort_values(leading) in begun]
    return rendered if len(kept) == len(rendered.hits) else await render(run, kept)


def in_groups(run: Run, ranking: Ranking, answer: SearchAnswer, rendered: Rendered) -> Ranking:
    """Order by the leading sort keys as the client's own search does, and by the ranking within equal values."""
    begun = _groups_begun(run, answer)
    if not begun:
        return ranking
    leading, hits = run.plan.request.sort.leading, {**rendered.hits, **answer.by_key}
    group = {key: hits[key].sort_values(leading) for key in keys(ranking) if key in hits}
    ordered = sorted((key for key in group if group[key] in begun), key=lambda key: begun[group[key]])
    return tuple(Scored(key, float(len(ordered) - place)) for place, key in enumerate(ordered))


def _groups_begun(run: Run, answer: SearchAnswer) -> dict[tuple[bytes, ...], int]:
    """Return the distinct leading sort values in the window, in order; empty if the score is the first sort key."""
    leading = run.plan.request.sort.leading
    values = (hit.sort_values(leading) for hit in answer.hits[: run.plan.window]) if leading else ()
    return {group: place for place, group in enumerate(dict.fromkeys(values))}


class _Aggregation(msgspec.Struct):
    doc_count: int


_aggregations = msgspec.json.Decoder(dict[str, _Aggregation])


def _doc_count(answer: SearchAnswer) -> int:
    try:
        found: Any = _aggregations.decode(answer.members["aggregations"])
        return int(found[MATCHED].doc_count)
    except (ValueError, KeyError) as error:
        raise Malformed("engine", "no count beside the rendered hits") from error


def _explanations(  # noqa: PLR0913  the results of each stage
    candidates: Candidates,
    window: Sequence[Hit],
    semantic: SemanticHits,
    reranked: Reranked,
    *,
    kept: Mapping[DocKey, Kept],
    measured: Measured,
) -> dict[DocKey, Explanation]:
    lexical = {hit.key: Origin(rank, hit.score) for rank, hit in enumerate(window, start=1)}
    near = {hit.key: Origin(rank, hit.score) for rank, hit in enumerate(semantic.hits, start=1)}
    return {
        scored.key: Explanation(
            lexical.get(scored.key),
            near.get(scored.key),
            scored.score,
            reranked.scores.get(scored.key),
            hash_of(reranked.texts[scored.key]) if scored.key in reranked.texts else None,
            len(reranked.texts.get(scored.key, "")) or None,
            kept.get(scored.key),
            measured.boosts.get(scored.key),
            reranked.tier or None,
        )
        for scored in candidates.ranking
    }
