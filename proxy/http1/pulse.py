"""Whether a node of the engine still says anything: a process that hangs accepts connections, and then is silent."""

import time
from collections.abc import Callable

SILENT_S = 1.0
"""Seconds without a byte from a node that has requests in progress, after which other nodes are used first."""


class Pulse:
    """What was heard from one node, on all connections to it."""

    __slots__ = ("_cluster", "_now", "_quiet_since", "_silent", "_waiting")

    def __init__(self, cluster: "list[Pulse] | None" = None, now: Callable[[], float] = time.monotonic) -> None:
        """Join the pulses of a cluster's other nodes; `now` returns the seconds of a monotonic clock."""
        self._now = now
        self._cluster = [] if cluster is None else cluster
        self._cluster.append(self)
        self._waiting = 0
        self._quiet_since = 0.0
        self._silent = False
        """Whether a request was given up while the node was silent, and nothing was heard since."""

    def asked(self) -> None:
        """Note that a request is sent."""
        if not self._waiting:
            self._quiet_since = self._now()
        self._waiting += 1

    def heard(self) -> None:
        self._quiet_since, self._silent = self._now(), False

    def ended(self) -> None:
        """Note that a request has its response, or was given up."""
        self._silent = self.is_silent
        self._waiting -= 1

    @property
    def is_silent(self) -> bool:
        return self._silent or (self._waiting > 0 and self._now() - self._quiet_since >= SILENT_S)

    @property
    def is_avoided(self) -> bool:
        """Whether the node is silent, and another is not."""
        return self.is_silent and not all(each.is_silent for each in self._cluster)
