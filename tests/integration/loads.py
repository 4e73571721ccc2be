"""`rerank-proxy index` and `backfill` as processes, and the index they fill seen from the engine's side."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes import FakeServer, Message, Stream, answer
from tests.integration.commands import begun
from tests.integration.sending import Request, send

VECTOR_OPTIONS = ("--dimensions", "8", "--passage", "title,description")


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    code: int
    said: str

    @property
    def announced(self) -> list[str]:
        """The lines that say how much responses will grow."""
        return [line for line in self.said.splitlines() if " larger in responses " in line]

    @property
    def reported(self) -> list[str]:
        """The other lines."""
        return [line for line in self.said.splitlines() if line not in self.announced]


@dataclass(frozen=True, slots=True)
class Target:
    """An index, and the services that a load of it needs."""

    engine: str
    models: str
    index: str

    @property
    def services(self) -> tuple[str, ...]:
        return ("--engine", self.engine, "--models", self.models)

    def index_arguments(self, file: Path | str, *options: str) -> tuple[str, ...]:
        return ("index", str(file), "--name", self.index, "--profile", "e-commerce", *options, *self.services)

    def backfill_arguments(self, *options: str) -> tuple[str, ...]:
        return ("backfill", self.index, *options, *self.services)

    async def index_file(self, file: Path | str, *options: str, stdin: bytes | None = None) -> Ended:
        return await ended(*self.index_arguments(file, *VECTOR_OPTIONS, *options), stdin=stdin)

    async def backfill(self, *options: str) -> Ended:
        return await ended(*self.backfill_arguments(*options))

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the engine about the index."""
        content = b"" if body is None else json.dumps(body).encode()
        reply = await send(self.engine, Request(method, f"/{self.index}{path}", content))
        assert reply.status < 300, reply.body
        return reply.json

    async def documents(self) -> dict[str, dict[str, Any]]:
        """Read all documents by their ids, as they are by now."""
        await self.ask("POST", "/_refresh")
        # The vector's name brings it, also where the engine leaves vectors out of `_source` (from 9.2 on).
        body = {"size": 5000, "query": {"match_all": {}}, "_source": ["*", "embedding"]}
        hits = (await self.ask("POST", "/_search", body))["hits"]["hits"]
        return {hit["_id"]: hit["_source"] for hit in hits}

    async def put(self, documents: Mapping[str, Any]) -> None:
        """Write documents as a feed does: whole."""
        lines = [line for name, document in documents.items() for line in ({"index": {"_id": name}}, document)]
        body = "".join(json.dumps(line) + "\n" for line in lines).encode()
        reply = await send(self.engine, Request("POST", f"/{self.index}/_bulk?refresh=true", body))
        assert reply.json["errors"] is False


async def ended(*arguments: str, stdin: bytes | None = None) -> Ended:
    """Run a command to its end."""
    command = await begun(*arguments, stdin=stdin)
    code = await command.ended()
    return Ended(code, "".join(command.lines))


def products(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": f"p{number}", "title": f"Laptop {number}", "description": f"For video editing, kind {number % 7}"}
        for number in range(first, first + count)
    ]


def write(file: Path, *documents: Mapping[str, Any]) -> Path:
    file.write_bytes(ndjson(documents))
    return file


def ndjson(documents: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(document) + "\n" for document in documents).encode()


class BusyEngine(FakeServer):
    """Stands before the engine, and is too busy for the first few requests of each kind that it is told of."""

    def __init__(self, engine: str, **refusals: int) -> None:
        super().__init__()
        self._engine = engine
        self._left = dict(refusals)
        """Kind, the last word of a path without its underscore, to the number of requests that are refused."""
        self.refused: list[str] = []
        self.script = self._relay

    def kind(self, request: Message) -> str:
        return request.path.rpartition("/")[2].lstrip("_")

    async def _relay(self, stream: Stream) -> None:
        while request := await stream.request():
            await stream.send(await self._reply(request))

    async def _reply(self, request: Message) -> bytes:
        kind = self.kind(request)
        if self._left.get(kind, 0) > 0:
            self._left[kind] -= 1
            self.refused.append(kind)
            return answer(429, b'{"error":{"type":"es_rejected_execution_exception","reason":"busy"},"status":429}')
        named = ("content-type", "content-encoding", "accept")
        headers = {name: value for name in named if (value := request.header(name))}
        reply = await send(self._engine, Request(request.method, request.target, request.body, headers))
        product = ("X-Elastic-Product", "Elasticsearch")
        return answer(reply.status, reply.body, product, content_type=reply.header("Content-Type"))
