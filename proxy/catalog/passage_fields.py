"""Passage fields that no document of an index can have, and what to write instead."""

from collections.abc import Iterable, Iterator, Mapping

from proxy.catalog.indices import IndexFacts
from proxy.settings.yaml_file import did_you_mean


def missing_fields(fields: Iterable[str], facts: IndexFacts) -> Mapping[str, str]:
    """Return the fields that `_source` cannot have according to the mapping, each with the reason."""
    return {field: f"{field} {_why(field, facts)}" for field in fields if not facts.in_source(field)}


def _why(field: str, facts: IndexFacts) -> str:
    if field in facts.aliases:
        return f"is an alias: documents have {facts.stored_at(field)}"
    if (parent := field.rpartition(".")[0]) in facts.types:
        return f"is a multi-field: documents have {parent}"
    return f"is not in the mapping{did_you_mean(field, tuple(sorted(_without_multi_fields(facts.types))))}"


def _without_multi_fields(types: Iterable[str]) -> Iterator[str]:
    known = set(types)
    return (path for path in known if path.rpartition(".")[0] not in known)
