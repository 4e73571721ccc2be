"""A client's search, read as far as it is understood, or the reason why it is not touched.

When in doubt, bypass: what is not in the tables below goes to the engine as it came, and so does every body that
the engine might refuse, for the refusal is the engine's to write.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn
from urllib.parse import parse_qsl

import msgspec

from proxy.source_filter import SourceFilter, read_source, source_of_url

DEFAULT_SIZE = 10

BYPASS_REASONS: Mapping[str, str] = {
    "accept": "the answer is asked for in another form than JSON",
    "collapse": "`collapse` groups hits",
    "content_encoding": "the body is compressed in a way that is not read here",
    "content_type": "the body is not JSON",
    "depth": "the page lies beyond the index's `max_result_window`",
    "engine_refused": "the engine refused the widened search, or answered it in part",
    "explain": "`explain` is about scores that would be replaced",
    "ext": "`ext` belongs to a plugin",
    "filter_path": "`filter_path` takes away what the order is made of",
    "format": "`format` or `source` asks for another form than a JSON body and answer",
    "headers": "a header is not plain text",
    "internal_error": "the proxy failed, which is a defect: the log has the cause",
    "knn": "the client does its own kNN search",
    "min_score": "`min_score` is about scores that would be replaced",
    "mixed_routes": "the search reaches indices outside its route",
    "no_query_text": "no words of a user can be found in the query",
    "not_json": "the body is not JSON, or not what `_search` takes",
    "pit": "a point in time belongs to deep paging by `search_after`",
    "rank": "the client does its own fusion",
    "rescore": "the client does its own second ranking",
    "retriever": "the client does its own retrieval",
    "scroll": "a scroll reads everything, in the engine's order",
    "search_after": "`search_after` goes on from the engine's own scores or sort values",
    "search_type": "`search_type` asks for another way of scoring",
    "size_zero": "no hits are asked for",
    "slice": "a slice reads everything, in the engine's order",
    "sort": "the client asked for another order than by score",
    "stored_fields": "`stored_fields` asks for `_source`, or takes away the hits' ids",
    "terminate_after": "`terminate_after` cuts the ranking at an arbitrary place",
    "too_large": "the body is larger than a search is read here",
    "unknown_key": "the body has a key that is not known here",
    "unknown_parameter": "the URL has a parameter that is not known here",
    "unresolved": "no existing index has that name, or it cannot be asked which one it stands for",
    "zero_hits": "the client's own query finds nothing, and the route keeps that so",
}
"""Every reason that `X-Rerank: bypassed` can give, and what it means."""


class Use(Enum):
    """What a member of the body or of the URL is needed for besides the client's own search."""

    LEXICAL = "nothing else: aggregations, totals, how scores are made"
    PER_HIT = "every search whose hits are shown"
    EVERYWHERE = "every search made for this one"
    CONSUMED = "the proxy sets it itself"


BODY_KEYS: Mapping[str, Use | str] = {
    "query": Use.CONSUMED,
    "from": Use.CONSUMED,
    "size": Use.CONSUMED,
    "_source": Use.CONSUMED,
    "post_filter": Use.CONSUMED,
    "sort": Use.LEXICAL,
    "aggs": Use.LEXICAL,
    "aggregations": Use.LEXICAL,
    "suggest": Use.LEXICAL,
    "profile": Use.LEXICAL,
    "track_total_hits": Use.LEXICAL,
    "track_scores": Use.LEXICAL,
    "indices_boost": Use.LEXICAL,
    "timeout": Use.LEXICAL,
    "stats": Use.LEXICAL,
    "fields": Use.PER_HIT,
    "stored_fields": Use.PER_HIT,
    "docvalue_fields": Use.PER_HIT,
    "script_fields": Use.PER_HIT,
    "highlight": Use.PER_HIT,
    "version": Use.PER_HIT,
    "seq_no_primary_term": Use.PER_HIT,
    "runtime_mappings": Use.EVERYWHERE,
    "collapse": "collapse",
    "explain": "explain",
    "ext": "ext",
    "knn": "knn",
    "min_score": "min_score",
    "pit": "pit",
    "rank": "rank",
    "sub_searches": "rank",
    "rescore": "rescore",
    "retriever": "retriever",
    "search_after": "search_after",
    "slice": "slice",
    "terminate_after": "terminate_after",
}
"""Keys of a search's body: what they are needed for, or the reason why a search with them is not touched."""

PARAMETERS: Mapping[str, Use | str] = {
    "from": Use.CONSUMED,
    "size": Use.CONSUMED,
    "_source": Use.CONSUMED,
    "_source_includes": Use.CONSUMED,
    "_source_excludes": Use.CONSUMED,
    "q": Use.LEXICAL,
    "df": Use.LEXICAL,
    "analyzer": Use.LEXICAL,
    "analyze_wildcard": Use.LEXICAL,
    "default_operator": Use.LEXICAL,
    "lenient": Use.LEXICAL,
    "sort": Use.LEXICAL,
    "track_total_hits": Use.LEXICAL,
    "track_scores": Use.LEXICAL,
    "rest_total_hits_as_int": Use.LEXICAL,
    "typed_keys": Use.LEXICAL,
    "stats": Use.LEXICAL,
    "suggest_field": Use.LEXICAL,
    "suggest_mode": Use.LEXICAL,
    "suggest_size": Use.LEXICAL,
    "suggest_text": Use.LEXICAL,
    "timeout": Use.LEXICAL,
    "batched_reduce_size": Use.LEXICAL,
    "pre_filter_shard_size": Use.LEXICAL,
    "request_cache": Use.LEXICAL,
    "error_trace": Use.LEXICAL,
    "human": Use.PER_HIT,
    "pretty": Use.PER_HIT,
    "docvalue_fields": Use.PER_HIT,
    "stored_fields": Use.PER_HIT,
    "version": Use.PER_HIT,
    "seq_no_primary_term": Use.PER_HIT,
    "include_named_queries_score": Use.PER_HIT,
    "allow_no_indices": Use.EVERYWHERE,
    "allow_partial_search_results": Use.EVERYWHERE,
    "ccs_minimize_roundtrips": Use.EVERYWHERE,
    "expand_wildcards": Use.EVERYWHERE,
    "ignore_throttled": Use.EVERYWHERE,
    "ignore_unavailable": Use.EVERYWHERE,
    "max_concurrent_shard_requests": Use.EVERYWHERE,
    "preference": Use.EVERYWHERE,
    "routing": Use.EVERYWHERE,
    "explain": "explain",
    "filter_path": "filter_path",
    "format": "format",
    "source": "format",
    "source_content_type": "format",
    "scroll": "scroll",
    "search_type": "search_type",
    "terminate_after": "terminate_after",
}
"""The same for the parameters of the URL."""

_QUERY_STRING_OPTIONS = {"df": "default_field", "analyzer": "analyzer", "default_operator": "default_operator"}
_QUERY_STRING_FLAGS = ("analyze_wildcard", "lenient")

Members = Mapping[str, msgspec.Raw]
Parameters = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Bypass:
    """A search that is handed on as it came, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search that is understood."""

    members: Members
    """The body's, in its own bytes."""
    parameters: Parameters
    query: Any
    """The query that counts, decoded: the URL's `q` before the body's."""
    post_filter: Any
    from_: int
    size: int
    source: SourceFilter
    track_total_hits: bool | int
    pretty: bool

    @property
    def end(self) -> int:
        return self.from_ + self.size

    def body(self, *uses: Use) -> dict[str, Any]:
        """Return the body's members of these uses."""
        return {key: value for key, value in self.members.items() if BODY_KEYS[key] in uses}

    def url(self, *uses: Use) -> Parameters:
        """Return the URL's parameters of these uses."""
        return tuple(pair for pair in self.parameters if PARAMETERS[pair[0]] in uses)


class _Unread(Exception):
    def __init__(self, reason: str) -> None:
        self.reason = reason


def parse(query_string: str, body: bytes) -> SearchRequest | Bypass:
    """Read a search from the URL's query string and its body, de-compressed."""
    try:
        parameters = _parameters(query_string)
        members, decoded = _body(body)
        return _read(parameters, members, decoded)
    except _Unread as unread:
        return Bypass(unread.reason)


def _parameters(query_string: str) -> Parameters:
    if ";" in query_string:  # it separates parameters for the engine as `&` does
        raise _Unread("unknown_parameter")
    try:
        pairs = parse_qsl(query_string, keep_blank_values=True, errors="strict")
    except ValueError:
        raise _Unread("unknown_parameter") from None
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Unread("unknown_parameter")
    _refuse([name for name, _ in pairs], PARAMETERS, "unknown_parameter")
    return tuple(pairs)


def _refuse(names: Sequence[str], table: Mapping[str, Use | str], unknown: str) -> None:
    for name in names:
        use = table.get(name, unknown)
        if isinstance(use, str):
            raise _Unread(use)


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _body(body: bytes) -> tuple[Members, Mapping[str, Any]]:
    """Open a body; strictly, since the engine refuses duplicate keys and what follows the end."""
    if not body.strip():
        return {}, {}
    try:
        decoded = json.loads(
            body.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constants, parse_float=_finite
        )
        members = _members.decode(body)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        raise _Unread("not_json") from None
    _refuse(list(members), BODY_KEYS, "unknown_key")
    return members, decoded


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key stands twice")
    return members


def _no_constants(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(number: str) -> float:
    """Read a number; one that is too large to be written again is the engine's to judge."""
    if math.isinf(value := float(number)):
        raise ValueError(f"{number} is out of range")
    return value


def _read(parameters: Parameters, members: Members, decoded: Mapping[str, Any]) -> SearchRequest:
    url = dict(parameters)
    if {"_none_", "_source"} & _stored_fields(url, decoded):
        raise _Unread("stored_fields")
    if not (_by_score(decoded.get("sort", "_score")) and url.get("sort", "_score") in {"_score", "_score:desc"}):
        raise _Unread("sort")
    size = _count("size", url, decoded, DEFAULT_SIZE)
    if size == 0:
        raise _Unread("size_zero")
    return SearchRequest(
        members=members,
        parameters=parameters,
        query=_query_of_url(url) if "q" in url else _query(decoded.get("query")),
        post_filter=_query(decoded.get("post_filter")),
        from_=_count("from", url, decoded, 0),
        size=size,
        source=_source(url, decoded),
        track_total_hits=_track_total_hits(url, decoded),
        pretty=url.get("pretty", "false") != "false",
    )


def _stored_fields(url: Mapping[str, str], decoded: Mapping[str, Any]) -> set[str]:
    value = decoded.get("stored_fields", [])
    listed = value if isinstance(value, list) else [value]
    return {str(name) for name in listed} | set(url.get("stored_fields", "").split(","))


def _by_score(sort: Any) -> bool:
    """Whether a `sort` says no more than the default does."""
    listed = sort if isinstance(sort, list) else [sort]
    plain: tuple[Any, ...] = ("_score", {"_score": "desc"}, {"_score": {"order": "desc"}}, {"_score": {}})
    return not listed or (len(listed) == 1 and listed[0] in plain)


def _count(name: str, url: Mapping[str, str], decoded: Mapping[str, Any], default: int) -> int:
    """Read `from` or `size`; what is no plain count is the engine's to judge."""
    value = decoded.get(name, default)
    if name in url:
        value = _number(url[name])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise _Unread("not_json")
    return value


def _number(said: str) -> int | None:
    return int(said) if re.fullmatch(r"[0-9]{1,10}", said) else None


def _query(value: Any) -> Any:
    if value is not None and not isinstance(value, dict):
        raise _Unread("not_json")
    return value


def _query_of_url(url: Mapping[str, str]) -> Any:
    """Spell the URL's `q` as the query that the engine makes of it."""
    options: dict[str, Any] = {"query": url["q"]}
    options |= {_QUERY_STRING_OPTIONS[name]: url[name] for name in _QUERY_STRING_OPTIONS if name in url}
    options |= {name: url[name] != "false" for name in _QUERY_STRING_FLAGS if name in url}
    return {"query_string": options}


def _source(url: Mapping[str, str], decoded: Mapping[str, Any]) -> SourceFilter:
    source = source_of_url(url) or read_source(decoded.get("_source", True))
    if source is None:
        raise _Unread("unknown_key")
    if source == SourceFilter() and _hides_source(url, decoded):
        return SourceFilter(enabled=False)
    return source


def _hides_source(url: Mapping[str, str], decoded: Mapping[str, Any]) -> bool:
    """Whether `_source` is left out because other fields are asked for; named, it is there beside them."""
    named = "_source" in decoded or source_of_url(url) is not None
    return not named and bool({"stored_fields", "script_fields"} & decoded.keys() or "stored_fields" in url)


def _track_total_hits(url: Mapping[str, str], decoded: Mapping[str, Any]) -> bool | int:
    default: bool | int = True if url.get("rest_total_hits_as_int", "false") != "false" else 10_000
    value = decoded.get("track_total_hits", default)
    if "track_total_hits" in url:
        said = url["track_total_hits"]
        value = {"true": True, "false": False}.get(said, _number(said))
    if not isinstance(value, int):
        raise _Unread("not_json")
    return value
