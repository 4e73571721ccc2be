"""Vectors for documents that are in an index already, and current ones while feeds go on writing.

A full write of a document drops its vector, a partial one leaves that of the old text: so what a vector was made
of stands beside it as a hash, and what no longer agrees is done again. A document that changes meanwhile is left
to the next round (`if_seq_no`).
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from elasticsearch import AsyncElasticsearch

from proxy.loading.index import Action, Outcome, bulk, reason_of, written
from proxy.loading.passages import Passage, embed, passage_of
from proxy.loading.progress import Shown
from proxy.loading.target import BUSY, ask_engine
from proxy.mappings import Embedding
from proxy.upstream.embedder import Embedder

_PAGE = 200
_BATCH = 64
_KEEP_ALIVE = "5m"

Shard = tuple[str, str, str]
"""An index's name, its own id (a new index of the same name has another), and the shard's number."""
Marks = Mapping[Shard, int]
"""How far each shard was written: all operations up to this sequence number are on all its copies."""


@dataclass(slots=True)
class Filled:
    """What a round found and did."""

    seen: int = 0
    current: int = 0
    """Documents whose vector is that of their text, before or by this round."""
    embedded: int = 0
    without_text: int = 0
    changed: int = 0
    """Documents that changed while they were embedded: the next round's."""
    refused: int = 0
    put_off: bool = False
    """Some were refused because the engine was busy, so they are worth another try."""

    @property
    def share(self) -> float:
        """Share of the documents with text that have a current vector."""
        with_text = self.seen - self.without_text
        return self.current / with_text if with_text else 1.0


def since(seen: Marks, now: Marks) -> Mapping[str, int]:
    """Say of each index that was written to from which sequence number on it is to be read; -1 is all of it."""
    lowest: dict[str, int] = {}
    for shard in now:
        before = seen.get(shard, -1)
        lowest[shard[0]] = min(before, lowest.get(shard[0], before))
    written_to = {shard[0] for shard, mark in now.items() if mark != seen.get(shard)}
    return {name: start for name, start in lowest.items() if name in written_to}


def written_since(starts: Mapping[str, int]) -> Mapping[str, Any]:
    """Spell the documents written after these sequence numbers as a query."""
    clauses = [
        {"bool": {"filter": [{"term": {"_index": name}}, {"range": {"_seq_no": {"gt": start}}}]}}
        if start >= 0
        else {"term": {"_index": name}}
        for name, start in starts.items()
    ]
    return {"bool": {"should": clauses, "minimum_should_match": 1}}


@dataclass(frozen=True, slots=True)
class Judged:
    """A document, its text, and whether its vector is that of this text; without a text it should have none."""

    hit: Mapping[str, Any]
    passage: Passage | None
    current: bool


def judge(hit: Mapping[str, Any], embedding: Embedding) -> Judged:
    """Hold the hash beside a document's vector against its text."""
    source = hit.get("_source", {})
    passage = passage_of(source, embedding)
    return Judged(hit, passage, source.get(embedding.hash_field) == (passage.hash if passage else None))


class Pace:
    """Spaces work out, so that no more than `rate` units a second are done."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._next = time.monotonic()

    def parts(self, documents: Sequence[Judged]) -> Iterator[Sequence[Judged]]:
        """Cut into what is done at once: a second's worth, where a second has less than a batch."""
        size = min(_BATCH, math.ceil(self._rate)) if self._rate else _BATCH
        for start in range(0, len(documents), size):
            yield documents[start : start + size]

    async def spend(self, units: int) -> None:
        """Wait until it is time for these."""
        if self._rate:
            now = time.monotonic()
            self._next = max(self._next, now) + units / self._rate
            await asyncio.sleep(max(0.0, self._next - units / self._rate - now))


@dataclass(frozen=True, slots=True)
class Backfill:
    """An index and what keeps its vectors current."""

    client: AsyncElasticsearch
    embedder: Embedder
    index: str
    embedding: Embedding
    pace: Pace

    async def round(self, shown: Shown, filled: Filled, starts: Mapping[str, int]) -> None:
        """Go once through the documents written after these sequence numbers, noting in `filled`.

        Raises CannotLoad.
        """
        async with aclosing(self._pages(written_since(starts), shown)) as pages:
            async for page in pages:
                judged = [judge(hit, self.embedding) for hit in page]
                stale = [document for document in judged if not document.current]
                filled.seen += len(page) - len(stale)
                filled.without_text += sum(document.passage is None for document in judged if document.current)
                filled.current += sum(document.passage is not None for document in judged if document.current)
                for batch in self.pace.parts(stale):
                    await self.pace.spend(len(batch))
                    await self._write(batch, shown, filled)
                    filled.seen += len(batch)
                    filled.without_text += sum(document.passage is None for document in batch)
                    shown.show(filled.seen, filled.seen)
                shown.show(filled.seen, filled.seen)

    async def _pages(self, query: Mapping[str, Any], shown: Shown) -> AsyncGenerator[Sequence[Mapping[str, Any]]]:
        """Read documents in the order they lie in, over a point in time."""
        opened = await ask_engine(lambda: self.client.open_point_in_time(index=self.index, keep_alive=_KEEP_ALIVE))
        pit, after = opened["id"], None
        try:
            while True:
                answer = await self._page(query, pit, after)
                hits, pit = answer["hits"]["hits"], answer["pit_id"]
                if after is None:
                    shown.of(answer["hits"]["total"]["value"])
                if not hits:
                    return
                yield hits
                after = hits[-1]["sort"]
        finally:
            await ask_engine(lambda: self.client.options(ignore_status=404).close_point_in_time(id=pit))

    async def _page(self, query: Mapping[str, Any], pit: str, after: Sequence[Any] | None) -> Any:
        """Read one page; all are counted with the first."""
        return await ask_engine(
            lambda: self.client.search(
                pit={"id": pit, "keep_alive": _KEEP_ALIVE},
                query=query,
                sort=["_shard_doc"],
                size=_PAGE,
                search_after=after,
                seq_no_primary_term=True,
                track_total_hits=after is None,
                allow_partial_search_results=False,
                source_includes=[*self.embedding.passage, self.embedding.hash_field],
            )
        )

    async def _write(self, stale: Sequence[Judged], shown: Shown, filled: Filled) -> None:
        """Embed documents and write their vectors, where they are still as they were read."""
        texts = {document.passage.hash: document.passage.text for document in stale if document.passage}
        vectors = await embed(self.embedder, list(texts.values()), self.embedding.model, self.embedding.dimensions)
        by_hash = dict(zip(texts, written(vectors), strict=True))
        with_text = {(document.hit["_index"], document.hit["_id"]) for document in stale if document.passage}
        async for ok, outcome in bulk(self.client, _each([self._action(document, by_hash) for document in stale])):
            if not ok:
                _note_refusal(filled, shown, outcome)
            elif (outcome["_index"], outcome["_id"]) in with_text:
                filled.current += 1
                filled.embedded += 1

    def _action(self, document: Judged, vectors: Mapping[str, Sequence[float]]) -> Action:
        hit, passage, own = document.hit, document.passage, self.embedding
        vector = vectors[passage.hash] if passage else None
        return {
            "_op_type": "update",
            "_index": hit["_index"],
            "_id": hit["_id"],
            "if_seq_no": hit["_seq_no"],
            "if_primary_term": hit["_primary_term"],
            "doc": {own.field: vector, own.hash_field: passage.hash if passage else None},
        } | ({"routing": hit["_routing"]} if "_routing" in hit else {})


def _note_refusal(filled: Filled, shown: Shown, outcome: Outcome) -> None:
    match outcome["status"]:
        case 409:
            filled.changed += 1
        case 404:  # deleted meanwhile
            pass
        case status:
            filled.refused += 1
            filled.put_off |= status in BUSY
            shown.say(f"document {outcome.get('_id')}: {reason_of(outcome)}")


async def marks(client: AsyncElasticsearch, index: str) -> Marks:
    """Read how far each shard was written, and let searches see all of it; raises CannotLoad.

    The checkpoint and not the highest number: below that there may be operations that are still on their way.
    """
    stats = await ask_engine(lambda: client.indices.stats(index=index, metric="docs", level="shards"))
    found = {
        (name, entry["uuid"], number): max(copy["seq_no"]["global_checkpoint"] for copy in copies)
        for name, entry in stats["indices"].items()
        for number, copies in entry["shards"].items()
    }
    await ask_engine(lambda: client.indices.refresh(index=index))
    return found


async def _each(actions: Sequence[Action]) -> AsyncIterator[Action]:
    for action in actions:
        yield action
