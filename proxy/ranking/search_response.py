"""Parses a search response as far as the order of its hits requires, and renders it with another order.

Everything but scores, order and totals keeps the engine's bytes: members are `msgspec.Raw`.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import msgspec

from proxy.errors import Malformed
from proxy.parsing.aggregations import merged
from proxy.parsing.json_text import members_of, objects_of, plain_members_of, plain_objects_of
from proxy.parsing.sort_values import BY_SCORE, Sort, head_value
from proxy.ranking.explaining import MEMBER as EXPLANATION
from proxy.ranking.explaining import Explanation
from proxy.ranking.hits import GREATEST_SCORE, DocKey, Hit

RawMembers = dict[str, msgspec.Raw]


class _Reason(msgspec.Struct):
    type: str


class _ShardFailure(msgspec.Struct):
    reason: _Reason


class _Shards(msgspec.Struct):
    total: int = 0
    successful: int | None = None
    failed: int = 0
    failures: msgspec.Raw = msgspec.Raw(b"[]")

    @property
    def are_all_there(self) -> bool:
        """Whether all responded; OpenSearch does not count as failed those that no node has."""
        return not self.failed and (self.successful is None or self.successful >= self.total)

    @property
    def are_only_away(self) -> bool:
        """Whether the others are missing in the cluster at present, so that no search can reach them."""
        if not self.failed:
            return True
        try:
            kinds = {failure.reason.type for failure in _failures.decode(self.failures)}
        except msgspec.MsgspecError:
            return False
        return bool(kinds) and kinds <= _AWAY


class Total(msgspec.Struct, frozen=True):
    """The number of matching documents: exact (`eq`) or a lower bound (`gte`)."""

    value: int
    relation: str = "eq"

    def plus(self, more: int, *, most: bool | int) -> "Total":
        """Add documents to the count as the engine does: up to `most`, its `track_total_hits`."""
        if self.relation != "eq":
            return self
        count = self.value + more
        return Total(count) if isinstance(most, bool) or count <= most else Total(most, "gte")


@dataclass(frozen=True)  # without slots, for by_key
class SearchAnswer:
    """A parsed search response: its members in the engine's bytes, and its hits."""

    members: RawMembers
    hits_members: RawMembers
    hits: tuple[Hit, ...]
    total: Total | None
    total_is_number: bool
    max_score: float | None
    whole: bool
    """All shards responded, and none timed out or terminated early."""
    is_final: bool = False
    """It is not whole, but the same search again would find no more: its time was up, or shards are missing."""

    @cached_property
    def by_key(self) -> Mapping[DocKey, Hit]:
        return {hit.key: hit for hit in self.hits}

    @property
    def found_nothing(self) -> bool:
        """Whether no document matches; if hits are not counted, a `max_score` on any page shows that one does."""
        counted = self.total is not None and self.total.relation == "eq"
        return not self.hits and (self.total == Total(0) if counted else self.max_score is None)


_shards = msgspec.json.Decoder(_Shards)
_ALL_SHARDS = _Shards()
_failures = msgspec.json.Decoder(list[_ShardFailure])
_AWAY = frozenset(
    {
        "connect_transport_exception",
        "no_shard_available_action_exception",
        "node_closed_exception",
        "node_disconnected_exception",
        "node_not_connected_exception",
        "search_context_missing_exception",
        "search_context_missing_nodes_exception",
    }
)
"""The types of the failures that say that a node is gone, and not that the search is at fault."""
_flag = msgspec.json.Decoder(bool)
_name = msgspec.json.Decoder(str)
_total = msgspec.json.Decoder(int | Total)
_score = msgspec.json.Decoder(float | Literal["Infinity"] | None)
_FALSE, _NULL, _NO_NAME = msgspec.Raw(b"false"), msgspec.Raw(b"null"), msgspec.Raw(b'""')


def read_answer(body: bytes) -> SearchAnswer:
    """Parse a search response; raises Malformed."""
    try:
        members, hits_members, hits = split_at_hits(body) or split(body)
        total = _total.decode(hits_members["total"]) if "total" in hits_members else None
        timed_out, terminated = [_flag.decode(members.get(name, _FALSE)) for name in ("timed_out", "terminated_early")]
        shards = _shards.decode(members["_shards"]) if "_shards" in members else _ALL_SHARDS
        lacking = not shards.are_all_there
        return SearchAnswer(
            members=members,
            hits_members=hits_members,
            hits=tuple(map(_read_hit, hits)),
            total=_counted(total) if isinstance(total, int) else total,
            total_is_number=isinstance(total, int),
            max_score=_read_score(hits_members.get("max_score", _NULL)),
            whole=not (timed_out or terminated or lacking),
            is_final=(timed_out or lacking) and not terminated and shards.are_only_away,
        )
    except (ValueError, KeyError, RecursionError) as error:
        raise Malformed("engine", f"not the answer of a search: {error}") from error


def split(body: bytes) -> "_Split":
    """Split a response into its members, those of its `hits`, and those of each hit; raises like `members_of`."""
    members = members_of(body)
    hits_members = members_of(members["hits"])
    return members, hits_members, objects_of(hits_members["hits"])


def split_at_hits(body: bytes) -> "_Split | None":
    """Split a response as most are written, without reading its hits three times; None if it is another.

    Its hits are the first array, and end the response or precede the aggregations. If what is taken for the hits is an
    array, and the rest a response with an empty array in its place, then both are what they were taken for.
    """
    start = body.find(b"[")
    end = len(body) - len(_END) if body.endswith(_END) else body.rfind(_AGGREGATIONS)
    if end < start or not body.endswith(_HITS, 0, start):
        return None
    found = msgspec.Raw(memoryview(body)[start : end + 1])
    try:
        hits = plain_objects_of(found)
        members = plain_members_of(body[: start + 1] + body[end:])
        hits_members = plain_members_of(members["hits"])
    except (msgspec.DecodeError, KeyError):
        return None
    return members, hits_members | {"hits": found}, hits


_Split = tuple[RawMembers, RawMembers, list[RawMembers]]
_HITS, _END, _AGGREGATIONS = b'"hits":', b"]}}", b']},"aggregations":{'


def _counted(total: int) -> Total | None:
    """Read a total under `rest_total_hits_as_int`, where -1 means that hits are not counted."""
    return Total(total) if total >= 0 else None


def _read_hit(members: RawMembers) -> Hit:
    index, identity = _name.decode(members["_index"]), _name.decode(members["_id"])
    key = DocKey(index, identity, _name.decode(members.get("_routing", _NO_NAME)))
    return Hit(key, _read_score(members.get("_score", _NULL)) or 0.0, members)


def _read_score(raw: msgspec.Raw) -> float | None:
    """Read a score; one beyond a float is text on Elasticsearch 8.19.13, 9.4.3 and OpenSearch 2.19.1."""
    score = _score.decode(raw)
    return GREATEST_SCORE if score == "Infinity" else score


@dataclass(frozen=True, slots=True)
class Shown:
    """A hit of the response."""

    hit: Hit
    score: float | None = None
    """None keeps the engine's own."""
    explanation: Explanation | None = None
    value: float | None = None
    """The sort value in place of the score; None keeps the engine's own."""


@dataclass(frozen=True, slots=True)
class Page:
    """The page of a ranking to render: its hits with their scores, and the total and `max_score` of the ranking."""

    hits: Sequence[Shown]
    total: Total | None
    max_score: float | None
    aggregations: RawMembers = field(default_factory=dict)
    """Results in place of the client's own."""


def render_answer(
    answer: SearchAnswer, page: Page, sort: Sort = BY_SCORE, hidden: AbstractSet[str] = frozenset()
) -> bytes:
    """Render a page into the engine's response; everything else stays unchanged.

    If hits have sort values, the engine returns no `max_score` unless `track_scores` is set. `hidden` members of hits
    are removed.
    """
    opened = answer.hits_members | {"hits": _raw([_shown(shown, sort, hidden) for shown in page.hits])}
    tells_best = answer.max_score is not None or not sort.is_shown
    if "max_score" in opened and tells_best and page.max_score not in {None, answer.max_score}:
        opened["max_score"] = _raw(head_value(page.max_score, 0)) if sort.is_shown else number(page.max_score)
    if page.total is not None and "total" in opened and page.total != answer.total:
        opened["total"] = _raw(page.total.value if answer.total_is_number else page.total)
    members = answer.members | {"hits": opened}
    if page.aggregations and "aggregations" in members:
        members["aggregations"] = merged(answer.members["aggregations"], page.aggregations)
    return msgspec.json.encode(members)


def _shown(shown: Shown, sort: Sort, hidden: AbstractSet[str]) -> RawMembers:
    members = _members_of(shown, sort)
    return {name: value for name, value in members.items() if name not in hidden} if hidden else members


def _members_of(shown: Shown, sort: Sort) -> RawMembers:
    members = shown.hit.members
    if shown.score is not None:
        members = members | {"_score": number(shown.score)}
    if shown.value is not None and (values := shown.hit.sort_values()):
        own = _raw(shown.value)
        placed = [own if place in sort.places else msgspec.Raw(value) for place, value in enumerate(values)]
        members = members | {"_score": own, "sort": _raw(placed)}
    if shown.explanation is not None:
        members = members | {EXPLANATION: shown.explanation.render(shown.score)}
    return members


def number(score: float) -> msgspec.Raw:
    """Format a score as the engine does: a float with at most seven significant digits."""
    return _raw(float(f"{score:.7g}"))


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
