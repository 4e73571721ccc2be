"""nDCG@10, MRR and recall of rankings, by ir-measures (trec_eval's own code).

The gain of nDCG is 2^grade - 1 (Burges et al. 2005), as in the judged collections of shops: a perfect hit counts far
more than two fair ones. It is set by `gains`, because the equivalent `dcg="exp-log2"` needs Perl and cannot measure
judged documents only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ir_measures

from proxy.commands.evaluation.collection import HIGHEST_GRADE, Query

CUTOFF = 10
GAINS: Mapping[int, int] = {grade: 2**grade - 1 for grade in range(HIGHEST_GRADE + 1)}

Ranking = Sequence[str]
"""Distinct ids of documents, best first."""
Rankings = Mapping[str, Ranking]
"""Rankings by query id; a query without one counts as having no hits."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure from 0 to 1: over all documents (unjudged ones are not relevant), or over judged ones only."""

    name: str
    judged_only: bool = False

    def __str__(self) -> str:
        return f"{self.name}, judged only" if self.judged_only else self.name


NDCG = Measure(f"nDCG@{CUTOFF}")


def measures_of(depth: int) -> tuple[Measure, ...]:
    """Return the measures for rankings of this depth."""
    names = (NDCG.name, "MRR", f"recall@{depth}")
    return tuple(Measure(name, judged_only) for judged_only in (False, True) for name in names)


def scores(
    queries: Sequence[Query], rankings: Rankings, measures: Sequence[Measure]
) -> Mapping[Measure, Sequence[float]]:
    """Measure each ranking; the values are in the order of the queries.

    Judged documents only means condensed lists: unjudged documents are removed first (Sakai, SIGIR 2007).
    """
    known = {_spelled(measure): measure for measure in measures}
    evaluator = ir_measures.pytrec_eval.evaluator(list(known), {query.id: dict(query.judgments) for query in queries})
    found: dict[Measure, dict[str, float]] = {measure: {} for measure in measures}
    for metric in evaluator.iter_calc({query.id: _scored(rankings.get(query.id, ())) for query in queries}):
        found[known[metric.measure]][metric.query_id] = metric.value
    return {measure: [values[query.id] for query in queries] for measure, values in found.items()}


def _spelled(measure: Measure) -> Any:
    name, _, cutoff = measure.name.partition("@")
    match name:
        case "nDCG":
            return ir_measures.nDCG(gains=dict(GAINS), judged_only=measure.judged_only) @ int(cutoff)
        case "recall":
            return ir_measures.R(judged_only=measure.judged_only) @ int(cutoff)
        case _:
            return ir_measures.RR(judged_only=measure.judged_only)


def _scored(ranking: Ranking) -> dict[str, float]:
    """Give each document a distinct score: trec_eval sorts by score, and breaks ties by id."""
    return {name: float(len(ranking) - place) for place, name in enumerate(ranking)}
