"""Whatever an engine sends, and whenever: no caller is sent what was meant for another.

The engine here is a raw server that misbehaves on `/attack` and answers everybody else with what is theirs. After each
attack other callers come, on connections of their own and on the attacker's, as they do behind a balancer.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.settings.config import Config, Engine, Listen, Models, RouteSettings, Semantic
from tests.conftest import QUERY, StartProxy
from tests.fakes import Client, Document, FakeEngine, FakeModels, FakeServer, Message, Stream, answer, chunked, request
from tests.isolation import (
    Caller,
    assert_nothing_of,
    assert_own_or_closed,
    assert_served,
    connected,
    everything_left,
    response_to,
    sent,
)

_SOON_S = 1.0
"""How long the attacker waits, who need not be answered."""
_AT_ONCE_S = 0.05
"""How long for what often does not come."""

CALLERS = tuple(
    Caller(name, {f"/mine/_doc/{name}": f'"_id": "{name}"'.encode()}, {"Authorization": f"Basic {name}"})
    for name in ("alice", "bob", "carol")
)
POISON = answer(200, b'{"_id": "mallory"}', ("X-Opaque-Id", "mallory"))
"""A response that nobody asked for."""
_SMUGGLED = b"GET /mine/_doc/mallory HTTP/1.1\r\nHost: engine\r\nX-Opaque-Id: mallory\r\n\r\n"
"""A body that is itself a request."""
_UNREAD = f"Content-Length: {1000 + len(_SMUGGLED)}"
"""The length of a body that is not sent whole."""

Misbehaviour = Callable[["Origin", Stream], Awaitable[None]]
Late = Callable[[], Awaitable[None]]


class Origin(FakeServer):
    """Answers with what the request is about; `/attack` is answered by its misbehaviour."""

    def __init__(self) -> None:
        super().__init__()
        self.misbehaviour: Misbehaviour = _sends(POISON)
        self.late: list[Late] = []
        """What is yet to happen on connections that may be idle by then."""
        self.reading_on = asyncio.Event()

    async def be_late(self) -> None:
        """Let happen what was put off."""
        for each in self.late:
            with suppress(ConnectionError):
                await each()
        self.late.clear()
        self.reading_on.set()

    async def _talk(self, stream: Stream) -> None:
        while head := await stream.head():
            asked = Message(head, b"")
            if asked.start.count(b" ") != 2:  # the rest of a body, taken for a request
                await stream.send(answer(400))
                return
            if asked.path == "/attack":
                await self.misbehaviour(self, stream)
                continue
            await stream.body(asked)
            own = json.dumps({"_id": asked.path.rpartition("/")[2], "for": asked.header("authorization")})
            await stream.send(answer(200, own.encode(), ("X-Opaque-Id", asked.header("x-opaque-id"))))


def _sends(*pieces: bytes) -> Misbehaviour:
    """Send each piece by itself."""

    async def misbehave(origin: Origin, stream: Stream) -> None:
        for piece in pieces:
            await stream.send(piece)

    return misbehave


def _sends_and_later(first: bytes, then: bytes, end: Callable[[Stream], None] | None = None) -> Misbehaviour:
    """Send something, and something else when nothing is expected; then `end` the connection."""

    async def misbehave(origin: Origin, stream: Stream) -> None:
        async def later() -> None:
            await stream.send(then)
            if end:
                end(stream)

        origin.late.append(later)
        await stream.send(first)

    return misbehave


def _sends_and_reads_on_later(*pieces: bytes) -> Misbehaviour:
    """Send each piece by itself, and read what follows as a request when nobody expects it."""

    async def misbehave(origin: Origin, stream: Stream) -> None:
        for piece in pieces:
            await stream.send(piece)
        await origin.reading_on.wait()

    return misbehave


def _sends_and_reads_the_body_as_a_request(first: bytes) -> Misbehaviour:
    """Send a response, and another one to the body once a request follows, which is then answered one too late."""

    async def misbehave(origin: Origin, stream: Stream) -> None:
        await stream.send(first)
        if await stream.head() and await stream.head():
            await stream.send(POISON)

    return misbehave


def _sends_and_ends(first: bytes, end: Callable[[Stream], None]) -> Misbehaviour:
    async def misbehave(origin: Origin, stream: Stream) -> None:
        await stream.send(first)
        end(stream)

    return misbehave


@dataclass(frozen=True, slots=True)
class Attack:
    """What an attacker sends, and what the engine makes of it."""

    name: str
    misbehaviour: Misbehaviour
    method: str = "GET"
    fields: Sequence[str] = ()
    body: bytes = b""
    then: bytes = field(default=b"", kw_only=True)
    """Sent when the response has come."""
    leaves: bool = field(default=False, kw_only=True)
    """Whether the attacker closes before the engine's late bytes."""

    @property
    def is_whole(self) -> bool:
        """Whether what is sent behind it is another request."""
        return not (self.then or self.leaves or self.method == "CONNECT" or _UNREAD in self.fields)

    @property
    def request(self) -> bytes:
        lines = [f"{self.method} /attack HTTP/1.1", "Host: engine", *self.fields, "", ""]
        return "\r\n".join(lines).encode() + self.body


def _head(status: str, *fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode()


_OK = answer(200, b"{}")
_HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"
_HALF_CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n{"
_TIMED_OUT = b"HTTP/1.1 408 Request Time-out\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_BODILESS = (
    ("head", "HEAD", _head("200 OK", f"content-length: {len(POISON)}")),
    ("head chunked", "HEAD", _head("200 OK", "transfer-encoding: chunked")),
    ("204", "DELETE", _head("204 No Content")),
    ("204 with length", "DELETE", _head("204 No Content", f"content-length: {len(POISON)}")),
    ("304", "GET", _head("304 Not Modified", "etag: a")),
    ("304 with length", "GET", _head("304 Not Modified", f"content-length: {len(POISON)}")),
    ("205", "GET", _head("205 Reset Content", "content-length: 0")),
)
_COMPLETE = (
    ("sized", "GET", _OK),
    ("empty", "GET", answer(200)),
    ("chunked", "GET", _head("200 OK", "transfer-encoding: chunked") + chunked(b"{}")),
    ("trailers", "GET", _head("200 OK", "transfer-encoding: chunked") + chunked(b"{}", trailers=b"a: b\r\n")),
)
_EXTRAS = (
    ("response", POISON),
    ("half a response", POISON[:-5]),
    ("continue", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ("blank line", b"\r\n"),
    ("time-out", _TIMED_OUT),
    ("noise", b"\0\xff"),
)
UNASKED = [
    attack
    for name, method, complete in (*_BODILESS, *_COMPLETE)
    for extra, unasked in _EXTRAS
    for attack in (
        Attack(f"{name}, {extra} at once", _sends(complete + unasked), method),
        Attack(f"{name}, {extra} behind", _sends(complete, unasked), method),
        Attack(f"{name}, {extra} late", _sends_and_later(complete, unasked), method),
    )
]
ENDS = [
    Attack(f"{name}, {how}", misbehaviour)
    for how, end in (("closed", Stream.close), ("reset", Stream.break_off))
    for name, misbehaviour in (
        ("before a byte", _sends_and_ends(b"", end)),
        ("half a head", _sends_and_ends(_HALF[:20], end)),
        ("half a body", _sends_and_ends(_HALF, end)),
        ("half a chunk", _sends_and_ends(_HALF_CHUNKED, end)),
        ("after a response", _sends_and_ends(_OK, end)),
        ("idle", _sends_and_later(_OK, b"", end)),
        ("time-out, then", _sends_and_later(_OK, _TIMED_OUT, end)),
        ("half a response, then", _sends_and_later(_OK, _HALF, end)),
    )
]


def _early(status: str) -> bytes:
    return _head(status, "content-type: application/json", "content-length: 2") + b"{}"


_EARLY = ("200 OK", "201 Created", "401 Unauthorized", "404 Not Found", "413 Too Large", "429 Busy", "500 Error")
EARLY = [
    attack
    for status in _EARLY
    for attack in (
        Attack(f"{status}, body half sent", _sends(_early(status)), "POST", (_UNREAD,), b" " * 1000, then=_SMUGGLED),
        Attack(
            f"{status}, chunked body half sent",
            _sends(_early(status)),
            "POST",
            ("Transfer-Encoding: chunked",),
            b"2\r\n{}\r\n%x\r\n" % (len(_SMUGGLED) + 2),
            then=_SMUGGLED + b"\r\n\r\n0\r\n\r\n",
        ),
        Attack(
            f"{status}, body not asked for",
            _sends(_early(status)),
            "POST",
            ("Expect: 100-continue", f"Content-Length: {len(_SMUGGLED)}"),
            then=_SMUGGLED,
        ),
        Attack(
            f"{status}, body half sent, attacker leaves",
            _sends(_early(status)),
            "POST",
            (_UNREAD,),
            b" " * 1000,
            leaves=True,
        ),
    )
]

_SIZED_SMUGGLED = f"Content-Length: {len(_SMUGGLED)}"
_REFUSED = _head("417 Expectation Failed", "content-length: 0")
_EXPECTS = (
    ("Expect: foo",),
    ("Expect:",),
    ("Expect: 100-continue, foo",),
    ("Expect: 100-continue", "Expect: foo"),
    ("Expect: 100-continue", "Expect: 100-continue"),
    ("Expect: 100-continue;q=1",),
    ("Expect: 100-Continue",),
    ("Expect: 100-continue\r\n ",),
    ("Expect:\r\n\t100-continue",),
)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECTATIONS = [
    *(
        Attack(
            f"417 to {', '.join(expects)}",
            _sends_and_reads_on_later(_REFUSED),
            "POST",
            (*expects, _SIZED_SMUGGLED),
            _SMUGGLED,
        )
        for expects in _EXPECTS
    ),
    *(
        Attack(
            f"417 to {', '.join(expects)}, body read as a request",
            _sends_and_reads_the_body_as_a_request(_REFUSED),
            "POST",
            (*expects, _SIZED_SMUGGLED),
            _SMUGGLED,
        )
        for expects in _EXPECTS
    ),
    Attack(
        "417 to nothing, body read as a request",
        _sends_and_reads_the_body_as_a_request(_REFUSED),
        "POST",
        (_SIZED_SMUGGLED,),
        _SMUGGLED,
    ),
    Attack(
        "100, then 417", _sends(_CONTINUE + _REFUSED), "POST", ("Expect: 100-continue", _SIZED_SMUGGLED), then=_SMUGGLED
    ),
    Attack("100 unasked, then 417", _sends(_CONTINUE, _REFUSED), "POST", (_SIZED_SMUGGLED,), then=_SMUGGLED),
    Attack("1000 times 103", _sends(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000, _OK)),
    Attack("1000 times 100, then closed", _sends_and_ends(_CONTINUE * 1000, Stream.close)),
    Attack("body never read, then closed", _sends_and_ends(_OK, Stream.close), "POST", (_UNREAD,), b" " * 1000),
    Attack("body never read, then reset", _sends_and_ends(_OK, Stream.break_off), "POST", (_UNREAD,), b" " * 1000),
]

_UNCERTAIN = (
    ("both framings", ("transfer-encoding: chunked", "content-length: 2"), chunked(b"{}")),
    ("two lengths", ("content-length: 2", "content-length: 3"), b"{} "),
    ("two lengths in a list", ("content-length: 2, 3",), b"{} "),
    ("signed length", ("content-length: +2",), b"{}"),
    ("negative length", ("content-length: -2",), b"{}"),
    ("folded length", ("content-length:\r\n 2",), b"{}"),
    ("blank before the colon", ("content-length : 2",), b"{}"),
    ("no number", ("content-length: two",), b"{}"),
    ("empty length", ("content-length:",), b"{}"),
    ("huge length", ("content-length: 18446744073709551618",), b"{}"),
    ("another coding", ("transfer-encoding: gzip",), b"{}"),
    ("a coding behind chunked", ("transfer-encoding: chunked, gzip",), chunked(b"{}")),
    ("identity", ("transfer-encoding: identity", "content-length: 2"), b"{}"),
    ("33 bits of a chunk", ("transfer-encoding: chunked",), b"100000002\r\n{}\r\n0\r\n\r\n"),
    ("65 bits of a chunk", ("transfer-encoding: chunked",), b"10000000000000002\r\n{}\r\n0\r\n\r\n"),
    ("signed chunk", ("transfer-encoding: chunked",), b"+2\r\n{}\r\n0\r\n\r\n"),
    ("chunk longer than its size", ("transfer-encoding: chunked",), b"1\r\n{}\r\n0\r\n\r\n"),
    ("NUL in the head", ("a: \0", "content-length: 2"), b"{}"),
    ("bare CR in the head", ("a: b\rcontent-length: 3", "content-length: 2"), b"{}"),
)
FRAMINGS = [
    *(Attack(name, _sends(_head("200 OK", *fields) + body + POISON)) for name, fields, body in _UNCERTAIN),
    Attack(
        "chunks of HTTP/1.0",
        _sends(_head("200 OK", "transfer-encoding: chunked").replace(b"/1.1", b"/1.0") + chunked(b"{}") + POISON),
    ),
    Attack("no status line", _sends(b"{}\r\n\r\n" + POISON)),
    Attack("HTTP/2.0", _sends(POISON.replace(b"/1.1", b"/2.0") + POISON)),
    Attack("101 unasked", _sends(_head("101 Switching Protocols", "upgrade: a", "connection: upgrade"), POISON)),
    Attack(
        "101",
        _sends(_head("101 Switching Protocols", "upgrade: websocket", "connection: upgrade"), POISON),
        "GET",
        ("Upgrade: websocket", "Connection: upgrade"),
        then=_SMUGGLED,
    ),
    Attack("CONNECT", _sends(_head("200 OK"), POISON), "CONNECT", then=_SMUGGLED),
]

LEAVES = [
    Attack("before the response", _sends_and_later(b"", POISON), leaves=True),
    Attack("amid the response", _sends_and_later(_HALF, b" " * 99 + POISON), leaves=True),
    Attack("amid chunks", _sends_and_later(_HALF_CHUNKED, b" " * 99 + b"\r\n0\r\n\r\n" + POISON), leaves=True),
    Attack("amid a write", _sends_and_later(b"", POISON), "PUT", (_UNREAD,), b" " * 1000, leaves=True),
]

ATTACKS = {
    f"{kind}: {attack.name}": attack
    for kind, attacks in (
        ("unasked", UNASKED),
        ("ends", ENDS),
        ("early", EARLY),
        ("expectation", EXPECTATIONS),
        ("framing", FRAMINGS),
        ("leaves", LEAVES),
    )
    for attack in attacks
}


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin() as server:
        yield server


@pytest.fixture
async def port(origin: Origin, start_proxy: StartProxy) -> AsyncIterator[int]:
    """The port of a proxy without routes."""
    client = await start_proxy(Config(listen=Listen(port=0), engine=Engine(url=origin.url)))
    yield int(client.writer.get_extra_info("peername")[1])
    for task in origin.open:  # a proxy that stops waits for writes that this engine never answers
        task.cancel()


@pytest.mark.parametrize("name", ATTACKS)
async def test_callers_after_a_framing_attack_get_their_own_responses(name: str, origin: Origin, port: int) -> None:
    """On their own connections, and on the attacker's unless it is closed."""
    attack = ATTACKS[name]
    origin.misbehaviour = attack.misbehaviour
    await assert_served(port, CALLERS[:1])
    async with connected(port) as attacker:
        await sent(attacker, attack.request)
        response = await response_to(attacker, attack.method, _AT_ONCE_S if attack.leaves else _SOON_S)
        if attack.leaves:
            attacker.close()
        await sent(attacker, attack.then)
        await assert_served(port, CALLERS)
        await origin.be_late()
        await assert_served(port, CALLERS)
        if response is not None and not attack.leaves:  # nobody sends more behind what is not answered
            await assert_own_or_closed(attacker, CALLERS)
        assert_nothing_of(CALLERS, await everything_left(attacker, _SOON_S))


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.is_whole])
async def test_a_caller_right_after_a_framing_attack_gets_its_own_response(
    name: str, origin: Origin, port: int
) -> None:
    """A request sent before the attack, on the same connection, gets its own response or none."""
    attack = ATTACKS[name]
    origin.misbehaviour = attack.misbehaviour
    question = CALLERS[0].ask_next()
    async with connected(port) as attacker:
        await sent(attacker, attack.request + question.request)
        if await response_to(attacker, attack.method, _SOON_S) is not None:
            response = await response_to(attacker, "GET", _SOON_S)
            assert response is None or question.is_answered_by(response), response
        assert_nothing_of(CALLERS[1:], await everything_left(attacker, _SOON_S))
    await assert_served(port, CALLERS)


_FRAGMENTS = (
    *(complete for _, _, complete in (*_BODILESS, *_COMPLETE)),
    *(extra for _, extra in _EXTRAS),
    *(_head("200 OK", *fields) + body for _, fields, body in _UNCERTAIN),
    *map(_early, _EARLY),
    _OK.replace(b"/1.1", b"/1.0"),
    _head("200 OK"),
    _head("101 Switching Protocols"),
    _HALF,
    _HALF_CHUNKED,
    _REFUSED,
    b"0\r\n\r\n",
    b"",
)
_noise = st.lists(st.sampled_from(_FRAGMENTS), max_size=3).map(b"".join)
_ends = st.none() | st.sampled_from([Stream.close, Stream.break_off])
_requests = st.sampled_from(
    [attack for attack in ATTACKS.values() if not attack.leaves and attack.method != "CONNECT"]
).map(lambda attack: (attack.method, tuple(attack.fields), attack.body))


@given(asked=_requests, then=st.sampled_from([b"", _SMUGGLED]), first=_noise, late=_noise, ends=_ends)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_callers_get_their_own_responses_whatever_the_engine_sends(
    *,
    asked: tuple[str, tuple[str, ...], bytes],
    then: bytes,
    first: bytes,
    late: bytes,
    ends: Callable[[Stream], None] | None,
    origin: Origin,
    port: int,
) -> None:
    """The engine sends pieces of responses in any order and at any time."""
    method, fields, body = asked
    origin.misbehaviour = _sends_and_later(first, late, ends)
    async with connected(port) as attacker:
        await sent(attacker, Attack("", origin.misbehaviour, method, fields, body).request)
        await response_to(attacker, method, _AT_ONCE_S)
        await sent(attacker, then)
        await assert_served(port, CALLERS, times=1)
        await origin.be_late()
        await assert_served(port, CALLERS)
        assert_nothing_of(CALLERS, await everything_left(attacker, _AT_ONCE_S))


# searches that the proxy makes itself


class Shop(FakeEngine):
    """Shows everybody hits that name them, and misbehaves at the attacker's requests of one kind."""

    def __init__(self) -> None:
        super().__init__([Document("a", "Laptop", lexical=1.0), Document("b", "Notebook", cosine=0.9)])
        self.misbehaves_at = ""
        self.unasked = b""
        self.how = ""
        self.end: Callable[[Stream], None] | None = None
        self.late: list[Late] = []
        self._asking = ""

    def usual(self, request: Message) -> bytes:
        self._asking = request.header("authorization")
        return super().usual(request)

    def _hit(self, document: Document, score: float, body: Any) -> Any:
        hit = super()._hit(document, score, body)
        return hit | {"_source": {**hit.get("_source", {}), "for": self._asking}}

    async def _talk(self, stream: Stream) -> None:
        while request := await stream.request():
            await self.remember(request)
            usual = self.usual(request)
            attacked = request.header("authorization") == "mallory" and self.kind(request) == self.misbehaves_at
            if not attacked:
                await stream.send(usual)
            elif self.how == "at once":
                await stream.send(usual + self.unasked)
            else:
                await stream.send(usual)
                await self._more(stream)

    async def _more(self, stream: Stream) -> None:
        async def later() -> None:
            await stream.send(self.unasked)
            if self.end:
                self.end(stream)

        if self.how == "late":
            self.late.append(later)
        else:
            with suppress(ConnectionError):
                await later()

    async def be_late(self) -> None:
        for each in self.late:
            with suppress(ConnectionError):
                await each()
        self.late.clear()


_HITS = {"took": 1, "timed_out": False, "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0}}
_POISONED = answer(
    200,
    json.dumps(
        {
            **_HITS,
            "hits": {
                "total": {"value": 1, "relation": "eq"},
                "max_score": 1.0,
                "hits": [
                    {"_index": "products", "_id": "a", "_score": 1.0, "_source": {"title": "x", "for": "mallory"}}
                ],
            },
            "indices": [{"name": "secret", "attributes": ["open"]}],
            "version": {"number": "1.0.0"},
        }
    ).encode(),
)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with Shop() as server:
        yield server


async def _assert_own_hits(client: Client, name: str) -> None:
    found = await client.search("/products/_search", QUERY, authorization=name)
    assert 200 == found.status, found.body
    assert {name} == {hit["_source"]["for"] for hit in found.json()["hits"]["hits"]}, found.body
    assert "reranked" == found.header("x-rerank")


@pytest.mark.parametrize("kind", ["lexical", "semantic", "render", "resolve", "facts"])
@pytest.mark.parametrize("how", ["at once", "behind", "late"])
@pytest.mark.parametrize(
    ("unasked", "end"),
    [(_POISONED, None), (_POISONED, Stream.close), (_POISONED[:-9], None), (_TIMED_OUT, Stream.close), (b"\0", None)],
    ids=["response", "response and end", "half a response", "time-out", "noise"],
)
async def test_searches_after_a_framing_attack_get_their_own_responses(
    kind: str,
    how: str,
    unasked: bytes,
    end: Callable[[Stream], None] | None,
    shop: Shop,
    models: FakeModels,
    start_proxy: StartProxy,
) -> None:
    """Unsolicited bytes in response to one of the proxy's searches do not reach another caller."""
    shop.misbehaves_at, shop.how, shop.unasked, shop.end = kind, how, unasked, end
    semantic = Semantic(field="embedding", dimensions=3)
    config = Config(
        listen=Listen(port=0),
        engine=Engine(url=shop.url),
        models=Models(url=models.url),
        routes=(RouteSettings(index="products*", passage=["title"], semantic=semantic),),
    )
    attacker = await start_proxy(config)
    port = int(attacker.writer.get_extra_info("peername")[1])
    await sent(attacker, _search("mallory"))
    await response_to(attacker, "POST", _SOON_S)
    async with connected(port) as alice, connected(port) as bob:
        await _assert_own_hits(alice, "alice")
        await shop.be_late()
        for name in ("bob", "alice", "carol"):
            await _assert_own_hits(bob, name)


def _search(name: str) -> bytes:
    body = json.dumps(QUERY).encode()
    return request("POST", "/products/_search", body, content_type="application/json", authorization=name)
