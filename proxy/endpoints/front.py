"""What every endpoint shares: the caller, the body, and the response to a search's result."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.bounds import SEARCH_BODY_BYTES
from proxy.catalog.indices import Unrouted
from proxy.context import SearchRecord
from proxy.endpoints.answering import Searching
from proxy.endpoints.media import content, gzipped, is_gzipped, not_json
from proxy.endpoints.passthrough import hand_on
from proxy.http1.callers import CallerIdentities, Field, can_be_repeated, carried
from proxy.http1.exchange import Answer, Exchange
from proxy.http1.headers import own_error, own_fields
from proxy.http1.relay import Upstream, bad_gateway, internal_error
from proxy.outcomes import Bypass, Outcome, answered, bypassed
from proxy.ranking.pipeline import Answered, Defect, EngineOrder, Relayed, Result, Unanswered
from proxy.ranking.planning import EngineReply
from proxy.settings.request_options import Wrong
from proxy.telemetry.log import outcome_fields
from proxy.upstream.engine import EngineClient, EngineOfCaller

COMPRESSED_INLINE = 2**10
"""Bytes of gzip that are decompressed in the event loop: a thousand times as much may be in them."""


@dataclass(frozen=True, slots=True)
class Front:
    """The proxy as an endpoint sees it."""

    upstream: Upstream
    engine: EngineClient
    searching: Searching
    callers: CallerIdentities
    multi_search_reranked: int
    """Searches of one `_msearch` that are reranked at most."""

    @property
    def keeps_empty(self) -> bool:
        """Whether objects that `filter_path` empties stay in a response: see `EngineKind`."""
        kind = self.engine.told_kind
        return kind is None or kind.keeps_empty

    def caller(self, exchange: Exchange) -> EngineOfCaller | Bypass:
        """Return the engine as this request's caller sees it, or why no search can be made on the caller's behalf."""
        fields = exchange.head.fields
        if not can_be_repeated(fields):
            return Bypass("credentials")
        goes_along = carried(fields)
        if goes_along is None:
            return Bypass("headers")
        sent = exchange.record.sent if exchange.record else None
        return self.engine.for_caller(self.callers.identity(fields), goes_along, sent)

    async def hand_on(self, exchange: Exchange, fields: Sequence[Field] = ()) -> None:
        """Let the engine answer, with these headers added to its response."""
        await hand_on(exchange, self.upstream, fields)

    async def bypass(self, exchange: Exchange, record: SearchRecord, indices: str, why: Bypass) -> None:
        """Let the engine answer a search before its route is known; only one that might touch a route is reported."""
        await self.respond(exchange, record, self.searching.unroutable(indices, why))

    async def respond(self, exchange: Exchange, record: SearchRecord, result: "Result | Wrong | Unrouted") -> None:
        """Send what came of a search."""
        if isinstance(result, Unrouted):
            await self.hand_on(exchange)
            return
        response = self.concluded(record, result)
        fields = outcome_fields(response.outcome, record.timings())
        if response.body is None:
            record.sent.engine_searches += 1
            await self.hand_on(exchange, fields)
        elif response.reply is not None:
            await send(exchange, response.reply, response.body, fields)
        else:
            await exchange.answer(Answer(response.status, [*own_fields(self._product), *fields], response.body))

    def concluded(self, record: SearchRecord, result: Result | Wrong) -> "Response":
        """Turn a result into a response, and note the search's outcome."""
        response = response_to(result)
        record.outcome = response.outcome
        if isinstance(result, Answered):
            record.candidates = result.candidates
        return response

    @property
    def _product(self) -> bytes | None:
        """X-Elastic-Product for responses made in the engine's place, once any response has told which engine it is."""
        kind = self.engine.told_kind
        return self.upstream.product or (b"Elasticsearch" if kind and kind.product == "elasticsearch" else None)


@dataclass(frozen=True, slots=True)
class Response:
    """What a search's client gets: a body of this proxy's, or None where the engine answers the client's own bytes."""

    outcome: Outcome
    body: bytes | None = None
    status: int = 200
    reply: EngineReply | None = None
    """The engine's response that the body is made of, and whose headers go with it."""


def response_to(result: Result | Wrong) -> Response:
    """Turn what came of a search into a response: the one place where a result gets a status."""
    match result:
        case Bypass() as why:
            return Response(bypassed(why))
        case Wrong(reason):
            return Response(bypassed(Bypass("steering")), own_error(400, "illegal_argument_exception", reason), 400)
        case EngineOrder(reply, body, why) | Relayed(reply, body, why):
            return Response(bypassed(why), body, reply.status, reply)
        case Unanswered() | Defect():
            answer = no_answer(result)
            return Response(bypassed(result.why), answer.body, answer.status)
        case Answered(reply, body, failures):
            return Response(answered(failures), body, reply.status, reply)


def no_answer(result: Unanswered | Defect, product: bytes | None = None, added: Sequence[Field] = ()) -> Answer:
    """Say in the engine's shape why a search that was sent has no answer."""
    if isinstance(result, Unanswered):
        return bad_gateway(result.error, product, added)
    return internal_error(product, added)


async def read_body(exchange: Exchange, *, ndjson: bool = False) -> bytes | Bypass:
    """Read a search's body, out of its gzip; or return why it cannot be read here, or its response not be written."""
    body = await exchange.read_body(SEARCH_BODY_BYTES)
    if body is None:
        return Bypass("too_large")
    fields = exchange.head.fields
    if problem := not_json(fields, has_body=bool(body), ndjson=ndjson):
        return problem
    if len(body) > COMPRESSED_INLINE and is_gzipped(fields):
        return await asyncio.to_thread(content, fields, body, SEARCH_BODY_BYTES)
    return content(fields, body, SEARCH_BODY_BYTES)


# Written anew for a body that was written anew.
_OF_THE_BODY = frozenset((b"content-length", b"content-encoding", b"transfer-encoding", b"connection", b"keep-alive"))


async def send(exchange: Exchange, reply: EngineReply, body: bytes, outcome: Sequence[Field]) -> None:
    """Send the engine's response with another body: its own headers, compressed if it was."""
    kept = [(name, value) for name, value in reply.fields if name.lower() not in _OF_THE_BODY]
    if reply.compressed:
        kept.append((b"content-encoding", b"gzip"))
        body = await asyncio.to_thread(gzipped, body) if len(body) > 2**18 else gzipped(body)
    await exchange.answer(Answer(reply.status, [*kept, *outcome], body))
