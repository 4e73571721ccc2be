"""Why a search is handed on as it came: one table of reasons."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bypass:
    """A search that is handed on as it came, and why."""

    reason: str


BYPASS_REASONS: Mapping[str, str] = {
    "accept": "the answer is asked for in another form than JSON",
    "autocomplete": "the route leaves half-typed words to the engine",
    "collapse": "`collapse` with inner hits in several orders",
    "content_encoding": "the body is compressed in a way that is not read here",
    "content_type": "the body is not JSON",
    "credentials": "the client's credentials are good for one request or one connection, as in Negotiate or SigV4",
    "cursor": "a point in time is read to its end, in the engine's order",
    "depth": "the page lies beyond the index's `max_result_window`",
    "engine_refused": "the engine refused the widened search, or answered it in part",
    "ext": "`ext` belongs to a plugin",
    "format": "`format` asks for another form than JSON, or `source` for another one of the body",
    "headers": "a header is not plain text",
    "identifier": "the route leaves part numbers and the like to the engine",
    "internal_error": "the proxy failed, which is a defect: the log has the cause",
    "knn": "the client's own kNN search depends on the page's size",
    "mixed_routes": "the search reaches indices outside its route",
    "navigational": "the route leaves this very query to the engine",
    "no_query_text": "no words of a user can be found in the query",
    "no_stage": "kNN is the only stage of the route, and does not fit this search",
    "not_json": "the body is not JSON, or not what `_search` takes",
    "pipeline": "the search runs a search pipeline that may change hits or their order",
    "rank": "the client does its own fusion",
    "rescore": "a page far behind the hits that the client's own second ranking orders",
    "retriever": "a compound retriever: the client does its own fusion or reranking",
    "running": "an asynchronous search is not complete yet",
    "scroll": "a scroll reads everything, in the engine's order",
    "search_after": "`search_after` goes on from the engine's own sort values, or cannot be kept true",
    "size_zero": "no hits are asked for",
    "slice": "a slice reads everything, in the engine's order",
    "sort": "the client asked for another order than by score, or by keys before it that leave no groups",
    "steering": "the request says something of its reranking that cannot be meant, and is refused",
    "steered_off": "the request itself says so",
    "stored_fields": "`stored_fields` asks for `_source`, or takes away the hits' ids where no other field has them",
    "template": "the engine did not render the template as a search",
    "terminate_after": "`terminate_after` cuts the ranking at an arbitrary place",
    "too_large": "the body, or the answer, is larger than is read here",
    "unknown_key": "the body has a key that is not known here",
    "unknown_parameter": "the URL has a parameter that is not known here",
    "unresolved": "no existing index has that name, or it cannot be asked which one it stands for",
    "zero_hits": "the client's own query finds nothing, and the route keeps that so",
}
"""Every reason that `X-Rerank: bypassed` can give, and what it means."""
