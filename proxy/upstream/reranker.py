"""Scores passages for a query with the rerank API of a provider: see `providers`."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from proxy.bounds import MODEL_RESPONSE_BYTES, MODEL_SCORE_BYTES, RERANK_BATCH_MAX
from proxy.errors import Malformed, TimedOut, UpstreamError
from proxy.ranking.planning import Relevance
from proxy.ranking.stages import UNMETERED, Purse
from proxy.upstream.providers import DEEPINFRA, CallTier, RerankFormat
from proxy.upstream.spending.prices import rerank_tokens
from proxy.upstream.transport import Transport

SERVICE = "reranker"


class Reranker:
    """A client of the rerank API; each call scores at most `batch_size` passages."""

    def __init__(
        self,
        transport: Transport,
        *,
        timeout_seconds: float,
        batch_size: int = RERANK_BATCH_MAX,
        service_tier: CallTier | None = None,
        format_: RerankFormat = DEEPINFRA,
    ) -> None:
        self.timeout_seconds = timeout_seconds
        self.batch_size = min(batch_size, format_.batch_max)
        self._transport = transport
        self._format = format_
        self._service_tier = service_tier

    async def warm_up(self) -> None:
        await self._transport.warm_up()

    def reject_if_late(self, model: str, seconds: float, *, is_new: bool) -> UpstreamError | None:
        """Return the error of a search with too little time left: see `Guard.reject_if_late`."""
        return self._transport.reject_if_late(model, seconds, is_new=is_new)

    def withheld(self, model: str) -> UpstreamError | None:
        """Return why the model is not called at present: see `Guard.withheld`."""
        return self._transport.withheld(model)

    def not_called(self, model: str, why: UpstreamError) -> None:
        """Count a call that a search did not make."""
        self._transport.not_called(model, why)

    def abandoned(self, model: str, seconds: float) -> None:
        """Record the time after which a search gave up waiting for its call."""
        self._transport.abandoned(model, seconds)

    async def score(  # noqa: PLR0913  a call, and what it may cost
        self,
        query: str,
        passages: Sequence[str],
        *,
        instruction: str,
        model: str,
        is_typical: bool = True,
        purse: Purse = UNMETERED,
    ) -> Relevance:
        """Return the scores of the passages in their order, or the error because of which there are none.

        `is_typical`: the call has so many passages that its time says how long the model usually takes.
        """
        body = self._format.encode(query, passages, instruction, model, self._service_tier)
        size = MODEL_RESPONSE_BYTES + len(passages) * MODEL_SCORE_BYTES + 2 * len(body)
        try:
            return await self._transport.ask(
                self._format.path_of(model),
                body,
                self.timeout_seconds,
                lambda answer: decode(answer, len(passages)),
                size,
                model=model,
                is_typical=is_typical,
                purse=purse,
                tokens=rerank_tokens(query, passages, instruction),
            )
        except UpstreamError as error:
            if isinstance(error, TimedOut):
                self.abandoned(model, self.timeout_seconds)
            return Relevance((), error=error)


def decode(answer: bytes, count: int) -> Relevance:
    """Decode exactly `count` finite scores, in any of the known formats; raises Malformed.

    DeepInfra's response does not name the model; that of the local models does, because they serve any name.
    """
    try:
        decoded = msgspec.json.decode(answer)
    except ValueError as error:
        raise Malformed(SERVICE, "not JSON") from error
    scores = _scores(decoded, count)
    if scores is None or len(scores) != count or not _are_finite(scores):
        raise Malformed(SERVICE, f"not one finite score for each of {count} documents")
    return Relevance(tuple(map(float, scores)), _model(decoded))


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


def _are_finite(scores: Sequence[Any]) -> bool:
    return {int, float}.issuperset(map(type, scores)) and all(map(math.isfinite, scores))
