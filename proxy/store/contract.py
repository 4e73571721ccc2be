"""The contract of a store, and its keys.

Values hold ids and numbers, keys are keyed hashes: neither tells the text of a user or a document.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import Protocol

KEY_LENGTH = 25
"""A byte for the kind, and a hash of 192 bits."""
_SECRET_LENGTH = 64  # the longest key of blake2b


class Kind(Enum):
    """What a value is; its byte is the first of the key, so that keys of different kinds never collide."""

    RANKINGS = b"r"
    SCORES = b"s"
    VECTORS = b"v"

    @property
    def label(self) -> str:
        """The kind's name in settings, metrics and logs."""
        return self.name.lower()


class Store(Protocol):
    """Bytes by key with a time to live, shared by whatever may be shared.

    It never raises, and never blocks longer than its timeout; a store that is away answers as if it were empty.
    """

    async def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return the value of each key, in their order; None if there is none."""
        ...

    async def put(self, entries: Mapping[bytes, bytes], seconds: float) -> None:
        """Store the entries for this many seconds; any of them may be dropped earlier."""
        ...


class Keys:
    """Hashes what determines a value, with a secret, so that nobody without it can test a key for a guessed text."""

    def __init__(self, secret: bytes) -> None:
        hashed = blake2b(secret, digest_size=_SECRET_LENGTH).digest()
        self._begun = blake2b(key=hashed, digest_size=KEY_LENGTH - 1)

    def __repr__(self) -> str:
        return "Keys(***)"

    def key(self, kind: Kind, *parts: bytes | str) -> bytes:
        """Return the key of the value that these parts determine."""
        return kind.value + self._hashed(parts).digest()

    def keys_of(self, kind: Kind, parts: Sequence[bytes | str], last: Iterable[str]) -> list[bytes]:
        """Return the key of each value that these parts and one of the last ones determine."""
        begun, of_kind, found = self._hashed(parts), kind.value, []
        for each in last:
            hashed = begun.copy()
            hashed.update(_framed(each))
            found.append(of_kind + hashed.digest())
        return found

    def _hashed(self, parts: Sequence[bytes | str]) -> blake2b:
        hashed = self._begun.copy()
        for part in parts:
            hashed.update(_framed(part))
        return hashed


def _framed(part: bytes | str) -> bytes:
    """Precede a part with its length, so that no two lists of parts have the same hash."""
    value = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
    return b"%d:%b" % (len(value), value)


@dataclass(frozen=True, slots=True)
class Timed:
    """A value, and the seconds that it has left."""

    value: bytes
    seconds: float


class SharedStore(Store, Protocol):
    """A store that others write to as well."""

    async def get_timed(self, keys: Sequence[bytes]) -> Sequence[Timed | None]:
        """Like `get`, with the time that each value has left."""
        ...


@dataclass(slots=True)
class Counts:
    """How many look-ups found a value since the store was created."""

    hits: int = 0
    misses: int = 0

    def note(self, found: Sequence[bytes | None]) -> None:
        """Count the results of one look-up."""
        misses = found.count(None)
        self.misses += misses
        self.hits += len(found) - misses


@dataclass(frozen=True, slots=True)
class CacheRegion:
    """The values of one kind: where they are stored, under which keys, and for how long."""

    kind: Kind
    store: Store
    keys: Keys
    seconds: float

    def key(self, *parts: bytes | str) -> bytes:
        """Return the key of the value that these parts determine."""
        return self.keys.key(self.kind, *parts)

    def keys_of(self, parts: Sequence[bytes | str], last: Iterable[str]) -> list[bytes]:
        """Return the key of each value that these parts and one of the last ones determine."""
        return self.keys.keys_of(self.kind, parts, last)

    async def get(self, key: bytes) -> bytes | None:
        """Return one value; None if there is none."""
        return (await self.store.get((key,)))[0]

    async def put(self, key: bytes, value: bytes) -> None:
        """Store one value."""
        await self.store.put({key: value}, self.seconds)
