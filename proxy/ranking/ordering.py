"""The second stage: fuses, reranks and renders the candidates into the head of the ranking.

If the reranker fails, the fused order is kept, with a Failure.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from proxy.errors import Busy, Failure, Malformed, SlowModel, UpstreamError, Withheld
from proxy.parsing.aggregations import facets_of
from proxy.parsing.json_text import members_of
from proxy.ranking.boosts import Measured, boosted, measure
from proxy.ranking.explaining import Explanation, Kept, Origin, text_hash
from proxy.ranking.fusion import blend, completed, reorder
from proxy.ranking.hits import DocKey, Hit, Ranking, Scored, keys
from proxy.ranking.kept import Likeness, in_place, kept_hits
from proxy.ranking.paging import NO_RECIPE, Head, fuse, pinned_first
from proxy.ranking.planning import Relevance
from proxy.ranking.reading import read_documents
from proxy.ranking.repeats import recipe_of
from proxy.ranking.retrieval import NO_GROUPS, Groups, SemanticHits
from proxy.ranking.search_response import RawMembers, SearchAnswer, Total
from proxy.ranking.searches import Facets, facet_search, matched, passage_search, render_search
from proxy.ranking.stages import Run
from proxy.settings.profiles import blend_of

_TURNS_TO_WRITE = 8
"""Turns of the event loop until a request to the reranker is written: by the tasks of the search, the call and
aiohttp."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The top documents of the fused ranking, which will be reranked."""

    ranking: Ranking
    semantic: Sequence[DocKey]
    keys: tuple[DocKey, ...]


def candidates_of(run: Run, answer: SearchAnswer, semantic: SemanticHits, groups: Groups) -> Candidates:
    """Fuse the two retrievers, without documents that only kNN found and that are below the minimum similarity."""
    plan = run.plan
    lexical = [hit.key for hit in answer.hits[: plan.window]]
    found = set(lexical)
    semantic_keys: dict[DocKey, None] = {}
    for hit in semantic.hits:
        key = groups.representative.get(groups.of.get(hit.key), hit.key) if groups.of else hit.key
        if key in found or (plan.vectors is not None and plan.vectors.is_near(hit.score)):
            semantic_keys.setdefault(key)
    ranking = fuse(plan.route, lexical, list(semantic_keys), plan.window)
    return Candidates(ranking, tuple(semantic_keys), keys(ranking))


@dataclass(frozen=True, slots=True)
class Reranked:
    """The candidates in the reranker's order; those without a score follow in the fused order."""

    ranking: Ranking
    failures: tuple[Failure, ...] = ()
    scores: Mapping[DocKey, float] = field(default_factory=dict)
    texts: Mapping[DocKey, str] = field(default_factory=dict)
    """The passage of each document that has its score."""
    likenesses: Mapping[DocKey, Likeness] = field(default_factory=dict)
    model: str = ""
    """The model that scored."""
    tier: str = ""
    """The tier of the model that scored, on a route with `tier: auto`."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """Documents as the client's query renders them, and how many of them do not match it."""

    hits: Mapping[DocKey, Hit] = field(default_factory=dict)
    extras: int = 0
    failures: tuple[Failure, ...] = ()
    aggregations: RawMembers = field(default_factory=dict)
    """The aggregations, which count these documents, too."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Aggregations and total over the client's own matches and the documents of a head."""

    aggregations: RawMembers = field(default_factory=dict)
    total: Total | None = None
    failures: tuple[Failure, ...] = ()


async def make_head(run: Run, answer: SearchAnswer, semantic: SemanticHits, groups: Groups) -> tuple[Head, Rendered]:
    """Rank the candidates; returns the head and those of its hits that the client's own search did not return."""
    candidates = candidates_of(run, answer, semantic, groups)
    known = {**groups.adopted, **answer.by_key}
    async with asyncio.TaskGroup() as tasks:
        reranking = tasks.create_task(_rerank(run, candidates, answer, semantic))
        fetching = tasks.create_task(_fetched_beside(reranking, run, candidates.keys, answer, known))
    reranked, (rendered, measured) = reranking.result(), fetching.result()
    rendered = replace(rendered, hits={**groups.adopted, **rendered.hits})
    reordered = bool(semantic.hits or reranked.scores)
    reordered |= run.plan.route.rerank_model is not None and not reranked.failures
    failures = (*semantic.failures, *rendered.failures, *reranked.failures, *measured.failures)
    window = answer.hits[: run.plan.window]  # hits after the window are not ranked, however long the page
    kept = kept_hits([hit.key for hit in window], reranked.likenesses)
    ranking = reranked.ranking
    if reordered:
        ranking = boosted(ranking, measured, reranked.scores, [hit.key for hit in window], run.plan.route.boost_power)
    ranking = in_groups(run, in_place(pinned_first(ranking, answer.hits), kept), answer, rendered)
    head = head_of(run, ranking, answer, rendered, groups, failures=failures)
    head = replace(head, recipe=recipe_of(run, head, answer, semantic, reranked.model))
    explanations = (
        _explanations(candidates, window, semantic, reranked, kept=kept, measured=measured) if run.plan.explains else {}
    )
    untouched, counted = bool(failures) and not reordered, run.plan.request.track_total_hits
    return replace(head, untouched=untouched, explanations=explanations, counted=counted), rendered


async def _fetched_beside(
    reranking: asyncio.Task[Reranked],
    run: Run,
    candidates: Sequence[DocKey],
    answer: SearchAnswer,
    known: Mapping[DocKey, Hit],
) -> tuple[Rendered, Measured]:
    """Fetch from the engine what a head needs besides scores.

    The reranker takes longer, so its requests are written first: in a few turns of the event loop, unless a call waits
    for its turn or for a new connection.
    """
    for _ in range(_TURNS_TO_WRITE):
        if reranking.done():
            break
        await asyncio.sleep(0)
    missing = [key for key in candidates if key not in known]
    async with asyncio.TaskGroup() as tasks:
        rendering = tasks.create_task(render_in_groups(run, missing, answer, added_facets(run)))
        measuring = tasks.create_task(measure(run, candidates, known))
    return rendering.result(), measuring.result()


def shown_again(run: Run, known: Head, answer: SearchAnswer, rendered: Rendered) -> Head:
    """Return a cached head of the same candidates, with the matches that this search counted.

    If some of its documents were not rendered, the head is not proven.
    """
    head = head_of(run, known.ranking, answer, rendered, NO_GROUPS, failures=rendered.failures)
    recipe = known.recipe if len(head.ranking) == len(known.ranking) else NO_RECIPE
    counted = run.plan.request.track_total_hits
    return replace(head, explanations=known.explanations, counted=counted, recipe=recipe)


def added_facets(run: Run) -> Facets:
    """Return the aggregations of the request that count what kNN adds."""
    return facets_of(run.plan.request.members) if run.plan.adds else {}


def head_of(  # noqa: PLR0913  the parts of a head
    run: Run,
    ranking: Ranking,
    answer: SearchAnswer,
    rendered: Rendered,
    groups: Groups,
    *,
    failures: tuple[Failure, ...],
    keeps_places: bool = False,
) -> Head:
    """Build a head, without documents that are neither among the client's own hits nor rendered: they were deleted.

    `keeps_places`: keep these documents in the head, though they are not shown, so that pages after the head fit those
    before.
    """
    own, added = answer.by_key, rendered.hits
    shown = tuple([each for each in ranking if keeps_places or each.key in own or each.key in added])
    return Head(
        shown,
        answer.total and answer.total.plus(rendered.extras, most=run.plan.request.track_total_hits),
        rendered.extras,
        untouched=False,
        failures=failures,
        groups={scored.key: groups.of.get(scored.key) for scored in shown} if groups.of else {},
    )


async def _rerank(run: Run, candidates: Candidates, answer: SearchAnswer, semantic: SemanticHits) -> Reranked:
    """Order the candidates by the reranker's scores, and find those that match the query text exactly."""
    order, has_reranker = candidates.keys, run.plan.route.rerank_model is not None
    if len(order) < 2 or not (has_reranker or candidates.semantic):
        return Reranked(candidates.ranking)
    read = order if has_reranker else [key for key in order if key in answer.by_key]
    try:
        texts, likenesses = await _passages(run, read, answer, semantic)
    except UpstreamError as error:
        failure = Failure("rerank", error.reason, str(error))
        return Reranked(candidates.ranking, (failure,) if has_reranker else ())
    if not has_reranker:
        return Reranked(candidates.ranking, likenesses=likenesses)
    run.usage.without_text += len(likenesses) - len(texts)
    return replace(await _scored(run, candidates, texts), likenesses=likenesses)


async def _scored(run: Run, candidates: Candidates, texts: Mapping[DocKey, Sequence[str]]) -> Reranked:
    """Score the passages of the candidates, and order the candidates by these scores."""
    plan, order = run.plan, candidates.keys
    if not texts:
        fields = ", ".join(plan.route.passage.fields)
        return Reranked(candidates.ranking, (Failure("rerank", "no_passage", f"no text in {fields}"),))
    passages = [passage for own in texts.values() for passage in own]
    relevance, model = await _first_scores(run, passages, plan.rerankers)
    failures = _unscored(relevance, len(passages))
    if not relevance.scores:
        return Reranked(candidates.ranking, failures)
    scores, best = _best_of(texts, relevance.scores)
    weight = blend_of(relevance.model or model).weight if plan.route.blend is None else plan.route.blend
    read = [key for key in order if key in texts]
    blended = blend(reorder(read, scores), read, weight, plan.route.fusion.rank_constant)
    ranking = completed(blended, order)
    return Reranked(ranking, failures, scores, best, model=model, tier=plan.route.tier_of(model))


def _best_of(
    texts: Mapping[DocKey, Sequence[str]], scores: Sequence[float]
) -> tuple[Mapping[DocKey, float], Mapping[DocKey, str]]:
    """Return each document's best score, and the passage that has it; without one, a document keeps its order."""
    best: dict[DocKey, tuple[float, str]] = {}
    owned = [(key, passage) for key, own in texts.items() for passage in own]
    for (key, passage), score in zip(owned, scores, strict=False):
        if key not in best or score > best[key][0]:
            best[key] = (score, passage)
    return {key: score for key, (score, _) in best.items()}, {key: passage for key, (_, passage) in best.items()}


async def _first_scores(run: Run, passages: Sequence[str], models: Sequence[str]) -> tuple[Relevance, str]:
    """Score with the first model that can be called; a failed call is not repeated with another model."""
    first, *others = models
    relevance, model = await _scores(run, passages, first), first
    for other in others:
        if not _passes_on(run, relevance, other):
            continue
        relevance, model = await _scores(run, passages, other), other
    return relevance, model


def _passes_on(run: Run, relevance: Relevance, other: str) -> bool:
    """Whether a search that got no scores, or only cached ones, calls another model.

    A fallback is for models whose calls are suspended. The faster model of `tier: auto` is also for the time that a
    larger one does not have.
    """
    switch, error = run.plan.route.tier_switch, relevance.error
    if switch is not None and other == switch.fast_model and isinstance(error, SlowModel | Busy):
        return len(relevance.scores) <= relevance.reuse.cached  # none but cached ones
    return isinstance(error, Withheld)


async def _scores(run: Run, passages: Sequence[str], model: str) -> Relevance:
    with run.clock.stage("rerank"):
        relevance = await run.stages.reranker.score(
            run.plan.sent_text,
            passages,
            instruction=run.plan.instruction,
            model=model,
            budget=run.budget,
        )
    run.usage.add_reuse(relevance.reuse)
    run.usage.tier = run.plan.route.tier_of(model)
    return relevance


def _unscored(relevance: Relevance, count: int) -> tuple[Failure, ...]:
    if relevance.error is None:
        return ()
    detail = f"{relevance.error} ({len(relevance.scores)} of {count} passages were scored)"
    return (Failure("rerank", relevance.error.reason, detail),)


async def _passages(
    run: Run, order: Sequence[DocKey], answer: SearchAnswer, semantic: SemanticHits
) -> tuple[Mapping[DocKey, Sequence[str]], Mapping[DocKey, Likeness]]:
    """Read the passages from the hits if their `_source` has all fields, otherwise with one more search.

    Returns the texts for the reranker, only of documents inside the route, and the exact matches with the query text.
    """
    plan = run.plan
    known = {hit.key: hit for hit in semantic.hits} if plan.route.rerank_model else {}
    if plan.request.source.shows(plan.read_fields):
        known |= answer.by_key
    unknown = [key for key in order if key not in known]
    if unknown:
        known |= (await run.search("passages", passage_search(plan, unknown), unknown)).by_key
    outside = plan.outside({key.index for key in order})
    documents = await read_documents(run, [known[key] for key in order if key in known], answer)
    texts = {key: each.passages for key, each in documents.items() if each.passages and key.index not in outside}
    return texts, {key: each.likeness for key, each in documents.items()}


async def render(run: Run, missing: Sequence[DocKey], facets: Facets) -> Rendered:
    """Fetch documents as the client's query would render them, and with these aggregations, which count them, too.

    On failure, documents found by kNN only are dropped: the client's own aggregations do not count them.
    """
    if not missing:
        return Rendered()
    stage = "facets" if facets else "semantic"
    try:
        answer = await run.search("render", render_search(run.plan, missing, facets), missing)
        matches, aggregations = _results(answer, matched(facets))
    except UpstreamError as error:
        return Rendered(failures=(Failure(stage, error.reason, str(error)),))
    if not answer.whole:
        return Rendered(failures=(Failure(stage, "partial"),))
    wanted = set(missing)
    rendered = {hit.key: hit for hit in answer.hits if hit.key in wanted}
    return Rendered(rendered, len(rendered) - matches, aggregations=aggregations)


async def render_in_groups(run: Run, missing: Sequence[DocKey], answer: SearchAnswer, facets: Facets) -> Rendered:
    """Fetch documents, without those whose leading sort values no hit of the window has: their place is unknown."""
    begun = _groups_begun(run, answer)
    if not begun:
        return await render(run, missing, facets)
    rendered = await render(run, missing, {})
    leading = run.plan.request.sort.leading
    kept = [key for key, hit in rendered.hits.items() if hit.sort_values(leading) in begun]
    is_final = len(kept) == len(rendered.hits) and not (facets and rendered.extras)
    return rendered if is_final else await render(run, kept, facets)


async def count_facets(run: Run, documents: Sequence[DocKey], facets: Facets) -> Counted:
    """Return aggregations and total that count these documents, too; on failure, the client's own are shown."""
    if not facets:
        return Counted()
    try:
        answer = await run.search("facets", facet_search(run.plan, documents, facets))
        aggregations = members_of(answer.members["aggregations"])
    except UpstreamError as error:
        return Counted(failures=(Failure("facets", error.reason, str(error)),))
    except (ValueError, KeyError, RecursionError):
        return Counted(failures=(Failure("facets", Malformed.reason, "no aggregations"),))
    return Counted(aggregations, answer.total) if answer.whole else Counted(failures=(Failure("facets", "partial"),))


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


_aggregation = msgspec.json.Decoder(_Aggregation)


def _results(answer: SearchAnswer, name: str) -> tuple[int, RawMembers]:
    """Split the results into the count of the aggregation with this name, and the client's own aggregations."""
    try:
        results = members_of(answer.members["aggregations"])
        counted = results.pop(name if name in results else f"filter#{name}")  # the latter with `typed_keys`
        return _aggregation.decode(counted).doc_count, results
    except (ValueError, KeyError, RecursionError) as error:
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
    by_knn = {hit.key: Origin(rank, hit.score) for rank, hit in enumerate(semantic.hits, start=1)}
    return {
        scored.key: Explanation(
            lexical.get(scored.key),
            by_knn.get(scored.key),
            scored.score,
            reranked.scores.get(scored.key),
            text_hash(reranked.texts[scored.key]) if scored.key in reranked.texts else None,
            len(reranked.texts.get(scored.key, "")) or None,
            kept.get(scored.key),
            measured.boosts.get(scored.key),
            reranked.tier or None,
        )
        for scored in candidates.ranking
    }
