"""Why a search is passed through unchanged: one table of reasons."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Bypass:
    """A search that is passed through unchanged, and why."""

    reason: str
    key: str = field(default="", compare=False)
    """The key of the body, or the parameter of the URL, that it is bypassed for: for header and log."""
    detail: str = field(default="", compare=False)
    """What was found, as an error says it: for the log."""
    is_fault: bool = field(default=False, compare=False)
    """Something is wrong with the engine or with this proxy: the log warns of it."""


BYPASS_REASONS: Mapping[str, str] = {
    "accept": "the client accepts no JSON response",
    "autocomplete": "the route bypasses autocomplete queries",
    "collapse": "`collapse` with several `inner_hits`",
    "content_encoding": "the body has a compression that the proxy does not support",
    "content_type": "the body is not JSON",
    "credentials": "the credentials are valid for one request or one connection only (Negotiate, SigV4)",
    "cursor": "a point in time is read to its end, in the engine's order",
    "depth": "the page is beyond `max_result_window` of the index",
    "engine_refused": "the engine refused the widened search, or answered it only in part",
    "ext": "`ext` belongs to a plugin",
    "format": "`format` requests a response, or `source` sends a body, that is not JSON",
    "headers": "a header contains characters other than printable ASCII",
    "identifier": "the route bypasses part numbers and other identifiers",
    "internal_error": "an error in the proxy, which is a bug: the log has the cause; 500 if the search had been sent",
    "knn": "the client's own kNN search depends on the size of the page",
    "mixed_routes": "the search includes indices outside its route",
    "navigational": "the route bypasses this query (`phrases`, `patterns`)",
    "no_query_text": "no query text was found in the query",
    "no_stage": "kNN is the only stage of the route, and it does not fit this search",
    "not_json": "the body is not JSON, or not a search",
    "pipeline": "the search uses a search pipeline that may change hits or their order",
    "rank": "the client uses its own fusion",
    "rescore": "a page far behind the hits that the client's own second ranking orders",
    "retriever": "a compound retriever: the client uses its own fusion or reranking",
    "running": "an asynchronous search is not complete yet",
    "scroll": "a scroll reads all hits, in the engine's order",
    "search_after": "`search_after` continues from the engine's own sort values, or the ranking is no longer known",
    "size_zero": "no hits are requested",
    "slice": "a slice reads all hits, in the engine's order",
    "sort": "the client sorts by something other than the score, or by keys before it that leave no groups",
    "steering": "a per-request option is wrong or not allowed; the response is 400",
    "steered_off": "the request switches reranking off",
    "stored_fields": "`stored_fields` requests `_source`, or removes the ids of the hits and no other field has them",
    "template": "the engine did not render the template as a search",
    "terminate_after": "`terminate_after` cuts off the hits at an arbitrary place",
    "too_complex": "too much work for one search: thousands of clauses, deep nesting, many wildcards",
    "too_many": "the `_msearch` has more searches of routes than are reranked, or more than 1000 in all",
    "too_large": "the body or the response is larger than the proxy reads",
    "unknown_key": "the body contains a key that the proxy does not know",
    "unknown_parameter": "the URL contains a parameter that the proxy does not know",
    "unresolved": "no index has that name, or the caller may not resolve it",
    "zero_hits": "the client's own query finds nothing, and the route keeps it so (`on_zero_hits`)",
}
"""Every reason of `X-Rerank: bypassed`, and its meaning."""
