"""Whatever an upstream does, the client gets the best order that is known, or the engine's own error, and sees why.

One table: each fault of each upstream, with the response, the header, the log line, the counters and the trace that say
so.
"""

import asyncio
import gzip
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from proxy.app import open_proxy
from proxy.bounds import SEARCH_RESPONSE_BYTES
from proxy.context.tracing import Span, Trace
from proxy.http1.listener import serve
from proxy.settings.config import Config
from proxy.telemetry.metrics import Counters
from tests.conftest import QUERY, TOKEN, Log
from tests.fakes import (
    Client,
    Document,
    FakeEngine,
    FakeModels,
    FakeServer,
    Fault,
    Message,
    Stream,
    answer,
    breaks_off,
    closed_port,
    hangs,
    refuses,
    says,
)
from tests.fakes import ids as ids_of

SOON = 0.1
RERANKED, FUSED, LEXICAL, WITHOUT_SEMANTIC = (
    ["d", "b", "c", "a"],
    ["a", "b", "d", "c"],
    ["a", "b", "c"],
    ["b", "c", "a"],
)
WORDS = b'{"detail":"in its own words"}'
HALF = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90\r\n\r\n{"
JUNK = b"x" * (10 * 2**20)


async def stalls_in_mid_body(stream: Stream, request: Message) -> None:
    await stream.send(HALF)
    await stream.left()
    raise ConnectionError


def compressed(content: bytes) -> Fault:
    async def fault(stream: Stream, request: Message) -> bytes:
        return answer(200, gzip.compress(content, 1, mtime=0), ("Content-Encoding", "gzip"))

    return fault


def embeddings(*vectors: str) -> bytes:
    data = ",".join(f'{{"index":{number},"embedding":{vector}}}' for number, vector in enumerate(vectors))
    return f'{{"data":[{data}]}}'.encode()


@dataclass(frozen=True)
class Row:
    """A fault, and what is said of it: its reason, some words of the log's detail, and the results of the calls."""

    fault: Fault
    reason: str
    words: str
    retried: bool = False
    event: str = ""
    """A second line of the log, about the model."""
    call: str = ""
    """The result of the call, if it is not the reason: what is wrong shows only beside the other calls of a window."""


BOTH_MODELS: Mapping[str, Row] = {
    "400": Row(refuses(400, WORDS), "refused", "status 400: in its own words"),
    "401": Row(refuses(401, WORDS), "misconfigured", "status 401: in its own words", event="model_misconfigured"),
    "402": Row(refuses(402, WORDS), "misconfigured", "status 402: in its own words", event="model_misconfigured"),
    "403": Row(refuses(403, WORDS), "misconfigured", "status 403: in its own words", event="model_misconfigured"),
    "404": Row(refuses(404, WORDS), "misconfigured", "status 404: in its own words", event="model_misconfigured"),
    "413": Row(refuses(413, WORDS), "refused", "status 413: in its own words"),
    "422": Row(refuses(422, WORDS), "refused", "status 422: in its own words"),
    "429": Row(refuses(429, WORDS), "rate_limited", "status 429: in its own words", retried=True),
    "500": Row(refuses(500, WORDS), "server_error", "status 500: in its own words", retried=True),
    "503": Row(refuses(503, b"<html>"), "server_error", "status 503", retried=True),
    "redirect": Row(refuses(307, b""), "refused", "status 307"),
    "timed out before the head": Row(hangs, "timeout", "no answer in 0.1 s"),
    "timed out in mid-body": Row(stalls_in_mid_body, "timeout", "no answer in 0.1 s"),
    "broken off before the head": Row(breaks_off(), "unreachable", "http://127.0.0.1", retried=True),
    "broken off in mid-body": Row(breaks_off(HALF), "unreachable", "http://127.0.0.1"),
    "no HTTP": Row(breaks_off(b"SSH-2.0-x\r\n\r\n"), "malformed", "no HTTP response"),
    "malformed JSON": Row(says(b'{"scores": [0.5'), "malformed", "not"),
    "no JSON": Row(says(b"<html>"), "malformed", "not"),
    "empty": Row(says(b""), "malformed", "not"),
    "10 MB of junk": Row(says(JUNK), "malformed", "a response of more than"),
    "compressed bomb": Row(compressed(b"0" * 2**26), "malformed", "a response of more than"),
    "inner error": Row(
        says(b'{"error":{"message":"in its own words","code":429}}'), "rate_limited", "own words", retried=True
    ),
    "inner error of the token": Row(
        says(b'{"error":{"message":"in its own words","code":401}}'),
        "misconfigured",
        "own words",
        event="model_misconfigured",
    ),
}
RERANKER: Mapping[str, Row] = {
    "wrong count": Row(says(b'{"scores":[0.5]}'), "malformed", "not one finite score for each of 4 documents"),
    "NaN": Row(says(b'{"scores":[0.1,NaN,0.2,0.3]}'), "malformed", "not JSON"),
    "null": Row(says(b'{"scores":[0.1,null,0.2,0.3]}'), "malformed", "not one finite score"),
    "infinite": Row(says(b'{"scores":[0.1,1e999,0.2,0.3]}'), "malformed", "not"),
    "equal scores": Row(
        says(b'{"scores":[0.4,0.4,0.4,0.4]}'), "equal_scores", "the score 0.4 for each of 4 passages", call="ok"
    ),
}
EMBEDDER: Mapping[str, Row] = {
    "wrong count": Row(says(embeddings("[1,0,0]", "[1,0,0]")), "malformed", "not one vector for each of 1 texts"),
    "NaN": Row(says(embeddings("[NaN,0,0]")), "malformed", "not"),
    "null": Row(says(embeddings("[null,0,0]")), "malformed", "not"),
    "zero": Row(says(embeddings("[0,0,0]")), "malformed", "a vector is zero or not finite"),
    "wrong length": Row(says(embeddings("[1,0]")), "malformed", "dimensions"),
    "other model": Row(says(b'{"model":"m","data":[{"index":0,"embedding":[1,0,0]}]}'), "other_model", "vectors of m"),
}


class Recorded:
    """Takes spans as a collector would, by their names."""

    share = 1.0

    def __init__(self) -> None:
        self.spans: dict[str, list[Span]] = {}

    def export(self, trace: Trace, spans: Iterable[Span]) -> None:
        for span in spans:
            self.spans.setdefault(span.name, []).append(span)

    @property
    def said(self) -> Mapping[str, object]:
        """What the span of the search says of its outcome."""
        (search,) = self.spans["search"]
        return {name: search.attributes.get(f"rerank.{name}", "") for name in ("outcome", "reason", "stages")}


@dataclass
class Place:
    """The proxy between its fakes; what it counts."""

    settings: Config
    engine: FakeEngine
    models: FakeModels
    log: Log
    stack: AsyncExitStack
    counters: Counters = field(default_factory=Counters)
    trace: Recorded = field(default_factory=Recorded)

    async def search(self, settings: Config | None = None) -> Message:
        """Start a proxy, and search through it."""
        client = await Client.to(await self.serve(settings))
        self.stack.callback(client.close)
        answered = await client.search("/products/_search", QUERY)
        assert TOKEN not in repr(self.log) + repr(answered)
        return answered

    async def serve(self, settings: Config | None = None) -> int:
        """Start a proxy; return its port."""
        config = settings or self.settings
        proxy = await open_proxy(config, TOKEN, {}, self.stack)
        proxy.telemetry.traces = self.trace
        conclude = proxy.telemetry.conclude
        listener = await serve(proxy.handle, proxy.upstream, "127.0.0.1", 0, conclude=conclude)
        self.stack.push_async_callback(listener.close, 1.0)
        self.counters = proxy.telemetry.counters
        return listener.port

    def with_models(self, **changes: object) -> Config:
        models = msgspec.structs.replace(self.settings.models, **changes)
        return msgspec.structs.replace(self.settings, models=models)

    def with_engine(self, **changes: object) -> Config:
        engine = msgspec.structs.replace(self.settings.engine, **changes)
        return msgspec.structs.replace(self.settings, engine=engine)

    @property
    def line(self) -> Mapping[str, object]:
        """The search's one line."""
        (line,) = (line for line in self.log if line["event"] == "search")
        return dict(line)

    @property
    def events(self) -> list[str]:
        return sorted(line["event"] for line in self.log if line["event"] != "search")


@pytest.fixture
async def place(settings: Config, engine: FakeEngine, models: FakeModels, log: Log) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        yield Place(settings, engine, models, log, stack)


def check_degraded(place: Place, answered: Message, stages: str, reason: str, words: str, order: list[str]) -> None:
    """Response, header, log, counter and trace say the same."""
    assert (200, order) == (answered.status, ids_of(answered))
    assert f'degraded;stages="{stages}";reason={reason}' == answered.header("x-rerank")
    line = place.line
    assert ("warning", "degraded", reason) == (line["log_level"], line["outcome"], line["reason"])
    assert words in str(line["detail"])
    assert Counter({("products*", "degraded", reason): 1}) == place.counters.searches
    assert {"outcome": "degraded", "reason": reason, "stages": stages} == place.trace.said


def calls_of(place: Place, service: str) -> Mapping[str, int]:
    """Return the counted calls of a model by result."""
    return {result: count for (of, _, result), count in place.counters.model_calls.items() if of == service}


MODELS = [
    pytest.param(service, row, id=f"{service}: {name}")
    for service, rows in (("embedder", {**BOTH_MODELS, **EMBEDDER}), ("reranker", {**BOTH_MODELS, **RERANKER}))
    for name, row in rows.items()
]


@pytest.mark.parametrize(("service", "row"), MODELS)
async def test_each_model_fault_degrades_the_search(place: Place, service: str, row: Row) -> None:
    kind, stage, order = {
        "embedder": ("embed", "semantic", WITHOUT_SEMANTIC),
        "reranker": ("rerank", "rerank", FUSED),
    }[service]
    place.models.faults[kind] = row.fault
    impatient = row.reason == "timeout"
    answered = await place.search(place.with_models(**{f"{kind}_timeout_seconds": SOON}) if impatient else None)
    check_degraded(place, answered, stage, row.reason, row.words, order)
    assert ([row.event] if row.event else []) == place.events
    assert 1 + row.retried == len(place.models.of(kind))
    expected = {row.call or row.reason: 1 + row.retried, **({"retried": 1} if row.retried else {})}
    assert (expected, 1 + row.retried) == (calls_of(place, service), len(place.trace.spans[service]))


@contextmanager
def taking_no_connection() -> Iterator[int]:
    """Open a port whose queue of connections is full."""
    with socket.socket() as full, socket.socket() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting.connect(full.getsockname())
        yield full.getsockname()[1]


def without_tls(server: FakeServer) -> str:
    """Let a server answer a TLS handshake with plain text; return its URL."""

    async def plain(stream: Stream) -> None:
        await stream.send(answer(400, b"no TLS here"))

    server.script = plain
    return server.url.replace("http:", "https:")


NOT_CONNECTED: Mapping[str, tuple[Callable[[Place], str], str]] = {
    "connection refused": (lambda _: f"http://127.0.0.1:{closed_port()}", "onnect"),
    "DNS failure": (lambda _: "http://nowhere.invalid", "nowhere.invalid"),
    "TLS failure": (lambda place: without_tls(place.models), "WRONG_VERSION_NUMBER"),
}


@pytest.mark.parametrize(("url", "words"), NOT_CONNECTED.values(), ids=NOT_CONNECTED)
async def test_unreachable_models_degrade_the_search(place: Place, url: Callable[[Place], str], words: str) -> None:
    answered = await place.search(place.with_models(url=url(place)))
    check_degraded(place, answered, "semantic rerank", "unreachable", words, LEXICAL)
    check_not_connected(place)


async def test_models_with_a_connect_timeout_degrade_the_search(place: Place) -> None:
    with taking_no_connection() as port:
        settings = place.with_models(url=f"http://127.0.0.1:{port}", connect_timeout_seconds=SOON)
        answered = await place.search(settings)
    check_degraded(place, answered, "semantic rerank", "unreachable", "no connection in time", LEXICAL)
    check_not_connected(place)


def check_not_connected(place: Place) -> None:
    """Each call was tried once more, and its span says why it failed."""
    for service in ("embedder", "reranker"):
        assert {"unreachable": 2, "retried": 1} == calls_of(place, service)
        assert [True, True] == [bool(span.error) for span in place.trace.spans[service]]


KNN: Mapping[str, Row] = {
    "400": Row(refuses(400), "refused", "status 400"),
    "429": Row(refuses(429), "refused", "status 429"),
    "503": Row(refuses(503), "refused", "status 503"),
    "timed out before the head": Row(hangs, "timeout", "no answer in 0.1 s"),
    "timed out in mid-body": Row(stalls_in_mid_body, "timeout", "no answer in 0.1 s"),
    "broken off before the head": Row(breaks_off(), "unreachable", "engine"),
    "broken off in mid-body": Row(breaks_off(HALF), "unreachable", "engine"),
    "malformed JSON": Row(says(b'{"took": 1'), "malformed", "engine"),
    "inner error": Row(says(b'{"error":{"type":"x","reason":"y"},"status":500}'), "malformed", "engine"),
    "10 MB of junk": Row(says(JUNK), "malformed", "engine"),
    "compressed bomb": Row(compressed(b"0" * (SEARCH_RESPONSE_BYTES + 1)), "malformed", "engine"),
}


@pytest.mark.parametrize("row", KNN.values(), ids=KNN)
async def test_an_engine_fault_in_an_added_search_degrades_the_search(place: Place, row: Row) -> None:
    """The client's own search succeeds."""
    place.engine.faults["semantic"] = row.fault
    (route,) = place.settings.routes
    assert route.semantic is not None
    semantic = msgspec.structs.replace(route.semantic, timeout_seconds=SOON)
    impatient = msgspec.structs.replace(place.settings, routes=(msgspec.structs.replace(route, semantic=semantic),))
    answered = await place.search(impatient if row.reason == "timeout" else None)
    check_degraded(place, answered, "semantic", row.reason, row.words, WITHOUT_SEMANTIC)
    assert ([], 1) == (place.events, len(place.engine.of("semantic")))


@dataclass(frozen=True)
class Own:
    """A fault of the engine in the client's own search."""

    fault: Fault
    status: int
    reason: str
    is_relayed: bool = True
    """The client gets the engine's own bytes, and else an error of the proxy."""


OWN: Mapping[str, Own] = {
    "400": Own(refuses(400), 400, "engine_refused"),
    "429": Own(refuses(429), 429, "engine_refused"),
    "503": Own(refuses(503), 503, "engine_refused"),
    "broken off before the head": Own(breaks_off(), 502, "engine_refused", is_relayed=False),
    "broken off in mid-body": Own(breaks_off(HALF), 502, "engine_refused", is_relayed=False),
    "malformed JSON": Own(says(b'{"took": 1'), 200, "engine_refused"),
    "inner error": Own(says(b'{"error":{"type":"x","reason":"y"},"status":500}'), 200, "engine_refused"),
    "10 MB of junk": Own(says(JUNK), 200, "engine_refused"),
    "compressed bomb": Own(compressed(b"0" * (SEARCH_RESPONSE_BYTES + 1)), 200, "too_large"),
}


@pytest.mark.parametrize("own", OWN.values(), ids=OWN)
async def test_an_engine_fault_in_the_clients_search_is_relayed_or_a_502(place: Place, own: Own) -> None:
    place.engine.faults["lexical"] = own.fault
    answered = await place.search()
    assert (own.status, f"bypassed;reason={own.reason}") == (answered.status, answered.header("x-rerank"))
    assert ("bypassed", own.reason) == (place.line["outcome"], place.line["reason"])
    assert Counter({("products*", "bypassed", own.reason): 1}) == place.counters.searches
    assert {"outcome": "bypassed", "reason": own.reason, "stages": ""} == place.trace.said
    if own.is_relayed:
        direct = await Client.to(place.engine.port)
        place.stack.callback(direct.close)
        assert (await direct.search("/products/_search", QUERY)).body == answered.body
    else:
        assert answered.json()["error"]["type"].startswith("engine_")


ENGINE_AWAY: Mapping[str, Callable[[Place], str]] = {
    "connection refused": lambda _: f"http://127.0.0.1:{closed_port()}",
    "DNS failure": lambda _: "http://nowhere.invalid",
    "TLS failure": lambda place: without_tls(place.engine),
}


@pytest.mark.parametrize("url", ENGINE_AWAY.values(), ids=ENGINE_AWAY)
async def test_an_unreachable_engine_is_a_502(place: Place, url: Callable[[Place], str]) -> None:
    check_engine_away(place, await place.search(place.with_engine(url=url(place))))


async def test_an_engine_with_a_connect_timeout_is_a_502(place: Place) -> None:
    with ExitStack() as stack:
        port = stack.enter_context(taking_no_connection())
        settings = place.with_engine(url=f"http://127.0.0.1:{port}", connect_timeout_seconds=SOON)
        check_engine_away(place, await place.search(settings))


def check_engine_away(place: Place, answered: Message) -> None:
    assert (502, "bypassed;reason=unresolved") == (answered.status, answered.header("x-rerank"))
    assert "engine_unreachable" == json.loads(answered.content)["error"]["type"]
    assert ("warning", "unresolved") == (place.line["log_level"], place.line["reason"])
    assert {("", "bypassed", "unresolved")} == set(place.counters.searches)
    assert {"outcome": "bypassed", "reason": "unresolved", "stages": ""} == place.trace.said


async def test_a_stalling_model_is_soon_skipped(place: Place) -> None:
    """Even though each search gives up at the end of its budget, long before the model's own timeout."""
    (route,) = place.settings.routes
    lexical = msgspec.structs.replace(route, semantic=None, budget_ms=400)
    port = await place.serve(msgspec.structs.replace(place.settings, routes=(lexical,)))
    place.models.faults["rerank"] = hangs

    async def search(words: str) -> Message:
        client = await Client.to(port)
        place.stack.callback(client.close)
        return await client.search("/products/_search", {"query": {"match": {"title": words}}})

    stalled = await asyncio.gather(*(search(f"laptop {number}") for number in range(5)))
    assert {'degraded;stages="rerank";reason=timeout'} == {answered.header("x-rerank") for answered in stalled}
    assert ["breaker_open"] == place.events
    after = await asyncio.gather(*(search(f"other {number}") for number in range(20)))
    assert {(200, ("a", "b", "c"))} == {(answered.status, tuple(ids_of(answered))) for answered in after}
    reasons = {answered.header("x-rerank").rpartition("=")[2] for answered in after}
    assert reasons <= {"breaker_open", "slow_model"}
    assert 5 == len(place.models.of("rerank"))


async def test_each_skipped_call_is_counted_once(place: Place) -> None:
    """Whether the search runs without it or is passed through; with a cached vector, no call is skipped."""
    client = await Client.to(await place.serve(place.settings))
    place.stack.callback(client.close)

    async def search(words: str) -> None:
        await client.search("/products/_search", {"query": {"match": {"title": words}}})

    await search("known")
    place.models.faults["embed"] = refuses(401)
    for words in ("first", "known", "second"):
        await search(words)
    assert {"ok": 1, "misconfigured": 2} == calls_of(place, "embedder")
    place.models.faults["rerank"] = refuses(401)
    place.engine.documents.append(Document("n", "Laptop without a score", lexical=0.5))
    for words in ("third", "fourth"):
        await search(words)
    assert {"ok": 1, "misconfigured": 4} == calls_of(place, "embedder")
    assert {"ok": 3, "misconfigured": 2} == calls_of(place, "reranker")


async def test_a_fallback_is_called_while_the_routes_reranker_is_suspended(place: Place) -> None:
    """The search that causes the suspension is degraded, and not repeated with the fallback."""

    async def knows_no_model_but_the_last(stream: Stream, request: Message) -> bytes | None:
        return None if request.path.endswith("/third") else answer(404, WORDS, reason="Not Found")

    place.models.faults["rerank"] = knows_no_model_but_the_last
    (route,) = place.settings.routes
    named = msgspec.structs.replace(route, rerank_model="first", rerank_fallbacks=("second", "third"))
    client = await Client.to(await place.serve(msgspec.structs.replace(place.settings, routes=(named,))))
    place.stack.callback(client.close)
    told = [(await client.search("/products/_search", QUERY)).header("x-rerank") for _ in range(4)]
    misconfigured = 'degraded;stages="rerank";reason=misconfigured'
    assert [misconfigured, misconfigured, "reranked", "reranked"] == told
    paths = [request.path.rpartition("/")[2] for request in place.models.of("rerank")]
    assert ["first", "second", "third"] == paths  # the scores of the third are cached
    assert ["model_misconfigured", "model_misconfigured"] == place.events
