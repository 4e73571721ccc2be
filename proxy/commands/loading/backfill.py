"""Add vectors to documents that are already in an index, and keep them current while other programs write.

Indexing a document again removes its vector, and a partial update keeps the vector of the old text. Therefore a hash
of the embedded text is stored beside each vector, and documents whose hash differs are embedded again. A document that
changes during the run is not overwritten (`if_seq_no`); the next run embeds it.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from proxy.commands.loading.clients import Action, EngineApi, Outcome
from proxy.commands.loading.index import bulk, json_vectors
from proxy.commands.loading.mappings import Embedding
from proxy.commands.loading.passages import EmbedsPassages, Passage, embed, passage_of
from proxy.commands.loading.progress import ShownProgress
from proxy.commands.loading.stopping import Stopping
from proxy.commands.loading.target import BUSY, ask_engine, path_of, rejection_reason

HAS_VECTOR = "has_vector"
"""Name of the query that documents with a vector match."""
_PAGE = 200
_BATCH = 64

Shard = tuple[str, str, str]
"""Name and UUID of an index (a new index of the same name has another UUID), and the number of a shard."""
Marks = Mapping[Shard, int]
"""Global checkpoint of each shard: all copies have the operations up to this sequence number."""


@dataclass(slots=True)
class Filled:
    """Counts of one run."""

    seen: int = 0
    current: int = 0
    """Documents whose vector matches their text, before or because of this run."""
    embedded: int = 0
    without_text: int = 0
    changed: int = 0
    """Documents that changed while they were embedded; the next run embeds them."""
    refused: int = 0
    put_off: bool = False
    """Some were rejected because the engine was busy, so they should be tried again."""

    @property
    def share(self) -> float:
        """Share of the documents with text that have a current vector."""
        with_text = self.seen - self.without_text
        return self.current / with_text if with_text else 1.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """A range of operations in a shard: after one sequence number, up to another."""

    index: str
    shard: str
    after: int
    last: int

    @property
    def length(self) -> int:
        return self.last - self.after


def since(seen: Marks, now: Marks) -> Sequence[Stretch]:
    """Return what was written to each shard since `seen`; everything if the shard is new."""
    return [
        Stretch(name, number, seen.get((name, own, number), -1), mark)
        for (name, own, number), mark in now.items()
        if mark > seen.get((name, own, number), -1)
    ]


@dataclass(frozen=True, slots=True)
class Judged:
    """A document, its passage, and whether its vector is current; without text it should have none."""

    hit: Mapping[str, Any]
    passage: Passage | None
    current: bool


def judge(hit: Mapping[str, Any], embedding: Embedding) -> Judged:
    """Compare the hash beside a document's vector with its text, and check that the vector is there.

    An update of the document loses the vector alone if the mapping excludes it from `_source`.
    """
    source = hit.get("_source", {})
    passage = passage_of(source, embedding)
    same = source.get(embedding.hash_field) == (passage.hash if passage else None)
    return Judged(hit, passage, same and (passage is None or HAS_VECTOR in hit.get("matched_queries", ())))


class Pace:
    """Limits work to `rate` units per second."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._next = time.monotonic()

    def parts(self, documents: Sequence[Judged]) -> Iterator[Sequence[Judged]]:
        """Split into batches, of no more than one second's worth."""
        size = min(_BATCH, math.ceil(self._rate)) if self._rate else _BATCH
        for start in range(0, len(documents), size):
            yield documents[start : start + size]

    async def spend(self, units: int) -> None:
        """Wait until so many units may be done."""
        if self._rate:
            now = time.monotonic()
            self._next = max(self._next, now) + units / self._rate
            await asyncio.sleep(max(0.0, self._next - units / self._rate - now))


@dataclass(frozen=True, slots=True)
class Backfill:
    """One index, and what is needed to keep its vectors current."""

    client: EngineApi
    embedder: EmbedsPassages
    embedding: Embedding
    pace: Pace
    stopping: Stopping

    async def round(self, shown: ShownProgress, filled: Filled, stretches: Sequence[Stretch]) -> None:
        """Process these ranges once, counting in `filled`; raises CannotLoad."""
        passed = 0
        for stretch in stretches:
            async with aclosing(self._pages(stretch)) as pages:
                async for page, reached in pages:
                    self.stopping.raise_if_requested()
                    await self._page_done(page, shown, filled)
                    shown.show(passed + reached - stretch.after, filled.seen)
            passed += stretch.length

    async def _page_done(self, page: Sequence[Mapping[str, Any]], shown: ShownProgress, filled: Filled) -> None:
        judged = [judge(hit, self.embedding) for hit in page]
        stale = [document for document in judged if not document.current]
        filled.seen += len(page) - len(stale)
        filled.without_text += sum(document.passage is None for document in judged if document.current)
        filled.current += sum(document.passage is not None for document in judged if document.current)
        for batch in self.pace.parts(stale):
            self.stopping.raise_if_requested()
            await self.pace.spend(len(batch))
            await self.stopping.in_time(self._write(batch, shown, filled))
            filled.seen += len(batch)
            filled.without_text += sum(document.passage is None for document in batch)

    async def _pages(self, stretch: Stretch) -> AsyncGenerator[tuple[Sequence[Mapping[str, Any]], int]]:
        """Read documents in the order of their sequence numbers, with the number that was reached.

        Documents written during the run have higher numbers and belong to the next run, so no snapshot is needed.
        Each request covers a part of the range; the part doubles where it has no full page, because most of its
        numbers belong to documents that were written again or deleted.
        """
        after, span = stretch.after, _PAGE
        while after < stretch.last:
            end = min(after + span, stretch.last)
            hits = await self._page(stretch, after, end)
            full = len(hits) == _PAGE
            after, span = (hits[-1]["_seq_no"], _PAGE) if full else (end, span * 2)
            yield hits, after

    async def _page(self, stretch: Stretch, after: int, end: int) -> Sequence[Mapping[str, Any]]:
        part = {"range": {"_seq_no": {"gt": after, "lte": end}}}
        has_vector = {"exists": {"field": self.embedding.field, "_name": HAS_VECTOR}}
        body = {
            "query": {"bool": {"filter": [part], "should": [has_vector]}},
            "sort": ["_seq_no"],
            "size": _PAGE,
            "seq_no_primary_term": True,
            "track_total_hits": False,
            "_source": {"includes": [*self.embedding.template.fields, self.embedding.hash_field]},
        }
        only = {"preference": f"_shards:{stretch.shard}", "allow_partial_search_results": "false"}
        path = path_of(stretch.index, "_search")
        answer = await ask_engine(lambda: self.client.ask("POST", path, body, only))
        hits: Sequence[Mapping[str, Any]] = answer["hits"]["hits"]
        return hits

    async def _write(self, stale: Sequence[Judged], shown: ShownProgress, filled: Filled) -> None:
        """Embed documents and write their vectors, unless they have changed since they were read."""
        texts = {document.passage.hash: document.passage.text for document in stale if document.passage}
        vectors = await embed(self.embedder, list(texts.values()), self.embedding.model, self.embedding.dimensions)
        by_hash = dict(zip(texts, json_vectors(vectors), strict=True))
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


def _note_refusal(filled: Filled, shown: ShownProgress, outcome: Outcome) -> None:
    match outcome["status"]:
        case 409:
            filled.changed += 1
        case 404:  # deleted during the run
            pass
        case status:
            filled.refused += 1
            filled.put_off |= status in BUSY
            shown.say(f"document {outcome.get('_id')}: {rejection_reason(outcome)}")


async def marks(client: EngineApi, index: str) -> Marks:
    """Read the global checkpoint of each shard, and refresh the index up to it; raises CannotLoad.

    Not the highest sequence number: operations below it may still be in progress.
    """
    by_shard = {"level": "shards"}
    stats = await ask_engine(lambda: client.ask("GET", path_of(index, "_stats", "docs"), parameters=by_shard))
    found = {
        (name, entry["uuid"], number): max(copy["seq_no"]["global_checkpoint"] for copy in copies)
        for name, entry in stats["indices"].items()
        for number, copies in entry["shards"].items()
    }
    await ask_engine(lambda: client.ask("POST", path_of(index, "_refresh")))
    return found


async def _each(actions: Sequence[Action]) -> AsyncIterator[Action]:
    for action in actions:
        yield action
