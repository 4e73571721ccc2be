"""What an operator sees and switches while the proxy runs: its state, the kill switch, circuit breakers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from proxy.settings.rollout import Switches


class State(StrEnum):
    """What the process is doing; only a ready one is to be sent requests."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class BreakerAction(StrEnum):
    """What an operator may do to a circuit breaker."""

    OPEN = "open"
    CLOSE = "close"
    AUTO = "auto"


class Breakers(Protocol):
    """The circuit breakers before the models."""

    def states(self) -> Mapping[str, str]:
        """Return the state of each breaker, by its name, as in `BreakerState`."""
        ...

    def control(self, name: str, action: BreakerAction) -> None:
        """Hold a breaker open or closed, or give it back to its own judgement; raises KeyError for an unknown name."""
        ...


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of a reload."""

    error: str = ""
    """Why nothing was changed, with file, line and key; empty where the new settings are in force."""
    changed: Sequence[str] = ()
    """The keys whose new values are in force."""
    needs_restart: Sequence[str] = ()
    """The keys whose new values wait for the next start."""


class Operations(Protocol):
    """The running proxy, as the admin port sees it."""

    @property
    def switches(self) -> Switches: ...

    @property
    def state(self) -> State: ...

    @property
    def breakers(self) -> Breakers: ...

    def verdicts(self) -> Mapping[str, Any]:
        """Return what is known of engine and models, by service."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """Return the settings in force, secrets masked."""
        ...

    def metrics(self) -> bytes:
        """Write the metrics in the text format of Prometheus."""
        ...

    async def reload(self) -> Reloaded:
        """Read the settings again, and use them if they are valid."""
        ...
