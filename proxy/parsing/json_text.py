"""JSON text edited in place: split, or with members removed, added or set, while all other bytes stay the same.

Engines accept unpaired surrogates (half of an emoji) in documents, but msgspec rejects a text that contains one. Such
a text is read by the standard library.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from json import JSONDecoder
from typing import Any, TypedDict

import msgspec

from proxy.bounds import BODY_CLAUSES

_SPACE = re.compile(rb"[ \t\n\r]*")
_BLANKED = bytes(each if each in b"\r\n" else ord(" ") for each in range(256))
_decoder = JSONDecoder()


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    start: int
    """Position of its name."""
    value: int
    end: int


_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array = msgspec.json.Decoder(list[msgspec.Raw])
plain_members_of = _object.decode
"""Like `members_of`, for a text without unpaired surrogates."""
plain_items_of = _array.decode
"""Like `items_of`, for a text without unpaired surrogates."""
plain_objects_of = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
"""Like `objects_of`, for a text without unpaired surrogates; raises ValidationError if it has other items."""


def members_of(value: bytes) -> dict[str, msgspec.Raw]:
    """Split an object into its members; raises ValueError, and RecursionError if it is nested too deeply."""
    try:
        return _object.decode(value)
    except msgspec.DecodeError:
        mending = Mending(bytes(value))
        return {name: mending.raw(raw) for name, raw in mending.members_of(mending.mended).items()}


def items_of(value: bytes) -> list[msgspec.Raw]:
    """Split an array into its items; raises ValueError, and RecursionError if it is nested too deeply."""
    try:
        return _array.decode(value)
    except msgspec.DecodeError:
        mending = Mending(bytes(value))
        return [mending.raw(raw) for raw in _array.decode(mending.mended)]


def objects_of(value: bytes) -> list[dict[str, msgspec.Raw]]:
    """Split an array of objects into their members, in one pass; raises like `members_of`."""
    try:
        return plain_objects_of(value)
    except msgspec.DecodeError:
        return [members_of(item) for item in items_of(value)]


def mending_of(value: bytes) -> "Mending | None":
    """Replace unpaired surrogates in an object; None if it has none. Raises like `members_of`."""
    try:
        _object.decode(value)
    except msgspec.DecodeError:
        return Mending(value)
    return None


class Mending:
    """A text whose unpaired surrogates are replaced, and whose parts can be restored.

    Each surrogate is replaced by a character that does not occur in the text, and so is each escaped backslash, because
    what follows it is no escape sequence. Only bytes.replace is used, which is faster than decoding.
    """

    def __init__(self, value: bytes) -> None:
        mark = next((each for each in _NONCHARACTERS if each not in value), None)
        if mark is None:
            raise ValueError("expected a text without every noncharacter")
        self._mark = mark.decode()
        self._spelled = ((b"\\\\", mark + b"b"), (b"\\ud", mark + b"u"), (b"\\uD", mark + b"U"))
        for escape, spelled in self._spelled:
            value = value.replace(escape, spelled)
        self.mended = value

    def written(self, mended: bytes) -> bytes:
        """Return a part with the original surrogates."""
        for escape, spelled in self._spelled:
            mended = mended.replace(spelled, escape)
        return mended

    def raw(self, mended: msgspec.Raw) -> msgspec.Raw:
        return msgspec.Raw(self.written(bytes(mended)))

    def members_of(self, mended: bytes) -> dict[str, msgspec.Raw]:
        """Split an object of the mended text, with the original names; raises like `members_of`."""
        members, mark = _object.decode(mended), self._mark
        if mark.encode() not in mended:
            return members
        return {self.name(name) if mark in name else name: raw for name, raw in members.items()}

    def name(self, mended: str) -> str:
        """Return a name as Java does, see `whole`."""
        return whole(_decoder.decode(self.written(msgspec.json.encode(mended)).decode()))


_NONCHARACTERS = [chr(0x10000 * plane + 0xFFFE + last).encode() for plane in range(17) for last in (0, 1)]
"""Noncharacters, which Unicode reserves for internal use in a program."""


def read(value: bytes, decode: Callable[[bytes], Any] = msgspec.json.decode) -> Any:
    """Decode any value that an engine accepts; raises ValueError, and RecursionError if it is nested too deeply.

    `decode` may read a part of it only; the whole value is decoded where it fails.
    """
    try:
        return decode(value)
    except msgspec.DecodeError:
        return _decoder.decode(bytes(value).decode())


def whole(text: str) -> str:
    """Replace unpaired surrogates by question marks, as Java does when it encodes them."""
    return text if text.isascii() else text.encode(errors="replace").decode()


@lru_cache(64)
def decoder_of(names: tuple[str, ...]) -> Callable[[bytes], Any]:
    """Return a function that decodes only these members of an object, in a third of the time of all."""
    members = TypedDict("members", dict.fromkeys(names, Any), total=False)  # type: ignore[misc]  # no literal
    return msgspec.json.Decoder(members).decode


def take_member(body: bytes, path: Sequence[str], *, prune: bool = False) -> tuple[bytes, bytes]:
    """Remove the member at a path from an object, including one comma; return the object and the member's value.

    `prune` also removes the objects that become empty. Raises ValueError, and RecursionError if nested too deeply.
    """
    start, end, value = _span(body, path, prune=prune)
    return body[:start] + body[end:], value


def with_members_set(body: bytes, members: Mapping[str, Any]) -> bytes:
    """Set members of an object: append them, and overwrite their old text with blanks.

    The rest keeps its line and column numbers, which engines report in warnings. Raises like `take_member`.
    """
    with suppress(msgspec.DecodeError):
        if (names := _object.decode(body)) and members.keys().isdisjoint(names):
            end = body.rindex(b"}")
            return b"".join([body[:end], b",", msgspec.json.encode(members)[1:-1], body[end:]])
    there = _members(body, 0, len(body))
    pieces, end = [], 0
    for number, member in enumerate(there):
        if member.name in members:
            pieces += [body[end : member.start]]
            end = there[number + 1].start if number + 1 < len(there) else member.end
            pieces += [body[member.start : end].translate(_BLANKED)]
    last = there[-1].end if there else _expect(body, _blank(body, 0), b"{")
    comma = b"," if there and there[-1].name not in members else b""
    new = msgspec.json.encode(members)[1:-1]
    return b"".join([*pieces, body[end:last], comma, new, body[last:]])


def with_member(body: bytes, name: str, value: bytes) -> bytes:
    """Append a member to an object that is not empty."""
    inside = body.rstrip().removesuffix(b"}").rstrip()
    return inside + b"," + msgspec.json.encode(name) + b":" + value + b"}"


def _span(body: bytes, path: Sequence[str], *, prune: bool) -> tuple[int, int, bytes]:
    """Find a member: the start and end of the text to remove, and its value."""
    cut: tuple[int, int] | None = None
    at, end = 0, len(body)
    for name in path:
        members = _members(body, at, end)
        place = _place(members, name)
        at, end = members[place].value, members[place].end
        if cut is None or not prune or len(members) > 1:
            cut = _with_comma(members, place)
    start, stop = cut or (0, 0)
    return start, stop, body[at:end]


def _with_comma(members: Sequence[_Member], place: int) -> tuple[int, int]:
    if place + 1 < len(members):
        return members[place].start, members[place + 1].start
    return (members[place - 1].end if place else members[place].start), members[place].end


def _place(members: Sequence[_Member], name: str) -> int:
    """Find a member by name; the last one of several, like JSON decoders."""
    places = [place for place, member in enumerate(members) if member.name == name]
    if not places:
        raise ValueError(f"no member {name!r}")
    return places[-1]


def _members(body: bytes, start: int, end: int) -> Sequence[_Member]:
    """Find the members of the object in this part of a text; raises ValueError and RecursionError.

    msgspec skips their values in a hundredth of the time in which they are decoded. Names that occur twice and unpaired
    surrogates need the standard library, which decodes them: only if there are not too many.
    """
    if not body.isascii():
        body.decode()
    try:
        values = _object.decode(body[start:end])
    except ValueError:
        values = None
    if values is not None and len(values) > BODY_CLAUSES:
        raise ValueError("too many members")
    with suppress(ValueError):
        if values is not None:
            return list(_skipped(body, start, values))
    if max(body.count(b":"), body.count(b"{") + body.count(b"[")) > BODY_CLAUSES:
        raise ValueError("too many members, or one that cannot be skipped")
    return list(_decoded(body, start))


def _skipped(body: bytes, start: int, values: Mapping[str, msgspec.Raw]) -> Iterator[_Member]:
    """Yield the members by the lengths of their values; raises ValueError if a name occurs twice."""
    at, sign = _expect(body, _blank(body, start), b"{"), b","
    for name, raw in values.items():
        written = _STRING.match(body, at) if sign == b"," else None
        if written is None or _string.decode(written[0]) != name:
            raise ValueError("a name occurs twice")
        value = _expect(body, _blank(body, written.end()), b":")
        end = value + len(bytes(raw))
        after = _blank(body, end)
        sign = body[after : after + 1]
        if not body.startswith(bytes(raw), value) or sign not in (b",", b"}"):
            raise ValueError("a name occurs twice")
        yield _Member(name, at, value, end)
        at = _blank(body, after + 1)
    if values and sign != b"}":
        raise ValueError("a name occurs twice")


_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_string = msgspec.json.Decoder(str)


def _decoded(body: bytes, start: int) -> Iterator[_Member]:
    """Yield the members as the standard library reads them."""
    text = body.decode("latin-1")  # of the same length, so that positions fit
    at = _expect(body, _blank(body, start), b"{")
    while body[at : at + 1] == b'"':
        _, after = _decoder.raw_decode(text, at)
        value = _expect(body, _blank(body, after), b":")
        _, end = _decoder.raw_decode(text, value)
        yield _Member(_decoder.decode(body[at:after].decode()), at, value, end)
        at = _blank(body, end)
        if body[at : at + 1] != b",":
            return
        at = _blank(body, at + 1)


def _blank(body: bytes, at: int) -> int:
    found = _SPACE.match(body, at)
    return found.end() if found else at


def _expect(body: bytes, at: int, sign: bytes) -> int:
    if body[at : at + 1] != sign:
        raise ValueError(f"expected {sign.decode()!r} at {at}")
    return _blank(body, at + 1)


def is_deeper(text: bytes, levels: int) -> bool:
    """Whether objects and arrays are nested in more levels.

    How deep a decoder goes differs between versions of Python, and functions in Python go less deep than some of them.
    """
    brackets = _TEXT.sub(b"", text).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > levels


_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""A string, or the rest of the text if it is not closed, so that no part is read twice."""
_STEPS = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}
_NO_BRACKETS = bytes(set(range(256)) - _STEPS.keys())


def compacted(value: bytes) -> bytes:
    """Remove the whitespace between tokens."""
    return _formatted(value, -1)


def indented(value: bytes) -> bytes:
    """Format a value as the engine does for `?pretty` (Jackson's default pretty printer)."""
    pieces = _NAME.split(_formatted(value, 2))
    names = pieces[1::2]
    spaced = [b" : "] * (len(pieces) + len(names))  # joining takes a third of the time of a regular expression
    spaced[::3], spaced[1::3] = pieces[::2], names
    written = b"".join(spaced)
    for empty, with_space in _EMPTY:
        written = written.replace(empty, with_space)
    return {b"{}": b"{ }", b"[]": b"[ ]"}.get(written, written)


_NAME = re.compile(rb'(\n *+"[^"\\]*+(?:\\.[^"\\]*+)*+"): ')
_EMPTY = ((b"{}\n", b"{ }\n"), (b"{},\n", b"{ },\n"), (b"[]\n", b"[ ]\n"), (b"[],\n", b"[ ],\n"))


def _formatted(value: bytes, indent: int) -> bytes:
    """Format a value with other whitespace."""
    try:
        return msgspec.json.format(value, indent=indent)
    except msgspec.DecodeError:
        mending = Mending(value)
        return mending.written(msgspec.json.format(mending.mended, indent=indent))
