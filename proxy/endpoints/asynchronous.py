"""`_async_search`: handed on until it is complete, then answered as a search.

Source: Elasticsearch, "Async search". What is still running is the engine's own; once the engine says that an answer
is complete, the search is run again as a plain one, and its reranked answer takes the place of the engine's. The
engine's own headers and members, which clients poll by, stay.
"""

from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import parse_qsl, urlencode

import msgspec
from cachetools import TTLCache

from proxy import telemetry
from proxy.bounds import ASYNC_SEARCHES_BYTES
from proxy.bypass import Bypass
from proxy.endpoints.front import Front, answer, answered, guarded, read_content
from proxy.endpoints.media import not_json
from proxy.errors import UpstreamError
from proxy.http1.exchange import Exchange
from proxy.indices import Covered, Unrouted
from proxy.journey import Journey
from proxy.planning import EngineReply
from proxy.ranking.pipeline import Answered, Outcome, Relayed, Unanswered, failed
from proxy.request.filter_path import read_form
from proxy.request.json_text import members_of
from proxy.request.search_request import Parameters
from proxy.request.steering import Steering, Wrong
from proxy.routes import Search
from proxy.searching import Asked, Routed
from proxy.telemetry import Told
from proxy.upstream.engine import EngineOfCaller

_OF_ASYNC = frozenset({"keep_alive", "keep_on_completion", "wait_for_completion_timeout", "batched_reduce_size"})
_OF_ANSWERS = frozenset({"filter_path", "human", "pretty", "rest_total_hits_as_int", "typed_keys"})
"""Parameters that each question after a search says anew."""
_UNFINISHED = ("is_partial", "is_running")
_REMEMBERED_S = 3600.0


_identity = msgspec.json.Decoder(str)
_flag = msgspec.json.Decoder(bool)
_FALSE = msgspec.Raw(b"false")


@dataclass(frozen=True, slots=True)
class Submitted:
    """A search that the engine is still busy with, and whose it is."""

    identity: bytes
    asked: Asked
    covered: Covered
    steering: Steering


@dataclass(frozen=True, slots=True)
class _Question:
    """A client's question after a search, be it the first one."""

    exchange: Exchange
    journey: Journey
    caller: EngineOfCaller
    parameters: Parameters

    @property
    def asked(self) -> Parameters:
        """What the engine is asked for: all of its answer, which is put together here."""
        return read_form(self.parameters).asked(self.parameters)


def _size(submitted: Submitted) -> int:
    """Bytes that one takes up, its body above all."""
    return len(submitted.asked.content) + 2**10


class AsyncSearches:
    """The searches that were submitted here and not yet answered."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._submitted: TTLCache[str, Submitted] = TTLCache(ASYNC_SEARCHES_BYTES, _REMEMBERED_S, getsizeof=_size)

    async def submit(self, exchange: Exchange, search: Search) -> None:
        """Answer a submission: complete and reranked at once, or as the engine does."""
        await answered(self._front, exchange, self._answer_submission(exchange, search))

    async def _answer_submission(self, exchange: Exchange, search: Search) -> None:
        front, journey = self._front, Journey.of(exchange.head.fields)
        caller = front.caller(exchange)
        if isinstance(caller, Bypass):
            await front.leave(exchange, search.indices, caller)
            return
        content = await read_content(exchange)
        asked = Asked(search.indices, search.query_string, b"" if isinstance(content, Bypass) else content)
        covered = await guarded(front.searching.cover(journey, caller, asked))
        match covered:
            case Unrouted():
                await front.hand_on(exchange)
            case Bypass():
                await front.end(exchange, journey, covered)
            case Covered(route) if isinstance(content, Bypass):
                journey.route = route
                await front.end(exchange, journey, content)
            case Covered(route):
                journey.route = route
                await self._submit(exchange, journey, caller, covered, asked)

    async def _submit(
        self, exchange: Exchange, journey: Journey, caller: EngineOfCaller, covered: Covered, asked: Asked
    ) -> None:
        front, content = self._front, asked.content
        asked, steering = front.searching.steering(exchange.head.fields, asked)
        if asked.content != content:
            exchange.replace_body(asked.content)
        if isinstance(steering, Wrong):
            await front.end(exchange, journey, steering)
            return
        if problem := _unwritable(asked.parameters):
            await front.end(exchange, journey, problem)
            return
        path = f"/{asked.indices}/_async_search" if asked.indices else "/_async_search"
        question = _Question(exchange, journey, caller, asked.parameters)
        try:
            reply = await caller.post(path, question.asked, asked.content)
        except UpstreamError as error:
            await front.end(exchange, journey, self._failed(question, error))
            return
        await self._progress(question, reply, Submitted(caller.identity, asked, covered, steering))

    async def poll(self, exchange: Exchange, search: Search) -> None:
        """Answer a question after a search that was submitted here; another one is the engine's."""
        await answered(self._front, exchange, self._answer_question(exchange, search))

    async def _answer_question(self, exchange: Exchange, search: Search) -> None:
        caller = self._front.caller(exchange)
        submitted = self._submitted.get(search.id)
        if isinstance(caller, Bypass) or submitted is None or submitted.identity != caller.identity:
            await self._front.hand_on(exchange)
            return
        journey = Journey.of(exchange.head.fields)
        journey.route = submitted.covered.route
        parameters = tuple(parse_qsl(search.query_string, keep_blank_values=True))
        if problem := not_json(exchange.head.fields, has_body=False) or _unwritable(parameters):
            await self._front.end(exchange, journey, problem)
            return
        question = _Question(exchange, journey, caller, parameters)
        try:
            reply = await caller.get(f"/_async_search/{search.id}", question.asked)
        except UpstreamError as error:
            await self._front.end(exchange, journey, self._failed(question, error))
            return
        await self._progress(question, reply, submitted)

    def _failed(self, question: _Question, error: UpstreamError) -> Outcome:
        """Give the engine's error in the form that is asked for: submitted again, the search would run twice."""
        write = partial(read_form(question.parameters).write, keeps_empty=self._front.keeps_empty)
        return failed(error, write, changed=False)

    async def _progress(self, question: _Question, reply: EngineReply, submitted: Submitted) -> None:
        """Answer with what the engine says, a complete search reranked; a submission is not sent a second time."""
        written = await guarded(self._written(question, reply, submitted))
        told, body = (telemetry.bypassed(written), reply.body) if isinstance(written, Bypass) else written
        await answer(question.exchange, reply, body, self._front.conclude(question.journey, told))

    async def _written(self, question: _Question, reply: EngineReply, submitted: Submitted) -> tuple[Told, bytes]:
        """Run a complete search, and write what the engine says in the form that is asked for."""
        match await guarded(self._outcome(question, reply, submitted)):
            case Answered(_, response, failures, candidates):
                question.journey.candidates = candidates
                told, body = telemetry.ended(failures), _with_response(reply.body, response)
            case outcome:
                told, body = telemetry.bypassed(_why(outcome)), reply.body
        return told, read_form(question.parameters).write(body, keeps_empty=self._front.keeps_empty)

    async def _outcome(self, question: _Question, reply: EngineReply, submitted: Submitted) -> Outcome:
        try:
            state = members_of(reply.body)
        except RecursionError:
            return Bypass("too_complex", detail="the engine's response is nested too deeply")
        if "id" in state:
            self._submitted[_identity.decode(state["id"])] = submitted
        if "response" not in state or any(_flag.decode(state.get(name, _FALSE)) for name in _UNFINISHED):
            return Bypass("running")
        plain = _plain(submitted.asked, question.asked)
        return await self._front.searching.run(
            Routed(question.journey, question.caller, plain, submitted.covered, submitted.steering)
        )


def _unwritable(parameters: Parameters) -> Bypass | None:
    """Return why a response cannot be written here in the form that is asked for."""
    if "format" in dict(parameters):
        return Bypass("format")
    return Bypass("too_complex") if read_form(parameters).filter_path.too_complex else None


def _plain(asked: Asked, parameters: Parameters) -> Asked:
    """The same search without what makes it asynchronous, its answer in the form that is now asked for."""
    kept = [pair for pair in asked.parameters if pair[0] not in _OF_ASYNC | _OF_ANSWERS]
    form = [pair for pair in parameters if pair[0] in _OF_ANSWERS]
    return replace(asked, query_string=urlencode((*kept, *form)))


def _why(outcome: Outcome) -> Bypass:
    match outcome:
        case Bypass():
            return outcome
        case Relayed(_, _, why):
            return why
        case Unanswered(error):
            return Bypass("engine_refused", detail=str(error), is_fault=True)
        case _:
            return Bypass("zero_hits")


def _with_response(body: bytes, response: bytes) -> bytes:
    return msgspec.json.encode(members_of(body) | {"response": msgspec.Raw(response)})
