"""The admin port: health, metrics, the settings in force, reload, kill switch and circuit breakers.

`/healthz` and the status of `/readyz` need no token, for the probes of orchestrators. Everything else requires the
token, if one is set; without one, the port is restricted to loopback addresses (`admin_token_of`) and rejects requests
of web pages.
"""

import hmac
import re
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Never
from urllib.parse import parse_qs

import msgspec
import structlog

from proxy.app.control import BreakerAction, Operations, State
from proxy.bounds import ADMIN_CONNECTIONS
from proxy.errors import Unreachable
from proxy.http1.callers import field_value
from proxy.http1.exchange import Answer, Exchange, Work
from proxy.http1.headers import NO_HOP, Field
from proxy.http1.listener import Patience, room_for_clients, serve
from proxy.http1.messages import RequestHead
from proxy.http1.relay import Upstream
from proxy.settings.config import Admin
from proxy.settings.credentials import is_loopback
from proxy.telemetry.metrics import CONTENT_TYPE

_OPEN = frozenset({"/healthz", "/readyz"})
_log = structlog.get_logger("proxy")


@dataclass(frozen=True, slots=True)
class AdminRoute:
    """A route of the admin port, and the method of `AdminPort` that answers it."""

    method: str
    path: str
    answer: str
    last: tuple[str, ...] = ()
    """The allowed last segments of the path, if it ends with an action."""


ROUTES = (
    AdminRoute("GET", "/healthz", "healthz"),
    AdminRoute("GET", "/readyz", "readyz"),
    AdminRoute("GET", "/metrics", "metrics"),
    AdminRoute("GET", "/config", "config"),
    AdminRoute("GET", "/costs", "costs"),
    AdminRoute("POST", "/reload", "reload"),
    AdminRoute("GET", "/reranking", "reranking"),
    AdminRoute("POST", "/reranking", "switch", ("on", "off")),
    AdminRoute("GET", "/breakers", "breakers"),
    AdminRoute("POST", "/breakers", "control_breaker", tuple(BreakerAction)),
)


_PATHS = ", ".join(
    "/".join([f"{route.method} {route.path}", *filter(None, ["|".join(route.last)])]) for route in ROUTES
)


def _routed() -> Mapping[str, Mapping[str, tuple[AdminRoute, str]]]:
    """Return the route of each path and method, with the last segment of a path that ends with an action."""
    found: dict[str, dict[str, tuple[AdminRoute, str]]] = {}
    for route in ROUTES:
        for last in route.last or ("",):
            found.setdefault(f"{route.path}/{last}".rstrip("/"), {})[route.method] = route, last
    return found


_ROUTED = _routed()


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is allowed."""

    head: RequestHead
    last: str
    """The action at the end of the path, if the route has some."""
    name: str
    """The parameter `name`."""


class AdminPort:
    """Answers operators, orchestrators and Prometheus."""

    def __init__(self, operations: Operations, token: str | None) -> None:
        self._operations = operations
        self._token = token

    def handle(self, exchange: Exchange) -> Work:
        return self._respond(exchange)

    async def _respond(self, exchange: Exchange) -> None:
        exchange.send(await self._answer(exchange.head))

    async def _answer(self, head: RequestHead) -> Answer:
        """Check authorization, and answer by the path and the method; a body is not read."""
        path, _, query = head.target.decode("latin-1").partition("?")
        if path not in _OPEN and (refusal := self._refusal(head)) is not None:
            return refusal
        by_method = _ROUTED.get(path)
        if by_method is None:
            return _json({"error": f"Not Found: use one of {_PATHS}"}, 404)
        method = "GET" if head.method == b"HEAD" else head.method.decode("latin-1")
        route, last = by_method.get(method, (None, ""))
        if route is None:
            return _json({"error": f"Method Not Allowed: use one of {_PATHS}"}, 405, _allow(by_method))
        answer: Answer = await getattr(self, route.answer)(Asked(head, last, _parameter(query, "name")))
        return answer

    def _refusal(self, head: RequestHead) -> Answer | None:
        if self._token is None:
            # Reject web pages in a browser on this machine: they get here by a host name that resolves to loopback (DNS
            # rebinding), or by a cross-origin request, which has `Origin`.
            from_page = any(line.key == b"origin" for line in head.lines)
            if from_page or not is_loopback(_host(field_value(head.fields, b"host").decode("latin-1"))):
                return _json({"error": "this port is for programs on this machine: use its loopback address"}, 403)
            return None
        if self._knows_token(head):
            return None
        return _json({"error": "send the admin token: `Authorization: Bearer ...`"}, 401, _ASKS_FOR_TOKEN)

    def _knows_token(self, head: RequestHead) -> bool:
        given = field_value(head.fields, b"authorization")
        return self._token is not None and hmac.compare_digest(given, f"Bearer {self._token}".encode())

    # -- health

    async def healthz(self, _: Asked) -> Answer:
        return _json({"status": "ok"})

    async def readyz(self, asked: Asked) -> Answer:
        """Return 200 or 503 by the state only; operators also get what is known about the engine and the models."""
        state = self._operations.state
        known = {} if self._refusal(asked.head) is not None else self._operations.verdicts()
        return _json({"status": state, **known}, 200 if state is State.READY else 503)

    async def metrics(self, _: Asked) -> Answer:
        return Answer(200, ((b"content-type", CONTENT_TYPE.encode()),), self._operations.metrics())

    async def config(self, _: Asked) -> Answer:
        return _json(self._operations.settings())

    async def costs(self, _: Asked) -> Answer:
        return _json(msgspec.to_builtins(self._operations.costs()))

    # -- controls

    async def reload(self, _: Asked) -> Answer:
        reloaded = await self._operations.reload()
        if reloaded.error:
            return _json({"error": reloaded.error}, 422)
        return _json({"changed": reloaded.changed, "needs_restart": reloaded.needs_restart})

    async def reranking(self, _: Asked) -> Answer:
        return _json({"enabled": self._operations.switches.reranking})

    async def switch(self, asked: Asked) -> Answer:
        self._operations.switches.reranking = asked.last == "on"
        _log.warning("reranking_switched", enabled=self._operations.switches.reranking)
        return await self.reranking(asked)

    async def breakers(self, _: Asked) -> Answer:
        return _json(self._operations.breakers.states())

    async def control_breaker(self, asked: Asked) -> Answer:
        name, action = asked.name, BreakerAction(asked.last)
        try:
            self._operations.breakers.control(name, action)
        except KeyError:
            known = ", ".join(sorted(self._operations.breakers.states())) or "none"
            return _json({"error": f"no breaker has the name {name[:100]!r}: use one of {known}"}, 404)
        _log.warning("breaker_controlled", breaker=name, action=action)
        return await self.breakers(asked)


def _allow(methods: Iterable[str]) -> tuple[Field, ...]:
    """Return the header with the methods of a path (RFC 9110, section 15.5.6); HEAD goes with GET."""
    allowed = ", ".join([f"{each}, HEAD" if each == "GET" else each for each in methods])
    return ((b"allow", allowed.encode()),)


_ASKS_FOR_TOKEN = ((b"www-authenticate", b"Bearer"),)
_HOST = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::\d*)?")


def _host(header: str) -> str:
    """Return the host of a Host header, without its port and the brackets of an IPv6 address; empty if it is none."""
    found = _HOST.fullmatch(header)
    return (found[1] or found[2] or "").lower() if found else ""


def _parameter(query: str, name: str) -> str:
    """Return a parameter of a query string; empty if it is absent."""
    return parse_qs(query).get(name, [""])[0]


def _json(value: Mapping[str, Any], status: int = 200, fields: tuple[Field, ...] = ()) -> Answer:
    return Answer(status, ((b"content-type", b"application/json"), *fields), msgspec.json.encode(value))


class _NoEngine:
    """What a port has in place of the engine's nodes if it passes nothing on."""

    def take(self) -> None:
        return None

    def left(self) -> None:
        return None

    async def connect(self) -> Never:
        raise Unreachable("engine", "this port has none")


async def open_admin(settings: Admin, operations: Operations, token: str | None, stack: AsyncExitStack) -> int | None:
    """Open the admin port, if enabled, and return its number; `stack` closes it.

    If the port is in use, the proxy runs without it.
    """
    if not settings.enabled:
        return None
    try:
        listener = await serve(
            AdminPort(operations, token).handle,
            Upstream(_NoEngine(), NO_HOP),
            settings.host,
            settings.port,
            patience=_PATIENCE,
            room=max(1, min(ADMIN_CONNECTIONS, room_for_clients() // 4)),
            makes_room=True,
        )
    except OSError as error:
        _log.error(
            "admin_unavailable",
            address=f"{settings.host}:{settings.port}",
            detail=f"cannot listen: {error.strerror}. Searches are served all the same; set another `admin.port`",
        )
        return None
    stack.push_async_callback(listener.close, _GRACE_S)
    return listener.port


_PATIENCE = Patience(head=10.0, idle=300.0, quiet=0.1)
_GRACE_S = 1.0
"""Seconds that a running request may take to finish when the port closes."""
