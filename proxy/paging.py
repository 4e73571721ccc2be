"""One ranking, cut into pages: the reranked head, then the client's own order without the head's documents.

Scores say no more than the order: the head's lie in [1, 2] and its first document always has 2, the tail's
follow below 1 as `s/(1+s)` of the engine's. So `max_score` and monotony hold on every page by themselves,
whichever page is asked for first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proxy.errors import Failure
from proxy.fusion import Weighted, reciprocal_rank_fusion
from proxy.hits import DocKey, Hit, Ranking, keys
from proxy.routes import Route
from proxy.search_response import Page, SearchAnswer, Total

TOP_SCORE = 2.0


@dataclass(frozen=True, slots=True)
class Head:
    """The first documents of a ranking: all that differs from the client's own order."""

    ranking: Ranking
    extras: int
    """How many of them the client's own query does not match."""
    untouched: bool
    """They are the client's own first documents in the client's own order, since every stage failed."""
    failures: tuple[Failure, ...]

    @property
    def keys(self) -> tuple[DocKey, ...]:
        return keys(self.ranking)

    @property
    def scores(self) -> dict[DocKey, float]:
        """Each document's score as it is shown."""
        top = self.ranking[0].score if self.ranking else 0.0
        return {scored.key: 1.0 + (max(scored.score, 0.0) / top if top > 0 else 1.0) for scored in self.ranking}


def fuse(route: Route, lexical: Sequence[DocKey], semantic: Sequence[DocKey], window: int) -> Ranking:
    """Merge what two retrievers found, and keep the window."""
    rankings = [Weighted(lexical, route.fusion.lexical_weight)]
    if semantic:
        rankings.append(Weighted(semantic, route.fusion.semantic_weight))
    return reciprocal_rank_fusion(rankings, route.fusion.rank_constant)[:window]


def tail_score(score: float) -> float:
    """Map a score of the engine's below those of the head, keeping the order."""
    positive = max(score, 0.0)
    return positive / (1.0 + positive)


def head_page(head: Head, lexical: SearchAnswer, rendered: Mapping[DocKey, Hit], start: int, size: int) -> Page:
    """Cut a page that begins in the head; documents that have gone since leave no gap."""
    if head.untouched:
        own = [(hit, None) for hit in lexical.hits[start : start + size]]
        return Page(own, lexical.total, lexical.max_score)
    known = {**rendered, **lexical.by_key}
    scores = head.scores
    ranked = [(known[key], scores[key]) for key in head.keys if key in known]
    ranked += [(hit, tail_score(hit.score)) for hit in lexical.hits if hit.key not in scores]
    total = lexical.total.plus(head.extras) if lexical.total else None
    return Page(ranked[start : start + size], total, TOP_SCORE if ranked else None)


def tail_page(head: Head, answer: SearchAnswer, track_total_hits: bool | int) -> Page:  # noqa: FBT001
    """Give the engine's own page behind the head its place in the ranking.

    An empty head excludes nothing: then the engine's total and its null for no best score are the whole's, and
    only scores are mapped.
    """
    if head.untouched:
        return Page([(hit, None) for hit in answer.hits], answer.total, answer.max_score)
    scored = [(hit, tail_score(hit.score)) for hit in answer.hits]
    total = answer.total and _whole_total(head, answer.total, track_total_hits)
    return Page(scored, total, TOP_SCORE if head.ranking or answer.max_score is not None else None)


def _whole_total(head: Head, behind: Total, track_total_hits: bool | int) -> Total:  # noqa: FBT001
    """Count the head's documents, which were excluded, back in.

    The engine stops counting at `track_total_hits`, and says so by the relation.
    """
    matched = behind.value + len(head.ranking) - head.extras
    if behind.relation == "eq" and (track_total_hits is True or matched <= track_total_hits):
        return Total(matched + head.extras, "eq")
    cap = behind.value if behind.relation != "eq" else int(track_total_hits)
    return Total(cap + head.extras, "gte")
