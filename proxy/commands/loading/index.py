"""Load documents from a file with their vectors: embed some batches ahead, write in bulk, never hold all in memory."""

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
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np

from proxy.bounds import LOADED_BYTES
from proxy.catalog.vectors import Vectors
from proxy.commands.loading.clients import Action, EngineApi, Outcome
from proxy.commands.loading.documents import BadLine, Document, DocumentFile, read_documents
from proxy.commands.loading.errors import CannotLoad
from proxy.commands.loading.mappings import Embedding
from proxy.commands.loading.passages import EmbedsPassages, Passage, embed, has_text, passage_of
from proxy.commands.loading.progress import ShownProgress
from proxy.commands.loading.stopping import GRACE_S, Stopping
from proxy.commands.loading.target import ask_engine, engine_advice, path_of, rejection_reason
from proxy.errors import UpstreamError

BATCH = 64
"""Maximum number of documents that are read, embedded and looked up together."""
AHEAD = 4
"""Number of batches that are embedded at a time; these and one bulk request are all that is in memory."""

A = TypeVar("A")
B = TypeVar("B")


@dataclass(slots=True)
class Loaded:
    """Counts of what was loaded from a file."""

    begun: bool = False
    """The engine was reached, and reading the file has begun."""
    written: int = 0
    embedded: int = 0
    kept: int = 0
    """Vectors that the index or the file already had, of the same text and model."""
    without_text: int = 0
    malformed: int = 0
    refused: int = 0
    """Documents that the engine rejected."""
    filled: set[str] = field(default_factory=set)
    """Fields of the passage that have a value in some document."""

    @property
    def whole(self) -> bool:
        return not self.malformed and not self.refused


@dataclass(frozen=True, slots=True)
class _Batch:
    """Documents ready to be written, and the counts of their vectors."""

    actions: Sequence[Action]
    bad_lines: Sequence[BadLine]
    embedded: int = 0
    kept: int = 0
    without_text: int = 0
    filled: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A file, and its entries from the first document on."""

    file: DocumentFile
    entries: Iterator[Document | BadLine]


async def begin(file: DocumentFile, id_field: str | None, shown: ShownProgress, loaded: Loaded) -> Source:
    """Read up to the first document; raises CannotLoad if there is none, before an index is created for it."""
    loaded.begun = True
    entries = read_documents(file.stream, id_field)
    while (entry := await asyncio.to_thread(next, entries, None)) is not None:
        if isinstance(entry, Document):
            return Source(file, chain([entry], entries))
        _note_bad_lines(loaded, shown, [entry])
    if loaded.malformed and id_field:
        raise CannotLoad(f"no line of the file is a document with an id in {id_field!r}: name another --id-field")
    raise CannotLoad("the file contains no document: write one JSON object per line, or a JSON array")


@dataclass(frozen=True, slots=True)
class Loading:
    """The index that documents are loaded into, and the models that embed them."""

    client: EngineApi
    embedder: EmbedsPassages
    index: str
    embedding: Embedding | None
    """None: load documents without vectors."""
    existed: bool
    """The index existed before, so it may already have some of the vectors."""
    stopping: Stopping

    async def load(self, source: Source, shown: ShownProgress, loaded: Loaded) -> None:
        """Load documents and report errors as they occur; `loaded` has the counts, also if this raises.

        Raises CannotLoad if it cannot continue, after what was embedded until then has been written.
        """
        failed: list[CannotLoad] = []
        with self.stopping.writing(source.file.stop):
            async with aclosing(self._actions(source, shown, loaded, failed)) as actions:
                async for ok, outcome in bulk(self.client, actions):
                    _note(loaded, shown, outcome, ok=ok)
        shown.show(source.file.position(), loaded.written)
        if failed:
            raise failed[0]
        self.stopping.raise_if_requested()

    async def _actions(
        self, source: Source, shown: ShownProgress, loaded: Loaded, failed: list[CannotLoad]
    ) -> AsyncGenerator[Action]:
        """Yield the documents to write; progress is shown between two batches.

        An error is put into `failed` and not raised: the bulk helper would drop what it has not sent yet.
        """
        try:
            async with aclosing(ahead(_batches(source.entries), self._prepare, self.stopping.requested)) as prepared:
                async for batch in prepared:
                    shown.show(source.file.position(), loaded.written)
                    _note_bad_lines(loaded, shown, batch.bad_lines)
                    loaded.embedded += batch.embedded
                    loaded.kept += batch.kept
                    loaded.without_text += batch.without_text
                    loaded.filled.update(batch.filled)
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
            filled=[path for path in embedding.template.fields if any(has_text(source, path) for source in sources)],
        )

    async def _held(self, documents: Sequence[Document], embedding: Embedding) -> dict[str, Sequence[float]]:
        """Return the existing vectors by the hash of their text."""
        sources = [document.source for document in documents]
        if self.existed and documents:
            # Elasticsearch 9.2 and later return a vector in `_source` only if it is requested by name.
            body = {"docs": [{"_id": document.id} | _routing(document) for document in documents]}
            own = {"_source_includes": f"{embedding.field},{embedding.hash_field}"}
            answer = await ask_engine(lambda: self.client.ask("POST", path_of(self.index, "_mget"), body, own))
            sources += [entry.get("_source", {}) for entry in answer["docs"]]
        pairs = ((source.get(embedding.hash_field), source.get(embedding.field)) for source in sources)
        return {made_of: vector for made_of, vector in pairs if isinstance(made_of, str) and isinstance(vector, list)}

    async def _embedded(self, texts: Mapping[str, str], embedding: Embedding) -> dict[str, Sequence[float]]:
        vectors = await embed(self.embedder, list(texts.values()), embedding.model, embedding.dimensions)
        return dict(zip(texts, json_vectors(vectors), strict=True))

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


def json_vectors(vectors: Vectors) -> list[list[float]]:
    """Round vectors to seven decimals, the precision of a 32-bit float, which halves the bytes to send."""
    rounded: list[list[float]] = vectors.astype(np.float64).round(7).tolist()
    return rounded


async def bulk(client: EngineApi, actions: AsyncIterable[Action]) -> AsyncIterator[tuple[bool, Outcome]]:
    """Write documents; yields the outcome of each, in any order. Raises CannotLoad if a whole request is rejected."""
    try:
        async for ok, outcome in client.bulk(actions):
            yield ok, outcome
    except UpstreamError as error:
        raise CannotLoad(engine_advice(error)) from error


def _note_bad_lines(loaded: Loaded, shown: ShownProgress, bad_lines: Sequence[BadLine]) -> None:
    for bad in bad_lines:
        shown.say(f"{bad.where}: {bad.cause}")
    loaded.malformed += len(bad_lines)


def _note(loaded: Loaded, shown: ShownProgress, outcome: Outcome, *, ok: bool) -> None:
    if ok:
        loaded.written += 1
        return
    loaded.refused += 1
    shown.say(f"document {outcome.get('_id')}: {rejection_reason(outcome)}")


def _batches(entries: Iterator[Document | BadLine]) -> Iterator[Sequence[Document | BadLine]]:
    """Group documents into batches by number and bytes; an error of the file is raised after the last batch."""
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
    """Work on a few items at a time, and yield the results in order.

    After `stop`, an error, or the end of readable items, no new work is started. Results of work that is already
    running are yielded before the error is raised, because it is paid for; work that takes longer is cancelled.
    """
    taking = _Taking(items)
    running: deque[asyncio.Task[B]] = deque()
    try:
        while not stop.is_set():
            while len(running) < AHEAD and (item := await taking.next()) is not None and not stop.is_set():
                running.append(asyncio.create_task(work(item)))
            if running:
                await _done_or_stopped(running[0], stop)
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
    """Items one by one, until the end or the first error."""

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
    """Return the results of running work that finishes within this time."""
    if seconds and running:
        await asyncio.wait(running, timeout=seconds)
    return [task.result() for task in running if task.done() and not task.exception()]


async def _done_or_stopped(task: asyncio.Task[B], stop: asyncio.Event) -> None:
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
