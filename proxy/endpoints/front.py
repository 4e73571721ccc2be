"""What every endpoint needs: who asks, what the body holds, and how an answer is sent.

A defect of this proxy costs a search its better order, never its answer.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import structlog

from proxy import telemetry
from proxy.bounds import SEARCH_BODY_BYTES
from proxy.bypass import Bypass
from proxy.endpoints.media import content, gzipped, is_gzipped, not_json
from proxy.errors import TooComplex, cause_of
from proxy.http1.callers import Callers, Field, can_be_repeated, carried
from proxy.http1.exchange import Answer, Exchange
from proxy.http1.headers import own_error, own_fields
from proxy.http1.messages import BadMessage
from proxy.http1.relay import Upstream, bad_gateway
from proxy.indices import Unrouted
from proxy.journey import Journey
from proxy.passthrough import hand_on
from proxy.planning import EngineReply
from proxy.ranking.pipeline import Answered, KeptEmpty, Outcome, Relayed, Unanswered
from proxy.request.steering import Wrong
from proxy.searching import Searching
from proxy.upstream.engine import Engine, EngineOfCaller

COMPRESSED_INLINE = 2**10
"""Bytes of gzip that are decompressed in the event loop: a thousand times as much may be in them."""

_log = structlog.get_logger("proxy")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Front:
    """The proxy as an endpoint sees it."""

    upstream: Upstream
    engine: Engine
    searching: Searching
    callers: Callers
    logs_query_text: bool
    multi_search_reranked: int
    """Searches of one `_msearch` that are reranked at most."""
    added_timeout_seconds: float

    @property
    def keeps_empty(self) -> bool:
        """Whether what is empty stays under `filter_path`, by which engine has answered so far."""
        kind = self.engine.told_kind
        return kind is None or kind.keeps_empty

    def caller(self, exchange: Exchange) -> EngineOfCaller | Bypass:
        """Tell who asks, and what goes along with every search made for them."""
        fields = exchange.head.fields
        if not can_be_repeated(fields):
            return Bypass("credentials")
        goes_along = carried(fields)
        if goes_along is None:
            return Bypass("headers")
        return self.engine.for_caller(self.callers.identity(fields), goes_along)

    async def hand_on(self, exchange: Exchange, fields: Sequence[Field] = ()) -> None:
        """Let the engine answer."""
        await hand_on(exchange, self.upstream, fields)

    async def leave(self, exchange: Exchange, indices: str, why: Bypass) -> None:
        """Let the engine answer a search that cannot be made for its caller."""
        match self.searching.left(indices, why):
            case Unrouted():
                await self.hand_on(exchange)
            case Bypass() as told:
                await self.end(exchange, Journey.of(exchange.head.fields), told)

    async def end(self, exchange: Exchange, journey: Journey, ending: Outcome | Wrong) -> None:
        """Send what came of a search."""
        match ending:
            case Bypass() as why:
                await self.hand_on(exchange, self.conclude(journey, telemetry.bypassed(why)))
            case Wrong(reason):
                await self._refuse(exchange, reason, self.conclude(journey, telemetry.bypassed("steering")))
            case KeptEmpty(reply, body):
                await answer(exchange, reply, body, self.conclude(journey, telemetry.bypassed("zero_hits")))
            case Relayed(reply, body, why):
                await answer(exchange, reply, body, self.conclude(journey, telemetry.bypassed(why)))
            case Unanswered(error):
                why = Bypass("engine_refused", detail=str(error), is_fault=True)
                told = self.conclude(journey, telemetry.bypassed(why))
                await exchange.answer(bad_gateway(error, self.upstream.product, told))
            case Answered(reply, body, failures, candidates):
                journey.candidates = candidates
                await answer(exchange, reply, body, self.conclude(journey, telemetry.ended(failures)))

    def conclude(self, journey: Journey, told: telemetry.Told) -> Sequence[Field]:
        """Report how a search ended; what cannot be logged is still answered."""
        try:
            return journey.conclude(told, query_text=self.logs_query_text)
        except Exception:  # noqa: BLE001  whatever it is, the client's answer is there
            with suppress(Exception):
                _log.exception("internal_error")
            return telemetry.fields_of(told, {})

    async def _refuse(self, exchange: Exchange, reason: str, outcome: Sequence[Field]) -> None:
        """Say in the engine's shape that a request steers in a way that cannot be meant."""
        body = own_error(400, "illegal_argument_exception", reason)
        kind = self.engine.told_kind
        product = b"Elasticsearch" if kind and kind.product == "elasticsearch" else None
        await exchange.answer(Answer(400, [*own_fields(product), *outcome], body))


async def read_content(exchange: Exchange, *, ndjson: bool = False) -> bytes | Bypass:
    """Read the body, if it is one that can be read here."""
    body = await exchange.read_body(SEARCH_BODY_BYTES)
    if body is None:
        return Bypass("too_large")
    fields = exchange.head.fields
    if problem := not_json(fields, has_body=bool(body), ndjson=ndjson):
        return problem
    if len(body) > COMPRESSED_INLINE and is_gzipped(fields):
        return await asyncio.to_thread(content, fields, body, SEARCH_BODY_BYTES)
    return content(fields, body, SEARCH_BODY_BYTES)


async def answered(front: Front, exchange: Exchange, answering: Awaitable[None]) -> None:
    """Answer a search; where that ends in a defect before anything went out, the engine answers it instead."""
    try:
        await answering
    except (BadMessage, ConnectionError):
        raise
    except Exception as defect:
        if exchange.begun or exchange.relay is not None:
            raise
        _log.exception("internal_error")
        why = Bypass("internal_error", detail=cause_of(defect))
        journey = Journey.of(exchange.head.fields)
        await front.hand_on(exchange, front.conclude(journey, telemetry.bypassed(why)))


async def guarded(ending: Awaitable[_T]) -> _T | Bypass:
    """Wait for what comes of a step; what must not happen is logged, and the engine answers."""
    try:
        return await ending
    except (BadMessage, ConnectionError):
        raise
    except TooComplex as error:
        return Bypass("too_complex", detail=str(error))
    except Exception as error:  # noqa: BLE001  whatever it is, the engine can still answer
        _log.exception("internal_error")
        return Bypass("internal_error", detail=cause_of(error))


# Said anew for a body that was written anew.
_OF_THE_BODY = frozenset((b"content-length", b"content-encoding", b"transfer-encoding", b"connection", b"keep-alive"))


async def answer(exchange: Exchange, reply: EngineReply, body: bytes, outcome: Sequence[Field]) -> None:
    """Send the engine's answer with another body: its own headers, compressed if it was."""
    kept = [(name, value) for name, value in reply.fields if name.lower() not in _OF_THE_BODY]
    if reply.compressed:
        kept.append((b"content-encoding", b"gzip"))
        body = await asyncio.to_thread(gzipped, body) if len(body) > 2**18 else gzipped(body)
    await exchange.answer(Answer(reply.status, [*kept, *outcome], body))
