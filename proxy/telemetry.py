"""What an outcome becomes: a response header, stage times, a line in the log. Nothing comes back from here."""

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from proxy.config import Log
from proxy.errors import Failure

Field = tuple[bytes, bytes]
Outcome = Literal["reranked", "degraded", "bypassed"]


@dataclass(frozen=True, slots=True)
class Told:
    """How a search ended, in the words of header and log."""

    outcome: Outcome
    stages: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""

    @property
    def header(self) -> bytes:
        """Spell it as an item of RFC 9651: a token, its parameters."""
        stages = f';stages="{" ".join(self.stages)}"' if self.stages else ""
        reason = f";reason={self.reason}" if self.reason else ""
        return f"{self.outcome}{stages}{reason}".encode()


def ended(failures: Sequence[Failure]) -> Told:
    """Say how an answer was made: by every stage, or without some; the first reason stands for all.

    A stage that does not fit the search degrades nothing, and is named all the same.
    """
    failed = sorted(failures, key=lambda failure: failure.by_design)
    if not failed:
        return Told("reranked")
    outcome: Outcome = "reranked" if failed[0].by_design else "degraded"
    stages = tuple(dict.fromkeys(failure.stage for failure in failed))
    return Told(outcome, stages, failed[0].reason, "; ".join(filter(None, (each.detail for each in failed))))


def bypassed(reason: str) -> Told:
    return Told("bypassed", reason=reason)


def fields_of(told: Told, stages: Mapping[str, float]) -> tuple[Field, ...]:
    """Return the response headers: the outcome, and Server-Timing (W3C) with each stage's milliseconds."""
    outcome: Field = (b"X-Rerank", told.header)
    if not stages:
        return (outcome,)
    timing = ", ".join(f"{name};dur={milliseconds:.1f}" for name, milliseconds in stages.items())
    return (outcome, (b"Server-Timing", timing.encode()))


OUTCOMES_MAX = 2000
"""Bytes of a list of outcomes: clients and proxies give up on an answer whose head has more than 4 to 16 KB."""


def in_order(headers: Sequence[bytes]) -> bytes:
    """List how each of several searches ended; of a list that is too long, how many more there are."""
    listed = b", ".join(headers)
    if len(listed) <= OUTCOMES_MAX:
        return listed
    shown = listed[: OUTCOMES_MAX - len(b", more;items=1000000")].split(b", ")[:-1]
    return b", ".join([*shown, b"more;items=%d" % (len(headers) - len(shown))])


@dataclass(frozen=True, slots=True)
class SearchLine:
    """The log's one line of a search."""

    id: str
    route: str
    told: Told
    stages: Mapping[str, float]
    window: int = 0
    candidates: int = 0
    query: str | None = None
    """The user's words, where the settings allow them."""


_log = structlog.get_logger("proxy")


def log_search(line: SearchLine) -> None:
    """Write it: a warning where a stage was left out, so that a degraded mode is never silent."""
    told = line.told
    write = _log.warning if told.outcome == "degraded" or told.reason == "internal_error" else _log.info
    optional = {"reason": told.reason, "detail": told.detail, "query": line.query}
    write(
        "search",
        id=line.id,
        route=line.route,
        outcome=told.outcome,
        **({"stages": list(told.stages)} if told.stages else {}),
        **{key: value for key, value in optional.items() if value},
        ms={name: round(milliseconds, 1) for name, milliseconds in line.stages.items()},
        window=line.window,
        candidates=line.candidates,
    )


def configure(settings: Log) -> None:
    """Set the log up once for the process: to standard error, one line an event."""
    renderer = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
