"""Warns if many searches of a route time out, with the latency of its models."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from proxy.bounds import WATCHED_SEARCHES
from proxy.context import SearchRecord
from proxy.outcomes import Outcome

WARNED_SHARE = 0.2
"""A route gets a warning above this share of timeouts; the next one only after the share has fallen to half of it."""
SEARCHES_TO_JUDGE = 50
"""The minimum number of searches for a warning."""

_OF_TIME = frozenset({"timeout", "slow_model"})
_MODEL_STAGES = ("embed", "rerank")
_log = structlog.get_logger("proxy")


@dataclass(frozen=True, slots=True)
class _Search:
    is_late: bool
    ms: Mapping[str, float]
    """The latency of its model calls; for an abandoned call, the time until then."""


@dataclass(slots=True)
class _Route:
    searches: deque[_Search] = field(default_factory=deque)
    late: int = 0
    """The number of late searches among them."""
    is_warned: bool = False

    def add(self, search: _Search) -> None:
        self.searches.append(search)
        self.late += search.is_late
        if len(self.searches) > WATCHED_SEARCHES:
            self.late -= self.searches.popleft().is_late

    @property
    def late_share(self) -> float:
        return self.late / len(self.searches)


class SlowRoutes:
    """Recent searches of each route that were reranked or degraded."""

    def __init__(self) -> None:
        self._routes: dict[str, _Route] = {}

    def note(self, search: SearchRecord, outcome: Outcome) -> None:
        """Record how a search ended; warn once if too many of its route time out, until they no longer do."""
        if outcome.name not in {"reranked", "degraded"}:
            return
        route = self._routes.setdefault(search.route, _Route())
        is_asked = outcome.reason != "slow_model"  # otherwise there was no model call
        ms = {stage: search.clock.stages[stage] for stage in _MODEL_STAGES if is_asked and stage in search.clock.stages}
        route.add(_Search(outcome.reason in _OF_TIME, ms))
        if route.late_share <= WARNED_SHARE / 2:
            route.is_warned = False
        elif not route.is_warned and len(route.searches) >= SEARCHES_TO_JUDGE and route.late_share > WARNED_SHARE:
            route.is_warned = True
            _warn(search.route, route)


def _warn(name: str, route: _Route) -> None:
    _log.warning(
        "slow_models",
        route=name,
        timeouts=round(route.late_share, 2),
        model_ms=dict(_percentiles(route.searches)),
        detail="so many of the route's last searches ended by timeout (`timeouts` is their share): raise its "
        "`budget_ms`, or use a smaller `tier`, `rank_window_size` or `models.passage_max_tokens`",
    )


def _percentiles(searches: Sequence[_Search]) -> Iterator[tuple[str, dict[str, float]]]:
    for stage in _MODEL_STAGES:
        if times := sorted(search.ms[stage] for search in searches if stage in search.ms):
            yield stage, {f"p{percent}": round(_nearest_rank(times, percent), 1) for percent in (50, 95)}


def _nearest_rank(ordered: Sequence[float], percent: int) -> float:
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]
