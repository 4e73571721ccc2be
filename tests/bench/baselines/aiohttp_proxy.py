"""A streaming proxy of aiohttp on uvloop: one shared session, chunks written as they are read, no access log.

`python -m tests.bench.baselines.aiohttp_proxy PORT UPSTREAM_URL [--certificate FILE] [--ca FILE]`
"""

import argparse
import asyncio
import ssl
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web

_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "transfer-encoding", "te", "upgrade", "proxy-authorization", "content-length", "host")
)
_SESSION = web.AppKey("session", aiohttp.ClientSession)
_UPSTREAM = web.AppKey("upstream", str)


async def _forward(request: web.Request) -> web.StreamResponse:
    body = await request.read() if request.can_read_body else None
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
    url = request.app[_UPSTREAM] + request.raw_path
    async with request.app[_SESSION].request(request.method, url, headers=headers, data=body) as upstream:
        kept = {name: value for name, value in upstream.headers.items() if name.lower() not in _HOP_BY_HOP}
        response = web.StreamResponse(status=upstream.status, headers=kept)
        response.content_length = upstream.content_length
        await response.prepare(request)
        async for chunk in upstream.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("upstream")
    parser.add_argument("--certificate")
    parser.add_argument("--ca")
    options = parser.parse_args()

    async def session(app: web.Application) -> AsyncIterator[None]:
        trusted = ssl.create_default_context(cafile=options.ca) if options.ca else True
        connector = aiohttp.TCPConnector(limit=0, ssl=trusted)
        async with aiohttp.ClientSession(auto_decompress=False, connector=connector) as app[_SESSION]:
            yield

    app = web.Application(client_max_size=1 << 30)
    app[_UPSTREAM] = options.upstream
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", _forward)
    tls = None
    if options.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.certificate)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    web.run_app(app, host="127.0.0.1", port=options.port, access_log=None, print=None, loop=loop, ssl_context=tls)


if __name__ == "__main__":
    main()
