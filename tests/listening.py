"""A port whose requests are answered by a test."""

import ssl

from proxy.http1.headers import NO_HOP
from proxy.http1.listener import Handler, Listener, Patience, serve
from proxy.http1.relay import Upstream
from proxy.settings.config import Engine
from proxy.upstream.nodes import Nodes
from proxy.upstream.spares import Spares


async def listening(
    handler: Handler,
    *,
    patience: Patience | None = None,
    room: int | None = None,
    tls: ssl.SSLContext | None = None,
) -> Listener:
    """Open a port."""
    upstream = Upstream(Spares(Nodes(Engine())), NO_HOP)
    return await serve(handler, upstream, "127.0.0.1", 0, patience=patience or Patience(), room=room, tls=tls)
