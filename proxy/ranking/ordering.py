"""The second stage: candidates fused, reranked and rendered, each document once, as the head of the ranking.

A reranker that fails is a Failure beside the fused order.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from proxy.errors import Failure, Malformed, UpstreamError, Withheld
from proxy.parsing.json_text import read
from proxy.ranking.boosts import Measured, boosted, measure
from proxy.ranking.explaining import Explanation, Kept, Origin, hash_of
from proxy.ranking.fusion import blend, reorder
from proxy.ranking.hits import DocKey, Hit, Ranking, Scored, keys
from proxy.ranking.kept import Likeness, Source, in_place, kept_hits, likeness
from proxy.ranking.paging import Head, fuse, pinned_first
from proxy.ranking.planning import Relevance
from proxy.ranking.reranking import passage_text
from proxy.ranking.retrieval import Groups, SemanticHits
from proxy.ranking.search_response import SearchAnswer
from proxy.ranking.searches import MATCHED, passage_search, render_search
from proxy.ranking.stages import Run
from proxy.settings.profiles import blend_of


@dataclass(frozen=True, slots=True)
class Candidates:
    """The first documents of the fused order."""

    ranking: Ranking
    semantic: Sequence[DocKey]

    @property
    def keys(self) -> tuple[DocKey, ...]:
        return keys(self.ranking)


def candidates_of(run: Run, answer: SearchAnswer, semantic: SemanticHits, groups: Groups) -> Candidates:
    """Merge the retrievers; what only kNN found must be near enough, since kNN always finds something."""
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
    """The candidates in the reranker's order as far as they are scored, then in the fused one."""

    ranking: Ranking
    failures: tuple[Failure, ...] = ()
    scores: Mapping[DocKey, float] = field(default_factory=dict)
    texts: Mapping[DocKey, str] = field(default_factory=dict)
    likenesses: Mapping[DocKey, Likeness] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rendered:
    """Documents as the client's query shows them, and how many of them it does not match."""

    hits: Mapping[DocKey, Hit] = field(default_factory=dict)
    extras: int = 0
    failures: tuple[Failure, ...] = ()


async def make_head(run: Run, answer: SearchAnswer, semantic: SemanticHits, groups: Groups) -> tuple[Head, Rendered]:
    """Order the candidates; returns that order and the hits of it that the client's own search did not bring."""
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
    window = answer.hits[: run.plan.window]  # what lies behind it counted for nothing, however long the page
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


def head_of(  # noqa: PLR0913  what the answer is made of
    ranking: Ranking,
    answer: SearchAnswer,
    rendered: Rendered,
    groups: Groups,
    failures: tuple[Failure, ...],
    *,
    keeps_places: bool = False,
) -> Head:
    """Make a head of what there is: what was neither in the client's own hits nor rendered has gone.

    With `keeps_places` it is only not shown, so that the pages behind the head still fit those before.
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
        relevance, model = await _first_scores(run, texts, (model, *plan.route.rerank_fallbacks))
    except UpstreamError as error:
        failures = () if model is None else (Failure("rerank", error.reason, str(error)),)
        return Reranked(candidates.ranking, failures, likenesses=likenesses)
    failures = _unscored(relevance, len(texts))
    if not relevance.scores:
        return Reranked(candidates.ranking, failures, likenesses=likenesses)
    scores = dict(zip(texts, relevance.scores, strict=False))  # of a prefix: what follows it keeps its order behind it
    weight = blend_of(relevance.model or model).weight if plan.route.blend is None else plan.route.blend
    blended = blend(reorder(order, scores), order, weight, plan.route.fusion.rank_constant)
    return Reranked(blended, failures, scores, texts, likenesses)


async def _first_scores(run: Run, texts: Mapping[DocKey, str], models: Sequence[str]) -> tuple[Relevance, str]:
    """Ask the first of the models that is called at the moment; one that was called and failed is not replaced."""
    first, *others = models
    relevance, model = await _scores(run, texts, first), first
    for other in others:
        if not isinstance(relevance.error, Withheld):
            break
        relevance, model = await _scores(run, texts, other), other
    return relevance, model


async def _scores(run: Run, texts: Mapping[DocKey, str], model: str) -> Relevance:
    async with run.clock.stage("rerank"):
        relevance = await run.stages.reranker.score(
            run.plan.user_query.text,
            list(texts.values()),
            instruction=run.plan.instruction,
            model=model,
            budget=run.budget,
        )
    run.usage.add(relevance.charge)
    return relevance


def _unscored(relevance: Relevance, count: int) -> tuple[Failure, ...]:
    if relevance.error is None:
        return ()
    detail = f"{relevance.error} ({len(relevance.scores)} of {count} passages were scored)"
    return (Failure("rerank", relevance.error.reason, detail),)


async def _passages(
    run: Run, order: Sequence[DocKey], answer: SearchAnswer, semantic: SemanticHits
) -> tuple[Mapping[DocKey, str], Mapping[DocKey, Likeness]]:
    """Read the candidates: in the hits where they show all that is read, else by one more search.

    Returns what models see of them, nothing of one outside the route, and in what they are what was typed.
    """
    plan, room = run.plan, run.stages.passage_max_chars
    known = {hit.key: hit for hit in semantic.hits} if plan.route.rerank_model else {}
    if plan.request.source.shows(plan.read_fields):
        known |= answer.by_key
    unknown = [key for key in order if key not in known]
    if unknown:
        known |= (await run.search("passages", passage_search(plan, unknown))).by_key
    texts, likenesses = {}, {}
    for key in order:
        if key in known:
            source = _source_of(known[key])  # one at a time: read, it takes many times its bytes
            likenesses[key] = likeness(plan.user_query.text, source, plan.route.passage, plan.names)
            if plan.covers(key.index) and (text := passage_text(source, plan.route.passage, room)):
                texts[key] = text
    return texts, likenesses


def _source_of(hit: Hit) -> Source:
    """What cannot be read has no text, and stays where the retrievers put it."""
    try:
        source: Source = read(hit.members["_source"])
    except (KeyError, ValueError, RecursionError):
        return {}
    return source


async def render(run: Run, missing: Sequence[DocKey]) -> Rendered:
    """Fetch documents as the client's query would show them; without that, what kNN alone found is left out."""
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
    """Fetch documents, and leave out those of a group that the window has not begun: their place is not known."""
    rendered = await render(run, missing)
    begun = _groups_begun(run, answer)
    if not begun:
        return rendered
    leading = run.plan.request.sort.leading
    kept = [key for key, hit in rendered.hits.items() if hit.sort_values(leading) in begun]
    return rendered if len(kept) == len(rendered.hits) else await render(run, kept)


def in_groups(run: Run, ranking: Ranking, answer: SearchAnswer, rendered: Rendered) -> Ranking:
    """Keep the client's order of groups, where keys come before the score, and the ranking inside each of them."""
    begun = _groups_begun(run, answer)
    if not begun:
        return ranking
    leading, hits = run.plan.request.sort.leading, {**rendered.hits, **answer.by_key}
    group = {key: hits[key].sort_values(leading) for key in keys(ranking) if key in hits}
    ordered = sorted((key for key in group if group[key] in begun), key=lambda key: begun[group[key]])
    return tuple(Scored(key, float(len(ordered) - place)) for place, key in enumerate(ordered))


def _groups_begun(run: Run, answer: SearchAnswer) -> dict[tuple[bytes, ...], int]:
    """The groups that the window has begun, in order; empty where no key comes before the score."""
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


def _explanations(  # noqa: PLR0913  what each stage says
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
        )
        for scored in candidates.ranking
    }
