"""Vectors for documents that are in an index already, and current ones while feeds go on writing.

A full write of a document drops its vector, a partial one leaves that of the old text: so what a vector was made
of stands beside it as a hash, and what no longer agrees is done again. A document that changes meanwhile is left
to the next round (`if_seq_no`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from elasticsearch import ApiError, AsyncElasticsearch, TransportError
from elasticsearch.helpers import async_streaming_bulk

from proxy.loading.errors import CannotLoad
from proxy.loading.index import Action, written
from proxy.loading.passages import Passage, embed, passage_of
from proxy.loading.progress import Shown
from proxy.loading.target import engine_advice
from proxy.mappings import Embedding
from proxy.upstream.embedder import Embedder

_PAGE = 500
_BATCH = 64
_KEEP_ALIVE = "5m"
_CHANGED, _GONE = 409, 404


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
    refused: list[tuple[str, str]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Share of the documents with text that have a current vector."""
        with_text = self.seen - self.without_text
        return self.current / with_text if with_text else 1.0


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

    async def round(self, shown: Shown, filled: Filled, since: int = -1) -> None:
        """Go once through the documents written after a sequence number, noting in `filled`; raises CannotLoad."""
        try:
            async for page, total in self._pages(since):
                shown.of(total)
                judged = [judge(hit, self.embedding) for hit in page]
                stale = [document for document in judged if not document.current]
                filled.without_text += sum(document.passage is None for document in judged)
                filled.current += sum(document.current and document.passage is not None for document in judged)
                for start in range(0, len(stale), _BATCH):
                    await self._write(stale[start : start + _BATCH], filled)
                    shown.show(filled.seen, filled.seen)
                filled.seen += len(page)
                shown.show(filled.seen, filled.seen)
        except (ApiError, TransportError) as error:
            raise CannotLoad(engine_advice(error)) from error

    async def marks(self) -> Mapping[tuple[str, str], int]:
        """Read each shard's highest sequence number: where nothing was written, nothing needs to be looked at."""
        try:
            stats = await self.client.indices.stats(index=self.index, level="shards")
        except (ApiError, TransportError) as error:
            raise CannotLoad(engine_advice(error)) from error
        return {
            (name, shard): max(copy.get("seq_no", {}).get("max_seq_no", -1) for copy in copies)
            for name, entry in stats["indices"].items()
            for shard, copies in entry["shards"].items()
        }

    async def _pages(self, since: int) -> AsyncIterator[tuple[Sequence[Mapping[str, Any]], int]]:
        """Read documents in the order they lie in, over a point in time; each page with the number of all."""
        pit = (await self.client.open_point_in_time(index=self.index, keep_alive=_KEEP_ALIVE))["id"]
        after: list[Any] | None = None
        try:
            while True:
                answer = await self.client.search(
                    pit={"id": pit, "keep_alive": _KEEP_ALIVE},
                    query={"range": {"_seq_no": {"gt": since}}} if since >= 0 else {"match_all": {}},
                    sort=["_shard_doc"],
                    size=_PAGE,
                    search_after=after,
                    seq_no_primary_term=True,
                    track_total_hits=True,
                    source_includes=[*self.embedding.passage, self.embedding.hash_field],
                )
                hits, pit = answer["hits"]["hits"], answer["pit_id"]
                if not hits:
                    return
                yield hits, answer["hits"]["total"]["value"]
                after = hits[-1]["sort"]
        finally:
            await self.client.close_point_in_time(id=pit)

    async def _write(self, stale: Sequence[Judged], filled: Filled) -> None:
        """Embed documents and write their vectors, where they are still as they were read."""
        texts = {document.passage.hash: document.passage.text for document in stale if document.passage}
        await self.pace.spend(len(stale))
        vectors = await embed(self.embedder, list(texts.values()), self.embedding.model, self.embedding.dimensions)
        by_hash = dict(zip(texts, written(vectors), strict=True))
        actions = [self._action(document, by_hash) for document in stale]
        results = async_streaming_bulk(
            self.client, _each(actions), max_retries=12, initial_backoff=0.5, max_backoff=30, raise_on_error=False
        )
        position = 0
        async for ok, outcome in results:
            self._note(filled, stale[position], outcome["update"], ok=ok)
            position += 1

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

    def _note(self, filled: Filled, document: Judged, outcome: Mapping[str, Any], *, ok: bool) -> None:
        if ok and document.passage:
            filled.current += 1
            filled.embedded += 1
        elif not ok and outcome["status"] == _CHANGED:
            filled.changed += 1
        elif not ok and outcome["status"] != _GONE:
            error = outcome.get("error", {})
            filled.refused.append((str(outcome.get("_id")), str(error.get("reason", error))))


async def _each(actions: Sequence[Action]) -> AsyncIterator[Action]:
    for action in actions:
        yield action
