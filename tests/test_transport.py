"""What a provider of models does becomes one of our four errors; the token goes there and nowhere else."""

import asyncio
import errno
import gzip
import socket
import ssl
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
import trustme

from proxy.bounds import INFLATED_BYTES_A_TURN, MODEL_RESPONSE_BYTES
from proxy.context import Charge, Usage
from proxy.errors import Lost, Malformed, Refused, TimedOut, TooLarge, Unreachable, UpstreamError, connection_error
from proxy.settings.config import Models
from proxy.settings.tls import towards_models
from proxy.settings.yaml_file import ConfigError
from proxy.upstream.guard import Guards
from proxy.upstream.transport import Transport, models_session, open_session
from tests.conftest import TOKEN
from tests.fakes import FakeServer, Fault, Stream, answer, breaks_off, closed_port, hangs, refuses, says
from tests.purses import purse_with

SOON = 0.03
LONG = 60.0


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as server:
        yield server


@pytest.fixture
async def transport(server: FakeServer) -> AsyncIterator[Transport]:
    async with models_session(1.0) as session:
        yield Transport(session, "reranker", f"{server.url}/", TOKEN)


async def test_a_body_is_posted_as_json_with_the_token(transport: Transport, server: FakeServer) -> None:
    assert b"{}" == await transport.post("/v1/inference/a/b", b'{"q":1}', LONG)
    asked = server.requests[0]
    assert ("POST", "/v1/inference/a/b", b'{"q":1}') == (asked.method, asked.target, asked.body)
    assert (f"Bearer {TOKEN}", "application/json") == (asked.header("authorization"), asked.header("content-type"))


async def test_calls_share_a_connection(transport: Transport, server: FakeServer) -> None:
    for _ in range(3):
        assert b"{}" == await transport.post("/", b"{}", LONG)
    assert 1 == server.connections


_UNASKED = answer(200, b"of nobody")


@pytest.mark.parametrize(
    "unasked",
    [_UNASKED, _UNASKED[:-1], _UNASKED * 2, b"HTTP/1.1 408 Request Time-out\r\n\r\n", b"x"],
)
@pytest.mark.parametrize("is_read", [True, False])
async def test_unsolicited_bytes_are_not_taken_for_a_response(
    transport: Transport, server: FakeServer, unasked: bytes, *, is_read: bool
) -> None:
    """They would become the scores of another search, and would be cached."""
    streams: list[Stream] = []

    async def script(stream: Stream) -> None:
        streams.append(stream)
        while await stream.head():
            await stream.reader.readexactly(2)
            await stream.send(answer(200, b"%d" % len(streams)))

    server.script = script
    assert b"1" == await transport.post("/", b"{}", LONG)
    streams[0].writer.write(unasked)
    for _ in range(20 * is_read):
        await asyncio.sleep(0)
    assert b"2" == await transport.post("/", b"{}", LONG)


async def test_without_a_token_no_authorization_is_sent(server: FakeServer) -> None:
    async with models_session(1.0) as session:
        await Transport(session, "reranker", server.url, None).post("/", b"{}", LONG)
    assert [] == server.requests[0].all("authorization")


@pytest.mark.parametrize(
    ("fault", "seconds", "error"),
    [
        (refuses(429), LONG, Refused),
        (refuses(500), LONG, Refused),
        (refuses(201), LONG, Refused),
        (refuses(302), LONG, Refused),
        (hangs, SOON, TimedOut),
        (breaks_off(), LONG, Unreachable),
        (breaks_off(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"), LONG, Lost),
        (breaks_off(b"no HTTP at all\r\n\r\n"), LONG, Malformed),
    ],
)
async def test_every_failure_is_an_upstream_error_and_nothing_is_sent_twice(
    transport: Transport, server: FakeServer, fault: Fault, seconds: float, error: type[UpstreamError]
) -> None:
    """A call without a response may have been executed, and billed."""
    server.faults["/"] = fault
    with pytest.raises(UpstreamError) as raised:
        await transport.post("/", b"{}", seconds)
    assert (error, "reranker", 1) == (type(raised.value), raised.value.service, len(server.requests))
    assert TOKEN not in str(raised.value)


async def test_an_error_response_keeps_status_and_body(transport: Transport, server: FakeServer) -> None:
    server.faults["/"] = refuses(429, b'{"error":"engine_overloaded"}')
    with pytest.raises(Refused) as refused:
        await transport.post("/", b"{}", LONG)
    assert (429, b'{"error":"engine_overloaded"}') == (refused.value.status, refused.value.body)


async def test_an_error_in_a_200_response_is_a_rejection(transport: Transport, server: FakeServer) -> None:
    server.faults["/"] = says(b'{"error":{"message":"slow down","code":429}}')

    def demands_scores(_: bytes) -> None:
        raise Malformed("reranker", "no scores")

    with pytest.raises(Refused) as refused:
        await transport.ask("/", b"{}", LONG, demands_scores, MODEL_RESPONSE_BYTES, model="m")
    assert (429, "rate_limited") == (refused.value.status, refused.value.reason)
    assert "reranker: status 429: slow down" == str(refused.value)


async def test_an_error_has_the_providers_message_without_the_token(transport: Transport, server: FakeServer) -> None:
    server.faults["/"] = refuses(401, b'{"detail":"no such token: %s"}' % TOKEN.encode())
    with pytest.raises(Refused) as refused:
        await transport.post("/", b"{}", LONG)
    assert "reranker: status 401: no such token: ***" == str(refused.value)


async def test_with_guards_a_call_is_retried_once(server: FakeServer) -> None:
    server.faults["/"] = refuses(503)
    async with models_session(1.0) as session:
        transport = Transport(session, "reranker", server.url, None, Guards(10))
        with pytest.raises(Refused):
            await transport.ask("/", b"{}", LONG, bytes, MODEL_RESPONSE_BYTES, model="m")
    assert 2 == len(server.requests)


async def test_a_redirect_is_not_followed(transport: Transport, server: FakeServer) -> None:
    """It would send the token and the texts elsewhere."""
    async with FakeServer() as elsewhere:

        async def redirects(*_: object) -> bytes:
            return answer(307, b"", ("Location", elsewhere.url))

        server.faults["/"] = redirects
        with pytest.raises(Refused):
            await transport.post("/", b"{}", LONG)
        assert [] == elsewhere.requests


async def test_a_provider_that_does_not_run_is_unreachable() -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    async with models_session(1.0) as session:
        with pytest.raises(Unreachable, match=rf"^embedder: {url}: Connection refused$"):
            await Transport(session, "embedder", url, TOKEN).post("/", b"{}", LONG)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 9200)"), "Connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "wrong version number"),
        (OSError("Multiple exceptions: a, b"), "Multiple exceptions: a, b"),
        (aiohttp.ServerDisconnectedError(), "Server disconnected"),
        (TimeoutError(), ""),
    ],
)
def test_a_connection_error_is_described_in_the_words_of_the_system(error: Exception, said: str) -> None:
    assert connection_error(error).endswith(said)
    assert "Connect call failed" not in connection_error(error)


async def test_a_connect_timeout_is_unreachable_and_not_a_timeout() -> None:
    """Nothing was sent, so nothing can have been billed."""
    with socket.socket() as full, socket.socket() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting.connect(full.getsockname())
        async with models_session(SOON) as session:
            transport = Transport(session, "embedder", f"http://127.0.0.1:{full.getsockname()[1]}", TOKEN)
            with pytest.raises(Unreachable):
                await transport.post("/", b"{}", LONG)


async def test_cookies_are_not_kept(transport: Transport, server: FakeServer) -> None:
    async def bakes(*_: object) -> bytes:
        return answer(200, b"{}", ("Set-Cookie", "session=1; Path=/"))

    server.faults["/"] = bakes
    for _ in range(2):
        await transport.post("/", b"{}", LONG)
    assert [[], []] == [asked.all("cookie") for asked in server.requests]


async def test_a_cancelled_call_closes_its_connection(transport: Transport, server: FakeServer) -> None:
    server.faults["/"] = hangs
    call = asyncio.ensure_future(transport.post("/", b"{}", LONG))
    await server.until_asked("/")
    call.cancel()
    await server.until_left()
    with pytest.raises(asyncio.CancelledError):
        await call


def compressed(body: bytes, encoding: str = "gzip") -> Fault:
    async def fault(*_: object) -> bytes:
        return answer(200, body, ("Content-Encoding", encoding))

    return fault


async def test_compressed_responses_are_requested_and_decompressed(transport: Transport, server: FakeServer) -> None:
    server.faults["/"] = compressed(gzip.compress(b"x" * MODEL_RESPONSE_BYTES))
    assert b"x" * MODEL_RESPONSE_BYTES == await transport.post("/", b"{}", LONG)
    assert "gzip" == server.requests[0].header("accept-encoding")


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"x" * (MODEL_RESPONSE_BYTES + 1), "identity"),
        (gzip.compress(b"x" * (MODEL_RESPONSE_BYTES + 1)), "gzip"),
        (b"".join([gzip.compress(b"", 0)[:-8], b"\0\0\0\xff\xff" * MODEL_RESPONSE_BYTES]), "gzip"),
        (gzip.compress(b"\0" * 2**24), "gzip"),
    ],
    ids=["plain", "gzip", "gzip of nothing", "bomb"],
)
async def test_reading_stops_at_the_size_limit(
    transport: Transport, server: FakeServer, body: bytes, encoding: str
) -> None:
    """For the received bytes and for the decompressed ones: 3 MB of gzip took 3.9 GB."""
    server.faults["/"] = compressed(body, encoding)
    tracemalloc.start()
    with pytest.raises(TooLarge):
        await transport.post("/", b"{}", LONG)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 * MODEL_RESPONSE_BYTES + 2 * len(body)


async def test_decompression_does_not_block(transport: Transport, server: FakeServer) -> None:
    size, turns = 64 * INFLATED_BYTES_A_TURN, 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    server.faults["/"] = compressed(gzip.compress(b"x" * size))
    turning = asyncio.ensure_future(turn())
    assert size == len(await transport.post("/", b"{}", LONG, size))
    turning.cancel()
    assert turns >= size // INFLATED_BYTES_A_TURN


async def test_the_timeout_covers_decompression(transport: Transport, server: FakeServer) -> None:
    server.faults["/"] = compressed(gzip.compress(b"\0" * 2**26))
    with pytest.raises(TimedOut):
        await transport.post("/", b"{}", SOON, 2**27)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"plain", "gzip"),
        (b"", "gzip"),
        (gzip.compress(b"{}")[:-1], "gzip"),
        (b"{}", "br"),
        (b"{}", "gzip, gzip"),
    ],
    ids=["plain", "empty", "cut off", "another", "twice"],  # a gzip contains the time
)
async def test_another_content_encoding_is_malformed(
    transport: Transport, server: FakeServer, body: bytes, encoding: str
) -> None:
    server.faults["/"] = compressed(body, encoding)
    with pytest.raises(Malformed):
        await transport.post("/", b"{}", LONG)


@pytest.mark.parametrize("error", [RecursionError(), OverflowError(), ValueError(), KeyError("x"), MemoryError()])
async def test_any_exception_of_a_reader_is_malformed(transport: Transport, error: Exception) -> None:
    def fails(_: bytes) -> None:
        raise error

    with pytest.raises(Malformed, match="a response that cannot be read"):
        await transport.ask("/", b"{}", LONG, fails, MODEL_RESPONSE_BYTES, model="m")


async def test_an_upstream_error_of_a_reader_is_kept(transport: Transport) -> None:
    def refuses_it(_: bytes) -> None:
        raise Malformed("reranker", "no score")

    with pytest.raises(Malformed, match="no score"):
        await transport.ask("/", b"{}", LONG, refuses_it, MODEL_RESPONSE_BYTES, model="m")


def test_its_repr_hides_the_token() -> None:
    transport = Transport(None, "reranker", "http://m", TOKEN)  # type: ignore[arg-type]
    assert "Transport(reranker, http://m)" == repr(transport)


async def test_a_provider_is_verified_only_by_its_own_authority(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with FakeServer(context) as server:
        trusting = Models(url=server.url, ca_file=str(tmp_path / "ca.pem"))
        for settings, trusts in ((trusting, True), (Models(url=server.url), False)):
            async with open_session(settings) as session:
                transport = Transport(session, "reranker", server.url, None)
                if trusts:
                    assert b"{}" == await transport.post("/", b"{}", LONG)
                else:
                    with pytest.raises(Unreachable, match="certificate verify failed"):
                        await transport.post("/", b"{}", LONG)


def test_an_unreadable_authority_is_an_error_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"models\.ca_file: .*none\.pem: cannot be read"):
        towards_models(Models(ca_file=str(tmp_path / "none.pem")))


async def test_an_http_proxy_is_supported(server: FakeServer) -> None:
    """It gets the whole URL; an https provider is reached through a tunnel."""
    async with open_session(Models(proxy=server.url)) as session:
        await Transport(session, "reranker", "http://models.example", TOKEN).post("/v1", b"{}", LONG)
    (asked,) = server.requests
    assert ("POST", "http://models.example/v1", "models.example") == (asked.method, asked.target, asked.header("host"))


async def test_an_https_tunnel_does_not_see_the_token(server: FakeServer) -> None:
    server.faults["models.example:443"] = refuses(403)
    async with open_session(Models(proxy=server.url)) as session:
        with pytest.raises(UpstreamError):
            await Transport(session, "reranker", "https://models.example", TOKEN).post("/v1", b"{}", LONG)
    (asked,) = server.requests
    assert ("CONNECT", "models.example:443") == (asked.method, asked.target)
    assert TOKEN.encode() not in asked.head


@pytest.mark.parametrize("status", [200, 302, 404, 405])
async def test_a_warmed_up_connection_is_reused_and_got_no_token(
    transport: Transport, server: FakeServer, status: int
) -> None:
    server.faults["/"] = refuses(status, b"")
    await transport.warm_up()
    await transport.post("/v1", b"{}", LONG)
    warming, asked = server.requests
    assert ("HEAD", [], 1) == (warming.method, warming.all("authorization"), server.connections)
    assert f"Bearer {TOKEN}" == asked.header("authorization")


async def test_a_failed_warm_up_is_ignored(transport: Transport, server: FakeServer) -> None:
    server.faults["/"] = breaks_off(b"no HTTP at all")
    await transport.warm_up()
    async with models_session(1.0) as session:
        await Transport(session, "embedder", f"http://127.0.0.1:{closed_port()}", TOKEN).warm_up()
    assert b"{}" == await transport.post("/v1", b"{}", LONG)


@pytest.mark.parametrize(
    ("fault", "seconds", "is_charged"),
    [
        (refuses(429), LONG, False),
        (refuses(500), LONG, False),
        (says(b'{"error": {"message": "busy", "code": 429}}'), LONG, False),
        (hangs, SOON, True),
        (breaks_off(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"), LONG, True),
        (says(b'{"scores": "?"}'), LONG, True),
    ],
)
async def test_a_call_counts_as_charged_unless_it_was_rejected(
    transport: Transport, server: FakeServer, fault: Fault, seconds: float, *, is_charged: bool
) -> None:
    """A call without a usable response may be billed all the same."""

    def unusable(content: bytes) -> None:
        raise Malformed("reranker", "not scores")

    server.faults["/"] = fault
    usage = Usage()
    with suppress(UpstreamError):
        await transport.ask("/", b"{}", seconds, unusable, 1000, model="m", purse=purse_with(usage), tokens=1000.0)
    assert is_charged == (usage.charge.estimated_usd > 0)


async def test_a_call_that_was_not_sent_costs_nothing() -> None:
    usage = Usage()
    async with models_session(1.0) as session:
        transport = Transport(session, "reranker", f"http://127.0.0.1:{closed_port()}", None)
        with suppress(UpstreamError):
            await transport.ask("/", b"{}", LONG, len, 1000, model="m", purse=purse_with(usage), tokens=1000.0)
    assert Charge() == usage.charge
