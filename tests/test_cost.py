"""No input costs more CPU in one turn of the event loop than a few times decoding and encoding as many bytes.

Measured in the same process and by the thread's own CPU, at a size and at four times that size: what grows faster than
its input is over the line at one of them. What is bounded otherwise (`proxy/bounds.py`) may cost as much as adding up
FLOOR numbers at any size.
"""

import base64
import gc
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import structlog

from proxy.app import record_of
from proxy.bounds import (
    HEAD_LINES,
    INDEX_NAMES_BYTES,
    PARAMETERS_BYTES,
    QUERY_STRING_LINE,
    QUERY_STRING_LINES,
    SOURCE_BYTES_A_TURN,
    SOURCE_PATTERNS,
    TEXT_CLAUSES,
)
from proxy.catalog.indices import (
    cover,
    is_plain,
    may_concern,
    read_field_caps,
    read_resolution,
    requested_names,
)
from proxy.context import SearchRecord
from proxy.endpoints import multi_search_lines
from proxy.endpoints.nodes import published_as
from proxy.errors import TooComplex
from proxy.http1.callers import CallerIdentities, carried
from proxy.http1.headers import HeadWriter
from proxy.http1.messages import read_request_head
from proxy.outcomes import Bypass, Outcome, bypassed, in_order
from proxy.parsing.aggregations import facets_of, merged
from proxy.parsing.filter_path import Form, read_filter_path
from proxy.parsing.json_text import read, take_member, with_members_set
from proxy.parsing.query_text import find_user_query
from proxy.parsing.search_request import SearchRequest, parse
from proxy.parsing.source_filter import SourceFilter
from proxy.ranking import tokens
from proxy.ranking.chunks import stems_of
from proxy.ranking.explaining import Boost, Explanation, Kept, Origin
from proxy.ranking.passages import passage_of_tokens, two_passages
from proxy.ranking.planning import Relevance
from proxy.ranking.search_response import Page, Shown, read_answer, render_answer
from proxy.settings.config import Config, Log, Redact, RouteSettings
from proxy.settings.passage_template import template_of
from proxy.settings.redaction import redaction
from proxy.settings.request_options import OPTIONS, read_steering
from proxy.settings.routes import build_routes
from proxy.telemetry import log as telemetry
from proxy.upstream import embedder, providers, reranker, windows
from proxy.upstream.score_entries import QueryScores, decode, encode

pytestmark = pytest.mark.no_cover  # the tracing would be measured too

FACTOR = 5
FLOOR = 240_000
"""Numbers that Python adds up in 4 ms where this was set; on a slower machine in as much longer as all else takes."""
SIZES = (2**15, 2**17)
"""Bytes."""
ROUNDS = 12


@dataclass(frozen=True, slots=True)
class Work:
    """Something done with an input, and the input as the JSON texts it consists of."""

    texts: Sequence[bytes]
    run: Callable[[], object]


Case = Callable[[int], Work]


def spent(run: Callable[[], object]) -> float:
    """Seconds of this thread's CPU."""
    begun = time.thread_time()
    run()
    return time.thread_time() - begun


def decode_and_encode(texts: Sequence[bytes]) -> None:
    for text in texts:
        msgspec.json.encode(msgspec.json.decode(text))


def encoded(value: Any) -> bytes:
    return msgspec.json.encode(value)


def repeated(size: int, of: Callable[[int], Any]) -> list[Any]:
    """As many as fit into a size."""
    return [of(number) for number in range(size // (len(encoded(of(10_000))) + 1))]


# ---------------------------------------------------------------------------------------------------- bodies

MANY: Mapping[str, Callable[[int], Any]] = {
    "texts": lambda size: repeated(size, lambda number: f"f{number}"),
    "wildcards": lambda size: repeated(size, lambda number: f"*{number}*"),
    "fractions": lambda size: repeated(size, lambda number: number + 0.25),
    "whole numbers": lambda size: repeated(size, lambda number: number),
    "objects": lambda size: repeated(size, lambda number: {"a": number}),
    "empty arrays": lambda size: repeated(size, lambda _: []),
    "members": lambda size: {f"k{number}": number for number in range(size // 13)},
    "escapes": lambda size: repeated(size, lambda _: '\n"\\' * 10),
    "a long text": lambda size: "red " * (size // 4),
    "long escapes": lambda size: "\n" * (size // 2),
    "many scripts": lambda size: "ü€😀" * (size // 9),
    "brackets": lambda size: "[{" * (size // 2),
    "levels": lambda _: json.loads('{"a":[' * 150 + "]}" * 150),
}
"""Values of about so many bytes."""


def body_of(name: str, size: int, place: str = "aggs") -> bytes:
    return encoded({"query": {"match": {"title": "red"}}, place: MANY[name](size)})


def parsed(name: str, size: int) -> Work:
    body = body_of(name, size)
    return Work([body], lambda: parse("", body))


def without_steering(name: str, size: int) -> Work:
    body = body_of(name, size)[:-1] + b',"ext":{"rerank_proxy":{"window":3}}}'
    return Work([body], lambda: take_member(body, ("ext", "rerank_proxy"), prune=True))


def widened(name: str, size: int) -> Work:
    body = body_of(name, size)
    return Work([body], lambda: with_members_set(body, {"size": 50, "from": 0}))


def blanked(name: str, size: int) -> Work:
    body = body_of(name, size, "_source")
    return Work([body], lambda: with_members_set(body, {"_source": True, "size": 50, "from": 0}))


URLS: Mapping[str, str] = {
    "paths": "filter_path=a,",
    "deep paths": "filter_path=a.",
    "escaped dots": r"filter_path=\.",
    "names": "_source_includes=a,",
    "sorts": "sort=_score,",
    "escapes": "routing=%41",
    "parameters": "a=1&",
}


def parsed_url(name: str, size: int) -> Work:
    start, sign, part = URLS[name].partition("=")
    url = start + sign + part * (min(size, PARAMETERS_BYTES - 20) // len(part))
    return Work([encoded(url)], lambda: parse(url, b""))


def steered(name: str, size: int) -> Work:
    member = {"query": MANY[name](size)} if name != "members" else MANY[name](size)
    return Work([encoded(member)], lambda: read_steering([], member, OPTIONS))


# -------------------------------------------------------------------------------------------------- queries


def match(number: int) -> Any:
    return {"match": {"title": f"w{number}"}}


def nested(depth: int, query: Any) -> Any:
    for _ in range(depth):
        query = {"bool": {"must": [query]}}
    return query


def line(name: str, text: str) -> Callable[[int], Any]:
    return lambda size: {name: {"query": text * (size // len(text))}}


def must(clause: Callable[[int], Any]) -> Callable[[int], Any]:
    return lambda size: {"bool": {"must": repeated(min(size, 18_000 * 20), clause)}}


def to_the_bound(clause: Callable[[int], Any], occur: str = "must") -> Callable[[int], Any]:
    return lambda _: {"bool": {occur: [clause(number) for number in range(TEXT_CLAUSES)]}}


def long_lines(name: str, text: str) -> Callable[[int], Any]:
    clause = {name: {"query": text[:QUERY_STRING_LINE]}}
    return lambda _: {"bool": {"must": [clause] * (QUERY_STRING_LINES // QUERY_STRING_LINE)}}


def filtered(name: str) -> Callable[[int], Any]:
    return lambda size: {"bool": {"must": [match(1)], "filter": [{"terms": {"brand": MANY[name](size)}}]}}


def wrapped(query: Any) -> Any:
    return {"wrapper": {"query": base64.b64encode(encoded(query)).decode()}}


QUERIES: Mapping[str, Callable[[int], Any]] = {
    "clauses": must(match),
    "clauses alike": must(lambda _: match(1)),
    "clauses with names": must(lambda number: {"term": {"brand": {"value": f"w{number}", "_name": "n"}}}),
    "filters": must(lambda number: {"term": {"brand": f"w{number}"}}),
    "nested clauses": lambda size: nested(100, must(match)(size)),
    "named and nested": lambda size: {"bool": {"must": [nested(100, must(match)(size))], "_name": "n"}},
    "as many clauses as are read": to_the_bound(match),
    "as many phrases": to_the_bound(lambda number: {"match_phrase": {f"f{number}": f"w{number} v"}}),
    "as many filters with text": to_the_bound(match, "filter"),
    "as many choices": to_the_bound(lambda number: {"match": {"title": f"w{number} v"}}, "should"),
    "as many in many fields": to_the_bound(
        lambda number: {"multi_match": {"query": f"w{number}", "fields": ["title^3", "description.x", "title.y"]}}
    ),
    "as many short lines": to_the_bound(lambda number: {"query_string": {"query": f"x:{number}", "fields": ["title"]}}),
    "as many alternatives": long_lines("query_string", '"a b" OR ' + "c OR d OR " * 200),
    "as many simple alternatives": long_lines("simple_query_string", '"a b"|' + "c|d|" * 500),
    "as many groups": long_lines("query_string", "(a b)||" * 300),
    "as deep groups": long_lines("query_string", "(" * 900 + "a" + "||b)" * 900),
    "many clauses with many fields": must(
        lambda number: {"multi_match": {"query": "red", "fields": [f"a.b{field}" for field in range(400)]}}
    ),
    "fields": lambda size: {"multi_match": {"query": "red", "fields": MANY["texts"](size)}},
    "fields by wildcards": lambda size: {"multi_match": {"query": "red", "fields": MANY["wildcards"](size)}},
    "words": line("match", "red shoes "),
    "a line": line("query_string", "a "),
    "a line of signs": line("query_string", "+a -b "),
    "a line of operators": line("query_string", "(a OR b~2) /c/ "),
    "a line of brackets": line("query_string", "((((((("),
    "a simple line": line("simple_query_string", "+a b| "),
    "lines": must(lambda number: {"query_string": {"query": f"+a{number} b " * 20}}),
    "wrapped": lambda size: wrapped(must(match)(size)),
    "wrapped often": must(lambda number: wrapped(match(number))),
    **{f"filter of {name}": filtered(name) for name in MANY},
}


def read_query(name: str, size: int) -> Work:
    body = encoded({"query": QUERIES[name](size)})
    request = parse("", body)
    query = request.query if isinstance(request, SearchRequest) else None
    return Work([body], lambda: find_user_query(query, ("title", "description"), lambda field: field == "title"))


def clauses_beside_a_long_text(size: int) -> Work:
    words = " ".join(map(chr, range(0xAC00, 0xAC00 + min(size // 4, 9000))))
    others = [{"match": {f"f{number}": "\uac00 w"}} for number in range(240)]
    query = {"bool": {"must": [{"match": {"title": words}}], "should": others}}
    return Work([encoded(query)], lambda: find_user_query(query, ("title",), lambda _: True))


# ------------------------------------------------------------------------------------------------- responses


def hits(sources: Sequence[Any], **more: Any) -> bytes:
    listed = [
        {"_index": "products", "_id": str(number), "_score": 1.5, "_source": source, **more}
        for number, source in enumerate(sources)
    ]
    total = {"value": len(listed), "relation": "eq"}
    return encoded({"took": 1, "timed_out": False, "hits": {"total": total, "max_score": 1.5, "hits": listed}})


def binary(depth: int) -> Any:
    return {"a": binary(depth - 1), "x": binary(depth - 1)} if depth else {}


def product(number: int) -> Any:
    return {"title": f"laptop {number}", "description": "for video editing " * 10, "price": number * 1.1, "tags": ["a"]}


RESPONSES: Mapping[str, Callable[[int], bytes]] = {
    "hits": lambda size: hits(repeated(size, lambda number: {**product(number), "_index": 1, "_score": 1})),
    "small hits": lambda size: hits(repeated(size // 4, lambda number: {"title": f"{number}"})),
    "halves of characters": lambda size: hits([{"a": MANY["members"](size)}]).replace(b'"k7"', rb'"k\ud83d\\"'),
    "a deep hit": lambda size: b'{"hits":' + b'{"x":' * 50 + encoded(MANY["objects"](size)) + b"}" * 51,
    "two ways at each level": lambda size: encoded({"hits": binary(11 if size == SIZES[0] else 13)}),
    **{name: lambda size, name=name: hits([{"a": MANY[name](size)}]) for name in MANY},  # type: ignore[misc]
}
PATHS: Mapping[str, str] = {
    "nothing": "took",
    "a field": "hits.hits._source.title",
    "everywhere": "**.x",
    "not anywhere": "-**.x",
    "many ways": ".".join(["**"] * 30),
    "many ways out": "-" + ".".join(["**"] * 30),
    "after any five": "**.x.*.*.*.*.*.z",
    "many names": ",".join(f"hits.hits._source.k{number}" for number in range(50)),
    "names by wildcards": ",".join(f"**.*{number}*" for number in range(8)),
}


def as_written_by_the_engine(body: bytes) -> bytes:
    """Under a form it is asked for a pretty response."""
    try:
        return msgspec.json.format(body, indent=2)
    except msgspec.DecodeError:
        return body


def decodable(body: bytes) -> bytes:
    return body.replace(rb"\ud83d", b"abcdef")


def cut(name: str, path: str, size: int) -> Work:
    body = as_written_by_the_engine(RESPONSES[name](size))
    form = Form(read_filter_path(PATHS[path]))

    def write() -> None:
        with suppress(TooComplex):
            form.write(body, keeps_empty=True)

    return Work([decodable(body)], write)


def made_pretty(name: str, size: int) -> Work:
    body = as_written_by_the_engine(RESPONSES[name](size))
    return Work([decodable(body)], lambda: Form(pretty=True).write(body, keeps_empty=True))


CUT = [name for name in RESPONSES if name not in MANY or name in {"whole numbers", "objects", "members", "levels"}]
READ = [name for name in RESPONSES if name not in {"a deep hit", "two ways at each level"}]
EXPLANATION = Explanation(
    Origin(1, 2.0), Origin(2, 0.5), 0.03, 0.7, "79f7baff18e4a6c9", 105, Kept(1, "exact_match"), Boost(1.234567, 2)
)


def opened(name: str, size: int) -> Work:
    body = RESPONSES[name](size)
    return Work([decodable(body)], lambda: read_answer(body))


def closed(name: str, size: int) -> Work:
    body = RESPONSES[name](size)
    answer = read_answer(body)
    page = Page([Shown(hit, 1.2345678, EXPLANATION) for hit in answer.hits[:1000]], answer.total, 2.0)
    return Work([decodable(body)], lambda: render_answer(answer, page))


def passages(name: str, size: int) -> Work:
    """Of a window's hits, as many as a turn reads."""
    found = read_answer(RESPONSES[name](size)).hits[:1000]
    sources = [bytes(hit.members["_source"]) for hit in found]
    fields = template_of(("title", "Of {description:100}", "a", "a.b.c", "{a.a:raw}")).lines
    return Work(list(map(decodable, sources)), lambda: [passage_of_tokens(read(each), fields, 500) for each in sources])


NESTED: Mapping[str, Callable[[Any], Any]] = {"arrays": lambda value: [value], "objects": lambda value: {"a": value}}


def deep_passages(name: str, size: int) -> Work:
    """Of documents whose values are nested deeply, as many as a turn reads."""
    value: Any = ["words"] * 250
    for _ in range(100):
        value = NESTED[name](value)
    sources = [encoded({"title": [{"a": value}]})] * (min(size, SOURCE_BYTES_A_TURN) // 2000)
    fields = template_of(("title.a",)).lines
    return Work(sources, lambda: [passage_of_tokens(read(each), fields, 500) for each in sources])


MARKUP: Mapping[str, str] = {
    "tags": "<b>bold</b> and <p class='x'>text</p> ",
    "open tags": "<a <p <div ",
    "open quotes": "<a href='<b title=\"<i '",
    "open scripts": "<script><style>",
    "open comments": "<!--",
    "closing scripts": "<script></scrip",
    "entities": "&amp;&lt;&#65;",
    "open entities": "&aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa&#&#x",
    "signs": "< > & ",
}


def unmarked(name: str, size: int) -> Work:
    text = MARKUP[name] * (size // len(MARKUP[name]))
    return Work([encoded(text)], lambda: passage_of_tokens({"text": text}, template_of(("text",) * 9).lines, 500))


TOKENS: Mapping[str, str] = {"letters": "word ", "digits": "1 ", "ideographs": "笔", "digits first": "1"}


def cut_to_tokens(name: str, size: int) -> Work:
    text = TOKENS[name] * (size // len(TOKENS[name])) + "x" * (size if name == "digits first" else 0)
    return Work([encoded(text)], lambda: [tokens.cut(text, size // limit) for limit in (1, 2, 5, 10)])


LONG: Mapping[str, str] = {"words": "laptop and ", "one stem": "aaaa", "ideographs": "笔记", "nothing": "x "}


def second_passages(name: str, size: int) -> Work:
    text, stems = LONG[name] * (size // len(LONG[name])), stems_of(("laptop", "aaaa", "笔记本", *map(str, range(99))))
    return Work([encoded(text)], lambda: two_passages({"text": text}, template_of(("text",)).lines, 500, stems))


MARKS: Mapping[str, str] = {
    "words": "laptop and ",
    "accents": "e\u0301",
    "marks in order": "e" + "\u0323" * 20 + "\u0301" * 20,
    "marks out of order": "e" + "\u0301" * 20 + "\u0323" * 20,
    "ideographs": "笔记",
    "letters that are composed": "\u1100\u1161",
    "signs": "😀\ufe0f\u200d",
    "control tokens": "<|im_start|>[MAS\u212a]",
}


def spelled(name: str, size: int) -> Work:
    text = MARKS[name] * (size // len(MARKS[name].encode()))
    return Work([encoded(text)], lambda: providers.spelled_as_sent(text))


def endless_marks(size: int) -> Work:
    marks = size // 8
    text = "a" + "\u0301" * marks + "\u0323" * marks + "b" + "\u2026" * 40 + "\u0f73" * marks
    return Work([encoded(text)], lambda: providers.spelled_as_sent(text))


# ------------------------------------------------------------------------------------------------- the others


def scores(size: int) -> Work:
    count = min(size // 10, 1024)
    answer = encoded({"scores": [number / 1025 for number in range(count)]})
    return Work([answer], lambda: reranker.decode(answer, count))


def cached_scores(size: int) -> Work:
    known = QueryScores("m", {number.to_bytes(8, "big"): (number / 7, 2**31) for number in range(size // 20)})
    return Work([encoded([*known.scores.values()])], lambda: decode(encode(known, 0.0), 0.0))


def long_windows(size: int) -> Work:
    texts = [f"{number} " + "<| x [" * (size // 6000) for number in range(1000)]

    def joined() -> Relevance:
        window = windows.window_of(texts, lambda texts: [text[:8].encode() for text in texts])
        return windows.joined(window, dict.fromkeys(window.ids, 0.5) | {window.ids[0]: 0.6}, None, None)

    return Work([encoded(texts)], joined)


def scores_with_passages(size: int) -> Work:
    texts = [f"{number} " + "x" * (size // 1024) for number in range(1024)]
    results = [
        {"index": number, "relevance_score": number / 1025, "document": {"text": text}}
        for number, text in enumerate(texts)
    ]
    answer = encoded({"results": results})
    return Work([answer], lambda: reranker.decode(answer, len(texts)))


def vectors(size: int) -> Work:
    count = size // 8192
    data = [{"index": each, "embedding": [(each + at + 1) / 7919 for at in range(384)]} for each in range(count)]
    answer = encoded({"data": data})
    return Work([answer], lambda: embedder.decode(answer, count, "m", 384))


def lines_apart(size: int) -> Work:
    head, body = b'{"index":["a","b"],"preference":"x"}', b'{"query":{"match":{"title":"x"}}}'
    count = min(size // len(head + body), 1000)
    content = multi_search_lines.join_lines([(head, body)] * count)
    return Work([head, body] * count, lambda: multi_search_lines.split(content))


NAMES: Mapping[str, str] = {
    "names": "logs-1,",
    "patterns": "*logs*,",
    "one long name": "logs",
    "dates": "<logs-{now/d}>,",
    "open braces": ":{",
    "braces": ":{}",
    "closed braces": "}{",
    "remote": "eu:logs*,",
    "escapes": "%7B%2A",
}


def named_indices(name: str, size: int) -> Work:
    expression = NAMES[name] * (min(size, INDEX_NAMES_BYTES) // len(NAMES[name]))
    routes = build_routes(Config(routes=(RouteSettings(index=["products*", "eu:*shop"], passage=["title"]),)))

    def run() -> None:
        names = requested_names(expression)
        may_concern(routes, names)
        cover(routes, [], names)
        is_plain(names)

    return Work([encoded(expression)], run)


def many_indices(size: int) -> Work:
    """Which route covers them, of several; as after the names of a search have been resolved."""
    settings = tuple(RouteSettings(index=f"products-{number}*", passage=["title"]) for number in range(5))
    routes = build_routes(Config(routes=settings))
    answer = {"indices": repeated(size, lambda number: {"name": f"logs-{number}"})}
    reached = read_resolution(answer)
    return Work([encoded(answer)], lambda: cover(routes, reached, ["*"]))


def capabilities(size: int) -> Work:
    kinds: dict[str, Any] = {f"n{number}": {"nested": {}} for number in range(size // 100)}
    fields: dict[str, Any] = {f"{name}.v{field}": {"dense_vector": {}} for name in kinds for field in range(2)}
    answer = {"fields": {**kinds, **fields}}
    return Work([encoded(answer)], lambda: read_field_caps(answer))


def lines_of_one_kind(size: int) -> Work:
    head = encoded({"index": MANY["texts"](size)})
    content = multi_search_lines.join_lines([(head, b"{}")])
    return Work([head], lambda: multi_search_lines.split(content))


def parts(size: int) -> Work:
    part = {"took": 1, "hits": {"hits": [{"_id": "1", "_source": {"a": 1}}]}}
    answer = encoded({"took": 1, "responses": repeated(size, lambda _: part)})

    def apart_and_together() -> bytes:
        found = multi_search_lines.responses(answer)
        return multi_search_lines.join_responses(found, multi_search_lines.took(answer), Form(), keeps_empty=True)

    return Work([answer], apart_and_together)


def source_filter(patterns: Sequence[str]) -> Work:
    said = SourceFilter(includes=tuple(patterns), excludes=tuple(patterns))
    paths = ("title", "description.text", "attributes.colour.name", "embedding", "embedding_hash")
    return Work([encoded([patterns, patterns])], lambda: (said.without(paths), said.shows(paths)))


def source_names(size: int) -> Work:
    return source_filter(MANY["texts"](size))


def source_wildcards(size: int) -> Work:
    return source_filter([f"*{number}*a*" + "b" * (size // 200) for number in range(SOURCE_PATTERNS)])


def aggregations_of(asked: Any) -> Work:
    raw = msgspec.Raw(encoded(asked))
    result = encoded({name: {"buckets": [{"key": "a", "doc_count": 1}]} for name in asked})
    counted = {name: msgspec.Raw(b'{"buckets":[]}') for name in list(asked)[::2]}
    return Work([bytes(raw), result], lambda: (facets_of({"aggs": raw}), merged(msgspec.Raw(result), counted)))


def aggregations(size: int) -> Work:
    return aggregations_of({f"a{number}": {"terms": {"field": "brand"}} for number in range(size // 100)})


def aggregations_with_scores(size: int) -> Work:
    return aggregations_of({f"a{number}": {"top_hits": {"sort": "my_score"}} for number in range(size // 100)})


def pipelines_of_aggregations(size: int) -> Work:
    chain = {f"a{n}": {"max_bucket": {"buckets_path": f"a{n + 1}>x"}} for n in range(size // 130)}
    return aggregations_of({"a0": {"top_hits": {}}, **chain})


def a_long_aggregation(size: int) -> Work:
    return aggregations_of({"a": {"filter": {"terms": {"brand": ["my_score" * 10] * (size // 90)}}}})


def published_nodes(size: int) -> Work:
    nodes = {f"n{number}": {"http": {"publish_address": f"10.0.0.1:{number}"}} for number in range(size // 50)}
    answer = encoded({"nodes": nodes})
    return Work([answer], lambda: published_as(answer, "proxy.example:80"))


def outcomes(size: int) -> Work:
    headers = [bypassed(Bypass("unknown_parameter")).header] * min(size // 40, 1000)
    return Work([encoded([header.decode() for header in headers])], lambda: in_order(headers))


def long_headers(size: int) -> Work:
    value = "x" * (size // 10)
    callers = CallerIdentities()
    fields = [(b"x-opaque-id", value.encode())] + [(b"x-tenant-%d" % number, value.encode()) for number in range(9)]
    return Work([encoded([value] * 10)], lambda: (callers.identity(fields), carried(fields)))


def options_of_a_connection(size: int) -> Work:
    """Each names a header that is meant for the proxy only."""
    lines = b"".join(b"Connection: a%d\r\n" % number for number in range(min(size // 36, HEAD_LINES // 2)))
    raw = b"GET / HTTP/1.1\r\n" + lines + b"\r\n"

    def run() -> None:
        head = read_request_head(raw)
        carried(head.fields)
        HeadWriter().request(head, b"engine", b"", ())

    return Work([encoded(raw.decode())], run)


def steering_headers(size: int) -> Work:
    name, value = b"X-Rerank-" + b"windo" * (size // 10), b"x" * (size // 2)
    fields = [(name, value)]
    return Work([encoded([name.decode(), value.decode()])], lambda: read_steering(fields, None, OPTIONS))


def records(size: int) -> Work:
    """One for each item of a multi-search, with the id of all of them."""
    fields = [(b"host", b"a"), (b"x-opaque-id", b"x" * size)]

    def run() -> None:
        request = record_of(fields)
        for _ in range(1000):
            request.search()

    return Work([encoded("x" * size)], run)


def log_lines(size: int) -> Work:
    text = "\x1b[2J\u202e" * (size // 8)
    outcome = Outcome("degraded", ("rerank",), "malformed", text)
    search = SearchRecord(text, route="products", query_text=text)
    return Work([encoded([text, text, text])], lambda: telemetry.log_search(search, outcome, query_text=True))


SENT = 2000
REDACTED = (
    "a",
    "a@",
    "a.",
    "@",
    "4",
    "4444 ",
    "4444-",
    "4 ",
    "1-",
    "+1 ",
    "00 ",
    "(222) ",
    "222-222-",
    "tel 1 ",
    "3400 ",
)
"""Texts, repeated, that begin what is redacted again and again."""
_REDACTION = redaction(Redact(kinds=("email", "card", "phone"), patterns=(r"[A-Z0-9]{40}x", r"\b\d{9}")))


def redacted(text: str, size: int) -> Work:
    """What is longer than the models receive is cut first."""
    whole = text * (size // len(text))
    return Work([encoded(whole)], lambda: _REDACTION.cut(whole, SENT))


OTHERS: Mapping[str, Case] = {
    each.__name__: each
    for each in (
        scores,
        scores_with_passages,
        aggregations,
        aggregations_with_scores,
        pipelines_of_aggregations,
        a_long_aggregation,
        cached_scores,
        long_windows,
        vectors,
        lines_apart,
        lines_of_one_kind,
        many_indices,
        capabilities,
        parts,
        source_names,
        source_wildcards,
        published_nodes,
        outcomes,
        long_headers,
        steering_headers,
        options_of_a_connection,
        records,
        log_lines,
        endless_marks,
        clauses_beside_a_long_text,
    )
}


def of_each(act: Callable[[str, int], Work], names: Sequence[str] | Mapping[str, Any]) -> Iterator[tuple[str, Case]]:
    for name in names:
        yield f"{act.__name__}: {name}", lambda size, name=name: act(name, size)  # type: ignore[misc]


CASES: Mapping[str, Case] = {
    **dict(of_each(parsed, MANY)),
    **dict(of_each(without_steering, MANY)),
    **dict(of_each(widened, MANY)),
    **dict(of_each(blanked, MANY)),
    **dict(of_each(parsed_url, URLS)),
    **dict(of_each(named_indices, NAMES)),
    **dict(of_each(steered, ("members", "a long text", "levels"))),
    **dict(of_each(read_query, QUERIES)),
    **{
        f"cut: {name}, {path}": lambda size, name=name, path=path: cut(name, path, size)  # type: ignore[misc]
        for name in CUT
        for path in PATHS
    },
    **dict(of_each(made_pretty, RESPONSES)),
    **dict(of_each(opened, READ)),
    **dict(of_each(closed, READ)),
    **dict(of_each(passages, READ)),
    **dict(of_each(deep_passages, NESTED)),
    **dict(of_each(redacted, REDACTED)),
    **dict(of_each(unmarked, MARKUP)),
    **dict(of_each(second_passages, LONG)),
    **dict(of_each(cut_to_tokens, TOKENS)),
    **dict(of_each(spelled, MARKS)),
    **OTHERS,
}


@pytest.fixture(scope="module", autouse=True)
def _log_to_nowhere() -> Iterator[None]:
    before = structlog.get_config()
    descriptor = os.open(os.devnull, os.O_WRONLY)
    writer = telemetry.configure(Log(format="console"), descriptor)
    yield
    structlog.configure(**before)
    if writer is not None:
        writer.close()
    os.close(descriptor)


@pytest.fixture
def _alone() -> Iterator[None]:
    """Let no collection look at what earlier tests have left: it would cost whatever is measured here."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_processing_an_input_costs_a_few_times_its_decoding(name: str, size: int) -> None:
    work = CASES[name](size)
    rounds = []
    for _ in range(ROUNDS):  # one after the other, so that both see the same machine
        measure = min(spent(lambda: decode_and_encode(work.texts)) for _ in range(3))
        cost, most = spent(work.run), FACTOR * measure + spent(lambda: sum(number for number in range(FLOOR)))
        if cost <= most:
            return
        rounds.append(f"{cost * 1000:.1f} ms instead of {most * 1000:.1f}")
    pytest.fail(", ".join(rounds))
