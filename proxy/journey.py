"""What is known of a search while it is on its way, for its one line in the log and its response headers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from proxy import telemetry
from proxy.bounds import LOG_ID
from proxy.http1.callers import Field, field_value
from proxy.planning import Plan
from proxy.ranking.stages import Clock
from proxy.routes import Route
from proxy.telemetry import SearchLine, Told


@dataclass(slots=True)
class Journey:
    """One search, from when it came until it is answered."""

    opaque_id: str
    begun: float = field(default_factory=time.perf_counter)
    clock: Clock = field(default_factory=Clock)
    route: Route | None = None
    plan: Plan | None = None
    candidates: int = 0

    @classmethod
    def of(cls, fields: Sequence[Field]) -> "Journey":
        return cls(field_value(fields, b"x-opaque-id")[: 4 * LOG_ID].decode("utf-8", "replace"))

    def conclude(self, told: Told, *, query_text: bool) -> Sequence[Field]:
        """Write the search's line in the log, and return the headers that say the same."""
        self.clock.stages["total"] = (time.perf_counter() - self.begun) * 1000
        telemetry.log_search(
            SearchLine(
                id=self.opaque_id or uuid4().hex,
                route=self.route.name if self.route else "",
                told=told,
                stages=self.clock.stages,
                window=self.plan.window if self.plan else 0,
                candidates=self.candidates,
                query=self.plan.user_query.text if self.plan and query_text else None,
            ),
        )
        return telemetry.fields_of(told, self.clock.stages)
