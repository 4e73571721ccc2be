"""Embeds texts with the embeddings API of a provider, in the format of the Qwen3 embedding models."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np

from proxy.bounds import MODEL_DIMENSIONS, MODEL_NUMBER_BYTES, MODEL_RESPONSE_BYTES
from proxy.catalog.vectors import Vectors, normalise
from proxy.errors import CapReached, Malformed, OtherModel, TimedOut, UpstreamError
from proxy.ranking.planning import QueryVector
from proxy.ranking.stages import UNMETERED, Budget, Purse
from proxy.store.contract import CacheRegion, Kind
from proxy.store.memory import memory_region
from proxy.upstream.providers import EMBED_FORMATS, CallTier, EmbedFormat, sent_query, without_control_tokens
from proxy.upstream.sharing import Shared
from proxy.upstream.spending.prices import embed_tokens
from proxy.upstream.transport import Transport

SERVICE = "embedder"
_DEEPINFRA = EMBED_FORMATS["deepinfra"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model that serves a name, and the dimensions of its vectors."""

    model: str
    dimensions: int


class Embedder:
    """Embeds queries, with a cache, and passages."""

    def __init__(  # noqa: PLR0913  its settings
        self,
        transport: Transport,
        *,
        timeout_seconds: float,
        query_max_chars: int,
        vectors: CacheRegion | None = None,
        service_tier: CallTier | None = None,
        format_: EmbedFormat = _DEEPINFRA,
        purse: Purse = UNMETERED,
    ) -> None:
        """`purse`: pays for passages; a query is paid from the budget of its search."""
        self._transport = transport
        self._purse = purse
        self._format = format_
        self._timeout = timeout_seconds
        self._query_max_chars = query_max_chars
        self._vectors = vectors or memory_region(Kind.VECTORS, 0)
        self._asked: Shared[Vectors] = Shared()
        self._service_tier = service_tier

    async def warm_up(self) -> None:
        await self._transport.warm_up()

    async def embed_query(
        self, text: str, *, instruction: str, model: str, dimensions: int, budget: Budget
    ) -> QueryVector:
        """Return a query's vector, of unit length.

        Equal queries share one running call. A failed call is not cached.
        """
        prompt = query_prompt(instruction, sent_query(text, self._query_max_chars))
        key = self._key(prompt, model, dimensions)
        vector = _vector(await self._vectors.get(key), dimensions)
        if vector is not None:
            budget.purse.saved(model, embed_tokens((prompt,)))
            return QueryVector(tuple(vector.tolist()))
        limit = min(self._timeout, budget.remaining())
        if why := self._transport.reject_if_late(model, limit, is_new=key not in self._asked):
            return QueryVector(error=why)
        try:
            async with budget.limit():
                vector = await self._shared(
                    key, lambda: self._embed_query(key, prompt, model, dimensions, budget.purse)
                )
        except UpstreamError as error:
            if isinstance(error, TimedOut):
                self._transport.abandoned(model, limit)
            return QueryVector(error=error)
        return QueryVector(tuple(vector.tolist()))

    async def _shared(self, key: bytes, ask: Callable[[], Coroutine[Any, Any, Vectors]]) -> Vectors:
        """Wait for the call in progress, or for a new one.

        If the call in progress was rejected by a cap of another search, begin a call here.
        """
        while True:
            is_own = key not in self._asked
            try:
                return await self._asked.ask(key, ask)
            except CapReached:
                if is_own:
                    raise

    async def remembers(self, text: str, *, instruction: str, model: str, dimensions: int) -> bool:
        """Whether the vector of a query is cached, and so costs nothing."""
        prompt = query_prompt(instruction, sent_query(text, self._query_max_chars))
        return _vector(await self._vectors.get(self._key(prompt, model, dimensions)), dimensions) is not None

    async def unavailable(self, text: str, *, instruction: str, model: str, dimensions: int) -> UpstreamError | None:
        """Return why a query's vector cannot be had: it is not cached, and the model is not called at present."""
        if (why := self._transport.withheld(model)) is None:
            return None
        is_cached = await self.remembers(text, instruction=instruction, model=model, dimensions=dimensions)
        return None if is_cached else why

    def not_called(self, model: str, why: UpstreamError) -> None:
        """Count a call that a search did not make."""
        self._transport.not_called(model, why)

    def _key(self, prompt: str, model: str, dimensions: int) -> bytes:
        """Return the key of a query's vector; servers may have different models under one name."""
        return self._vectors.key(self._transport.url, self._format.path, model, f"{dimensions}", prompt)

    async def _embed_query(self, key: bytes, prompt: str, model: str, dimensions: int, purse: Purse) -> Vectors:
        """Call the model, and cache the vector."""
        body = encode(
            [prompt],
            model,
            dimensions,
            fail_fast=self._format.fails_fast_on(self._service_tier),
            service_tier=self._format.tier(self._service_tier),
        )
        vectors = await self._ask(
            model,
            body,
            1,
            dimensions,
            lambda answer: decode(answer, 1, model, dimensions),
            purse=purse,
            tokens=embed_tokens((prompt,)),
        )
        vector: Vectors = vectors[0]
        await self._vectors.put(key, vector.astype(_STORED).tobytes())
        return vector

    async def served_model(self, *, model: str, dimensions: int | None) -> ServedModel:
        """Return the model that serves this name; if the response names none, the requested one."""
        body = encode(["How long is a vector?"], model, dimensions, fail_fast=False)
        return await self._ask(model, body, 1, dimensions, lambda answer: _served_model(answer, model, dimensions))

    async def embed_passages(self, texts: Sequence[str], *, model: str, dimensions: int | None) -> Vectors:
        """Embed at most 1024 texts, one row each; without `dimensions`, the vectors have the model's own length."""
        if not texts:
            return np.empty((0, dimensions or 0), dtype=np.float32)
        body = encode(texts, model, dimensions, fail_fast=False)
        return await self._ask(
            model,
            body,
            len(texts),
            dimensions,
            lambda answer: decode(answer, len(texts), model, dimensions),
            purse=self._purse,
            tokens=embed_tokens(texts),
        )

    async def _ask(  # noqa: PLR0913  a call, and what it may cost
        self,
        model: str,
        body: bytes,
        count: int,
        dimensions: int | None,
        read: Callable[[bytes], _T],
        *,
        purse: Purse = UNMETERED,
        tokens: float = 0.0,
    ) -> _T:
        numbers = count * (dimensions or MODEL_DIMENSIONS) + MODEL_DIMENSIONS
        return await self._transport.ask(
            self._format.path,
            body,
            self._timeout,
            read,
            MODEL_RESPONSE_BYTES + numbers * MODEL_NUMBER_BYTES,
            model=model,
            purse=purse,
            tokens=tokens,
        )


def _served_model(answer: bytes, model: str, dimensions: int | None) -> ServedModel:
    said = _read(answer)
    own = said.model if said.model and not is_same(said.model, model) else model
    return ServedModel(own, _vectors(said, 1, dimensions).shape[1])


_STORED = np.dtype("<f4")


def _vector(value: bytes | None, dimensions: int) -> Vectors | None:
    """Return a vector as it was cached; None for anything else."""
    if value is None or len(value) != dimensions * _STORED.itemsize:
        return None
    return np.frombuffer(value, _STORED)


def query_prompt(instruction: str, text: str) -> str:
    """Build the prompt of a query as the Qwen3 embedding models were trained; passages have none."""
    return f"Instruct: {instruction}\nQuery:{text}"


def encode(
    texts: Sequence[str],
    model: str,
    dimensions: int | None,
    *,
    fail_fast: bool,
    service_tier: CallTier | None = None,
) -> bytes:
    body: dict[str, object] = {"model": model, "input": [without_control_tokens(text) for text in texts]}
    body["encoding_format"] = "float"
    body |= {"dimensions": dimensions} if dimensions else {}
    body |= {"fail_fast": True} if fail_fast else {}
    body |= {"service_tier": service_tier} if service_tier else {}
    return msgspec.json.encode(body)


class _Embedding(msgspec.Struct):
    index: int
    embedding: list[float]


class _Answer(msgspec.Struct):
    data: list[_Embedding]
    model: str | None = None


_answer = msgspec.json.Decoder(_Answer)


def _read(answer: bytes) -> _Answer:
    try:
        return _answer.decode(answer)
    except ValueError as error:
        raise Malformed(SERVICE, f"not an answer with embeddings: {error}") from error


def is_same(model: str, other: str) -> bool:
    """Whether two names denote the same model; providers do not preserve the case."""
    return model.casefold() == other.casefold()


def decode(answer: bytes, count: int, model: str, dimensions: int | None) -> Vectors:
    """Decode exactly `count` vectors of this model and length, in any order, and normalise them; raises Malformed.

    Vectors of another model with the same length would return random neighbours without an error.
    """
    return _vectors_of(_read(answer), count, model, dimensions)


def _vectors_of(said: _Answer, count: int, model: str, dimensions: int | None) -> Vectors:
    if said.model and not is_same(said.model, model):
        raise OtherModel(SERVICE, f"vectors of {said.model} instead of {model}")
    return _vectors(said, count, dimensions)


def _vectors(said: _Answer, count: int, dimensions: int | None) -> Vectors:
    found = sorted(said.data, key=lambda entry: entry.index)
    if [entry.index for entry in found] != list(range(count)):
        raise Malformed(SERVICE, f"not one vector for each of {count} texts")
    lengths = {len(entry.embedding) for entry in found}
    if len(lengths) != 1 or (dimensions is not None and lengths != {dimensions}):
        raise Malformed(SERVICE, f"vectors of {sorted(lengths)} dimensions instead of {dimensions or 'one length'}")
    try:
        with np.errstate(over="ignore"):  # overflow gives infinity, which is rejected below
            return normalise(np.array([entry.embedding for entry in found], dtype=np.float32))
    except ValueError as error:
        raise Malformed(SERVICE, str(error)) from error
