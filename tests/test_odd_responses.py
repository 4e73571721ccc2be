"""Whatever is odd in one member of an engine's response, the client gets hits in some order, and never an error."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest

from proxy.settings.config import Config
from tests.conftest import QUERY, Log, StartProxy
from tests.fakes import FakeEngine, Message, Stream, answer

Path = tuple[str | int, ...]
_GONE = object()
ODD: tuple[Any, ...] = (_GONE, None, True, -1, 10**30, "x", [], [None], {"x": {}})
"""What takes the place of a member, or its absence."""
SORTED = {"sort": [{"brand": "asc"}, "_score"]}
SEARCHES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "plain": ("", {}),
    "sorted": ("", SORTED),
    "sorted by the score": ("", {"sort": ["_score", {"brand": "asc"}]}),
    "collapsed": ("", {"collapse": {"field": "brand"}}),
    "aggregated": ("?typed_keys=true", {"aggs": {"brands": {"terms": {"field": "brand"}}}}),
    "page of the head": ("", {"from": 1, "size": 2}),
    "page after the head": ("", {"from": 20, "size": 2}),
    "sorted page after the head": ("", {"from": 20, "size": 2, **SORTED}),
    "collapsed page after the head": ("", {"from": 20, "size": 2, "collapse": {"field": "brand"}}),
    "not counted": ("", {"track_total_hits": False}),
    "total as a number": ("?rest_total_hits_as_int=true", {}),
    "filtered": ("?filter_path=hits.hits._id,hits.total", {}),
    "pretty": ("?pretty", {}),
    "walk": ("", {"sort": ["_score", {"brand": "asc"}], "search_after": [1.5, "y"]}),
}
KINDS = ("lexical", "semantic", "render", "passages", "boosts", "facets")


def full(said: Any) -> Any:
    """Add the members that a response to a sorted and collapsed search has."""
    for place, hit in enumerate(said["hits"]["hits"]):
        brand = "xy"[place % 2]
        more = {"_routing": "r", "sort": [brand, hit["_score"]], "fields": {"brand": [brand]}, "_explanation": {}}
        hit.update(more)
    return said


def paths_in(value: Any, path: Path = ()) -> Iterator[Path]:
    """Return the place of each member, and of each item of an array."""
    yield path
    if isinstance(value, dict | list):
        for name, each in value.items() if isinstance(value, dict) else enumerate(value[:1]):
            yield from paths_in(each, (*path, name))


def put(value: Any, path: Path, odd: Any) -> Any:
    """Put something else in a place."""
    if not path:
        return odd if odd is not _GONE else {}
    changed: Any = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and odd is _GONE:
        del changed[path[0]]
    else:
        changed[path[0]] = put(changed[path[0]], path[1:], odd)
    return changed


def answers(engine: FakeEngine, change: Callable[[Any], Any]) -> Any:
    async def fault(stream: Stream, request: Message) -> bytes:
        said = change(full(Message(b"", engine.usual(request).partition(b"\r\n\r\n")[2]).json()))
        return answer(200, json.dumps(said).encode())

    return fault


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "lexical") for name in SEARCHES),
        *((name, kind) for name in ("sorted", "collapsed", "aggregated") for kind in KINDS[1:]),
    ],
)
async def test_no_member_of_a_response_leads_to_an_error(
    name: str, kind: str, start_proxy: StartProxy, settings: Config, engine: FakeEngine, log: Log
) -> None:
    """It is reranked, or in the engine's order with a reason; nothing was unforeseen."""
    parameters, more = SEARCHES[name]
    client = await start_proxy(settings)
    seen: list[Any] = []
    for other in KINDS:
        engine.faults[other] = answers(engine, lambda said: said)

    def remembered(said: Any) -> Any:
        seen.append(said)
        return said

    engine.faults[kind] = answers(engine, remembered)
    await client.search(f"/products/_search{parameters}", {**QUERY, **more, "stats": ["first"]})
    wrong = []
    for number, (path, odd) in enumerate(itertools.product(list(paths_in(seen[0])) if seen else [], ODD)):
        engine.faults[kind] = answers(engine, partial(put_if_there, path=path, odd=odd))
        log.clear()
        answered = await client.search(f"/products/_search{parameters}", {**QUERY, **more, "stats": [str(number)]})
        told = [event for event in log if event["event"] == "internal_error"]
        if answered.status != 200 or told:
            wrong.append((path, odd, answered.status, answered.header("x-rerank"), answered.body[:200]))
    assert [] == wrong


def put_if_there(said: Any, path: Path, odd: Any) -> Any:
    try:
        return put(said, path, odd)
    except (KeyError, IndexError):
        return said
