"""The result of one search: the documents found, and the outcome that the proxy's header reports."""

import re
from dataclasses import dataclass

HEADER, COST_HEADER = "X-Rerank", "X-Rerank-Cost"
_REASON = re.compile(r";reason=(\w+)")
_STAGES = re.compile(r';stages="([^"]*)"')


@dataclass(frozen=True, slots=True)
class ReportedOutcome:
    """The outcome of a search as the proxy reports it."""

    kind: str
    """`reranked`, `degraded` or `bypassed`."""
    reason: str = ""
    stages: str = ""

    @property
    def is_reranked(self) -> bool:
        return self.kind == "reranked"

    def __str__(self) -> str:
        more = ", ".join(filter(None, (self.stages and f"without {self.stages}", self.reason)))
        return f"{self.kind} ({more})" if more else self.kind


def read_outcome(header: str) -> ReportedOutcome:
    """Parse an item of RFC 9651: a token and its parameters."""
    reason, stages = _REASON.search(header), _STAGES.search(header)
    kind = header.partition(";")[0].strip()
    return ReportedOutcome(kind, reason[1] if reason else "", stages[1] if stages else "")


def read_cost(header: str) -> float | None:
    """Parse an amount of US dollars; None for anything else."""
    return float(header) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,12})?", header, re.ASCII) else None


@dataclass(frozen=True, slots=True)
class Found:
    """The distinct documents of a response, best first."""

    documents: tuple[str, ...]
    outcome: ReportedOutcome | None = None
    """None if the header is missing, as in responses of an engine."""
    cost_usd: float | None = None
    """What the model calls cost; None unless the search had the option `cost`."""


@dataclass(frozen=True, slots=True)
class FailedSearch:
    """A search without a usable response."""

    detail: str


@dataclass(frozen=True, slots=True)
class Pair:
    """The responses to one query's search, from both addresses."""

    baseline: Found | FailedSearch
    proxy: Found | FailedSearch
