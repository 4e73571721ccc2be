"""Requests sent as they are written, by a client that knows nothing of this project: `http.client`."""

import asyncio
import gzip
import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    target: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    chunked: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    reason: str
    fields: Sequence[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        """Return a header's value; empty where there is none."""
        return ", ".join(value for key, value in self.fields if key.lower() == name.lower())

    @property
    def outcome(self) -> str:
        return self.header("X-Rerank")

    @property
    def content(self) -> bytes:
        return gzip.decompress(self.body) if self.header("Content-Encoding") == "gzip" else self.body

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def hits(self) -> list[Any]:
        found: list[Any] = self.json["hits"]["hits"]
        return found

    @property
    def ids(self) -> list[str]:
        return [hit["_id"] for hit in self.hits]

    @property
    def total(self) -> Any:
        return self.json["hits"].get("total")


def send_now(url: str, request: Request) -> Reply:
    """Send one request on a connection of its own, and read the answer to its end."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.putrequest(request.method, request.target, skip_accept_encoding=True)
        for name, value in request.headers.items():
            connection.putheader(name, value)
        if request.chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        elif request.body or request.method in {"POST", "PUT"}:
            connection.putheader("Content-Length", str(len(request.body)))
        connection.endheaders(request.body or None, encode_chunked=request.chunked)
        answer = connection.getresponse()
        return Reply(answer.status, answer.reason, answer.getheaders(), answer.read())
    finally:
        connection.close()


async def send(url: str, request: Request) -> Reply:
    """Send one request without holding up the proxy that runs on this loop."""
    return await asyncio.to_thread(send_now, url, request)


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody's client: one URL and an index."""

    url: str
    index: str

    async def search(self, body: Mapping[str, Any] | bytes | None = None, query_string: str = "") -> Reply:
        """Search the index; a body is sent by POST, none by GET."""
        target = f"/{self.index}/_search" + (f"?{query_string}" if query_string else "")
        if body is None:
            return await send(self.url, Request("GET", target, headers={}))
        written = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await send(self.url, Request("POST", target, written))
