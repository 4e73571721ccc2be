"""The clients of a soak: each kind sends one sort of request over and over, and notes what it got."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.fakes import Client, Message, request
from tests.integration import shop

INDEX, PLAIN, SINK = "soak-products", "soak-plain", "soak-sink"
_WORDS = ("laptop", "phone", "camera", "tablet", "video", "children", "travel", "office", "tough", "box", "film")
_ANSWER_S = 30.0
"""A response that takes longer than this is an error."""


@dataclass(slots=True)
class Tally:
    """What was sent, and what came of it."""

    reloads: int = 0
    """Increases when a reload is asked for, and when it has certainly happened: odd in between."""
    sent: int = 0
    """Requests whose head was sent whole; each of them must be in the proxy's counter."""
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By kind of client and status."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """By `X-Rerank`."""
    wrong: Counter[str] = field(default_factory=Counter)
    """What should not have been, in words."""

    def note(self, kind: str, answered: Message) -> None:
        self.statuses[kind, answered.status] += 1
        if outcome := answered.header("x-rerank"):
            self.outcomes[outcome] += 1
        if answered.status >= 500:
            self.wrong[f"{kind}: {answered.status} {answered.body[:200]!r}"] += 1


@dataclass(slots=True)
class Caller:
    """A client on one connection, opened again when it has closed."""

    kind: str
    port: int
    tally: Tally
    random: random.Random
    client: Client | None = None

    async def ask(self, method: str, target: str, body: bytes | None = None, **fields: str) -> Message | None:
        """Send a request and read the response; None if the connection ended before one."""
        client = await self.connected()
        self.tally.sent += 1
        try:
            async with asyncio.timeout(_ANSWER_S):
                await client.send(request(method, target, body, **fields))
                answered = await client.answer(method)
        except (ConnectionError, AssertionError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.tally.wrong[f"{self.kind}: no response: {error!r:.100}"] += 1
            self.leave()
            return None
        self.tally.note(self.kind, answered)
        if answered.header("connection").lower() == "close":
            self.leave()
        return answered

    async def search(self, index: str, body: Mapping[str, Any], **fields: str) -> Message | None:
        content = json.dumps(body).encode()
        return await self.ask("POST", f"/{index}/_search", content, content_type="application/json", **fields)

    async def connected(self) -> Client:
        if self.client is None:
            self.client = await Client.to(self.port)
        return self.client

    def leave(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None

    def words(self) -> str:
        return " ".join(self.random.sample(_WORDS, 3)) + f" {self.random.randrange(100)}"

    def query(self) -> dict[str, Any]:
        return {"multi_match": {"query": self.words(), "fields": ["title^2", "description"]}}


async def searches(caller: Caller) -> None:
    body = {"query": caller.query(), "aggs": {"brands": {"terms": {"field": "brand"}}}}
    answered = await caller.search(INDEX, body, authorization=f"ApiKey {caller.random.randrange(20)}")
    if answered is not None and answered.status == 200 and not answered.json()["hits"]["hits"]:
        caller.tally.wrong["searches: no hits"] += 1


async def pages(caller: Caller) -> None:
    """Read five pages, which must have every document once, unless a reload with another window came in between."""
    query, seen, reloads = caller.query(), Counter[str](), caller.tally.reloads
    for start in range(0, 50, 10):
        answered = await caller.search(INDEX, {"query": query, "from": start, "size": 10})
        if answered is None or answered.status != 200:
            return
        seen.update(hit["_id"] for hit in answered.json()["hits"]["hits"])
        if "reranked" not in answered.header("x-rerank"):
            return  # a page of another order may repeat a document
    if seen.total() != len(seen) and reloads % 2 == 0 and reloads == caller.tally.reloads:
        caller.tally.wrong["pages: a document is on two pages"] += 1


async def multi_searches(caller: Caller) -> None:
    bodies = [
        {"index": index} if line == 0 else {"query": caller.query()}
        for index in (INDEX, PLAIN, INDEX)
        for line in (0, 1)
    ]
    content = "".join(json.dumps(body) + "\n" for body in bodies).encode()
    answered = await caller.ask("POST", "/_msearch", content, content_type="application/x-ndjson")
    if answered is not None and [each.get("status") for each in answered.json()["responses"]] != [200] * 3:
        caller.tally.wrong[f"multi-searches: {answered.body[:200]!r}"] += 1


async def bulks(caller: Caller) -> None:
    text = "a product that is described at some length " * 20
    lines = "".join(f'{{"index":{{"_id":"{number}"}}}}\n{{"title":"{text}"}}\n' for number in range(200))
    await caller.ask("POST", f"/{SINK}/_bulk", lines.encode(), content_type="application/x-ndjson")


async def big_answers(caller: Caller) -> None:
    """Read a large response, at times slowly."""
    await caller.search(PLAIN, {"query": {"match_all": {}}, "size": 2000})


async def documents(caller: Caller) -> None:
    for number in range(10):
        await caller.ask("GET", f"/{PLAIN}/_doc/{number}")


async def leavers(caller: Caller) -> None:
    """Leave while the search runs, with its body sent whole or in part."""
    client = await caller.connected()
    index = caller.random.choice((INDEX, PLAIN))
    sent = request(
        "POST", f"/{index}/_search", json.dumps({"query": caller.query()}).encode(), content_type="application/json"
    )
    caller.tally.sent += 1
    await client.send(sent if caller.random.random() < 0.7 else sent[:-20])
    await asyncio.sleep(caller.random.random() * 0.1)
    caller.leave()


async def pipeliners(caller: Caller) -> None:
    """Leave while a write waits behind a search."""
    client = await caller.connected()
    search = json.dumps({"query": caller.query()}).encode()
    write = request("PUT", f"/{SINK}/_doc/{caller.random.randrange(99)}", b"{}", content_type="application/json")
    caller.tally.sent += 2
    await client.send(request("POST", f"/{INDEX}/_search", search, content_type="application/json") + write)
    await asyncio.sleep(caller.random.random() * 0.1)
    caller.leave()


_BROKEN = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST /a/_search HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
)


async def broken(caller: Caller) -> None:
    """Send what is not HTTP; the response is a 4xx, or the connection ends."""
    client = await caller.connected()
    caller.tally.sent += 1
    with suppress(ConnectionError, AssertionError, asyncio.IncompleteReadError):
        await client.send(caller.random.choice(_BROKEN))
        caller.tally.note(caller.kind, await client.answer())
    caller.leave()


Kind = Callable[[Caller], Awaitable[None]]
KINDS: Mapping[str, tuple[Kind, int, float]] = {
    "searches": (searches, 4, 0.5),
    "pages": (pages, 1, 1.0),
    "multi-searches": (multi_searches, 1, 1.0),
    "bulks": (bulks, 1, 2.0),
    "big answers": (big_answers, 1, 2.0),
    "documents": (documents, 1, 0.5),
    "leavers": (leavers, 2, 0.5),
    "pipeliners": (pipeliners, 1, 0.5),
    "broken": (broken, 1, 1.0),
}
"""Each kind of client, how many there are, and the mean pause between two of its turns, in seconds."""


async def keep(kind: str, number: int, port: int, tally: Tally, until: asyncio.Event) -> None:
    """Let one client take its turns until the end."""
    turn, _, pause = KINDS[kind]
    caller = Caller(kind, port, tally, random.Random(f"{kind}{number}"))
    while not until.is_set():
        await turn(caller)
        with suppress(TimeoutError):
            await asyncio.wait_for(until.wait(), caller.random.expovariate(1 / pause))
        if caller.random.random() < 0.05:
            caller.leave()
    caller.leave()


def products(count: int) -> Mapping[str, Mapping[str, Any]]:
    """Return the shop's products over and over."""
    known = list(shop.PRODUCTS.values())
    return {str(number): known[number % len(known)] for number in range(count)}
