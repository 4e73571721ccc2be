"""A cache of reranked heads with a time to live, so that all pages of a search are cut from the same ranking.

A head is stored as ids and numbers. Heads with and without failures have keys of their own, so that a degraded ranking
never replaces one that is whole, whichever proxy made them.
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from proxy.errors import Failure
from proxy.parsing.search_keys import Use
from proxy.ranking.explaining import Explanation
from proxy.ranking.hits import DocKey, Scored
from proxy.ranking.paging import Head, Proof, Recipe
from proxy.ranking.planning import Plan
from proxy.ranking.search_response import Total
from proxy.settings.config import Config
from proxy.store.contract import CacheRegion

_FORMAT = b"2"
"""Part of every key. Change it with the encoding, so that versions of the proxy do not read each other's values."""
_WHOLE, _DEGRADED = b"w", b"d"


class Heads:
    """The heads of recent searches, by `head_key`."""

    def __init__(self, region: CacheRegion, scope: bytes = b"") -> None:
        self._region = region
        self._scope = scope
        self._storing: set[asyncio.Task[None]] = set()

    async def get(self, key: bytes) -> Head | None:
        """Return the head without failures, or else the one with failures.

        The proof of a head expires after the usual time, even if frequent use keeps the head cached. So its scores
        expire, too.
        """
        values = await self._region.store.get([self._key(state, key) for state in (_WHOLE, _DEGRADED)])
        heads = (decode_head(value) for value in values if value is not None)
        head = next((head for head in heads if head is not None), None)
        proof = head.recipe.proof if head else None
        if head is None or proof is None or abs(time.time() - proof.made) <= self._region.seconds:
            return head
        return replace(head, recipe=replace(head.recipe, proof=None))

    async def put(self, key: bytes, head: Head) -> None:
        state = _DEGRADED if head.failures else _WHOLE
        await self._region.put(self._key(state, key), encode_head(head))

    def keep(self, key: bytes, head: Head) -> None:
        """Store a head in the background, so that the search does not wait for it."""
        task = asyncio.ensure_future(self.put(key, head))
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)

    def _key(self, state: bytes, key: bytes) -> bytes:
        return self._region.key(_FORMAT, state, self._scope, key)


class _Stored(msgspec.Struct, array_like=True):
    """A head by columns. Failures have no detail, because that may quote a response of a service."""

    indices: list[str]
    index: list[int]
    ids: list[str]
    routings: list[str]
    """Empty if no document has one."""
    scores: list[float]
    total: Total | None
    extras: int
    untouched: bool
    failures: list[tuple[str, str, bool]]
    groups: list[bytes | None]
    """Empty if hits are not collapsed."""
    explanations: list[tuple[DocKey, Explanation]]
    counted: bool | int | None
    asked: dict[str, list[int]]
    """The documents of each added search, as indices into the other columns."""
    words: float
    proof: Proof | None


_decoder = msgspec.msgpack.Decoder(_Stored)


def encode_head(head: Head) -> bytes:
    """Encode a head for a store."""
    keys, routings = head.keys, [key.routing for key in head.keys]
    numbers = {index: number for number, index in enumerate(dict.fromkeys([key.index for key in keys]))}
    return msgspec.msgpack.encode(
        _Stored(
            list(numbers),
            [numbers[key.index] for key in keys],
            [key.id for key in keys],
            routings if any(routings) else [],
            [scored.score for scored in head.ranking],
            head.total,
            head.extras,
            head.untouched,
            [(failure.stage, failure.reason, failure.by_design) for failure in head.failures],
            [head.groups.get(key) for key in keys] if head.groups else [],
            list(head.explanations.items()),
            head.counted,
            _places(keys, head.recipe),
            head.recipe.words,
            head.recipe.proof,
        )
    )


def decode_head(value: bytes) -> Head | None:
    """Decode a head; None if the value is none."""
    try:
        stored = _decoder.decode(value)
        keys = _keys(stored)
        return Head(
            tuple(Scored(key, score) for key, score in zip(keys, stored.scores, strict=True)),
            stored.total,
            stored.extras,
            stored.untouched,
            tuple(Failure(stage, reason, by_design=by_design) for stage, reason, by_design in stored.failures),
            _groups(keys, stored.groups),
            dict(stored.explanations),
            stored.counted,
            _recipe(keys, stored),
        )
    except (ValueError, IndexError):
        return None


def _keys(stored: _Stored) -> Sequence[DocKey]:
    routings = stored.routings or [""] * len(stored.ids)
    return [
        DocKey(stored.indices[number], id_, routing)
        for number, id_, routing in zip(stored.index, stored.ids, routings, strict=True)
    ]


def _places(keys: Sequence[DocKey], recipe: Recipe) -> dict[str, list[int]]:
    places = {key: place for place, key in enumerate(keys)}
    return {stage: [places[key] for key in documents] for stage, documents in recipe.documents.items()}


def _recipe(keys: Sequence[DocKey], stored: _Stored) -> Recipe:
    documents = {stage: tuple(keys[place] for place in places) for stage, places in stored.asked.items()}
    return Recipe(documents, stored.words, stored.proof)


def _groups(keys: Sequence[DocKey], groups: Sequence[bytes | None]) -> Mapping[DocKey, bytes | None]:
    return dict(zip(keys, groups, strict=True)) if groups else {}


def scope_of(config: Config) -> bytes:
    """Hash the settings that determine rankings: proxies share rankings only if these are equal."""
    models = config.models
    depends = (
        config.engine.urls,
        config.engine.host,
        config.callers,
        config.routes,
        (models.url, models.embed_api, models.rerank_url, models.rerank_api),
        (models.query_max_chars, models.passage_max_tokens),
    )
    return hashlib.sha256(msgspec.json.encode(depends)).digest()


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
