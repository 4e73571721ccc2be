"""Which searches of a route are reranked while reranking is turned on by steps."""

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
    """What an operator switches while the proxy runs; kept until it is switched again or the process ends."""

    reranking: bool = True
    """The kill switch: with False, no search of any route is reranked."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """The mode of a route, and the share of its searches that are reranked.

    What decides on which side of the share a search is goes into a hash, and nowhere else.
    """

    mode: Mode = "on"
    share: float = 1.0
    header: bytes = b""
    """The request header that identifies a sender, in lower case; empty: none."""
    cookie: bytes = b""
    """The cookie that identifies a sender, if the header is missing; empty: none."""

    def bypass(self, options: Steering, fields: Sequence[Field]) -> Bypass | None:
        """Decide as far as possible without the query text."""
        if self.mode == "off":
            return Bypass("route_off")
        if self.mode == "opt_in" and options.enabled is not True:
            return Bypass("opt_in")
        sender = self.sender(fields)
        return self._bypass(options, sender) if sender else None

    def bypass_by_text(self, options: Steering, fields: Sequence[Field], route: str, text: str) -> Bypass | None:
        """Decide by the query text if no sender is known: the pages of a search have the same text."""
        if self.share >= 1 or self.sender(fields):
            return None
        return self._bypass(options, "\0".join((route, *fold(text))).encode("utf-8", "surrogatepass"))

    def sender(self, fields: Sequence[Field]) -> bytes:
        """Return the value of the header, else of the cookie; empty if the request has neither."""
        header = next((value for name, value in fields if self.header and name.lower() == self.header), b"")
        return header or (_cookie(fields, self.cookie) if self.cookie else b"")

    def _bypass(self, options: Steering, key: bytes) -> Bypass | None:
        return None if options.enabled or _position(key) < self.share else Bypass("share")


def rollout_of(settings: RouteSettings) -> Rollout:
    """Read a route's settings."""
    place = settings.share_by
    share = percent(settings.share) / 100
    return Rollout(_mode(settings), share, _name(place.header).lower(), _name(place.cookie))


def _mode(settings: RouteSettings) -> Mode:
    """Undo what YAML 1.1 makes of a bare `on` or `off`."""
    if isinstance(settings.mode, bool):
        return "on" if settings.mode else "off"
    return settings.mode


def _name(name: str | None) -> bytes:
    return (name or "").encode()


def _position(key: bytes) -> float:
    """Return where a key lies between 0 and 1 (below 1), always the same place."""
    return int.from_bytes(hashlib.sha256(key).digest()[:6]) / 2**48


def _cookie(fields: Sequence[Field], wanted: bytes) -> bytes:
    """Return the value of a cookie (RFC 6265, section 4.2.1); its name is compared with its case."""
    for name, value in fields:
        if name.lower() == b"cookie":
            for pair in value.split(b";"):
                key, _, found = pair.strip().partition(b"=")
                if key == wanted:
                    return found
    return b""
