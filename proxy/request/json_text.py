"""JSON as it was written: taken apart, members cut out, added or set, or indented, every other byte as it was.

Engines keep half a surrogate pair (an emoji cut in two) in documents, which msgspec refuses wherever it stands; what it
refuses is read by the standard library.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecoder
from typing import Any

import msgspec

_SPACE = re.compile(r"[ \t\n\r]*")
_NOT_A_LINE_END = re.compile(rb"[^\r\n]")
_decoder = JSONDecoder()


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    start: int
    """Where its name begins."""
    value: int
    end: int


_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array = msgspec.json.Decoder(list[msgspec.Raw])


def members_of(value: bytes) -> dict[str, msgspec.Raw]:
    """Take an object apart; raises ValueError, and RecursionError where nesting has no end."""
    try:
        return _object.decode(value)
    except msgspec.DecodeError:
        text = _checked(value)
        return {whole(each.name): _raw(text, each.value, each.end) for each in _members(text, 0)}


def items_of(value: bytes) -> list[msgspec.Raw]:
    """Take an array apart; raises ValueError, and RecursionError where nesting has no end."""
    try:
        return _array.decode(value)
    except msgspec.DecodeError:
        text = _checked(value)
        return [_raw(text, start, end) for start, end in _items(text)]


def read(value: bytes) -> Any:
    """Read any value that an engine keeps; raises ValueError, and RecursionError where nesting has no end."""
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return _decoder.decode(bytes(value).decode())


def whole(text: str) -> str:
    """Write a question mark for half a surrogate pair, as Java does: it is no character, and has no bytes."""
    return text.encode(errors="replace").decode()


def _checked(value: bytes) -> str:
    text = bytes(value).decode()
    _decoder.decode(text)
    return text


def _raw(text: str, start: int, end: int) -> msgspec.Raw:
    return msgspec.Raw(text[start:end].encode())


def take_member(body: bytes, path: Sequence[str]) -> tuple[bytes, bytes]:
    """Cut the member at a path out of an object, with the one comma that goes with it.

    Returns what is left, and the member's value. Raises ValueError, and RecursionError where nesting has no end.
    """
    text = body.decode()
    start, end, value = _span(text, path)
    return (text[:start] + text[end:]).encode(), value.encode()


def with_members_set(body: bytes, members: Mapping[str, Any]) -> bytes:
    """Set members of an object: said at its end, and what stood there before blanked.

    So the rest keeps its line and column, which engines name in warnings.
    """
    text = body.decode()
    there = list(_members(text, 0))
    pieces, end = [], 0
    for number, member in enumerate(there):
        if member.name in members:
            pieces += [text[end : member.start].encode()]
            end = there[number + 1].start if number + 1 < len(there) else member.end
            pieces += [_NOT_A_LINE_END.sub(b" ", text[member.start : end].encode())]
    last = there[-1].end if there else _expect(text, _blank(text, 0), "{")
    comma = b"," if there and there[-1].name not in members else b""
    said = msgspec.json.encode(members)[1:-1]
    return b"".join([*pieces, text[end:last].encode(), comma, said, text[last:].encode()])


def with_member(body: bytes, name: str, value: bytes) -> bytes:
    """Add a last member to an object that has some."""
    inside = body.rstrip().removesuffix(b"}").rstrip()
    return inside + b"," + msgspec.json.encode(name) + b":" + value + b"}"


def _span(text: str, path: Sequence[str]) -> tuple[int, int, str]:
    members = list(_members(text, 0))
    for name in path[:-1]:
        members = list(_members(text, members[_place(members, name)].value))
    place = _place(members, path[-1])
    member = members[place]
    value = text[member.value : member.end]
    if place + 1 < len(members):
        return member.start, members[place + 1].start, value
    return (members[place - 1].end if place else member.start), member.end, value


def _place(members: Sequence[_Member], name: str) -> int:
    """Find a member; of several of one name the last, which is the one that decoders take."""
    places = [place for place, member in enumerate(members) if member.name == name]
    if not places:
        raise ValueError(f"no member {name!r}")
    return places[-1]


def _members(text: str, at: int) -> Iterator[_Member]:
    """Walk over the members of the object that begins here; what is in them is left to the decoder."""
    at = _expect(text, _blank(text, at), "{")
    while text[at : at + 1] == '"':
        name, after = _decoder.raw_decode(text, at)
        value = _expect(text, _blank(text, after), ":")
        _, end = _decoder.raw_decode(text, value)
        yield _Member(name, at, value, end)
        at = _blank(text, end)
        if text[at : at + 1] != ",":
            return
        at = _blank(text, at + 1)


def _items(text: str) -> Iterator[tuple[int, int]]:
    """Walk over the items of an array: where each begins and ends."""
    at = _expect(text, _blank(text, 0), "[")
    while text[at] != "]":
        _, end = _decoder.raw_decode(text, at)
        yield at, end
        at = _blank(text, end)
        at = _blank(text, at + 1) if text[at] == "," else at


def _blank(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _expect(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise ValueError(f"expected {sign!r} at {at}")
    return _blank(text, at + 1)


def compacted(value: bytes) -> bytes:
    """Write a value without the spaces between its parts."""
    return _formatted(value, -1)


def indented(value: bytes) -> bytes:
    """Write a value as the engine does under `?pretty` (Jackson's default pretty printer)."""
    pieces = _NAME.split(_formatted(value, 2))
    names = pieces[1::2]
    spaced = [b" : "] * (len(pieces) + len(names))  # in a third of the time that substituting takes
    spaced[::3], spaced[1::3] = pieces[::2], names
    written = b"".join(spaced)
    for empty, with_space in _EMPTY:
        written = written.replace(empty, with_space)
    return {b"{}": b"{ }", b"[]": b"[ ]"}.get(written, written)


_NAME = re.compile(rb'(\n *+"[^"\\]*+(?:\\.[^"\\]*+)*+"): ')
_EMPTY = ((b"{}\n", b"{ }\n"), (b"{},\n", b"{ },\n"), (b"[]\n", b"[ ]\n"), (b"[],\n", b"[ ],\n"))
_HALVES = re.compile(rb"\\(?:(u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2}))|.)", re.DOTALL)
_NUL = rb"\u0000"


def _formatted(value: bytes, indent: int) -> bytes:
    """Write a value with other spaces; halves of surrogate pairs make room for another character meanwhile."""
    try:
        return msgspec.json.format(value, indent=indent)
    except msgspec.DecodeError:
        halves = [half[0] for half in _HALVES.finditer(value) if half[1]]
    whole_characters = _HALVES.sub(lambda found: _NUL if found[1] else found[0], value)
    written, remaining = msgspec.json.format(whole_characters, indent=indent), iter(halves)
    return _HALVES.sub(lambda found: next(remaining) if found[1] else found[0], written)
