"""Scores passages for a query with the rerank API of a provider: see `providers`.

Scores are pointwise, so a window may be split into several calls.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from proxy.bounds import MODEL_RESPONSE_BYTES, MODEL_SCORE_BYTES, RERANK_BATCH_MAX
from proxy.context import NO_CHARGE
from proxy.errors import EqualScores, Malformed, TimedOut, UpstreamError
from proxy.ranking.planning import Relevance
from proxy.ranking.stages import Budget
from proxy.settings.config import ServiceTier
from proxy.upstream.charges import charge_of
from proxy.upstream.providers import DEEPINFRA, RerankFormat
from proxy.upstream.transport import Transport

SERVICE = "reranker"
_SLACK_S = 0.01
"""Added to a call's timeout, so that the end of the budget cancels the call before its own timeout does."""


class Reranker:
    """Scores passages in parallel calls."""

    def __init__(  # noqa: PLR0913  its settings
        self,
        transport: Transport,
        *,
        timeout_seconds: float,
        query_max_chars: int,
        batch_size: int = RERANK_BATCH_MAX,
        service_tier: ServiceTier | None = None,
        format_: RerankFormat = DEEPINFRA,
    ) -> None:
        self._transport = transport
        self._format = format_
        self._timeout = timeout_seconds
        self._query_max_chars = query_max_chars
        self._batch_size = min(batch_size, format_.batch_max)
        self._service_tier = service_tier

    async def warm_up(self) -> None:
        await self._transport.warm_up()

    async def score(
        self, query: str, passages: Sequence[str], *, instruction: str, model: str, budget: Budget
    ) -> Relevance:
        """Return the scores of the passages, in their order, up to the first one without a score at the deadline."""
        limit = min(self._timeout, budget.remaining())
        if why := self._transport.skipped(model, limit):
            return Relevance((), error=why)
        relevance = await self._scored(query[: self._query_max_chars], passages, instruction, model, budget)
        if isinstance(relevance.error, TimedOut):
            self._transport.abandoned(model, limit)
        return relevance

    async def _scored(
        self, query: str, passages: Sequence[str], instruction: str, model: str, budget: Budget
    ) -> Relevance:
        batches = batches_of(passages, self._batch_size)
        seconds = min(self._timeout, budget.remaining() + _SLACK_S)
        calls = [asyncio.ensure_future(self._score(query, batch, instruction, model, seconds)) for batch in batches]
        answers: list[Relevance] = []
        error: UpstreamError | None = None
        try:
            async with budget.limit():
                for call in calls:
                    answers.append(await call)
                    if answers[-1].error is not None:
                        break  # the scores of later passages are useless without these
        except TimedOut as timeout:
            error = timeout
        finally:
            for call in calls:
                call.cancel()
        charge = sum((call.result().charge for call in calls if _is_answered(call)), NO_CHARGE)
        return replace(joined(answers, passages, error), charge=charge)

    async def _score(
        self, query: str, passages: Sequence[str], instruction: str, model: str, seconds: float
    ) -> Relevance:
        body = self._format.encode(query, passages, instruction, model, self._service_tier)
        size = MODEL_RESPONSE_BYTES + len(passages) * MODEL_SCORE_BYTES + 2 * len(body)
        try:
            return await self._transport.ask(
                self._format.path_of(model),
                body,
                seconds,
                lambda answer: decode(answer, len(passages)),
                size,
                model=model,
            )
        except UpstreamError as error:
            return Relevance((), error=error)


def batches_of(passages: Sequence[str], size: int) -> list[Sequence[str]]:
    """Split passages into as few batches as possible, of about equal size."""
    count = max(1, math.ceil(len(passages) / size))
    size = max(1, math.ceil(len(passages) / count))
    return [passages[start : start + size] for start in range(0, len(passages), size)]


def _is_answered(call: "asyncio.Future[Relevance]") -> bool:
    return call.done() and not call.cancelled() and call.exception() is None


def joined(answers: Sequence[Relevance], passages: Sequence[str], error: UpstreamError | None = None) -> Relevance:
    """Join the results of the first batches; scores that are equal for all passages count as an error."""
    scores = tuple(score for answer in answers for score in answer.scores)
    model = next((answer.model for answer in answers if answer.model), None)
    error = error or next((answer.error for answer in answers if answer.error), None)
    if _say_nothing(scores, passages[: len(scores)]):
        equal = EqualScores(SERVICE, f"the score {scores[0]:g} for each of {len(scores)} passages")
        return Relevance((), model, equal)
    return Relevance(scores, model, error)


_SATURATED = frozenset({0.0, 1.0})


def _say_nothing(scores: Sequence[float], passages: Sequence[str]) -> bool:
    """Whether different passages have the same score, other than the lowest or the highest possible one."""
    return len(set(scores)) == 1 and scores[0] not in _SATURATED and len(set(passages)) >= 3


def decode(answer: bytes, count: int) -> Relevance:
    """Decode exactly `count` finite scores, in any of the known formats; raises Malformed.

    DeepInfra's response does not name the model; that of the local models does, because they serve any name.
    """
    try:
        decoded = msgspec.json.decode(answer)
    except ValueError as error:
        raise Malformed(SERVICE, "not JSON") from error
    scores = _scores(decoded, count)
    if scores is None or len(scores) != count or not all(map(_is_finite, scores)):
        raise Malformed(SERVICE, f"not one finite score for each of {count} documents")
    return Relevance(tuple(float(score) for score in scores), _model(decoded), charge=charge_of(decoded))


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
        case {"results": [*results]} | {"data": [*results]} | [*results]:
            return _by_index(results, count)
        case _:
            return None


def _by_index(results: Sequence[Any], count: int) -> Sequence[Any] | None:
    found: dict[int, Any] = {}
    for entry in results:
        match entry:
            case {"index": int() as index, "relevance_score": score} | {"index": int() as index, "score": score} if (
                index not in found
            ):
                found[index] = score
            case _:
                return None
    return [found[index] for index in range(count)] if found.keys() == set(range(count)) else None


def _is_finite(score: Any) -> bool:
    return isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
