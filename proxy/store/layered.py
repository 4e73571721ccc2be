"""A store in memory and one that several proxies share, as one store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proxy.store.contract import Counts, Store
from proxy.store.memory import MemoryStore

PROMOTED_S = 600.0
"""Seconds for which a value that another proxy stored is kept in memory."""


@dataclass(frozen=True, slots=True)
class MemoryFirst:
    """For values that never change under their key: memory answers what it can, the shared store the rest."""

    memory: MemoryStore
    shared: Store
    counts: Counts = field(default_factory=Counts)

    async def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        found = self.memory.peek(keys)
        missing = [key for key, value in zip(keys, found, strict=True) if value is None]
        if missing:
            theirs = dict(zip(missing, await self.shared.get(missing), strict=True))
            self.memory.set({key: value for key, value in theirs.items() if value is not None}, PROMOTED_S)
            found = [theirs.get(key) if value is None else value for key, value in zip(keys, found, strict=True)]
        self.counts.note(found)
        return found

    async def put(self, entries: Mapping[bytes, bytes], seconds: float) -> None:
        self.memory.set(entries, seconds)
        await self.shared.put(entries, seconds)


@dataclass(frozen=True, slots=True)
class SharedFirst:
    """For values that another proxy may have replaced: memory answers only what the shared store does not have."""

    memory: MemoryStore
    shared: Store
    counts: Counts = field(default_factory=Counts)

    async def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        found = await self.shared.get(keys)
        if None in found:
            found = [own if value is None else value for value, own in zip(found, self.memory.peek(keys), strict=True)]
        self.counts.note(found)
        return found

    async def put(self, entries: Mapping[bytes, bytes], seconds: float) -> None:
        self.memory.set(entries, seconds)
        await self.shared.put(entries, seconds)
