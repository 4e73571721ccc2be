"""How relevant passages are to a query, by DeepInfra's Qwen3 rerankers.

Source: the model's schema at DeepInfra. Scores are pointwise, so a window may be split over several calls.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from proxy.bounds import MODEL_RESPONSE_BYTES, MODEL_SCORE_BYTES, RERANKED_AT_ONCE
from proxy.errors import EqualScores, Malformed, UpstreamError
from proxy.ranking.planning import Relevance
from proxy.upstream.transport import Transport

SERVICE = "reranker"


class Reranker:
    """Scores passages."""

    def __init__(self, transport: Transport, *, timeout_seconds: float, query_max_chars: int) -> None:
        self._transport = transport
        self._timeout = timeout_seconds
        self._query_max_chars = query_max_chars

    async def score(self, query: str, passages: Sequence[str], *, instruction: str, model: str) -> Relevance:
        """Return one score for each passage, in their order; raises UpstreamError."""
        query = query[: self._query_max_chars]
        parts = [passages[start : start + RERANKED_AT_ONCE] for start in range(0, len(passages), RERANKED_AT_ONCE)]
        try:
            async with asyncio.TaskGroup() as tasks:
                scored = [tasks.create_task(self._score(query, part, instruction, model)) for part in parts]
        except* UpstreamError as group:
            raise group.exceptions[0] from None
        parts_read = [part.result() for part in scored]
        answering = next((part.model for part in parts_read if part.model), None)
        return Relevance(tuple(score for part in parts_read for score in part.scores), answering)

    async def _score(self, query: str, passages: Sequence[str], instruction: str, model: str) -> Relevance:
        body = encode(query, passages, instruction)
        size = MODEL_RESPONSE_BYTES + len(passages) * MODEL_SCORE_BYTES + 2 * len(body)
        return await self._transport.ask(
            f"/v1/inference/{model}", body, self._timeout, lambda answer: read(answer, passages), size
        )


def encode(query: str, passages: Sequence[str], instruction: str) -> bytes:
    """Write a request: one query for all documents, and a refusal at once rather than a place in a queue."""
    return msgspec.json.encode(
        {"queries": [query], "documents": passages, "instruction": instruction, "fail_fast": True}
    )


def read(answer: bytes, passages: Sequence[str]) -> Relevance:
    """Read a score for each passage; raises Malformed, EqualScores where they say nothing of the passages."""
    relevance = decode(answer, len(passages))
    if _say_nothing(relevance.scores, passages):
        raise EqualScores(SERVICE, f"the score {relevance.scores[0]:g} for each of {len(passages)} passages")
    return relevance


_SATURATED = frozenset({0.0, 1.0})


def _say_nothing(scores: Sequence[float], passages: Sequence[str]) -> bool:
    """Whether different passages have one score, and not for being as relevant, or irrelevant, as can be."""
    return len(set(scores)) == 1 and scores[0] not in _SATURATED and len(set(passages)) >= 3


def decode(answer: bytes, count: int) -> Relevance:
    """Read exactly `count` finite scores, in any of the three forms seen; raises Malformed.

    DeepInfra names no model in its answer; the local models do, since they answer by any name.
    """
    try:
        decoded = msgspec.json.decode(answer)
    except ValueError as error:
        raise Malformed(SERVICE, "not JSON") from error
    scores = _scores(decoded, count)
    if scores is None or len(scores) != count or not all(map(_is_finite, scores)):
        raise Malformed(SERVICE, f"not one finite score for each of {count} documents")
    return Relevance(tuple(float(score) for score in scores), _model(decoded))


def _model(decoded: Any) -> str | None:
    match decoded:
        case {"model": str(name)}:
            return name
        case _:
            return None


def _scores(decoded: Any, count: int) -> Sequence[Any] | None:
    match decoded:
        case {"scores": [[*scores]]}:
            return scores
        case {"scores": [*scores]}:
            return scores
        case {"results": [*results]}:
            return _by_index(results, count)
        case _:
            return None


def _by_index(results: Sequence[Any], count: int) -> Sequence[Any] | None:
    found: dict[int, Any] = {}
    for entry in results:
        match entry:
            case {"index": int() as index, "relevance_score": score} if index not in found:
                found[index] = score
            case _:
                return None
    return [found[index] for index in range(count)] if found.keys() == set(range(count)) else None


def _is_finite(score: Any) -> bool:
    return isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
