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
_BLANKED = bytes(each if each in b"\r\n" else ord(" ") for each in range(256))
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
plain_members_of = _object.decode
"""As `members_of`, for a text without halves of surrogate pairs."""
plain_items_of = _array.decode
"""As `items_of`, for such a text."""
objects_of = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
"""Take an array of objects apart, for such a text; raises ValidationError for one that has others."""


def members_of(value: bytes) -> dict[str, msgspec.Raw]:
    """Take an object apart; raises ValueError, and RecursionError where nesting has no end."""
    try:
        return _object.decode(value)
    except msgspec.DecodeError:
        mending = Mending(bytes(value))
        return {name: mending.raw(raw) for name, raw in mending.members_of(mending.mended).items()}


def items_of(value: bytes) -> list[msgspec.Raw]:
    """Take an array apart; raises ValueError, and RecursionError where nesting has no end."""
    try:
        return _array.decode(value)
    except msgspec.DecodeError:
        mending = Mending(bytes(value))
        return [mending.raw(raw) for raw in _array.decode(mending.mended)]


def mending_of(value: bytes) -> "Mending | None":
    """Mend an object that has halves of surrogate pairs in it; None where it has none. Raises as `members_of` does."""
    try:
        _object.decode(value)
    except msgspec.DecodeError:
        return Mending(value)
    return None


class Mending:
    """A text without halves of surrogate pairs, whose parts can be written again as they were.

    Each is spelled with a character that stands nowhere in the text, and so is each escaped backslash: what follows
    one is no escape. By replacing alone, which takes less time than decoding.
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
        """Write a part as it was."""
        for escape, spelled in self._spelled:
            mended = mended.replace(spelled, escape)
        return mended

    def raw(self, mended: msgspec.Raw) -> msgspec.Raw:
        return msgspec.Raw(self.written(bytes(mended)))

    def members_of(self, mended: bytes) -> dict[str, msgspec.Raw]:
        """Take an object of the mended text apart, its names as they were; raises as `members_of` does."""
        members, mark = _object.decode(mended), self._mark
        if mark.encode() not in mended:
            return members
        return {self.name(name) if mark in name else name: raw for name, raw in members.items()}

    def name(self, mended: str) -> str:
        """Return a name as Java has it."""
        return whole(_decoder.decode(self.written(msgspec.json.encode(mended)).decode()))


_NONCHARACTERS = [chr(0x10000 * plane + 0xFFFE + last).encode() for plane in range(17) for last in (0, 1)]
"""Unicode keeps them for use within a program."""


def read(value: bytes) -> Any:
    """Read any value that an engine keeps; raises ValueError, and RecursionError where nesting has no end."""
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return _decoder.decode(bytes(value).decode())


def whole(text: str) -> str:
    """Write a question mark for half a surrogate pair, as Java does: it is no character, and has no bytes."""
    return text.encode(errors="replace").decode()


def take_member(body: bytes, path: Sequence[str], *, prune: bool = False) -> tuple[bytes, bytes]:
    """Cut the member at a path out of an object, with the one comma that goes with it.

    With `prune`, also the objects that then hold nothing. Returns what is left, and the member's value. Raises
    ValueError, and RecursionError where nesting has no end.
    """
    text = body.decode()
    start, end, value = _span(text, path, prune=prune)
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
            pieces += [text[member.start : end].encode().translate(_BLANKED)]
    last = there[-1].end if there else _expect(text, _blank(text, 0), "{")
    comma = b"," if there and there[-1].name not in members else b""
    said = msgspec.json.encode(members)[1:-1]
    return b"".join([*pieces, text[end:last].encode(), comma, said, text[last:].encode()])


def with_member(body: bytes, name: str, value: bytes) -> bytes:
    """Add a last member to an object that has some."""
    inside = body.rstrip().removesuffix(b"}").rstrip()
    return inside + b"," + msgspec.json.encode(name) + b":" + value + b"}"


def _span(text: str, path: Sequence[str], *, prune: bool) -> tuple[int, int, str]:
    """Find a member: from where to where it is to be cut out, and its value."""
    cut: tuple[int, int] | None = None
    at, end = 0, 0
    for name in path:
        members = list(_members(text, at))
        place = _place(members, name)
        at, end = members[place].value, members[place].end
        if cut is None or not prune or len(members) > 1:
            cut = _with_comma(members, place)
    start, stop = cut or (0, 0)
    return start, stop, text[at:end]


def _with_comma(members: Sequence[_Member], place: int) -> tuple[int, int]:
    if place + 1 < len(members):
        return members[place].start, members[place + 1].start
    return (members[place - 1].end if place else members[place].start), members[place].end


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


def _formatted(value: bytes, indent: int) -> bytes:
    """Write a value with other spaces."""
    try:
        return msgspec.json.format(value, indent=indent)
    except msgspec.DecodeError:
        mending = Mending(value)
        return mending.written(msgspec.json.format(mending.mended, indent=indent))
