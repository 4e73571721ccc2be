"""The second stage: fuses, reranks and renders the candidates into the head of the ranking.

If the reranker fails, the fused order is kept, with a Failure.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from proxy.errors import Failure
from proxy.ranking.boosts import Measured, boosted, measure
from proxy.ranking.explaining import Explanation, Kept, Origin, text_hash
from proxy.ranking.hits import DocKey, Hit, Ranking
from proxy.ranking.kept import in_place, kept_hits
from proxy.ranking.paging import NO_RECIPE, Head, pinned_first
from proxy.ranking.rendering import Rendered, added_facets, in_groups, render_in_groups
from proxy.ranking.repeats import recipe_of
from proxy.ranking.reranking import Candidates, Reranked, candidates_of, rerank
from proxy.ranking.retrieval import NO_GROUPS, Groups, SemanticHits
from proxy.ranking.search_response import SearchAnswer
from proxy.ranking.stages import Run

_TURNS_TO_WRITE = 8
"""Turns of the event loop until a request to the reranker is written: by the tasks of the search, the call and
aiohttp."""


async def make_head(run: Run, answer: SearchAnswer, semantic: SemanticHits, groups: Groups) -> tuple[Head, Rendered]:
    """Rank the candidates; returns the head and those of its hits that the client's own search did not return."""
    candidates = candidates_of(run, answer, semantic, groups)
    known = {**groups.adopted, **answer.by_key}
    async with asyncio.TaskGroup() as tasks:
        reranking = tasks.create_task(rerank(run, candidates, answer, semantic))
        fetching = tasks.create_task(_fetched_beside(reranking, run, candidates.keys, answer, known))
    reranked, (rendered, measured) = reranking.result(), fetching.result()
    rendered = replace(rendered, hits={**groups.adopted, **rendered.hits})
    is_reordered = bool(semantic.hits or reranked.scores)
    is_reordered |= run.plan.route.rerank_model is not None and not reranked.failures
    window = answer.hits[: run.plan.window]  # hits after the window are not ranked, however long the page
    own = [hit.key for hit in window]
    kept = kept_hits(own, reranked.likenesses)
    ranking = reranked.ranking
    if is_reordered:
        ranking = boosted(ranking, measured, reranked.scores, own, run.plan.route.boost_power)
    ranking = in_place(pinned_first(ranking, answer.hits), kept)
    ranking = in_groups(run, ranking, candidates.keys, answer, rendered)
    failures = (*semantic.failures, *rendered.failures, *reranked.failures, *measured.failures)
    head = head_of(run, ranking, answer, rendered, groups, failures=failures)
    explained = run.plan.explains
    told = _explanations(candidates, window, semantic, reranked, kept=kept, measured=measured) if explained else {}
    head = replace(
        head,
        recipe=recipe_of(run, head, answer, semantic, reranked.model),
        untouched=bool(failures) and not is_reordered,
        explanations=told,
        counted=run.plan.request.track_total_hits,
    )
    return head, rendered


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
    async with asyncio.TaskGroup() as tasks:
        rendering = tasks.create_task(render_in_groups(run, candidates, known, answer, added_facets(run)))
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
