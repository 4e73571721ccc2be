"""Measures how much two orders of documents differ."""

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

LOOKED_AT = 10
"""The depth that users look at."""


@dataclass(frozen=True, slots=True)
class RankChange:
    """The differences between two orders of documents without duplicates."""

    overlap: float
    """The share of the first ten documents that both orders have in common, from 0 to 1."""
    moved: int
    """The number of documents in both top tens at different ranks."""
    entered: int
    """The number of documents in the top ten only afterwards."""
    kendall_tau: float | None
    """Kendall's tau of the documents in both orders: 1 for the same order, -1 for the reverse; None below two."""


def rank_change(before: Sequence[Hashable], after: Sequence[Hashable]) -> RankChange:
    """Compare two orders, in n log n steps."""
    first, then = before[:LOOKED_AT], after[:LOOKED_AT]
    both = set(first) & set(then)
    moved = sum(document in both and then.index(document) != place for place, document in enumerate(first))
    longest = max(len(first), len(then))
    return RankChange(
        overlap=len(both) / longest if longest else 1.0,
        moved=moved,
        entered=len(then) - len(both),
        kendall_tau=_kendall_tau(before, after),
    )


def _kendall_tau(before: Sequence[Hashable], after: Sequence[Hashable]) -> float | None:
    places = {document: place for place, document in enumerate(before)}
    order = [places[document] for document in after if document in places]
    pairs = len(order) * (len(order) - 1) // 2
    return (pairs - 2 * _inversions(order)) / pairs if pairs else None


def _inversions(order: Sequence[int]) -> int:
    """Count the pairs whose first number is larger than the second."""
    found, seen = 0, list[int]()
    for number in order:
        place = bisect_right(seen, number)
        found += len(seen) - place
        seen.insert(place, number)
    return found
