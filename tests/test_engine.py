"""Searches made for a caller go to the engine with that caller's own headers, and its failures become ours."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from proxy.catalog.indices import Resolved
from proxy.context import Sent
from proxy.errors import Lost, Malformed, Refused, TimedOut, TooLarge, UpstreamError
from proxy.http1.headers import NO_HOP
from proxy.ranking.planning import EngineSearch
from proxy.settings.config import Config
from proxy.settings.config import Engine as Settings
from proxy.upstream.engine import EngineClient, EngineOfCaller
from proxy.upstream.nodes import Nodes
from proxy.upstream.pool import EnginePool, EngineRequest
from tests.fakes import (
    FakeEngine,
    Fault,
    Message,
    Stream,
    answer,
    breaks_off,
    closed_port,
    hangs,
    refuses,
    says,
    waits_for,
)

SEARCH = EngineSearch("a%2Cb*", (("routing", "x y"), ("pretty", "")), b'{"query":{"match_all":{}}}')
CARRIED = (("Authorization", "ApiKey mine"), ("X-Opaque-Id", "7"))


@pytest.fixture
async def searching(engine: FakeEngine, settings: Config) -> AsyncIterator[EngineClient]:
    opened = EngineClient(settings.engine)
    yield opened
    await opened.close()


@pytest.fixture
def caller(searching: EngineClient) -> EngineOfCaller:
    return searching.for_caller(b"me", CARRIED)


async def test_a_search_is_sent_with_raw_names_parameters_and_the_callers_headers(
    caller: EngineOfCaller, engine: FakeEngine
) -> None:
    reply = await caller.search(SEARCH)
    (asked,) = engine.requests
    assert ("POST", "/a%2Cb*/_search?routing=x+y&pretty=") == (asked.method, asked.target)
    assert (SEARCH.body, "ApiKey mine", "7") == (
        asked.body,
        asked.header("authorization"),
        asked.header("x-opaque-id"),
    )
    assert "application/json" == asked.header("content-type")
    assert [] == [name for name in ("user-agent", "accept", "accept-encoding") if asked.all(name)]
    assert (200, (b"X-elastic-product", b"Elasticsearch")) == (reply.status, reply.fields[0])


async def test_the_callers_media_type_is_kept(searching: EngineClient, engine: FakeEngine) -> None:
    kind = "application/vnd.elasticsearch+json; compatible-with=8"
    await searching.for_caller(b"", (("content-type", kind),)).search(EngineSearch("", (), b"{}"))
    assert ("/_search", [kind]) == (engine.requests[0].target, engine.requests[0].all("content-type"))


@pytest.mark.parametrize(
    ("fault", "seconds", "error"),
    [
        (refuses(400), None, Refused),
        (refuses(201), None, Refused),
        (refuses(302), None, Refused),
        (hangs, 0.03, TimedOut),
        (breaks_off(), None, Lost),
        (breaks_off(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"), None, Lost),
        (breaks_off(b"no HTTP\r\n\r\n"), None, Malformed),
    ],
)
async def test_every_failure_is_an_upstream_error(
    caller: EngineOfCaller, engine: FakeEngine, fault: Fault, seconds: float | None, error: type[UpstreamError]
) -> None:
    engine.faults["lexical"] = fault
    with pytest.raises(UpstreamError) as raised:
        await (caller.search(SEARCH) if seconds is None else caller.add(SEARCH, seconds))
    assert (error, "engine") == (type(raised.value), raised.value.service)
    assert "mine" not in str(raised.value)


async def test_only_the_clients_own_search_counts_as_sent(caller: EngineOfCaller, engine: FakeEngine) -> None:
    engine.faults["lexical"] = breaks_off()
    other, one = (replace(caller, sent=Sent(caller.sent)) for _ in range(2))
    await one.add(EngineSearch("a", (), b'{"knn":{}}'), 5)
    await one.render(b'{"source":{}}', 5)
    await one.resolved("a", ())
    assert [False, False, False] == [each.sent.by_now for each in (caller, one, other)]
    with pytest.raises(Lost):
        await one.search(SEARCH)
    assert [True, True, False] == [each.sent.by_now for each in (caller, one, other)]
    await other.post("/_msearch", (), b"{}\n{}\n", lines=True)
    assert other.sent.by_now


@pytest.mark.parametrize(("status", "accepted"), [(401, False), (403, True), (404, True), (503, True)])
async def test_a_401_for_a_lookup_revokes_acceptance_but_a_403_does_not(
    searching: EngineClient, caller: EngineOfCaller, engine: FakeEngine, status: int, *, accepted: bool
) -> None:
    """A caller that may not read index metadata (403) may still search."""
    searching.accepted.note(b"me", b"indices")
    engine.faults["facts"] = refuses(status)
    with pytest.raises(Refused):
        await caller.facts(frozenset({"products"}))
    assert accepted is searching.accepted.lately(b"me", b"indices")


def dies_at(engine: FakeEngine, number: int) -> Fault:
    async def fault(stream: Stream, asked: Message) -> bytes | None:
        if len(engine.requests) == number:
            stream.break_off()
            raise ConnectionError
        return None

    return fault


async def test_a_search_lost_with_its_connection_is_not_repeated(caller: EngineOfCaller, engine: FakeEngine) -> None:
    """It may have crashed the engine, and would then crash the next node."""
    engine.faults["lexical"] = dies_at(engine, 2)
    await caller.search(SEARCH)
    with pytest.raises(Lost):
        await caller.search(SEARCH)
    assert [1, 1] == [asked.connection for asked in engine.requests]


async def test_a_lookup_lost_on_a_reused_connection_is_repeated(caller: EngineOfCaller, engine: FakeEngine) -> None:
    engine.faults["resolve"] = dies_at(engine, 2)
    await caller.search(SEARCH)
    await caller.resolved("products", ())
    assert [1, 1, 2] == [asked.connection for asked in engine.requests]


async def test_a_connection_is_not_reused_after_a_400(caller: EngineOfCaller, engine: FakeEngine) -> None:
    """Elasticsearch answers an unreadable head with 400; other errors leave the connection usable."""
    for status, connections in ((404, 1), (400, 1), (431, 2), (403, 3), (200, 3)):
        engine.faults["lexical"] = refuses(status) if status != 200 else says(b"{}")
        if status == 200:
            await caller.search(SEARCH)
        else:
            with pytest.raises(Refused):
                await caller.search(SEARCH)
        assert connections == engine.connections


async def test_a_long_error_response_is_read_to_its_end(caller: EngineOfCaller, engine: FakeEngine) -> None:
    long = b"x" * 2**20
    engine.faults["lexical"] = refuses(400, long)
    with pytest.raises(Refused) as refused:
        await caller.search(SEARCH)
    assert long == refused.value.body
    engine.faults.clear()
    await caller.search(SEARCH)
    assert 2 == engine.connections


async def test_the_next_node_is_used_if_one_is_unreachable(settings: Config, engine: FakeEngine) -> None:
    nodes = [f"http://127.0.0.1:{closed_port()}", engine.url]
    searching = EngineClient(msgspec.structs.replace(settings.engine, url=nodes))
    assert 200 == (await searching.for_caller(b"", ()).search(SEARCH)).status
    await searching.close()


async def test_names_are_resolved_once_per_caller_and_parameters(searching: EngineClient, engine: FakeEngine) -> None:
    async def ask(identity: bytes, *parameters: tuple[str, str]) -> Any:
        return await searching.for_caller(identity, CARRIED).resolved("products", parameters)

    found = [
        await ask(b"a"),
        await ask(b"a", ("pretty", "")),
        await ask(b"b"),
        await ask(b"a", ("expand_wildcards", "all")),
    ]
    assert [(Resolved("products"),)] * 4 == found
    targets = ["/_resolve/index/products", "/_resolve/index/products", "/_resolve/index/products?expand_wildcards=all"]
    assert targets == [asked.target for asked in engine.requests]


async def test_the_engines_version_is_requested_once_for_all_callers(
    searching: EngineClient, engine: FakeEngine
) -> None:
    first, second = (searching.for_caller(name, ()) for name in (b"first", b"second"))
    assert (await first.kind(), 1) == (await second.kind(), len(engine.of("version")))


async def test_a_caller_without_the_right_uses_the_version_another_learned(
    searching: EngineClient, engine: FakeEngine
) -> None:
    first, second = (searching.for_caller(name, ()) for name in (b"first", b"second"))
    engine.faults["version"] = refuses(403)
    assert await second.kind() is None
    del engine.faults["version"]
    learned = await first.kind()
    assert learned is not None
    assert (learned, learned.version is not None) == (await second.kind(), True)


@pytest.mark.parametrize("expression", ["", "_all"])
async def test_all_indices_are_resolved_by_a_star(caller: EngineOfCaller, engine: FakeEngine, expression: str) -> None:
    await caller.resolved(expression, ())
    assert ["/_resolve/index/*"] == [asked.target for asked in engine.requests]


async def test_a_missing_index_is_not_cached(caller: EngineOfCaller, engine: FakeEngine) -> None:
    engine.faults["resolve"] = refuses(404)
    with pytest.raises(Refused):
        await caller.resolved("products", ())
    del engine.faults["resolve"]
    assert (Resolved("products"),) == await caller.resolved("products", ())


async def test_concurrent_equal_lookups_share_one_request(caller: EngineOfCaller, engine: FakeEngine) -> None:
    """Otherwise each search would send its own when a cached response expires under load."""
    held = asyncio.Event()
    engine.faults["resolve"] = waits_for(held)
    asking = [asyncio.ensure_future(caller.resolved("products", ())) for _ in range(3)]
    await engine.until_asked("resolve")
    held.set()
    assert [(Resolved("products"),)] * 3 == await asyncio.gather(*asking)
    assert 1 == len(engine.of("resolve"))


async def test_a_403_is_cached_for_its_caller(searching: EngineClient, engine: FakeEngine) -> None:
    """Otherwise a caller with `read` alone would cause a request with every search."""
    engine.faults = {"facts": refuses(403)}
    one, other = (searching.for_caller(name, CARRIED) for name in (b"one", b"other"))
    for _ in range(2):
        with pytest.raises(Refused, match="403"):
            await one.facts(frozenset({"products"}))
    engine.faults = {}
    assert "embedding" in (await other.facts(frozenset({"products"}))).vectors
    assert 2 == len(engine.of("facts"))


async def test_equal_responses_to_several_callers_are_stored_once(searching: EngineClient, engine: FakeEngine) -> None:
    """So a large mapping takes memory once, and not for each caller."""
    facts = [await searching.for_caller(name, CARRIED).facts(frozenset({"products"})) for name in (b"one", b"other")]
    assert (True, 2) == (facts[0] is facts[1], len(engine.of("facts")))


async def test_mappings_are_requested_by_encoded_names_and_cached(caller: EngineOfCaller, engine: FakeEngine) -> None:
    facts, again = [await caller.facts(frozenset({"müll", "products"})) for _ in range(2)]
    (asked,) = engine.requests
    assert ("/m%C3%BCll,products", "application/json", "ApiKey mine") == (
        asked.target,
        asked.header("accept"),
        asked.header("authorization"),
    )
    assert {"title", "brand", "tenant", "tenant.keyword", "embedding"} == set(facts.types)
    assert facts is again


@pytest.mark.parametrize("said", [b"", b"[]", b'{"products":1}', b'{"products":{"mappings":{"properties":{"a":1}}}}'])
async def test_an_unexpected_mapping_is_malformed(caller: EngineOfCaller, engine: FakeEngine, said: bytes) -> None:
    engine.faults["facts"] = says(said)
    with pytest.raises(Malformed):
        await caller.facts(frozenset({"products"}))


async def test_redirects_are_not_followed_and_cookies_not_kept(caller: EngineOfCaller, engine: FakeEngine) -> None:
    async def bakes(stream: Stream, asked: Message) -> bytes:
        return answer(307, b"", ("Location", "/elsewhere"), ("Set-Cookie", "sid=1"))

    engine.faults["lexical"] = bakes
    for _ in range(2):
        with pytest.raises(Refused):
            await caller.search(SEARCH)
    assert [("/a%2Cb*/_search", [])] * 2 == [(asked.path, asked.all("cookie")) for asked in engine.requests]


async def test_a_cancelled_search_closes_its_connection(caller: EngineOfCaller, engine: FakeEngine) -> None:
    engine.faults["lexical"] = hangs
    search = asyncio.ensure_future(caller.search(SEARCH))
    await engine.until_asked("lexical")
    search.cancel()
    await engine.until_left()
    with pytest.raises(asyncio.CancelledError):
        await search


@pytest.mark.parametrize("indices", ["i#", "i%23", "a,b*", "%3Cl-%7Bnow%2Fd%7D%3E", 'i"|'])
async def test_index_expressions_are_sent_as_the_client_wrote_them(
    caller: EngineOfCaller, engine: FakeEngine, indices: str
) -> None:
    await caller.search(EngineSearch(indices, (), b"{}"))
    assert f"/{indices}/_search" == engine.requests[0].target


@pytest.mark.parametrize(
    ("accepted", "asked"),
    [
        ("gzip", ["gzip"]),
        ("deflate, gzip;q=0.5, br", ["gzip"]),
        ("gzip;q=0", []),
        ("deflate, br, zstd, snappy", []),
        ("identity", []),
        (None, []),
    ],
)
async def test_accept_encoding_lists_only_what_the_proxy_decodes(
    engine: FakeEngine, accepted: str | None, asked: list[str]
) -> None:
    searching = EngineClient(Settings(url=engine.url))
    carried = (("Accept-Encoding", accepted),) if accepted else ()
    await searching.for_caller(b"", carried).search(SEARCH)
    await searching.close()
    assert asked == engine.requests[0].all("accept-encoding")


async def test_a_decompression_bomb_is_too_large(caller: EngineOfCaller, engine: FakeEngine) -> None:
    deflating = zlib.compressobj(wbits=31)
    bomb = b"".join(deflating.compress(b" " * 2**20) for _ in range(80)) + deflating.flush()

    async def sends(stream: Stream, asked: Message) -> bytes:
        return answer(200, bomb, ("content-encoding", "gzip"))

    engine.faults["lexical"] = sends
    with pytest.raises(TooLarge):
        await caller.search(SEARCH)


@pytest.mark.parametrize("sent", [b"no gzip", gzip.compress(b"{}")[:-9]], ids=["another format", "cut short"])
async def test_an_invalid_gzip_response_is_malformed(caller: EngineOfCaller, engine: FakeEngine, sent: bytes) -> None:
    async def sends(stream: Stream, asked: Message) -> bytes:
        return answer(200, sent, ("content-encoding", "gzip"))

    engine.faults["lexical"] = sends
    with pytest.raises(Malformed):
        await caller.search(SEARCH)


async def test_unsolicited_bytes_close_the_connection(caller: EngineOfCaller, engine: FakeEngine) -> None:
    """They would be taken for the next caller's response."""
    said = asyncio.Event()

    async def talks(stream: Stream) -> None:
        engine.script = None
        assert await stream.request()
        await stream.send(answer(body=b"{}"))
        await said.wait()
        await stream.send(answer(body=b'{"of":"another"}'))
        await stream.left()

    engine.script = talks
    await caller.search(SEARCH)
    said.set()
    await engine.until_left()
    assert b"another" not in (await caller.search(SEARCH)).body


@pytest.mark.parametrize("status", [200, 403, 503])
async def test_a_connection_is_not_reused_before_its_request_was_sent(
    caller: EngineOfCaller, engine: FakeEngine, status: int
) -> None:
    """A server that answers before it has read the request may take the rest for another one."""

    async def answers_too_soon(stream: Stream) -> None:
        engine.script = None
        assert await stream.head()
        await stream.send(answer(status, b"{}"))
        await stream.left()

    engine.script = answers_too_soon
    with suppress(Refused):
        await caller.search(replace(SEARCH, body=b" " * 2**24 + SEARCH.body))
    async with asyncio.timeout(20):
        await caller.search(SEARCH)
    assert 2 == engine.connections


@pytest.mark.parametrize(("age_seconds", "connections"), [(60.0, 1), (0.0, 2)])
async def test_a_connection_is_used_again_up_to_its_maximum_age(
    engine: FakeEngine, age_seconds: float, connections: int
) -> None:
    """Otherwise a busy connection would stay at its node after the host name has moved to another."""
    pool = EnginePool(Nodes(Settings(url=engine.url)), NO_HOP, 60.0, age_seconds)
    for _ in range(2):
        await pool.send(EngineRequest("GET", "/_cat/health", ()))
    assert connections == engine.connections
    await pool.close()
