"""A store in the memory of this process: S3-FIFO, limited in bytes.

New entries wait in a small queue. Those that are used more than once there, or come back soon after they were dropped,
go to the main queue; so a scan, which is many entries that nobody uses again, does not displace what is used often
(Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023).

Libraries do not fit: theine 2.0 (W-TinyLFU) and s3fifo limit the number of entries, not their bytes, and theine runs
threads; cachetools has no policy that resists scans.
"""

import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.store.contract import CacheRegion, Counts, Keys, Kind

ENTRY_SIZE = 300
"""The memory of an entry besides its value: its key, and its places in the dictionary and the queue."""
_GHOST_SIZE = 150
_SMALL_SHARE = 0.1
_COUNTED_USES = 3
_SPARED = 16
"""Entries that one eviction spares because they were used, so that no call takes long."""
_NEVER = float("-inf")


@dataclass(slots=True)
class _Queue:
    """Entries in the order in which they came, and their size in bytes."""

    entries: "deque[_Entry]" = field(default_factory=deque)
    size: int = 0

    def add(self, entry: "_Entry") -> None:
        entry.queue = self
        self.entries.append(entry)
        self.size += entry.size

    def take(self) -> "_Entry":
        entry = self.entries.popleft()
        self.size -= entry.size
        return entry


@dataclass(slots=True)
class _Entry:
    key: bytes
    value: bytes
    until: float
    queue: _Queue
    uses: int = 0

    @property
    def size(self) -> int:
        return len(self.value) + ENTRY_SIZE

    def replace(self, value: bytes, until: float) -> None:
        self.queue.size += len(value) - len(self.value)
        self.value, self.until = value, until


class MemoryStore:
    """Values by key in at most `bytes_max` bytes, as estimated; with 0 it stores nothing."""

    def __init__(self, bytes_max: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_max = bytes_max
        self.counts = Counts()
        self.evictions = 0
        """Entries that were dropped before the end of their time."""
        self._clock = clock
        self._entries: dict[bytes, _Entry] = {}
        self._small, self._main = _Queue(), _Queue()
        self._ghosts: OrderedDict[int, None] = OrderedDict()
        """Hashes of keys that were dropped from the small queue."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """The bytes in use, as estimated."""
        return self._small.size + self._main.size + _GHOST_SIZE * len(self._ghosts)

    async def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        return self.peek(keys)

    async def put(self, entries: Mapping[bytes, bytes], seconds: float) -> None:
        self.set(entries, seconds)

    def peek(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Like `get`, where nothing can be awaited."""
        now = self._clock()
        found = [self._used(self._entries.get(key), now) for key in keys]
        self.counts.note(found)
        return found

    def set(self, entries: Mapping[bytes, bytes], seconds: float) -> None:
        """Like `put`, where nothing can be awaited."""
        now = self._clock()
        for key, value in entries.items():
            self._drop_expired(self._small, now)
            self._drop_expired(self._main, now)
            self._store(key, value, now + seconds)
            while self.size > self.bytes_max:
                self._evict(now)

    @staticmethod
    def _used(entry: _Entry | None, now: float) -> bytes | None:
        if entry is None or entry.until <= now:
            return None
        entry.uses = min(entry.uses + 1, _COUNTED_USES)
        return entry.value

    def _store(self, key: bytes, value: bytes, until: float) -> None:
        known = self._entries.get(key)
        if len(value) + ENTRY_SIZE > self.bytes_max:
            if known is not None:
                known.replace(b"", _NEVER)
        elif known is not None:
            known.replace(value, until)
        else:
            queue = self._main if hash(key) in self._ghosts else self._small
            self._ghosts.pop(hash(key), None)
            self._entries[key] = entry = _Entry(key, value, until, queue)
            queue.add(entry)

    def _drop_expired(self, queue: _Queue, now: float) -> None:
        """Drop the first entry if it has expired: with equal times to live, the first is the first to expire."""
        if queue.entries and queue.entries[0].until <= now:
            del self._entries[queue.take().key]

    def _evict(self, now: float) -> None:
        if len(self._ghosts) > len(self._entries):
            self._ghosts.popitem(last=False)
        elif not self._main.entries or self._small.size >= self.bytes_max * _SMALL_SHARE:
            self._evict_small(now)
        else:
            self._evict_main(now)

    def _evict_small(self, now: float) -> None:
        entry = self._small.take()
        if entry.until > now and entry.uses > 1:
            entry.uses = 0
            self._main.add(entry)
            return
        if entry.until > now:
            self._ghosts[hash(entry.key)] = None
        self._forget(entry, now)

    def _evict_main(self, now: float) -> None:
        entry = self._main.take()
        for _ in range(_SPARED):
            if entry.until <= now or not entry.uses:
                break
            entry.uses -= 1
            self._main.add(entry)
            entry = self._main.take()
        self._forget(entry, now)

    def _forget(self, entry: _Entry, now: float) -> None:
        del self._entries[entry.key]
        self.evictions += entry.until > now


def memory_region(kind: Kind, bytes_max: int, seconds: float = 60.0, keys: Keys | None = None) -> CacheRegion:
    """Create a region in memory alone; with 0 bytes it stores nothing."""
    return CacheRegion(kind, MemoryStore(bytes_max), keys or Keys(secrets.token_bytes()), seconds)
