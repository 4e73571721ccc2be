"""Heads of rankings, remembered for some seconds, so that the pages of one search are cut from one ranking."""

import hashlib
from contextlib import suppress

import msgspec
from cachetools import TTLCache

from proxy.bounds import HEADS_BYTES
from proxy.parsing.search_keys import Use
from proxy.ranking.paging import Head
from proxy.ranking.planning import Plan

_PLACE, _EXPLANATION = 400, 700


class Heads:
    """The heads of the last searches, by `head_key`: so many, and so many bytes of them."""

    def __init__(self, entries: int, seconds: float, bytes_max: int = HEADS_BYTES) -> None:
        least = bytes_max / max(entries, 1)  # as much as its share of the entries counts each at the least
        self._heads: TTLCache[bytes, Head] = TTLCache(
            bytes_max if entries else 0, seconds, getsizeof=lambda head: max(size_of(head), least)
        )

    def get(self, key: bytes) -> Head | None:
        return self._heads.get(key)

    def put(self, key: bytes, head: Head) -> None:
        """Remember a head; one that is larger than all may be together is not."""
        with suppress(ValueError):
            self._heads[key] = head


def size_of(head: Head) -> int:
    """Estimate the bytes that a head takes in memory."""
    texts = sum(len(scored.key.index) + len(scored.key.id) + len(scored.key.routing) for scored in head.ranking)
    groups = sum(len(group) for group in head.groups.values() if group)
    return 1000 + _PLACE * len(head.ranking) + texts + groups + _EXPLANATION * len(head.explanations)


def head_key(plan: Plan, caller: bytes) -> bytes:
    """Digest everything that a head depends on: who asks, where, for what, by which route; not which page."""
    request = plan.request
    depends = {
        "route": plan.route.name,
        "indices": plan.indices,
        "parameters": sorted(request.url(Use.ORDER, Use.SORTED, Use.EVERYWHERE)),
        "query": request.query,
        "post_filter": request.post_filter,
        "members": request.body(Use.ORDER, Use.SORTED, Use.EVERYWHERE),
        "collapse": request.collapse,
        "retriever": request.members.get("retriever"),
        "pipeline": request.pipeline,
        "words": plan.user_query.text,
        "instruction": plan.instruction,
        "window": plan.window_at_rest or plan.window,
        "explains": plan.explains,
    }
    return hashlib.sha256(caller + msgspec.json.encode(depends)).digest()
