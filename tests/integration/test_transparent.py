"""Everything but searches of routes is the engine's own, byte for byte, in both directions."""

import gzip
import json
import re
from dataclasses import replace

import pytest

from tests.integration.comparing import assert_handed_on, comparable, without_outcome
from tests.integration.conftest import Open, Shop, Start, route
from tests.integration.engines import EVERYWHERE, RealEngine
from tests.integration.sending import JSON, Reply, Request, send

pytestmark = [pytest.mark.engine, EVERYWHERE]

QUERY = b'{"query":{"match":{"title":"laptop"}}}'
NDJSON = {"Content-Type": "application/x-ndjson"}
CBOR = bytes.fromhex("a16471756572 79a1696d617463685f616c6ca0".replace(" ", ""))
"""{"query":{"match_all":{}}}"""


def get(target: str, **headers: str) -> Request:
    return Request("GET", target, headers={name.replace("_", "-"): value for name, value in headers.items()})


def post(target: str, body: bytes, **headers: str) -> Request:
    return Request("POST", target, body, {name.replace("_", "-"): value for name, value in headers.items()} or JSON)


READS: dict[str, Request] = {
    # the cluster
    "root": get("/"),
    "root pretty": get("/?pretty"),
    "head of the root": Request("HEAD", "/", headers={}),
    "options": Request("OPTIONS", "/{i}", headers={}),
    "unknown method": Request("PATCH", "/{i}", headers={}),
    "no such endpoint": get("/_nosuch"),
    "wrong method": Request("DELETE", "/_search", headers={}),
    "unknown parameter": get("/?nosuch=1"),
    "cat as text": get("/_cat/count/{i}?h=count"),
    "cat as JSON": get("/_cat/count/{i}?h=count&format=json"),
    "cat as YAML": get("/_cat/count/{i}?h=count&format=yaml"),
    "cat with a header line": get("/_cat/indices/{i}?v&h=index,pri,rep,docs.count"),
    "repeated parameter": get("/_cat/count/{i}?h=count&h=count"),
    "empty parameter": get("/_cat/count/{i}?h=count&&v="),
    # an index and its documents
    "mapping": get("/{i}/_mapping"),
    "mapping flattened": get("/{i}/_settings?flat_settings=true&filter_path=**.number_of_shards"),
    "head of an index": Request("HEAD", "/{i}", headers={}),
    "head of no index": Request("HEAD", "/{i}-missing", headers={}),
    "document": get("/{i}/_doc/p00"),
    "document pretty": get("/{i}/_doc/p00?pretty"),
    "document in YAML": get("/{i}/_doc/p00", Accept="application/yaml"),
    "document in CBOR": get("/{i}/_doc/p00", Accept="application/cbor"),
    "document in SMILE": get("/{i}/_doc/p00", Accept="application/smile"),
    "document by media type 8": get("/{i}/_doc/p00", Accept="application/vnd.elasticsearch+json;compatible-with=8"),
    "document by media type 7": get("/{i}/_doc/p00", Accept="application/vnd.elasticsearch+json;compatible-with=7"),
    "unacceptable": get("/{i}/_doc/p00", Accept="image/png"),
    "missing document": get("/{i}/_doc/none"),
    "head of a document": Request("HEAD", "/{i}/_doc/p00", headers={}),
    "head of no document": Request("HEAD", "/{i}/_doc/none", headers={}),
    "source only": get("/{i}/_source/p00?_source_includes=title"),
    "id with a slash": get("/{i}/_doc/a%2Fb"),
    "id in UTF-8": get("/{i}/_doc/%C3%BC%E2%82%AC"),
    "id with a percent sign": get("/{i}/_doc/100%25"),
    "id with a plus": get("/{i}/_doc/a+b%20c"),
    "bad escape": get("/{i}/_doc/%zz"),
    "slash in the index": get("/{i}%2F_search"),
    "double slash": get("//{i}//_doc//p00"),
    "slash at the end": get("/{i}/_doc/p00/"),
    "dots in the path": get("/{i}/_doc/../_doc/p00"),
    "date math": get("/%3C{i}%3E/_doc/p00"),
    "date math missing": get("/%3C{i}-%7Bnow%2Fd%7D%3E/_mapping"),
    "gzip": get("/{i}/_doc/p00", Accept_Encoding="gzip"),
    "gzip and deflate": get("/{i}/_mapping", Accept_Encoding="gzip, deflate;q=0.5"),
    "opaque id": get("/{i}/_doc/p00", X_Opaque_Id="mine-1"),
    "traceparent": get("/{i}/_doc/p00", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    "unused credentials": get("/{i}/_doc/p00", Authorization="Basic dTpw"),
    "mget": post("/{i}/_mget", b'{"ids":["p00","none"]}'),
    "get with a body": Request("GET", "/{i}/_mget", b'{"ids":["p00"]}'),
    "duplicate key": post("/{i}/_count", b'{"query":{"match_all":{}},"query":{"match_all":{}}}'),
    "trailing junk": post("/{i}/_count", b'{"query":{"match_all":{}}}]'),
    "wrong type": post("/{i}/_count", b'{"query":[]}'),
    "not JSON": post("/{i}/_count", b"<query/>"),
    "no content type": Request("POST", "/{i}/_count", b"{}", {}),
    "wrong content type": post("/{i}/_count", b"{}", Content_Type="text/csv"),
    "body in CBOR": post("/{i}/_count", CBOR, Content_Type="application/cbor"),
    "body in YAML": post("/{i}/_count", b"query:\n  match_all: {}\n", Content_Type="application/yaml"),
    "body in gzip": post("/{i}/_count", gzip.compress(QUERY), Content_Type="application/json", Content_Encoding="gzip"),
    "broken gzip": post("/{i}/_count", b"\x1f\x8bno", Content_Type="application/json", Content_Encoding="gzip"),
    "chunked body": Request("POST", "/{i}/_count", QUERY, JSON, chunked=True),
    # searches that no route covers
    "search": post("/{i}/_search", QUERY),
    "search pretty": post("/{i}/_search?pretty&human", QUERY),
    "search in YAML": post("/{i}/_search", QUERY, Content_Type="application/json", Accept="application/yaml"),
    "search by GET with a body": Request("GET", "/{i}/_search", QUERY),
    "search by q": get("/{i}/_search?q=laptop&size=2"),
    "search with gzip": post("/{i}/_search", QUERY, Content_Type="application/json", Accept_Encoding="gzip"),
    "search in chunks": Request("POST", "/{i}/_search", QUERY, JSON, chunked=True),
    "search with source": get("/{i}/_search?source=%7B%22size%22%3A1%7D&source_content_type=application/json"),
    "search refused": post("/{i}/_search", b'{"query":{"nosuch":{}}}'),
    "search of no index": post("/{i}-missing/_search", QUERY),
    "search of nothing by pattern": post("/{i}-missing*/_search", QUERY),
    "search as int": post("/{i}/_search?rest_total_hits_as_int=true", QUERY),
    "filter_path": post("/{i}/_search?filter_path=hits.hits._id,-took", QUERY),
    "msearch": post("/{i}/_msearch", b"{}\n" + QUERY + b"\n{}\n{}\n", **NDJSON),
    "msearch refused": post("/{i}/_msearch", b"{}\n" + QUERY, **NDJSON),
    "msearch with a bad item": post("/{i}/_msearch", b'{}\n{"query":{"nosuch":{}}}\n{}\n{"size":0}\n', **NDJSON),
    "validate": post("/{i}/_validate/query?explain=true", QUERY),
    "analyze": post("/{i}/_analyze", b'{"field":"title","text":"Two laptops"}'),
    "explain": post("/{i}/_explain/p00", QUERY),
    "field_caps": get("/{i}/_field_caps?fields=title,price"),
    "resolve": get("/_resolve/index/{i}"),
    "termvectors": get("/{i}/_termvectors/p00?fields=title"),
}


async def _both(straight: str, through: str, request: Request) -> tuple[Reply, Reply]:
    return await send(straight, request), await send(through, request)


@pytest.mark.parametrize("request_", READS.values(), ids=READS)
async def test_reads_get_the_engines_response(request_: Request, engine_url: str, shop: Shop, start: Start) -> None:
    """The same with and without the proxy, with a route for other indices."""
    asked = replace(request_, target=request_.target.replace("{i}", shop.plain))
    straight, through = await _both(engine_url, await start(route(shop.index)), asked)
    assert comparable(straight) == comparable(through)


@pytest.mark.parametrize("request_", READS.values(), ids=READS)
async def test_other_requests_within_a_route_get_the_engines_response(
    request_: Request, real_engine: RealEngine, shop: Shop, start: Start
) -> None:
    """A bypassed search differs by two headers."""
    asked = replace(request_, target=request_.target.replace("{i}", shop.index))
    straight, through = await _both(real_engine.url, await start(route(shop.index, **real_engine.of_route)), asked)
    if "reranked" in through.outcome:
        assert straight.status == through.status
        assert _items_not_reranked(straight, through.outcome) == _items_not_reranked(through, through.outcome)
        return
    own = {"x-rerank", "server-timing"}
    bare = replace(through, fields=[(name, value) for name, value in through.fields if name.lower() not in own])
    assert comparable(straight) == comparable(bare)
    assert (through.outcome == "") or request_.target.partition("?")[0].endswith(("/_search", "/_msearch"))


def _items_not_reranked(reply: Reply, outcome: str) -> list[object]:
    """Of several searches, the answers to those that the outcome of each does not call reranked."""
    items = [item | {"took": 0} for item in reply.json.get("responses", [])]
    return [item for item, ended in zip(items, outcome.split(", "), strict=bool(items)) if ended != "reranked"]


def _lines(*lines: object) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


BULK = _lines({"index": {"_id": "1"}}, {"n": 1.10}, {"delete": {"_id": "9"}}, {"create": {"_id": "1"}}, {"n": 2})
WRITES: list[Request] = [
    Request("PUT", "/{i}", b'{"settings":{"number_of_shards":1,"number_of_replicas":0}}'),
    Request("PUT", "/{i}", b"{}"),
    Request("PUT", "/{i}/_doc/a%2Fb", b'{"n":1e5,"s":"\\u00fc"}'),
    Request("PUT", "/{i}/_doc/a%2Fb?if_seq_no=7&if_primary_term=1", b"{}"),
    Request("PUT", "/{i}/_doc/%C3%BC?refresh", b'{"n":0.1000}'),
    Request("PUT", "/{i}/_create/%C3%BC", b"{}"),
    Request("POST", "/{i}/_bulk?refresh=true", BULK, NDJSON),
    Request("POST", "/{i}/_bulk", BULK[:-1], NDJSON),
    Request("POST", "/{i}/_bulk", gzip.compress(BULK), NDJSON | {"Content-Encoding": "gzip"}),
    Request("POST", "/{i}/_bulk", BULK * 200, NDJSON, chunked=True),
    Request("POST", "/{i}/_update/1?refresh", b'{"doc":{"n":3}}'),
    Request("GET", "/{i}/_doc/a%2Fb", headers={}),
    Request("POST", "/{i}/_search", b'{"sort":["n"]}'),
    Request("POST", "/{i}/_delete_by_query?refresh", b'{"query":{"match_all":{}}}'),
    Request("POST", "/{i}/_refresh", headers={}),
    Request("DELETE", "/{i}/_doc/none", headers={}),
    Request("DELETE", "/{i}", headers={}),
    Request("DELETE", "/{i}", headers={}),
]
_VARYING = re.compile(rb'("took"\s*:\s*|"index_uuid"\s*:\s*)(?:\d+|"[^"]*")|(?<=i/)[\w-]{22}')


async def test_writes_get_the_engines_response(engine_url: str, index_name: str, start: Start) -> None:
    """One sequence of writes has the same responses with and without the proxy."""
    proxy = await start(route("shop-elsewhere"))
    for request in WRITES:
        answers = []
        for url, index in ((engine_url, f"{index_name}-s"), (proxy, f"{index_name}-t")):
            reply = await send(url, replace(request, target=request.target.replace("{i}", index)))
            fields = [(name, value.replace(index, "i")) for name, value in reply.fields]
            content = _VARYING.sub(rb"\g<1>", reply.content.replace(index.encode(), b"i"))
            answers.append(comparable(Reply(reply.status, reply.reason, fields, content)))
        assert (request.target, answers[0]) == (request.target, answers[1])


BYPASSED: dict[str, tuple[str, bytes]] = {
    "sort": ("sort", b'{"query":{"match":{"title":"laptop"}},"sort":["price"]}'),
    "size 0": ("size_zero", b'{"query":{"match":{"title":"laptop"}},"size":0}'),
    "no words": ("no_query_text", b'{"query":{"term":{"brand":"acme"}}}'),
    "match_all": ("no_query_text", b'{"query":{"match_all":{}}}'),
    "no query": ("no_query_text", b"{}"),
    "own vector": (
        "no_query_text",
        b'{"knn":{"field":"embedding","query_vector":[1,0,0,0,0,0,0,1],"k":2,"num_candidates":9}}',
    ),
    "own kNN without k": (
        "knn",
        b'{"query":{"match":{"title":"laptop"}},"knn":{"field":"embedding","query_vector":[1,0,0,0,0,0,0,1]}}',
    ),
    "many inner hits": (
        "collapse",
        (
            b'{"query":{"match":{"title":"laptop"}},"collapse":{"field":"brand","inner_hits":'
            b'[{"name":"a"},{"name":"b"},{"name":"c"},{"name":"d"},{"name":"e"}]}}'
        ),
    ),
    "rescore": (
        "rescore",
        b'{"query":{"match":{"title":"laptop"}},"from":995,"rescore":{"query":{"rescore_query":{"match_all":{}}}}}',
    ),
    "terminate_after": ("terminate_after", b'{"query":{"match":{"title":"laptop"}},"terminate_after":1}'),
    "search_after": ("search_after", b'{"query":{"match":{"title":"laptop"}},"search_after":[1],"sort":["price"]}'),
    "slice": ("slice", b'{"query":{"match":{"title":"laptop"}},"slice":{"id":0,"max":2}}'),
    "compound retriever": (
        "retriever",
        (
            b'{"retriever":{"rrf":{"retrievers":[{"standard":{"query":{"match":{"title":"laptop"}}}},'
            b'{"standard":{"query":{"match":{"description":"laptop"}}}}]}}}'
        ),
    ),
    "unknown section": ("ext", b'{"query":{"match":{"title":"laptop"}},"ext":{"foo":{}}}'),
    "stored source": ("stored_fields", b'{"query":{"match":{"title":"laptop"}},"stored_fields":["_source"]}'),
}


@pytest.mark.parametrize(("reason", "body"), BYPASSED.values(), ids=BYPASSED)
async def test_bypassed_searches_get_the_engines_response_with_the_reason(
    reason: str, body: bytes, engine_url: str, shop: Shop, start: Start
) -> None:
    """In a header."""
    straight, through = await _both(
        engine_url, await start(route(shop.index)), Request("POST", f"/{shop.index}/_search", body)
    )
    bare = without_outcome(through)
    assert (f"bypassed;reason={reason}", comparable(straight)) == (through.outcome, comparable(bare))


RERANKED = {
    "collapse": b'{"query":{"match":{"title":"laptop"}},"collapse":{"field":"brand"}}',
    "min_score": b'{"query":{"match":{"title":"laptop"}},"min_score":0.5}',
    "explain": b'{"query":{"match":{"title":"laptop"}},"explain":true}',
    "rescore": b'{"query":{"match":{"title":"laptop"}},"rescore":{"query":{"rescore_query":{"match_all":{}}}}}',
    "sort values": b'{"query":{"match":{"title":"laptop"}},"sort":["_score",{"price":"asc"}]}',
    "a second level": b'{"query":{"match":{"title":"laptop"}},"collapse":{"field":"brand","inner_hits":'
    b'{"name":"more","collapse":{"field":"category"}}}}',
    "own kNN beside words": b'{"query":{"match":{"title":"laptop"}},'
    b'"knn":{"field":"embedding","query_vector":[1,0,0,0,0,0,0,1],"k":2,"num_candidates":9}}',
    "standard retriever": b'{"retriever":{"standard":{"query":{"match":{"title":"laptop"}}}}}',
}


@pytest.mark.parametrize("body", RERANKED.values(), ids=RERANKED)
async def test_options_that_change_only_scores_or_groups_are_reranked(body: bytes, open_sides: Open) -> None:
    """Each hit keeps its format."""
    sides = await open_sides()
    straight, through = await sides.straight.search(body, "size=50"), await sides.through.search(body, "size=50")
    if straight.status != 200:
        assert_handed_on(straight, through)
        return
    assert "reranked" == through.outcome.partition(";")[0]
    forms = {hit["_id"]: hit.keys() for hit in straight.hits}
    assert [] == [hit["_id"] for hit in through.hits if hit["_id"] in forms and hit.keys() != forms[hit["_id"]]]
    assert straight.json.keys() == through.json.keys()


async def test_an_unreachable_engine_is_a_502_in_its_format(start: Start) -> None:
    """For searches of a route and for anything else."""
    url = await start(route("shop"), engine={"url": "http://127.0.0.1:9"})
    for request in (get("/_cat/indices"), post("/shop/_search", QUERY), Request("PUT", "/shop/_doc/1", b"{}")):
        reply = await send(url, request)
        error = reply.json
        assert (502, 502, {"type", "reason", "root_cause"}) == (reply.status, error["status"], error["error"].keys())
