"""Passes a request on to the engine and the response back to the client, byte for byte."""

import asyncio
from collections.abc import Sequence

from proxy.context import Ended
from proxy.http1.exchange import Exchange
from proxy.http1.headers import Field
from proxy.http1.relay import Relay, Terms, Upstream

# Safe methods (RFC 9110, section 9.2.1): a repeated request changes nothing.
_SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_REPEATABLE = frozenset((b"GET", b"HEAD"))

# POST requests that Elasticsearch 8 and 9 cancel when their client disconnects (`RestCancellableNodeClient`).
_SEARCHES = frozenset(
    (b"_search", b"_msearch", b"_async_search", b"_knn_search", b"_fleet_search", b"_fleet_msearch", b"_count"),
)
_OF_ITEMS = frozenset((b"_msearch", b"_fleet_msearch"))
_ENDING = _SEARCHES | {b"_field_caps", b"_query", b"_sql", b"_mvt"}
_BELOW_SEARCHES = frozenset((b"template", b"scroll"))


def terms_of(method: bytes, target: bytes, added: Sequence[Field] = ()) -> Terms:
    """Return how a request is passed on, by its method and raw target."""
    segments = target.partition(b"?")[0].rstrip(b"/").split(b"/")
    last = segments[-1]
    if last in _BELOW_SEARCHES and len(segments) > 1:
        last = segments[-2]
    searches = last in _SEARCHES or segments[-2:] == [b"_eql", b"search"]
    repeatable = method in _REPEATABLE and not searches
    ends_with_client = method in _SAFE or (method == b"POST" and (searches or last in _ENDING))
    has_items = last in _OF_ITEMS
    if not added:
        return _TERMS[repeatable, ends_with_client, has_items]
    return Terms(repeatable=repeatable, ends_with_client=ends_with_client, added=added, has_items=has_items)


_TERMS = {
    (repeatable, ends, has_items): Terms(repeatable=repeatable, ends_with_client=ends, has_items=has_items)
    for repeatable in (False, True)
    for ends in (False, True)
    for has_items in (False, True)
}


def pass_through(exchange: Exchange, upstream: Upstream) -> None:
    """Start passing a request on; the client's connection continues by itself after the response."""
    client = exchange.client
    terms = terms_of(exchange.head.method, exchange.head.target)
    Relay(exchange, upstream, terms, lambda: client.done(exchange)).start()


async def hand_on(exchange: Exchange, upstream: Upstream, added: Sequence[Field] = ()) -> None:
    """Pass a request on, with `added` headers in the response; returns when the response has ended."""
    ended = asyncio.Event()

    def end() -> None:
        exchange.client.conclude(exchange, Ended.BROKEN_OFF if exchange.broken else Ended.ANSWERED)
        ended.set()

    terms = terms_of(exchange.head.method, exchange.head.target, added)
    Relay(exchange, upstream, terms, end).start()
    await ended.wait()
