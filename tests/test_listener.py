"""A client's requests come as exchanges, one after the other; what is hostile is refused and hurts nobody else."""

import asyncio
import resource
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import trustme

from proxy.http1.exchange import Answer, Exchange
from proxy.http1.headers import own_error
from proxy.http1.listener import Listener, Patience
from tests.conftest import Log
from tests.fakes import Client, FakeEngine, chunked, request
from tests.listening import listening

OK = Answer(200, [(b"x-from", b"here")], b"{}")
HEAD = b"POST /i/_doc HTTP/1.1\r\nHost: p\r\n"


class Handler:
    """Answers with what it read, and remembers the exchanges."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.limit = 2**20
        self.answer = OK
        self.bodies: list[bytes | None] = []
        self.running = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.cancelled = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.running.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        self.bodies.append(await exchange.read_body(self.limit))
        exchange.send(self.answer)


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
async def listener(handler: Handler, log: Log) -> AsyncIterator[Listener]:
    listener = await listening(handler)
    yield listener
    await listener.close(0)


@pytest.fixture
async def caller(listener: Listener) -> AsyncIterator[Client]:
    client = await Client.to(listener.port)
    yield client
    client.close()


async def test_a_response_of_the_proxy_keeps_the_connection_open(caller: Client) -> None:
    answers = [await caller.ask("GET", "/"), await caller.ask("HEAD", "/"), await caller.ask("GET", "/")]
    assert [b"{}", b"", b"{}"] == [answered.body for answered in answers]
    assert [("2", "here")] * 3 == [(one.header("content-length"), one.header("x-from")) for one in answers]


@pytest.mark.parametrize(
    "sent",
    [HEAD + b"Content-Length: 6\r\n\r\nabcdef", HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"abc", b"def")],
    ids=["sized", "chunked"],
)
async def test_a_chunked_body_is_read_and_can_still_be_passed_on(caller: Client, handler: Handler, sent: bytes) -> None:
    await caller.send(sent)
    await caller.answer()
    exchange = handler.exchanges[0]
    assert b"abcdef" == await exchange.read_body(2**20)
    head = sent.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert ([b"abcdef"], sent, True) == (handler.bodies, head + exchange.take_raw(), exchange.whole)


async def test_a_body_above_the_limit_is_passed_on_without_reading_it(caller: Client, handler: Handler) -> None:
    handler.limit = 3
    await caller.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n")
    await handler.running.wait()
    await caller.send(b"0\r\n\r\n")
    await caller.answer()
    assert [None] == handler.bodies


@pytest.mark.parametrize("padding", [b"1;%s\r\na\r\n", b"0\r\nx: %s\r\n"], ids=["an extension", "a trailer"])
async def test_chunk_framing_counts_towards_the_limit_as_well_as_content(
    caller: Client, handler: Handler, padding: bytes
) -> None:
    handler.limit = 1000
    await caller.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + padding % (b"x" * 3000))
    await caller.answer()
    assert [None] == handler.bodies


async def test_expect_100_continue_is_answered(caller: Client, handler: Handler) -> None:
    await caller.send(HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    asked = await caller.answer()
    await caller.send(b"abc")
    assert (100, 200, [b"abc"]) == (asked.status, (await caller.answer()).status, handler.bodies)


HOSTILE = {
    "two lengths": (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "a list of lengths": (HEAD + b"Content-Length: 3, 4\r\n\r\nabcd", 400),
    "length and chunks": (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a signed length": (HEAD + b"Content-Length: +3\r\n\r\nabc", 400),
    "a hexadecimal length": (HEAD + b"Content-Length: 0x3\r\n\r\nabc", 400),
    "a space before the colon": (HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "another coding": (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a vertical tab about chunked": (HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "another expectation": (HEAD + b"Expect: foo\r\nContent-Length: 3\r\n\r\nabc", 417),
    "an empty expectation": (HEAD + b"Expect:\r\nContent-Length: 3\r\n\r\nabc", 417),
    "two expectations": (HEAD + b"Expect: 100-continue, foo\r\nContent-Length: 3\r\n\r\nabc", 417),
    "an expectation twice": (HEAD + b"Expect: 100-continue\r\nExpect: foo\r\nContent-Length: 3\r\n\r\nabc", 417),
    "an expectation with an empty continuation line": (HEAD + b"Expect: 100-continue\r\n \r\n\r\n", 400),
    "an expectation on a continuation line": (HEAD + b"Expect:\r\n\t100-continue\r\n\r\n", 400),
    "a form feed behind an expectation": (HEAD + b"Expect: 100-continue\x0c\r\n\r\n", 400),
    "a blank before the method": (b" HEAD / HTTP/1.1\r\n\r\n", 400),
    "a control character before the method": (b"\x01HEAD / HTTP/1.1\r\n\r\n", 400),
    "a line of a control character before the request line": (b"\x01\r\nHEAD / HTTP/1.1\r\n\r\n", 400),
    "a tab behind the method": (b"HEAD\t/ HTTP/1.1\r\n\r\n", 400),
    "a blank before the colon": (HEAD + b"es-security-runas-user : x\r\n\r\n", 400),
    "a tab before the colon": (HEAD + b"Authorization\t: Basic x\r\n\r\n", 400),
    "a chunk of more than 32 bits": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n100000002\r\nab\r\n0\r\n\r\n", 400),
    "a bare CR": (HEAD + b"X: a\rContent-Length: 3\r\n\r\nabc", 400),
    "a NUL": (HEAD + b"X: a\0b\r\n\r\n", 400),
    "a folded length": (HEAD + b"Content-Length: 3\r\n 4\r\n\r\nabc", 400),
    "an oversized head": (HEAD + b"X: " + b"y" * 400_000, 431),
    "an endless request line": (b"GET /" + b"y" * 400_000, 431),
}


@pytest.mark.parametrize(("sent", "status"), HOSTILE.values(), ids=HOSTILE)
async def test_ambiguous_framing_is_rejected_and_never_passed_on(
    plain_client: Client, engine: FakeEngine, log: Log, sent: bytes, status: int
) -> None:
    """The engine might read another end of the message, and take the rest for another request."""
    await plain_client.send(sent + b"GET /smuggled HTTP/1.1\r\n\r\n")
    answered = await plain_client.answer()
    assert (status, "close", []) == (answered.status, answered.header("connection"), engine.requests)
    if status == 417:  # as Netty does: seen on Elasticsearch 8.19.13
        assert ("0", "") == (answered.header("content-length"), answered.header("content-type"))
    else:
        assert ("bad_http_message", status) == (answered.json()["error"]["type"], answered.json()["status"])
    assert b"" == await plain_client.left()
    assert [("refused", status)] == [(event["event"], event["status"]) for event in log]


async def test_tls_on_a_plain_port_is_rejected_at_once(plain_client: Client, log: Log) -> None:
    """Otherwise it would wait for the timeout of a request head."""
    await plain_client.send(bytes.fromhex("1603010200010001fc0303"))
    assert 400 == (await plain_client.answer()).status
    assert "listen.certificate_file" in log[-1]["why"]


@pytest.mark.parametrize(
    ("head", "rest"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"no size\r\n"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"3\r\nabcd\r\n"),
    ],
)
async def test_a_malformed_chunk_is_rejected_and_the_engine_gets_no_complete_request(
    plain_client: Client, engine: FakeEngine, head: bytes, rest: bytes
) -> None:
    await plain_client.send(HEAD + head + rest)
    answered = await plain_client.answer()
    await engine.until_left()
    assert (400, "close", []) == (answered.status, answered.header("connection"), engine.requests)


async def test_a_malformed_chunk_after_passed_on_data_is_rejected(
    plain_client: Client, engine: FakeEngine, log: Log
) -> None:
    await plain_client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    while not engine.connections:  # noqa: ASYNC110  a count has no event
        await asyncio.sleep(0)
    await plain_client.send(b"no size\r\n")
    answered = await plain_client.answer()
    await engine.until_left()
    assert (400, "close", []) == (answered.status, answered.header("connection"), engine.requests)
    assert b"" == await plain_client.left()
    assert ["refused"] == [event["event"] for event in log]


async def test_a_client_that_disconnects_mid_body_leaves_no_complete_request(
    plain_client: Client, engine: FakeEngine
) -> None:
    await plain_client.send(HEAD + b"Content-Length: 10\r\n\r\nhalf")
    plain_client.close()
    await engine.until_left()
    assert [] == engine.requests


async def test_thousands_of_headers_are_passed_to_the_engine(plain_client: Client, engine: FakeEngine) -> None:
    lines = b"".join(b"X-%d: %d\r\n" % (number, number) for number in range(3000))
    await plain_client.send(b"GET / HTTP/1.1\r\n" + lines + b"\r\n")
    assert (200, 3000 + len([b"via"])) == ((await plain_client.answer()).status, len(engine.requests[0].fields))


async def test_a_hostile_client_does_not_affect_others(listener: Listener, caller: Client) -> None:
    hostile = [await Client.to(listener.port) for _ in range(5)]
    for stranger, (sent, _) in zip(hostile, HOSTILE.values(), strict=False):
        await stranger.send(sent)
    await hostile[0].send(b"x" * 100_000)
    hostile[1].break_off()
    assert 200 == (await caller.ask("GET", "/")).status
    for stranger in hostile:
        stranger.close()


async def test_a_head_that_arrives_too_slowly_is_a_408(handler: Handler, log: Log) -> None:
    slow = await listening(handler, patience=Patience(head=0.01))
    client = await Client.to(slow.port)
    await client.send(b"GET / HTT")
    answered = await client.answer()
    assert (408, "close", []) == (answered.status, answered.header("connection"), handler.exchanges)
    client.close()
    await slow.close(0)


async def test_a_disconnecting_client_cancels_its_handler(caller: Client, handler: Handler) -> None:
    handler.may_end.clear()
    await caller.send(request("GET", "/"))
    await handler.running.wait()
    caller.close()
    await handler.cancelled.wait()
    assert [] == handler.bodies


async def test_the_rest_of_a_small_body_is_read_before_the_next_request(handler: Handler, log: Log) -> None:
    async def without_reading(exchange: Exchange) -> None:
        exchange.send(OK)

    listener = await listening(without_reading)
    client = await Client.to(listener.port)
    await client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    first = await client.answer()
    await client.send(chunked(b"abc") + request("GET", "/"))
    assert (200, 200) == (first.status, (await client.answer()).status)
    client.close()
    await listener.close(0)


async def test_a_handler_that_reads_a_malformed_body_rejects_it(caller: Client) -> None:
    await caller.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\nno size\r\n")
    answered = await caller.answer()
    assert (400, own_error(400, "bad_http_message", "a chunk has no size")) == (answered.status, answered.body)


async def test_a_handler_that_fails_mid_response_aborts_the_response(log: Log) -> None:
    async def fails(exchange: Exchange) -> None:
        exchange.begun = True
        exchange.client.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await exchange.read_body(10)

    listener = await listening(fails)
    client = await Client.to(listener.port)
    await client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    await client.head()
    await client.send(b"no size\r\n")
    with pytest.raises(ConnectionError):
        await client.reader.read()
    client.close()
    await listener.close(0)


async def test_closing_finishes_running_requests_and_closes_idle_connections(
    listener: Listener, caller: Client, handler: Handler
) -> None:
    port = listener.port
    idle = await Client.to(port)
    await idle.ask("GET", "/")
    handler.running.clear()
    handler.may_end.clear()
    await caller.send(request("GET", "/"))
    await handler.running.wait()
    closing = asyncio.ensure_future(listener.close(60))
    assert b"" == await idle.left()
    with pytest.raises(ConnectionError):
        await Client.to(port)
    handler.may_end.set()
    answered = await caller.answer()
    await closing
    assert (200, b"") == (answered.status, await caller.left())
    idle.close()


async def test_closing_answers_a_request_that_is_under_way_on_a_connection_in_use(handler: Handler, log: Log) -> None:
    """Otherwise a client that was told the connection stays open would lose its request."""
    listener = await listening(handler, patience=Patience(quiet=60))
    client = await Client.to(listener.port)
    kept = await client.ask("GET", "/")
    handler.may_end.clear()
    handler.running.clear()
    closing = asyncio.ensure_future(listener.close(60))
    await asyncio.sleep(0)
    await client.send(request("GET", "/"))
    await handler.running.wait()
    handler.may_end.set()
    last = await client.answer()
    assert [(200, ""), (200, "close")] == [(each.status, each.header("connection")) for each in (kept, last)]
    await closing
    client.close()


async def test_closing_aborts_requests_after_the_grace_period(
    listener: Listener, caller: Client, handler: Handler
) -> None:
    """Neither earlier nor later: two periods are distinguished by the order of events in the loop."""
    handler.may_end.clear()
    await caller.send(request("GET", "/"))
    await handler.running.wait()
    closing, between = asyncio.ensure_future(listener.close(1)), asyncio.ensure_future(asyncio.sleep(1.8))
    sooner = asyncio.ensure_future(asyncio.sleep(1 / 100))
    await sooner
    assert not handler.cancelled.is_set()
    done, _ = await asyncio.wait({closing, between}, return_when=asyncio.FIRST_COMPLETED)
    assert {closing} == done
    assert handler.cancelled.is_set()
    between.cancel()


async def test_at_the_connection_limit_new_clients_wait(handler: Handler, log: Log) -> None:
    listener = await listening(handler, room=2)
    clients = [await Client.to(listener.port) for _ in range(2)]
    for client in clients:
        assert 200 == (await client.ask("GET", "/")).status
    while not [event for event in log if event["event"] == "accepting_paused"]:  # noqa: ASYNC110  a log has no event
        await asyncio.sleep(0)
    waiting = await Client.to(listener.port)
    await waiting.send(request("GET", "/"))
    clients[0].close()
    clients[1].close()
    assert 200 == (await waiting.answer()).status
    assert ["accepting_paused", "accepting_resumed"] == [event["event"] for event in log]
    waiting.close()
    await listener.close(0)


async def test_connections_without_a_tls_handshake_count_too(handler: Handler, log: Log) -> None:
    """They hold descriptors, which the requests of others need; they are closed after a while."""
    authority, secured = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(secured)
    listener = await listening(handler, room=2, patience=Patience(handshake=0.5, head=0.1), tls=secured)
    silent = [await Client.to(listener.port) for _ in range(5)]
    while not [event for event in log if event["event"] == "accepting_paused"]:  # noqa: ASYNC110  a log has no event
        await asyncio.sleep(0)
    assert 0 == listener.clients
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    client = Client(*await asyncio.open_connection("127.0.0.1", listener.port, ssl=trusting))
    assert 200 == (await client.ask("GET", "/")).status
    for each in (*silent, client):
        each.close()
    await listener.close(0)


async def test_an_internal_error_is_a_500_in_the_engines_format(log: Log) -> None:
    async def fails(exchange: Exchange) -> None:
        raise ArithmeticError

    listener = await listening(fails)
    client = await Client.to(listener.port)
    for _ in range(2):  # the connection goes on
        answered = await client.ask("GET", "/")
        assert (500, "proxy_internal_error") == (answered.status, answered.json()["error"]["type"])
    assert ["internal_error"] * 2 == [event["event"] for event in log]
    client.close()
    await listener.close(0)


async def test_an_internal_error_before_the_task_starts_is_a_500(log: Log) -> None:
    def fails(exchange: Exchange) -> None:
        raise ArithmeticError

    listener = await listening(fails)
    client = await Client.to(listener.port)
    assert 500 == (await client.ask("GET", "/")).status
    client.close()
    await listener.close(0)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let every attempt to open a file or a socket fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_accepting_resumes_even_if_there_was_no_descriptor_for_it(handler: Handler, log: Log) -> None:
    listener = await listening(handler, room=2, patience=Patience(head=0.1))
    clients = [await Client.to(listener.port) for _ in range(2)]
    while not [event for event in log if event["event"] == "accepting_paused"]:  # noqa: ASYNC110  a log has no event
        await asyncio.sleep(0)
    waiting = await Client.to(listener.port)
    await waiting.send(request("GET", "/"))
    with no_descriptors():
        for client in clients:
            client.close()
        while listener.clients:  # noqa: ASYNC110  the listener has no event either
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
    assert 200 == (await waiting.answer()).status
    waiting.close()
    await listener.close(0)


async def test_a_listener_that_cannot_use_another_certificate_continues_with_the_earlier_one(
    handler: Handler, log: Log
) -> None:
    listener = await listening(handler)
    with no_descriptors(), pytest.raises(OSError, match="Too many open files"):
        await listener.secure_by(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    client = await Client.to(listener.port)
    assert 200 == (await client.ask("GET", "/")).status
    client.close()
    await listener.close(0)


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
async def test_a_client_that_never_reads_is_not_kept_for_ever(handler: Handler, log: Log, connection: str) -> None:
    """Otherwise its request would keep the settings of its start in memory through any number of reloads."""
    handler.answer = replace(OK, body=b" " * 10_000_000)
    listener = await listening(handler, patience=Patience(idle=0.1))
    client = await Client.to(listener.port)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport reads, too
    await client.send(request("GET", "/", connection=connection))
    await handler.running.wait()
    while listener.clients:  # noqa: ASYNC110  the listener has no event
        await asyncio.sleep(0)
    client.close()
    await listener.close(0)


async def test_a_client_that_never_sends_the_rest_of_its_body_is_disconnected(handler: Handler, log: Log) -> None:
    listener = await listening(handler, patience=Patience(idle=0.1))
    client = await Client.to(listener.port)
    await client.send(HEAD + b"Content-Length: 5\r\n\r\nhal")
    await handler.running.wait()
    while listener.clients:  # noqa: ASYNC110  the listener has no event
        await asyncio.sleep(0)
    assert [] == handler.bodies
    client.close()
    await listener.close(0)


# Requests behind one without a response


async def test_a_client_that_leaves_is_noticed_although_it_has_sent_another_request(
    caller: Client, handler: Handler
) -> None:
    handler.may_end.clear()
    await caller.send(request("GET", "/") * 2)
    await handler.running.wait()
    caller.close()
    await handler.cancelled.wait()
