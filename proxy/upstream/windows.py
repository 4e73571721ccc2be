"""The passages of a search as they are sent to the reranker: equal ones once, in batches, and their scores by rank.

Scores are pointwise: a window may be split into several calls, and a score may be reused with other passages.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeVar

from proxy.errors import EqualScores, UpstreamError
from proxy.ranking.planning import Relevance
from proxy.upstream.providers import all_without_control_tokens

_SERVICE = "reranker"
_SATURATED = frozenset({0.0, 1.0})
"""The lowest and the highest score, which different passages may share."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Window:
    """The passages of a search, best first."""

    ids: tuple[bytes, ...]
    """A hash for each passage; equal passages have the same."""
    texts: Mapping[bytes, str]
    """The text of each hash, as it is sent, in the order of their first ranks."""


def window_of(passages: Sequence[str], hashed: Callable[[Collection[str]], Sequence[bytes]]) -> Window:
    """Hash the passages as they are sent."""
    sent = all_without_control_tokens(passages)
    texts = dict.fromkeys(sent)
    ids = dict(zip(texts, hashed(texts), strict=True))
    return Window(tuple([ids[text] for text in sent]), dict(zip(ids.values(), ids, strict=True)))


def batches_of(passages: Sequence[_T], size: int) -> list[Sequence[_T]]:
    """Split passages into as few batches as possible, of about equal size."""
    if not passages:
        return []
    size = math.ceil(len(passages) / _count(len(passages), size))
    return [passages[start : start + size] for start in range(0, len(passages), size)]


def is_typical(count: int, window: int, size: int) -> bool:
    """Whether a call has at least half of the passages that it would have without a cache.

    Others are faster than the model usually is, so its latency is not estimated from them.
    """
    return 2 * count >= window / _count(window, size)


def _count(passages: int, size: int) -> int:
    return max(1, math.ceil(passages / size))


def is_constant(scores: Sequence[float]) -> bool:
    """Whether several passages have the same score, other than the lowest or the highest possible one."""
    return len(scores) > 1 and len(set(scores)) == 1 and scores[0] not in _SATURATED


def joined(window: Window, scores: Mapping[bytes, float], model: str | None, error: UpstreamError | None) -> Relevance:
    """Return the scores down to the first passage without one; equal for three different passages is an error."""
    ids = list(takewhile(scores.__contains__, window.ids))
    found = tuple(map(scores.__getitem__, ids))
    if len(set(ids)) >= 3 and is_constant(found):
        equal = EqualScores(_SERVICE, f"the score {found[0]:g} for each of {len(found)} passages")
        return Relevance((), model, equal)
    return Relevance(found, model, error)
