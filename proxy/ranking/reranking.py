"""Builds the passage of a document: the text of the route's fields, in their order. Models see nothing else."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from proxy.parsing.json_text import whole


def passage_text(source: Mapping[str, Any], fields: Sequence[str], max_chars: int | None = None) -> str:
    """Join the values of these fields with newlines; a missing or empty field adds no line.

    Arrays are joined with commas, objects become `key: value`; a path may traverse objects and arrays of objects, or be
    a key with dots. Reading stops as soon as the passage has its maximum length.
    """
    lines: list[str] = []
    room = max_chars
    for path in fields:
        if line := ", ".join(_fitting(texts_at(source, path), room)):
            lines.append(line)
            room = None if room is None else room - len(line) - 1
    return whole("\n".join(lines)[:max_chars].rstrip())


def _fitting(texts: Iterator[str], room: int | None) -> Iterator[str]:
    """Yield texts until they fill the space, including the separators."""
    if room is None:
        yield from texts
        return
    room += 2 if room > 0 else 0
    while room > 0 and (text := next(texts, None)) is not None:
        yield text
        room -= len(text) + 2


def texts_at(value: Any, path: str) -> Iterator[str]:
    """Yield the values at a path, in the order of the document."""
    if isinstance(value, list):
        for item in value:
            if item and isinstance(item, list | dict):
                yield from texts_at(item, path)
    elif isinstance(value, dict):
        if path in value:
            yield from _texts(value[path])
        for head, rest in _ways(path):
            if head in value:
                yield from texts_at(value[head], rest)


@cache
def _ways(path: str) -> tuple[tuple[str, str], ...]:
    """Split a path at each of its dots: a key may contain dots."""
    parts = path.split(".")
    return tuple((".".join(parts[:count]), ".".join(parts[count:])) for count in range(1, len(parts)))


def _texts(value: Any, name: str = "") -> Iterator[str]:
    """Yield each scalar as text; the first one of a member is preceded by the member's name."""
    match value:
        case None:
            pass
        case str():
            if text := value.strip():
                yield name + text
        case list():
            yield from _texts_in((("", item) for item in value if item or item == 0), name)
        case dict():
            yield from _texts_in(((f"{key}: ", item) for key, item in value.items()), name)
        case _:
            yield name + json.dumps(value)


def _texts_in(labelled: Iterable[tuple[str, Any]], name: str) -> Iterator[str]:
    """Yield each scalar after its label; the name precedes the first text only."""
    for label, item in labelled:
        for text in _texts(item, name + label):
            yield text
            name = ""
