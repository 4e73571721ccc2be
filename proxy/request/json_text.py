"""JSON as it was written: a member cut out of it, or all of it indented, every other byte as it was."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json import JSONDecoder

import msgspec

_SPACE = re.compile(r"[ \t\n\r]*")
_decoder = JSONDecoder()


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    start: int
    """Where its name begins."""
    value: int
    end: int


def take_member(body: bytes, path: Sequence[str]) -> tuple[bytes, bytes]:
    """Cut the member at a path out of an object, with the one comma that goes with it.

    Returns what is left, and the member's value. Raises ValueError, and RecursionError where nesting has no end.
    """
    text = body.decode()
    start, end, value = _span(text, path)
    return (text[:start] + text[end:]).encode(), value.encode()


def with_member(body: bytes, name: str, value: bytes, *, pretty: bool) -> bytes:
    """Add a last member to an object that has some, written like the others."""
    inside = body.rstrip().removesuffix(b"}").rstrip()
    key = msgspec.json.encode(name)
    if pretty:
        return inside + b",\n  " + key + b" : " + value + b"\n}\n"
    return inside + b"," + key + b":" + value + b"}"


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


def _blank(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _expect(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise ValueError(f"expected {sign!r} at {at}")
    return _blank(text, at + 1)


_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array = msgspec.json.Decoder(list[msgspec.Raw])


def indented(value: bytes, depth: int = 0) -> bytes:
    """Write a value as the engine does under `?pretty` (Jackson's default pretty printer)."""
    match value[:1]:
        case b"{":
            members = _object.decode(value).items()
            lines = [msgspec.json.encode(name) + b" : " + indented(bytes(raw), depth + 1) for name, raw in members]
            return _lines(b"{", lines, b"}", depth)
        case b"[":
            return _lines(b"[", [indented(bytes(raw), depth + 1) for raw in _array.decode(value)], b"]", depth)
        case _:
            return value


def _lines(opening: bytes, lines: Sequence[bytes], closing: bytes, depth: int) -> bytes:
    if not lines:
        return opening + b" " + closing
    inner, outer = b"\n" + b"  " * (depth + 1), b"\n" + b"  " * depth
    return opening + inner + (b"," + inner).join(lines) + outer + closing
