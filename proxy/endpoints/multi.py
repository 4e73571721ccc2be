"""`_msearch` and `_msearch/template`: what a route covers is a search of its own, the other items go on together.

Each item has its own outcome, and one that cannot be reranked its own bytes in the engine's own multi-search.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

from proxy import telemetry
from proxy.bounds import MSEARCH_ITEMS, MSEARCH_RERANKED, PARAMETERS_BYTES
from proxy.bypass import Bypass
from proxy.endpoints.front import Front, answer, guarded, read_content
from proxy.endpoints.multi_search import (
    OF_THE_ITEMS,
    OF_THE_WHOLE,
    Item,
    joined,
    query_string,
    render,
    responses,
    split,
    took,
)
from proxy.endpoints.single import rendered_template
from proxy.errors import TooComplex, UpstreamError
from proxy.http1.callers import Field
from proxy.http1.headers import own_error
from proxy.http1.inbound import Exchange
from proxy.indices import Covered, Unrouted
from proxy.journey import Journey
from proxy.planning import EngineReply
from proxy.ranking.pipeline import Answered, KeptEmpty, Outcome
from proxy.request.filter_path import read_form
from proxy.request.json_text import with_member
from proxy.request.steering import Steering, Wrong
from proxy.routes import Endpoint, Search
from proxy.searching import Asked
from proxy.telemetry import Told
from proxy.upstream.engine import EngineOfCaller

_UNROUTED = b"unrouted"


@dataclass(frozen=True, slots=True)
class _Ended:
    """How one item ended."""

    line: tuple[bytes, bytes]
    """Its two lines as the engine may see them."""
    part: bytes | None = None
    """Its answer, made here; None leaves it to the engine."""
    reply: EngineReply | None = None
    header: bytes = _UNROUTED


@dataclass(frozen=True, slots=True)
class _Rest:
    """The engine's answer to the items that are not answered here."""

    reply: EngineReply | None
    took_ms: int
    parts: Sequence[bytes]


_NO_REPLY = EngineReply(200, ((b"content-type", b"application/json"),), b"")


def _outcome(ended: Sequence[_Ended], *, answered: bool) -> list[Field]:
    """Say of each item in order how it ended; what was made here is lost where the engine refuses the others."""
    refused = telemetry.bypassed("engine_refused").header
    headers = [each.header if answered or each.part is None else refused for each in ended]
    return [(b"X-Rerank", telemetry.in_order(headers))] if set(headers) != {_UNROUTED} else []


async def answer_multi_search(front: Front, exchange: Exchange, search: Search) -> None:
    """Answer several searches: each reranked, or as the engine does."""
    caller = front.caller(exchange)
    url = tuple(parse_qsl(search.query_string, keep_blank_values=True))
    content = await read_content(exchange, ndjson=True)
    items = _items(content, url) if len(search.query_string) <= PARAMETERS_BYTES else Bypass("too_complex")
    if isinstance(items, Bypass):
        await _leave(front, exchange, search, items)
        return
    if isinstance(caller, Bypass):
        left = [_left(front, exchange, search, item, caller) for item in items]
        await front.hand_on(exchange, _outcome(left, answered=False))
        return
    bound = asyncio.Semaphore(front.multi_search_concurrency)
    multi = _Multi(front, exchange, search, caller, url, bound, asyncio.Semaphore(MSEARCH_RERANKED))
    ended = await asyncio.gather(*(multi.end(item) for item in items))
    await multi.send(ended, items)


def _items(content: bytes | Bypass, url: Sequence[tuple[str, str]]) -> Sequence[Item] | Bypass:
    """Take the searches apart, or say why the whole is the engine's."""
    if isinstance(content, Bypass):
        return content
    if not {name for name, _ in url} <= OF_THE_ITEMS | OF_THE_WHOLE:
        return Bypass("unknown_parameter")
    if read_form(url).filter_path.too_complex or content.count(b"\n") > 2 * MSEARCH_ITEMS:
        return Bypass("too_complex")
    return split(content) or Bypass("not_json")


async def _leave(front: Front, exchange: Exchange, search: Search, why: Bypass) -> None:
    """Let the engine answer what cannot be taken apart, and say so where the URL tells that it may concern a route."""
    if search.indices:
        await front.leave(exchange, search.indices, why)
    else:
        await front.hand_on(exchange)


def _left(front: Front, exchange: Exchange, search: Search, item: Item, why: Bypass) -> _Ended:
    """Leave one item to the engine that cannot be made for its caller."""
    line = item.head, item.body
    match front.searching.left(item.of(search.indices), why):
        case Unrouted():
            return _Ended(line)
        case Bypass(reason):
            told = telemetry.bypassed(reason)
            front.conclude(Journey.of(exchange.head.fields), told)
            return _Ended(line, header=told.header)


@dataclass(frozen=True, slots=True)
class _Multi:
    """One multi-search on its way."""

    front: Front
    exchange: Exchange
    search: Search
    caller: EngineOfCaller
    url: Sequence[tuple[str, str]]
    bound: asyncio.Semaphore
    slots: asyncio.Semaphore
    """One for each item that may still be reranked."""

    async def end(self, item: Item) -> _Ended:
        """Bring one item to its end, no more than some at a time."""
        async with self.bound:
            journey = Journey.of(self.exchange.head.fields)
            asked = Asked(item.of(self.search.indices), query_string(item, self.url), item.body)
            covered = await guarded(self.front.searching.cover(self.caller, asked))
            match covered:
                case Unrouted():
                    return _Ended((item.head, item.body))
                case Bypass():
                    return self._ended(journey, item.head, asked, covered)
                case Covered(route):
                    journey.route = route
                    return await self._run(journey, item.head, asked, covered)

    async def _run(self, journey: Journey, head: bytes, asked: Asked, covered: Covered) -> _Ended:
        asked, steering = self.front.searching.steering(self.exchange.head.fields, asked)
        if isinstance(steering, Wrong):
            return self._ended(journey, head, asked, steering)
        return self._ended(journey, head, asked, await guarded(self._searched(journey, asked, covered, steering)))

    async def _searched(self, journey: Journey, asked: Asked, covered: Covered, steering: Steering) -> Outcome:
        rendered: Asked | Bypass = asked
        if self.search.endpoint is Endpoint.MULTI_TEMPLATE:
            rendered = await rendered_template(self.caller, asked)
        if isinstance(rendered, Bypass):
            return rendered
        if self.slots.locked():
            return Bypass("msearch_limit")
        await self.slots.acquire()
        outcome = await self.front.searching.run(journey, self.caller, covered, rendered, steering)
        if isinstance(outcome, Bypass):
            self.slots.release()
        return outcome

    def _ended(self, journey: Journey, head: bytes, asked: Asked, ending: Outcome | Wrong) -> _Ended:
        line = head, asked.content
        match ending:
            case Bypass(reason):
                return _Ended(line, header=self._conclude(journey, telemetry.bypassed(reason)))
            case Wrong(reason):
                refused = own_error(400, "illegal_argument_exception", reason)
                return _Ended(line, refused, header=self._conclude(journey, telemetry.bypassed("steering")))
            case KeptEmpty(reply, body):
                header = self._conclude(journey, telemetry.bypassed("zero_hits"))
                return _Ended(line, _item_of(body), reply, header)
            case Answered(reply, body, failures, candidates):
                journey.candidates = candidates
                return _Ended(line, _item_of(body), reply, self._conclude(journey, telemetry.ended(failures)))

    def _conclude(self, journey: Journey, told: Told) -> bytes:
        self.front.conclude(journey, told)
        return told.header

    async def send(self, ended: Sequence[_Ended], items: Sequence[Item]) -> None:
        """Answer with all items in their order; where none was answered here, the engine does it alone."""
        rest = await self._rest(ended) if any(each.part is not None for each in ended) else None
        body = None if rest is None else self._body(ended, rest)
        if rest is None or body is None:
            lines = [each.line for each in ended]
            if lines != [(item.head, item.body) for item in items]:
                self.exchange.replace_body(joined(lines))
            await self.front.hand_on(self.exchange, _outcome(ended, answered=False))
            return
        reply = _together([rest.reply, *(each.reply for each in ended), _NO_REPLY])
        await answer(self.exchange, reply, body, _outcome(ended, answered=True))

    def _body(self, ended: Sequence[_Ended], rest: _Rest) -> bytes | None:
        """Put the items' responses together; None where that takes too much work."""
        remaining = iter(rest.parts)
        parts = [each.part if each.part is not None else next(remaining) for each in ended]
        took_ms = max(rest.took_ms, *(took(part) for part in parts))
        try:
            return render(parts, took_ms, read_form(self.url), keeps_empty=self.front.keeps_empty)
        except TooComplex:
            return None

    async def _rest(self, ended: Sequence[_Ended]) -> _Rest | None:
        """Let the engine answer the other items together; None where it refuses them as a whole."""
        left = [each for each in ended if each.part is None]
        if not left:
            return _Rest(None, 0, ())
        name = f"/{self.search.indices}" if self.search.indices else ""
        asked, lines = read_form(self.url).asked(self.url), joined([each.line for each in left])
        try:
            reply = await self.caller.post(f"{name}/{self.search.endpoint}", asked, lines, lines=True)
            took_ms, parts = responses(reply.body)
        except (UpstreamError, ValueError, RecursionError):
            return None
        return _Rest(reply, took_ms, parts) if len(parts) == len(left) else None


def _together(replies: Sequence[EngineReply | None]) -> EngineReply:
    """Take the first one that there is, and let it warn of whatever any of them warns of."""
    there = [reply for reply in replies if reply is not None]
    warnings = dict.fromkeys(field for reply in there for field in reply.fields if field[0].lower() == b"warning")
    others = [field for field in there[0].fields if field[0].lower() != b"warning"]
    return replace(there[0], fields=(*others, *warnings))


def _item_of(body: bytes) -> bytes:
    return with_member(body, "status", b"200")
