"""Passage templates: which text of a document the models receive, line by line.

An entry is the name of a field, or a line of text with fields in braces: `Brand: {brand}`, `{price} EUR`. A field may
have a length in tokens and a form: `{description:300}`, `{code:raw}`, `{released:date}`, `{code:raw,300}`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache


class Notation(StrEnum):
    """How the values of a field are written."""

    TEXT = "text"
    """Without HTML markup."""
    RAW = "raw"
    """As they are: for code and for texts about HTML."""
    DATE = "date"
    """The day only, also of milliseconds since 1970."""


_NOTATIONS = {form.value: form for form in (Notation.RAW, Notation.DATE)}


@dataclass(frozen=True, slots=True)
class PassageField:
    """A field in a line."""

    path: str
    form: Notation = Notation.TEXT
    tokens: int | None = None
    """The estimated length after which it is cut; None: no limit of its own."""


@dataclass(frozen=True, slots=True)
class PassageLine:
    """A line of a passage: fields, and the text between them."""

    parts: tuple[str | PassageField, ...]
    fields: tuple[PassageField, ...]
    bare: PassageField | None = None
    """The field of a line that is only this field; other lines state facts, such as a price with its label."""
    plain: str | None = None
    """The name of that field if it is no path and its values are written whole, as text."""


@dataclass(frozen=True, slots=True)
class PassageTemplate:
    """The lines of a passage, and the paths of all their fields."""

    entries: tuple[str, ...]
    """As they were written."""
    lines: tuple[PassageLine, ...]
    fields: tuple[str, ...]


_PARTS = re.compile(r"(?P<escape>\{\{|\}\})|\{(?P<field>[^{}]*)\}|(?P<brace>[{}])|(?P<text>[^{}]+)")
_LENGTH = re.compile(r"[1-9]\d{0,5}", re.ASCII)


@lru_cache(16)
def template_of(entries: tuple[str, ...]) -> PassageTemplate:
    """Parse the entries of a `passage`; raises ValueError."""
    lines = tuple(map(line_of, entries))
    return PassageTemplate(entries, lines, tuple(dict.fromkeys(field.path for line in lines for field in line.fields)))


def line_of(entry: str) -> PassageLine:
    """Parse one entry; raises ValueError with what is wrong."""
    if "{" not in entry and "}" not in entry:
        if not entry:
            raise ValueError("is empty: expected the name of a field, or a template such as `Brand: {brand}`")
        return _line((PassageField(entry),))
    line = _line(tuple(_joined(_parts(entry))))
    if not line.fields:
        raise ValueError(f"{entry!r} names no field: write one in braces, as in `Brand: {{brand}}`")
    return line


def _line(parts: tuple[str | PassageField, ...]) -> PassageLine:
    fields = tuple(part for part in parts if isinstance(part, PassageField))
    if fields != parts or len(parts) > 1:
        return PassageLine(parts, fields)
    (bare,) = fields
    is_plain = bare == PassageField(bare.path) and "." not in bare.path
    return PassageLine(parts, fields, bare, bare.path if is_plain else None)


def _parts(entry: str) -> Iterator[str | PassageField]:
    for found in _PARTS.finditer(entry):
        match found.lastgroup:
            case "escape":
                yield found[0][0]
            case "field":
                yield _field(found["field"])
            case "text":
                yield found["text"]
            case _:
                brace = found[0]
                advice = f"write `{{field}}` for a field, `{brace * 2}` for the brace"
                raise ValueError(f"{entry!r} has an unpaired `{brace}`: {advice}")


def _joined(parts: Iterator[str | PassageField]) -> Iterator[str | PassageField]:
    """Join neighbouring texts."""
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        if text:
            yield text
        yield part
        text = ""
    if text:
        yield text


def _field(written: str) -> PassageField:
    path, _, options = written.partition(":")
    field = PassageField(path.strip())
    if not field.path:
        raise ValueError(f"`{{{written}}}` names no field")
    for option in map(str.strip, options.split(",") if options else ()):
        if _LENGTH.fullmatch(option) and field.tokens is None:
            field = PassageField(field.path, field.form, int(option))
        elif option in _NOTATIONS and field.form is Notation.TEXT:
            field = PassageField(field.path, _NOTATIONS[option], field.tokens)
        else:
            raise ValueError(
                f"`{{{written}}}`: expected a number of tokens, `raw` or `date` after the colon, each at most once"
            )
    return field


def entries_of(written: str) -> tuple[str, ...]:
    """Split entries at commas, except inside braces."""
    return tuple(_COMMA.split(written))


_COMMA = re.compile(r",(?![^{}]*\})")


def embedded(entries: Sequence[str]) -> tuple[str, ...]:
    """Return the entries that vectors are made of: those without a label, or all if each has one.

    What stands behind a label (price, rating, stock) changes often, and each change would need a new vector.
    """
    return tuple(entry for entry in entries if line_of(entry).bare) or tuple(entries)
