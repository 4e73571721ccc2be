"""A client's search, read as far as it is understood, or the reason why it is not touched.

When in doubt, bypass: what is not in the tables of `search_keys` goes to the engine as it came, and so does every
body that the engine might refuse, for the refusal is the engine's to write.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import parse_qsl

import msgspec

from proxy.bounds import BODY_CLAUSES, PARAMETERS_BYTES, RESCORED_HITS
from proxy.outcomes import Bypass
from proxy.parsing.filter_path import Form, read_form
from proxy.parsing.json_text import take_member, with_members_set
from proxy.parsing.search_keys import BODY_KEYS, PARAMETERS, Use
from proxy.parsing.sort_values import BY_SCORE, Sort, Walk, engine_values, read_sort, walk_of
from proxy.parsing.source_filter import PathPlace, SourceFilter, read_source, source_of_url

DEFAULT_SIZE = 10

_QUERY_STRING_OPTIONS = {"df": "default_field", "analyzer": "analyzer", "default_operator": "default_operator"}
_QUERY_STRING_FLAGS = ("analyze_wildcard", "lenient")

Members = Mapping[str, msgspec.Raw]
Parameters = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search that is understood."""

    content: bytes
    """The body as it was written."""
    members: Members
    """The body's, in its own bytes."""
    parameters: Parameters
    """The URL's, but for what is said of the form."""
    query: Any
    """The query that counts, decoded: the URL's `q` before the body's."""
    post_filter: Any
    from_: int
    size: int
    sort: Sort
    walk: Walk | None
    """Behind which hit of an answer of the proxy's the client goes on; `content` says it as the engine knows it."""
    source: SourceFilter
    hidden: frozenset[str]
    """Members of hits that are needed here, and that the client has asked not to see."""
    track_total_hits: bool | int
    form: Form
    collapse: str | None
    """The field by which hits are grouped."""
    rescored: int | None
    """How many of the first hits the client's own second ranking orders anew."""
    text: str | None
    """The user's words where the body says them apart, for OpenSearch's own reranker."""
    pipeline: Any
    """The search pipeline that is named or spelled out; None leaves it to the index."""
    own_ranking: bool
    """The client's own search sets scores or vectors against each other in a way that no other hits fit into."""

    @property
    def end(self) -> int:
        return self.from_ + self.size

    @property
    def timeout_seconds(self) -> float | None:
        """The client's `timeout` for the engine: from the URL, else the body; None if there is none."""
        url = dict(self.parameters)
        text = url["timeout"] if "timeout" in url else msgspec.json.decode(self.members.get("timeout", b"null"))
        found = _TIME.fullmatch(text) if isinstance(text, str) else None
        return int(found["count"] or 0) * _SECONDS[(found["unit"] or "s").lower()] if found else None

    def body(self, *uses: Use) -> dict[str, Any]:
        """Return the body's members of these uses."""
        return {key: value for key, value in self.members.items() if BODY_KEYS[key] in uses}

    def text_at(self, path: str) -> str | None:
        """Return the text at a path of the body, `suggest.spelling.text`; None where there is none."""
        first, *names = path.split(".")
        value = msgspec.json.decode(self.members[first]) if first in self.members else None
        for name in names:
            if isinstance(value, list) and name.isdecimal():
                value = dict(enumerate(value)).get(int(name))
            else:
                value = value.get(name) if isinstance(value, dict) else None
        return value if isinstance(value, str) else None

    def url(self, *uses: Use) -> Parameters:
        """Return the URL's parameters of these uses."""
        return tuple(pair for pair in self.parameters if PARAMETERS[pair[0]] in uses)


class _Unread(Exception):
    def __init__(self, reason: str, key: str = "", detail: str = "") -> None:
        self.why = Bypass(reason, key, detail)


def parse(query_string: str, body: bytes, walk: Walk | None = None) -> SearchRequest | Bypass:
    """Read a search from the URL's query string and its body, de-compressed, in which `walk` has been translated."""
    try:
        parameters = _parameters(query_string)
        content = _content(parameters, body)
        return _read(content, parameters, *_body(content), walk)
    except _Unread as unread:
        return unread.why


def _parameters(query_string: str) -> Parameters:
    if len(query_string) > PARAMETERS_BYTES:
        raise _Unread("too_complex")
    if ";" in query_string:  # it separates parameters for the engine as `&` does
        raise _Unread("unknown_parameter", detail="`;` in the URL")
    try:
        pairs = parse_qsl(query_string, keep_blank_values=True, errors="strict")
    except ValueError:
        raise _Unread("unknown_parameter", detail="the URL is no text") from None
    if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise _Unread("unknown_parameter", twice[0], "it stands twice")
    _refuse([name for name, _ in pairs], PARAMETERS, "unknown_parameter")
    return tuple(pairs)


def _refuse(names: Sequence[str], table: Mapping[str, Use | str], unknown: str) -> None:
    for name in names:
        use = table.get(name, unknown)
        if isinstance(use, str):
            raise _Unread(use, "" if name in table else name, name)


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _body(body: bytes) -> tuple[Members, Mapping[str, Any]]:
    """Open a body; strictly, since the engine refuses duplicate keys and what follows the end."""
    if not body.strip():
        return {}, {}
    if body.count(b"{") + body.count(b"[") > BODY_CLAUSES:
        raise _Unread("too_complex")
    try:
        decoded = json.loads(
            body.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constants, parse_float=_finite
        )
        members = _members.decode(body)
    except RecursionError:
        raise _Unread("too_complex") from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise _Unread("not_json", detail=str(error)) from None
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


def _content(parameters: Parameters, body: bytes) -> bytes:
    """Return the body, or what the URL holds in its place: beside a body the engine does not know that parameter."""
    url = dict(parameters)
    if body or "source" not in url:
        if {"source", "source_content_type"} & url.keys():
            raise _Unread("unknown_parameter", "source")
        return body
    if not url.get("source_content_type", "").startswith("application/json"):
        raise _Unread("format")
    return url["source"].encode()


def _read(
    content: bytes, parameters: Parameters, members: Members, decoded: Mapping[str, Any], walk: Walk | None
) -> SearchRequest:
    url, form = dict(parameters), read_form(parameters)
    if form.filter_path.too_complex:
        raise _Unread("too_complex")
    hidden = _hidden(url, decoded)
    if hidden:
        content, _ = take_member(content, ("stored_fields",))
        members = {name: value for name, value in members.items() if name != "stored_fields"}
    if "search_after" in decoded and walk is None:
        raise _Unread("search_after")
    sort = _sort(decoded, url)
    size = _count("size", url, decoded, DEFAULT_SIZE)
    if size == 0:
        raise _Unread("size_zero")
    from_ = _count("from", url, decoded, 0)
    if walk and (from_ or not sort.is_shown or "collapse" in decoded):
        raise _Unread("search_after")
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
        text=_text_apart(decoded.get("ext", {})),
        pipeline=url.get("search_pipeline", decoded.get("search_pipeline")),
        own_ranking=bool({"min_score", "knn"} & decoded.keys()) or _ranks_by_itself(decoded.get("retriever", {})),
    )


_HIDDEN = frozenset({"_id", "_source", "_routing", "_ignored"})
_SHOWING = frozenset({"highlight", "script_fields", "fields", "_source", "collapse"})


def _hidden(url: Mapping[str, str], decoded: Mapping[str, Any]) -> frozenset[str]:
    """Say which members of hits `stored_fields` takes away.

    Without their ids hits cannot be told apart, so `_none_` is only taken as Magento and ElasticSuite write it, who
    ask for the ids as `docvalue_fields`. Beside what brings them back engines differ (seen on 8.19.13, 9.4.3, 2.19.1).
    """
    stored = _stored_fields(url, decoded)
    if not {"_none_", "_source"} & stored:
        return frozenset()
    fields = decoded.get("docvalue_fields", [])
    named = [field.get("field") if isinstance(field, dict) else field for field in fields]
    plain = decoded.get("stored_fields") in ("_none_", ["_none_"]) and "_id" in named
    if not plain or _SHOWING & {*decoded, *url} or source_of_url(url) is not None:
        raise _Unread("stored_fields")
    return _HIDDEN


def _rescored(rescore: Any, end: int) -> int | None:
    listed = rescore if isinstance(rescore, list) else [] if rescore is None else [rescore]
    if listed and end > RESCORED_HITS:
        raise _Unread("rescore")
    windows = [_whole(each.get("window_size", 10)) if isinstance(each, dict) else None for each in listed]
    counts = [window for window in windows if window]
    if len(counts) < len(listed):
        raise _Unread("rescore")
    return min(counts, default=None)


def _stored_fields(url: Mapping[str, str], decoded: Mapping[str, Any]) -> set[str]:
    value = decoded.get("stored_fields", [])
    listed = value if isinstance(value, list) else [value]
    return {str(name) for name in listed} | set(url.get("stored_fields", "").split(","))


def _sort(decoded: Mapping[str, Any], url: Mapping[str, str]) -> Sort:
    sort = read_sort(decoded.get("sort", []), url.get("sort", ""))
    if sort is None:
        raise _Unread("sort")
    if "pit" not in decoded:
        return sort
    if sort.is_shown:
        raise _Unread("cursor")
    return OF_PIT


OF_PIT = Sort((0,))
"""Elasticsearch sorts a point in time by `_shard_doc` behind the score, and shows both with each hit."""


def translated(query_string: str, content: bytes) -> tuple[bytes, Walk | None]:
    """Write `search_after` with the proxy's own values as the engine knows it, so that any answer may go on there.

    Behind a hit of the head the engine knows no place: it begins anew.
    """
    if b'"search_after"' not in content:
        return content, None
    try:
        decoded = json.loads(content)
        url = dict(parse_qsl(query_string, keep_blank_values=True))
        sort = OF_PIT if "pit" in decoded else read_sort(decoded.get("sort", []), url.get("sort", "")) or BY_SCORE
        walk = walk_of(decoded["search_after"], sort)
        if not isinstance(walk, Walk):
            return content, None
        if walk.in_head:
            return take_member(content, ("search_after",))[0], walk
        values = engine_values(decoded["search_after"], sort, walk)
        return with_members_set(content, {"search_after": values}), walk
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return content, None


_SECONDS = {"nanos": 1e-9, "micros": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_TIME = re.compile(rf"\s*(?:(?P<count>[0-9]{{1,18}})\s*(?P<unit>{'|'.join(_SECONDS)})|0+)\s*", re.IGNORECASE)
"""A time as engines take it (seen on Elasticsearch 8.19.13): without a unit only 0; `-1` stands for none."""

_DECIMAL = re.compile(r"\s*([0-9]{1,10})(?:\.[0-9]*)?\s*")


def _count(name: str, url: Mapping[str, str], decoded: Mapping[str, Any], default: int) -> int:
    """Read `from` or `size`; what is no plain count is the engine's to judge."""
    value = _number(url[name]) if name in url else _whole(decoded.get(name, default))
    if value is None or not 0 <= value < 2**31:
        raise _Unread("not_json", name)
    return value


def _whole(value: Any) -> int | None:
    """Read a count of the body as the engine does, which cuts off what is behind the point, in text too."""
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


def _number(said: str) -> int | None:
    return int(said) if re.fullmatch(r"[0-9]{1,10}", said) else None


def _query(value: Any) -> Any:
    if value is not None and not isinstance(value, dict):
        raise _Unread("not_json")
    return value


def _query_of_body(decoded: Mapping[str, Any]) -> Any:
    """Spell what the body searches for as one query: its `query`, what its `retriever` holds, or its `knn`."""
    if "retriever" in decoded:
        return _query_of_retriever(decoded["retriever"])
    knn = decoded.get("knn", [])
    searches = knn if isinstance(knn, list) else [knn]
    if not all(isinstance(search, dict) and "k" in search for search in searches):
        raise _Unread("knn")
    query = _query(decoded.get("query"))
    return query if query is not None or not searches else {"bool": {"should": [{"knn": each} for each in searches]}}


_IN_STANDARD = frozenset({"query", "filter", "min_score", "_name"})


def _query_of_retriever(retriever: Any) -> Any:
    match retriever:
        case {"standard": {**body}} if len(retriever) == 1 and body.keys() <= _IN_STANDARD:
            query = _query(body.get("query"))
            return {"bool": {"must": [query], "filter": body["filter"]}} if query and "filter" in body else query
        case {"knn": {"k": int(), **body}} if len(retriever) == 1:
            return {"knn": body}
        case _:
            raise _Unread("retriever")


def _ranks_by_itself(retriever: Any) -> bool:
    return "knn" in retriever or "min_score" in retriever.get("standard", {})


def _collapse(collapse: Any) -> str | None:
    """Read the field that hits are grouped by; one representative, with its inner hits in one order, can be moved."""
    match collapse:
        case None:
            return None
        case {"field": str(path)}:
            inner = collapse.get("inner_hits", {})
            listed = inner if isinstance(inner, list) else [inner]
            if len(listed) == 1 and isinstance(listed[0], dict):
                return path
        case _:
            pass
    raise _Unread("collapse")


def _text_apart(ext: Any) -> str | None:
    """Read what is said for OpenSearch's `rerank` processor; another plugin's part is not known here."""
    match ext:
        case {**sections} if not sections:
            return None
        case {"rerank": {"query_context": {"query_text": str(text)}}} if len(ext) == 1:
            return text.strip() or None
        case {"rerank": dict()} if len(ext) == 1:
            return None
        case _:
            raise _Unread("ext")


def _query_of_url(url: Mapping[str, str]) -> Any:
    """Spell the URL's `q` as the query that the engine makes of it."""
    options: dict[str, Any] = {"query": url["q"]}
    options |= {_QUERY_STRING_OPTIONS[name]: url[name] for name in _QUERY_STRING_OPTIONS if name in url}
    options |= {name: url[name] != "false" for name in _QUERY_STRING_FLAGS if name in url}
    return {"query_string": options}


def _source(url: Mapping[str, str], decoded: Mapping[str, Any]) -> SourceFilter:
    source = source_of_url(url) or read_source(decoded.get("_source", True))
    if source is None:
        raise _Unread("unknown_key", "_source")
    if source.too_complex:
        raise _Unread("too_complex")
    if source == SourceFilter() and _hides_source(url, decoded):
        return SourceFilter(enabled=False, place=PathPlace.NOWHERE)
    return source


def _hides_source(url: Mapping[str, str], decoded: Mapping[str, Any]) -> bool:
    """Whether `_source` is left out because other fields are asked for; named, it is there beside them."""
    named = "_source" in decoded or source_of_url(url) is not None
    return not named and ("stored_fields" in {*decoded, *url} or bool(decoded.get("script_fields")))


def _track_total_hits(url: Mapping[str, str], decoded: Mapping[str, Any]) -> bool | int:
    default: bool | int = True if url.get("rest_total_hits_as_int", "false") != "false" else 10_000
    value = decoded.get("track_total_hits", default)
    said = url.get("track_total_hits", value)
    if isinstance(said, str):
        value = {"true": True, "false": False}.get(said, _number(said))
    if not isinstance(value, int):
        raise _Unread("not_json", "track_total_hits")
    return value
