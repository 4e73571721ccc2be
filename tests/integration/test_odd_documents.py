"""Documents as feeds write them by mistake, which an engine keeps to the byte: no search that finds one suffers."""

import re

import pytest

from tests.conftest import Log
from tests.integration import shop as catalogue
from tests.integration.conftest import OpenIndex
from tests.integration.engines import EVERYWHERE, RealEngine
from tests.integration.models import ShopModels
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


@pytest.mark.parametrize("written", ODD.values(), ids=ODD)
async def test_odd_document(
    *, written: bytes, open_index: OpenIndex, real_engine: RealEngine, log: Log, models: ShopModels
) -> None:
    """It is shown as the engine shows it without vectors, in a ranking that has every stage."""
    index = catalogue.with_vectors(real_engine)
    index["mappings"] |= {"dynamic": False, "properties": index["mappings"]["properties"] | TOLERANT}
    sides = await open_index(index, {"usual": catalogue.PRODUCTS["p00"] | {"title": "laptop 100"}})
    path = f"/{sides.straight.index}/_doc/odd?refresh=true"
    assert 201 == (await send(sides.straight.url, Request("PUT", path, written))).status
    body = {"query": {"match": {"title": "laptop"}}, "_source": {"excludes": ["embedding*"]}}
    straight, through = await sides.straight.search(body), await sides.through.search(body)
    assert ("reranked", []) == (through.outcome, [line for line in log if line["event"] == "internal_error"])
    assert {"usual", "odd"} == set(through.ids)
    assert _source(straight) == _source(through)


def _source(reply: Reply) -> bytes:
    """The bytes of the odd document, with which its hit ends."""
    found = re.search(rb'"_id":"odd".*?"_source":(.*?)\}(,\{"_index"|\]\}\}$)', reply.content, re.DOTALL)
    assert found
    return found[1]
