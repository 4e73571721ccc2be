"""The engines have the recorded versions, and the abilities that the proxy's tests need."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pytest

from demo.__main__ import LACKS
from demo.engines import DEFAULT, ELASTICSEARCH_8, ELASTICSEARCH_9, OPENSEARCH_2, OPENSEARCH_3, Family, named
from tests.integration.engines import Address, running_engines, secure_engines
from tests.integration.sending import Request, send_now

pytestmark = pytest.mark.engine

ELASTICSEARCH = (ELASTICSEARCH_8.name, ELASTICSEARCH_9.name)
OPENSEARCH = (OPENSEARCH_2.name, OPENSEARCH_3.name)
WITH_KNN = (*ELASTICSEARCH, OPENSEARCH_2.name)

_DENSE = {"v": {"type": "dense_vector", "dims": 3, "index": True, "similarity": "cosine"}}
_KNN = {
    "v": {
        "type": "knn_vector",
        "dimension": 3,
        "method": {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"},
    },
}
VECTORS = {ELASTICSEARCH_8.name: _DENSE, ELASTICSEARCH_9.name: _DENSE, OPENSEARCH_2.name: _KNN, OPENSEARCH_3.name: {}}

DOCUMENTS = {
    "1": {"text": "running shoes", "tag": "red", "v": [1, 0, 0]},
    "2": {"text": "a walking shoe", "tag": "blue", "v": [0.9, 0.1, 0]},
    "3": {"text": "a coffee machine", "tag": "blue", "v": [0, 0, 1]},
}
SHOE = {"match": {"text": "shoe"}}
NEAREST = {"field": "v", "query_vector": [1, 0, 0], "k": 2, "num_candidates": 10}


@dataclass(frozen=True, slots=True)
class Filled:
    """An index with the documents, on one engine."""

    engine: str
    address: Address
    index: str

    def search(self, body: Mapping[str, Any]) -> Any:
        return self.address.do("POST", f"/{self.index}/_search", body)

    def ids(self, body: Mapping[str, Any]) -> list[str]:
        return [hit["_id"] for hit in self.search(body)["hits"]["hits"]]


@pytest.fixture(scope="module", params=list(running_engines()))
def filled(request: pytest.FixtureRequest) -> Iterator[Filled]:
    """The index, once on each engine that runs; none running is a failure, never a skip."""
    url = running_engines()[request.param]
    if not url:
        pytest.fail("no engine runs: `python -m demo.engine --engine all exec -- pytest -m engine`", pytrace=False)
    address, index = Address(url), f"engines-{uuid4().hex[:12]}"
    vectors = VECTORS[request.param]
    settings = {"index.number_of_shards": 1, **({"index.knn": True} if vectors is _KNN else {})}
    properties = {"text": {"type": "text", "analyzer": "english"}, "tag": {"type": "keyword"}, **vectors}
    address.do("PUT", f"/{index}", {"settings": settings, "mappings": {"properties": properties}})
    lines = [line for name, document in DOCUMENTS.items() for line in ({"index": {"_id": name}}, document)]
    assert not address.do("POST", f"/{index}/_bulk?refresh=true", lines)["errors"]
    yield Filled(request.param, address, index)
    address.do("DELETE", f"/{index}")


def test_each_engine_reports_its_recorded_version(filled: Filled) -> None:
    version = filled.address.do("GET", "/")["version"]
    engine = named(filled.engine)
    assert engine.version == version["number"]
    assert (engine.family == Family.OPENSEARCH) == ("distribution" in version)


def english(filled: Filled) -> None:
    assert {"1", "2"} == set(filled.ids({"query": SHOE}))


def script_score(filled: Filled) -> None:
    script = {"source": "doc['tag'].value == 'blue' ? 2 : 1"}
    assert "2" == filled.ids({"query": {"script_score": {"query": SHOE, "script": script}}})[0]


def terms_aggregation(filled: Filled) -> None:
    found = filled.search({"size": 0, "aggs": {"tags": {"terms": {"field": "tag"}}}})["aggregations"]["tags"]
    assert {"blue": 2, "red": 1} == {bucket["key"]: bucket["doc_count"] for bucket in found["buckets"]}


def highlight(filled: Filled) -> None:
    found = filled.search({"query": {"match": {"text": "coffee"}}, "highlight": {"fields": {"text": {}}}})
    assert {"text": ["a <em>coffee</em> machine"]} == found["hits"]["hits"][0]["highlight"]


def msearch(filled: Filled) -> None:
    lines = [{"index": filled.index}, {"query": SHOE}, {"index": filled.index}, {"query": {"term": {"tag": "red"}}}]
    found = filled.address.do("POST", "/_msearch", lines)
    assert [2, 1] == [len(each["hits"]["hits"]) for each in found["responses"]]


def scroll(filled: Filled) -> None:
    first = filled.address.do("POST", f"/{filled.index}/_search?scroll=1m", {"size": 2, "sort": ["_doc"]})
    second = filled.address.do("POST", "/_search/scroll", {"scroll": "1m", "scroll_id": first["_scroll_id"]})
    assert {"1", "2", "3"} == {hit["_id"] for page in (first, second) for hit in page["hits"]["hits"]}
    filled.address.do("DELETE", "/_search/scroll", {"scroll_id": first["_scroll_id"]})


def point_in_time(filled: Filled) -> None:
    path = "_pit" if filled.engine in ELASTICSEARCH else "_search/point_in_time"
    opened = filled.address.do("POST", f"/{filled.index}/{path}?keep_alive=1m")
    name = opened.get("id") or opened["pit_id"]
    assert 2 == len(filled.address.do("POST", "/_search", {"query": SHOE, "pit": {"id": name}})["hits"]["hits"])
    closing = {"id": name} if filled.engine in ELASTICSEARCH else {"pit_id": [name]}
    filled.address.do("DELETE", f"/{path}", closing)


def reindex(filled: Filled) -> None:
    copy = f"{filled.index}-copy"
    body = {"source": {"index": filled.index}, "dest": {"index": copy}}
    assert 3 == filled.address.do("POST", "/_reindex?refresh=true", body)["created"]
    filled.address.do("DELETE", f"/{copy}")


def yaml(filled: Filled) -> None:
    answer = filled.address.ask("GET", f"/{filled.index}/_count", accept="application/yaml")
    assert answer.body.startswith(b"---\ncount: 3\n")


def product(filled: Filled) -> None:
    assert "Elasticsearch" == filled.address.ask("GET", "/").headers["X-Elastic-Product"]


def top_level_knn(filled: Filled) -> None:
    assert ["1", "2"] == filled.ids({"knn": NEAREST})


def knn_query(filled: Filled) -> None:
    by_opensearch = {"v": {"vector": [1, 0, 0], "k": 2}}
    assert ["1", "2"] == filled.ids(
        {"query": {"knn": NEAREST if filled.engine in ELASTICSEARCH else by_opensearch}, "size": 2},
    )


def search_template(filled: Filled) -> None:
    body = {"source": {"query": {"match": {"text": "{{words}}"}}}, "params": {"words": "coffee"}}
    found = filled.address.do("POST", f"/{filled.index}/_search/template", body)
    assert ["3"] == [hit["_id"] for hit in found["hits"]["hits"]]


def rank_eval(filled: Filled) -> None:
    ratings = [{"_index": filled.index, "_id": "3", "rating": 1}]
    asked = {"id": "coffee", "request": {"query": {"match": {"text": "coffee"}}}, "ratings": ratings}
    body = {"requests": [asked], "metric": {"mean_reciprocal_rank": {}}}
    assert 1.0 == filled.address.do("POST", f"/{filled.index}/_rank_eval", body)["metric_score"]


def has_child(filled: Filled) -> None:
    family = f"{filled.index}-family"
    properties = {"kind": {"type": "join", "relations": {"model": "offer"}}}
    filled.address.do("PUT", f"/{family}", {"mappings": {"properties": properties}})
    filled.address.do("PUT", f"/{family}/_doc/1", {"kind": "model"})
    child = {"kind": {"name": "offer", "parent": "1"}}
    filled.address.do("PUT", f"/{family}/_doc/2?routing=1&refresh=true", child)
    query = {"has_child": {"type": "offer", "query": {"match_all": {}}}}
    assert ["1"] == filled.address.ask("POST", f"/{family}/_search", {"query": query}).ids
    filled.address.do("DELETE", f"/{family}")


def percolate(filled: Filled) -> None:
    queries = f"{filled.index}-queries"
    properties = {"query": {"type": "percolator"}, "text": {"type": "text"}}
    filled.address.do("PUT", f"/{queries}", {"mappings": {"properties": properties}})
    filled.address.do("PUT", f"/{queries}/_doc/1?refresh=true", {"query": {"match": {"text": "coffee"}}})
    query = {"percolate": {"field": "query", "document": {"text": "a coffee machine"}}}
    assert ["1"] == filled.address.ask("POST", f"/{queries}/_search", {"query": query}).ids
    filled.address.do("DELETE", f"/{queries}")


ABILITIES: Mapping[Callable[[Filled], None], tuple[str, ...]] = {
    **dict.fromkeys(
        (english, script_score, terms_aggregation, highlight, msearch, scroll, point_in_time, yaml, reindex, has_child),
        ELASTICSEARCH + OPENSEARCH,
    ),
    product: ELASTICSEARCH,
    top_level_knn: ELASTICSEARCH,
    knn_query: WITH_KNN,
    search_template: OPENSEARCH,
    rank_eval: OPENSEARCH,
    percolate: OPENSEARCH,
}
EXPECTED = [
    pytest.param(engine, ability, id=f"{engine}-{ability.__name__}")
    for engine in running_engines()
    for ability, able in ABILITIES.items()
    if engine in able
]


@pytest.mark.parametrize(("filled", "ability"), EXPECTED, indirect=["filled"])
def test_each_engine_has_the_features_that_tests_need(filled: Filled, ability: Callable[[Filled], None]) -> None:
    ability(filled)


@pytest.mark.parametrize("engine", secure_engines(), ids=lambda engine: engine.url)
def test_with_security_users_see_only_their_index(engine: Address) -> None:
    """Nobody gets in without a password, and a user of one index does not find another, not even by `*`."""
    name = f"engines-{uuid4().hex[:12]}"
    mine, other = f"{name}-mine", f"{name}-other"
    for index in (mine, other):
        engine.do("PUT", f"/{index}/_doc/{index}?refresh=true", {"text": "shoe"})
    may_read = {"indices": [{"names": [mine], "privileges": ["read"]}]}
    engine.do("PUT", f"/_security/role/{name}", may_read)
    engine.do("PUT", f"/_security/user/{name}", {"password": "a-password", "roles": [name]})
    reader = replace(engine, user=name, password="a-password")
    assert 401 == replace(engine, user=None).ask("GET", f"/{mine}/_search").status
    assert 401 == replace(reader, password="wrong").ask("GET", f"/{mine}/_search").status
    assert 403 == reader.ask("GET", f"/{other}/_search").status
    assert [mine] == reader.ask("GET", "/*/_search").ids
    for path in (f"/{mine}", f"/{other}", f"/_security/user/{name}", f"/_security/role/{name}"):
        engine.do("DELETE", path)


@pytest.mark.parametrize(
    ("said", "method", "target"),
    [
        ("asynchronous search", "POST", "/_async_search"),
        ("search templates", "POST", "/_search/template"),
        ("SQL", "POST", "/_sql"),
        ("machine learning", "GET", "/_ml/info"),
    ],
)
def test_the_demo_lists_the_features_its_engine_lacks(said: str, method: str, target: str) -> None:
    """For a path without handler, the engine says so, or takes it for an index name."""
    assert said in LACKS
    reply = send_now(running_engines()[DEFAULT.name], Request(method, target, b"{}"))
    assert reply.status in {400, 404, 405}
    assert re.search(rb"no handler found|Incorrect HTTP method|invalid_index_name|must not start with '_'", reply.body)
