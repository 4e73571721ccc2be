"""A store in memory and one that several proxies share, as one store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proxy.store.contract import Counts, SharedStore, Store, Timed
from proxy.store.memory import MemoryStore


@dataclass(frozen=True, slots=True)
class MemoryFirst:
    """For values that never change under their key: reads memory first, then the shared store for the rest."""

    memory: MemoryStore
    shared: SharedStore
    counts: Counts = field(default_factory=Counts)

    async def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        found = self.memory.peek(keys)
        missing = [key for key, value in zip(keys, found, strict=True) if value is None]
        if missing:
            theirs = self._promoted(missing, await self.shared.get_timed(missing))
            found = [theirs.get(key) if value is None else value for key, value in zip(keys, found, strict=True)]
        self.counts.note(found)
        return found

    def _promoted(self, keys: Sequence[bytes], found: Sequence[Timed | None]) -> Mapping[bytes, bytes]:
        """Copy what other proxies have stored to memory, for the time that it has left."""
        theirs = {key: timed for key, timed in zip(keys, found, strict=True) if timed is not None}
        for key, timed in theirs.items():
            self.memory.set({key: timed.value}, timed.seconds)
        return {key: timed.value for key, timed in theirs.items()}

    async def put(self, entries: Mapping[bytes, bytes], seconds: float) -> None:
        self.memory.set(entries, seconds)
        await self.shared.put(entries, seconds)


@dataclass(frozen=True, slots=True)
class SharedFirst:
    """For values that another proxy may have changed: reads the shared store first, then memory for the rest."""

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
