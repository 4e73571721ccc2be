"""Embed the texts of documents in batches, with retries while the provider is busy."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from proxy.bounds import EMBEDDED_CHARACTERS
from proxy.catalog.vectors import Vectors, passage_hash
from proxy.commands.advice import models_advice
from proxy.commands.loading.errors import CannotLoad
from proxy.commands.loading.mappings import Embedding
from proxy.commands.loading.patience import patiently
from proxy.errors import CapReached, Refused, TimedOut, Unreachable, UpstreamError
from proxy.ranking.passages import passage_text, texts_at
from proxy.upstream.embedder import ServedModel

_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_PATIENCE_S = 600.0
_FIRST_S = 5.0
"""For the first call: the models may not be running at all."""

A = TypeVar("A")


class EmbedsPassages(Protocol):
    """The embedder, or one that only counts: see `dry_run`. Raises UpstreamError."""

    async def served_model(self, *, model: str, dimensions: int | None) -> ServedModel: ...
    async def embed_passages(self, texts: Sequence[str], *, model: str, dimensions: int | None) -> Vectors: ...


@dataclass(frozen=True, slots=True)
class Passage:
    """The text of a document that is embedded, and the hash stored beside its vector."""

    text: str
    hash: str


def passage_of(source: Mapping[str, Any], embedding: Embedding) -> Passage | None:
    """Build the passage of a document; None if it has no text, and so no vector."""
    text = passage_text(source, embedding.template.lines, EMBEDDED_CHARACTERS, embedding.redaction)
    return Passage(text, passage_hash(text, embedding.model, embedding.dimensions)) if text else None


def has_text(source: Mapping[str, Any], path: str) -> bool:
    """Whether a document has a value at the path of a passage field."""
    return any(texts_at(source, path))


async def embed(
    embedder: EmbedsPassages, texts: Sequence[str], model: str, dimensions: int | None, patience: float = _PATIENCE_S
) -> Vectors:
    """Embed texts, with retries while the provider is busy; raises CannotLoad if it refuses or is unreachable."""
    return await _asked(lambda: embedder.embed_passages(texts, model=model, dimensions=dimensions), model, patience)


async def first_served_model(embedder: EmbedsPassages, model: str, dimensions: int | None) -> ServedModel:
    """Ask which model the provider serves under this name; raises CannotLoad."""
    return await _asked(lambda: embedder.served_model(model=model, dimensions=dimensions), model, _FIRST_S)


async def _asked(ask: Callable[[], Awaitable[A]], model: str, patience: float) -> A:
    try:
        return await patiently(ask, _is_passing, patience)
    except UpstreamError as error:
        raise CannotLoad(models_advice(error, model)) from error


def _is_passing(error: Exception) -> bool:
    match error:
        case Refused(status=status):
            return status in _BUSY
        case CapReached():
            return error.is_brief
        case Unreachable() | TimedOut():
            return True
        case _:
            return False
