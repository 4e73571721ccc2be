"""Builds the passage of a document: the lines of the route's template. Models see nothing else."""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from itertools import repeat
from os.path import commonprefix
from typing import Any

from proxy.bounds import CHUNKED_CHARACTERS, REDACTION_MARGIN
from proxy.parsing.json_text import whole
from proxy.ranking.chunks import passages_of
from proxy.ranking.markup import without_markup
from proxy.ranking.tokens import characters_of, cut
from proxy.settings.passage_template import Notation, PassageField, PassageLine
from proxy.settings.redaction import NO_REDACTION, Redaction

_MARKUP_SHARE = 8
"""For each character of a passage, up to this many are read: the rest may be markup."""
_UNLIMITED = sys.maxsize
_BLANKS = re.compile(r"\s+")


def passage_of_tokens(
    source: Mapping[str, Any], lines: Sequence[PassageLine], tokens: int, redaction: Redaction = NO_REDACTION
) -> str:
    """Like `passage_text`, cut to an estimated number of tokens, at the end of a word."""
    return cut(passage_text(source, lines, characters_of(tokens), redaction), tokens)


def two_passages(
    source: Mapping[str, Any],
    lines: Sequence[PassageLine],
    tokens: int,
    stems: Sequence[str],
    redaction: Redaction = NO_REDACTION,
) -> tuple[str, ...]:
    """Return the passage, and of a longer document a second one with other words of the query; empty without text."""
    text = passage_text(source, lines, CHUNKED_CHARACTERS, redaction)
    return passages_of(text, stems, tokens) if text else ()


def passage_text(
    source: Mapping[str, Any],
    lines: Sequence[PassageLine],
    max_chars: int = _UNLIMITED,
    redaction: Redaction = NO_REDACTION,
) -> str:
    """Join the lines with newlines; a line whose fields are all missing or empty is left out.

    Arrays are joined with commas, objects become `key: value`; a path may traverse objects and arrays of objects, or be
    a key with dots. Reading stops as soon as the passage has its maximum length. It is redacted before anything is cut.
    """
    if not redaction.rules and (plain := _plain_text(source, lines, max_chars)) is not None:
        return whole(plain).rstrip()
    texts: list[str] = []
    most = max_chars + (REDACTION_MARGIN + 1 if redaction.rules else 0)
    room = _Room(most, most * _MARKUP_SHARE, redaction)
    for line in lines:
        if room.text > 0 and (text := _line(source, line, room)):
            texts.append(text)
            room.text -= len(text) + 1
    joined = whole("\n".join(texts)[:most])
    if not redaction.rules:
        return joined.rstrip()
    if room.is_omitted or redaction.omits(joined):
        return ""
    return redaction.cut(joined, max_chars).rstrip()


def _plain_text(source: Mapping[str, Any], lines: Sequence[PassageLine], most: int) -> str | None:
    """Join plain lines without a call for each value; None if it is too long, or a value is no text or has markup."""
    texts: list[str] = []
    if not isinstance(source, dict):
        return None
    for line in lines:
        if line.plain is None:
            return None
        value = source.get(line.plain)
        if value is None:
            continue
        if not isinstance(value, str) or len(value) > most or "<" in value or "&" in value:
            return None
        if text := value.strip():
            texts.append(text)
    joined = "\n".join(texts)
    return joined if len(joined) <= most else None


@dataclass(slots=True)
class _Room:
    """How much of a document may still be read: characters of text, and characters including markup."""

    text: int
    read: int
    redaction: Redaction
    is_omitted: bool = False
    """A part that was cut off contains something that the redaction omits."""

    def cut(self, text: str, most: int) -> str:
        """Redact a part of the passage and cut it to this many characters."""
        self.is_omitted = self.is_omitted or self.redaction.omits(text[: most + REDACTION_MARGIN])
        return self.redaction.cut(text, most)


def _line(source: Mapping[str, Any], line: PassageLine, room: _Room) -> str:
    if line.bare is not None:
        return _with_value("", _value(source, line.bare, room), line.bare, room)
    text, is_filled = "", False
    for part in line.parts:
        if isinstance(part, str):
            text += part
        elif value := _value(source, part, room):
            text = _with_value(text, value, part, room, in_line=True)
            is_filled = True
    return " ".join(text.split()) if is_filled else ""


def _with_value(before: str, value: str, field: PassageField, room: _Room, *, in_line: bool = False) -> str:
    """Append a value, cut to its length, to the text before it.

    Redaction sees both, because the text before a value, such as `Tel.`, may tell what the value is.
    """
    if field.tokens is None:
        return before + value
    most = characters_of(field.tokens)
    if not room.redaction.rules:
        return before + cut(value[:most], field.tokens)
    if in_line:  # redacted as the line will be: with single blanks
        before, value = _BLANKS.sub(" ", before), " ".join(value.split())
    shown = room.cut(f"{before}{value}", len(before) + most)
    kept = len(commonprefix((before, shown)))  # noqa: RUF071  of texts, no paths
    return shown[:kept] + cut(shown[kept:], field.tokens)


def _value(source: Mapping[str, Any], field: PassageField, room: _Room) -> str:
    """Join the values of a field, as far as there is room and its length and the redaction require."""
    texts = texts_at(source, field.path)
    if isinstance(texts, tuple):  # of a field with one value, as most have
        return _written(texts[0], field.form, room) if texts else ""
    found: list[str] = []
    left = room.text
    if field.tokens is not None:
        left = min(left, characters_of(field.tokens) + (REDACTION_MARGIN + 1 if room.redaction.rules else 0))
    for text in texts:
        written = _written(text, field.form, room)
        if written:
            found.append(written)
            left -= len(written) + 2
        if left <= -2 or room.read <= 0:
            break
    return ", ".join(found)


def _written(text: str, form: Notation, room: _Room) -> str:
    room.read -= len(text)
    if form is Notation.TEXT:
        return without_markup(text) if room.read >= 0 else _without_end(without_markup(text[: room.read]), room)
    return text if form is Notation.RAW else _day(text)


def _without_end(text: str, room: _Room) -> str:
    """Redact a text whose end was not read, and remove an end that may begin something to be redacted."""
    return room.cut(text, max(0, len(text) - REDACTION_MARGIN - 1)) if room.redaction.rules else text


def _day(text: str) -> str:
    """Return the day of a date: of ISO 8601, or of milliseconds since 1970, the engines' default formats."""
    try:
        if text.lstrip("-").isdecimal():
            return (_EPOCH + timedelta(milliseconds=int(text))).date().isoformat()
        return datetime.fromisoformat(text[:_DAY]).date().isoformat()
    except (ValueError, OverflowError):
        return text


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = len("2000-12-31")


@lru_cache(64)
def members_at(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Return the members of a document with which these paths may begin."""
    return tuple(dict.fromkeys(name for path in paths for name in (path, *(head for head, _ in _ways(path)))))


def texts_at(value: Any, path: str) -> Iterable[str]:
    """Return the values at a path, in the order of the document; a tuple if there is at most one."""
    if isinstance(value, dict) and isinstance(text := value.get(path), str) and "." not in path:
        stripped = text.strip()
        return (stripped,) if stripped else ()
    return _texts_at(value, path)


def _texts_at(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in _objects_in(value):
            yield from _texts_at(item, path)
    elif isinstance(value, dict):
        if path in value:
            yield from _texts(value[path])
        for head, rest in _ways(path):
            if head in value:
                yield from _texts_at(value[head], rest)


def _objects_in(items: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield the objects in arrays in arrays, which may be nested more deeply than Python's stack."""
    levels = [iter(items)]
    while levels:
        for item in levels[-1]:
            if isinstance(item, dict):
                yield item
            elif isinstance(item, list):
                levels.append(iter(item))
                break
        else:
            levels.pop()


@cache
def _ways(path: str) -> tuple[tuple[str, str], ...]:
    """Split a path at each of its dots: a key may contain dots."""
    parts = path.split(".")
    return tuple((".".join(parts[:count]), ".".join(parts[count:])) for count in range(1, len(parts)))


def _texts(value: Any) -> Iterator[str]:
    """Yield each scalar as text; the first one of a member is preceded by the names of all members around it.

    Without recursion: objects and arrays may be nested more deeply than Python's stack, and each text would cost its
    depth.
    """
    if not isinstance(value, dict | list):
        if text := _scalar(value):
            yield text
        return
    names, told, levels = [""], 0, [_labelled(value)]  # so many names precede a text already
    while levels:
        for name, item in levels[-1]:
            if not item and item != 0:
                continue
            if isinstance(item, dict | list):
                names.append(f"{name}: " if name is not None else "")
                levels.append(_labelled(item))
                break
            if text := _scalar(item):
                if name is not None:
                    text = f"{name}: {text}"
                yield text if told == len(names) else "".join((*names[told:], text))
                told = len(names)
        else:
            levels.pop()
            names.pop()
            told = min(told, len(names))


def _labelled(value: dict[str, Any] | list[Any]) -> Iterator[tuple[str | None, Any]]:
    """Pair each item with its name, if it has one."""
    return iter(value.items()) if isinstance(value, dict) else zip(repeat(None), value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if type(value) is int:  # no bool, and faster
        return str(value)
    return "" if value is None else json.dumps(value).removesuffix(".0")
