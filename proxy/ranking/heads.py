"""Heads of rankings, remembered for some seconds, so that the pages of one search are cut from one ranking."""

import hashlib

import msgspec
from cachetools import TTLCache

from proxy.planning import Plan
from proxy.ranking.paging import Head
from proxy.request.search_keys import Use


class Heads:
    """The heads of the last searches, by `head_key`."""

    def __init__(self, entries: int, seconds: float) -> None:
        self._heads: TTLCache[bytes, Head] = TTLCache(maxsize=entries, ttl=seconds)

    def get(self, key: bytes) -> Head | None:
        return self._heads.get(key)

    def put(self, key: bytes, head: Head) -> None:
        if self._heads.maxsize:
            self._heads[key] = head


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
        "window": plan.window,
        "explains": plan.explains,
    }
    return hashlib.sha256(caller + msgspec.json.encode(depends)).digest()
