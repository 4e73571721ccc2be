"""`filter_path` cuts here what the engine itself cuts, member by member in its order; indented, byte for byte.

Not indented, the engine writes `_source` anew, without the spaces of whoever indexed it; here it keeps its bytes.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from proxy.request.filter_path import read_filter_path
from tests.integration.conftest import Load
from tests.integration.sending import Request, send_now
from tests.strategies import compact

pytestmark = pytest.mark.engine

INDEX = "test-filter-path"
DOCUMENTS: dict[str, dict[str, Any]] = {
    "1": {"title": "Laptop", "brand": "acme", "price": 1.50, "a": {"b": {"title": "deep"}, "none": None}, "tags": []},
    "2": {"title": "Laptop sleeve", "brand": "bolt", "price": 3e2, "a": [{"b": 1}, {"c": "d"}], "more": {}},
    "3": {"title": "Laptop stand", "brand": "acme", "a": {"b": [[1, {"title": "x"}], []]}},
}
BODY = {
    "query": {"match": {"title": "laptop"}},
    "highlight": {"fields": {"title": {}}},
    "aggs": {"brand": {"terms": {"field": "brand"}}},
}
PATHS = """hits.hits|hits.hits._id|took|hits.total.value|hits.*|**._id|hits.hits._source.ti*|-hits.hits._source|-hits
-**._source|hits.hits._source.title,-hits.hits._score|h*.h*._id,took|**.title|aggregations.**.key|**|*|-**|-*|nothing
hits.hits.highlight.*|hits|hits.hits._source.a.**|*.*._id|**.hits._id|hits.**.title|hits.hits,-hits.hits._source.title
-aggregations.brand.buckets.key|took,|hits.hits._source.a.c,-**.b|_shards.*ed|**.value,**.b|-hits.hits.*|-hits.*.*
-hits.hits._source.*|**.tags|**.more|**.none|hits.hits._source.a.b.title|-**.title|-**.b|took,-took|took.deeper|a\\.b
hits.hits._source.price|-hits.hits._source.a|**.**._id|hits.**|-hits.**|hits.hits.**,-**.a|h**|*its.*its|-hits.hits"""


@pytest.fixture(scope="module")
def index(engine_url: str, load: Load) -> Iterator[str]:
    send_now(engine_url, Request("DELETE", f"/{INDEX}"))
    properties = {"title": {"type": "text"}, "brand": {"type": "keyword"}, "a": {"type": "object", "enabled": False}}
    settings = {"settings": {"number_of_shards": 1, "number_of_replicas": 0}, "mappings": {"properties": properties}}
    load(INDEX, settings, DOCUMENTS)
    yield INDEX
    send_now(engine_url, Request("DELETE", f"/{INDEX}"))


def searched(engine_url: str, index: str, parameters: str) -> bytes:
    """The engine's answer, without the time it took."""
    reply = send_now(engine_url, Request("POST", f"/{index}/_search?{parameters}", json.dumps(BODY).encode()))
    assert 200 == reply.status
    return re.sub(rb'"took"( ?: ?)\d+', rb'"took"\g<1>0', reply.body)


@pytest.mark.parametrize("said", PATHS.replace("\n", "|").split("|"))
def test_what_is_cut_here_is_what_the_engine_cuts(engine_url: str, index: str, said: str) -> None:
    whole = searched(engine_url, index, "")
    expected = searched(engine_url, index, f"filter_path={quote(said, safe='')}")
    assert compact(json.loads(expected)) == compact(json.loads(read_filter_path(said).apply(whole)))


@pytest.mark.parametrize("said", ["", "hits.hits._id", "nothing", "-hits", "**.title", "**.b"])
def test_what_is_indented_here_is_what_the_engine_indents(engine_url: str, index: str, said: str) -> None:
    whole = searched(engine_url, index, "")
    expected = searched(engine_url, index, f"pretty&filter_path={quote(said, safe='')}")
    assert expected == read_filter_path(said).write(whole, pretty=True)
