"""Malformed documents, as feeds write them and engines keep them: no search that finds one fails."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.conftest import Log
from tests.integration import shop as catalogue
from tests.integration.conftest import OpenIndex, Sides
from tests.integration.engines import EVERYWHERE, RealEngine
from tests.integration.sending import Reply, Request, send

pytestmark = [pytest.mark.engine, EVERYWHERE]

TOLERANT = {"title": {"type": "text"}, "description": {"type": "text"}, "odd": {"type": "object", "enabled": False}}
ODD = {
    "half an emoji": rb'{"title":"laptop","description":"so small \ud83d"}',
    "the other half": rb'{"title":"laptop","description":"\ude00 so small"}',
    "half an emoji elsewhere": rb'{"title":"laptop","odd":{"x":"\ud83d"}}',
    "a number out of range": b'{"title":"laptop","odd":{"x":1e999}}',
    "a number of 900 digits": b'{"title":"laptop","odd":{"x":%s}}' % (b"1" * 900),
    "nested deep": b'{"title":"laptop","odd":%s1%s}' % (b'{"a":' * 500, b"}" * 500),
    "control characters": rb'{"title":"laptop","description":"\u0000\u0001"}',
    "names that are dots": b'{"title":"laptop","odd":{"":1,".":2,"a.":3}}',
    "another type": b'{"title":["laptop",null,["x"]],"description":17}',
}


OpenWith = Callable[[bytes], Awaitable[Sides]]
Defects = Callable[[], list[Any]]
QUERY = {"query": {"match": {"title": "laptop"}}, "_source": {"excludes": ["embedding*"]}}


@pytest.fixture
def defects(log: Log) -> Defects:
    return lambda: [line for line in log if line["event"] == "internal_error"]


@pytest.fixture
def open_with(open_index: OpenIndex, real_engine: RealEngine) -> OpenWith:
    """Open an index with one document of the usual kind, and one as it is written."""

    async def open_with(written: bytes) -> Sides:
        index = catalogue.with_vectors(real_engine)
        index["mappings"] |= {"dynamic": False, "properties": index["mappings"]["properties"] | TOLERANT}
        sides = await open_index(index, {"usual": {**catalogue.PRODUCTS["p00"], "title": "laptop 100"}})
        path = f"/{sides.straight.index}/_doc/odd?refresh=true"
        assert 201 == (await send(sides.straight.url, Request("PUT", path, written))).status
        return sides

    return open_with


@pytest.mark.parametrize("written", ODD.values(), ids=ODD)
async def test_a_search_that_finds_a_malformed_document_is_reranked(
    *, written: bytes, open_with: OpenWith, defects: Defects
) -> None:
    """It is returned as the engine returns it, in a ranking with all stages."""
    sides = await open_with(written)
    straight, through = await sides.straight.search(QUERY), await sides.through.search(QUERY)
    assert ("reranked", []) == (through.outcome, defects())
    assert {"usual", "odd"} == set(through.ids)
    assert _source(straight) == _source(through)


def _source(reply: Reply) -> bytes:
    """The bytes of the odd document, with which its hit ends."""
    found = re.search(rb'"_id":"odd".*?"_source":(.*?)\}(,\{"_index"|\]\}\}$)', reply.content, re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("query_string", ["pretty", "filter_path=hits.hits", "filter_path=-took", "explain=true"])
async def test_malformed_documents_are_rendered_in_every_response_format(
    *, query_string: str, open_with: OpenWith, defects: Defects
) -> None:
    sides = await open_with(ODD["half an emoji"])
    straight, through = [await side.search(QUERY, query_string) for side in (sides.straight, sides.through)]
    assert ("reranked", []) == (through.outcome, defects())
    assert {hit["_id"]: hit["_source"] for hit in straight.hits} == {hit["_id"]: hit["_source"] for hit in through.hits}


async def test_malformed_documents_are_returned_by_a_multi_search(*, open_with: OpenWith, defects: Defects) -> None:
    """Also in an item that is not reranked."""
    sides = await open_with(ODD["half an emoji"])
    content = b"".join(json.dumps(each).encode() + b"\n" for each in ({}, QUERY, {}, QUERY | {"sort": ["_doc"]}))
    request = Request("POST", f"/{sides.straight.index}/_msearch", content, {"Content-Type": "application/x-ndjson"})
    straight, through = await send(sides.straight.url, request), await send(sides.through.url, request)
    assert ("reranked, bypassed;reason=sort", []) == (through.outcome, defects())
    assert _sources(straight) == _sources(through)


def _sources(reply: Reply) -> list[dict[str, Any]]:
    return [{hit["_id"]: hit["_source"] for hit in answer["hits"]["hits"]} for answer in reply.json["responses"]]
