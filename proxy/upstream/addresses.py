"""The addresses of the engine's hosts, cached for a second.

The system's DNS lookup runs in a thread, which costs more than the connection itself. As in aiohttp's connector, its
result is cached and the addresses are used in rotation. After a second a host that moved is noticed; caching for longer
is left to the system's resolver. While that fails or does not respond, the last addresses are used for up to a minute
(RFC 8767), since a resolver that restarts must not make the engine unreachable.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from proxy.upstream.sharing import Shared

RESOLVED_FOR_S = 1.0
STALE_FOR_S = 60.0
PATIENCE_S = 0.5
"""How long a connection waits for a lookup before it uses the last addresses, in seconds."""
AVOIDED_FOR_S = 10.0
"""Seconds for which an address that could not be reached is tried last."""

LookUp = Callable[[str], Coroutine[Any, Any, Sequence[str]]]


async def look_up(host: str) -> Sequence[str]:
    """Return a host's addresses in the system's order of preference; raises OSError if there are none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(_address(family, address) for family, _, _, _, address in found))


def _address(family: int, address: tuple[Any, ...]) -> str:
    """Return an address with its zone, if it has one (RFC 4007, section 11)."""
    zone = address[3] if family == socket.AF_INET6 else 0
    return f"{address[0]}%{zone}" if zone else str(address[0])


@dataclass(frozen=True, slots=True)
class _Found:
    """The cached addresses of a host."""

    preferred: Sequence[str]
    """Addresses of the preferred address family, used in rotation."""
    others: Sequence[str]
    until: float
    stale_until: float

    def order(self, turn: int) -> list[str]:
        first = turn % len(self.preferred)
        return [*self.preferred[first:], *self.preferred[:first], *self.others]


class Addresses:
    """Resolves host names; times are seconds of a monotonic clock."""

    def __init__(self, look_up: LookUp = look_up) -> None:
        self._look_up = look_up
        self._found: dict[str, _Found] = {}
        self._looking_up: Shared[_Found] = Shared()
        self._turns: dict[str, int] = {}
        self._avoided: dict[tuple[str, str], float] = {}
        """Hosts and their addresses that could not be reached, and until when they are tried last."""

    async def of(self, host: str, now: float) -> list[str]:
        """Return a host's addresses in the order in which to try them; raises OSError if there are none."""
        found = self._found.get(host)
        if found is None or found.until <= now:
            found = await self._find(host, now)
        turn = self._turns.get(host, 0)
        self._turns[host] = turn + 1
        return sorted(found.order(turn), key=lambda address: self._avoided.get((host, address), now) > now)

    async def _find(self, host: str, now: float) -> _Found:
        """Look a host up; while that is not possible, return what was found last, for a limited time."""
        last = self._found.get(host)
        if last is None or last.stale_until <= now:
            return await self._looked_up(host, now)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._looked_up(host, now)
        except OSError as error:  # includes TimeoutError
            if isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN:
                self._found.pop(host, None)  # the resolver knows that there is no such host
                raise
            found = self._found[host] = replace(last, until=now + RESOLVED_FOR_S)
            return found

    async def _looked_up(self, host: str, now: float) -> _Found:
        return await self._looking_up.ask(host, lambda: self._ask(host, now))

    async def _ask(self, host: str, now: float) -> _Found:
        addresses = await self._look_up(host)
        preferred = [address for address in addresses if _is_ipv6(address) == _is_ipv6(addresses[0])]
        others = [address for address in addresses if address not in preferred]
        until = now + RESOLVED_FOR_S
        found = self._found[host] = _Found(preferred, others, until, until + STALE_FOR_S)
        return found

    def failed(self, host: str, address: str, now: float) -> None:
        """Try an address last for a while, as it could not be reached."""
        self._avoided = {avoided: until for avoided, until in self._avoided.items() if until > now}
        self._avoided[host, address] = now + AVOIDED_FOR_S

    def forget(self, host: str) -> None:
        """Resolve a host again for the next connection, because none of its addresses was reachable."""
        if found := self._found.get(host):
            self._found[host] = replace(found, until=float("-inf"))


def _is_ipv6(address: str) -> bool:
    return ":" in address
