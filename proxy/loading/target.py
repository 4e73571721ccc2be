"""The index that is filled: created where it is missing, and its vectors held against what is wanted."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from elastic_transport.client_utils import DEFAULT
from elasticsearch import ApiError, AsyncElasticsearch, TransportError

from proxy.config import Config
from proxy.indices import META_KEY, flatten
from proxy.loading.errors import CannotLoad
from proxy.loading.patience import patiently
from proxy.mappings import Embedding, index_for, read_embedding

A = TypeVar("A")

BUSY = frozenset({429, 502, 503, 504})
_PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line or a route say of an index's vectors; None where they say nothing."""

    field: str
    model: str | None
    default_model: str
    dimensions: int | None
    passage: tuple[str, ...] | None
    default_passage: tuple[str, ...]
    """That of the route or the profile; empty where there is neither, and so no telling what to embed."""

    def embedding(self, length: int) -> Embedding:
        """Say what a new vector field will hold, its length being that of the model's own answer."""
        passage = self.passage or self.default_passage
        return Embedding(self.field, self.model or self.default_model, length, passage)


def open_engine(config: Config, authorization: str | None) -> AsyncElasticsearch:
    """Open the official client, with the rights meant for a load. What is busy is asked again by `ask_engine`."""
    return AsyncElasticsearch(
        list(config.engine.urls),
        headers={"Authorization": authorization} if authorization else {},
        request_timeout=120,
        retry_on_timeout=True,
        retry_on_status=(),
        max_retries=3,
        http_compress=True,
        ca_certs=config.engine.ca_file or DEFAULT,
    )


async def mappings_of(client: AsyncElasticsearch, index: str) -> Mapping[str, Mapping[str, Any]]:
    """Read the mapping of each index a name stands for; none where there is no such index. Raises CannotLoad."""
    answer = await ask_engine(
        lambda: client.indices.get_mapping(index=index, ignore_unavailable=True, allow_no_indices=True)
    )
    return {name: entry["mappings"] for name, entry in answer.items()}


async def ask_engine(ask: Callable[[], Awaitable[A]]) -> A:
    """Ask the engine, again while it is busy; raises CannotLoad."""
    try:
        return await patiently(ask, _is_busy, _PATIENCE_S)
    except (ApiError, TransportError) as error:
        raise CannotLoad(engine_advice(error)) from error


def _is_busy(error: Exception) -> bool:
    return isinstance(error, ApiError) and error.status_code in BUSY


def engine_advice(error: ApiError | TransportError) -> str:
    """Say what an error of the engine's means for a load."""
    if isinstance(error, ApiError):
        if error.status_code in {401, 403}:
            return (
                f"the engine refuses this caller ({error.status_code}): name a variable with an Authorization value "
                "in engine.authorization_env"
            )
        return f"the engine says {error.status_code}: {error}"
    return f"the engine is not there: {error.message}. Start it, or name another with --engine"


def held_embedding(mappings: Mapping[str, Mapping[str, Any]], wanted: Wanted) -> Embedding | None:
    """Settle what existing indices say of their vectors with what is wanted; raises CannotLoad where they clash.

    Vectors of two models never mix: of equal length they fit the same field, and give random neighbours without
    an error.
    """
    found = [held for mapping in mappings.values() if (held := read_embedding(wanted.field, mapping))]
    if not found:
        return None
    held = found[0]
    if models := {(other.model, other.dimensions) for other in found} - {(held.model, held.dimensions)}:
        raise CannotLoad(
            f"its indices hold vectors of several models in {wanted.field!r}: {held.model} ({held.dimensions}), "
            f"{', '.join(f'{model} ({length})' for model, length in sorted(models))}. Name one index at a time."
        )
    if wanted.model and wanted.model != held.model:
        raise CannotLoad(
            f"the index holds vectors of {held.model} in {held.field!r}, and {wanted.model} is asked for: vectors of "
            f"two models do not mix. Load a new index, name another --field, or ask for {held.model}."
        )
    if wanted.dimensions and wanted.dimensions != held.dimensions:
        raise CannotLoad(_other_length(held.field, held.dimensions, wanted.dimensions))
    return replace(held, passage=wanted.passage or held.passage)


async def fit(client: AsyncElasticsearch, mappings: Mapping[str, Mapping[str, Any]], embedding: Embedding) -> None:
    """Give existing indices the fields, and the note on them, that they lack; raises CannotLoad."""
    for name, mapping in mappings.items():
        await _fit(client, name, mapping, embedding)


async def _fit(client: AsyncElasticsearch, name: str, mapping: Mapping[str, Any], embedding: Embedding) -> None:
    """Give one index the fields and the note on them that it lacks."""
    spec = dict(flatten(mapping.get("properties", {}))).get(embedding.field)
    held = read_embedding(embedding.field, mapping)
    if spec is not None and not spec.keys() & {"dims", "dimension"}:
        raise CannotLoad(f"{name}: the field {embedding.field!r} is of type {spec['type']}: name another --field")
    if spec is not None and (there := spec.get("dims", spec.get("dimension"))) != embedding.dimensions:
        raise CannotLoad(f"{name}: {_other_length(embedding.field, there, embedding.dimensions)}")
    if spec is not None and held is None:
        raise CannotLoad(
            f"{name}: the field {embedding.field!r} is there and nothing says which model made its vectors: "
            "name another --field, and the same in the route's `semantic`"
        )
    if held == embedding:
        return
    meta = dict(mapping.get("_meta", {}))
    meta[META_KEY] = dict(meta.get(META_KEY, {})) | embedding.meta[META_KEY]
    properties = embedding.properties if spec is None else {}
    try:
        await client.indices.put_mapping(index=name, properties=properties, meta=meta)
    except (ApiError, TransportError) as error:
        raise CannotLoad(f"{name}: the vector field cannot be added: {engine_advice(error)}") from error


def check_readable(mappings: Mapping[str, Mapping[str, Any]], embedding: Embedding) -> None:
    """See that documents can have a text to embed; raises CannotLoad where no index has any of the fields."""
    known = {path for mapping in mappings.values() for path, _ in flatten(mapping.get("properties", {}))}
    if not any(path == field or path.startswith(f"{field}.") for path in known for field in embedding.passage):
        raise CannotLoad(
            f"none of {', '.join(embedding.passage)} is a field there: name the fields that are embedded with --passage"
        )


def _other_length(field: str, there: object, here: object) -> str:
    return (
        f"the vectors in {field!r} have {there} dimensions, and {here} are asked for: a field keeps its length, "
        "so ask for as many, name another --field, or load a new index"
    )


async def create(
    client: AsyncElasticsearch, name: str, profile: str, embedding: Embedding | None, language: str
) -> None:
    """Create an index fit for a profile; raises CannotLoad."""
    body = index_for(profile, embedding, language)
    try:
        await client.indices.create(index=name, settings=body["settings"], mappings=body["mappings"])
    except (ApiError, TransportError) as error:
        raise CannotLoad(f"{name} cannot be created: {engine_advice(error)}") from error
