"""`_async_search`: passed on until the search is complete, and then reranked.

Source: Elasticsearch, "Async search". While a search is running, clients get the engine's responses. When it is
complete, it is run again as a plain search, and the reranked response replaces the engine's; headers and members that
clients need for polling are the engine's.
"""

from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import parse_qsl, urlencode

import msgspec
from cachetools import TTLCache

from proxy.bounds import ASYNC_SEARCHES_BYTES
from proxy.catalog.indices import Covered
from proxy.context import RequestRecord, SearchRecord
from proxy.endpoints.answering import guarded
from proxy.endpoints.front import Front, read_body, send
from proxy.endpoints.media import not_json
from proxy.endpoints.routing import NotRouted, Routed, SearchCall
from proxy.errors import UpstreamError
from proxy.http1.exchange import Exchange
from proxy.outcomes import Bypass, Outcome, bypassed
from proxy.parsing.decoding import Parameters
from proxy.parsing.filter_path import read_form
from proxy.parsing.json_text import members_of
from proxy.ranking.pipeline import Answered, Result, result_of_error
from proxy.ranking.planning import EngineReply
from proxy.settings.request_options import Steering
from proxy.settings.routes import Search
from proxy.telemetry.log import outcome_fields
from proxy.upstream.engine import EngineOfCaller

_OF_ASYNC = frozenset({"keep_alive", "keep_on_completion", "wait_for_completion_timeout", "batched_reduce_size"})
_OF_ANSWERS = frozenset({"filter_path", "human", "pretty", "rest_total_hits_as_int", "typed_keys"})
"""URL parameters that apply to a single response, so that every poll repeats them."""
_UNFINISHED = ("is_partial", "is_running")
_REMEMBERED_S = 3600.0


_identity = msgspec.json.Decoder(str)
_flag = msgspec.json.Decoder(bool)
_FALSE = msgspec.Raw(b"false")


@dataclass(frozen=True, slots=True)
class Submitted:
    """A submitted search that may still be running, and its caller's identity."""

    identity: bytes
    call: SearchCall
    covered: Covered
    options: Steering


@dataclass(frozen=True, slots=True)
class _Question:
    """A client's submission of a search, or a later poll."""

    exchange: Exchange
    record: SearchRecord
    caller: EngineOfCaller
    parameters: Parameters

    @property
    def asked(self) -> Parameters:
        """The engine's URL parameters, without `filter_path` and the like, which are applied here."""
        return read_form(self.parameters).asked(self.parameters)


def _size(submitted: Submitted) -> int:
    """Return the memory that a submitted search takes, in bytes: its body, URL, headers and indices."""
    call, covered = submitted.call, submitted.covered
    fields = sum(len(name) + len(value) + _OBJECTS_SIZE for name, value in call.fields)
    indices = _OBJECTS_SIZE * (len(covered.indices) + len(covered.reached))
    return len(call.content) + len(call.indices) + len(call.query_string) + fields + indices + 2**10


_OBJECTS_SIZE = 2**8
"""The memory of a header, or of an index, besides its bytes."""


class AsyncSearches:
    """Searches that were submitted through the proxy, and may still be polled."""

    def __init__(self, front: Front, earlier: "AsyncSearches | None" = None) -> None:
        """Share the searches of `earlier`, to which one that is being submitted is added later."""
        self._front = front
        self.submitted: TTLCache[str, Submitted] = (
            earlier.submitted if earlier else TTLCache(ASYNC_SEARCHES_BYTES, _REMEMBERED_S, getsizeof=_size)
        )

    def _known(self, id_: str, caller: EngineOfCaller) -> Submitted | None:
        """Return a search of this caller, and of a route that has not changed."""
        submitted: Submitted | None = self.submitted.get(id_)
        if submitted is None or submitted.identity != caller.identity:
            return None
        return submitted if submitted.covered.route in self._front.searching.routes else None

    async def submit(self, exchange: Exchange, record: RequestRecord, search: Search) -> None:
        """Answer a submission; the search is reranked if it is complete at once."""
        front, begun = self._front, record.search()
        caller = front.caller(exchange)
        if isinstance(caller, Bypass):
            await front.bypass(exchange, begun, search, caller)
            return
        call = SearchCall(search.indices, search.query_string, fields=exchange.head.fields)
        routed = await front.searching.route(begun, caller, call, partial(read_body, exchange))
        if routed.call.rewritten:
            exchange.replace_body(routed.call.content)
        if routed.call.query_string != search.query_string:
            exchange.replace_query(routed.call.query_string)
        if isinstance(routed, NotRouted):
            await front.respond(exchange, begun, routed.why)
        elif problem := _unwritable(routed.call.parameters):
            await front.respond(exchange, begun, problem)
        else:
            await self._submit(_Question(exchange, begun, caller, routed.call.parameters), routed)

    async def _submit(self, question: _Question, routed: Routed) -> None:
        call, caller = routed.call, question.caller
        path = f"/{call.indices}/_async_search" if call.indices else "/_async_search"
        try:
            reply = await caller.post(path, question.asked, call.content)
        except UpstreamError as error:
            await self._fail(question, error)
            return
        await self._progress(question, reply, Submitted(caller.identity, call, routed.covered, routed.options))

    async def poll(self, exchange: Exchange, record: RequestRecord, search: Search) -> None:
        """Answer a poll; only a search that the same caller submitted through the proxy is reranked."""
        caller = self._front.caller(exchange)
        submitted = None if isinstance(caller, Bypass) else self._known(search.id, caller)
        if isinstance(caller, Bypass) or submitted is None:
            await self._front.hand_on(exchange)
            return
        begun = record.search()
        begun.route = submitted.covered.route.name
        parameters = tuple(parse_qsl(search.query_string, keep_blank_values=True))
        if problem := not_json(exchange.head.fields, has_body=False) or _unwritable(parameters):
            await self._front.respond(exchange, begun, problem)
            return
        question = _Question(exchange, begun, caller, parameters)
        try:
            reply = await caller.get(f"/_async_search/{search.id}", question.asked)
        except UpstreamError as error:
            await self._fail(question, error)
            return
        await self._progress(question, reply, submitted)

    async def _fail(self, question: _Question, error: UpstreamError) -> None:
        """Return the engine's error; the submission is not repeated, since the search would run twice."""
        form, keeps_empty = read_form(question.parameters), self._front.keeps_empty
        failure = result_of_error(error, form, keeps_empty=keeps_empty, changed=False)
        await self._front.respond(question.exchange, question.record, failure)

    async def _progress(self, question: _Question, reply: EngineReply, submitted: Submitted) -> None:
        """Return the engine's response, reranked if the search is complete; the submission is not repeated."""
        written = await guarded(self._written(question, reply, submitted))
        outcome, body = (bypassed(written), reply.body) if isinstance(written, Bypass) else written
        question.record.outcome = outcome
        await send(question.exchange, reply, body, outcome_fields(outcome, question.record))

    async def _written(self, question: _Question, reply: EngineReply, submitted: Submitted) -> tuple[Outcome, bytes]:
        """Run a complete search, and render the engine's response in the requested format."""
        result = await guarded(self._result(question, reply, submitted))
        outcome = self._front.concluded(question.record, result).outcome
        body = _with_response(reply.body, result.body) if isinstance(result, Answered) else reply.body
        return outcome, read_form(question.parameters).write(body, keeps_empty=self._front.keeps_empty)

    async def _result(self, question: _Question, reply: EngineReply, submitted: Submitted) -> Result:
        try:
            state = members_of(reply.body)
            if "id" in state:
                self.submitted[_identity.decode(state["id"])] = submitted
            if "response" not in state or any(_flag.decode(state.get(name, _FALSE)) for name in _UNFINISHED):
                return Bypass("running")
        except RecursionError:
            return Bypass("too_complex", detail="the engine's response is nested too deeply")
        except ValueError as error:
            detail = f"engine: not the answer of an asynchronous search: {error}"
            return Bypass("engine_refused", detail=detail, is_fault=True)
        call = _plain(submitted.call, question.asked)
        routed = Routed(question.record, question.caller, call, submitted.covered, submitted.options)
        return await self._front.searching.answer(routed)


def _unwritable(parameters: Parameters) -> Bypass | None:
    """Return the bypass reason if the requested response format cannot be rendered here."""
    if "format" in dict(parameters):
        return Bypass("format")
    return Bypass("too_complex") if read_form(parameters).filter_path.too_complex else None


def _plain(call: SearchCall, parameters: Parameters) -> SearchCall:
    """Return the search without its asynchronous parameters, in the response format requested now."""
    kept = [pair for pair in call.parameters if pair[0] not in _OF_ASYNC | _OF_ANSWERS]
    form = [pair for pair in parameters if pair[0] in _OF_ANSWERS]
    return replace(call, query_string=urlencode((*kept, *form)))


def _with_response(body: bytes, response: bytes) -> bytes:
    return msgspec.json.encode(members_of(body) | {"response": msgspec.Raw(response)})
