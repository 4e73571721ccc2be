"""Reads the documents of a search: their passages, and how each matches the query text exactly."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from proxy.bounds import SOURCE_BYTES_A_TURN
from proxy.parsing.json_text import decoder_of, read
from proxy.ranking.chunks import stems_of
from proxy.ranking.hits import DocKey, Hit
from proxy.ranking.kept import AMONG, QueryWords, Source, likeness
from proxy.ranking.passages import members_at, passage_of_tokens, two_passages
from proxy.ranking.search_response import SearchAnswer
from proxy.ranking.stages import ReadDocument, Run

_AT_ONCE = 8
"""Documents read ahead before a response that has arrived meanwhile is noticed."""


async def read_documents(run: Run, hits: Iterable[Hit], answer: SearchAnswer) -> dict[DocKey, ReadDocument]:
    """Return these documents in their order, each read once; `answer` is the one to the client's own search."""
    return await _read(run, _Reader.of(run, answer), hits)


async def _read(run: Run, reader: "_Reader", hits: Iterable[Hit]) -> dict[DocKey, ReadDocument]:
    unread = SOURCE_BYTES_A_TURN
    found: dict[DocKey, ReadDocument] = {}
    for hit in hits:
        if (document := run.read.get(hit.key)) is None:
            unread -= len(hit.members.get("_source", b""))
            if unread < 0:
                unread = SOURCE_BYTES_A_TURN
                await asyncio.sleep(0)
            document = run.read[hit.key] = reader.read(hit)
        found[hit.key] = document
    return found


async def read_ahead(run: Run, answer: SearchAnswer, awaited: asyncio.Future[Any]) -> None:
    """Read hits of the client's own search while another response is awaited.

    Half of the window, because fusion keeps these whatever kNN finds. After an error they are read when they are
    needed, where it is reported.
    """
    plan = run.plan
    is_repeated = run.ahead is not None and run.ahead.head is not None
    if is_repeated or plan.route.rerank_model is None or not plan.request.source.shows(plan.read_fields):
        return
    hits = answer.hits[: plan.window // 2]
    with suppress(Exception):
        reader = _Reader.of(run, answer)
        for start in range(0, len(hits), _AT_ONCE):
            if awaited.done():
                return
            await _read(run, reader, hits[start : start + _AT_ONCE])
            await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class _Reader:
    """What the documents of a search are read with."""

    run: Run
    typed: QueryWords
    stems: Sequence[str]
    decode: Callable[[bytes], Any]
    top: frozenset[DocKey]
    """The hits that may keep their rank."""

    @classmethod
    def of(cls, run: Run, answer: SearchAnswer) -> "_Reader":
        typed = QueryWords.of(run.plan.user_query.text)
        top = frozenset([hit.key for hit in answer.hits[:AMONG]])
        return cls(run, typed, stems_of(typed.words), decoder_of(members_at(run.plan.read_fields)), top)

    def read(self, hit: Hit) -> ReadDocument:
        """Read one document; its decoded `_source` takes many times the memory of its bytes, and is not kept."""
        source, plan = self._source_of(hit), self.run.plan
        like = likeness(self.typed, source, plan.route.passage, plan.names, is_top=hit.key in self.top)
        return ReadDocument(self._passages_of(source), like)

    def _source_of(self, hit: Hit) -> Source:
        """Decode what is read of `_source`; if it is unreadable, the document has no text, but its fused rank."""
        try:
            source: Source = read(hit.members["_source"], self.decode)
        except (KeyError, ValueError, RecursionError):
            return {}
        return source

    def _passages_of(self, source: Source) -> tuple[str, ...]:
        """Return the passages of one document; empty without text."""
        route, tokens = self.run.plan.route, self.run.stages.passage_max_tokens
        if route.passages_per_document > 1:
            return two_passages(source, route.passage.lines, tokens, self.stems, route.redaction)
        text = passage_of_tokens(source, route.passage.lines, tokens, route.redaction)
        return (text,) if text else ()
