"""What is not ours goes to the engine and back byte for byte; only what HTTP gives to each hop is changed."""

import asyncio
import gzip
import re
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import pytest

from proxy.endpoints.passthrough import terms_of
from proxy.settings.config import Config
from proxy.settings.config import Engine as EngineSettings
from tests.conftest import Log, StartProxy
from tests.fakes import (
    PRODUCT,
    Client,
    FakeEngine,
    Fault,
    Message,
    Script,
    Stream,
    answer,
    breaks_off,
    chunked,
    closed_port,
    hangs,
    request,
    unchunked,
    waits_for,
)

LARGE = 4 * 2**20


def says_once(engine: FakeEngine, *answers: bytes) -> Script:
    """Read one request whole, remember it, send these bytes, and wait until the proxy leaves."""

    async def script(stream: Stream) -> None:
        asked = await stream.request()
        assert asked is not None
        await engine.remember(asked)
        for sent in answers:
            await stream.send(sent)
        await stream.left()

    return script


def lines_of(message: Message) -> list[bytes]:
    return message.head.split(b"\r\n")[1:-2]


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/i%2F_search",
        "/%3Clogs-%7Bnow%2Fd%7D%3E/_doc/1",
        "/i/_doc/a%2fb?routing=a%20b&routing=&pretty",
        "/_cat/indices?v&v&h=*,-a&=&",
        "//i//_doc/..%2F1",
        "/i/_doc/é?q=ü",
        "/_search/scroll;x=1?#f",
    ],
)
async def test_a_target_is_forwarded_unchanged(plain_client: Client, engine: FakeEngine, target: str) -> None:
    await plain_client.ask("GET", target)
    assert target.encode() == engine.requests[0].start.split(b" ")[1]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "get"])
async def test_every_method_is_forwarded_with_its_body(plain_client: Client, engine: FakeEngine, method: str) -> None:
    await plain_client.ask(method, "/i/_doc/1", b'{"a": 1 }')
    assert [(method, b'{"a": 1 }')] == [(asked.method, asked.body) for asked in engine.requests]


async def test_request_headers_keep_order_and_case_except_hop_by_hop_ones(
    plain_client: Client, engine: FakeEngine
) -> None:
    sent = (
        b"GET /_nodes HTTP/1.1\r\nhOST: proxy.example\r\nX-A: 1\r\nx-a:2\r\nX-Empty:\r\nCookie: a=b; c=d\r\n"
        b"Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: secret\r\nTE: trailers\r\n"
        b"Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Latin: \xe9\r\nX-A:  3\t\r\n\r\n"
    )
    await plain_client.send(sent)
    await plain_client.answer()
    authority = b"hOST: 127.0.0.1:%d" % engine.port
    kept = [b"X-A: 1", b"x-a:2", b"X-Empty:", b"Cookie: a=b; c=d", b"X-Latin: \xe9", b"X-A:  3\t"]
    *lines, via = lines_of(engine.requests[0])
    assert [authority, *kept] == lines
    assert re.fullmatch(rb"via: 1\.1 rerank-proxy-[0-9a-f]{8}", via)


async def test_response_headers_and_reason_are_kept_except_hop_by_hop_ones(
    plain_client: Client, engine: FakeEngine
) -> None:
    lines = [
        b"HTTP/1.1 418 I'm a Teapot, indeed",
        b"X-elastic-product: Elasticsearch",
        b"Warning: 299 a",
        b"warning: 299 b",
        b"Connection: X-Hop",
        b"X-Hop: 1",
        b"Keep-Alive: timeout=5",
        b"content-length: 2",
        b"",
        b"{}",
    ]
    engine.script = says_once(engine, b"\r\n".join(lines))
    answered = await plain_client.ask("GET", "/")
    kept = [line for line in lines[1:-2] if not line.startswith((b"Connection", b"X-Hop", b"Keep-Alive"))]
    assert (lines[0], kept, b"{}") == (answered.start, lines_of(answered), answered.body)


@pytest.mark.parametrize("status", [201, 204, 301, 302, 304, 307, 404, 429, 500, 503])
async def test_every_status_is_relayed_and_no_redirect_followed(
    plain_client: Client, engine: FakeEngine, status: int
) -> None:
    engine.faults["other"] = _sends(answer(status, b"", ("Location", "http://elsewhere.example/"), reason="So"))
    answered = await plain_client.ask("PUT", "/i/_doc/1", b"{}")
    assert (b"HTTP/1.1 %d So" % status, "http://elsewhere.example/") == (answered.start, answered.header("location"))
    assert len(engine.requests) == 1


def _sends(sent: bytes) -> Fault:
    async def fault(stream: Stream, asked: Message) -> bytes:
        return sent

    return fault


async def test_a_head_response_has_the_length_and_no_body(plain_client: Client, engine: FakeEngine) -> None:
    engine.faults["other"] = _sends(answer(200, b"", ("X-More", "1")).replace(b"length: 0", b"length: 77"))
    answered = await plain_client.ask("HEAD", "/i")
    again = await plain_client.ask("HEAD", "/i")
    assert [("77", b"")] * 2 == [(one.header("content-length"), one.body) for one in (answered, again)]


async def test_compressed_bodies_are_relayed_unchanged(plain_client: Client, engine: FakeEngine) -> None:
    sent, back = gzip.compress(b'{"a":1}', 1), gzip.compress(b'{"b":2}', 9)
    engine.faults["other"] = _sends(answer(200, back, ("content-encoding", "gzip")))
    answered = await plain_client.ask("POST", "/i/_doc", sent, content_encoding="gzip", accept_encoding="gzip")
    assert (sent, "gzip") == (engine.requests[0].body, engine.requests[0].header("accept-encoding"))
    assert (back, "gzip") == (answered.body, answered.header("content-encoding"))


async def test_a_bulk_request_is_forwarded_byte_for_byte(plain_client: Client, engine: FakeEngine) -> None:
    bulk = b'{"index":{"_id":"1"}}\r\n{"a":1.0e5,  "\xc3\xa9":0.10}\n\n{"delete":{"_id":"2"}}\n'
    await plain_client.ask("POST", "/i/_bulk", bulk, content_type="application/x-ndjson")
    assert bulk == engine.requests[0].body


async def test_chunks_extensions_and_trailers_are_relayed_unchanged(plain_client: Client, engine: FakeEngine) -> None:
    sent = b"3;a=b\r\nabc\r\n0a\r\n0123456789\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"
    back = chunked(b"one", b"two" * 9, trailers=b"X-Took: 3\r\n")
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Took\r\n\r\n"
    engine.script = says_once(engine, head, back)
    await plain_client.send(b"POST /i/_bulk HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n" + sent)
    answered = await plain_client.answer()
    assert (sent, back) == (engine.requests[0].body, answered.body)


async def test_a_path_prefix_of_the_engines_url_is_prepended(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine
) -> None:
    prefixed = msgspec.structs.replace(settings, engine=EngineSettings(url=f"{engine.url}/es/one/"), routes=())
    client = await start_proxy(prefixed)
    await client.ask("GET", "/_cluster/health?pretty")
    await client.ask("OPTIONS", "*")
    assert ["/es/one/_cluster/health?pretty", "*"] == [asked.target for asked in engine.requests]


async def test_both_connections_are_kept_alive(plain_client: Client, engine: FakeEngine) -> None:
    for number in range(3):
        await plain_client.ask("PUT", f"/i/_doc/{number}", b"{}")
    assert [1, 1, 1] == [asked.connection for asked in engine.requests]


async def test_pipelined_requests_are_answered_in_order(plain_client: Client, engine: FakeEngine) -> None:
    engine.faults["other"] = _echo
    sent = [request("PUT", f"/i/_doc/{n}", b"x" * n) + b"\r\n" for n in range(1, 5)]
    await plain_client.send(b"".join(sent))
    answers = [await plain_client.answer() for _ in sent]
    assert [b"/i/_doc/%d" % n for n in range(1, 5)] == [answered.body for answered in answers]


async def _echo(stream: Stream, asked: Message) -> bytes:
    return answer(200, asked.target.encode())


@pytest.mark.parametrize(
    ("version", "connection", "goes_on", "said"),
    [
        (b"1.1", b"", True, ""),
        (b"1.1", b"Connection: close\r\n", False, "close"),
        (b"1.0", b"", False, "close"),
        (b"1.0", b"Connection: keep-alive\r\n", True, "keep-alive"),
    ],
)
async def test_the_connection_is_kept_as_the_request_says(
    plain_client: Client, engine: FakeEngine, version: bytes, connection: bytes, *, goes_on: bool, said: str
) -> None:
    asked = b"GET / HTTP/%s\r\nHost: p\r\n%s\r\n" % (version, connection)
    await plain_client.send(asked + asked)
    answered = await plain_client.answer()
    assert (said, version) == (answered.header("connection"), engine.requests[0].start[-3:])
    rest = b"" if goes_on else await plain_client.left()
    again = await plain_client.answer() if goes_on else None
    assert (b"", goes_on) == (rest, again is not None)


@pytest.mark.parametrize(
    ("version", "length", "connection", "goes_on"),
    [
        (b"1.0", b"content-length: 2\r\n", b"", True),
        (b"1.0", b"content-length: 2\r\n", b"connection: close\r\n", False),
        (b"1.0", b"", b"", False),
        (b"1.1", b"content-length: 2\r\n", b"", False),
    ],
)
async def test_an_http_1_0_client_is_kept_alive_like_by_the_engine(
    plain_client: Client, engine: FakeEngine, version: bytes, length: bytes, connection: bytes, *, goes_on: bool
) -> None:
    """Elasticsearch 8.19.13 answers in HTTP/1.0 without `Connection`, and keeps the connection if the client asks."""

    async def script(stream: Stream) -> None:
        while await stream.request():
            await stream.send(b"HTTP/1.0 200 OK\r\n" + length + connection + b"\r\n{}")
            if not length:
                return

    engine.script = script
    asks = b"Connection: keep-alive\r\n" if version == b"1.0" else b""
    await plain_client.send((b"GET / HTTP/%b\r\nHost: p\r\n%b\r\n" % (version, asks)) * 2)
    answered = await plain_client.answer()
    assert ("keep-alive" if goes_on else "close") == answered.header("connection")
    if goes_on:
        assert (b"{}", 1) == ((await plain_client.answer()).body, engine.connections)
    else:
        assert b"" == await plain_client.left()


async def test_an_engine_that_closes_after_its_answer_closes_the_client(
    plain_client: Client, engine: FakeEngine
) -> None:
    engine.script = says_once(engine, answer(200, b"{}", ("Connection", "close")))
    answered = await plain_client.ask("GET", "/")
    assert ("close", b"") == (answered.header("connection"), await plain_client.left())


async def test_a_response_without_length_ends_with_its_connection(plain_client: Client, engine: FakeEngine) -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    engine.script = script
    answered = await plain_client.ask("GET", "/")
    assert ("close", b"all of it") == (answered.header("connection"), answered.body)


async def test_a_100_continue_comes_from_the_engine(plain_client: Client, engine: FakeEngine) -> None:
    async def script(stream: Stream) -> None:
        head = Message(await stream.head(), b"")
        await stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await engine.remember(Message(head.head, await stream.body(head)))
        await stream.send(answer(201, b"{}", reason="Created"))

    engine.script = script
    await plain_client.send(b"PUT /i/_doc/1 HTTP/1.1\r\nHost: p\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    asked = await plain_client.answer()
    await plain_client.send(b"body")
    answered = await plain_client.answer()
    assert (100, 201, b"body") == (asked.status, answered.status, engine.requests[0].body)
    assert "100-continue" == engine.requests[0].header("expect")


async def test_without_a_100_continue_the_connection_closes(plain_client: Client, engine: FakeEngine) -> None:
    async def script(stream: Stream) -> None:
        await stream.head()
        await stream.send(answer(417, b"no", reason="Expectation Failed"))
        await stream.left()

    engine.script = script
    await plain_client.send(b"PUT /i/_doc/1 HTTP/1.1\r\nHost: p\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    answered = await plain_client.answer()
    plain_client.writer.write_eof()
    assert (417, "close", b"") == (answered.status, answered.header("connection"), await plain_client.left())


async def test_an_early_response_reaches_a_client_that_is_still_sending(
    plain_client: Client, engine: FakeEngine
) -> None:
    """A 413 arrives while the client is sending the body, and the rest of the body does not destroy it."""

    async def script(stream: Stream) -> None:
        await stream.head()
        await stream.send(answer(413, b"too much", reason="Request Entity Too Large"))
        await stream.left()

    engine.script = script
    await plain_client.send(b"POST /_bulk HTTP/1.1\r\nHost: p\r\nContent-Length: 90000000\r\n\r\n" + b"x" * 200_000)
    await plain_client.send(b"x" * 200_000)
    answered = await plain_client.answer()
    assert (413, b"too much", "close") == (answered.status, answered.body, answered.header("connection"))


async def test_after_an_early_response_the_connection_can_be_reused(plain_client: Client, engine: FakeEngine) -> None:
    """As Elasticsearch 9 does for an unknown path: both connections accept the next request."""

    async def script(stream: Stream) -> None:
        head = Message(await stream.head(), b"")
        await stream.send(answer(405, b"no", reason="Method Not Allowed"))
        await engine.remember(Message(head.head, await stream.body(head), stream.number))
        await engine.remember(await stream.request() or Message(b"", b""))
        await stream.send(answer(200, b"{}"))

    engine.script = script
    await plain_client.send(b"POST /a HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    first = await plain_client.answer()
    await plain_client.send(b"2\r\nde\r\n0\r\n\r\n")
    second = await plain_client.ask("GET", "/b")
    assert (405, "", 200) == (first.status, first.header("connection"), second.status)
    assert [(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 1), (b"", 1)] == [
        (each.body, each.connection) for each in engine.requests
    ]


@pytest.mark.parametrize("rest", [b"no chunk\r\n", b""])
async def test_an_early_response_is_delivered_despite_a_malformed_rest_of_the_request(
    rest: bytes, plain_client: Client, engine: FakeEngine
) -> None:
    async def script(stream: Stream) -> None:
        await stream.head()
        await stream.send(answer(405, b"no", reason="Method Not Allowed"))
        await stream.left()

    engine.script = script
    await plain_client.send(b"POST /a HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    first = await plain_client.answer()
    await plain_client.send(rest)
    plain_client.writer.write_eof()
    assert (405, b"no", b"") == (first.status, first.body, await plain_client.left())
    await engine.until_left()


async def test_an_engine_that_closes_after_an_early_response_closes_the_client(
    plain_client: Client, engine: FakeEngine
) -> None:
    async def script(stream: Stream) -> None:
        await stream.head()
        await stream.send(answer(405, b"no", reason="Method Not Allowed"))
        stream.break_off()

    engine.script = script
    await plain_client.send(b"POST /_bulk HTTP/1.1\r\nHost: p\r\nContent-Length: 90000000\r\n\r\n" + b"x" * 200_000)
    answered = await plain_client.answer()
    with suppress(ConnectionError):
        await plain_client.send(b"x" * 20_000_000)
    assert (405, b"no", b"") == (answered.status, answered.body, await plain_client.left())


async def test_a_large_body_is_paused_for_a_slow_engine(plain_client: Client, engine: FakeEngine) -> None:
    """Memory is bounded: while the engine does not read, the client cannot send."""
    reads, sent = asyncio.Event(), b"0123456789abcdef" * (LARGE // 16)

    async def script(stream: Stream) -> None:
        head = Message(await stream.head(), b"")
        stream.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await reads.wait()
        stream.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await engine.remember(Message(head.head, await stream.body(head)))
        await stream.send(answer(200, b"{}"))

    engine.script = script
    _small_buffers(plain_client)
    plain_client.writer.write(request("POST", "/_bulk", sent * 4))
    sending = asyncio.ensure_future(plain_client.writer.drain())
    await _until_still(plain_client.writer.transport)
    assert not sending.done()
    reads.set()
    await sending
    answered = await plain_client.answer()
    assert (200, True) == (answered.status, sent * 4 == engine.requests[0].body)


async def test_a_large_response_is_paused_for_a_slow_client(plain_client: Client, engine: FakeEngine) -> None:
    back, sending = b"0123456789abcdef" * (LARGE // 16) * 4, asyncio.Event()
    written: list[asyncio.WriteTransport] = []

    async def script(stream: Stream) -> None:
        await stream.request()
        written.append(stream.writer.transport)
        stream.writer.write(answer(200, back))
        sending.set()
        await stream.writer.drain()
        await stream.left()

    engine.script = script
    plain_client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await plain_client.send(request("GET", "/_cat/segments"))
    await sending.wait()
    await _until_still(written[0])
    assert written[0].get_write_buffer_size() > 0
    plain_client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert back == (await plain_client.answer()).body


def _small_buffers(client: Client) -> None:
    client.writer.transport.set_write_buffer_limits(high=0)


async def _until_still(transport: asyncio.WriteTransport) -> None:
    """Let everybody work until no more bytes leave: so many turns of the loop without a change."""
    before, unchanged = -1, 0
    while unchanged < 200:
        await asyncio.sleep(0)
        size = transport.get_write_buffer_size()
        before, unchanged = size, unchanged + 1 if size == before else 0


@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", "/i/_doc/1"), ("GET", "/_cat/indices"), ("POST", "/_query?pretty"), ("POST", "/_sql")],
)
async def test_a_disconnecting_client_cancels_its_read(
    plain_client: Client, engine: FakeEngine, method: str, target: str
) -> None:
    engine.faults["other"] = hangs
    await plain_client.send(request(method, target))
    await engine.until_asked("other")
    plain_client.break_off()
    await engine.until_left()
    assert not engine.open


@pytest.mark.parametrize("leaving", ["close", "break_off"])
async def test_a_write_continues_when_its_client_disconnects(
    plain_client: Client, engine: FakeEngine, leaving: str
) -> None:
    """As at the engine itself: the write is executed, and its connection can be reused."""
    held, done = asyncio.Event(), asyncio.Event()

    async def fault(stream: Stream, asked: Message) -> bytes:
        await held.wait()
        assert not stream.reader.at_eof()
        done.set()
        return answer(200, b"{}")

    engine.faults["other"] = fault
    await plain_client.send(request("POST", "/i/_doc", b"{}"))
    await engine.until_asked("other")
    getattr(plain_client, leaving)()
    await asyncio.sleep(0)
    held.set()
    await done.wait()
    assert 1 == engine.connections


HALVES: Sequence[bytes] = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nno size\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nhalf",
)


@pytest.mark.parametrize("half", HALVES)
async def test_an_engine_that_fails_mid_response_aborts_the_clients_response(
    plain_client: Client, engine: FakeEngine, half: bytes
) -> None:
    """The client's connection is reset, so that no partial response looks complete."""
    engine.faults["other"] = breaks_off(half)
    await plain_client.send(request("GET", "/_nodes"))
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await _whole_answer(plain_client)


async def _whole_answer(client: Client) -> Message:
    head = Message(await client.reader.readuntil(b"\r\n\r\n"), b"")
    return Message(head.head, await client.body(head, until_close=True))


async def test_an_unreachable_engine_is_a_502_in_the_engines_format(
    start_proxy: StartProxy, settings: Config, log: Log
) -> None:
    port = closed_port()
    nowhere = EngineSettings(url=f"http://127.0.0.1:{port}")
    client = await start_proxy(msgspec.structs.replace(settings, engine=nowhere, routes=()))
    answered = await client.ask("GET", "/_cluster/health")
    error = answered.json()["error"]
    assert (502, 502, "engine_unreachable") == (answered.status, answered.json()["status"], error["type"])
    assert error["root_cause"] == [{"type": error["type"], "reason": error["reason"]}]
    assert f"{port}" not in error["reason"]
    assert f"127.0.0.1:{port}" in log[-1]["detail"]
    assert "" == answered.header("x-elastic-product")
    assert 502 == (await client.ask("HEAD", "/")).status


async def test_after_a_502_instead_of_100_continue_the_body_is_not_parsed_as_a_request(
    start_proxy: StartProxy, settings: Config
) -> None:
    nowhere = EngineSettings(url=f"http://127.0.0.1:{closed_port()}")
    client = await start_proxy(msgspec.structs.replace(settings, engine=nowhere, routes=()))
    await client.send(b"PUT /i/_doc/1 HTTP/1.1\r\nHost: p\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
    answered = await client.answer()
    assert (502, "close") == (answered.status, answered.header("connection"))
    client.writer.write_eof()
    assert b"" == await client.left()


async def test_x_elastic_product_is_sent_once_it_is_known(plain_client: Client, engine: FakeEngine) -> None:
    await plain_client.ask("GET", "/_nodes")
    await engine.__aexit__()
    assert b"" == await plain_client.left()
    other = await Client.to(plain_client.writer.get_extra_info("peername")[1])
    answered = await other.ask("GET", "/_nodes", connection="close")
    other.close()
    assert (502, PRODUCT[1]) == (answered.status, answered.header(PRODUCT[0]))


async def test_the_next_node_is_used_while_one_is_unreachable(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine
) -> None:
    nodes = [f"http://127.0.0.1:{closed_port()}", engine.url]
    client = await start_proxy(msgspec.structs.replace(settings, engine=EngineSettings(url=nodes), routes=()))
    answers = [await client.ask("PUT", "/i/_doc/1", b"{}") for _ in range(3)]
    assert [200, 200, 200] == [answered.status for answered in answers]
    assert [f"127.0.0.1:{engine.port}"] * 3 == [asked.header("host") for asked in engine.requests]


def dies_when_reused(engine: FakeEngine) -> Script:
    """Answer the first request of the first connection; break it off at the second one, unanswered."""

    async def script(stream: Stream) -> None:
        while asked := await stream.request():
            await engine.remember(asked)
            if stream.number == 1 and len(engine.requests) == 2:
                stream.break_off()
                return
            await stream.send(answer(200, b"{}"))

    return script


async def test_a_read_on_a_dead_connection_is_sent_once_more(plain_client: Client, engine: FakeEngine) -> None:
    engine.script = dies_when_reused(engine)
    await plain_client.ask("GET", "/first")
    answered = await plain_client.ask("GET", "/second")
    assert (200, [1, 1, 2]) == (answered.status, [asked.connection for asked in engine.requests])


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_a_write_on_a_dead_connection_is_never_sent_twice(
    plain_client: Client, engine: FakeEngine, method: str
) -> None:
    """It may have been executed: the client's connection closes without a response, as the engine's did."""
    engine.script = dies_when_reused(engine)
    await plain_client.ask("GET", "/first")
    await plain_client.send(request(method, "/i/_doc/1", b"{}"))
    assert (b"", 2) == (await plain_client.head(), len(engine.requests))


async def test_a_read_on_a_new_connection_is_not_repeated(plain_client: Client, engine: FakeEngine) -> None:
    engine.faults["other"] = breaks_off()
    await plain_client.send(request("GET", "/_nodes"))
    assert (b"", 1) == (await plain_client.head(), len(engine.requests))


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 400_000 + b"\r\n\r\n",
    ],
    ids=["another protocol", "two lengths", "an endless head"],
)
async def test_an_engine_that_does_not_speak_http_is_a_502(
    plain_client: Client, engine: FakeEngine, nonsense: bytes
) -> None:
    engine.faults["other"] = _sends(nonsense)
    answered = await plain_client.ask("GET", "/_nodes")
    assert (502, "engine_unreachable") == (answered.status, answered.json()["error"]["type"])


async def test_a_slow_response_does_not_delay_other_clients(
    plain_client: Client, start_proxy: StartProxy, settings: Config, engine: FakeEngine
) -> None:
    """Each client has a connection of its own."""
    held = asyncio.Event()
    engine.faults["lexical"] = waits_for(held)
    other = await start_proxy(msgspec.structs.replace(settings, routes=()))
    await plain_client.send(request("GET", "/slow/_search"))
    await engine.until_asked("lexical")
    assert 200 == (await other.ask("GET", "/quick")).status
    held.set()
    assert 200 == (await plain_client.answer()).status


async def test_chunks_are_relayed_as_they_arrive(plain_client: Client, engine: FakeEngine) -> None:
    """A slow response is not held back until it is complete."""
    more = asyncio.Event()

    async def script(stream: Stream) -> None:
        await stream.request()
        await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await more.wait()
        await stream.send(b"3\r\ntwo\r\n0\r\n\r\n")
        await stream.left()

    engine.script = script
    await plain_client.send(request("GET", "/_nodes/hot_threads"))
    await plain_client.head()
    first = await plain_client.reader.readexactly(8)
    more.set()
    rest = await plain_client.reader.readuntil(b"0\r\n\r\n")
    assert (b"3\r\none\r\n", b"onetwo") == (first, unchunked(first + rest))


@pytest.mark.parametrize("said", ["Negotiate", "NTLM"])
async def test_connection_based_authentication_closes_both_connections(
    said: str, plain_client: Client, engine: FakeEngine
) -> None:
    """With Negotiate and NTLM, a caller may log in once for a whole connection."""
    first = await plain_client.ask("GET", "/a")
    second = await plain_client.ask("GET", "/a", authorization=f"{said} YII=")
    assert ("", "close", b"") == (first.header("connection"), second.header("connection"), await plain_client.left())
    await engine.until_left()


async def test_a_challenge_for_connection_based_authentication_closes_both_connections(
    plain_client: Client, engine: FakeEngine
) -> None:
    async def demands(stream: Stream, asked: Message) -> bytes:
        return answer(401, b"{}", ("WWW-Authenticate", "Basic realm=a, Negotiate"))

    engine.faults = {"facts": demands}
    answered = await plain_client.ask("GET", "/a")
    assert (401, "close", b"") == (answered.status, answered.header("connection"), await plain_client.left())
    await engine.until_left()


UNASKED = {
    "a second answer": (answer(body=b"mine"), answer(body=b"late")),
    "a body after HEAD": (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", answer(body=b"late")),
    "a body after 204": (b"HTTP/1.1 204 No Content\r\n\r\n", answer(body=b"late")),
    "a body after 304": (b"HTTP/1.1 304 Not Modified\r\n\r\n", answer(body=b"late")),
    "408 before a close": (answer(body=b"mine"), answer(408, b"late", reason="Request Timeout")),
}


@pytest.mark.parametrize(("first", "unasked"), UNASKED.values(), ids=UNASKED)
async def test_unsolicited_bytes_of_the_engine_are_no_response(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, first: bytes, unasked: bytes
) -> None:
    said, gone = asyncio.Event(), asyncio.Event()

    async def talks(stream: Stream) -> None:
        engine.script = None
        assert await stream.request()
        await stream.send(first)
        await said.wait()
        await stream.send(unasked)
        await stream.left()
        gone.set()

    engine.script = talks
    engine.faults["other"] = _sends(answer(body=b"own"))
    one = await start_proxy(msgspec.structs.replace(settings, routes=()))
    other = await Client.to(one.writer.get_extra_info("peername")[1])
    await one.ask("HEAD" if first is UNASKED["a body after HEAD"][0] else "GET", "/a")
    said.set()
    async with asyncio.timeout(5):
        await gone.wait()
    assert b"own" == (await other.ask("GET", "/a/_doc/1")).body
    other.close()


async def test_idle_clients_hold_no_engine_connection(plain_client: Client, engine: FakeEngine) -> None:
    port = plain_client.writer.get_extra_info("peername")[1]
    idle = [await Client.to(port) for _ in range(20)]
    await plain_client.ask("GET", "/_nodes")
    assert 1 == engine.connections
    for client in idle:
        client.close()


async def test_an_idle_engine_connection_is_closed_without_closing_the_client(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine
) -> None:
    brief = msgspec.structs.replace(settings.engine, idle_connection_seconds=0.01)
    client = await start_proxy(msgspec.structs.replace(settings, engine=brief, routes=()))
    await client.ask("GET", "/_nodes")
    await engine.until_left()
    assert 200 == (await client.ask("GET", "/_nodes")).status
    first, second = [asked.connection for asked in engine.requests]
    assert first != second


@pytest.mark.parametrize("waits", ["for a connection", "for a response"])
async def test_a_complete_write_is_delivered_though_its_client_disconnected(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, waits: str
) -> None:
    """Also if the client left before the proxy had a connection to the engine."""
    client = await start_proxy(msgspec.structs.replace(settings, routes=()))
    if waits == "for a response":
        await client.ask("GET", "/_nodes")
    await client.send(request("PUT", "/library/_doc/research-7", b'{"a":1}'))
    client.close()
    await engine.until_asked("other", 2 if waits == "for a response" else 1)
    assert (b'{"a":1}', "PUT") == (engine.requests[-1].body, engine.requests[-1].method)
    await engine.until_left()


@pytest.mark.parametrize(
    ("method", "target", "repeatable", "ends"),
    [
        (b"GET", b"/i/_doc/1", True, True),
        (b"HEAD", b"/i", True, True),
        (b"OPTIONS", b"/", False, True),
        (b"GET", b"/i/_search", False, True),
        (b"GET", b"/i/_search?q=a/b", False, True),
        (b"POST", b"/i/_search/", False, True),
        (b"POST", b"/_msearch/template", False, True),
        (b"POST", b"/i/_eql/search", False, True),
        (b"POST", b"/_query", False, True),
        (b"POST", b"/i/_doc/_search", False, True),
        (b"PUT", b"/library/_doc/research-7", False, False),
        (b"POST", b"/library/_doc/research-7", False, False),
        (b"POST", b"/i/_update/search", False, False),
        (b"DELETE", b"/i/_doc/search", False, False),
        (b"DELETE", b"/_async_search/id", False, False),
        (b"POST", b"/_bulk", False, False),
        (b"POST", b"/i/_doc/template", False, False),
    ],
)
def test_only_reads_and_searches_are_cancelled_with_their_client(
    method: bytes, target: bytes, *, repeatable: bool, ends: bool
) -> None:
    terms = terms_of(method, target)
    assert (repeatable, ends) == (terms.repeatable, terms.ends_with_client)


async def test_a_search_on_a_dead_connection_is_not_repeated(plain_client: Client, engine: FakeEngine) -> None:
    """It may have crashed the engine."""

    async def dies(stream: Stream, asked: Message) -> None:
        stream.break_off()
        raise ConnectionError

    await plain_client.ask("GET", "/products/_search")
    engine.faults["lexical"] = dies
    await plain_client.send(request("GET", "/products/_search"))
    assert (b"", 2) == (await plain_client.head(), len(engine.requests))


@pytest.mark.parametrize(
    "passed", [b"1.1 %(own)s", b"1.0 a, 1.1 %(own)s (x)", b", ".join([b"1.1 rerank-proxy-00000001"] * 4)]
)
async def test_a_request_that_returns_to_the_proxy_is_a_loop_error(
    plain_client: Client, engine: FakeEngine, passed: bytes
) -> None:
    await plain_client.ask("GET", "/_nodes")
    own = engine.requests[0].header("via").split(" ")[1].encode()
    via = passed.replace(b"%(own)s", own).decode()
    answered = await plain_client.ask("GET", "/_nodes", via=via)
    assert (508, "proxy_loop", 1) == (answered.status, answered.json()["error"]["type"], len(engine.requests))


async def test_other_proxies_in_via_are_not_a_loop(plain_client: Client, engine: FakeEngine) -> None:
    vias = ", ".join([*["1.1 nginx"] * 9, "1.1 rerank-proxy-00000001", "1.1 rerank-proxy-00000002"])
    assert 200 == (await plain_client.ask("GET", "/_nodes", via=vias)).status
    assert engine.requests[0].all("via")[0] == vias


@pytest.mark.parametrize(("via", "forwarded"), [(False, False), (False, True), (True, True)])
async def test_added_headers_are_configurable(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine, *, via: bool, forwarded: bool
) -> None:
    adding = msgspec.structs.replace(settings.engine, via=via, forwarded_for=forwarded)
    client = await start_proxy(msgspec.structs.replace(settings, engine=adding, routes=()))
    await client.ask("GET", "/_nodes", x_forwarded_for="10.0.0.1")
    asked = engine.requests[0]
    assert via is bool(asked.header("via"))
    assert (["10.0.0.1", "127.0.0.1"] if forwarded else ["10.0.0.1"]) == asked.all("x-forwarded-for")


async def test_a_connection_is_reusable_after_a_slowly_read_response(plain_client: Client, engine: FakeEngine) -> None:
    """Also if the response ended while the client's buffers were full."""
    written: list[asyncio.WriteTransport] = []

    async def script(stream: Stream) -> None:
        written.append(stream.writer.transport)
        while asked := await stream.request():
            stream.writer.write(answer(body=b"x" * int(asked.target[1:])))

    engine.script = script
    for size in range(2**20, 14 * 2**20, 200_000):
        plain_client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await plain_client.send(request("GET", f"/{size}"))
        while not written:  # noqa: ASYNC110  a transport has no event
            await asyncio.sleep(0)
        await _until_still(written[0])
        plain_client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert size == len((await plain_client.answer()).body)
    assert 1 == len(written)


async def test_a_response_before_the_end_of_the_request_closes_both_connections(
    start_proxy: StartProxy, settings: Config, engine: FakeEngine
) -> None:
    """The proxy has the whole request and the engine only a part: it may take the rest for another request."""
    port = (await start_proxy(msgspec.structs.replace(settings, routes=()))).writer.get_extra_info("peername")[1]
    begins = asyncio.Event()

    async def script(stream: Stream) -> None:
        await stream.head()
        stream.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await begins.wait()
        await stream.send(answer(200, b"early"))
        stream.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await stream.left()

    engine.script = script
    for size in range(2**20, 14 * 2**20, 200_000):
        begins.clear()
        client = await Client.to(port)
        client.writer.write(request("POST", "/_bulk", b"x" * size))
        await _until_still(client.writer.transport)
        whole = not client.writer.transport.get_write_buffer_size()
        begins.set()
        answered = await client.answer()
        assert b"early" == answered.body
        if not whole:
            assert "close" == answered.header("connection")
        client.close()
