"""What operators see and control at run time: the state, the kill switch and the circuit breakers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from proxy.settings.rollout import Switches
from proxy.upstream.spending.report import Costs


class State(StrEnum):
    """The state of the process; load balancers should send requests only to a ready one."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class BreakerAction(StrEnum):
    """What an operator can do to a circuit breaker."""

    OPEN = "open"
    CLOSE = "close"
    AUTO = "auto"


class Breakers(Protocol):
    """The circuit breakers of the models."""

    def states(self) -> Mapping[str, str]:
        """Return the state of each breaker by its name, as in `BreakerState`."""
        ...

    def control(self, name: str, action: BreakerAction) -> None:
        """Fix a breaker open or closed, or return it to automatic operation; raises KeyError for an unknown name."""
        ...


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The result of a reload."""

    error: str = ""
    """Why the settings were not changed, with file, line and key; empty on success."""
    changed: Sequence[str] = ()
    """The keys whose new values are in force."""
    needs_restart: Sequence[str] = ()
    """The keys whose new values take effect after a restart."""


class Operations(Protocol):
    """The running proxy, as the admin port uses it."""

    @property
    def switches(self) -> Switches: ...

    @property
    def state(self) -> State: ...

    @property
    def breakers(self) -> Breakers: ...

    def verdicts(self) -> Mapping[str, Any]:
        """Return what is known about the engine and the models, by service."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """Return the settings in force, secrets masked."""
        ...

    def costs(self) -> Costs:
        """Return what the models cost, by route, model and day."""
        ...

    def metrics(self) -> bytes:
        """Return the metrics in the text format of Prometheus."""
        ...

    async def reload(self) -> Reloaded:
        """Read the settings again, and apply them if they are valid."""
        ...
