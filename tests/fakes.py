"""Servers behind the proxy and a client before it that really speak HTTP: they remember, and fail when told."""

import asyncio
import json
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ssl import SSLContext
from typing import Any, Self
from urllib.parse import unquote

Fields = tuple[tuple[bytes, bytes], ...]

_PATIENCE_S = 60.0
"""Seconds that a request is waited for: a machine that is too slow for its test fails it, and does not hang."""


@dataclass(frozen=True)
class Message:
    """A request or an answer: its head and body as the bytes came, chunks and all."""

    head: bytes
    body: bytes
    connection: int = 0

    @property
    def start(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    @property
    def method(self) -> str:
        return self.start.split(b" ")[0].decode()

    @property
    def target(self) -> str:
        return self.start.split(b" ")[1].decode()

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    @property
    def fields(self) -> Fields:
        pairs = (line.partition(b":") for line in self.head.split(b"\r\n")[1:] if line)
        return tuple((name.lower(), value.strip()) for name, _, value in pairs)

    def all(self, name: str) -> list[str]:
        return [value.decode("latin-1") for key, value in self.fields if key == name.lower().encode()]

    def header(self, name: str) -> str:
        return ", ".join(self.all(name))

    @property
    def content(self) -> bytes:
        return unchunked(self.body) if self.header("transfer-encoding") == "chunked" else self.body

    def json(self) -> Any:
        return json.loads(self.content)


def chunked(*pieces: bytes, trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailers + b"\r\n"


def unchunked(body: bytes) -> bytes:
    content = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        content, body = content + rest[:length], rest[length + 2 :] if length else b""
    return content


class Stream:
    """One end of a connection, read message by message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int = 0) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number

    async def head(self) -> bytes:
        """Return the next head; empty where the connection ends."""
        try:
            return await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

    async def body(self, head: Message, *, until_close: bool = False) -> bytes:
        if head.header("transfer-encoding") == "chunked":
            return await self._chunks()
        if head.header("content-length"):
            return await self.reader.readexactly(int(head.header("content-length")))
        return await self.reader.read() if until_close else b""

    async def _chunks(self) -> bytes:
        body = b""
        while True:
            line = await self.reader.readuntil(b"\r\n")
            body += line
            if size := int(line.partition(b";")[0], 16):
                body += await self.reader.readexactly(size + 2)
                continue
            while line != b"\r\n":
                line = await self.reader.readuntil(b"\r\n")
                body += line
            return body

    async def request(self) -> Message | None:
        """Return the next request whole; None where the client has left."""
        head = await self.head()
        if not head:
            return None
        return Message(head, await self.body(Message(head, b"")), self.number)

    async def send(self, sent: bytes) -> None:
        """Send bytes; raises ConnectionError where the other end has left."""
        if self.writer.transport.is_closing():  # uvloop raises a RuntimeError, asyncio drops what is written
            raise ConnectionResetError
        self.writer.write(sent)
        await self.writer.drain()

    async def left(self) -> bytes:
        """Wait until the other end is gone; return what it still said."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    def break_off(self) -> None:
        """End the connection with a reset, as a killed process does."""
        linger_no_time = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_no_time)
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


def answer(
    status: int = 200,
    body: bytes = b"",
    *fields: tuple[str, str],
    reason: str = "OK",
    content_type: str = "application/json",
) -> bytes:
    """Write an answer as an engine would."""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in fields)]
    lines += [f"content-type: {content_type}", f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


Fault = Callable[[Stream, Message], Awaitable[bytes | None]]
"""What happens instead of an answer: bytes are sent as they are, None goes on with the usual answer."""
Script = Callable[[Stream], Awaitable[None]]


def refuses(status: int = 503, body: bytes = b'{"error":{"type":"busy","reason":"told to"},"status":503}') -> Fault:
    async def fault(stream: Stream, request: Message) -> bytes:
        return answer(status, body, reason="Refused")

    return fault


def says(body: bytes) -> Fault:
    """Answer 200 with this body."""
    return refuses(200, body)


async def hangs(stream: Stream, request: Message) -> None:
    """Never answer; end when the client leaves."""
    await stream.left()
    raise ConnectionError


def waits_for(event: asyncio.Event) -> Fault:
    async def fault(stream: Stream, request: Message) -> None:
        await event.wait()

    return fault


def breaks_off(sent: bytes = b"") -> Fault:
    """Send this much and break the connection off."""

    async def fault(stream: Stream, request: Message) -> None:
        await stream.send(sent)
        stream.break_off()
        raise ConnectionError

    return fault


class FakeServer:
    """An open port that answers, remembers what it was asked, and fails where `faults` say so."""

    def __init__(self, tls: SSLContext | None = None) -> None:
        self.requests: list[Message] = []
        self.connections = 0
        self.faults: dict[str, Fault] = {}
        self.script: Script | None = None
        self.asked = asyncio.Condition()
        self.ended = asyncio.Condition()
        self.open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.tls = tls
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server:
            self._server.close()
        for task in self.open:
            task.cancel()
        await asyncio.gather(*self.open, return_exceptions=True)

    def of(self, kind: str) -> list[Message]:
        """Return the requests of one kind, in the order they came."""
        return [request for request in self.requests if self.kind(request) == kind]

    def kind(self, request: Message) -> str:
        return request.path

    async def until_asked(self, kind: str, times: int = 1) -> None:
        """Wait until so many requests of a kind have come."""
        async with asyncio.timeout(_PATIENCE_S), self.asked:
            await self.asked.wait_for(lambda: len(self.of(kind)) >= times)

    async def until_left(self) -> None:
        """Wait until nobody is connected."""
        async with self.ended:
            await self.ended.wait_for(lambda: not self.open)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.open.add(task)
        self.connections += 1
        stream = Stream(reader, writer, self.connections)
        try:
            await (self.script or self._talk)(stream)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            writer.close()
            self.open.discard(task)
            async with self.ended:
                self.ended.notify_all()

    async def remember(self, request: Message) -> None:
        self.requests.append(request)
        async with self.asked:
            self.asked.notify_all()

    async def _talk(self, stream: Stream) -> None:
        while request := await stream.request():
            await self.remember(request)
            fault = self.faults.get(self.kind(request))
            sent = await fault(stream, request) if fault else None
            await stream.send(self.usual(request) if sent is None else sent)

    def usual(self, request: Message) -> bytes:
        return answer(body=b"{}")


_TAKEN: list[socket.socket] = []


def closed_port() -> int:
    """Return a port where nobody listens, nor will: it stays taken, so that no server is given it later on."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    _TAKEN.append(taken)
    return int(taken.getsockname()[1])


@dataclass(frozen=True)
class Document:
    """A document of the fake engine, and how well each retriever finds it; None: not at all."""

    id: str
    title: str
    lexical: float | None = None
    cosine: float | None = None
    index: str = "products"
    more: Mapping[str, Any] = field(default_factory=dict)
    boost: float = 1.0
    """What the query says of it beyond the words, as a score."""

    @property
    def source(self) -> dict[str, Any]:
        return {"title": self.title, **self.more}


MODEL = "Qwen/Qwen3-Embedding-4B"
PRODUCT: tuple[str, str] = ("X-elastic-product", "Elasticsearch")
PROPERTIES: Mapping[str, Mapping[str, Any]] = {
    "title": {"type": "text"},
    "brand": {"type": "keyword"},
    "tenant": {"type": "text", "fields": {"keyword": {"type": "keyword"}}},
    "embedding": {"type": "dense_vector", "dims": 3, "index": True, "similarity": "cosine"},
}


class FakeEngine(FakeServer):
    """An engine with a few documents: it resolves names, shows mappings, and runs the searches that a proxy makes.

    Kinds of its requests: version, resolve, facts, types, lexical, semantic, render, facets, passages, boosts,
    template, multi, other. Aggregations are counted by `terms` of a field.
    """

    def __init__(self, documents: Sequence[Document] = ()) -> None:
        super().__init__()
        self.documents = list(documents)
        self.aliases: dict[str, list[str]] = {}
        self.model: str | None = MODEL
        self.version = {"number": "8.19.13"}
        self.total_relation = "eq"

    @property
    def indices(self) -> list[str]:
        return sorted({document.index for document in self.documents})

    def kind(self, request: Message) -> str:
        path = request.path
        if path.endswith("/_search"):
            return self._search_kind(_said(request.content))
        if path.startswith("/_resolve/index/"):
            return "resolve"
        by_end = {"/_msearch": "multi", "/_field_caps": "types", "/_render/template": "template"}
        if found := [kind for end, kind in by_end.items() if path.endswith(end)]:
            return found[0]
        if request.method == "GET" and path == "/":
            return "version"
        of_index = path.count("/") == 1 and not path.startswith("/_")
        return "facts" if request.method == "GET" and of_index else "other"

    def _search_kind(self, body: Any) -> str:
        if not isinstance(body, dict):
            return "lexical"
        if "knn" in body:
            return "semantic"
        if "matched" in body.get("aggs", ()):
            return "render"
        filters = body.get("query", {}).get("bool", {})
        if "minimum_should_match" in filters and body.get("size") == 0:
            return "facets"
        if list(filters) == ["filter", "should"] and body.get("_source") is False:
            return "boosts"
        return "passages" if list(filters) == ["filter"] and body.get("track_total_hits") is False else "lexical"

    def usual(self, request: Message) -> bytes:
        said: Any
        match self.kind(request):
            case "resolve":
                said = self._resolution(unquote(request.path.rpartition("/")[2]))
            case "facts":
                said = {name: self._facts() for name in request.path[1:].split(",")}
            case "types":
                said = {"indices": self.indices, "fields": self._types()}
            case "version":
                said = {"version": self.version}
            case "template":
                said = {"template_output": self._rendered(_said(request.content))}
            case "multi":
                bodies = map(_said, request.content.splitlines()[1::2])
                said = {"took": 7, "responses": [self._answered(body) | {"status": 200} for body in bodies]}
            case "other":
                said = {"acknowledged": True}
            case _:
                said = self._answered(_said(request.content))
                if "typed_keys=true" in request.target and "aggregations" in said:
                    results = said["aggregations"].items()
                    types = {name: "filter" if name == "matched" else "sterms" for name, _ in results}
                    said["aggregations"] = {f"{types[name]}#{name}": result for name, result in results}
        return answer(200, json.dumps(said, separators=(",", ":")).encode(), PRODUCT)

    def _answered(self, body: Any) -> dict[str, Any]:
        return self._searched(self._search_kind(body), body)

    def _rendered(self, template: Any) -> Any:
        """Put the parameters in place of each `{{name}}`, and no more than that."""
        source = template["source"]
        text = source if isinstance(source, str) else json.dumps(source)
        for name, value in template.get("params", {}).items():
            text = text.replace(f"{{{{{name}}}}}", str(value))
        return json.loads(text)

    def _resolution(self, name: str) -> Any:
        def named(known: str) -> bool:
            return any(fnmatchcase(known, part) for part in name.split(","))

        return {
            "indices": [{"name": index, "attributes": ["open"]} for index in self.indices if named(index)],
            "aliases": [{"name": alias, "indices": list(held)} for alias, held in self.aliases.items() if named(alias)],
            "data_streams": [],
        }

    def _facts(self) -> Any:
        meta = {"rerank_proxy": {"embedding": {"model": self.model}}} if self.model else {}
        return {"aliases": {}, "mappings": {"_meta": meta, "properties": PROPERTIES}, "settings": {"index": {}}}

    def _types(self) -> Any:
        return {path: {spec["type"]: {"type": spec["type"]}} for path, spec in PROPERTIES.items()}

    def _searched(self, kind: str, body: Any) -> dict[str, Any]:
        found = self._found(kind, body)
        start = body.get("from", 0)
        hits = [self._hit(document, score, body) for document, score in found[start : start + body.get("size", 10)]]
        said: dict[str, Any] = {"took": 7, "timed_out": False}
        said["_shards"] = {"total": 1, "successful": 1, "skipped": 0, "failed": 0}
        best = max((score for _, score in found), default=None)
        total = {"total": {"value": len(found), "relation": self.total_relation}}
        said["hits"] = ({} if body.get("track_total_hits") is False else total) | {"max_score": best, "hits": hits}
        if asked := body.get("aggs", body.get("aggregations")):
            said["aggregations"] = self._aggregated(body, asked, [document for document, _ in found])
        return said

    def _aggregated(self, body: Any, asked: Any, found: Sequence[Document]) -> dict[str, Any]:
        added = _ids(body.get("query"))
        counted = [doc for doc in self.documents if doc.lexical is not None or doc.id in added]
        results: dict[str, Any] = {}
        for name, aggregation in asked.items():
            if name == "matched":
                results[name] = {"doc_count": sum(document.lexical is not None for document in found)}
            else:
                values = Counter(doc.more.get(aggregation["terms"]["field"]) for doc in counted)
                results[name] = {"buckets": [{"key": key, "doc_count": count} for key, count in values.items() if key]}
        return results

    def _found(self, kind: str, body: Any) -> list[tuple[Document, float]]:
        if kind == "semantic":
            words = '"match":' in json.dumps(body["knn"].get("filter"))
            found = [doc for doc in self.documents if doc.lexical is not None or not words]
            scores = [(doc, (1 + doc.cosine) / 2) for doc in found if doc.cosine is not None]
        elif kind == "lexical":
            excluded = _ids(body.get("post_filter", {}))
            found = [doc for doc in self.documents if doc.id not in excluded]
            scores = [(doc, doc.lexical) for doc in found if doc.lexical is not None]
        elif kind == "facets":
            added = _ids(body["query"])
            scores = [(doc, doc.lexical or 0.0) for doc in self.documents if doc.lexical is not None or doc.id in added]
        else:
            wanted = _ids(body["query"])
            if kind == "boosts":
                return [(doc, doc.boost) for doc in self.documents if doc.id in wanted]
            matching = "must" in body["query"]["bool"]
            found = [doc for doc in self.documents if doc.lexical is not None or not matching]
            scores = [(doc, doc.lexical or 0.0) for doc in found if doc.id in wanted]
        return sorted(scores, key=lambda pair: -pair[1])

    def _hit(self, document: Document, score: float, body: Any) -> Any:
        hit: dict[str, Any] = {"_index": document.index, "_id": document.id, "_score": score}
        asked = body.get("_source", True)
        if asked is False:
            return hit
        source = document.source
        shown = {name: source[name] for name in asked if name in source} if isinstance(asked, list) else source
        return hit | {"_source": shown}


def _said(content: bytes) -> Any:
    """Read JSON; what is none is taken for nothing said."""
    try:
        return json.loads(content or b"{}")
    except ValueError:
        return {}


def _ids(query: Any) -> set[str]:
    """Find the ids that a query names, wherever they stand."""
    match query:
        case {"ids": {"values": values}}:
            return set(values)
        case dict():
            return {name for value in query.values() for name in _ids(value)}
        case list():
            return {name for value in query for name in _ids(value)}
        case _:
            return set()


class FakeModels(FakeServer):
    """DeepInfra's two endpoints. Kinds of its requests: embed, rerank, warm_up."""

    def __init__(self, scores: Mapping[str, float] | None = None, tls: SSLContext | None = None) -> None:
        super().__init__(tls)
        self.scores = dict(scores or {})
        """A passage's first line to its score; for others 0.5 and less, in their order."""
        self.cost = 0.0
        """US dollars for a call of the reranker."""
        self.tokens_per_character = 0.0
        """Tokens of a call of the reranker, besides 42."""

    def kind(self, request: Message) -> str:
        if request.method == "HEAD":
            return "warm_up"
        return "embed" if request.path == "/v1/openai/embeddings" else "rerank"

    def usual(self, request: Message) -> bytes:
        if request.method == "HEAD":
            return answer(404)
        said = self._embedded(request.json()) if self.kind(request) == "embed" else self._scored(request.json())
        return answer(200, json.dumps(said).encode())

    def _embedded(self, asked: Any) -> Any:
        length = asked.get("dimensions", 8)
        vectors = [[1.0 + number, *([0.0] * (length - 1))] for number, _ in enumerate(asked["input"])]
        data = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)]
        return {"object": "list", "data": data[::-1], "usage": {"prompt_tokens": 1, "total_tokens": 1}}

    def _scored(self, asked: Any) -> Any:
        passages = enumerate(asked["documents"])
        scores = [self.scores.get(each.partition("\n")[0], 0.5 - place / 10**6) for place, each in passages]
        tokens = 42 + int(sum(map(len, asked["documents"])) * self.tokens_per_character)
        return {"scores": scores, "input_tokens": tokens, "inference_status": {"cost": self.cost}}


class Client(Stream):
    """A client of the proxy, on a connection of its own."""

    @classmethod
    async def to(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**20))

    async def answer(self, method: str = "GET") -> Message:
        """Read one answer, interim ones being answers too."""
        head = Message(await self.head(), b"")
        assert head.head, "the connection ended without an answer"
        bodiless = method == "HEAD" or head.status < 200 or head.status in {204, 304}
        return Message(head.head, b"" if bodiless else await self.body(head, until_close=True))

    async def ask(self, method: str, target: str, body: bytes | None = None, **fields: str) -> Message:
        """Send a request and read its answer; `x_opaque_id="1"` is a header."""
        await self.send(request(method, target, body, **fields))
        return await self.answer(method)

    async def search(self, target: str, body: Any, **fields: str) -> Message:
        fields.setdefault("content_type", "application/json")
        return await self.ask("POST", target, json.dumps(body).encode(), **fields)


def request(method: str, target: str, body: bytes | None = None, **fields: str) -> bytes:
    """Write a request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: proxy.example"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    lines += [] if body is None else [f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def ids(answered: Message) -> list[str]:
    """Return the hits' ids in order."""
    return [hit["_id"] for hit in answered.json()["hits"]["hits"]]
