"""A relay before a real engine: it keeps what is asked, and may change what is answered."""

from collections.abc import Callable, Mapping
from typing import Self

from aiohttp import web

from tests.integration.sending import Request, send

Change = Callable[[bytes], bytes]
_OF_THE_HOP = frozenset({"content-length", "transfer-encoding", "connection", "host"})


class Relay:
    """Hands requests on to an engine; the bodies of answers to some paths are changed on the way back."""

    def __init__(self, engine: str, changes: Mapping[str, Change] | None = None) -> None:
        self.requests: list[Request] = []
        self._engine = engine
        self._changes = changes or {}
        self._runner: web.ServerRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._answer))
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def searches(self) -> list[Request]:
        """What was searched for."""
        return [request for request in self.requests if "_search" in request.target]

    async def _answer(self, asked: web.BaseRequest) -> web.Response:
        kept = {name: value for name, value in asked.headers.items() if name.lower() not in _OF_THE_HOP}
        request = Request(asked.method, asked.raw_path, await asked.read(), kept)
        self.requests.append(request)
        reply = await send(self._engine, request)
        change = self._changes.get(asked.path)
        fields = [(name, value) for name, value in reply.fields if name.lower() not in _OF_THE_HOP]
        body = change(reply.body) if change else reply.body
        return web.Response(status=reply.status, body=body, headers=fields)
