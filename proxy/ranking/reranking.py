"""The text of a document that models see: the fields that the route allows, in its order, and no others."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from proxy.parsing.json_text import whole


def passage_text(source: Mapping[str, Any], fields: Sequence[str], max_chars: int | None = None) -> str:
    """Join the values of these fields by lines; what is missing or empty leaves no line.

    Arrays are joined by commas, objects as `key: value`; a path may lead through objects and arrays of them, or
    be a key with dots in it. No more of a document is looked at than there is room for.
    """
    lines: list[str] = []
    room = max_chars
    for path in fields:
        if line := ", ".join(_fitting(texts_at(source, path), room)):
            lines.append(line)
            room = None if room is None else room - len(line) - 1
    return whole("\n".join(lines)[:max_chars].rstrip())


def _fitting(texts: Iterator[str], room: int | None) -> Iterator[str]:
    """Take texts until they fill the room, with the comma and the space between them."""
    if room is None:
        yield from texts
        return
    room += 2 if room > 0 else 0
    while room > 0 and (text := next(texts, None)) is not None:
        yield text
        room -= len(text) + 2


def texts_at(value: Any, path: str) -> Iterator[str]:
    """Find what lies at a path, in the order of the document."""
    if isinstance(value, list):
        for item in value:
            if item and isinstance(item, list | dict):
                yield from texts_at(item, path)
    elif isinstance(value, Mapping):
        if path in value:
            yield from _texts(value[path])
        for head, rest in _ways(path):
            if head in value:
                yield from texts_at(value[head], rest)


@cache
def _ways(path: str) -> tuple[tuple[str, str], ...]:
    """Cut a route's path in two wherever it has a dot."""
    parts = path.split(".")
    return tuple((".".join(parts[:count]), ".".join(parts[count:])) for count in range(1, len(parts)))


def _texts(value: Any, name: str = "") -> Iterator[str]:
    """Write each plain value; the first one of an object's member with the name."""
    match value:
        case None:
            pass
        case str():
            if text := value.strip():
                yield name + text
        case list():
            yield from _texts_in((("", item) for item in value if item or item == 0), name)
        case Mapping():
            yield from _texts_in(((f"{key}: ", item) for key, item in value.items()), name)
        case _:
            yield name + json.dumps(value)


def _texts_in(labelled: Iterable[tuple[str, Any]], name: str) -> Iterator[str]:
    """Write each value after its label; before the first text of all stands the name."""
    for label, item in labelled:
        for text in _texts(item, name + label):
            yield text
            name = ""
