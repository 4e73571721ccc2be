"""The proxy's additions never cause an error, and the engine's errors are relayed."""

from typing import Any

import pytest

from tests.integration import shop as catalogue
from tests.integration.conftest import Open, OpenIndex
from tests.integration.engines import EVERYWHERE, WITH_KNN, RealEngine
from tests.integration.sending import Reply

pytestmark = [pytest.mark.engine, EVERYWHERE]

QUERY = {"match": {"title": "laptop"}}
LONG = " and more" * 100
DOCUMENTS = {f"s{number}": {"title": "laptop"} for number in range(3)} | {
    f"l{number}": {"title": f"the laptop {LONG}"} for number in range(3)
}
HIGHLIGHT_LIMIT = {
    "settings": {**catalogue.SETTINGS, "highlight.max_analyzed_offset": 100},
    "mappings": {"properties": {"title": {"type": "text"}}},
}


def _but_took(reply: Reply) -> Any:
    return {key: value for key, value in reply.json.items() if key != "took"}


async def test_a_highlight_error_caused_by_the_window_resends_the_clients_request(open_index: OpenIndex) -> None:
    """A document in the window, but not on the page, is too long to be highlighted."""
    sides = await open_index(HIGHLIGHT_LIMIT, DOCUMENTS, semantic=None, rank_window_size=6)
    body = {"query": QUERY, "size": 2, "highlight": {"fields": {"title": {}}}}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert (200, 200, "bypassed;reason=engine_refused") == (straight.status, through.status, through.outcome)
    assert _but_took(straight) == _but_took(through)


async def test_a_shard_failure_caused_by_the_window_resends_the_clients_request(open_index: OpenIndex) -> None:
    """The client's own search loses no shard."""
    only_long = {"l0": DOCUMENTS["l0"]} | {f"s{number}": {"title": "laptop"} for number in range(20)}
    sides = await open_index(HIGHLIGHT_LIMIT, only_long, semantic=None, rank_window_size=30)
    body = {"query": QUERY, "size": 2, "highlight": {"fields": {"title": {}}}}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert (0, "bypassed;reason=engine_refused") == (straight.json["_shards"]["failed"], through.outcome)
    assert _but_took(straight) == _but_took(through)


@WITH_KNN
async def test_a_knn_document_that_cannot_be_highlighted_is_dropped(
    real_engine: RealEngine, open_index: OpenIndex
) -> None:
    """A long document that only kNN found; the headers report it."""
    long = {**catalogue.PRODUCTS["p04"], "title": f"notebook {LONG}"}
    settings = catalogue.with_vectors(real_engine, **{"highlight.max_analyzed_offset": 100})
    documents = {"p00": catalogue.PRODUCTS["p00"], "p08": catalogue.PRODUCTS["p08"], "long": long}
    sides = await open_index(settings, documents)
    body = {"query": QUERY, "highlight": {"fields": {"title": {}}}}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert 200 == straight.status
    assert ({"p00", "p08"}, straight.total) == (set(through.ids), through.total)
    assert through.outcome.startswith("degraded")


REFUSED: dict[str, bytes] = {
    "duplicate key": b'{"query":{"match":{"title":"laptop"}},"size":1,"size":2}',
    "trailing junk": b'{"query":{"match":{"title":"laptop"}}}}',
    "second body": b'{"query":{"match":{"title":"laptop"}}}{"size":1}',
    "cut off": b'{"query":{"match":{"title":"laptop"}}',
    "not JSON": b"laptop",
    "a list": b'[{"query":{}}]',
    "not a number": b'{"query":{"match":{"title":"laptop"}},"size":NaN}',
    "a comment": b'{"query":{"match":{"title":"laptop"}} /* all */}',
    "single quotes": b"{'query':{'match':{'title':'laptop'}}}",
    "size as text": b'{"query":{"match":{"title":"laptop"}},"size":"ten"}',
    "negative size": b'{"query":{"match":{"title":"laptop"}},"size":-1}',
    "negative from": b'{"query":{"match":{"title":"laptop"}},"from":-1}',
    "size is null": b'{"query":{"match":{"title":"laptop"}},"size":null}',
    "too deep a page": b'{"query":{"match":{"title":"laptop"}},"from":10000}',
    "unknown key": b'{"query":{"match":{"title":"laptop"}},"siez":1}',
    "unknown query": b'{"query":{"mtach":{"title":"laptop"}}}',
    "two queries": b'{"query":{"match":{"title":"laptop"},"term":{"brand":"acme"}}}',
    "query as text": b'{"query":"laptop"}',
    "empty query": b'{"query":{}}',
    "unknown option": b'{"query":{"match":{"title":{"query":"laptop","fuzzyness":1}}}}',
    "wrong option": b'{"query":{"match":{"title":{"query":"laptop","operator":"xor"}}}}',
    "two fields": b'{"query":{"match":{"title":"laptop","description":"laptop"}}}',
    "bad line": b'{"query":{"query_string":{"query":"laptop AND ("}}}',
    "bad range": b'{"query":{"bool":{"must":{"match":{"title":"laptop"}},"filter":{"range":{"price":{"lt":"x"}}}}}}',
    "bad post_filter": b'{"query":{"match":{"title":"laptop"}},"post_filter":{"trem":{}}}',
    "bad aggregation": b'{"query":{"match":{"title":"laptop"}},"aggs":{"a":{"terms":{"filed":"brand"}}}}',
    "bad script": b'{"query":{"match":{"title":"laptop"}},"script_fields":{"a":{"script":"nope("}}}',
    "bad highlight": b'{"query":{"match":{"title":"laptop"}},"highlight":{"feilds":{}}}',
    "_source as number": b'{"query":{"match":{"title":"laptop"}},"_source":3}',
    "track_total_hits as text": b'{"query":{"match":{"title":"laptop"}},"track_total_hits":"many"}',
    "not UTF-8": b'{"query":{"match":{"title":"lapt\xffp"}}}',
    "half a pair": b'{"query":{"match":{"title":"laptop \\ud800"}},"_source":false}',
    "control character": b'{"query":{"match":{"title":"lap\ntop"}},"_source":false}',
    "byte order mark": b'\xef\xbb\xbf{"query":{"match":{"title":"laptop"}},"_source":false}',
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
async def test_a_body_that_the_engine_rejects_gets_its_error(body: bytes, open_sides: Open) -> None:
    """So does one that the engine reads in its own way."""
    sides = await open_sides(semantic=None)
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert through.outcome.startswith("bypassed")
    assert (straight.status, straight.header("Content-Type")) == (through.status, through.header("Content-Type"))
    assert _same(straight) == _same(through)


def _same(reply: Reply) -> Any:
    return reply.body if reply.status != 200 else _but_took(reply)


@pytest.mark.parametrize(
    "query_string",
    [
        "size=ten",
        "size=-1",
        "from=",
        "nosuch=1",
        "q=laptop+AND+(",
        "q=a&q=b",
        "size=1&size=2",
        "track_total_hits=maybe",
        "%zz",
    ],
)
async def test_parameters_that_the_engine_rejects_get_its_error(query_string: str, open_sides: Open) -> None:
    sides = await open_sides(semantic=None)
    body = {"query": QUERY}
    straight, through = await sides.straight.search(body, query_string), await sides.through.search(body, query_string)
    assert (straight.status, _same(straight)) == (through.status, _same(through))


async def test_a_missing_index_gets_the_engines_error(open_sides: Open) -> None:
    sides = await open_sides("shop-nowhere")
    straight, through = await sides.straight.search({"query": QUERY}), await sides.through.search({"query": QUERY})
    assert (404, straight.body) == (through.status, through.body)
