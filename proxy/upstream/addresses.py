"""The addresses of the engine's hosts, remembered for a second.

The system looks a name up in a thread, which costs more than the connection itself. As in aiohttp's connector, what it
found is kept for a while and the addresses take turns; a second is short enough that a host that moves is still
followed, and what is to be kept for longer is for the system's own resolver to decide.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.upstream.sharing import Shared

RESOLVED_FOR_S = 1.0

LookUp = Callable[[str], Coroutine[Any, Any, Sequence[str]]]


async def look_up(host: str) -> Sequence[str]:
    """Return a host's addresses in the system's order of preference; raises OSError where there are none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(_address(family, address) for family, _, _, _, address in found))


def _address(family: int, address: tuple[Any, ...]) -> str:
    """Return an address with the zone that it belongs to, if any (RFC 4007, section 11)."""
    zone = address[3] if family == socket.AF_INET6 else 0
    return f"{address[0]}%{zone}" if zone else str(address[0])


@dataclass(frozen=True, slots=True)
class _Found:
    """A host's addresses."""

    preferred: Sequence[str]
    """Those of the family that the system prefers: they take turns."""
    others: Sequence[str]
    until: float

    def order(self, turn: int) -> list[str]:
        first = turn % len(self.preferred)
        return [*self.preferred[first:], *self.preferred[:first], *self.others]


class Addresses:
    """Looks hosts up; times are in seconds of a monotonic clock."""

    def __init__(self, look_up: LookUp = look_up) -> None:
        self._look_up = look_up
        self._found: dict[str, _Found] = {}
        self._looking_up: Shared[_Found] = Shared()
        self._turns: dict[str, int] = {}

    async def of(self, host: str, now: float) -> list[str]:
        """Return a host's addresses in the order in which to try them; raises OSError where there are none."""
        found = self._found.get(host)
        if found is None or found.until <= now:
            found = await self._looking_up.ask(host, lambda: self._find(host, now))
        turn = self._turns.get(host, 0)
        self._turns[host] = turn + 1
        return found.order(turn)

    async def _find(self, host: str, now: float) -> _Found:
        addresses = await self._look_up(host)
        preferred = [address for address in addresses if _is_ipv6(address) == _is_ipv6(addresses[0])]
        others = [address for address in addresses if address not in preferred]
        found = self._found[host] = _Found(preferred, others, now + RESOLVED_FOR_S)
        return found

    def forget(self, host: str) -> None:
        """Look a host up again for the next connection, since none of its addresses could be reached."""
        self._found.pop(host, None)


def _is_ipv6(address: str) -> bool:
    return ":" in address
