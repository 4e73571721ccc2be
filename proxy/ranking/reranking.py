"""Orders the candidates by the reranker's scores.

If the reranker fails, the fused order is kept, with a Failure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from proxy.errors import Busy, Failure, SlowModel, UpstreamError, Withheld
from proxy.ranking.fusion import blend, completed, reorder
from proxy.ranking.hits import DocKey, Ranking, keys
from proxy.ranking.kept import Likeness
from proxy.ranking.paging import fuse
from proxy.ranking.planning import Relevance
from proxy.ranking.reading import read_documents
from proxy.ranking.retrieval import Groups, SemanticHits
from proxy.ranking.search_response import SearchAnswer
from proxy.ranking.searches import passage_search
from proxy.ranking.stages import Run
from proxy.settings.profiles import blend_of


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
    unseen = plan.vectors.unseen({key.index for key in lexical}) if plan.vectors else frozenset()
    ranking = fuse(plan.route, lexical, list(semantic_keys), plan.window, unseen)
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


async def rerank(run: Run, candidates: Candidates, answer: SearchAnswer, semantic: SemanticHits) -> Reranked:
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
