"""The scores of one query as a value of the store: 20 bytes a passage.

One value for all passages of a query, because an entry of the store takes several hundred bytes besides its value.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import starmap

from proxy.bounds import SCORES_OF_QUERY

ID_LENGTH = 8
"""Bytes of a passage's hash: enough to tell the passages of one query apart."""
_VERSION = 1
_LONGEST_NAME = 250
_HEAD = struct.Struct("<BB")
_PAIR = struct.Struct(f"<{ID_LENGTH}sdI")


@dataclass(frozen=True, slots=True)
class QueryScores:
    """The scores of one query by the hashes of its passages, all of one model."""

    model: str | None
    """The model that scored, if its responses name one."""
    scores: Mapping[bytes, tuple[float, int]]
    """Each score, and the Unix time in seconds at which it expires; the newest are last."""


NO_SCORES = QueryScores(None, {})


def encode(known: QueryScores, now: float) -> bytes:
    """Encode the newest scores that have not expired; empty if the model's name is too long or not valid text."""
    name = (known.model or "").encode("utf-8", "ignore")
    if len(name) > _LONGEST_NAME or name.decode() != (known.model or ""):
        return b""
    fresh = [(each, score, until) for each, (score, until) in known.scores.items() if until > now]
    pairs = b"".join(starmap(_PAIR.pack, fresh[-SCORES_OF_QUERY:]))
    return _HEAD.pack(_VERSION, len(name)) + name + pairs


def decode(value: bytes, now: float) -> QueryScores:
    """Decode the scores that have not expired; none if the value was not made by `encode`."""
    try:
        version, length = _HEAD.unpack_from(value)
        start = _HEAD.size + length
        name = value[_HEAD.size : start].decode()
        pairs = list(_PAIR.iter_unpack(value[start:]))
    except (struct.error, UnicodeDecodeError):
        return NO_SCORES
    scores = {each: (score, until) for each, score, until in pairs if until > now}
    if version != _VERSION or not all(math.isfinite(score) for score, _ in scores.values()):
        return NO_SCORES
    return QueryScores(name or None, scores) if scores else NO_SCORES
