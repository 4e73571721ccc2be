"""`filter_path` cuts here what the engine itself cuts, and it is written as the engine writes it, byte for byte.

What was indexed has spaces and numbers that the engine writes in its own way, under `pretty` as under `filter_path`.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from proxy.parsing.filter_path import read_form
from tests.integration.conftest import Load, OpenIndex
from tests.integration.engines import EVERYWHERE, RealEngine
from tests.integration.sending import Request, send, send_now

pytestmark = [pytest.mark.engine, EVERYWHERE]

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
hits.hits._source.price|-hits.hits._source.a|**.**._id|hits.**|-hits.**|hits.hits.**,-**.a|h**|*its.*its|-hits.hits
-**.a.*|hits.hits._source.*,-**.title|-hits.hits.**.b|hits,-hits.hits|-hits.hits.*.title|-hits.hits._source.a.b|,
**.took|**.hits|-**.hits|-**.took|**.hits.hits|**.**.took|**.hits.total|**.*|hits.**.hits|-hits.**.hits|-**.**.hits|**.b.*
-**.**|**.hits.**|hits.hits.**.b|**.a.**|-**.a.**"""
ODD = rb"""{"title": "Laptop \u00e9 \/ \ud83d\ude00 \u0001 <&>", "a": {"b": 1e5, "c" : 1.0, "d": 1.50, "e": -0.0,
 "f": 1E-7, "g": 123456789012345678901234567890, "h": 0.1234567890123456789, "i": 2e-3, "j": 1e22, "k": 5.6E-14,
 "l": 9223372036854775807, "m": [ ], "n": { }, "o": [ 1 , 2 ], "p": null, "\u0041": true, "q": 2E23}}"""


@pytest.fixture(scope="module")
def index(engine_url: str, load: Load) -> Iterator[str]:
    send_now(engine_url, Request("DELETE", f"/{INDEX}"))
    properties = {"title": {"type": "text"}, "brand": {"type": "keyword"}, "a": {"type": "object", "enabled": False}}
    settings = {"settings": {"number_of_shards": 1, "number_of_replicas": 0}, "mappings": {"properties": properties}}
    load(INDEX, settings, DOCUMENTS)
    send_now(engine_url, Request("PUT", f"/{INDEX}/_doc/odd?refresh=true", ODD))
    yield INDEX
    send_now(engine_url, Request("DELETE", f"/{INDEX}"))


def searched(engine_url: str, index: str, parameters: str) -> bytes:
    """The engine's answer, without the time it took."""
    reply = send_now(engine_url, Request("POST", f"/{index}/_search?{parameters}", json.dumps(BODY).encode()))
    assert 200 == reply.status
    return re.sub(rb'"took"( ?: ?)\d+', rb'"took"\g<1>0', reply.body)


@pytest.mark.parametrize("said", PATHS.replace("\n", "|").split("|"))
@pytest.mark.parametrize("pretty", ["false", "true"])
def test_filter_path_selects_what_the_engine_selects(
    real_engine: RealEngine, index: str, said: str, pretty: str
) -> None:
    parameters = [("filter_path", said), ("pretty", pretty)]
    form = read_form(parameters)
    whole = searched(real_engine.url, index, urlencode(form.asked(parameters)))
    expected = searched(real_engine.url, index, urlencode(parameters))
    assert expected == form.write(whole, keeps_empty=real_engine.is_elasticsearch)


FORMS = ["", "pretty", "filter_path=**.hits", "filter_path=-**._score", "filter_path=-**.v&pretty"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("endpoint", ["_search", "_msearch"])
async def test_hits_of_a_reranked_search_are_written_as_the_engine_writes_them(
    open_index: OpenIndex, form: str, endpoint: str
) -> None:
    settings = {"mappings": {"properties": {"title": {"type": "text"}, "a": {"type": "object", "enabled": False}}}}
    sides = await open_index(settings, {"1": {"title": "Phone"}}, semantic=None)
    await send(sides.straight.url, Request("PUT", f"/{sides.straight.index}/_doc/odd?refresh=true", ODD))
    body = b'{"query":{"match":{"title":"laptop"}}}\n'
    asked = Request(
        "POST", f"/{sides.straight.index}/{endpoint}?{form}", b"{}\n" + body if endpoint == "_msearch" else body
    )
    straight, through = await send(sides.straight.url, asked), await send(sides.through.url, asked)
    assert "reranked" == through.outcome
    assert _unscored(straight.body) == _unscored(through.body)


def _unscored(body: bytes) -> bytes:
    """Without what the ranking says anew, and the time it took."""
    return re.sub(rb'("took"|"_score"|"max_score")( ?: ?)[0-9.]+', rb"\1\2", body)
