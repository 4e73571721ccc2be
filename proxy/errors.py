"""What can go wrong upstream, by what is known afterwards.

UpstreamError(service)
├── Unreachable     no connection, so nothing has begun there
│   └── Lost        the connection ended before the answer did; it may have been done
├── TimedOut        no answer in time; it may have been done, and paid for
│   └── Late        no answer yet: it is still waited for, by nobody in particular
├── Refused         an answer that is an error: its status, headers and body
├── Busy            never asked: too much is being asked at the moment
├── Withheld        never asked: it fails too often, or is misconfigured
├── SlowModel       never asked: it cannot answer in the time left
└── Malformed       an answer that cannot be used
    ├── TooLarge    an answer that is larger than is read here
    ├── TooComplex  an answer that takes more work than is done here
    ├── OtherModel  the answer of another model than was asked for
    └── EqualScores the same score for different passages

No status of an answer here: the one that is made of these, a 502, is `passthrough`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class UpstreamError(Exception):
    """A service behind the proxy gave no usable answer."""

    reason = "failed"

    def __init__(self, service: str, detail: str = "") -> None:
        super().__init__(f"{service}: {detail}" if detail else service)
        self.service = service
        self.detail = detail


class Unreachable(UpstreamError):
    """No connection could be made."""

    reason = "unreachable"


class Lost(Unreachable):
    """The connection ended after the request was sent and before its answer was whole."""


class TimedOut(UpstreamError):
    """No complete response within the time limit."""

    reason = "timeout"


class Late(TimedOut):
    """No answer in the time that a search waits; it is kept for the next one."""


class Busy(UpstreamError):
    """Not asked, since the proxy asks as much as it may at the moment."""

    reason = "busy"


class Withheld(UpstreamError):
    """Not asked, since earlier calls failed."""

    reason = "breaker_open"

    def __init__(self, service: str, reason: str, detail: str) -> None:
        super().__init__(service, detail)
        self.reason = reason


class SlowModel(UpstreamError):
    """Most recent calls of the model took longer than the time left, so only one search in ten asks it."""

    reason = "slow_model"


class Malformed(UpstreamError):
    """A response that does not follow the API."""

    reason = "malformed"


class TooLarge(Malformed):
    """An answer that would take more memory than one search may."""


class TooComplex(Malformed):
    """An answer that would take more time than one search may."""


class OtherModel(Malformed):
    """Vectors of another model than was asked for: they would fit, and mean nothing beside the index's."""

    reason = "other_model"


class EqualScores(Malformed):
    """The same score for three or more different passages, which a broken model server gives."""

    reason = "equal_scores"


class Refused(UpstreamError):
    """A response with an error status."""

    reason = "refused"

    def __init__(  # noqa: PLR0913  a response, and what it means
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
    "breaker_open": "not asked, since most of the last calls of this model failed; `detail` has the last error, and a "
    "search every 5 to 20 seconds tries the model again",
    "misconfigured": "the provider does not accept the token (401, 403), wants payment (402), or has no such model or "
    "path (404): correct it; a search every 30 seconds tries the model again, the others do not ask it",
    "rate_limited": "the provider has too many requests (429), also after one retry",
    "server_error": "a response with a status from 500, also after one retry",
}
"""The reasons of a failed model call besides those of the classes above."""


def cause_of(defect: BaseException) -> str:
    """Name what went wrong, out of the groups that tasks put it in."""
    while isinstance(defect, BaseExceptionGroup):
        defect = defect.exceptions[0]
    return type(defect).__name__


@dataclass(frozen=True, slots=True)
class Failure:
    """A stage that was left out, and why (a word for headers, logs and counters)."""

    stage: str
    reason: str
    detail: str = ""
    by_design: bool = False
    """The stage does not fit this search, and nothing is wrong."""
