"""Whether a node of the engine still says anything: a process that hangs accepts connections, and then is silent."""

SILENT_S = 1.0
"""Seconds without a byte from a node that has requests in progress, after which other nodes are used first."""


class Pulse:
    """What was heard from one node, on all connections to it; times are seconds of a monotonic clock."""

    __slots__ = ("_cluster", "_quiet_since", "_silent", "_waiting")

    def __init__(self, cluster: "list[Pulse] | None" = None) -> None:
        """Join the pulses of a cluster's other nodes."""
        self._cluster = [] if cluster is None else cluster
        self._cluster.append(self)
        self._waiting = 0
        self._quiet_since = 0.0
        self._silent = False
        """Whether a request was given up while the node was silent, and nothing was heard since."""

    def asked(self, now: float) -> None:
        """Note that a request is sent."""
        if not self._waiting:
            self._quiet_since = now
        self._waiting += 1

    def heard(self, now: float) -> None:
        self._quiet_since, self._silent = now, False

    def ended(self, now: float) -> None:
        """Note that a request has its response, or was given up."""
        self._silent = self.is_silent(now)
        self._waiting -= 1

    def is_silent(self, now: float) -> bool:
        return self._silent or (self._waiting > 0 and now - self._quiet_since >= SILENT_S)

    def is_avoided(self, now: float) -> bool:
        """Whether the node is silent, and another is not."""
        return self.is_silent(now) and not all(each.is_silent(now) for each in self._cluster)
