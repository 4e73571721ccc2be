"""What is asked, straight and through the proxy."""

import itertools
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.bench.measuring import Asked, Figure, Side, by_turns, critical_paths, middle, per_second

ROUTED, PLAIN, SINK = "bench-routed", "bench-plain", "bench-sink"
WINDOW = 50
_WORDS = ("laptop", "phone", "camera", "headphones", "video", "sound", "travel", "office", "children", "box")
_NDJSON = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Bench:
    """The two sides, and how thoroughly they are compared."""

    engine: str
    proxy: str
    pairs: int


def _search(index: str, words: str, **more: Any) -> Asked:
    query = {"multi_match": {"query": words, "fields": ["title^2", "description"]}}
    return Asked("POST", f"/{index}/_search", json.dumps({"query": query} | more).encode())


_OWN_SCORES = {"min_score": 1e-6}
"""Depends on the scores of the client's own query, so that kNN is skipped."""
_FACETS = {
    "aggs": {"brands": {"terms": {"field": "brand"}}, "prices": {"histogram": {"field": "price", "interval": 250}}}
}
_ADDED: Sequence[tuple[str, bool, dict[str, Any]]] = (
    ("0: the reranker alone", False, _OWN_SCORES | _FACETS),
    ("1: boosts", True, _OWN_SCORES | _FACETS),
    ("2: kNN, its documents", False, {}),
    ("2: kNN, its documents and facets", False, _FACETS),
    ("3: kNN, its documents, boosts", True, {}),
    ("3: kNN, its documents and facets, boosts", True, _FACETS),
)
"""Searches that the proxy adds: how many, which, whether the query has boosts, and more of its body."""


def _boosted(words: str, **more: Any) -> Asked:
    matching = {"multi_match": {"query": words, "fields": ["title^2", "description"]}}
    boost = {"field": "price", "modifier": "log1p"}
    query = {"function_score": {"query": matching, "field_value_factor": boost}}
    return Asked("POST", f"/{ROUTED}/_search", json.dumps({"query": query} | more).encode())


_WARMING_UP = 2


async def _cpu_of_added(straight: Side, through: Side, queries: Sequence[str]) -> AsyncIterator[Figure]:
    """Compare the engine's CPU time of a reranked search with that of the client's own search alone."""
    engine, rounds = await straight.process(), []
    for _ in range(_WARMING_UP + 3):  # in rounds over all of them, because the engine becomes faster as it runs
        spent: list[list[float]] = []
        for _, is_boosted, more in _ADDED:
            make = _boosted if is_boosted else partial(_search, ROUTED)
            asked = [make(words, **more) for words in queries]
            spent.append([await side.cpu_milliseconds(engine, asked) for side in (straight, through)])
        rounds.append(spent)
    for place, (added, _, _) in enumerate(_ADDED):
        own, made = (middle([spent[place][side] for spent in rounds[_WARMING_UP:]]) for side in (0, 1))
        yield Figure("the engine's CPU", f"searches added: {added}", "ms", own, made, len(queries))


def _queries(count: int) -> Sequence[str]:
    """Make different ones, so that none is asked for twice."""
    pairs = itertools.permutations(_WORDS, 3)
    return [" ".join(words) for words in itertools.islice(pairs, count)]


def _bulk(lines: int) -> Asked:
    text = "a product that is described at some length " * 20
    body = "".join(f'{{"index":{{"_id":"{n}"}}}}\n{{"title":"{text}"}}\n' for n in range(lines))
    return Asked("POST", f"/{SINK}/_bulk", body.encode(), _NDJSON)


async def figures(bench: Bench) -> AsyncIterator[Figure]:
    """Measure one case after the other."""
    straight, through = await Side.of(bench.engine), await Side.of(bench.proxy)
    pairs, few = bench.pairs, max(bench.pairs // 10, 3)
    queries = _queries(pairs)
    compared: list[tuple[str, str, Sequence[Asked]]] = [
        ("a document", "GET /index/_doc/id", [Asked("GET", f"/{PLAIN}/_doc/{n}") for n in range(pairs)]),
        ("a bulk load", "POST /_bulk of 1 MB", [_bulk(1000)] * few),
        ("a large answer", "5000 hits", [_search(PLAIN, "box", size=5000)] * few),
        ("a search of no route", "size 10", [_search(PLAIN, words) for words in queries]),
        ("a bypassed search", "sorted by price", [_search(ROUTED, words, sort=["price"]) for words in queries]),
        ("a far page", "from 1000, after the first page", [_search(ROUTED, "box", **{"from": 1000})] * pairs),
    ]
    await through.ask(_search(ROUTED, "box"))
    for name, meaning, asked in compared:
        await by_turns(straight, through, asked[:few])  # caches and code are warm
        own, made = await by_turns(straight, through, asked)
        yield Figure(name, meaning, "ms", middle(own), middle(made), len(asked))
    waited, took = await critical_paths(through, [_search(ROUTED, words) for words in queries])
    meaning = f"window {WINDOW}; against its engine and model calls alone"
    yield Figure("a reranked search", meaning, "ms", middle(waited), middle(took), len(took))
    async for figure in _cpu_of_added(straight, through, queries[: max(pairs // 3, 3)]):
        yield figure
    one = Asked("GET", f"/{PLAIN}/_doc/1")
    counts = [await per_second(url, one, connections=16, seconds=3) for url in (bench.engine, bench.proxy)]
    yield Figure("documents at once", "16 connections", "requests/s", counts[0], counts[1], 1)
    straight.close()
    through.close()
