"""What all endpoints share: the caller, the request body, and the response to a search."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.bounds import SEARCH_BODY_BYTES
from proxy.catalog.indices import Unrouted
from proxy.context import SearchRecord
from proxy.endpoints.answering import Searching
from proxy.endpoints.media import content, gzipped, is_gzipped, not_json
from proxy.endpoints.passthrough import hand_on
from proxy.endpoints.routing import cut_options
from proxy.http1.callers import CallerIdentities, Field, can_be_repeated, carried
from proxy.http1.exchange import Answer, Exchange
from proxy.http1.headers import own_error, own_fields
from proxy.http1.relay import Upstream, bad_gateway, internal_error
from proxy.outcomes import Bypass, Outcome, answered, bypassed
from proxy.ranking.pipeline import Answered, Defect, EngineOrder, Relayed, Result, Unanswered, Unserved
from proxy.ranking.planning import EngineReply
from proxy.settings.request_options import MEMBER, Wrong
from proxy.settings.routes import Endpoint, Search
from proxy.telemetry.log import outcome_fields
from proxy.upstream.engine import EngineClient, EngineOfCaller

COMPRESSED_INLINE = 2**10
"""Larger gzip bodies are decompressed in a thread: they may expand a thousandfold."""

EDITED_INLINE = 2**16
"""Options are removed from larger bodies in a thread: 8 MB of short lines take two seconds."""


@dataclass(frozen=True, slots=True)
class Front:
    """The services that the endpoints use."""

    upstream: Upstream
    engine: EngineClient
    searching: Searching
    callers: CallerIdentities
    multi_search_reranked: int
    """Maximum number of reranked searches per `_msearch`."""

    @property
    def keeps_empty(self) -> bool:
        """Whether the engine keeps objects that `filter_path` empties: see `EngineKind`."""
        kind = self.engine.kind_in_headers
        return kind is None or kind.keeps_empty

    def fields(self, exchange: Exchange) -> Sequence[Field]:
        """Return the request's headers, and the one with the client's address if it is sent to the engine."""
        return (*exchange.head.fields, *self.upstream.hop.forwarded(exchange.peer))

    def caller(self, exchange: Exchange) -> EngineOfCaller | Bypass:
        """Return the engine with this request's credentials, or why the proxy cannot send searches with them."""
        fields = self.fields(exchange)
        if not can_be_repeated(fields):
            return Bypass("credentials")
        goes_along = carried(fields)
        if goes_along is None:
            return Bypass("headers")
        record = exchange.record
        if record is not None and record.trace is not None:
            goes_along = record.trace.carried_on(goes_along)
        sent = record.sent if record else None
        return self.engine.for_caller(self.callers.identity(fields), goes_along, sent)

    async def hand_on(self, exchange: Exchange, fields: Sequence[Field] = ()) -> None:
        """Pass the request on, and add these headers to the response."""
        await hand_on(exchange, self.upstream, fields)

    async def bypass(self, exchange: Exchange, record: SearchRecord, search: Search, why: Bypass) -> None:
        """Bypass a search before its route is known; the reason is reported only if the search might touch a route.

        A multi-search has no such reason if only its lines name the indices.
        """
        unnamed = search.endpoint.is_lines and not search.indices
        found = Unrouted() if unnamed else self.searching.router.unroutable(search.indices, why)
        if unnamed or isinstance(found, Bypass):
            await forward_without_options(exchange, search.endpoint)
        await self.respond(exchange, record, found)

    async def respond(self, exchange: Exchange, record: SearchRecord, result: "Result | Wrong | Unrouted") -> None:
        """Send the response to a search."""
        if isinstance(result, Unrouted):
            await self.hand_on(exchange)
            return
        response = self.concluded(record, result)
        fields = outcome_fields(response.outcome, record)
        if response.body is None:
            record.sent.engine_searches += 1
            await self.hand_on(exchange, fields)
        elif response.reply is not None:
            await send(exchange, response.reply, response.body, fields)
        else:
            exchange.send(Answer(response.status, [*own_fields(self.product), *fields], response.body))

    def concluded(self, record: SearchRecord, result: Result | Wrong) -> "Response":
        """Turn a result into a response, and record the outcome of the search."""
        response = response_to(result)
        record.outcome = response.outcome
        if isinstance(result, Answered):
            record.candidates = result.candidates
        return response

    @property
    def product(self) -> bytes | None:
        """The X-Elastic-Product header of the proxy's own responses, if the engine is known to send it."""
        kind = self.engine.kind_in_headers
        return self.upstream.product or (b"Elasticsearch" if kind and kind.product == "elasticsearch" else None)


@dataclass(frozen=True, slots=True)
class Response:
    """The response to a search; without a body, the client's own request is passed on."""

    outcome: Outcome
    body: bytes | None = None
    status: int = 200
    reply: EngineReply | None = None
    """The engine's response that the body is based on, and whose headers are sent with it."""


def response_to(result: Result | Wrong) -> Response:
    """Turn the result of a search into a response; statuses are chosen here only."""
    match result:
        case Bypass() as why:
            return Response(bypassed(why))
        case Unserved(failures):
            return Response(answered(failures))
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
    """Return an error in the engine's format for a search that was sent but has no response."""
    if isinstance(result, Unanswered):
        return bad_gateway(result.error, product, added)
    return internal_error(product, added)


async def read_body(exchange: Exchange, *, ndjson: bool = False) -> bytes | Bypass:
    """Read and decompress a search's body; returns a bypass reason if it or the response cannot be JSON."""
    body = await exchange.read_body(SEARCH_BODY_BYTES)
    if body is None:
        return Bypass("too_large")
    fields = exchange.head.fields
    if problem := not_json(fields, has_body=bool(body), ndjson=ndjson):
        return problem
    if len(body) > COMPRESSED_INLINE and is_gzipped(fields):
        return await asyncio.to_thread(content, fields, body, SEARCH_BODY_BYTES)
    return content(fields, body, SEARCH_BODY_BYTES)


async def forward_without_options(exchange: Exchange, endpoint: Endpoint) -> None:
    """Remove per-request options from the body to be passed on, since the engine rejects what it does not know."""
    body = await read_body(exchange, ndjson=endpoint.is_lines)
    if isinstance(body, Bypass) or MEMBER.encode() not in body:
        return
    without = await options_removed(body, is_lines=endpoint.is_lines)
    if without != body:
        exchange.replace_body(without)


async def options_removed(body: bytes, *, is_lines: bool) -> bytes:
    """Remove the per-request options from the body of one search, or of one search a line."""
    if len(body) <= EDITED_INLINE:
        return _options_removed(body, is_lines=is_lines)
    return await asyncio.to_thread(_options_removed, body, is_lines=is_lines)


def _options_removed(body: bytes, *, is_lines: bool) -> bytes:
    return b"\n".join(map(without_options, body.split(b"\n"))) if is_lines else without_options(body)


def without_options(content: bytes) -> bytes:
    """Remove the per-request options from the body of one search."""
    found = cut_options(content)
    return content if found is None else found[0]


# Headers that do not apply to the new body.
_OF_THE_BODY = frozenset((b"content-length", b"content-encoding", b"transfer-encoding", b"connection", b"keep-alive"))


async def send(exchange: Exchange, reply: EngineReply, body: bytes, outcome: Sequence[Field]) -> None:
    """Send the engine's response with a new body, compressed if the engine's was."""
    kept = [(name, value) for name, value in reply.fields if name.lower() not in _OF_THE_BODY]
    if reply.compressed:
        kept.append((b"content-encoding", b"gzip"))
        body = await asyncio.to_thread(gzipped, body) if len(body) > 2**18 else gzipped(body)
    exchange.send(Answer(reply.status, [*kept, *outcome], body))
