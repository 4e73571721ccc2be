"""The text of a document that models see: the fields that the route allows, in its order, and no others."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy.request.json_text import whole


def passage_text(source: Mapping[str, Any], fields: Sequence[str], max_chars: int | None = None) -> str:
    """Join the values of these fields by lines; what is missing or empty leaves no line.

    Arrays are joined by commas, objects as `key: value`; a path may lead through objects and arrays of them, or
    be a key with dots in it.
    """
    lines = (", ".join(text for value in _values(source, path) if (text := _text(value))) for path in fields)
    return whole("\n".join(line for line in lines if line)[:max_chars].rstrip())


def _values(value: Any, path: str) -> Iterator[Any]:
    """Find what lies at a path, in the order of the document."""
    if isinstance(value, list):
        for item in value:
            yield from _values(item, path)
    elif isinstance(value, Mapping):
        if path in value:
            yield value[path]
        parts = path.split(".")
        for count in range(1, len(parts)):
            if (head := ".".join(parts[:count])) in value:
                yield from _values(value[head], ".".join(parts[count:]))


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value.strip()
        case list():
            return ", ".join(text for item in value if (text := _text(item)))
        case Mapping():
            return ", ".join(f"{key}: {text}" for key, item in value.items() if (text := _text(item)))
        case _:
            return json.dumps(value)
