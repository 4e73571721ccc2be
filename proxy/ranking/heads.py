"""A cache of reranked heads with a time to live, so that all pages of a search are cut from the same ranking."""

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
    """The heads of recent searches by `head_key`, limited in number and in bytes."""

    def __init__(self, entries: int, seconds: float, bytes_max: int = HEADS_BYTES) -> None:
        least = bytes_max / max(entries, 1)  # each entry weighs at least its share, which limits the number
        self._heads: TTLCache[bytes, Head] = TTLCache(
            bytes_max if entries else 0, seconds, getsizeof=lambda head: max(size_of(head), least)
        )

    def get(self, key: bytes) -> Head | None:
        return self._heads.get(key)

    def put(self, key: bytes, head: Head) -> None:
        """Cache a head, unless it is larger than the whole cache."""
        with suppress(ValueError):
            self._heads[key] = head


def size_of(head: Head) -> int:
    """Estimate the memory that a head takes, in bytes."""
    texts = sum(len(scored.key.index) + len(scored.key.id) + len(scored.key.routing) for scored in head.ranking)
    groups = sum(len(group) for group in head.groups.values() if group)
    return 1000 + _PLACE * len(head.ranking) + texts + groups + _EXPLANATION * len(head.explanations)


def head_key(plan: Plan, caller: bytes) -> bytes:
    """Hash everything that determines a head: caller identity, indices, query and route, but not the page."""
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
