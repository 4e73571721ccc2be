"""Documents from a file into an index, with their vectors: embedded ahead, written in bulk, never all in memory."""

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from proxy.errors import UpstreamError
from proxy.loading.clients import Action, Client, Outcome
from proxy.loading.documents import BadLine, Document, DocumentFile, read_documents
from proxy.loading.errors import CannotLoad
from proxy.loading.mappings import Embedding
from proxy.loading.passages import Passage, embed, passage_of
from proxy.loading.progress import Shown
from proxy.loading.target import ask_engine, engine_advice, path_of, reason_of
from proxy.upstream.embedder import Embedder
from proxy.vectors import Vectors

BATCH = 64
"""Documents read, embedded and looked up together, at most."""
BATCH_BYTES = 4 * 2**20
"""What they may have together, unless one alone has more."""
AHEAD = 4
"""Batches on their way to the models at a time: these and a bulk request are all of a load that is in memory."""

A = TypeVar("A")
B = TypeVar("B")


@dataclass(slots=True)
class Loaded:
    """What became of a file."""

    begun: bool = False
    """The engine was there, and the file is read."""
    written: int = 0
    embedded: int = 0
    kept: int = 0
    """Vectors that were there already, made of the same text by the same model."""
    without_text: int = 0
    malformed: int = 0
    refused: int = 0
    """Documents that the engine would not take."""

    @property
    def whole(self) -> bool:
        return not self.malformed and not self.refused


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

    client: Client
    embedder: Embedder
    index: str
    embedding: Embedding | None
    """None loads documents without vectors."""
    existed: bool
    """The index was there before, and so may some of the vectors be."""
    id_field: str | None = None

    async def load(self, file: DocumentFile, shown: Shown, loaded: Loaded) -> None:
        """Load a file, saying at once what cannot be; what was written is in `loaded`, also where this raises.

        Raises CannotLoad where it cannot go on.
        """
        loaded.begun = True
        async with aclosing(self._actions(file, shown, loaded)) as actions:
            async for ok, outcome in bulk(self.client, actions):
                _note(loaded, shown, outcome, ok=ok)
        shown.show(file.position(), loaded.written)

    async def _actions(self, file: DocumentFile, shown: Shown, loaded: Loaded) -> AsyncGenerator[Action]:
        """Give what is to be written; between two batches what was written is counted whole, and shown."""
        batches = _batches(read_documents(file.stream, self.id_field))
        async with aclosing(ahead(batches, self._prepare)) as prepared:
            async for batch in prepared:
                shown.show(file.position(), loaded.written)
                for bad in batch.bad_lines:
                    shown.say(f"{bad.where}: {bad.cause}")
                loaded.malformed += len(batch.bad_lines)
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
            # The vector's name brings it, also where the engine leaves vectors out of `_source` (from 9.2 on).
            body = {"docs": [{"_id": document.id} | _routing(document) for document in documents]}
            own = {"_source_includes": f"{embedding.field},{embedding.hash_field}"}
            answer = await ask_engine(lambda: self.client.ask("POST", path_of(self.index, "_mget"), body, own))
            sources += [entry.get("_source", {}) for entry in answer["docs"]]
        pairs = ((source.get(embedding.hash_field), source.get(embedding.field)) for source in sources)
        return {made_of: vector for made_of, vector in pairs if isinstance(made_of, str) and isinstance(vector, list)}

    async def _embedded(self, texts: Mapping[str, str], embedding: Embedding) -> dict[str, Sequence[float]]:
        vectors = await embed(self.embedder, list(texts.values()), embedding.model, embedding.dimensions)
        return dict(zip(texts, written(vectors), strict=True))

    def _action(self, document: Document, source: Mapping[str, Any]) -> Action:
        action = {"_op_type": "index", "_index": self.index, "_id": document.id, "_source": source}
        return action | _routing(document)


def _routing(document: Document) -> dict[str, str]:
    return {} if document.routing is None else {"routing": document.routing}


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


async def bulk(client: Client, actions: AsyncIterable[Action]) -> AsyncIterator[tuple[bool, Outcome]]:
    """Write documents; what became of each, in no order. Raises CannotLoad where all of a request is refused."""
    try:
        async for ok, outcome in client.bulk(actions):
            yield ok, outcome
    except UpstreamError as error:
        raise CannotLoad(engine_advice(error)) from error


def _note(loaded: Loaded, shown: Shown, outcome: Outcome, *, ok: bool) -> None:
    if ok:
        loaded.written += 1
        return
    loaded.refused += 1
    shown.say(f"document {outcome.get('_id')}: {reason_of(outcome)}")


def _batches(entries: Iterator[Document | BadLine]) -> Iterator[Sequence[Document | BadLine]]:
    """Put documents together until they are enough, by number or by bytes."""
    batch: list[Document | BadLine] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += entry.size if isinstance(entry, Document) else 0
        if len(batch) >= BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


async def ahead(items: Iterator[A], work: Callable[[A], Coroutine[Any, Any, B]]) -> AsyncGenerator[B]:
    """Work on a few items at a time, and give what comes of them in their order."""
    running: deque[asyncio.Task[B]] = deque()
    try:
        while True:
            while len(running) < AHEAD and (item := await asyncio.to_thread(next, items, None)) is not None:
                running.append(asyncio.create_task(work(item)))
            if not running:
                return
            yield await running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
