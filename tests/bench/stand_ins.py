"""An engine and models that respond after a fixed delay: `python -m tests.bench.stand_ins PORT engine|models`.

They speak HTTP from processes of their own, and use little CPU, so that the difference between two ways to search is
that of the ways. `GET /_stand_in` returns how many calls there were of each kind; `POST /_stand_in` sets which share of
the models' calls is never answered.
"""

import argparse
import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import uvloop

from proxy.commands.loading.mappings import Embedding
from tests.fakes import PRODUCT, Document, FakeEngine, Message, answer

CONTROL = "/_stand_in"
INDEX = "products"
DIMENSIONS = 1024
"""The default of the commands that load an index."""
PASSAGE = ("title", "description")
DELAYS_MS: Mapping[str, float] = {"lexical": 10, "semantic": 8, "render": 4, "embed": 10, "rerank": 40}
CRITICAL_MS = max(DELAYS_MS["lexical"], DELAYS_MS["embed"] + DELAYS_MS["semantic"]) + DELAYS_MS["rerank"]
"""The time that a search takes if nothing but engine and models take any."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SIZE = re.compile(rb'"size": ?(\d+)')
_IDS = re.compile(rb'"values": ?(\[[^\]]*\])')
_EMBEDDING = Embedding("embedding", "Qwen/Qwen3-Embedding-4B", DIMENSIONS, PASSAGE)


@dataclass(frozen=True, slots=True)
class Response:
    """What is sent for a request, and after how long."""

    kind: str
    message: bytes
    delay_ms: float = 0.0


class Engine(FakeEngine):
    """Finds the same documents for every query: BM25 the first ones, kNN half of them and as many others."""

    def __init__(self) -> None:
        super().__init__([Document("0", "", index=INDEX)])

    def _facts(self) -> Any:
        properties = {"title": {"type": "text"}, "description": {"type": "text"}, **_EMBEDDING.properties}
        return {"aliases": {}, "mappings": {"_meta": _EMBEDDING.meta, "properties": properties}, "settings": {}}

    def respond(self, request: Message) -> Response:
        """Return the response; a search is told by what its body contains."""
        if not request.path.endswith("/_search"):
            return Response(self.kind(request), self.usual(request))
        body = request.body
        if b'"knn"' in body:
            return self._search("semantic", _semantic(_size_of(body)))
        if found := _IDS.search(body):
            return self._search("render", _rendered(tuple(json.loads(found[1]))))
        return self._search("lexical", _lexical(_size_of(body)))

    @staticmethod
    def _search(kind: str, message: bytes) -> Response:
        return Response(kind, message, DELAYS_MS[kind])


def _size_of(body: bytes) -> int:
    return int((_SIZE.findall(body) or [b"10"])[-1])


def _source(number: int) -> dict[str, Any]:
    title = f"Acme camera {number} with a bag and two lenses"
    description = f"The camera {number} for travel, sports and children, with everything that belongs to it. " * 5
    return {
        "title": title,
        "description": description,
        "brand": "acme",
        "price": 99.5 + number,
        "categories": ["photo", "cameras", "system cameras"],
        "attributes": [{"name": f"attribute {each}", "value": f"value {each}"} for each in range(6)],
        "image": f"https://shop.example/images/{number}.jpg",
    }


def _hit(number: int, score: float, fields: tuple[str, ...] = ()) -> bytes:
    source = _source(number)
    shown = {name: source[name] for name in fields} if fields else source
    hit = {"_index": INDEX, "_id": str(number), "_score": score, "_source": shown}
    return json.dumps(hit, separators=(",", ":")).encode()


def _searched(hits: list[bytes], best: float, more: bytes = b"") -> bytes:
    head = b'{"took":7,"timed_out":false,"_shards":{"total":1,"successful":1,"skipped":0,"failed":0},'
    found = b'"hits":{"total":{"value":1000,"relation":"eq"},"max_score":%.4f,"hits":[%s]}' % (best, b",".join(hits))
    return answer(200, head + found + more + b"}", PRODUCT)


@cache
def _lexical(size: int) -> bytes:
    return _searched([_hit(number, 20 - number / 100) for number in range(size)], 20)


@cache
def _semantic(size: int) -> bytes:
    numbers = [place if place % 2 else size + place // 2 for place in range(size)]
    return _searched([_hit(n, 0.99 - place / 4000, PASSAGE) for place, n in enumerate(numbers)], 0.99)


@cache
def _rendered(ids: tuple[str, ...]) -> bytes:
    hits = [_hit(int(name), 1.0) for name in ids]
    return _searched(hits, 1.0, b',"aggregations":{"matched":{"doc_count":0}}')


class Models:
    """DeepInfra's two endpoints; calls may be left without a response."""

    def __init__(self) -> None:
        self.stalled = 0.0
        """The share of the calls that are never answered."""
        self._calls = 0

    def respond(self, request: Message) -> Response | None:
        """Return the response; None for a call that stalls."""
        if request.method == "HEAD":
            return Response("warm_up", answer(404))
        self._calls += 1
        if int(self._calls * self.stalled) > int((self._calls - 1) * self.stalled):
            return None
        if request.path == "/v1/openai/embeddings":
            return Response("embed", _vector(json.loads(request.body)["dimensions"]), DELAYS_MS["embed"])
        return Response("rerank", _scores(len(json.loads(request.body)["documents"])), DELAYS_MS["rerank"])


@cache
def _vector(dimensions: int) -> bytes:
    vector = [(number * 7919 % 1000 + 500) / 33137 for number in range(dimensions)]
    data = [{"object": "embedding", "index": 0, "embedding": vector}]
    return answer(200, json.dumps({"data": data, "usage": {"prompt_tokens": 9, "total_tokens": 9}}).encode())


@cache
def _scores(count: int) -> bytes:
    scores = [(number * 7919 % 997 + 1) / 1000 for number in range(count)]
    said = {"scores": scores, "input_tokens": 90 * count, "inference_status": {"cost": 0.0001}}
    return answer(200, json.dumps(said).encode())


class StandIn:
    """A server's state: what responds, and the calls so far."""

    def __init__(self, serves: Engine | Models) -> None:
        self.serves = serves
        self.calls: Counter[str] = Counter()

    def respond(self, request: Message) -> Response | None:
        if request.path == CONTROL:
            return Response("control", self._controlled(request))
        response = self.serves.respond(request)
        self.calls["stalled" if response is None else response.kind] += 1
        return response

    def _controlled(self, request: Message) -> bytes:
        if request.method == "POST" and isinstance(self.serves, Models):
            self.serves.stalled = float(json.loads(request.body)["stalled"])
        return answer(200, json.dumps(self.calls).encode())


class Connection(asyncio.Protocol):
    """A connection, whose requests come one after the other."""

    def __init__(self, server: StandIn) -> None:
        self._server = server
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or len(rest) < int(length[1] if length else 0):
            return
        self._received = b""
        response = self._server.respond(Message(head, rest))
        if response is not None:
            asyncio.get_running_loop().call_later(response.delay_ms / 1000, self._send, response.message)

    def _send(self, message: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(message)


async def _serve(port: int, server: StandIn) -> None:
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Connection(server), "127.0.0.1", port)
    await listening.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.stand_ins", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("serves", choices=("engine", "models"))
    options = parser.parse_args()
    uvloop.run(_serve(options.port, StandIn(Engine() if options.serves == "engine" else Models())))


if __name__ == "__main__":
    main()
