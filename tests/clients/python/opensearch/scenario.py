"""OpenSearch's own client as synchronous programs use it, with the DSL it contains."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opensearchpy import (
    Document,
    Keyword,
    MultiSearch,
    OpenSearch,
    Q,
    RequestsHttpConnection,
    Search,
    Text,
    TransportError,
    helpers,
)
from opensearchpy.exceptions import ConnectionTimeout

from tests.clients.python.sides import Bench, Scenario, Side, demand, equal, headers, main, plain, reranked, same

LAPTOP = {"match": {"title": "laptop"}}
TWO_WORDS = {"multi_match": {"query": "laptop for video editing", "fields": ["title^2", "description"]}}


@contextmanager
def client_of(side: Side, **options: Any) -> Iterator[OpenSearch]:
    with OpenSearch(side.url, **options) as client:
        yield client


def error_of(call: Callable[[], Any]) -> Any:
    """Tell what a call raised, as a program sees it."""
    try:
        return ["no error", plain(call())]
    except TransportError as error:
        return [type(error).__name__, error.status_code, error.error, error.info]


def answer_of(client: OpenSearch, method: str, path: str, body: bytes | None = None) -> Any:
    """Send by the client's own connection, which tells of headers, too."""
    status, fields, content = client.transport.get_connection().perform_request(method, path, body=body)
    return status, fields, content


def pairs(hits: Any) -> list[Any]:
    return [[hit["_id"], hit["_source"]] for hit in hits]


def product(side: Side) -> Any:
    """The engine presents itself, with its own headers and no other's."""
    with client_of(side) as client:
        status, fields, _ = answer_of(client, "GET", "/")
        demand("x-elastic-product" not in headers(fields), f"{fields}")
        return [client.info(), client.ping(), status, headers(fields)]


def life_of_an_index(side: Side) -> Any:
    with client_of(side) as client:
        properties = {"title": {"type": "text"}, "n": {"type": "integer"}}
        body = {"settings": {"number_of_shards": 1}, "mappings": {"properties": properties}}
        seen = [client.indices.create(index=side.fresh, body=body), client.indices.exists(index=side.fresh)]
        seen += [client.indices.put_mapping(body={"properties": {"tag": {"type": "keyword"}}}, index=side.fresh)]
        seen += [client.indices.get_mapping(index=side.fresh), client.indices.refresh(index=side.fresh)]
        seen += [client.indices.analyze(index=side.fresh, body={"field": "title", "text": "Two Words"})]
        return [*seen, client.indices.delete(index=side.fresh), client.indices.exists(index=side.fresh)]


def life_of_a_document(side: Side) -> Any:
    with client_of(side) as client:
        seen = [client.index(index=side.fresh, id="1", body={"n": 1, "ü": "ß/ %"}, refresh=True)]
        seen += [client.create(index=side.fresh, id="a/b c", body={"n": 2}, refresh="wait_for")]
        seen += [client.get(index=side.fresh, id="a/b c"), client.mget(body={"ids": ["1", "no"]}, index=side.fresh)]
        seen += [client.update(index=side.fresh, id="1", body={"doc": {"n": 3}})]
        seen += [client.exists(index=side.fresh, id="none"), client.get_source(index=side.fresh, id="1")]
        seen += [client.delete(index=side.fresh, id="1", refresh=True), client.count(index=side.fresh)]
        return [*seen, client.delete_by_query(index=side.fresh, body={"query": {"match_all": {}}})["deleted"]]


def _actions(side: Side, count: int = 250) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {"_index": side.fresh, "_id": str(number), "n": number, "text": f"number {number} " * 20}


def bulk(side: Side) -> Any:
    with client_of(side) as client:
        seen: list[Any] = [helpers.bulk(client, _actions(side), chunk_size=60, refresh=True)]
        bad = [{"_index": side.fresh, "_id": "bad", "n": "no number"}, {"_index": side.fresh, "_id": "good", "n": 1}]
        seen += [helpers.bulk(client, bad, raise_on_error=False, refresh=True)]
        try:
            helpers.bulk(client, bad)
        except helpers.BulkIndexError as error:
            seen += [error.errors]
        return [*seen, client.count(index=side.fresh)]


def streaming_bulk(side: Side) -> Any:
    with client_of(side) as client:
        told = list(helpers.streaming_bulk(client, _actions(side), chunk_size=50, max_chunk_bytes=20_000))
        client.indices.refresh(index=side.fresh)
        return [sorted([ok, item["index"]["_id"]] for ok, item in told), client.count(index=side.fresh)]


def parallel_bulk(side: Side) -> Any:
    with client_of(side, http_compress=True) as client:
        client.indices.create(index=side.fresh)
        told = list(helpers.parallel_bulk(client, _actions(side), chunk_size=20, thread_count=4))
        client.indices.refresh(index=side.fresh)
        return [sorted([ok, item["index"]["_id"]] for ok, item in told), client.count(index=side.fresh)]


def reindex(side: Side) -> Any:
    with client_of(side) as client:
        done = helpers.reindex(client, side.index, side.fresh, query={"query": LAPTOP})
        client.indices.refresh(index=side.fresh)
        return [done, client.count(index=side.fresh)]


def searches(side: Side) -> Any:
    with client_of(side, opaque_id="client-7") as client:
        index, shown = side.index, {"size": 3, "_source": ["title"], "highlight": {"fields": {"title": {}}}}
        seen = [client.search(index=index, body={"query": LAPTOP, **shown})]
        seen += [client.search(index=index, q="title:laptop AND brand:acme", size=2, df="title")]
        seen += [client.search(index="no-such-index", body={"query": LAPTOP}, ignore=404)]
        seen += [client.search(index=index, body={"query": TWO_WORDS, "sort": [{"price": "desc"}]})]
        seen += [client.search(index=index, body={"query": LAPTOP, "collapse": {"field": "brand"}}, explain=True)]
        facets = {"brands": {"terms": {"field": "brand"}, "aggs": {"price": {"avg": {"field": "price"}}}}}
        seen += [client.search(index=index, body={"size": 0, "aggs": facets}, typed_keys=True)]
        seen += [client.search(index=index, body={"query": LAPTOP}, filter_path="hits.hits._id,hits.total")]
        seen += [client.field_caps(index=index, fields="*"), client.cat.indices(index=index, h="index,docs.count")]
        return seen


def multi_search(side: Side) -> Any:
    with client_of(side) as client:
        good, bad = {"query": LAPTOP, "size": 2}, {"query": {"match": {"price": "no number"}}}
        items = [{}, good, {"index": side.index}, bad, {"index": "no-such-index"}, good]
        return client.msearch(body=items, index=side.index)


def scan(side: Side) -> Any:
    with client_of(side) as client:
        hits = list(helpers.scan(client, index=side.index, query={"query": TWO_WORDS}, size=7))
        by_score = helpers.scan(client, index=side.index, query={"query": LAPTOP}, size=3, preserve_order=True)
        return [sorted(pairs(hits)), list(by_score)]


def search_after(side: Side) -> Any:
    """Pages of a point in time by a cursor are those of the engine."""
    with client_of(side) as client:
        opened = client.create_pit(index=side.index, params={"keep_alive": "1m"})["pit_id"]
        sort = [{"_score": "desc"}, {"title.exact": "asc"}]
        body: dict[str, Any] = {"query": TWO_WORDS, "sort": sort, "size": 5, "pit": {"id": opened}}
        hits: list[Any] = []
        while page := client.search(body=body)["hits"]["hits"]:
            hits += page
            body["search_after"] = page[-1]["sort"]
        return [hits, client.delete_pit(body={"pit_id": [opened]})["pits"][0]["successful"]]


def errors(side: Side) -> Any:
    """The same classes are raised, with the same status and body."""
    with client_of(side) as client:
        client.create(index=side.fresh, id="1", body={"n": 1}, refresh=True)
        return [
            error_of(lambda: client.get(index=side.fresh, id="none")),
            error_of(lambda: client.get(index="no-such-index", id="1")),
            error_of(lambda: client.create(index=side.fresh, id="1", body={"n": 2})),
            error_of(lambda: client.index(index=side.fresh, id="2", body={"n": "no number"})),
            error_of(lambda: client.indices.create(index=side.fresh)),
            error_of(lambda: client.search(index=side.index, body={"query": {"no_such_query": {}}})),
            error_of(lambda: client.search(index=side.index, body={"query": LAPTOP, "from": 20_000})),
            error_of(lambda: client.search(index="no-such-index", body={"query": LAPTOP})),
            error_of(lambda: client.search(index=side.index, body={"query": LAPTOP, "nonsense": 1})),
            error_of(lambda: client.http.get("/_no/such/endpoint")),
            error_of(lambda: client.http.post(f"/{side.index}", body={})),
        ]


def raw_answers(side: Side) -> Any:
    """The headers of an answer, compressed or not, by both HTTP libraries."""
    seen = []
    for options in ({}, {"http_compress": True}, {"connection_class": RequestsHttpConnection}):
        with client_of(side, opaque_id="client-7", **options) as client:
            status, fields, content = answer_of(client, "GET", f"/{side.index}/_count?pretty")
            seen.append([status, headers(fields), content])
    return seen


def _with_an_old_form(client: OpenSearch, side: Side) -> Any:
    """Search in a way that the engine still takes, but calls deprecated in a header."""
    query = {"bool": {"must": LAPTOP, "mustNot": {"term": {"brand": "acme"}}}}
    return client.search(index=side.index, body={"query": query, "size": 40})


def warned(side: Side) -> Any:
    """What the engine warns of reaches the program; OpenSearch 3 warns each opaque id once."""
    with (
        client_of(side, opaque_id=f"{side.fresh}-{side.through}") as client,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        _with_an_old_form(client, side)
        return sorted(str(one.message).partition("]")[0] for one in caught)


def template(side: Side) -> Any:
    with client_of(side) as client:
        source = {"query": {"ids": {"values": ["{{id}}"]}}}
        body = {"source": source, "params": {"id": "p00"}}
        return [client.search_template(body=body, index=side.index), client.render_search_template(body=body)]


class Product(Document):
    title = Text()
    brand = Keyword()


def dsl(side: Side) -> Any:
    """Documents as classes, queries as objects, facets, several searches and a scan."""
    with client_of(side) as client:
        Product.init(index=side.fresh, using=client)
        Product(meta={"id": "1"}, title="Laptop", brand="acme").save(using=client, index=side.fresh, refresh=True)
        seen: list[Any] = [Product.get("1", using=client, index=side.fresh).to_dict(include_meta=True)]
        search = Search(using=client, index=side.index).query(Q("match", title="laptop") | Q("match", title="phone"))
        search = search.exclude("term", brand="acme").sort("-price", "title.exact")
        search.aggs.bucket("brands", "terms", field="brand")
        multi = MultiSearch(using=client).add(search[:2]).add(search[2:4])
        seen += [search[1:6].execute().to_dict(), search.count(), [each.to_dict() for each in multi.execute()]]
        return [*seen, sorted((hit.meta.id, hit.to_dict()) for hit in search.scan())]


# In the route.


def searched(side: Side) -> Any:
    with client_of(side) as client:
        return pairs(client.search(index=side.index, body={"query": LAPTOP}, size=40)["hits"]["hits"])


def searched_by_url(side: Side) -> Any:
    with client_of(side, http_compress=True) as client:
        return pairs(client.search(index=side.index, q="title:laptop", size=40)["hits"]["hits"])


def searched_by_dsl(side: Side) -> Any:
    with client_of(side) as client:
        found = Search(using=client, index=side.index).query("match", title="laptop")[:40].execute()
        return [[hit.meta.id, hit.to_dict()] for hit in found]


def searched_by_template(side: Side) -> Any:
    with client_of(side) as client:
        source = {"query": {"match": {"title": "{{words}}"}}, "size": 40}
        body = {"source": source, "params": {"words": "laptop"}}
        return pairs(client.search_template(body=body, index=side.index)["hits"]["hits"])


def searched_by_point_in_time(side: Side) -> Any:
    with client_of(side) as client:
        opened = client.create_pit(index=side.index, params={"keep_alive": "1m"})["pit_id"]
        try:
            found = client.search(body={"query": LAPTOP, "size": 40, "pit": {"id": opened}})
            return pairs(found["hits"]["hits"])
        finally:
            client.delete_pit(body={"pit_id": [opened]})


def searched_with_others(side: Side) -> Any:
    with client_of(side) as client:
        items = [{}, {"query": LAPTOP, "size": 40}, {}, {"query": {"ids": {"values": ["p00"]}}}]
        found = client.msearch(body=items, index=side.index)["responses"]
        equal(["p00"], [hit["_id"] for hit in found[1]["hits"]["hits"]])
        return pairs(found[0]["hits"]["hits"])


def paged(side: Side) -> Any:
    """Pages of three, put together, are as many as the total says."""
    with client_of(side) as client:
        found: list[Any] = []
        while True:
            answer = client.search(index=side.index, body={"query": LAPTOP}, from_=len(found), size=3)
            page = pairs(answer["hits"]["hits"])
            found += page
            if not page:
                equal(answer["hits"]["total"]["value"], len(found))
                return found


def told(bench: Bench) -> None:
    """It is said that a search was reranked, and by the old form of a clause nothing excluded comes back."""
    _, through = bench.sides(routed=True)
    with client_of(through) as client, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, fields, _ = answer_of(client, "GET", f"/{through.index}/_search?q=title:laptop")
        equal("reranked", {name.lower(): value for name, value in fields.items()}.get("x-rerank"))
        hits = _with_an_old_form(client, through)["hits"]["hits"]
        demand(len(hits) > 1, f"{hits}")
        demand(all(hit["_source"]["brand"] != "acme" for hit in hits), "what is excluded is there")


# Before engines that fail.


class _Attempts(logging.Handler):
    """Counts what the client says of its own attempts."""

    def __init__(self) -> None:
        super().__init__()
        self.failed = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.failed += "[status:2" not in record.getMessage()


@contextmanager
def attempts() -> Iterator[_Attempts]:
    handler, log = _Attempts(), logging.getLogger("opensearch")
    log.addHandler(handler)
    log.propagate = False
    try:
        yield handler
    finally:
        log.removeHandler(handler)


def retried_in_vain(bench: Bench) -> None:
    """A proxy whose engine is away answers 502, in the engine's shape, which the client repeats three times."""
    with OpenSearch(bench.away_url) as client, attempts() as counted:
        name, status, kind, body = error_of(client.info)
        equal(["TransportError", 502], [name, status])
        equal(kind, body["error"]["type"])
    equal(4, counted.failed)


def retried_until_there(bench: Bench) -> None:
    """An engine that breaks connections twice is reached by the third attempt."""
    with OpenSearch(bench.flaky_url) as client, attempts() as counted:
        equal({}, client.info())
    equal(2, counted.failed)


def timed_out(bench: Bench) -> None:
    for url in (bench.silent_engine_url, bench.silent_url):
        with OpenSearch(url, timeout=0.2, max_retries=0) as client:
            try:
                client.info()
            except ConnectionTimeout:
                continue
            demand(fulfilled=False, otherwise=f"{url} answered")


SCENARIOS: dict[str, Scenario] = {
    **{
        see.__name__: same(see)
        for see in (
            *(product, life_of_an_index, life_of_a_document, bulk, streaming_bulk, parallel_bulk, reindex, searches),
            *(multi_search, scan, search_after, errors, raw_answers, warned, template, dsl),
        )
    },
    **{
        f"{see.__name__}_in_route": same(see, routed=True)
        for see in (
            *(product, life_of_an_index, life_of_a_document, bulk, streaming_bulk, parallel_bulk, reindex),
            *(scan, search_after, errors, raw_answers, warned, template, dsl),
        )
    },
    **{
        see.__name__: reranked(see)
        for see in (
            *(searched, searched_by_url, searched_by_dsl, searched_by_template, searched_by_point_in_time),
            *(searched_with_others, paged),
        )
    },
    **{test.__name__: test for test in (told, retried_in_vain, retried_until_there, timed_out)},
}

if __name__ == "__main__":
    main(SCENARIOS)
