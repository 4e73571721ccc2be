"""Parses a client's search as far as it is understood, or returns the bypass reason.

When in doubt, bypass: a body with keys that are not in `search_keys` is passed through unchanged. So is every body that
the engine might reject, because the error response must be the engine's.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy.bounds import INNER_HITS, RESCORED_HITS
from proxy.outcomes import Bypass
from proxy.parsing.compound_queries import listed
from proxy.parsing.decoding import Decoded, Members, NotUnderstood, Parameters, decode
from proxy.parsing.filter_path import Form, read_form
from proxy.parsing.json_text import take_member, with_members_set
from proxy.parsing.search_keys import BODY_KEYS, PARAMETERS, Use
from proxy.parsing.sort_values import BY_SCORE, Sort, Walk, read_sort
from proxy.parsing.source_filter import PathPlace, SourceFilter, read_source, source_of_url

DEFAULT_SIZE = 10

_QUERY_STRING_OPTIONS = {"df": "default_field", "analyzer": "analyzer", "default_operator": "default_operator"}
_OF_PAGES = frozenset({"aggs", "aggregations", "post_filter"})
_QUERY_STRING_FLAGS = ("analyze_wildcard", "lenient")


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search that is understood."""

    content: bytes
    """The body as the client sent it."""
    members: Members
    """The members of the body, with their bytes."""
    parameters: Parameters
    """The URL parameters, except those for the format of the response."""
    query: Any
    """The effective query, decoded: the URL's `q` overrides the body's."""
    post_filter: Any
    from_: int
    size: int
    sort: Sort
    walk: Walk | None
    """The hit of a reranked response after which the client continues; `content` has the engine's `search_after`."""
    source: SourceFilter
    hidden: frozenset[str]
    """Members of hits that the proxy needs and the client has excluded from the response."""
    track_total_hits: bool | int
    form: Form
    collapse: str | None
    """The field by which hits are collapsed."""
    rescored: int | None
    """The number of hits that the client's own `rescore` reorders."""
    text: str | None
    """The query text that the body states for OpenSearch's own reranker (`ext.rerank`)."""
    pipeline: Any
    """The search pipeline, by name or as an object; None means the default of the index."""
    own_ranking: bool
    """Whether the client's own search combines scores or vectors in a way that excludes hits from other searches."""

    @property
    def end(self) -> int:
        return self.from_ + self.size

    @property
    def is_later_page(self) -> bool:
        """Whether it continues a ranking that may be cached."""
        return bool(self.from_ or self.walk)

    @property
    def is_page(self) -> bool:
        """Whether it has what a page of results has, and a list of suggestions has not: facets, or further sort keys.

        `from` and `size` do not count, so that all pages of a search are treated alike.
        """
        return self.sort.is_shown or not _OF_PAGES.isdisjoint(self.members)

    @property
    def timeout_seconds(self) -> float | None:
        """The client's `timeout` for the engine: from the URL, else the body; None if there is none."""
        url = dict(self.parameters)
        text = url["timeout"] if "timeout" in url else msgspec.json.decode(self.members.get("timeout", b"null"))
        found = _TIME.fullmatch(text) if isinstance(text, str) else None
        return int(found["count"] or 0) * _SECONDS[(found["unit"] or "s").lower()] if found else None

    @property
    def rescores(self) -> Sequence[Any]:
        """The entries of the client's own `rescore`."""
        return listed(msgspec.json.decode(self.members.get("rescore", b"[]")))

    def body(self, *uses: Use) -> dict[str, Any]:
        """Return the body members with these uses."""
        return {key: value for key, value in self.members.items() if BODY_KEYS[key] in uses}

    def text_at(self, path: str) -> str | None:
        """Return the text at a path of the body, such as `suggest.spelling.text`; None if there is none."""
        first, *names = path.split(".")
        value = msgspec.json.decode(self.members[first]) if first in self.members else None
        for name in names:
            if isinstance(value, list) and name.isdecimal():
                value = dict(enumerate(value)).get(int(name))
            else:
                value = value.get(name) if isinstance(value, dict) else None
        return value if isinstance(value, str) else None

    def url(self, *uses: Use) -> Parameters:
        """Return the URL parameters with these uses."""
        return tuple(pair for pair in self.parameters if PARAMETERS[pair[0]] in uses)


def parse(query_string: str, body: bytes, walk: Walk | None = None) -> SearchRequest | Bypass:
    """Parse a search from its URL's query string and decompressed body; `walk` is that of `translated`."""
    try:
        return _read(_unfolded(decode(query_string, body)), walk)
    except NotUnderstood as unread:
        return unread.why


def _read(search: Decoded, walk: Walk | None) -> SearchRequest:
    parameters, content, members, decoded = search
    url, form = dict(parameters), read_form(parameters)
    if form.filter_path.too_complex:
        raise NotUnderstood("too_complex")
    hidden = _hidden(url, decoded)
    if hidden:
        content, _ = take_member(content, ("stored_fields",))
        members = {name: value for name, value in members.items() if name != "stored_fields"}
    if "search_after" in decoded and walk is None:
        raise NotUnderstood("search_after")
    sort = _sort(decoded, url)
    size = _count("size", url, decoded, DEFAULT_SIZE)
    if size == 0:
        raise NotUnderstood("size_zero")
    from_ = _count("from", url, decoded, 0)
    if walk and (from_ or not sort.is_shown or "collapse" in decoded):
        raise NotUnderstood("search_after")
    of_body = _query_of_body(decoded)
    return SearchRequest(
        content=content if content.strip() else b"{}",
        members=members,
        parameters=form.asked(parameters),
        query=_query_of_url(url) if "q" in url else of_body,
        post_filter=_query(decoded.get("post_filter")),
        from_=from_,
        size=size,
        sort=sort,
        walk=walk,
        source=SourceFilter(enabled=False) if hidden else _source(url, decoded),
        hidden=hidden,
        track_total_hits=_track_total_hits(url, decoded),
        form=form,
        collapse=_collapse(decoded.get("collapse")),
        rescored=_rescored(decoded.get("rescore"), from_ + size),
        text=_rerank_text(decoded.get("ext", {})),
        pipeline=url.get("search_pipeline", decoded.get("search_pipeline")),
        own_ranking=any(map(decoded.get, ("min_score", "knn"))) or _ranks_by_itself(decoded.get("retriever", {})),
    )


_HIDDEN = frozenset({"_id", "_source", "_routing", "_ignored"})
_SHOWING = frozenset({"highlight", "script_fields", "fields", "_source", "collapse"})


def _hidden(url: Mapping[str, str], decoded: Mapping[str, Any]) -> frozenset[str]:
    """Return the members of hits that `stored_fields` excludes.

    Hits need their ids, so `_none_` is only accepted in the form of Magento and ElasticSuite, which request `_id` in
    `docvalue_fields`. Engines differ if other parameters bring members back (seen on 8.19.13, 9.4.3, 2.19.1).
    """
    stored = _stored_fields(url, decoded)
    if not {"_none_", "_source"} & stored:
        return frozenset()
    fields = decoded.get("docvalue_fields", [])
    named = [field.get("field") if isinstance(field, dict) else field for field in fields]
    plain = decoded.get("stored_fields") in ("_none_", ["_none_"]) and "_id" in named
    if not plain or _SHOWING & {*decoded, *url} or source_of_url(url) is not None:
        raise NotUnderstood("stored_fields")
    return _HIDDEN


def _rescored(rescore: Any, end: int) -> int | None:
    entries = listed(rescore)
    if entries and end > RESCORED_HITS:
        raise NotUnderstood("rescore")
    windows = [_whole(each.get("window_size", 10)) if isinstance(each, dict) else None for each in entries]
    counts = [window for window in windows if window]
    if len(counts) < len(entries):
        raise NotUnderstood("rescore")
    return min(counts, default=None)


def _stored_fields(url: Mapping[str, str], decoded: Mapping[str, Any]) -> set[str]:
    value = decoded.get("stored_fields", [])
    listed = value if isinstance(value, list) else [value]
    return {str(name) for name in listed} | set(url.get("stored_fields", "").split(","))


def _sort(decoded: Mapping[str, Any], url: Mapping[str, str]) -> Sort:
    sort = _stated_sort(decoded, url)
    if sort is None:
        raise NotUnderstood("sort")
    if "pit" not in decoded:
        return sort
    if sort.is_shown:
        raise NotUnderstood("cursor")
    return OF_PIT


def _stated_sort(decoded: Mapping[str, Any], url: Mapping[str, str]) -> Sort | None:
    return read_sort(decoded.get("sort", []), url.get("sort", ""), of_pit="pit" in decoded)


def shown_sort(decoded: Mapping[str, Any], url: Mapping[str, str]) -> Sort:
    """Return the sort order of the sort values that hits have; by score if hits have none."""
    sort = _stated_sort(decoded, url) or BY_SCORE
    return OF_PIT if sort == BY_SCORE and "pit" in decoded else sort


OF_PIT = Sort((0,))
"""Elasticsearch sorts a point in time by score and then `_shard_doc`, and each hit has both sort values."""


_SECONDS = {"nanos": 1e-9, "micros": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_TIME = re.compile(rf"\s*(?:(?P<count>[0-9]{{1,18}})\s*(?P<unit>{'|'.join(_SECONDS)})|0+)\s*", re.IGNORECASE)
"""A time value of an engine; seen on Elasticsearch 8.19.13: without a unit only 0, and `-1` means no timeout."""

_DECIMAL = re.compile(r"\s*([0-9]{1,10})(?:\.[0-9]*)?\s*")


def _count(name: str, url: Mapping[str, str], decoded: Mapping[str, Any], default: int) -> int:
    """Read `from` or `size`; a value that is no plain number is left to the engine."""
    value = _number(url[name]) if name in url else _whole(decoded.get(name, default))
    if value is None or not 0 <= value < 2**31:
        raise NotUnderstood("not_json", name)
    return value


def _whole(value: Any) -> int | None:
    """Read a number in the body like the engine, which truncates decimals, also in a string."""
    match value:
        case bool():
            return None
        case int() | float():
            return int(value)
        case str():
            found = _DECIMAL.fullmatch(value)
            return int(found[1]) if found else None
        case _:
            return None


def _number(value: str) -> int | None:
    return int(value) if re.fullmatch(r"[0-9]{1,10}", value) else None


def _query(value: Any) -> Any:
    if value is not None and not isinstance(value, dict):
        raise NotUnderstood("not_json")
    return value


def _query_of_body(decoded: Mapping[str, Any]) -> Any:
    """Return what the body searches for as one query: its `query`, that of its `retriever`, or its `knn`."""
    if "retriever" in decoded:
        return _query_of_retriever(decoded["retriever"])
    knn = decoded.get("knn", [])
    searches = knn if isinstance(knn, list) else [knn]
    if not all(isinstance(search, dict) and "k" in search for search in searches):
        raise NotUnderstood("knn")
    query = _query(decoded.get("query"))
    return query if query is not None or not searches else {"bool": {"should": [{"knn": each} for each in searches]}}


_IN_STANDARD = frozenset({"query", "filter", "min_score", "_name"})
_OUTSIDE = frozenset({"sort", "collapse"})


def _unfolded(search: Decoded) -> Decoded:
    """Read a `standard` retriever with a sort order or groups as the plain search that it stands for.

    The client's own search is sent as it is: engines without retrievers reject it.
    """
    retriever = search.body.get("retriever", {})
    match retriever:
        case {"standard": {"query": dict(), **options}} if len(retriever) == 1:
            moved = {str(name): value for name, value in options.items() if name != "filter"}
            is_plain = bool(_OUTSIDE & moved.keys()) and moved.keys() <= _OUTSIDE | {"min_score"}
            if not is_plain or search.body.keys() & {"query", "post_filter", *moved}:
                return search
            own = {name: value for name, value in retriever["standard"].items() if name not in moved}
            content, _ = take_member(search.content, ("retriever",))
            members = {"query": _query_of_retriever({"standard": own}), **moved}
            return search.read_as(with_members_set(content, members))
        case _:
            return search


def _query_of_retriever(retriever: Any) -> Any:
    match retriever:
        case {"standard": {**body}} if len(retriever) == 1 and body.keys() <= _IN_STANDARD:
            query = _query(body.get("query"))
            return {"bool": {"must": [query], "filter": body["filter"]}} if query and "filter" in body else query
        case {"knn": {"k": int(), **body}} if len(retriever) == 1:
            return {"knn": body}
        case _:
            raise NotUnderstood("retriever")


def _ranks_by_itself(retriever: Any) -> bool:
    return "knn" in retriever or "min_score" in retriever.get("standard", {})


def _collapse(collapse: Any) -> str | None:
    """Read the `collapse` field; each group keeps its inner hits."""
    match collapse:
        case None:
            return None
        case {"field": str(path)}:
            inner = collapse.get("inner_hits", [])
            several = inner if isinstance(inner, list) else [inner]
            if len(several) <= INNER_HITS and all(isinstance(each, dict) for each in several):
                return path
        case _:
            pass
    raise NotUnderstood("collapse")


def _rerank_text(ext: Any) -> str | None:
    """Read the query text for OpenSearch's `rerank` processor; `ext` of other plugins is not understood."""
    match ext:
        case {**sections} if not sections:
            return None
        case {"rerank": {"query_context": {"query_text": str(text)}}} if len(ext) == 1:
            return text.strip() or None
        case {"rerank": dict()} if len(ext) == 1:
            return None
        case _:
            raise NotUnderstood("ext")


def _query_of_url(url: Mapping[str, str]) -> Any:
    """Return the URL's `q` as the query that the engine makes of it."""
    options: dict[str, Any] = {"query": url["q"]}
    options |= {_QUERY_STRING_OPTIONS[name]: url[name] for name in _QUERY_STRING_OPTIONS if name in url}
    options |= {name: url[name] != "false" for name in _QUERY_STRING_FLAGS if name in url}
    return {"query_string": options}


def _source(url: Mapping[str, str], decoded: Mapping[str, Any]) -> SourceFilter:
    source = source_of_url(url) or read_source(decoded.get("_source", True))
    if source is None:
        raise NotUnderstood("unknown_key", "_source")
    if source.too_complex:
        raise NotUnderstood("too_complex")
    if source == SourceFilter() and hides_source(url, decoded):
        return SourceFilter(enabled=False, place=PathPlace.NOWHERE)
    return source


def hides_source(url: Mapping[str, str], decoded: Mapping[str, Any]) -> bool:
    """Whether `_source` is omitted because other fields are requested; it is returned if it is requested as well."""
    named = "_source" in decoded or source_of_url(url) is not None
    return not named and ("stored_fields" in {*decoded, *url} or bool(decoded.get("script_fields")))


def _track_total_hits(url: Mapping[str, str], decoded: Mapping[str, Any]) -> bool | int:
    default: bool | int = True if url.get("rest_total_hits_as_int", "false") != "false" else 10_000
    value = decoded.get("track_total_hits", default)
    in_url = url.get("track_total_hits", value)
    if isinstance(in_url, str):
        value = {"true": True, "false": False}.get(in_url, _number(in_url))
    if not isinstance(value, int):
        raise NotUnderstood("not_json", "track_total_hits")
    return value
