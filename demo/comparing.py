"""Run the same search with and without the proxy, and compare the orders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from demo.asking import ask
from proxy.commands.evaluation.collection import Query
from proxy.commands.evaluation.measures import CUTOFF, NDCG, scores

PAGE = CUTOFF
DEPTH = 100
"""Number of hits read without the proxy, to know the old position of a product."""


@dataclass(frozen=True, slots=True)
class Shop:
    """An index, the fields that the shop searches, and the URLs with and without the proxy."""

    engine: str
    proxy: str
    index: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits in their order, with the outcome and stage times that the proxy reported, if it was used."""

    hits: Sequence[Mapping[str, Any]]
    outcome: str
    stages: Mapping[str, float]

    @property
    def ids(self) -> list[str]:
        return [hit["_id"] for hit in self.hits]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The responses to one query with and without the proxy."""

    query: Query
    straight: Answer
    through: Answer

    @property
    def gain(self) -> tuple[float, float]:
        """The nDCG@10 without and with the proxy."""
        straight, through = (_ndcg(self.query, answer.ids) for answer in (self.straight, self.through))
        return straight, through

    @property
    def reranked(self) -> bool:
        return self.through.outcome == "reranked"

    def moved(self, position: int) -> int | None:
        """Return how many places a hit of the proxy's page moved up; None if it is new."""
        name = self.through.ids[position]
        return self.straight.ids.index(name) - position if name in self.straight.ids else None


def _ndcg(query: Query, ranking: Sequence[str]) -> float:
    return scores([query], {query.id: ranking}, [NDCG])[NDCG][0]


def shop_search(text: str, fields: Sequence[str], size: int) -> dict[str, Any]:
    """The search body of a shop that uses only BM25."""
    match = {"multi_match": {"query": text, "type": "most_fields", "fields": list(fields)}}
    return {"query": match, "size": size, "_source": {"excludes": ["embedding*"]}}


def compare(shop: Shop, query: Query) -> Comparison:
    """Run a query with and without the proxy, with the proxy for one page; raises NoAnswer."""
    straight = answer(f"{shop.engine}/{shop.index}/_search", shop_search(query.text, shop.fields, DEPTH))
    through = answer(f"{shop.proxy}/{shop.index}/_search", shop_search(query.text, shop.fields, PAGE))
    return Comparison(query, straight, through)


def answer(url: str, body: Mapping[str, Any]) -> Answer:
    """Run one search; raises NoAnswer."""
    reply = ask(url, body)
    outcome = reply.headers.get("X-Rerank", "")
    return Answer(reply.body["hits"]["hits"], outcome, stage_times(reply.headers.get("Server-Timing", "")))


def stage_times(server_timing: str) -> dict[str, float]:
    """Parse a Server-Timing header (W3C) into milliseconds by stage."""
    entries = (entry.strip().partition(";dur=") for entry in server_timing.split(",") if entry.strip())
    return {name: float(milliseconds) for name, _, milliseconds in entries}


def mean_gain(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """Return the mean nDCG@10 without and with the proxy."""
    straight, through = zip(*(comparison.gain for comparison in comparisons), strict=True)
    return fmean(straight), fmean(through)
