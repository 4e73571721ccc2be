"""`_search`, and `_search/template`, which the engine renders first."""

from dataclasses import replace
from functools import partial

from proxy.context import RequestRecord
from proxy.endpoints.answering import to_pass_on
from proxy.endpoints.front import Front, read_body
from proxy.endpoints.routing import NotRouted, SearchCall
from proxy.errors import TooComplex
from proxy.http1.exchange import Exchange
from proxy.outcomes import Bypass
from proxy.parsing.filter_path import read_form
from proxy.parsing.json_text import with_member
from proxy.ranking.pipeline import Answered, EngineOrder, Result
from proxy.settings.routes import Endpoint, Search
from proxy.upstream.engine import EngineOfCaller


async def answer_search(front: Front, exchange: Exchange, record: RequestRecord, search: Search) -> None:
    """Answer one search, reranked if a route covers it."""
    begun = record.search()
    caller = front.caller(exchange)
    if isinstance(caller, Bypass):
        await front.bypass(exchange, begun, search, caller)
        return
    is_template = search.endpoint is Endpoint.TEMPLATE
    call = SearchCall(search.indices, search.query_string, fields=exchange.head.fields, is_template=is_template)
    routed = await front.searching.route(begun, caller, call, partial(read_body, exchange))
    if isinstance(routed, NotRouted):
        _replace(exchange, search, routed.call)
        await front.respond(exchange, begun, routed.why)
        return
    result = await front.searching.answer(routed)
    _replace(exchange, search, to_pass_on(routed, result))
    await front.respond(exchange, begun, await _as_template(caller, call, result) if is_template else result)


def _replace(exchange: Exchange, search: Search, call: SearchCall) -> None:
    """Let a search be passed on as it is now."""
    if call.rewritten:
        exchange.replace_body(call.content)
    if call.query_string != search.query_string:
        exchange.replace_query(call.query_string)


async def _as_template(caller: EngineOfCaller, call: SearchCall, result: Result) -> Result:
    """Render a template's response in the format that its URL requests; OpenSearch 2.19.1 adds the status."""
    if not isinstance(result, Answered | EngineOrder):
        return result
    kind = await replace(caller, patience_seconds=0.0).kind()  # from the cache, or from response headers
    has_status = kind is not None and kind.product == "opensearch"
    body = with_member(result.body, "status", b"200") if has_status else result.body
    try:
        written = read_form(call.parameters).write(body, keeps_empty=kind is None or kind.keeps_empty)
    except TooComplex as error:
        return Bypass("too_complex", detail=str(error))
    return replace(result, body=written)
