"""What can go wrong upstream, by what is known afterwards.

UpstreamError(service)
├── Unreachable     no connection, so nothing has begun there
├── TimedOut        no answer in time; it may have been done, and paid for
├── Refused         an answer that is an error: its status and body
└── Malformed       an answer that cannot be used
    ├── TooLarge    an answer that is larger than is read here
    └── OtherModel  the answer of another model than was asked for

No status of an answer here: the one that is made of these, a 502, is `passthrough`'s.
"""

from dataclasses import dataclass


class UpstreamError(Exception):
    """A service behind the proxy gave no usable answer."""

    reason = "failed"

    def __init__(self, service: str, detail: str = "") -> None:
        super().__init__(f"{service}: {detail}" if detail else service)
        self.service = service
        self.detail = detail


class Unreachable(UpstreamError):
    """No connection could be made, or it broke before an answer began."""

    reason = "unreachable"


class TimedOut(UpstreamError):
    """No whole answer in the time given."""

    reason = "timeout"


class Malformed(UpstreamError):
    """An answer that is not what the contract says."""

    reason = "malformed"


class TooLarge(Malformed):
    """An answer that would take more memory than one search may."""


class OtherModel(Malformed):
    """Vectors of another model than was asked for: they would fit, and mean nothing beside the index's."""

    reason = "other_model"


class Refused(UpstreamError):
    """An answer with an error status."""

    reason = "refused"

    def __init__(self, service: str, status: int, body: bytes = b"") -> None:
        super().__init__(service, f"status {status}")
        self.status = status
        self.body = body


@dataclass(frozen=True, slots=True)
class Failure:
    """A stage that was left out, and why (a word for headers, logs and counters)."""

    stage: str
    reason: str
    detail: str = ""
    by_design: bool = False
    """The stage does not fit this search, and nothing is wrong."""
