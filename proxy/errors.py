"""Errors of upstream services, by what is known about the request afterwards.

UpstreamError(service)
├── Unreachable     no connection, so the request was not sent
│   └── Lost        the connection closed before the response was complete; the request may have been executed
├── TimedOut        no response in time; the request may have been executed, and cost money
│   └── Late        no response yet; the request continues in the background
├── Refused         a response with an error status: status, headers and body
├── Busy            not sent: too many requests at the moment
├── Withheld        not sent: the service fails too often, or is misconfigured
├── SlowModel       not sent: the model cannot respond in the time that is left
├── CapReached      not sent: the call would exceed a cap on spend
└── Malformed       a response that cannot be used
    ├── TooLarge    a response larger than the limit
    ├── TooComplex  a response that takes too much work
    ├── OtherModel  a response of another model than was requested
    └── EqualScores the same score for different passages

The HTTP status of the response to the client, 502, is decided in `passthrough`.
"""

import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class UpstreamError(Exception):
    """An upstream service gave no usable response."""

    reason = "failed"

    def __init__(self, service: str, detail: str = "") -> None:
        super().__init__(f"{service}: {detail}" if detail else service)
        self.service = service
        self.detail = detail


class Unreachable(UpstreamError):
    """No connection could be made."""

    reason = "unreachable"


class Lost(Unreachable):
    """The connection closed after the request was sent and before the response was complete."""


class TimedOut(UpstreamError):
    """No complete response within the time limit."""

    reason = "timeout"


class Late(TimedOut):
    """No response in the time that a search waits; the response is kept for the next search."""


class Busy(UpstreamError):
    """Not sent, because the proxy has reached its limit of concurrent requests."""

    reason = "busy"


class Withheld(UpstreamError):
    """Not sent, because earlier calls failed."""

    reason = "breaker_open"

    def __init__(self, service: str, reason: str, detail: str) -> None:
        super().__init__(service, detail)
        self.reason = reason


class SlowModel(UpstreamError):
    """Most recent calls of the model took longer than the time left, so only one search in ten calls it."""

    reason = "slow_model"


class CapReached(UpstreamError):
    """Not sent, because it would exceed a cap on spend; only cached vectors and scores are used."""

    reason = "spend_cap"

    def __init__(self, service: str, detail: str, *, is_brief: bool = False) -> None:
        """`is_brief`: a minute's cap, after which a command may go on."""
        super().__init__(service, detail)
        self.is_brief = is_brief


class Malformed(UpstreamError):
    """A response that does not follow the API."""

    reason = "malformed"


class TooLarge(Malformed):
    """A response that would take more memory than one search may use."""


class TooComplex(Malformed):
    """A response that would take more time than one search may use."""


class OtherModel(Malformed):
    """Vectors of another model than was requested: they cannot be compared with those in the index."""

    reason = "other_model"


class EqualScores(Malformed):
    """The same score for three or more different passages, which indicates a broken model server."""

    reason = "equal_scores"


class Refused(UpstreamError):
    """A response with an error status."""

    reason = "refused"

    def __init__(  # noqa: PLR0913  the parts of a response, and its meaning
        self,
        service: str,
        status: int,
        body: bytes = b"",
        fields: Sequence[tuple[bytes, bytes]] = (),
        *,
        reason: str = "refused",
        message: str = "",
    ) -> None:
        super().__init__(service, f"status {status}: {message}" if message else f"status {status}")
        self.reason = reason
        self.status = status
        self.body = body
        self.fields = fields


MODEL_REASONS: Mapping[str, str] = {
    "breaker_open": "not called, because most of the last calls of this model failed; `detail` has the last error, and "
    "one search every 5 to 20 seconds tries the model again",
    "misconfigured": "the provider does not accept the token (401, 403), requires payment (402), or has no such model "
    "or path (404): correct it; one search every 30 seconds tries the model again, the others do not call it. Or "
    "the model ranks the known pairs of the canary wrong, and is tried with these only",
    "rate_limited": "the provider rejects the call because of its rate limit (429), also after one retry",
    "spend_cap": "not called, because it would exceed a cap on spend (`spend`); cached vectors and scores are used. "
    "Wait for the next day or minute, or raise the cap",
    "server_error": "a response with status 500 or higher, also after one retry",
}
"""Reasons of failed model calls, in addition to those of the classes above."""


def connection_error(error: Exception) -> str:
    """Describe why a connection failed in the words of the system, without those of the library that reports it."""
    match error:
        case ssl.SSLError():
            return getattr(error, "reason", None) or error.strerror or str(error) or "TLS failed"
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number)
        case OSError(strerror=str(said)):
            return said
        case _:
            return str(error)


def cause_of(defect: BaseException) -> str:
    """Return the name of an exception's class, unwrapped from exception groups."""
    while isinstance(defect, BaseExceptionGroup):
        defect = defect.exceptions[0]
    return type(defect).__name__


@dataclass(frozen=True, slots=True)
class Failure:
    """A stage that was skipped, and the reason (one word for headers, logs and counters)."""

    stage: str
    reason: str
    detail: str = ""
    by_design: bool = False
    """The stage does not apply to this search; this is no error."""
