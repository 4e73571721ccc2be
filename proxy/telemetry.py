"""What an outcome becomes: a response header, stage times, a line in the log. Nothing comes back from here."""

import logging
import os
import re
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from proxy.bounds import LOG_DETAIL, LOG_ID, LOG_TRACEBACK, LOG_VALUE, OUTCOME_KEY, OUTCOME_LIST_BYTES
from proxy.bypass import Bypass
from proxy.config import Log
from proxy.errors import Failure
from proxy.log_writer import LogWriter

Field = tuple[bytes, bytes]
Outcome = Literal["reranked", "degraded", "bypassed"]

_EXCEPTION = "exception"


@dataclass(frozen=True, slots=True)
class Told:
    """How a search ended, in the words of header and log."""

    outcome: Outcome
    stages: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""
    key: str = ""
    is_fault: bool = False

    @property
    def header(self) -> bytes:
        """Spell it as an item of RFC 9651: a token, its parameters."""
        stages = f';stages="{" ".join(self.stages)}"' if self.stages else ""
        reason = f";reason={self.reason}" if self.reason else ""
        key = f';key="{self.key}"' if self.key else ""
        return f"{self.outcome}{stages}{reason}{key}".encode()


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


_NO_STRING = re.compile(r"[^ !#-\[\]-~]")


def bypassed(why: Bypass | str) -> Told:
    """Say why a search was handed on; of a client's key, the characters that a string of RFC 9651 shows as they are."""
    if isinstance(why, str):
        why = Bypass(why)
    key = _NO_STRING.sub("?", why.key[:OUTCOME_KEY])
    fault = why.is_fault or why.reason == "internal_error"
    return Told("bypassed", (), why.reason, why.detail[:LOG_DETAIL], key, fault)


def fields_of(told: Told, stages: Mapping[str, float]) -> tuple[Field, ...]:
    """Return the response headers: the outcome, and Server-Timing (W3C) with each stage's milliseconds."""
    outcome: Field = (b"X-Rerank", told.header)
    if not stages:
        return (outcome,)
    timing = ", ".join(f"{name};dur={milliseconds:.1f}" for name, milliseconds in stages.items())
    return (outcome, (b"Server-Timing", timing.encode()))


def in_order(headers: Sequence[bytes]) -> bytes:
    """List how each of several searches ended; of a list that is too long, how many more there are."""
    listed = b", ".join(headers)
    if len(listed) <= OUTCOME_LIST_BYTES:
        return listed
    shown = listed[: OUTCOME_LIST_BYTES - len(b", more;items=1000000")].split(b", ")[:-1]
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
    """Write it: a warning where a stage was left out or the engine failed, so that a fault is never silent."""
    told = line.told
    write = _log.warning if told.outcome == "degraded" or told.is_fault else _log.info
    optional = {"reason": told.reason, "key": told.key, "detail": told.detail, "query": line.query}
    write(
        "search",
        id=line.id[:LOG_ID],
        route=line.route,
        outcome=told.outcome,
        **({"stages": list(told.stages)} if told.stages else {}),
        **{key: value for key, value in optional.items() if value},
        ms={name: round(milliseconds, 1) for name, milliseconds in line.stages.items()},
        window=line.window,
        candidates=line.candidates,
    )


def warn_of_new_callers(header: str) -> None:
    """Say that a header has another value in nearly every request, so that nothing is cached between them."""
    _log.warning(
        "new_callers",
        header=header[:100],
        detail="nearly every request looks like a new caller because of this header, so nothing is cached between "
        "requests: add it to `callers.ignore` unless the engine knows users by it",
    )


def configure(settings: Log, descriptor: int | None = None) -> LogWriter | None:
    """Set the log up once for the process: to standard error, one line an event; None where there is none.

    A process that was started without a standard error must not write to what has been given its number since.
    """
    stream = sys.__stderr__
    if descriptor is None and stream is not None:
        descriptor = stream.fileno()
    writer = None if descriptor is None else LogWriter(descriptor, _tell_dropped)
    in_json = settings.format == "json"
    colors = descriptor is not None and os.isatty(descriptor)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _shortened,
            *([] if in_json else [_visible]),
            structlog.processors.JSONRenderer() if in_json else structlog.dev.ConsoleRenderer(colors=colors),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.level.upper())),
        logger_factory=lambda *_: _Lines(writer),
        cache_logger_on_first_use=False,
    )
    _take_over_standard_logging()
    return writer


class _Libraries(logging.Handler):
    """Writes what libraries log, such as asyncio's errors, as events: standard error may keep its writer waiting."""

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        _log.log(record.levelno, "library", library=record.name, detail=record.getMessage(), exc_info=cause)


def _take_over_standard_logging() -> None:
    """Let nothing of the process write to standard error but the log's own thread."""
    logging.basicConfig(handlers=[_Libraries()], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    sys.unraisablehook = lambda raised: _log.error("internal_error", exc_info=raised.exc_value)


def _tell_dropped(lines: int) -> None:
    _log.warning("log_lines_dropped", lines=lines)


class _Lines:
    """What structlog hands each line to."""

    def __init__(self, writer: LogWriter | None) -> None:
        self._writer = writer

    def msg(self, message: str) -> None:
        if self._writer is not None:
            self._writer.write(message)

    debug = info = warning = error = critical = exception = msg


def _shortened(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep the beginning of values that are too long, most of which are a client's."""
    for key, value in event.items():
        most = LOG_TRACEBACK if key == _EXCEPTION else LOG_VALUE
        if isinstance(value, str) and len(value) > most:
            event[key] = f"{value[:most]}... ({len(value)} characters)"
    return event


# Characters that a terminal acts upon or that end a line, and those that change the direction of what follows.
_ACTING = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_ACTING_IN_LINES = re.compile(_ACTING.pattern.replace("\0-\x1f", "\0-\x08\x0b-\x1f"))


def _visible(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Write characters that a terminal acts upon as escapes: a client may send them."""
    for key, value in event.items():
        acting = _ACTING_IN_LINES if key == _EXCEPTION else _ACTING
        if isinstance(value, str):
            event[key] = acting.sub(lambda found: found[0].encode("unicode_escape").decode(), value)
    return event
