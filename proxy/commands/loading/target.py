"""The index to load into: create it if it is missing, and check that its vectors fit what is requested."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from proxy.catalog.indices import META_KEY, flatten, read_facts
from proxy.catalog.passage_fields import missing_fields
from proxy.commands.advice import connection_advice
from proxy.commands.loading.clients import TOO_LARGE, EngineApi, Outcome
from proxy.commands.loading.errors import CannotLoad
from proxy.commands.loading.mappings import Embedding, index_for, read_embedding
from proxy.commands.loading.patience import patiently
from proxy.errors import Refused, UpstreamError
from proxy.parsing.source_filter import SourceFilter
from proxy.settings.redaction import NO_REDACTION, Redaction
from proxy.upstream.embedder import ServedModel, is_same

A = TypeVar("A")

BUSY = frozenset({429, 502, 503, 504})
_PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """The vectors that the command line or the route request; None means not specified."""

    field: str
    model: str | None
    default_model: str
    dimensions: int | None
    passage: tuple[str, ...] | None
    default_passage: tuple[str, ...]
    """The passage of the route or the profile; empty if there is neither."""
    redaction: Redaction = NO_REDACTION

    def embedding(self, answering: ServedModel) -> Embedding:
        """Describe a new vector field: model and dimensions are those of the model that answers."""
        passage = self.passage or self.default_passage
        return Embedding(self.field, answering.model, answering.dimensions, passage)


def path_of(index: str, *steps: str) -> str:
    """Build the path of an index, an alias or a list of them."""
    return "/".join(("", quote(index, safe=",*"), *steps))


async def mappings_of(client: EngineApi, index: str) -> Mapping[str, Mapping[str, Any]]:
    """Read the mappings of all indices of this name; empty if there is none. Raises CannotLoad."""
    lenient = {"ignore_unavailable": "true", "allow_no_indices": "true"}
    answer = await ask_engine(lambda: client.ask("GET", path_of(index, "_mapping"), parameters=lenient))
    return {name: entry["mappings"] for name, entry in answer.items()}


async def ask_engine(ask: Callable[[], Awaitable[A]]) -> A:
    """Call the engine, with retries while it is busy; raises CannotLoad."""
    try:
        return await patiently(ask, _is_busy, _PATIENCE_S)
    except UpstreamError as error:
        raise CannotLoad(engine_advice(error)) from error


def _is_busy(error: Exception) -> bool:
    return isinstance(error, Refused) and error.status in BUSY


def engine_advice(error: UpstreamError) -> str:
    """Explain an error of the engine, and what to do."""
    match error:
        case Refused(status=401):
            return "the engine rejects the credentials (401): correct the variable that engine.authorization_env names"
        case Refused(status=403):
            return (
                "the credentials of engine.authorization_env do not permit this (403): see the privileges under "
                '"Credentials" in docs/quick-start.md'
            )
        case Refused(status=status):
            return f"the engine returned {status}: {_said(error)}"
        case _:
            return f"the engine cannot be reached: {error.detail}. {connection_advice(error.detail)}"


def _said(error: Refused) -> str:
    try:
        answer = msgspec.json.decode(error.body)
    except ValueError:
        return error.body[:300].decode(errors="replace")
    return rejection_reason(answer) if isinstance(answer, dict) else str(answer)


def rejection_reason(outcome: Outcome) -> str:
    """Return why the engine rejected a request, or a document of a bulk request."""
    match outcome.get("error"):
        case {"reason": str(reason), "caused_by": {"reason": str(cause)}} if cause not in reason:
            return f"{reason}: {cause}"
        case {"reason": str(reason)}:
            return reason
        case _ if outcome.get("status") == TOO_LARGE:
            return "the request with this document is larger than the engine, or a proxy before it, accepts (413)"
        case error:
            return f"{error} ({outcome.get('status')})"


async def _change(client: EngineApi, method: str, path: str, body: Mapping[str, Any], failed: str) -> None:
    """Create or change an index; raises CannotLoad, with advice for known errors of this engine."""
    try:
        await client.ask(method, path, body)
    except UpstreamError as error:
        said = engine_advice(error)
        known = (advice for words, advice in client.spelling.refusals.items() if words in said)
        raise CannotLoad(f"{failed}: {next(known, said)}") from error


def held_embedding(mappings: Mapping[str, Mapping[str, Any]], wanted: Wanted) -> Embedding | None:
    """Read the vectors that existing indices declare; raises CannotLoad if they differ from the requested ones."""
    found = [held for mapping in mappings.values() if (held := read_embedding(wanted.field, mapping))]
    if not found:
        return None
    held = found[0]
    if models := {(other.model, other.dimensions) for other in found} - {(held.model, held.dimensions)}:
        raise CannotLoad(
            f"the indices have vectors of several models in {wanted.field!r}: {held.model} ({held.dimensions}), "
            f"{', '.join(f'{model} ({length})' for model, length in sorted(models))}. Name one index at a time."
        )
    if wanted.dimensions and wanted.dimensions != held.dimensions:
        raise CannotLoad(_other_length(held.field, held.dimensions, wanted.dimensions))
    return replace(held, passage=wanted.passage or held.passage)


def check_model(held: Embedding, asked: str, answering: str) -> None:
    """Check that new vectors come from the model of the existing ones; raises CannotLoad.

    Vectors of two models with equal dimensions fit into the same field, cause no error and return random neighbours.
    """
    if is_same(held.model, answering):
        return
    if is_same(asked, answering):
        here = f"{asked} is requested"
    else:
        here = f"the server at models.url uses {answering}, whatever model is requested"
    raise CannotLoad(
        f"the index has vectors of {held.model} in {held.field!r}, but {here}: vectors of two models cannot be mixed. "
        f"Load a new index, name another --field, or use a server that has {held.model}."
    )


async def has_vectors(client: EngineApi, index: str, field: str) -> bool:
    """Whether any document has a vector; until then, the model in the mapping can still be changed."""
    body = {"query": {"exists": {"field": field}}}
    await ask_engine(lambda: client.ask("POST", path_of(index, "_refresh")))
    return bool((await ask_engine(lambda: client.ask("POST", path_of(index, "_count"), body)))["count"])


async def fit(client: EngineApi, mappings: Mapping[str, Mapping[str, Any]], embedding: Embedding) -> None:
    """Add missing vector fields and their description to the mappings of existing indices; raises CannotLoad."""
    for name, mapping in mappings.items():
        await _fit(client, name, mapping, embedding)


_COPIED = (
    'If the index is a copy made with _reindex, it needs the mapping of the original, with `_meta`: see "Copying an '
    'index" in docs/loading.md'
)


async def _fit(client: EngineApi, name: str, mapping: Mapping[str, Any], embedding: Embedding) -> None:
    """Add them to the mapping of one index."""
    _check_hash_is_kept(name, mapping, embedding)
    spec = dict(flatten(mapping.get("properties", {}))).get(embedding.field)
    held = read_embedding(embedding.field, mapping)
    if spec is not None and not spec.keys() & {"dims", "dimension"}:
        raise CannotLoad(
            f"{name}: the field {embedding.field!r} has the type {spec['type']}: name another --field. {_COPIED}"
        )
    if spec is not None and (there := spec.get("dims", spec.get("dimension"))) != embedding.dimensions:
        raise CannotLoad(f"{name}: {_other_length(embedding.field, there, embedding.dimensions)}")
    if spec is not None and held is None:
        raise CannotLoad(
            f"{name}: the field {embedding.field!r} exists, but the mapping does not say which model made its vectors: "
            f"name another --field, and use it in the route's `semantic`. {_COPIED}"
        )
    if held == embedding:
        return
    meta = dict(mapping.get("_meta", {}))
    meta[META_KEY] = dict(meta.get(META_KEY, {})) | embedding.meta[META_KEY]
    properties = client.spelling.properties(embedding.properties) if spec is None else {}
    body = {"properties": properties, "_meta": meta}
    await _change(client, "PUT", path_of(name, "_mapping"), body, f"{name}: the vector field cannot be added")
    if properties:
        # OpenSearch 3.5 reads a vector as 1, and rejects updates of its document, if the segment that it is written to
        # was begun before the field existed. A refresh ends these segments.
        await ask_engine(lambda: client.ask("POST", path_of(name, "_refresh")))


def _check_hash_is_kept(name: str, mapping: Mapping[str, Any], embedding: Embedding) -> None:
    """Check that `_source` contains the hash, or every run would embed all documents again; raises CannotLoad."""
    said = mapping.get("_source", {})
    kept = SourceFilter(said.get("enabled", True), tuple(said.get("includes", ())), tuple(said.get("excludes", ())))
    if not kept.shows([embedding.hash_field]):
        raise CannotLoad(
            f"{name}: the mapping leaves {embedding.hash_field!r} out of `_source`, so every run would embed all "
            "documents again: name another --field, or copy the documents with _reindex to an index that keeps it"
        )


def check_passage(mappings: Mapping[str, Mapping[str, Any]], embedding: Embedding, *, is_named: bool) -> str | None:
    """Check that documents can have the fields to embed; returns a note about fields of the route or profile they lack.

    Raises CannotLoad if they have none of the fields, or not one that the command line names (`is_named`).
    """
    fields = embedding.template.fields
    missing = missing_fields(fields, read_facts({name: {"mappings": mapping} for name, mapping in mappings.items()}))
    if len(missing) == len(fields):
        raise CannotLoad(
            f"the index has none of the fields {', '.join(fields)}: name the fields to embed with --passage"
        )
    if missing and is_named:
        raise CannotLoad(f"--passage: {'; '.join(missing.values())}")
    return f"note: nothing is embedded of {', '.join(missing)}: not in the mapping" if missing else None


def _other_length(field: str, there: object, here: object) -> str:
    return (
        f"the vectors in {field!r} have {there} dimensions, but {here} are requested: use --dimensions {there}, name "
        "another --field, or load a new index"
    )


async def create(client: EngineApi, name: str, profile: str, embedding: Embedding | None, language: str) -> None:
    """Create an index for a profile; raises CannotLoad."""
    body = index_for(profile, embedding, language, client.spelling, client.kind.version)
    await _change(client, "PUT", path_of(name), body, f"{name} cannot be created")
