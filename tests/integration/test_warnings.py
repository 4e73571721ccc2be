"""The client gets the engine's Warning headers as without the proxy: the same text, line and column."""

from uuid import uuid4

import pytest

from tests.integration.conftest import Open, Sides
from tests.integration.engines import ELASTICSEARCH, EVERYWHERE
from tests.integration.sending import JSON, Reply, Request, send

pytestmark = [pytest.mark.engine, EVERYWHERE]

OLD_SCRIPT = (
    b'{"function_score": {"query": {"match": {"title": "laptop"}}, "script_score": {"script": {"inline": "1"}}}}'
)
OLD_SOURCE = b'"_source": {"include": ["title", "brand"], "exclude": ["brand"]}'
WORDS = b'"query": {"match": {"title": "laptop"}}'


def warned(reply: Reply) -> list[str]:
    return sorted(value for name, value in reply.fields if name.lower() == "warning")


async def told(sides: Sides, path: str, body: bytes) -> tuple[list[str], list[str]]:
    """What the same request is warned of on either side; OpenSearch warns of a thing once for each `X-Opaque-Id`."""
    straight, through = [
        await send(side.url, Request("POST", f"/{side.index}/{path}", body, {**JSON, "X-Opaque-Id": uuid4().hex}))
        for side in (sides.straight, sides.through)
    ]
    assert (200, 200, True) == (straight.status, through.status, "reranked" in through.outcome), through.outcome
    return warned(straight), warned(through)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{" + WORDS + b",\n " + OLD_SOURCE + b"}", id="the old names of `_source`"),
        pytest.param(b'{"query": ' + OLD_SCRIPT + b"}", id="a script"),
        pytest.param(
            '{"size": 3, "from": 1,\n  "_source": ["title",\n "ü€"], "query":\t'.encode() + OLD_SCRIPT + b"}",
            id="a script behind what is said anew",
        ),
    ],
)
async def test_a_reranked_search_has_the_engines_warnings(open_sides: Open, body: bytes) -> None:
    straight, through = await told(await open_sides(), "_search", body)
    assert straight
    assert straight == through


@ELASTICSEARCH
async def test_a_page_beyond_the_window_has_the_engines_warnings(open_sides: Open) -> None:
    """On OpenSearch they are those of the search for the window."""
    body = b'{"from": 40, "size": 3, "_source": false, "query": ' + OLD_SCRIPT + b"}"
    straight, through = await told(await open_sides(rank_window_size=5), "_search", body)
    assert straight
    assert straight == through


async def test_a_multi_search_has_the_warnings_of_all_its_items(open_sides: Open) -> None:
    """Each warning once, whether its item was reranked or not."""
    sides = await open_sides()
    searches = [
        b"{" + WORDS + b"}",
        b"{" + WORDS + b", " + OLD_SOURCE + b"}",
        b'{"size": 2, "query": ' + OLD_SCRIPT + b"}",
        b'{"size": 0, "query": ' + OLD_SCRIPT + b"}",
        b'{"sort": ["brand"], "_source": {"exclude": "a"}, ' + WORDS + b"}",
    ]
    straight, through = await told(sides, "_msearch", b"".join(b"{}\n" + search + b"\n" for search in searches))
    assert straight
    assert straight == through
