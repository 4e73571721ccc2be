"""The circuit breakers of the models, as the admin port shows and controls them."""

import time
from collections.abc import Callable, Mapping

from proxy.app.control import BreakerAction
from proxy.upstream.breaker import BreakerHold, BreakerState
from proxy.upstream.guard import Guards

_HOLDS: Mapping[BreakerAction, BreakerHold | None] = {
    BreakerAction.OPEN: BreakerHold.OPEN,
    BreakerAction.CLOSE: BreakerHold.CLOSED,
    BreakerAction.AUTO: None,
}


class ModelBreakers:
    """The breakers of the models in use, by service and name: `reranker Qwen/Qwen3-Reranker-4B`."""

    def __init__(self, guards: Callable[[], Guards], now: Callable[[], float] = time.monotonic) -> None:
        self._guards = guards
        self._now = now

    def states(self) -> Mapping[str, BreakerState]:
        now = self._now()
        return {" ".join(key): guard.breaker.state(now) for key, guard in self._guards().all}

    def control(self, name: str, action: BreakerAction) -> None:
        guards = {" ".join(key): guard for key, guard in self._guards().all}
        guards[name].breaker.hold(_HOLDS[action])
