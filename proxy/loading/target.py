"""The index that is filled: created where it is missing, and its vectors held against what is wanted."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from proxy.errors import Refused, UpstreamError
from proxy.indices import META_KEY, flatten
from proxy.loading.clients import TOO_LARGE, Client, Outcome
from proxy.loading.errors import CannotLoad
from proxy.loading.mappings import Embedding, index_for, read_embedding
from proxy.loading.patience import patiently
from proxy.upstream.embedder import Introduction, is_same

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

    def embedding(self, answering: Introduction) -> Embedding:
        """Say what a new vector field will hold: vectors of the model that really answers, and as long."""
        passage = self.passage or self.default_passage
        return Embedding(self.field, answering.model, answering.dimensions, passage)


def path_of(index: str, *steps: str) -> str:
    """Spell the path of an index, alias or list of them."""
    return "/".join(("", quote(index, safe=",*"), *steps))


async def mappings_of(client: Client, index: str) -> Mapping[str, Mapping[str, Any]]:
    """Read the mapping of each index a name stands for; none where there is no such index. Raises CannotLoad."""
    lenient = {"ignore_unavailable": "true", "allow_no_indices": "true"}
    answer = await ask_engine(lambda: client.ask("GET", path_of(index, "_mapping"), parameters=lenient))
    return {name: entry["mappings"] for name, entry in answer.items()}


async def ask_engine(ask: Callable[[], Awaitable[A]]) -> A:
    """Ask the engine, again while it is busy; raises CannotLoad."""
    try:
        return await patiently(ask, _is_busy, _PATIENCE_S)
    except UpstreamError as error:
        raise CannotLoad(engine_advice(error)) from error


def _is_busy(error: Exception) -> bool:
    return isinstance(error, Refused) and error.status in BUSY


def engine_advice(error: UpstreamError) -> str:
    """Say what an error of the engine's means for a load."""
    match error:
        case Refused(status=401 | 403 as status):
            return (
                f"the engine refuses this caller ({status}): name a variable with an Authorization value in "
                "engine.authorization_env"
            )
        case Refused(status=status):
            return f"the engine says {status}: {_said(error)}"
        case _:
            return f"the engine is not there: {error.detail}. Start it, or name another with --engine"


def _said(error: Refused) -> str:
    try:
        answer = msgspec.json.decode(error.body)
    except ValueError:
        return error.body[:300].decode(errors="replace")
    return reason_of(answer) if isinstance(answer, dict) else str(answer)


def reason_of(outcome: Outcome) -> str:
    """Say why the engine refused a request, or a document of a bulk request."""
    match outcome.get("error"):
        case {"reason": str(reason), "caused_by": {"reason": str(cause)}} if cause not in reason:
            return f"{reason}: {cause}"
        case {"reason": str(reason)}:
            return reason
        case _ if outcome.get("status") == TOO_LARGE:
            return "the request that holds it is larger than the engine, or what stands before it, takes (413)"
        case error:
            return f"{error} ({outcome.get('status')})"


async def _change(client: Client, method: str, path: str, body: Mapping[str, Any], failed: str) -> None:
    """Make or change an index; raises CannotLoad, with what is to be done where this engine's refusal is known."""
    try:
        await client.ask(method, path, body)
    except UpstreamError as error:
        said = engine_advice(error)
        known = (advice for words, advice in client.spelling.refusals.items() if words in said)
        raise CannotLoad(f"{failed}: {next(known, said)}") from error


def held_embedding(mappings: Mapping[str, Mapping[str, Any]], wanted: Wanted) -> Embedding | None:
    """Settle what existing indices say of their vectors with what is wanted; raises CannotLoad where they clash."""
    found = [held for mapping in mappings.values() if (held := read_embedding(wanted.field, mapping))]
    if not found:
        return None
    held = found[0]
    if models := {(other.model, other.dimensions) for other in found} - {(held.model, held.dimensions)}:
        raise CannotLoad(
            f"its indices hold vectors of several models in {wanted.field!r}: {held.model} ({held.dimensions}), "
            f"{', '.join(f'{model} ({length})' for model, length in sorted(models))}. Name one index at a time."
        )
    if wanted.dimensions and wanted.dimensions != held.dimensions:
        raise CannotLoad(_other_length(held.field, held.dimensions, wanted.dimensions))
    return replace(held, passage=wanted.passage or held.passage)


def check_model(held: Embedding, asked: str, answering: str) -> None:
    """See that vectors made now are of the model that made those that are there; raises CannotLoad.

    Vectors of two models never mix: of equal length they fit the same field, and give random neighbours without
    an error.
    """
    if is_same(held.model, answering):
        return
    if is_same(asked, answering):
        here = f"{asked} is asked for"
    else:
        here = f"the models there answer as {answering}, whatever name they are asked by (models.url)"
    raise CannotLoad(
        f"the index holds vectors of {held.model} in {held.field!r}, and {here}: vectors of two models do not mix. "
        f"Load a new index, name another --field, or ask for {held.model} where it is served."
    )


async def has_vectors(client: Client, index: str, field: str) -> bool:
    """Whether a document has a vector yet; before that, what an index says of its model is no more than a plan."""
    body = {"query": {"exists": {"field": field}}}
    await ask_engine(lambda: client.ask("POST", path_of(index, "_refresh")))
    return bool((await ask_engine(lambda: client.ask("POST", path_of(index, "_count"), body)))["count"])


async def fit(client: Client, mappings: Mapping[str, Mapping[str, Any]], embedding: Embedding) -> None:
    """Give existing indices the fields, and the note on them, that they lack; raises CannotLoad."""
    for name, mapping in mappings.items():
        await _fit(client, name, mapping, embedding)


async def _fit(client: Client, name: str, mapping: Mapping[str, Any], embedding: Embedding) -> None:
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
    properties = client.spelling.properties(embedding.properties) if spec is None else {}
    body = {"properties": properties, "_meta": meta}
    await _change(client, "PUT", path_of(name, "_mapping"), body, f"{name}: the vector field cannot be added")


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


async def create(client: Client, name: str, profile: str, embedding: Embedding | None, language: str) -> None:
    """Create an index fit for a profile; raises CannotLoad."""
    body = index_for(profile, embedding, language, client.spelling)
    await _change(client, "PUT", path_of(name), body, f"{name} cannot be created")
