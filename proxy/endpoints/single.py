"""`_search`, and `_search/template` once the engine has rendered it."""

from dataclasses import dataclass, replace
from urllib.parse import urlencode

import msgspec

from proxy.bypass import Bypass
from proxy.endpoints.front import Front, answered, guarded, read_content
from proxy.errors import TooComplex, UpstreamError
from proxy.http1.exchange import Exchange
from proxy.indices import Covered, Unrouted
from proxy.journey import Journey
from proxy.ranking.pipeline import Outcome, Relayed, Unanswered
from proxy.request.filter_path import Form, read_form
from proxy.request.json_text import with_member
from proxy.request.steering import Wrong
from proxy.routes import Endpoint, Search
from proxy.searching import Asked, Routed
from proxy.upstream.engine import EngineOfCaller


async def answer_search(front: Front, exchange: Exchange, search: Search) -> None:
    """Answer one search: reranked, or as the engine does."""
    await answered(front, exchange, _answer(front, exchange, search))


async def _answer(front: Front, exchange: Exchange, search: Search) -> None:
    journey = Journey.of(exchange.head.fields)
    caller = front.caller(exchange)
    if isinstance(caller, Bypass):
        await front.leave(exchange, search.indices, caller)
    else:
        await _Single(front, exchange, search, journey, caller).answer()


@dataclass(frozen=True, slots=True)
class _Single:
    """One search on its way."""

    front: Front
    exchange: Exchange
    search: Search
    journey: Journey
    caller: EngineOfCaller

    async def answer(self) -> None:
        """Find the route, and what comes of the search by it."""
        asked = Asked(self.search.indices, self.search.query_string, await self._early_content())
        covered = await guarded(self.front.searching.cover(self.journey, self.caller, asked))
        match covered:
            case Unrouted():
                await self.front.hand_on(self.exchange)
            case Bypass():
                await self.front.end(self.exchange, self.journey, covered)
            case Covered(route):
                self.journey.route = route
                await self.front.end(self.exchange, self.journey, await guarded(self._run(covered)))

    async def _early_content(self) -> bytes:
        """Read the body where only it can tell the indices: those of a point in time."""
        if self.search.indices or self.search.endpoint is not Endpoint.SEARCH:
            return b""
        content = await read_content(self.exchange)
        return b"" if isinstance(content, Bypass) else content

    async def _run(self, covered: Covered) -> Outcome | Wrong:
        content = await read_content(self.exchange)
        if isinstance(content, Bypass):
            return content
        searching, fields = self.front.searching, self.exchange.head.fields
        asked, steering = searching.steering(fields, Asked(self.search.indices, self.search.query_string, content))
        if asked.content != content:
            self.exchange.replace_body(asked.content)
        if isinstance(steering, Wrong):
            return steering
        if self.search.endpoint is not Endpoint.TEMPLATE:
            return await searching.run(Routed(self.journey, self.caller, asked, covered, steering))
        rendered = await rendered_template(self.caller, asked, self.front.added_timeout_seconds)
        if isinstance(rendered, Bypass):
            return rendered
        outcome = await searching.run(Routed(self.journey, self.caller, rendered, covered, steering))
        return await _as_template(self.caller, read_form(asked.parameters), outcome)


# What a template's own body holds; of the URL, what is not in the search's body is left: the rest is ignored there.
_TEMPLATE_KEYS = frozenset({"source", "id", "params"})
_IGNORED = frozenset({"from", "size", "q", "df", "sort", "_source", "_source_includes", "_source_excludes", "stats"})


class _Rendered(msgspec.Struct):
    template_output: msgspec.Raw


_rendered = msgspec.json.Decoder(_Rendered)
_template = msgspec.json.Decoder(dict[str, msgspec.Raw])


async def rendered_template(caller: EngineOfCaller, asked: Asked, timeout_seconds: float) -> Asked | Bypass:
    """Let the engine render a template, with the caller's rights; the search in it is the one that was asked for."""
    try:
        if unknown := [key for key in _template.decode(asked.content) if key not in _TEMPLATE_KEYS]:
            return Bypass("template", detail=unknown[0])
        reply = await caller.render(asked.content, timeout_seconds)
        output = bytes(_rendered.decode(reply.body).template_output)
    except (UpstreamError, ValueError, RecursionError) as error:
        return Bypass("template", detail=str(error))
    kept = [pair for pair in asked.parameters if pair[0] not in _IGNORED]
    return replace(asked, query_string=urlencode(read_form(kept).asked(kept)), content=output)


async def _as_template(caller: EngineOfCaller, form: Form, outcome: Outcome) -> Outcome:
    """Write the answer in the form that was asked for; OpenSearch ends that to a template with its status."""
    if isinstance(outcome, Bypass | Relayed | Unanswered):
        return outcome
    kind = await replace(caller, patience_seconds=0.0).kind()  # from memory, or as its headers have it
    says_status = kind is not None and kind.product == "opensearch"
    body = with_member(outcome.body, "status", b"200") if says_status else outcome.body
    try:
        return replace(outcome, body=form.write(body, keeps_empty=kind is None or kind.keeps_empty))
    except TooComplex:
        return Bypass("too_complex")
