"""The official client, 8 and 9, as synchronous programs use it: documents, bulk helpers, searches, pages, errors."""

import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from elastic_transport import ConnectionTimeout
from elasticsearch import ApiError, Elasticsearch, helpers

from tests.clients.python.sides import Bench, Scenario, Side, demand, equal, headers, main, plain, reranked, same

LAPTOP = {"match": {"title": "laptop"}}
TWO_WORDS = {"multi_match": {"query": "laptop for video editing", "fields": ["title^2", "description"]}}


def connect(side: Side, **options: Any) -> Elasticsearch:
    return Elasticsearch(side.url, **options)


@contextmanager
def client_of(side: Side, **options: Any) -> Iterator[Elasticsearch]:
    with connect(side, **options) as client:
        yield client


def error_of(call: Callable[[], Any]) -> Any:
    """Tell what a call raised, as a program sees it."""
    try:
        answer = call()
    except ApiError as error:
        return [type(error).__name__, error.status_code, error.message, error.body, headers(error.meta.headers)]
    return ["no error", plain(answer.body)]


def pairs(hits: Any) -> list[Any]:
    return [[hit["_id"], hit["_source"]] for hit in hits]


def product(side: Side) -> Any:
    """The product check is passed, and the engine presents itself."""
    with client_of(side) as client:
        answer = client.info()
        nodes = client.nodes.info(filter_path="nodes.*.version,nodes.*.name")
        return [answer.body, answer.meta.status, headers(answer.meta.headers), client.ping(), nodes.body]


def life_of_an_index(side: Side) -> Any:
    with client_of(side) as client:
        body = {"properties": {"title": {"type": "text"}, "n": {"type": "integer"}}}
        settings = {"number_of_shards": 1, "number_of_replicas": 0}
        seen = [client.indices.create(index=side.fresh, mappings=body, settings=settings).body]
        seen += [client.indices.exists(index=side.fresh).body, client.indices.get_mapping(index=side.fresh).body]
        added = {"tag": {"type": "keyword"}}
        seen += [client.indices.put_mapping(index=side.fresh, properties=added).body]
        seen += [client.indices.put_alias(index=side.fresh, name=f"{side.fresh}-alias").body]
        seen += [client.indices.get_alias(index=side.fresh).body, client.indices.refresh(index=side.fresh).body]
        seen += [client.indices.analyze(index=side.fresh, field="title", text="Two Words").body]
        return [*seen, client.indices.delete(index=side.fresh).body, client.indices.exists(index=side.fresh).body]


def life_of_a_document(side: Side) -> Any:
    with client_of(side) as client:
        seen = [client.index(index=side.fresh, id="1", document={"n": 1, "ü": "ß/ %"}, refresh=True).body]
        seen += [client.create(index=side.fresh, id="a/b c", document={"n": 2}, refresh="wait_for").body]
        seen += [client.get(index=side.fresh, id="a/b c").body, client.get(index=side.fresh, id="1").body]
        seen += [client.mget(index=side.fresh, ids=["1", "a/b c", "none"]).body]
        seen += [client.update(index=side.fresh, id="1", doc={"n": 3}).body]
        seen += [client.exists(index=side.fresh, id="none").body, client.get_source(index=side.fresh, id="1").body]
        seen += [client.delete(index=side.fresh, id="1", refresh=True).body, client.count(index=side.fresh).body]
        deleted = client.delete_by_query(index=side.fresh, query={"match_all": {}}, refresh=True)
        return [*seen, deleted.body, client.count(index=side.fresh).body]


def _actions(side: Side, count: int = 250) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {"_index": side.fresh, "_id": str(number), "n": number, "text": f"number {number} " * 20}


def bulk(side: Side) -> Any:
    with client_of(side) as client:
        seen: list[Any] = [helpers.bulk(client, _actions(side), chunk_size=60, refresh=True)]
        seen += [helpers.bulk(client, [{"_op_type": "delete", "_index": side.fresh, "_id": "3"}], refresh=True)]
        bad: list[dict[str, Any]] = [{"_index": side.fresh, "_id": "bad", "n": "no number"}]
        bad += [{"_index": side.fresh, "_id": "good", "n": 1}]
        seen += [helpers.bulk(client, bad, raise_on_error=False, refresh=True)]
        try:
            helpers.bulk(client, bad)
        except helpers.BulkIndexError as error:
            seen += [[str(error), error.errors]]
        return [*seen, client.count(index=side.fresh).body]


def streaming_bulk(side: Side) -> Any:
    with client_of(side) as client:
        told = list(helpers.streaming_bulk(client, _actions(side), chunk_size=50, max_chunk_bytes=20_000))
        client.indices.refresh(index=side.fresh)
        return [sorted([ok, item["index"]["_id"]] for ok, item in told), client.count(index=side.fresh).body]


def parallel_bulk(side: Side) -> Any:
    with client_of(side, http_compress=True) as client:
        client.indices.create(index=side.fresh)
        told = list(helpers.parallel_bulk(client, _actions(side), chunk_size=20, thread_count=4))
        client.indices.refresh(index=side.fresh)
        return [sorted([ok, item["index"]["_id"]] for ok, item in told), client.count(index=side.fresh).body]


def reindex(side: Side) -> Any:
    with client_of(side) as client:
        source, dest = {"index": side.index, "query": LAPTOP}, {"index": side.fresh}
        done = client.options(request_timeout=60).reindex(source=source, dest=dest, refresh=True)
        return [done["created"], done["failures"], client.count(index=side.fresh).body]


def searches(side: Side) -> Any:
    """A search by arguments, by words in the URL, by a body, and what it may bring beside hits."""
    with client_of(side) as client:
        index = side.index
        marked: dict[str, Any] = {"fields": {"title": {}}}
        seen = [client.search(index=index, query=LAPTOP, size=3, source={"includes": "title"}, highlight=marked)]
        seen += [client.search(index=index, q="title:laptop AND brand:acme", size=2, df="title")]
        seen += [client.options(ignore_status=404).search(index="no-such-index", query=LAPTOP)]
        seen += [client.search(index=index, query=TWO_WORDS, sort=[{"price": "desc"}], track_total_hits=True)]
        seen += [client.search(index=index, query=LAPTOP, collapse={"field": "brand"}, explain=True)]
        facets = {"brands": {"terms": {"field": "brand"}, "aggs": {"price": {"avg": {"field": "price"}}}}}
        seen += [client.search(index=index, size=0, aggs=facets, typed_keys=True)]
        seen += [client.search(index=index, query=LAPTOP, filter_path="hits.hits._id,hits.total")]
        seen += [client.search(index=index, suggest={"s": {"text": "laptob", "term": {"field": "title"}}})]
        seen += [client.field_caps(index=index, fields="*"), client.count(index=index, query=LAPTOP)]
        seen += [client.explain(index=index, id="p00", query=LAPTOP)]
        return [[answer.meta.status, headers(answer.meta.headers), answer.body] for answer in seen]


def multi_search(side: Side) -> Any:
    with client_of(side) as client:
        good, bad = {"query": LAPTOP, "size": 2}, {"query": {"match": {"price": "no number"}}}
        items: list[dict[str, Any]] = [{}, good, {"index": side.index}, bad, {"index": "no-such-index"}, good]
        answer = client.msearch(index=side.index, searches=items)
        unread: list[dict[str, Any]] = [{}, good, {}, {"query": {"no_such_query": {}}}]
        refused = error_of(lambda: client.msearch(index=side.index, searches=unread))
        return [headers(answer.meta.headers), answer.body, refused]


def async_search(side: Side) -> Any:
    """No engine here has it: its own refusal is told."""
    with client_of(side) as client:
        return error_of(lambda: client.async_search.submit(index=side.index, query=LAPTOP))


def template(side: Side) -> Any:
    with client_of(side) as client:
        source = '{"query":{"match":{"title":"{{words}}"}}}'
        return error_of(lambda: client.search_template(index=side.index, source=source, params={"words": "laptop"}))


def scan(side: Side) -> Any:
    """Everything is read by scroll, nothing lost and nothing twice."""
    with client_of(side) as client:
        hits = list(helpers.scan(client, index=side.index, query={"query": TWO_WORDS}, size=7))
        by_score = list(helpers.scan(client, index=side.index, query={"query": LAPTOP}, size=3, preserve_order=True))
        return [sorted(pairs(hits)), by_score]


def _hits_by_search_after(client: Elasticsearch, index: str, sort: Any, size: int) -> list[Any]:
    opened = client.open_point_in_time(index=index, keep_alive="1m")
    hits: list[Any] = []
    more: dict[str, Any] = {}
    while True:
        pit = {"id": opened["id"], "keep_alive": "1m"}
        answer = client.search(pit=pit, query=TWO_WORDS, sort=sort, size=size, **more)
        page = answer["hits"]["hits"]
        if not page:
            demand(client.close_point_in_time(id=opened["id"])["succeeded"], "the point in time is not closed")
            return hits
        hits += page
        more = {"search_after": page[-1]["sort"]}


def search_after(side: Side) -> Any:
    """Pages by a cursor, over a field and over scores with a tie-breaker, are those of the engine."""
    with client_of(side) as client:
        by_price = _hits_by_search_after(client, side.index, [{"price": "asc"}, {"_shard_doc": "asc"}], 7)
        by_score = _hits_by_search_after(client, side.index, [{"_score": "desc"}, {"title.exact": "asc"}], 5)
        return [by_price, by_score]


def _ended_scroll(client: Elasticsearch, side: Side) -> str:
    """One that was; Elasticsearch 9.4.3 ends as a whole where it is given one that never was."""
    scroll: str = client.search(index=side.index, scroll="1m", size=1)["_scroll_id"]
    client.clear_scroll(scroll_id=scroll)
    return scroll


def errors(side: Side) -> Any:
    """The same classes are raised, with the same status, message, body and headers."""
    with client_of(side) as client:
        client.create(index=side.fresh, id="1", document={"n": 1}, refresh=True)
        return [
            error_of(lambda: client.get(index=side.fresh, id="none")),
            error_of(lambda: client.get(index="no-such-index", id="1")),
            error_of(lambda: client.create(index=side.fresh, id="1", document={"n": 2})),
            error_of(lambda: client.index(index=side.fresh, id="1", document={}, if_seq_no=7, if_primary_term=1)),
            error_of(lambda: client.index(index=side.fresh, id="2", document={"n": "no number"})),
            error_of(lambda: client.indices.create(index=side.fresh)),
            error_of(lambda: client.indices.create(index="UPPER")),
            error_of(lambda: client.search(index=side.index, query={"no_such_query": {}})),
            error_of(lambda: client.search(index=side.index, query=LAPTOP, from_=20_000)),
            error_of(lambda: client.search(index="no-such-index", query=LAPTOP)),
            error_of(lambda: client.search(index=side.index, body={"query": LAPTOP, "nonsense": 1})),
            error_of(lambda: client.scroll(scroll_id=_ended_scroll(client, side)))[:2],
            error_of(lambda: client.perform_request("PATCH", f"/{side.index}", headers={"accept": "application/json"})),
            error_of(lambda: client.perform_request("GET", "/_no/such/endpoint", headers={"accept": "text/plain"})),
        ]


def opaque_id(side: Side) -> Any:
    """What a program calls itself comes back, beside the client's own description of itself."""
    with client_of(side, opaque_id="client-7", headers={"X-Custom": "1"}) as client:
        answer = client.search(index=side.index, query=LAPTOP, size=1)
        demand(answer.meta.headers["x-opaque-id"] == "client-7", f"{answer.meta.headers}")
        return [headers(answer.meta.headers), answer.body]


def compression(side: Side) -> Any:
    """Compressed both ways, a large body included; and with another HTTP library underneath."""
    seen = []
    for options in (
        {"http_compress": True},
        {"node_class": "requests"},
        {"http_compress": True, "node_class": "requests"},
    ):
        with client_of(side, **options) as client:
            answer = client.search(index=side.index, query={"bool": {"should": [LAPTOP] * 100}}, size=40)
            seen.append([headers(answer.meta.headers), answer.body])
    return seen


def _with_an_old_form(client: Elasticsearch, side: Side) -> Any:
    """Search in a way that the engine still takes, but calls deprecated in a header."""
    query = {"bool": {"must": LAPTOP, "mustNot": {"term": {"brand": "acme"}}}}
    answer = client.search(index=side.index, query=query, source={"exclude": ["reviews"]}, size=40)
    demand(all(hit["_source"]["brand"] != "acme" for hit in answer["hits"]["hits"]), "what is excluded is there")
    return answer


def warned(side: Side) -> Any:
    """What the engine warns of reaches the program as a warning."""
    with client_of(side) as client, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = _with_an_old_form(client, side)
        messages = [[type(one.message).__name__, str(one.message)] for one in caught]
        demand(any("mustNot" in text for _, text in messages), f"{messages}")
        return [messages, sorted(hit["_id"] for hit in answer["hits"]["hits"])]


def warned_once(side: Side) -> Any:
    """A search in the route is warned of once, though what is sent for it is not what the client wrote."""
    return [re.sub(r"\[\d+:\d+\]", "", text) for _, text in warned(side)[0] if "mustNot" in text]


def media_types(side: Side) -> Any:
    """Tables as text and as JSON, and lines of JSON instead of one."""
    with client_of(side) as client:
        seen: list[Any] = [client.cat.indices(index=side.index, h="index,docs.count", v=True)]
        seen += [client.cat.indices(index=side.index, h="index,docs.count", format="json")]
        for accept in ("application/json", "application/vnd.elasticsearch+json; compatible-with=8", "application/xml"):
            call = client.options(ignore_status=406)
            seen += [call.perform_request("GET", f"/{side.index}/_count", headers={"accept": accept})]
        return [[headers(answer.meta.headers), answer.body] for answer in seen]


# In the route.


def _found(side: Side, answer: Any) -> list[Any]:
    """Hits as pairs; through the proxy it must be said that they were reranked."""
    if side.through:
        told = answer.meta.headers.get("x-rerank")
        demand(told == "reranked", f"X-Rerank: {told}")
    return pairs(answer["hits"]["hits"])


def searched(side: Side) -> Any:
    with client_of(side) as client:
        return _found(side, client.search(index=side.index, query=LAPTOP, size=40))


def searched_by_url(side: Side) -> Any:
    with client_of(side, http_compress=True) as client:
        return _found(side, client.search(index=side.index, q="title:laptop", size=40))


def searched_by_point_in_time(side: Side) -> Any:
    with client_of(side) as client:
        opened = client.open_point_in_time(index=side.index, keep_alive="1m")["id"]
        try:
            return _found(side, client.search(pit={"id": opened}, query=LAPTOP, size=40))
        finally:
            client.close_point_in_time(id=opened)


def searched_with_others(side: Side) -> Any:
    with client_of(side) as client:
        item = {"query": LAPTOP, "size": 40}
        answer = client.msearch(index=side.index, searches=[{}, item, {}, {"query": {"ids": {"values": ["p00"]}}}])
        if side.through:
            told = answer.meta.headers.get("x-rerank")
            demand(told == "reranked, bypassed;reason=no_query_text", f"X-Rerank: {told}")
        demand([200, 200] == [each["status"] for each in answer["responses"]], f"{answer}")
        return pairs(answer["responses"][0]["hits"]["hits"])


def paged(side: Side) -> Any:
    """Pages of three, put together."""
    with client_of(side) as client:
        found: list[Any] = []
        while True:
            answer = client.search(index=side.index, query=LAPTOP, from_=len(found), size=3)
            page = pairs(answer["hits"]["hits"])
            found += page
            if not page:
                total = answer["hits"]["total"]["value"]
                demand(total == len(found), f"{len(found)} of {total}")
                return found


def in_an_old_form(bench: Bench) -> None:
    """What an old form of a clause excludes is excluded from kNN, too, and a field it leaves out stays out."""
    _, through = bench.sides(routed=True)
    with client_of(through) as client, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hits = _found(through, _with_an_old_form(client, through))
    demand(len(hits) > 1, f"{hits}")
    equal([], [name for name, source in hits if "reviews" in source])


def collapsed(bench: Bench) -> None:
    """Each brand once, in the model's order, with the documents the engine has in it."""
    straight, through = bench.sides(routed=True)
    seen = []
    for side in (straight, through):
        with client_of(side) as client:
            inner = {"name": "of_the_brand", "size": 40, "_source": False}
            collapse = {"field": "brand", "inner_hits": inner}
            answer = client.search(index=side.index, query=LAPTOP, collapse=collapse, size=40)
            _found(side, answer)
            seen.append(answer["hits"]["hits"])
    of_brand = [{hit["fields"]["brand"][0]: hit for hit in hits} for hits in seen]
    demand(len(of_brand[1]) == len(seen[1]), "a brand twice")
    demand(of_brand[0].keys() <= of_brand[1].keys(), "a brand is lost")
    for brand, hit in of_brand[0].items():
        equal(hit["_id"], of_brand[1][brand]["_id"], brand)
        equal(plain(hit["inner_hits"]), plain(of_brand[1][brand]["inner_hits"]), brand)


def facets_agree(bench: Bench) -> None:
    """Aggregations of a reranked search count all of its hits, and what the engine counts is in them."""
    counts = []
    for side in bench.sides(routed=True):
        with client_of(side) as client:
            facets: dict[str, Any] = {
                "brands": {"terms": {"field": "brand", "size": 40}},
                "prices": {"stats": {"field": "price"}},
            }
            answer = client.search(index=side.index, query=LAPTOP, aggs=facets, size=40)
            _found(side, answer)
        hits, facets = answer["hits"], answer["aggregations"]
        brands = {bucket["key"]: bucket["doc_count"] for bucket in facets["brands"]["buckets"]}
        equal(Counter(hit["_source"]["brand"] for hit in hits["hits"]), brands)
        equal(hits["total"]["value"], facets["prices"]["count"])
        counts.append(brands)
    straight, through = counts
    demand(all(through[brand] >= count for brand, count in straight.items()), f"{through} counts fewer than {straight}")


# Before engines that fail.


class _Attempts(logging.Handler):
    """Counts what the client says of its own attempts."""

    def __init__(self) -> None:
        super().__init__()
        self.retries = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.retries += record.getMessage().startswith("Retrying request")


@contextmanager
def attempts() -> Iterator[_Attempts]:
    handler, log = _Attempts(), logging.getLogger("elastic_transport.transport")
    log.addHandler(handler)
    try:
        yield handler
    finally:
        log.removeHandler(handler)


def retried_in_vain(bench: Bench) -> None:
    """A proxy whose engine is away answers 502, in the engine's shape, which the client repeats three times."""
    with Elasticsearch(bench.away_url, retry_on_timeout=True) as client, attempts() as counted:
        for call in (client.info, lambda: client.bulk(operations=[{"index": {"_index": "x"}}, {}])):
            name, status, kind, body, _ = error_of(call)
            equal(["ApiError", 502], [name, status])
            equal({"error", "status"}, set(body))
            equal(kind, body["error"]["type"])
    equal(6, counted.retries)


def retried_until_there(bench: Bench) -> None:
    """An engine that breaks connections twice is reached by the third attempt."""
    with Elasticsearch(bench.flaky_url) as client, attempts() as counted:
        equal({}, plain(client.info().body))
    equal(2, counted.retries)


def timed_out(bench: Bench) -> None:
    """The client's own limit ends its waiting, through the proxy as straight."""
    told = []
    for url in (bench.silent_engine_url, bench.silent_url):
        with Elasticsearch(url, request_timeout=0.2, max_retries=0) as client:
            try:
                client.info()
            except ConnectionTimeout as error:
                told.append(error.message)
    demand(len(told) == 2, f"who never answers has answered: {told}")
    equal(*told)


SCENARIOS: dict[str, Scenario] = {
    **{
        see.__name__: same(see)
        for see in (
            *(product, life_of_an_index, life_of_a_document, bulk, streaming_bulk, parallel_bulk, reindex, searches),
            *(multi_search, async_search, template, scan, search_after, errors, opaque_id, compression, warned),
            media_types,
        )
    },
    **{
        f"{see.__name__}_in_route": same(see, routed=True)
        for see in (
            *(product, life_of_an_index, life_of_a_document, bulk, streaming_bulk, parallel_bulk, async_search),
            *(template, scan, search_after, errors, warned_once, media_types),
        )
    },
    **{
        see.__name__: reranked(see)
        for see in (*(searched, searched_by_url, searched_by_point_in_time, searched_with_others, paged),)
    },
    **{
        test.__name__: test
        for test in (collapsed, facets_agree, in_an_old_form, retried_in_vain, retried_until_there, timed_out)
    },
}

if __name__ == "__main__":
    main(SCENARIOS)
