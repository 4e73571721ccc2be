"""How good an order is: nDCG over graded judgments."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Judgments = Mapping[str, int]
"""A query's judged documents: id to grade, 0 to 3. What is not judged counts as 0."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a shopper types, and what should come of it."""

    id: str
    text: str
    judgments: Judgments


def ndcg(ranking: Sequence[str], judgments: Judgments, cutoff: int = 10) -> float:
    """Normalised discounted cumulative gain with gain 2^grade - 1 (Järvelin and Kekäläinen 2002; Burges 2005)."""
    ideal = sorted(judgments.values(), reverse=True)
    best = _dcg(ideal[:cutoff])
    return _dcg([judgments.get(name, 0) for name in ranking[:cutoff]]) / best if best else 0.0


def _dcg(grades: Sequence[int]) -> float:
    return math.fsum((2.0**grade - 1) / math.log2(rank + 2) for rank, grade in enumerate(grades))


def read_queries(queries: Path, judgments: Path) -> tuple[Query, ...]:
    """Read queries (`id`, `text`) and judgments (`query`, `product`, `grade`): NDJSON, or columns of a `.tsv`."""
    graded: dict[str, dict[str, int]] = {}
    for said in _rows(judgments, ("query", "product", "grade")):
        graded.setdefault(said["query"], {})[said["product"]] = int(said["grade"])
    return tuple(Query(said["id"], said["text"], graded.get(said["id"], {})) for said in _rows(queries, ("id", "text")))


def _rows(path: Path, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield dict(zip(columns, line.split("\t"), strict=True)) if path.suffix == ".tsv" else json.loads(line)
