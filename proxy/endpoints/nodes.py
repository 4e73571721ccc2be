"""`_nodes`, where sniffing clients find the engine's addresses, which a setting can replace by the proxy's own.

Source: the sniffing of the clients, which reads `http.publish_address` of each node from `GET /_nodes/_all/http`.
"""

import re

import msgspec

from proxy.endpoints.front import Front, send
from proxy.errors import Refused, UpstreamError
from proxy.http1.exchange import Exchange
from proxy.outcomes import Bypass
from proxy.ranking.planning import EngineReply


class _Http(msgspec.Struct):
    publish_address: str | None = None


class _Node(msgspec.Struct):
    http: _Http | None = None


class _Nodes(msgspec.Struct):
    nodes: dict[str, _Node] = {}


_nodes = msgspec.json.Decoder(_Nodes)
_PUBLISHED = re.compile(rb'("publish_address"\s*+:\s*+)("(?:[^"\\]|\\.)*+")')


def published_as(body: bytes, address: str) -> bytes:
    """Replace each HTTP address that the engine publishes; raises MsgspecError if the body is not JSON."""
    nodes = _nodes.decode(body).nodes.values()
    addresses = {node.http.publish_address for node in nodes if node.http and node.http.publish_address}
    published, own = {msgspec.json.encode(each) for each in addresses}, msgspec.json.encode(address)
    return _PUBLISHED.sub(lambda found: found[1] + own if found[2] in published else found[0], body)


async def answer_nodes(front: Front, exchange: Exchange, address: str) -> None:
    """Return the engine's response with this address in place of the nodes' own."""
    caller = front.caller(exchange)
    if isinstance(caller, Bypass):
        await front.hand_on(exchange)
        return
    try:
        reply = await caller.get(exchange.head.target.decode("ascii"), ())
        body = published_as(reply.body, address)
    except Refused as refusal:
        await send(exchange, EngineReply(refusal.status, tuple(refusal.fields), refusal.body), refusal.body, ())
        return
    except (UpstreamError, msgspec.MsgspecError, UnicodeDecodeError):
        await front.hand_on(exchange)
        return
    await send(exchange, reply, body, ())
