"""Requests as nobody would think of them, in the shop's words: strategies over the tables of the code.

Every key, parameter and query the code knows is here by its name, so a new one without a value to try is a KeyError.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

from proxy.parsing.compound_queries import COMPOUNDS
from proxy.parsing.leaf_queries import LEAVES
from proxy.parsing.search_keys import BODY_KEYS, PARAMETERS
from proxy.settings.profiles import PROFILES
from proxy.settings.request_options import MEMBER, OPTIONS
from tests.integration.sending import JSON, Request
from tests.strategies import json_values

Some = st.SearchStrategy[Any]

TEXTS = st.sampled_from(
    [
        "laptop",
        "acme phone",
        "notebook for children",
        "p00",
        "-acme camera",
        "kids +film",
        "+(kids film) +laptop",
        "*",
        "",
    ]
)
FIELDS = st.sampled_from(["title", "description", "brand", "category", "price", "released", "reviews.text", "nosuch"])
VECTOR = [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.3]
ODD: Some = st.sampled_from(
    ["\ud800", "\x00", "é", 2**64, -(2**63), 10**30, 1e308, 1.5, -1, "", [], {}, None, True, "1"]
)
junk = ODD | json_values


def _mostly(usual: Some, odd: Some) -> Some:
    return st.integers(0, 19).flatmap(lambda number: odd if number == 19 else usual)


COUNTS = _mostly(st.integers(0, 50), st.sampled_from([-1, 10_000, 2**31, "3", 2.0, None]))
FLAGS = _mostly(st.booleans(), st.sampled_from(["true", "", 1, None]))

FILTERS = st.sampled_from(
    [
        {"term": {"brand": "acme"}},
        {"range": {"price": {"lt": 900}}},
        {"terms": {"category": ["laptop", "phone"]}},
        {"exists": {"field": "embedding"}},
        {"ids": {"values": ["p00", "p04"]}},
        {"match_all": {}},
        {"match_none": {}},
        {"bool": {"must_not": {"term": {"in_stock": True}}}},
    ]
)

_spans = st.builds(
    lambda field, word: {"span_term": {field: word}}, st.just("title"), st.sampled_from(["laptop", "acme"])
)
_some_spans = st.lists(_spans, min_size=1, max_size=3)

_LEAF_BODIES: Mapping[str, Some] = {
    "intervals": st.builds(lambda field, text: {field: {"match": {"query": text}}}, FIELDS, TEXTS),
    "wildcard": st.builds(lambda field, text: {field: f"*{text}*"}, FIELDS, TEXTS),
    "fuzzy": st.builds(lambda field, text: {field: text}, FIELDS, TEXTS)
    | st.builds(lambda field, text: {field: {"value": text, "fuzziness": "AUTO"}}, FIELDS, TEXTS),
    "span_term": _spans.map(lambda span: span["span_term"]),
    "span_near": _some_spans.map(lambda spans: {"clauses": spans, "slop": 2}),
    "span_or": _some_spans.map(lambda spans: {"clauses": spans}),
    "span_first": _spans.map(lambda span: {"match": span, "end": 3}),
    "span_not": st.builds(lambda one, other: {"include": one, "exclude": other}, _spans, _spans),
    **dict.fromkeys(
        ("span_containing", "span_within"), st.builds(lambda one, other: {"big": one, "little": other}, _spans, _spans)
    ),
    **dict.fromkeys(
        ("match", "match_phrase", "match_phrase_prefix", "match_bool_prefix"),
        st.builds(lambda field, text: {field: text}, FIELDS, TEXTS | junk)
        | st.builds(lambda field, text, boost: {field: {"query": text, "boost": boost}}, FIELDS, TEXTS, COUNTS),
    ),
    **dict.fromkeys(
        ("multi_match", "combined_fields"),
        st.builds(lambda fields, text: {"query": text, "fields": fields}, st.lists(FIELDS, max_size=3), TEXTS),
    ),
    **dict.fromkeys(
        ("query_string", "simple_query_string"),
        st.builds(lambda text, more: {"query": text, **more}, TEXTS | st.text(), st.sampled_from([{}, {"fields": []}])),
    ),
    **dict.fromkeys(
        ("semantic", "sparse_vector"), st.builds(lambda field, text: {"field": field, "query": text}, FIELDS, TEXTS)
    ),
    "text_expansion": TEXTS.map(lambda text: {"ml": {"model_text": text, "model_id": "m"}}),
    **dict.fromkeys(("neural", "neural_sparse"), TEXTS.map(lambda text: {"embedding": {"query_text": text, "k": 3}})),
    "knn": st.sampled_from(
        [
            {"field": "embedding", "query_vector": VECTOR, "num_candidates": 20, "k": 5},
            {"embedding": {"vector": VECTOR, "k": 5}},
            {"field": "embedding", "query_vector_builder": {"text_embedding": {"model_id": "m", "model_text": "a"}}},
        ]
    ),
}


_ELSEWHERE = frozenset(
    {
        "semantic",
        "sparse_vector",
        "text_expansion",
        "neural",
        "neural_sparse",
        "hybrid",
        "rule",
        "rule_query",
        "pinned",
        "has_child",
        "has_parent",
        "rank",
        "sub_searches",
        "rescore",
        "search_after",
        "slice",
        "terminate_after",
        "verbose_pipeline",
        "derived",
        "pit",
        "search_pipeline",
    }
)
"""What the shop's engines mostly refuse, or what is never touched."""


def _names_of(table: Iterable[str]) -> Some:
    """Names of a table, mostly of what a search through the proxy is made of."""
    everything = sorted(table)
    return _mostly(
        st.sampled_from([name for name in everything if name not in _ELSEWHERE]), st.sampled_from(everything)
    )


def _named(table: Mapping[str, Some], names: Iterable[str]) -> Some:
    """One of the queries of these names, its body mostly as it should be, and now and then not."""
    if lacking := set(names) - table.keys():
        raise ValueError(f"wild.py has no body for {sorted(lacking)}")
    return _names_of(names).flatmap(lambda name: _mostly(table[name], junk).map(lambda body: {name: body}))


_SAID_BY_FUNCTIONS = st.sampled_from(
    [
        {"weight": 2},
        {"weight": 1, "min_score": 0.5},
        {"functions": [{"filter": {"match": {"title": "camera"}}, "weight": 0.3}]},
        {"functions": [{"filter": {"term": {"in_stock": True}}, "weight": 3}, {"weight": 1}], "score_mode": "max"},
    ]
)

_words = st.builds(lambda field, text: {"match": {field: text}}, st.sampled_from(["title", "description"]), TEXTS)
_leaves = _words | FILTERS | _named(_LEAF_BODIES, LEAVES)


def _compounds(inner: Some) -> Some:
    clauses = st.lists(inner | FILTERS, max_size=3) | inner
    with_query = st.builds(lambda query, more: {"query": query, **more}, inner, st.sampled_from([{}, {"boost": 2}]))
    organic = inner.map(lambda query: {"organic": query, "ids": ["p00"]})
    ruled = inner.map(lambda query: {"organic": query, "match_criteria": {"a": "b"}, "ruleset_ids": ["r"]})
    bodies: Mapping[str, Some] = {
        "bool": st.fixed_dictionaries(
            {"must": clauses},
            optional={
                "should": clauses,
                "filter": st.lists(FILTERS, max_size=2),
                "must_not": FILTERS,
                "minimum_should_match": st.sampled_from([0, 1, 2, "50%", "x"]),
                "_name": st.just("named"),
            },
        ),
        "dis_max": clauses.map(lambda queries: {"queries": queries}),
        "boosting": inner.map(lambda query: {"positive": query, "negative": {"match_all": {}}, "negative_boost": 0.5}),
        "constant_score": inner.map(lambda query: {"filter": query}),
        "function_score": st.builds(lambda body, said: {**body, **said}, with_query, _SAID_BY_FUNCTIONS),
        "script_score": with_query.map(lambda body: {**body, "script": {"source": "_score + 1"}}),
        "nested": with_query.map(lambda body: {**body, "path": "reviews", "inner_hits": {}}),
        "has_child": with_query.map(lambda body: {**body, "type": "child"}),
        "has_parent": with_query.map(lambda body: {**body, "parent_type": "parent"}),
        "pinned": organic,
        "rule": ruled,
        "rule_query": ruled,
        "hybrid": clauses.map(lambda queries: {"queries": queries}),
    }
    return _named(bodies, COMPOUNDS)


queries = _mostly(
    _words | _named(_LEAF_BODIES, LEAVES) | st.recursive(_leaves, _compounds, max_leaves=5),
    junk | st.just({"nosuch": {}}),
)
"""Queries of every name in the tables, and what is none."""

_SOURCES = st.sampled_from(
    [True, False, "title", ["title", "price"], [], {"includes": ["t*"]}, {"excludes": ["title"]}, ["emb*"]]
)
_TWO_INNER_HITS = {"field": "brand", "inner_hits": [{"name": "cheap", "sort": ["price"]}, {"name": "best", "size": 1}]}
_FIELD_LISTS = st.sampled_from([["title"], ["price", "brand"], ["*"], [{"field": "released", "format": "year"}], []])
_AGGS = {"brands": {"terms": {"field": "brand"}}}
_KNN = {"field": "embedding", "query_vector": VECTOR, "k": 3, "num_candidates": 10}
_SORTS = st.sampled_from(
    [
        *("_score", ["_score"], [{"_score": "desc"}], ["price"], [{"_score": "asc"}], ["_doc"], []),
        *({}, {"_score": "DESC"}, ["_score", "title.exact"], ["_score", {"price": "desc"}], ["_score", "_score"]),
        *([{"in_stock": "desc"}, "_score"], ["brand", {"in_stock": "asc"}, "_score", "price"]),
    ]
)

_BODY_VALUES: Mapping[str, Some] = {
    "query": queries,
    "from": COUNTS,
    "size": COUNTS,
    "_source": _SOURCES,
    "post_filter": FILTERS,
    "sort": _SORTS,
    "aggs": st.just(_AGGS),
    "aggregations": st.just(_AGGS),
    "suggest": st.just({"mine": {"text": "lapto", "term": {"field": "title"}}}),
    "profile": FLAGS,
    "track_total_hits": FLAGS | COUNTS,
    "track_scores": FLAGS,
    "indices_boost": st.sampled_from([[{"shop-*": 2.0}], [{"nosuch": 2.0}], {}]),
    "timeout": st.sampled_from(["10s", "-1", "x"]),
    "stats": st.just(["group"]),
    "min_score": st.sampled_from([0, 0.1, 1.5, 100]),
    "retriever": st.sampled_from(
        [
            {"standard": {"query": {"match": {"title": "laptop"}}}},
            {"standard": {"query": {"match": {"title": "laptop"}}, "filter": {"term": {"brand": "acme"}}}},
            {"knn": _KNN},
            {"rrf": {"retrievers": []}},
        ]
    ),
    "knn": st.sampled_from([_KNN, [_KNN], {"field": "embedding"}, []]),
    "ext": st.sampled_from([{}, {"rerank": {"query_context": {"query_text": "camera"}}}, {"plugin": {}}]),
    "search_pipeline": st.sampled_from(["_none", "nosuch", {}]),
    "explain": FLAGS,
    "fields": _FIELD_LISTS,
    "stored_fields": st.sampled_from(["_none_", ["title"], "_source", [], ["*"]]),
    "docvalue_fields": _FIELD_LISTS,
    "script_fields": st.just({"twice": {"script": "doc['price'].value * 2"}}),
    "highlight": st.just({"fields": {"*": {}}}),
    "version": FLAGS,
    "seq_no_primary_term": FLAGS,
    "include_named_queries_score": FLAGS,
    "collapse": st.sampled_from(
        [
            {"field": "brand"},
            {"field": "category", "inner_hits": {"name": "more", "size": 2}},
            {"field": "title"},
            _TWO_INNER_HITS,
        ]
    ),
    "runtime_mappings": st.just({"cheap": {"type": "boolean", "script": "emit(doc['price'].value < 500)"}}),
    "derived": st.just({"cheap": {"type": "boolean", "script": "emit(doc['price'].value < 500)"}}),
    "pit": st.sampled_from([{"id": "bm8="}, {"id": "x"}, {}]),
    "rank": st.just({"rrf": {}}),
    "sub_searches": st.just([{"query": {"match_all": {}}}]),
    "rescore": st.just({"query": {"rescore_query": {"match_all": {}}}, "window_size": 5}),
    "search_after": st.just([1.0]),
    "slice": st.just({"id": 0, "max": 2}),
    "terminate_after": COUNTS,
    "verbose_pipeline": FLAGS,
}


_some_members = st.lists(_names_of(BODY_KEYS), max_size=3, unique=True).flatmap(
    lambda chosen: st.fixed_dictionaries({name: _mostly(_BODY_VALUES[name], junk) for name in chosen})
)
_strangers = st.dictionaries(st.text(max_size=5) | st.just("Query"), junk, max_size=1)
bodies = _mostly(
    st.builds(lambda members, query: {**members, "query": query}, _some_members, queries),
    st.builds(lambda members, strangers: {**members, **strangers}, _some_members, _strangers),
)
"""Bodies of searches: most of them answered, some refused."""

_DAMAGES = st.sampled_from([b"\xff", b"\x00", b'"', b"}", b"{", b",", b" ", b"\xef\xbb\xbf", b"0" * 5000, b"[" * 2000])


@st.composite
def damaged(draw: st.DrawFn, whole: Some) -> bytes:
    """Bytes with a piece put in, cut out or doubled."""
    content: bytes = draw(whole)
    start, end = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    middle = draw(st.sampled_from([b"", content[start:end] * 2]) | _DAMAGES)
    return content[:start] + middle + content[end:]


def written(body: Any) -> bytes:
    return json.dumps(body).encode()


contents = _mostly(bodies.map(written), damaged(bodies.map(written)))
"""The same as bytes, some of them broken."""

_SAID_FLAGS = _mostly(st.sampled_from(["true", "false", ""]), st.just("yes"))
_SAID_COUNTS = _mostly(st.sampled_from(["1", "3", "20"]), st.sampled_from(["0", "-1", "x", "", "10000", "99999999999"]))
_SAID_FIELDS = st.sampled_from(["title", "title,price", "*", "nosuch", ""])
_SAID: Mapping[str, Some] = {
    **dict.fromkeys(("from", "size", "track_total_hits", "terminate_after"), _SAID_COUNTS),
    **dict.fromkeys(("batched_reduce_size", "max_concurrent_shard_requests", "pre_filter_shard_size"), _SAID_COUNTS),
    **dict.fromkeys(("_source", "_source_includes", "_source_excludes", "docvalue_fields"), _SAID_FIELDS),
    "stored_fields": st.sampled_from(["title", "_none_", "*", ""]),
    "filter_path": st.sampled_from(["hits.hits._id", "-took", "hits.total", "**", "took,hits.hits._source", "", "x"]),
    "source": st.sampled_from(['{"query":{"match":{"title":"laptop"}}}', "{}", "x", ""]),
    "source_content_type": st.sampled_from(["application/json", "application/yaml", ""]),
    "q": TEXTS | st.text(max_size=5),
    "df": FIELDS,
    "analyzer": st.sampled_from(["standard", "nosuch", ""]),
    "default_operator": st.sampled_from(["and", "OR", "x"]),
    "sort": st.sampled_from(["_score", "_score:desc", "price", "price:asc,_score", ""]),
    "stats": st.just("group"),
    "suggest_field": FIELDS,
    "suggest_mode": st.sampled_from(["always", "x"]),
    "suggest_size": _SAID_COUNTS,
    "suggest_text": st.just("lapto"),
    "timeout": st.sampled_from(["10s", "x", ""]),
    "search_pipeline": st.sampled_from(["_none", "nosuch", ""]),
    "search_type": st.sampled_from(["query_then_fetch", "dfs_query_then_fetch", "x"]),
    "cancel_after_time_interval": st.sampled_from(["10s", "x"]),
    "expand_wildcards": st.sampled_from(["open", "all", "none", "x"]),
    "preference": st.sampled_from(["_local", "mine", "_nosuch", ""]),
    "routing": st.sampled_from(["a", "a,b", ""]),
    "format": st.sampled_from(["json", "yaml", "x", ""]),
    "scroll": st.sampled_from(["10ms", "x", ""]),
    "error_trace": st.sampled_from(["true", "false", ""]),
    **dict.fromkeys(
        (
            "_source_exclude_vectors",
            "allow_no_indices",
            "allow_partial_search_results",
            "analyze_wildcard",
            "ccs_minimize_roundtrips",
            "explain",
            "force_synthetic_source",
            "human",
            "ignore_throttled",
            "ignore_unavailable",
            "include_named_queries_score",
            "lenient",
            "phase_took",
            "pretty",
            "request_cache",
            "rest_total_hits_as_int",
            "seq_no_primary_term",
            "track_scores",
            "typed_keys",
            "verbose_pipeline",
            "version",
        ),
        _SAID_FLAGS,
    ),
}
# OpenSearch 2 never answers an error of a search whose `error_trace` is no flag.
_SAID_WELL = frozenset({"error_trace"})
_JUNK_PARAMETERS = st.sampled_from(["nosuch=1", "&", "=", "%zz", "a;b=c", "q=%ff", "pretty", "size=2;from=1", "%71=tv"])


@st.composite
def _parameter(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(sorted(PARAMETERS)))
    value = draw(_SAID[name] if name in _SAID_WELL else _mostly(_SAID[name], st.text(max_size=4)))
    escaped = draw(_mostly(st.just(name), st.just(f"%{ord(name[0]):x}{name[1:]}")))
    return f"{escaped}={quote(value, safe=draw(st.sampled_from(['', ',*:'])))}"


query_strings = st.just("") | st.just("") | st.lists(_mostly(_parameter(), _JUNK_PARAMETERS), max_size=2).map("&".join)
"""What stands behind the question mark, some of it twice or by other letters."""

names = _mostly(
    st.sampled_from(["{0.index}", "{0.acme}", "{0.index},{0.second}", "{0.index}*", "{0.index}*,-{0.second}"]),
    st.sampled_from(
        [
            "{0.index},{0.index}",
            "{0.index},{0.plain}",
            "{0.index},{0.acme}",
            "{0.plain}",
            "{0.index},nosuch",
            "nosuch-{0.index}*",
            "%3C{0.index}%3E",
            "{0.index}%2C{0.second}",
            "%7B0.index%7D",
            "{0.index},",
        ]
    ),
)
"""Names as a path segment, to be filled with the shop's."""

_steering_values: Some = st.sampled_from(
    [True, False, "on", "off", 1, 5, 1000, 20_000, "catalogue", "shop", "a camera", "", "é", None, 2**70, [], 0]
)
_MEANT: Mapping[str, Some] = {
    "enabled": st.sampled_from([True, True, True, False]),
    "query": st.sampled_from(["a camera", "laptop", "é"]),
    "budget_ms": st.sampled_from([1, 50, 60_000]),
    "window": st.integers(1, 12) | st.just(1000),
    "profile": st.sampled_from(sorted(PROFILES)),
    "instruction": st.just("Prefer what is new."),
    "explain": st.booleans(),
    "cost": st.booleans(),
    "background": st.booleans(),
    "nosuch": _steering_values,
}
_steering = st.lists(_mostly(st.sampled_from(OPTIONS), st.just("nosuch")), max_size=3, unique=True).flatmap(
    lambda chosen: st.fixed_dictionaries({name: _mostly(_MEANT[name], _steering_values) for name in chosen})
)
members = _mostly(_steering, junk)
"""What may stand at `ext.rerank_proxy`."""


def _header(name: str, value: Any) -> tuple[str, str]:
    value = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
    text = value if isinstance(value, str) else json.dumps(value)
    return f"X-Rerank-{name.replace('_', '-').title()}", text.encode().decode("latin-1")


steering_headers = _steering.map(lambda said: dict(_header(*pair) for pair in said.items()))
steered_bodies = st.builds(
    lambda body, member, more: {**body, "ext": {**more, MEMBER: member}},
    st.just({"query": {"match": {"title": "laptop phone"}}, "size": 20}) | bodies,
    members,
    st.sampled_from([{}, {}, {}, {"rerank": {"query_context": {"query_text": "camera"}}}]),
)


# multi-searches

_item_heads = _mostly(
    st.fixed_dictionaries(
        {},
        optional={
            "index": names | st.lists(names, max_size=2),
            "preference": st.just("mine"),
            "search_type": st.just("dfs_query_then_fetch"),
            "ignore_unavailable": FLAGS,
            "routing": st.sampled_from(["a", "b", 3]),
        },
    ),
    st.dictionaries(st.sampled_from(["index", "indices", "nosuch", "expand_wildcards"]), junk, max_size=2),
).map(written) | st.sampled_from([b"", b"{}", b" "])
_steered_contents = steered_bodies.map(written)
_items = st.tuples(_item_heads, _mostly(contents | _steered_contents, st.sampled_from([b"", b"x", b"{}\r"])))
_ends = _mostly(st.just(b"\n"), st.sampled_from([b"\r\n", b"\n\n", b"", b"\r"]))


@st.composite
def _lines(draw: st.DrawFn) -> bytes:
    lines = [line for item in draw(st.lists(_items, max_size=4)) for line in item]
    lines = [line.replace(b"\n", b" ") for line in lines]
    return b"".join(line + draw(_ends) for line in lines)


multi_contents = _mostly(_lines(), damaged(_lines()))
"""Bodies of multi-searches, to be filled with the shop's names."""
multi_query_strings = st.sampled_from(
    ["", "", "typed_keys", "rest_total_hits_as_int=true", "pretty", "filter_path=responses.hits.hits._id", "nosuch=1"]
)


# raw requests: none of them changes anything

_SAFE_TARGETS = [
    "/",
    "/{0.index}/_search",
    "/{0.plain}/_search",
    "/{0.index}/_msearch",
    "/{0.index}/_count",
    "/{0.index}/_source/p00",
    "/{0.index}%2F_search",
    "//{0.index}//_search",
    "/{0.index}/_search/",
    "/_cat/count/{0.index}?h=count",
    "/_nosuch",
    "/%zz",
    "*",
    "http://engine/{0.index}/_count",
    "/{0.index}/_search#part",
    "",
]
_targets = st.builds(
    lambda target, query: target + (f"?{query}" if query and "?" not in target else ""),
    st.sampled_from(_SAFE_TARGETS),
    _mostly(st.just(""), query_strings),
)
_methods = _mostly(
    st.sampled_from(["GET", "POST", "HEAD"]), st.sampled_from(["OPTIONS", "PATCH", "TRACE", "FOO", "get", "post"])
)
_SOUP = [
    b"X-A: b",
    b"X-Empty:",
    b"X-Spaces:   b  ",
    b"X-Byte: \xff\x80",
    b"X-Control: \x01",
    b'X-"{Name}": a',
    b"X-Folded: a\r\n b",
    b"X-Opaque-Id: mine",
    b"Accept: application/yaml",
    b"Accept: */*",
    b"Accept: application/json",
    b"Accept-Encoding: gzip",
    b"TE: trailers",
    b"Connection: keep-alive, X-A",
    b"Connection: keep-alive",
    b"Expect: 100-continue",
    b"Authorization: Basic YTph",
    b"X-Rerank-Window: 3",
    b"X-Rerank-Window: x",
    b"X-Rerank-Enabled: off",
    b"Content-Type: application/json",
    b"Content-Type: application/x-ndjson",
    b"Content-Type: text/plain",
    b"Origin: http://elsewhere",
    b"Forwarded: for=x",
    b"Via: 1.1 x",
    b"Cookie: a=b",
]
_QUERY = b'{"query":{"match":{"title":"laptop"}}}'
_SEARCHES = b"{}\n" + _QUERY + b"\n"
_raw_contents = st.sampled_from([b"", _QUERY, _SEARCHES, b"\xff"]) | contents


@dataclass(frozen=True, slots=True)
class Chunks:
    """How a body is cut into chunks."""

    length: int
    size: bytes = b"%x"
    extension: bytes = b""
    trailer: bytes = b""

    def wire(self, content: bytes) -> bytes:
        pieces = [content[start : start + self.length] for start in range(0, len(content), self.length)]
        chunks = [self.size % len(piece) + self.extension + b"\r\n" + piece + b"\r\n" for piece in pieces]
        return b"".join(chunks) + b"0\r\n" + self.trailer + b"\r\n"


@dataclass(frozen=True, slots=True)
class Raw:
    """One request, whose target is to be filled with the shop's names."""

    method: str
    target: str
    fields: tuple[bytes, ...]
    content: bytes
    times: int = 1
    """How often the content stands in the body."""
    chunks: Chunks | None = None

    def wire(self, *, last: bool) -> bytes:
        """Write it as it is sent."""
        content = self.content * self.times
        lines = [b"%s %s HTTP/1.1" % (self.method.encode(), self.target.encode()), b"Host: engine", *self.fields]
        if self.chunks:
            lines.append(b"Transfer-Encoding: chunked")
        elif content or self.method == "POST":
            lines.append(b"Content-Length: %d" % len(content))
        if last:
            lines.append(b"Connection: close")
        body = self.chunks.wire(content) if self.chunks else content
        return b"\r\n".join([*lines, b"", b""]) + body


_chunks = st.builds(
    Chunks,
    st.integers(1, 5000),
    st.sampled_from([b"%x", b"%X", b"000%x"]),
    st.sampled_from([b"", b";a=b", b' ;q="x"', b"  "]),
    st.sampled_from([b"", b"X-Trailer: a\r\n"]),
)
_raw_requests = st.builds(
    Raw,
    _methods,
    _targets,
    st.lists(st.sampled_from(_SOUP), max_size=4).map(tuple),
    _raw_contents,
    st.sampled_from([1, 1, 1, 3000]),
    st.none() | _chunks,
).map(lambda raw: replace(raw, times=min(raw.times, 300)) if raw.content == _SEARCHES else raw)
"""Of searches that are run, no more than take some seconds."""
pipelines = st.lists(_raw_requests, min_size=1, max_size=4)
"""Requests one behind the other on one connection, each whole."""

noise = st.binary(max_size=200) | damaged(
    pipelines.map(lambda requests: b"".join(replace(request, times=1).wire(last=False) for request in requests))
)
"""Bytes that are no request, or hardly."""


def fill(content: bytes, shop: object) -> bytes:
    """Put the shop's names where they are meant."""
    return re.sub(rb"\{0\.(index|second|acme|plain)\}", lambda found: _name(shop, found[1]), content)


def _name(shop: object, found: bytes) -> bytes:
    return str(getattr(shop, found.decode())).encode()


def search_request(target: str, query_string: str, content: bytes, fields: Mapping[str, str] | None = None) -> Request:
    """Write a search as a request."""
    return Request("POST", target + (f"?{query_string}" if query_string else ""), content, {**JSON, **(fields or {})})
