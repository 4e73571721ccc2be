"""`_msearch` and `_msearch/template`: reranks each item that a route covers; the engine answers the others together.

Each item has its own outcome. Bypassed items are sent to the engine as the client wrote them.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import parse_qsl

from proxy.bounds import MSEARCH_ITEMS
from proxy.catalog.indices import Unrouted
from proxy.context import RequestRecord, SearchRecord
from proxy.endpoints.answering import Prepared, to_pass_on
from proxy.endpoints.front import Front, no_answer, read_body, send, without_options
from proxy.endpoints.multi_search_lines import (
    OF_THE_ITEMS,
    OF_THE_WHOLE,
    Item,
    Unread,
    join_lines,
    join_responses,
    query_string,
    responses,
    split,
    status_of,
    took,
)
from proxy.endpoints.routing import Routed, SearchCall
from proxy.errors import Malformed, TooComplex, UpstreamError
from proxy.http1.callers import Field
from proxy.http1.exchange import Exchange
from proxy.http1.headers import own_error, own_fields
from proxy.http1.relay import TURNED_AWAY
from proxy.outcomes import Bypass, bypassed, in_order
from proxy.parsing.filter_path import read_form
from proxy.parsing.json_text import with_member
from proxy.ranking.pipeline import Relayed, Result, Unanswered, result_of_error
from proxy.ranking.planning import EngineReply
from proxy.ranking.stages import OwnSearches
from proxy.settings.request_options import Wrong
from proxy.settings.routes import Endpoint, Search
from proxy.upstream.engine import EngineOfCaller

_UNROUTED = b"unrouted"


@dataclass(frozen=True, slots=True)
class _Ended:
    """An item with a known outcome."""

    line: tuple[bytes, bytes]
    """Its two lines as the engine may receive them."""
    part: bytes | None = None
    """Its response if it was made here; None: the engine answers it."""
    reply: EngineReply | None = None
    outcome: bytes = _UNROUTED


@dataclass(frozen=True, slots=True)
class _Routed:
    """An item covered by a route."""

    header: bytes
    search: Routed


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A planned item that has not been sent yet."""

    header: bytes
    search: Routed
    prepared: Prepared


@dataclass(frozen=True, slots=True)
class _Rest:
    """The engine's response to the items that are not answered here."""

    reply: EngineReply | None
    took_ms: int
    parts: Sequence[bytes]


_Each = TypeVar("_Each", _Routed, _Prepared)


def _outcome(ended: Sequence[_Ended], *, answered: bool) -> list[Field]:
    """Return the header that lists each item's outcome; unless `answered`, responses made here were dropped."""
    refused = bypassed(Bypass("engine_refused")).header
    headers = [each.outcome if answered or each.part is None else refused for each in ended]
    return [(b"X-Rerank", in_order(headers))] if set(headers) != {_UNROUTED} else []


async def answer_multi_search(front: Front, exchange: Exchange, record: RequestRecord, search: Search) -> None:
    """Answer a multi-search, and rerank the items that routes cover."""
    caller = front.caller(exchange)
    url = tuple(parse_qsl(search.query_string, keep_blank_values=True))
    items = _items(await read_body(exchange, ndjson=True), url)
    if isinstance(items, Bypass):
        await front.bypass(exchange, record.search(), search, items)
    elif isinstance(caller, Bypass):
        left = [_unroutable(front, record, search, item, caller) for item in items]
        await _pass_on(front, exchange, left, items)
    else:
        multi = _Multi(front, exchange, record, search, caller, url, len(items), OwnSearches(len(items) + 1))
        await multi.answer(items)


def _items(content: bytes | Bypass, url: Sequence[tuple[str, str]]) -> Sequence[Item | Unread] | Bypass:
    """Split the request into items, or return why it is passed on as a whole."""
    if isinstance(content, Bypass):
        return content
    if unknown := [name for name, _ in url if name not in OF_THE_ITEMS | OF_THE_WHOLE]:
        return Bypass("unknown_parameter", unknown[0])
    if (lines := content.count(b"\n")) > 2 * MSEARCH_ITEMS:
        return Bypass("too_many", detail=f"{lines} lines")
    if read_form(url).filter_path.too_complex:
        return Bypass("too_complex", "filter_path")
    return split(content) or Bypass("not_json", detail="its lines are not pairs of header and body")


def _unroutable(front: Front, record: RequestRecord, search: Search, item: Item | Unread, why: Bypass) -> _Ended:
    """Bypass an item before its route is known; the reason is reported only if the item might touch a route."""
    match front.searching.router.unroutable(item.of(search.indices) if isinstance(item, Item) else search.indices, why):
        case Unrouted():
            return _Ended((item.header, item.body))
        case Bypass() as bypass:
            line = item.header, without_options(item.body)
            return _Ended(line, outcome=front.concluded(record.search(), bypass).outcome.header)


async def _pass_on(front: Front, exchange: Exchange, ended: Sequence[_Ended], items: Sequence[Item | Unread]) -> None:
    """Pass the request on; items keep the client's own lines, without per-request options."""
    lines = [each.line for each in ended]
    if lines != [(item.header, item.body) for item in items]:
        exchange.replace_body(join_lines(lines))
    await front.hand_on(exchange, _outcome(ended, answered=False))


@dataclass(frozen=True, slots=True)
class _Multi:
    """One running multi-search."""

    front: Front
    exchange: Exchange
    record: RequestRecord
    search: Search
    caller: EngineOfCaller
    url: Sequence[tuple[str, str]]
    number_of_rest: int
    own: OwnSearches
    """The searches that the time budget waits for: one per item, and last the request with the engine's items."""

    async def answer(self, items: Sequence[Item | Unread]) -> None:
        """Answer all items in their order; if none of them is answered here, pass the request on.

        The engine's items are sent at once, in parallel to the searches that are made here.
        """
        prepared = await self._prepared(items)
        if all(isinstance(each, _Ended) and each.part is None for each in prepared):
            await _pass_on(self.front, self.exchange, [each for each in prepared if isinstance(each, _Ended)], items)
            return
        asking = asyncio.ensure_future(self._ask_rest([each for each in prepared if isinstance(each, _Ended)]))
        searching = [asyncio.ensure_future(self._finish(number, each)) for number, each in enumerate(prepared)]
        try:
            rest = await asking
            if isinstance(rest, _Rest):
                await self._send(await asyncio.gather(*searching), rest, prepared, items)
                return
            ended = [self._outcome_so_far(*pair) for pair in zip(searching, prepared, strict=True)]
        finally:
            for task in (asking, *searching):
                task.cancel()
        await self._send_rejection(rest, ended, items)

    async def _prepared(self, items: Sequence[Item | Unread]) -> "Sequence[_Ended | _Prepared]":
        """Route and plan the items, up to the maximum of reranked ones; only that many templates are rendered."""
        found = await asyncio.gather(*(self._routed(item) for item in items))
        if self.search.endpoint is Endpoint.MULTI_TEMPLATE:
            found = list(self._first(found))
        planned = await asyncio.gather(*(self._prepare(number, each) for number, each in enumerate(found)))
        return list(self._first(planned))

    def _first(self, items: "Sequence[_Ended | _Each]") -> "Iterator[_Ended | _Each]":
        """Yield the items; those beyond the maximum of reranked ones are bypassed."""
        places = 0
        for number, item in enumerate(items):
            places += not isinstance(item, _Ended)
            if isinstance(item, _Ended) or places <= self.front.multi_search_reranked:
                yield item
            else:
                self.own.answered(number)
                yield self._ended(item.header, item.search.record, item.search.call, Bypass("too_many"))

    async def _routed(self, item: Item | Unread) -> _Ended | _Routed:
        if isinstance(item, Unread):
            why = Bypass("unknown_parameter", item.key)
            return _unroutable(self.front, self.record, self.search, item, why)

        async def body() -> bytes:
            return item.body

        is_template = self.search.endpoint is Endpoint.MULTI_TEMPLATE
        fields, indices = self.exchange.head.fields, item.of(self.search.indices)
        call = SearchCall(indices, query_string(item, self.url), item.body, fields, is_template)
        begun = self.record.search()
        routed = await self.front.searching.route(begun, self.caller, call, body)
        if isinstance(routed, Routed):
            return _Routed(item.header, routed)
        if isinstance(routed.why, Unrouted):
            return _Ended((item.header, item.body))
        return self._ended(item.header, begun, routed.call, routed.why)

    async def _prepare(self, number: int, item: _Ended | _Routed) -> _Ended | _Prepared:
        if isinstance(item, _Ended):
            self.own.answered(number)
            return item
        prepared = await self.front.searching.prepare(item.search, self.own, number)
        if not isinstance(prepared, Prepared):
            self.own.answered(number)
            return self._ended(item.header, item.search.record, to_pass_on(item.search, prepared), prepared)
        return _Prepared(item.header, item.search, prepared)

    async def _finish(self, number: int, item: _Ended | _Prepared) -> _Ended:
        """Run one item."""
        if isinstance(item, _Ended):
            return item
        try:
            result = await item.prepared.run()
        finally:
            self.own.answered(number)
        return self._ended(item.header, item.search.record, item.search.call, result)

    def _outcome_so_far(self, finishing: "asyncio.Future[_Ended]", item: _Ended | _Prepared) -> _Ended:
        """Return the outcome of an item that has finished; bypass one that has not."""
        if isinstance(item, _Ended):
            return item
        if finishing.done() and not finishing.exception():
            return finishing.result()
        return self._ended(item.header, item.search.record, item.search.call, Bypass("engine_refused"))

    def _ended(self, header: bytes, record: SearchRecord, call: SearchCall, result: Result | Wrong) -> _Ended:
        """Turn an item's result into its part of the response; Elasticsearch adds the status to each."""
        response = self.front.concluded(record, result)
        part = response.body
        record.sent.engine_searches += part is None
        if part is not None and response.status == 200:
            part = with_member(part, "status", b"200")
        elif part is not None and not part.startswith(b"{"):  # an error that is not JSON does not fit into the list
            part = own_error(response.status, "engine_refused", response.outcome.detail)
        return _Ended((header, call.content), part, response.reply, response.outcome.header)

    async def _send(
        self,
        ended: Sequence[_Ended],
        rest: _Rest,
        prepared: "Sequence[_Ended | _Prepared]",
        items: Sequence[Item | Unread],
    ) -> None:
        """Join the responses; items bypassed during their run are sent to the engine first.

        If the engine rejects the caller for each of them, it may reject the request as a whole, and says so itself.
        """
        late = [each for each, begun in zip(ended, prepared, strict=True) if each is not begun and each.part is None]
        if len(late) == len(ended) or all(each.reply and each.reply.status in TURNED_AWAY for each in ended):
            await _pass_on(self.front, self.exchange, ended, items)
            return
        more = await self._ask_rest(late)
        if not isinstance(more, _Rest):
            await self._send_rejection(more, ended, items)
            return
        at_once, afterwards = iter(rest.parts), iter(more.parts)
        parts = [
            each.part if each.part is not None else next(at_once if each is begun else afterwards)
            for each, begun in zip(ended, prepared, strict=True)
        ]
        took_ms = max(rest.took_ms, more.took_ms, *(took(part) for part in parts))
        try:
            body = join_responses(parts, took_ms, read_form(self.url), keeps_empty=self.front.keeps_empty)
        except TooComplex:
            await _pass_on(self.front, self.exchange, ended, items)
            return
        own = EngineReply(200, tuple(own_fields(self.front.product)), b"")
        reply = _with_all_warnings([rest.reply, more.reply, *(each.reply for each in ended)], own)
        await send(self.exchange, reply, body, _outcome(ended, answered=True))

    async def _send_rejection(
        self, refusal: Relayed | Unanswered | Bypass, ended: Sequence[_Ended], items: Sequence[Item | Unread]
    ) -> None:
        """Return the engine's rejection of its items as the response to the whole request."""
        outcome = _outcome(ended, answered=False)
        match refusal:
            case Bypass():
                await _pass_on(self.front, self.exchange, ended, items)
            case Relayed(reply, body):
                await send(self.exchange, reply, body, outcome)
            case Unanswered():
                self.exchange.send(no_answer(refusal, self.front.upstream.product, outcome))

    async def _ask_rest(self, ended: Sequence[_Ended]) -> _Rest | Relayed | Unanswered | Bypass:
        """Send the engine its items in one request; returns its rejection if it rejects them as a whole."""
        try:
            return await self._send_rest([each for each in ended if each.part is None])
        except UpstreamError as error:
            return result_of_error(error, read_form(self.url), keeps_empty=self.front.keeps_empty, changed=True)
        finally:
            self.own.answered(self.number_of_rest)

    async def _send_rest(self, left: Sequence[_Ended]) -> _Rest:
        if not left:
            return _Rest(None, 0, ())
        name = f"/{self.search.indices}" if self.search.indices else ""
        asked, lines = read_form(self.url).asked(self.url), join_lines([each.line for each in left])
        reply = await self.caller.post(f"{name}/{self.search.endpoint}", asked, lines, lines=True)
        try:
            parts = responses(reply.body)
        except (ValueError, RecursionError) as error:
            raise Malformed("engine", f"not the answer of a multi-search: {error}") from error
        self.caller.answered_items(map(status_of, parts))
        if len(parts) != len(left):
            raise Malformed("engine", f"{len(parts)} answers to {len(left)} searches")
        return _Rest(reply, took(reply.body), parts)


def _with_all_warnings(replies: Sequence[EngineReply | None], own: EngineReply) -> EngineReply:
    """Return the first successful response, else `own`, with the Warning headers of all of them.

    An item that the engine rejects has its status in the list, as in the engine's response to a multi-search.
    """
    there = [reply for reply in replies if reply is not None]
    warnings = dict.fromkeys(field for reply in there for field in reply.fields if field[0].lower() == b"warning")
    first = next((reply for reply in there if reply.status == own.status), own)
    others = [field for field in first.fields if field[0].lower() != b"warning"]
    return replace(first, fields=(*others, *warnings))
