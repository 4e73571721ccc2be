"""Which callers' searches the engine has recently accepted: only then may a search cost money at the models.

An accepted search without credentials counts for every caller.
"""

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cachetools import LRUCache

from proxy.bounds import ACCEPTED_CALLERS, ACCEPTED_INDICES
from proxy.http1.callers import CallerIdentities

LATELY_S = 600.0
"""Seconds for which an accepted search counts for later searches of the same indices."""
ANONYMOUS = CallerIdentities().identity(())


class Accepted:
    """When the engine last accepted a search, by caller and indices."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._callers: LRUCache[bytes, LRUCache[bytes, float]] = LRUCache(ACCEPTED_CALLERS)

    def note(self, caller: bytes, indices: bytes) -> None:
        """Record that a search of these indices has been accepted now."""
        times = self._callers.get(caller)
        if times is None:
            self._callers[caller] = times = LRUCache(ACCEPTED_INDICES)
        times[indices] = self._timer()

    def lately(self, caller: bytes, indices: bytes) -> bool:
        """Whether a search of these indices by this caller, or by one without credentials, was accepted recently."""
        return any(self._is_late(name, indices) for name in (caller, ANONYMOUS))

    def _is_late(self, caller: bytes, indices: bytes) -> bool:
        times = self._callers.get(caller)
        at = times.get(indices) if times is not None else None
        return at is not None and self._timer() - at < LATELY_S

    def forget(self, caller: bytes) -> None:
        """Remove a caller whom the engine has rejected."""
        self._callers.pop(caller, None)


@dataclass(frozen=True, slots=True)
class AcceptedSearch:
    """The same, for one caller's search."""

    accepted: Accepted
    caller: bytes
    indices: bytes

    @classmethod
    def of(cls, accepted: Accepted, caller: bytes, names: Iterable[str]) -> "AcceptedSearch":
        return cls(accepted, caller, hashlib.sha256("\0".join(sorted(names)).encode()).digest())

    def lately(self) -> bool:
        return self.accepted.lately(self.caller, self.indices)

    def note(self) -> None:
        self.accepted.note(self.caller, self.indices)
