"""Gradual rollout: which searches of a route are reranked, by its mode and share."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.http1.callers import Field
from proxy.outcomes import Bypass
from proxy.parsing.words import fold
from proxy.settings.config import Mode, RouteSettings, percent
from proxy.settings.request_options import Steering


@dataclass(slots=True)
class Switches:
    """Switches that operators set at run time; they are lost when the process ends."""

    reranking: bool = True
    """The kill switch: if False, no search is reranked."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """A route's mode, and the share of its searches that are reranked.

    The value that decides whether a search is in the share is hashed, and not stored or logged.
    """

    mode: Mode = "on"
    share: float = 1.0
    header: bytes = b""
    """The request header that identifies a sender, in lower case; empty if there is none."""
    cookie: bytes = b""
    """The cookie that identifies a sender if the header is missing; empty if there is none."""

    def bypass(self, options: Steering, fields: Sequence[Field]) -> Bypass | None:
        """Return the bypass reason as far as it does not depend on the query text."""
        if self.mode == "off":
            return Bypass("route_off")
        if self.mode == "opt_in" and options.enabled is not True:
            return Bypass("opt_in")
        sender = self.sender(fields)
        return self._bypass(options, sender) if sender else None

    def bypass_by_text(self, options: Steering, fields: Sequence[Field], route: str, text: str) -> Bypass | None:
        """Return the bypass reason by query text if there is no sender: all pages of a search have the same text."""
        if self.share >= 1 or self.sender(fields):
            return None
        return self._bypass(options, "\0".join((route, *fold(text))).encode("utf-8", "surrogatepass"))

    def sender(self, fields: Sequence[Field]) -> bytes:
        """Return the value of the header, otherwise of the cookie; empty if the request has neither."""
        header = next((value for name, value in fields if self.header and name.lower() == self.header), b"")
        return header or (_cookie(fields, self.cookie) if self.cookie else b"")

    def _bypass(self, options: Steering, key: bytes) -> Bypass | None:
        return None if options.enabled or _position(key) < self.share else Bypass("share")


def rollout_of(settings: RouteSettings) -> Rollout:
    """Build the rollout of a route from its settings."""
    place = settings.share_by
    share = percent(settings.share) / 100
    return Rollout(_mode(settings), share, _name(place.header).lower(), _name(place.cookie))


def _mode(settings: RouteSettings) -> Mode:
    """Convert the booleans that YAML 1.1 reads for `on` and `off`."""
    if isinstance(settings.mode, bool):
        return "on" if settings.mode else "off"
    return settings.mode


def _name(name: str | None) -> bytes:
    return (name or "").encode()


def _position(key: bytes) -> float:
    """Hash a key to a number of at least 0 and below 1."""
    return int.from_bytes(hashlib.sha256(key).digest()[:6]) / 2**48


def _cookie(fields: Sequence[Field], wanted: bytes) -> bytes:
    """Return the value of a cookie (RFC 6265, section 4.2.1); cookie names are case-sensitive."""
    for name, value in fields:
        if name.lower() == b"cookie":
            for pair in value.split(b";"):
                key, _, found = pair.strip().partition(b"=")
                if key == wanted:
                    return found
    return b""
