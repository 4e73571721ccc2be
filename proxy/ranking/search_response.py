"""The engine's answer to a search, opened only as far as the order of its hits, and closed again.

What is not a score, an order or a total keeps the engine's own bytes: members are `msgspec.Raw`. With `?pretty`
the opened levels are written as the engine indents them (Jackson's default pretty printer), so the bytes inside
need no touch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from proxy.errors import Malformed
from proxy.ranking.explaining import MEMBER as EXPLANATION
from proxy.ranking.explaining import Explanation
from proxy.ranking.hits import DocKey, Hit
from proxy.request.json_text import items_of, members_of

RawMembers = dict[str, msgspec.Raw]


class _Shards(msgspec.Struct):
    failed: int = 0


class Total(msgspec.Struct, frozen=True):
    """How many documents match: exactly (`eq`) or at least (`gte`) that many."""

    value: int
    relation: str = "eq"

    def plus(self, more: int) -> "Total":
        return Total(self.value + more, self.relation)


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """An engine's answer: its members as sent, its hits apart."""

    members: RawMembers
    hits_members: RawMembers
    hits: tuple[Hit, ...]
    total: Total | None
    total_is_number: bool
    max_score: float | None
    whole: bool
    """Every shard answered, in time."""

    @property
    def by_key(self) -> dict[DocKey, Hit]:
        return {hit.key: hit for hit in self.hits}

    @property
    def found_nothing(self) -> bool:
        return not self.hits and (self.total is None or self.total.value == 0)


_shards = msgspec.json.Decoder(_Shards)
_flag = msgspec.json.Decoder(bool)
_name = msgspec.json.Decoder(str)
_total = msgspec.json.Decoder(int | Total)
_score = msgspec.json.Decoder(float | None)
_FALSE, _NULL, _NO_NAME = msgspec.Raw(b"false"), msgspec.Raw(b"null"), msgspec.Raw(b'""')


def read_answer(body: bytes) -> SearchAnswer:
    """Open an answer; raises Malformed where it is not one."""
    try:
        members = members_of(body)
        hits_members = members_of(members["hits"])
        total = _total.decode(hits_members["total"]) if "total" in hits_members else None
        return SearchAnswer(
            members=members,
            hits_members=hits_members,
            hits=tuple(_read_hit(raw) for raw in items_of(hits_members["hits"])),
            total=_counted(total) if isinstance(total, int) else total,
            total_is_number=isinstance(total, int),
            max_score=_score.decode(hits_members.get("max_score", _NULL)),
            whole=_is_whole(members),
        )
    except (ValueError, KeyError, RecursionError) as error:
        raise Malformed("engine", f"not the answer of a search: {error}") from error


def _counted(total: int) -> Total | None:
    """Read `rest_total_hits_as_int`: -1 stands for hits that were not counted."""
    return Total(total) if total >= 0 else None


def _is_whole(members: RawMembers) -> bool:
    cut_short = any(_flag.decode(members.get(name, _FALSE)) for name in ("timed_out", "terminated_early"))
    return not cut_short and not ("_shards" in members and _shards.decode(members["_shards"]).failed)


def _read_hit(raw: msgspec.Raw) -> Hit:
    members = members_of(raw)
    index, identity = _name.decode(members["_index"]), _name.decode(members["_id"])
    key = DocKey(index, identity, _name.decode(members.get("_routing", _NO_NAME)))
    return Hit(key, _score.decode(members.get("_score", _NULL)) or 0.0, members)


@dataclass(frozen=True, slots=True)
class Shown:
    """A hit as it is shown."""

    hit: Hit
    score: float | None = None
    """None keeps the engine's own."""
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """What of a ranking is shown: hits with the scores they get, and the ranking's total and best score."""

    hits: Sequence[Shown]
    total: Total | None
    max_score: float | None


def render_answer(answer: SearchAnswer, page: Page, *, pretty: bool = False) -> bytes:
    """Put a page into the engine's answer, everything else as it was."""
    hits = [_object(_members_of(shown), 3, pretty=pretty) for shown in page.hits]
    opened = answer.hits_members | {"hits": _array(hits, 2, pretty=pretty)}
    if "max_score" in opened and page.max_score not in {None, answer.max_score}:
        opened["max_score"] = number(page.max_score)
    if page.total is not None and "total" in opened and page.total != answer.total:
        opened["total"] = _render_total(page.total, answer, pretty=pretty)
    members = answer.members | {"hits": _object(opened, 1, pretty=pretty)}
    return bytes(_object(members, 0, pretty=pretty)) + (b"\n" if pretty else b"")


def _members_of(shown: Shown) -> RawMembers:
    members = shown.hit.members
    if shown.score is not None:
        members = members | {"_score": number(shown.score)}
    if shown.explanation is not None:
        members = members | {EXPLANATION: shown.explanation.render(shown.score)}
    return members


def _render_total(total: Total, answer: SearchAnswer, *, pretty: bool) -> msgspec.Raw:
    if answer.total_is_number:
        return msgspec.Raw(b"%d" % total.value)
    members = {"value": b"%d" % total.value, "relation": b'"%s"' % total.relation.encode()}
    return _object({name: msgspec.Raw(value) for name, value in members.items()}, 2, pretty=pretty)


def number(score: float) -> msgspec.Raw:
    """A score as the engine prints one: a float, seven significant digits at most."""
    return msgspec.Raw(msgspec.json.encode(float(f"{score:.7g}")))


def _object(members: Mapping[str, msgspec.Raw], depth: int, *, pretty: bool) -> msgspec.Raw:
    if not pretty:
        return msgspec.Raw(msgspec.json.encode(members))
    lines = [msgspec.json.encode(name) + b" : " + bytes(value) for name, value in members.items()]
    return _indented(b"{", lines, b"}", depth)


def _array(items: Sequence[msgspec.Raw], depth: int, *, pretty: bool) -> msgspec.Raw:
    if not pretty:
        return msgspec.Raw(msgspec.json.encode(items))
    return _indented(b"[", [bytes(item) for item in items], b"]", depth)


def _indented(opening: bytes, lines: Sequence[bytes], closing: bytes, depth: int) -> msgspec.Raw:
    if not lines:
        return msgspec.Raw(opening + b" " + closing)
    inner, outer = b"\n" + b"  " * (depth + 1), b"\n" + b"  " * depth
    return msgspec.Raw(opening + inner + (b"," + inner).join(lines) + outer + closing)
