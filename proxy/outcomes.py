"""The outcome of a search: reranked, degraded (some stages failed), or bypassed, and the table of bypass reasons."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from proxy.bounds import LOG_DETAIL, OUTCOME_KEY, OUTCOME_LIST_BYTES
from proxy.errors import Failure


@dataclass(frozen=True, slots=True)
class Bypass:
    """A search that is passed through unchanged, and the reason."""

    reason: str
    key: str = field(default="", compare=False)
    """The body key or URL parameter that caused the bypass, for header and log."""
    detail: str = field(default="", compare=False)
    """A description of the cause, for the log."""
    is_fault: bool = field(default=False, compare=False)
    """The cause is an error of the engine or the proxy, which is logged as a warning."""


BYPASS_REASONS: Mapping[str, str] = {
    "accept": "the client does not accept a JSON response",
    "autocomplete": "the route bypasses autocomplete queries",
    "boost_alone": "the query's score does not depend on the words (`boost_mode: replace`, a script without `_score`)",
    "collapse": "`collapse` with more than 4 `inner_hits`, or in a form that the proxy does not know",
    "content_encoding": "the body has a compression that the proxy does not support",
    "content_type": "the body is not JSON",
    "credentials": "the credentials are valid for one request or one connection only (Negotiate, SigV4)",
    "cursor": "a point in time is read to its end, in the engine's order",
    "depth": "the page is beyond `max_result_window` of the index",
    "engine_refused": "the engine rejected the search with the larger window, or returned only partial results",
    "ext": "`ext` belongs to a plugin",
    "format": "`format` requests a response, or `source` sends a body, that is not JSON",
    "headers": "a header contains characters other than printable ASCII",
    "identifier": "the route bypasses part numbers and other identifiers",
    "internal_error": "an error in the proxy, which is a bug: the log has the cause; 500 if the search had been sent",
    "knn": "the client's own kNN search depends on the size of the page",
    "mixed_routes": "the search includes indices outside its route",
    "navigational": "the route bypasses this query (`phrases`, `patterns`)",
    "no_query_text": "no query text was found in the query",
    "no_stage": "kNN is the only stage of the route, and it cannot be used for this search",
    "not_json": "the body is not JSON, or not a search",
    "opt_in": "the route reranks only requests with `X-Rerank-Enabled: on` (`mode: opt_in`)",
    "pipeline": "the search uses a search pipeline that may change hits or their order",
    "rank": "the client uses its own fusion",
    "rescore": "the client uses its own `rescore`, and the page ends beyond hit 1000",
    "retriever": "a compound retriever, with the client's own fusion or reranking, or unknown options of another",
    "route_off": "reranking is off for the route (`mode: off`)",
    "running": "an asynchronous search is not complete yet",
    "scroll": "a scroll reads all hits, in the engine's order",
    "search_after": "`search_after` continues from the engine's own sort values, or the ranking is no longer cached",
    "shadow": "the route only logs what reranking would change (`mode: shadow`)",
    "sensitive": "the query text contains what the route does not send to models (`redact`)",
    "share": "the search is outside the share of searches that the route reranks (`share`)",
    "size_zero": "no hits are requested",
    "slice": "a slice reads all hits, in the engine's order",
    "sort": "the client sorts by something other than the score, or by fields before it whose values all differ",
    "spend_cap": "a cap on spend (`max_usd_per_day`, `max_usd_per_minute`) is exceeded until its period ends",
    "steering": "a per-request option is wrong or not allowed; the response is 400",
    "steered_off": "the request switches reranking off",
    "stored_fields": "`stored_fields` requests `_source`, or removes the ids of the hits and no other field has them",
    "switched_off": "an operator has switched reranking off for all routes (kill switch)",
    "template": "the engine did not render the template as a search",
    "terminate_after": "`terminate_after` cuts off the hits at an arbitrary place",
    "too_complex": "the search needs too much work: thousands of clauses, deep nesting, many wildcards",
    "too_many": "the `_msearch` has more searches of routes than are reranked, or more than 1000 in all",
    "too_large": "the body or the response is larger than the proxy reads",
    "unknown_key": "the body contains a key that the proxy does not know",
    "unknown_parameter": "the URL contains a parameter that the proxy does not know",
    "unresolved": "no index has that name, or the caller may not resolve it",
    "zero_hits": "the client's own query has no hits, and the route does not replace it (`on_zero_hits`)",
}
"""Every reason of `X-Rerank: bypassed`, and its meaning."""


OutcomeName = Literal["reranked", "degraded", "bypassed", "cancelled", "failed"]
"""The last two have no header: the client disconnected, or received an error of the proxy."""

_NO_STRING = re.compile(r"[^ !#-\[\]-~]")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a search, for header, log and counter."""

    name: OutcomeName
    stages: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""
    key: str = ""
    is_fault: bool = False

    @property
    def header(self) -> bytes:
        """Return the header as an item of RFC 9651: a token and its parameters."""
        stages = f';stages="{" ".join(self.stages)}"' if self.stages else ""
        reason = f";reason={self.reason}" if self.reason else ""
        key = f';key="{self.key}"' if self.key else ""
        return f"{self.name}{stages}{reason}{key}".encode()


def answered(failures: Sequence[Failure]) -> Outcome:
    """Return the outcome of a reranked or degraded search; its reason is that of the first failure.

    A stage that does not apply to the search is listed, but does not make it degraded.
    """
    failed = sorted(failures, key=lambda failure: failure.by_design)
    if not failed:
        return Outcome("reranked")
    name: OutcomeName = "reranked" if failed[0].by_design else "degraded"
    stages = tuple(dict.fromkeys(failure.stage for failure in failed))
    return Outcome(name, stages, failed[0].reason, "; ".join(filter(None, (each.detail for each in failed))))


def bypassed(why: Bypass) -> Outcome:
    """Return the outcome of a bypassed search; characters of the key that RFC 9651 forbids become `?`."""
    key = _NO_STRING.sub("?", why.key[:OUTCOME_KEY])
    fault = why.is_fault or why.reason == "internal_error"
    return Outcome("bypassed", (), why.reason, why.detail[:LOG_DETAIL], key, fault)


def in_order(headers: Sequence[bytes]) -> bytes:
    """Join the outcomes of several searches to one header; a list that is too long ends with the number of the rest."""
    listed = b", ".join(headers)
    if len(listed) <= OUTCOME_LIST_BYTES:
        return listed
    shown = listed[: OUTCOME_LIST_BYTES - len(b", more;items=1000000")].split(b", ")[:-1]
    return b", ".join([*shown, b"more;items=%d" % (len(headers) - len(shown))])
