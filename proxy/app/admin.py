"""The admin port: health, metrics, the settings in force, reload, kill switch and circuit breakers.

`/healthz` and the status of `/readyz` need no token, for the probes of orchestrators. Everything else requires the
token, if one is set; without one, the port is restricted to loopback addresses (`admin_token_of`) and rejects requests
of web pages.
"""

import hmac
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from proxy.app.control import BreakerAction, Operations, State
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


class AdminPort:
    """Answers operators, orchestrators and Prometheus."""

    def __init__(self, operations: Operations, token: str | None) -> None:
        self._operations = operations
        self._token = token

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard], client_max_size=2**10)
        for route in ROUTES:
            path = f"{route.path}/{{last:{'|'.join(route.last)}}}" if route.last else route.path
            application.router.add_route(route.method, path, getattr(self, route.answer))
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check authorization, and return errors as JSON."""
        if request.path not in _OPEN and (refusal := self._refusal(request)) is not None:
            return refusal
        try:
            return await handler(request)
        except web.HTTPException as error:
            known = f": use one of {_PATHS}" if error.status in {404, 405} else ""
            return _json({"error": f"{error.reason}{known}"}, error.status)

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self._token is None:
            # Reject web pages in a browser on this machine: they get here by a host name that resolves to loopback (DNS
            # rebinding), or by a cross-origin request, which has `Origin`.
            if "Origin" in request.headers or not is_loopback(_host(request.headers.get("Host", ""))):
                return _json({"error": "this port is for programs on this machine: use its loopback address"}, 403)
            return None
        if self._knows_token(request):
            return None
        response = _json({"error": "send the admin token: `Authorization: Bearer ...`"}, 401)
        response.headers["WWW-Authenticate"] = "Bearer"
        return response

    def _knows_token(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        return self._token is not None and hmac.compare_digest(given, f"Bearer {self._token}".encode())

    # -- health

    async def healthz(self, _: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def readyz(self, request: web.Request) -> web.Response:
        """Return 200 or 503 by the state only; operators also get what is known about the engine and the models."""
        state = self._operations.state
        known = {} if self._refusal(request) is not None else self._operations.verdicts()
        return _json({"status": state, **known}, 200 if state is State.READY else 503)

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._operations.metrics(), headers={"Content-Type": CONTENT_TYPE})

    async def config(self, _: web.Request) -> web.Response:
        return _json(self._operations.settings())

    async def costs(self, _: web.Request) -> web.Response:
        return _json(msgspec.to_builtins(self._operations.costs()))

    # -- controls

    async def reload(self, _: web.Request) -> web.Response:
        reloaded = await self._operations.reload()
        if reloaded.error:
            return _json({"error": reloaded.error}, 422)
        return _json({"changed": reloaded.changed, "needs_restart": reloaded.needs_restart})

    async def reranking(self, _: web.Request) -> web.Response:
        return _json({"enabled": self._operations.switches.reranking})

    async def switch(self, request: web.Request) -> web.Response:
        self._operations.switches.reranking = request.match_info["last"] == "on"
        _log.warning("reranking_switched", enabled=self._operations.switches.reranking)
        return await self.reranking(request)

    async def breakers(self, _: web.Request) -> web.Response:
        return _json(self._operations.breakers.states())

    async def control_breaker(self, request: web.Request) -> web.Response:
        name, action = request.query.get("name", ""), BreakerAction(request.match_info["last"])
        try:
            self._operations.breakers.control(name, action)
        except KeyError:
            known = ", ".join(sorted(self._operations.breakers.states())) or "none"
            return _json({"error": f"no breaker has the name {name[:100]!r}: use one of {known}"}, 404)
        _log.warning("breaker_controlled", breaker=name, action=action)
        return await self.breakers(request)


def _host(header: str) -> str:
    """Return the host of a Host header, without its port and the brackets of an IPv6 address."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def _json(value: Mapping[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


async def open_admin(settings: Admin, operations: Operations, token: str | None, stack: AsyncExitStack) -> int | None:
    """Open the admin port, if enabled, and return its number; `stack` closes it.

    If the port is in use, the proxy runs without it.
    """
    if not settings.enabled:
        return None
    runner = web.AppRunner(
        AdminPort(operations, token).application(), handle_signals=False, access_log=None, shutdown_timeout=1.0
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, settings.host, settings.port)
    try:
        await site.start()
    except OSError as error:
        _log.error(
            "admin_unavailable",
            address=f"{settings.host}:{settings.port}",
            detail=f"cannot listen: {error.strerror}. Searches are served all the same; set another `admin.port`",
        )
        return None
    port: int = runner.addresses[0][1]
    return port
