"""Documents from a file into an index, with their vectors: embedded ahead, written in bulk, never all in memory."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from elasticsearch import ApiError, AsyncElasticsearch, TransportError
from elasticsearch.helpers import async_streaming_bulk

from proxy.loading.documents import BadLine, Document, DocumentFile, read_documents
from proxy.loading.errors import CannotLoad
from proxy.loading.passages import Passage, embed, passage_of
from proxy.loading.progress import Shown
from proxy.loading.target import engine_advice
from proxy.mappings import Embedding
from proxy.upstream.embedder import Embedder
from proxy.vectors import Vectors

BATCH = 64
"""Documents read, embedded and looked up together."""
AHEAD = 4
"""Batches on their way to the models at a time: all of a load that is in memory."""
_BULK_BYTES = 10 * 2**20
_BUSY_RETRIES = 12

A = TypeVar("A")
B = TypeVar("B")

Action = dict[str, Any]
"""One document of a bulk request, in the words of the client's helpers."""


@dataclass(slots=True)
class Loaded:
    """What became of a file."""

    written: int = 0
    embedded: int = 0
    kept: int = 0
    """Vectors that were there already, made of the same text by the same model."""
    without_text: int = 0
    bad_lines: list[BadLine] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    """Documents that the engine would not take, and why."""

    @property
    def whole(self) -> bool:
        return not self.bad_lines and not self.refused


@dataclass(frozen=True, slots=True)
class _Batch:
    """Documents ready to be written, and how their vectors came about."""

    actions: Sequence[Action]
    bad_lines: Sequence[BadLine]
    embedded: int = 0
    kept: int = 0
    without_text: int = 0


@dataclass(frozen=True, slots=True)
class Loading:
    """Where documents go, and by whom they are embedded."""

    client: AsyncElasticsearch
    embedder: Embedder
    index: str
    embedding: Embedding | None
    """None loads documents without vectors."""
    existed: bool
    """The index was there before, and so may some of the vectors be."""
    id_field: str | None = None

    async def load(self, file: DocumentFile, shown: Shown, loaded: Loaded) -> None:
        """Load a file; raises CannotLoad where it cannot go on, what was written until then is in `loaded`."""
        batches = _batches(read_documents(file.stream, self.id_field))
        try:
            async for ok, outcome in async_streaming_bulk(
                self.client,
                self._actions(batches, loaded),
                chunk_size=500,
                max_chunk_bytes=_BULK_BYTES,
                max_retries=_BUSY_RETRIES,
                initial_backoff=0.5,
                max_backoff=30,
                raise_on_error=False,
            ):
                _note(loaded, outcome["index"], ok=ok)
                shown.show(file.position(), loaded.written)
        except (ApiError, TransportError) as error:
            raise CannotLoad(engine_advice(error)) from error

    async def _actions(self, batches: Iterator[Sequence[Document | BadLine]], loaded: Loaded) -> AsyncIterator[Action]:
        async for batch in ahead(batches, self._prepare):
            loaded.bad_lines += batch.bad_lines
            loaded.embedded += batch.embedded
            loaded.kept += batch.kept
            loaded.without_text += batch.without_text
            for action in batch.actions:
                yield action

    async def _prepare(self, batch: Sequence[Document | BadLine]) -> _Batch:
        documents = [entry for entry in batch if isinstance(entry, Document)]
        bad_lines = [entry for entry in batch if isinstance(entry, BadLine)]
        if self.embedding is None:
            return _Batch([self._action(document, document.source) for document in documents], bad_lines)
        return await self._with_vectors(documents, bad_lines, self.embedding)

    async def _with_vectors(
        self, documents: Sequence[Document], bad_lines: Sequence[BadLine], embedding: Embedding
    ) -> _Batch:
        passages = [passage_of(document.source, embedding) for document in documents]
        held = await self._held(documents, embedding)
        missing = {passage.hash: passage.text for passage in passages if passage and passage.hash not in held}
        made = await self._embedded(missing, embedding)
        known = held | made
        sources = [
            _with_vector(document.source, embedding, passage, known)
            for document, passage in zip(documents, passages, strict=True)
        ]
        without_text = passages.count(None)
        return _Batch(
            [self._action(document, source) for document, source in zip(documents, sources, strict=True)],
            bad_lines,
            embedded=len(made),
            kept=len(documents) - without_text - len(made),
            without_text=without_text,
        )

    async def _held(self, documents: Sequence[Document], embedding: Embedding) -> dict[str, Sequence[float]]:
        """Look up the vectors that are there already, by the hash of what they were made of."""
        sources = [document.source for document in documents]
        if self.existed and documents:
            answer = await self.client.mget(
                index=self.index,
                ids=[document.id for document in documents],
                source_includes=[embedding.field, embedding.hash_field],
            )
            sources += [entry.get("_source", {}) for entry in answer["docs"]]
        pairs = ((source.get(embedding.hash_field), source.get(embedding.field)) for source in sources)
        return {made_of: vector for made_of, vector in pairs if isinstance(made_of, str) and isinstance(vector, list)}

    async def _embedded(self, texts: Mapping[str, str], embedding: Embedding) -> dict[str, Sequence[float]]:
        vectors = await embed(self.embedder, list(texts.values()), embedding.model, embedding.dimensions)
        return dict(zip(texts, written(vectors), strict=True))

    def _action(self, document: Document, source: Mapping[str, Any]) -> Action:
        return {"_op_type": "index", "_index": self.index, "_id": document.id, "_source": source}


def _with_vector(
    source: Mapping[str, Any], embedding: Embedding, passage: Passage | None, vectors: Mapping[str, Sequence[float]]
) -> Mapping[str, Any]:
    own = {embedding.field, embedding.hash_field}
    said = {key: value for key, value in source.items() if key not in own}
    if passage is None:
        return said
    return said | {embedding.field: vectors[passage.hash], embedding.hash_field: passage.hash}


def written(vectors: Vectors) -> list[list[float]]:
    """Return vectors as they are written: seven decimals, as much as a float has, in half the bytes."""
    rounded: list[list[float]] = vectors.astype(np.float64).round(7).tolist()
    return rounded


def _note(loaded: Loaded, outcome: Mapping[str, Any], *, ok: bool) -> None:
    if ok:
        loaded.written += 1
    else:
        error = outcome.get("error", {})
        reason = error.get("reason", error) if isinstance(error, dict) else error
        cause = error.get("caused_by", {}).get("reason", "") if isinstance(error, dict) else ""
        loaded.refused.append((str(outcome.get("_id")), f"{reason}: {cause}" if cause else str(reason)))


def _batches(entries: Iterator[Document | BadLine]) -> Iterator[Sequence[Document | BadLine]]:
    while batch := tuple(islice(entries, BATCH)):
        yield batch


async def ahead(items: Iterator[A], work: Callable[[A], Awaitable[B]]) -> AsyncIterator[B]:
    """Work on a few items at a time, in threads' stead, and give what comes of them in their order."""
    running: deque[asyncio.Task[B]] = deque()
    try:
        while True:
            while len(running) < AHEAD and (item := await asyncio.to_thread(next, items, None)) is not None:
                running.append(asyncio.ensure_future(_awaited(work(item))))
            if not running:
                return
            yield await running.popleft()
    finally:
        for task in running:
            task.cancel()


async def _awaited(work: Awaitable[B]) -> B:
    return await work
