"""Documents from a file into an index, with their vectors: embedded ahead, written in bulk, never all in memory."""

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np

from proxy.bounds import LOADED_BYTES
from proxy.errors import UpstreamError
from proxy.loading.clients import Action, Client, Outcome
from proxy.loading.documents import BadLine, Document, DocumentFile, read_documents
from proxy.loading.errors import CannotLoad
from proxy.loading.mappings import Embedding
from proxy.loading.passages import Passage, embed, passage_of
from proxy.loading.progress import Shown
from proxy.loading.stopping import GRACE_S, Stopping
from proxy.loading.target import ask_engine, engine_advice, path_of, reason_of
from proxy.upstream.embedder import Embedder
from proxy.vectors import Vectors

BATCH = 64
"""Documents read, embedded and looked up together, at most."""
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
class Source:
    """A file, and what it has from its first document on."""

    file: DocumentFile
    entries: Iterator[Document | BadLine]


async def begin(file: DocumentFile, id_field: str | None, shown: Shown, loaded: Loaded) -> Source:
    """Read up to the first document; raises CannotLoad where there is none, before anything is made for it."""
    loaded.begun = True
    entries = read_documents(file.stream, id_field)
    while (entry := await asyncio.to_thread(next, entries, None)) is not None:
        if isinstance(entry, Document):
            return Source(file, chain([entry], entries))
        _note_bad_lines(loaded, shown, [entry])
    raise CannotLoad("there is no document in the file: nothing was loaded")


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
    stopping: Stopping

    async def load(self, source: Source, shown: Shown, loaded: Loaded) -> None:
        """Load documents, saying at once what cannot be; what was written is in `loaded`, also where this raises.

        Raises CannotLoad where it cannot go on, when what was embedded until then is written.
        """
        failed: list[CannotLoad] = []
        with self.stopping.writing(source.file.stop):
            async with aclosing(self._actions(source, shown, loaded, failed)) as actions:
                async for ok, outcome in bulk(self.client, actions):
                    _note(loaded, shown, outcome, ok=ok)
        shown.show(source.file.position(), loaded.written)
        if failed:
            raise failed[0]
        self.stopping.raise_if_told()

    async def _actions(
        self, source: Source, shown: Shown, loaded: Loaded, failed: list[CannotLoad]
    ) -> AsyncGenerator[Action]:
        """Give what is to be written; between two batches what was written is counted whole, and shown.

        What ends it early is noted in `failed`, for the writer of these would drop what it has not sent yet.
        """
        try:
            async with aclosing(ahead(_batches(source.entries), self._prepare, self.stopping.told)) as prepared:
                async for batch in prepared:
                    shown.show(source.file.position(), loaded.written)
                    _note_bad_lines(loaded, shown, batch.bad_lines)
                    loaded.embedded += batch.embedded
                    loaded.kept += batch.kept
                    loaded.without_text += batch.without_text
                    for action in batch.actions:
                        yield action
        except CannotLoad as error:
            failed.append(error)

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


def _note_bad_lines(loaded: Loaded, shown: Shown, bad_lines: Sequence[BadLine]) -> None:
    for bad in bad_lines:
        shown.say(f"{bad.where}: {bad.cause}")
    loaded.malformed += len(bad_lines)


def _note(loaded: Loaded, shown: Shown, outcome: Outcome, *, ok: bool) -> None:
    if ok:
        loaded.written += 1
        return
    loaded.refused += 1
    shown.say(f"document {outcome.get('_id')}: {reason_of(outcome)}")


def _batches(entries: Iterator[Document | BadLine]) -> Iterator[Sequence[Document | BadLine]]:
    """Put documents together until they are enough, by number or by bytes; raises CannotLoad behind the last."""
    batch: list[Document | BadLine] = []
    size = 0
    unreadable: CannotLoad | None = None
    try:
        for entry in entries:
            batch.append(entry)
            size += entry.size if isinstance(entry, Document) else 0
            if len(batch) >= BATCH or size >= LOADED_BYTES:
                yield batch
                batch, size = [], 0
    except CannotLoad as error:
        unreadable = error
    if batch:
        yield batch
    if unreadable:
        raise unreadable


async def ahead(
    items: Iterator[A], work: Callable[[A], Coroutine[Any, Any, B]], stop: asyncio.Event, grace: float = GRACE_S
) -> AsyncGenerator[B]:
    """Work on a few items at a time, and give what comes of them in their order.

    After `stop`, or where one fails or the next cannot be read, no other is begun, and what comes of those that are
    is given before the error: it is paid for. Those that take longer are cancelled.
    """
    taking = _Taking(items)
    running: deque[asyncio.Task[B]] = deque()
    try:
        while not stop.is_set():
            while len(running) < AHEAD and (item := await taking.next()) is not None and not stop.is_set():
                running.append(asyncio.create_task(work(item)))
            if running:
                await _done_or_told(running[0], stop)
            if not running or stop.is_set() or running[0].exception():
                break
            yield running.popleft().result()
        for paid_for in await _done_soon(running, grace if stop.is_set() else 0):
            yield paid_for
        if not stop.is_set():
            _raise_first(running, taking.error)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@dataclass(slots=True)
class _Taking(Generic[A]):
    """Items one by one, to their end or to where they cannot be read any more."""

    items: Iterator[A]
    error: CannotLoad | None = None

    async def next(self) -> A | None:
        if self.error:
            return None
        try:
            return await asyncio.to_thread(next, self.items, None)
        except CannotLoad as error:
            self.error = error
            return None


def _raise_first(running: Iterable[asyncio.Task[Any]], unreadable: CannotLoad | None) -> None:
    for task in running:
        task.result()
    if unreadable:
        raise unreadable


async def _done_soon(running: Collection[asyncio.Task[B]], seconds: float) -> Sequence[B]:
    """Return what comes of the work that was begun within this time."""
    if seconds and running:
        await asyncio.wait(running, timeout=seconds)
    return [task.result() for task in running if task.done() and not task.exception()]


async def _done_or_told(task: asyncio.Task[B], stop: asyncio.Event) -> None:
    told = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
