"""How much larger vectors make the responses to other searches, said before they are written."""

from collections.abc import Mapping
from typing import Any

from proxy.catalog.dialects import EngineKind
from proxy.catalog.indices import flatten
from proxy.commands.loading.clients import EngineApi
from proxy.commands.loading.errors import CannotLoad
from proxy.commands.loading.mappings import Embedding
from proxy.commands.loading.target import ask_engine, path_of

_JSON_LENGTH_OF_A_NUMBER = 11
"""As these commands write vectors."""


async def growth_of_responses(
    client: EngineApi, index: str, mappings: Mapping[str, Mapping[str, Any]], embedding: Embedding
) -> str | None:
    """Say by how much responses will grow, and why; None if the engine prevents it, or the field is there already.

    `mappings` are those of all indices of this name; there are none if the index will be created.
    """
    setting = client.spelling.leaving_out(client.kind.version)
    if not mappings:
        return None if setting else _growth(index, embedding, _unable(client.kind))
    without = [name for name, mapping in mappings.items() if not _has_field(mapping, embedding.field)]
    grown = [name for name in without if not await _leaves_out(client, name)]
    if not grown:
        return None
    fixed = f"the index was created without `{setting}: true`, which cannot be set later"
    return _growth(", ".join(grown), embedding, fixed if setting else _unable(client.kind))


def _has_field(mapping: Mapping[str, Any], field: str) -> bool:
    return field in dict(flatten(mapping.get("properties", {})))


async def _leaves_out(client: EngineApi, name: str) -> bool:
    """Whether an index leaves vectors out of `_source`, by its own settings or by default; no if this is not known."""
    if (own := client.spelling.leaves_out) is None:
        return False
    flat = {"include_defaults": "true", "flat_settings": "true"}
    try:
        answer = await ask_engine(lambda: client.ask("GET", path_of(name, "_settings", own.setting), parameters=flat))
    except CannotLoad:
        return False
    found = answer.get(name, {})
    return bool((found.get("defaults", {}) | found.get("settings", {})).get(own.setting) == "true")


def _unable(kind: EngineKind) -> str:
    version = "" if kind.version is None else f" {'.'.join(map(str, kind.version))}"
    return f"{_NAMES.get(kind.product, kind.product)}{version} returns vectors in `_source`"


_NAMES = {"elasticsearch": "Elasticsearch", "opensearch": "OpenSearch"}


def _growth(index: str, embedding: Embedding, cause: str) -> str:
    kilobytes = embedding.dimensions * _JSON_LENGTH_OF_A_NUMBER / 1000
    return (
        f"{index}: each document will be about {kilobytes:,.1f} KB larger in responses that are not reranked, because "
        f"{cause}. To prevent this for the searches of a route, set `semantic.exclude_from_source: true`; for "
        'its exceptions, see "Vectors in other responses" in docs/loading.md'
    )
