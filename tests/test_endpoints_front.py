"""What every endpoint stands on: a defect costs the order and never the answer; headers are the engine's own."""

import gzip
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from proxy.bypass import Bypass
from proxy.endpoints.front import guarded
from proxy.http1.messages import BadMessage
from tests.conftest import QUERY
from tests.endpoint_engine import DOCUMENTS, EndpointEngine
from tests.fakes import Client, Message, Stream, answer, ids


@pytest.fixture
async def engine() -> AsyncIterator[EndpointEngine]:
    async with EndpointEngine(DOCUMENTS) as server:
        yield server


async def _raises(error: Exception) -> str:
    raise error


async def _says(word: str) -> str:
    return word


async def test_what_comes_of_a_step_is_handed_on() -> None:
    assert "word" == await guarded(_says("word"))


@pytest.mark.parametrize("error", [ValueError("x"), RecursionError(), KeyError("x"), TimeoutError()])
async def test_a_defect_is_logged_and_leaves_the_search_to_the_engine(error: Exception) -> None:
    with capture_logs() as log:
        assert Bypass("internal_error") == await guarded(_raises(error))
    assert [("error", "internal_error")] == [(line["log_level"], line["event"]) for line in log]


@pytest.mark.parametrize("error", [BadMessage("x"), ConnectionResetError()])
async def test_what_the_client_did_is_no_defect(error: Exception) -> None:
    with pytest.raises(type(error)):
        await guarded(_raises(error))


async def test_the_engines_headers_stay_but_for_those_of_the_body(client: Client, engine: EndpointEngine) -> None:
    async def warns(stream: Stream, asked: Message) -> bytes:
        usual = engine.usual(asked).partition(b"\r\n\r\n")[2]
        return answer(200, usual, ("Warning", '299 a "b"'), ("Warning", '299 c "d"'), ("X-Opaque-Id", "mine"))

    engine.faults["lexical"] = warns
    answered = await client.search("/products/_search", QUERY)
    assert (['299 a "b"', '299 c "d"'], "mine", "reranked") == (
        answered.all("warning"),
        answered.header("x-opaque-id"),
        answered.header("x-rerank"),
    )
    assert [str(len(answered.content))] == answered.all("content-length")


async def test_an_answer_is_compressed_where_the_engines_was(client: Client, engine: EndpointEngine) -> None:
    async def zips(stream: Stream, asked: Message) -> bytes:
        usual = engine.usual(asked).partition(b"\r\n\r\n")[2]
        return answer(200, gzip.compress(usual), ("Content-Encoding", "gzip"))

    engine.faults["lexical"] = zips
    answered = await client.search("/products/_search", QUERY, accept_encoding="gzip")
    assert ("gzip", "reranked") == (answered.header("content-encoding"), answered.header("x-rerank"))
    plain = Message(answered.head, gzip.decompress(answered.content))
    assert ["d", "b", "c", "a"] == ids(plain)


@pytest.mark.parametrize("body", [b"x" * (8 * 2**20 + 1)], ids=["8 MiB and a byte"])
async def test_a_body_that_is_too_large_goes_on_whole(client: Client, engine: EndpointEngine, body: bytes) -> None:
    async def counts(stream: Stream, asked: Message) -> bytes:
        return answer(200, str(len(asked.content)).encode())

    engine.faults["lexical"] = counts
    answered = await client.ask("POST", "/products/_search", b'{"a":"' + body + b'"}', content_type="application/json")
    assert ("bypassed;reason=too_large", len(body) + 8) == (answered.header("x-rerank"), int(answered.content))


@pytest.mark.parametrize("credentials", ["Negotiate YII=", "NTLM TlRM", "AWS4-HMAC-SHA256 Credential=a/b"])
async def test_credentials_that_are_good_for_one_request_are_sent_with_the_clients_own_alone(
    credentials: str, client: Client, engine: EndpointEngine
) -> None:
    port = client.writer.get_extra_info("peername")[1]
    for target, outcome in (
        ("/products/_search", "bypassed;reason=credentials"),
        ("/product*/_search/template", "bypassed;reason=credentials"),
        ("/products/_async_search", "bypassed;reason=credentials"),
        ("/logs/_search", ""),
        ("/logs/_async_search", ""),
    ):
        one = await Client.to(port)  # such a login ends its connection
        reply = await one.search(target, QUERY, authorization=credentials)
        one.close()
        assert (outcome, target) == (reply.header("x-rerank"), engine.requests.pop().target)
        assert [] == engine.requests
