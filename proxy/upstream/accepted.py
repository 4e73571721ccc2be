"""Which callers the engine has lately accepted, so that nobody's search costs money at the models before that.

A search without credentials that was accepted speaks for every caller.
"""

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cachetools import LRUCache

from proxy.bounds import ACCEPTED_CALLERS, ACCEPTED_INDICES
from proxy.http1.callers import CallerIdentities

LATELY_S = 600.0
"""How long an accepted search speaks for the next ones of these indices."""
ANONYMOUS = CallerIdentities().identity(())


class Accepted:
    """When the engine last accepted a search, by its caller and indices."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._callers: LRUCache[bytes, LRUCache[bytes, float]] = LRUCache(ACCEPTED_CALLERS)

    def note(self, caller: bytes, indices: bytes) -> None:
        """Note that a search of these indices was accepted just now."""
        times = self._callers.get(caller)
        if times is None:
            self._callers[caller] = times = LRUCache(ACCEPTED_INDICES)
        times[indices] = self._timer()

    def lately(self, caller: bytes, indices: bytes) -> bool:
        """Whether a search of these indices was accepted lately, of this caller or of one without credentials."""
        return any(self._is_late(name, indices) for name in (caller, ANONYMOUS))

    def _is_late(self, caller: bytes, indices: bytes) -> bool:
        times = self._callers.get(caller)
        at = times.get(indices) if times is not None else None
        return at is not None and self._timer() - at < LATELY_S

    def forget(self, caller: bytes) -> None:
        """Drop a caller whom the engine has turned away."""
        self._callers.pop(caller, None)


@dataclass(frozen=True, slots=True)
class AcceptedSearch:
    """The same of one caller's search."""

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
