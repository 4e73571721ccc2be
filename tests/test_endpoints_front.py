"""What every endpoint stands on: a defect costs the order and never the answer; headers are the engine's own."""

import asyncio
import dataclasses
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, NoReturn

import msgspec
import pytest
from structlog.testing import capture_logs

from proxy.app import open_proxy
from proxy.app.generation import Generation
from proxy.bounds import MSEARCH_ITEMS, PARAMETERS_BYTES, SEARCH_BODY_BYTES
from proxy.context import Ended, RequestRecord
from proxy.endpoints.answering import guarded
from proxy.endpoints.async_search import AsyncSearches
from proxy.endpoints.front import Front, options_removed
from proxy.errors import UpstreamError
from proxy.http1.framing import BadMessage
from proxy.http1.listener import serve
from proxy.outcomes import Bypass
from proxy.ranking.stages import Budget, CalledModels
from proxy.settings.config import Config
from proxy.telemetry.log import Telemetry
from tests.conftest import QUERY, TOKEN, Log, StartProxy
from tests.endpoint_engine import DOCUMENTS, EndpointEngine, lines
from tests.fakes import Client, Fault, Message, Stream, answer, breaks_off, closed_port, hangs, ids, refuses, request


@pytest.fixture
async def engine() -> AsyncIterator[EndpointEngine]:
    async with EndpointEngine(DOCUMENTS) as server:
        yield server


async def _raises(error: Exception) -> str:
    raise error


async def _says(word: str) -> str:
    return word


async def test_guarded_returns_the_result_of_a_step() -> None:
    assert "word" == await guarded(_says("word"))


@pytest.mark.parametrize("error", [ValueError("x"), RecursionError(), KeyError("x"), TimeoutError()])
async def test_an_internal_error_is_logged_and_the_search_bypassed(error: Exception) -> None:
    with capture_logs() as log:
        assert Bypass("internal_error") == await guarded(_raises(error))
    assert [("error", "internal_error")] == [(line["log_level"], line["event"]) for line in log]


@pytest.mark.parametrize("error", [BadMessage("x"), ConnectionResetError()])
async def test_errors_of_the_client_are_not_internal_errors(error: Exception) -> None:
    with pytest.raises(type(error)):
        await guarded(_raises(error))


async def test_the_engines_headers_are_kept_except_those_of_the_body(client: Client, engine: EndpointEngine) -> None:
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


async def test_a_response_is_compressed_if_the_engines_was(client: Client, engine: EndpointEngine) -> None:
    async def zips(stream: Stream, asked: Message) -> bytes:
        usual = engine.usual(asked).partition(b"\r\n\r\n")[2]
        return answer(200, gzip.compress(usual), ("Content-Encoding", "gzip"))

    engine.faults["lexical"] = zips
    answered = await client.search("/products/_search", QUERY, accept_encoding="gzip")
    assert ("gzip", "reranked") == (answered.header("content-encoding"), answered.header("x-rerank"))
    plain = Message(answered.head, gzip.decompress(answered.content))
    assert ["d", "b", "c", "a"] == ids(plain)


@pytest.mark.parametrize("body", [b"x" * (8 * 2**20 + 1)], ids=["8 MiB and a byte"])
async def test_a_body_above_the_limit_is_passed_through(client: Client, engine: EndpointEngine, body: bytes) -> None:
    async def counts(stream: Stream, asked: Message) -> bytes:
        return answer(200, str(len(asked.content)).encode())

    engine.faults["lexical"] = counts
    answered = await client.ask("POST", "/products/_search", b'{"a":"' + body + b'"}', content_type="application/json")
    assert ("bypassed;reason=too_large", len(body) + 8) == (answered.header("x-rerank"), int(answered.content))


async def test_a_body_above_the_limit_when_decompressed_is_passed_through(
    client: Client, engine: EndpointEngine
) -> None:
    body = gzip.compress(json.dumps({**QUERY, "stats": ["x" * SEARCH_BODY_BYTES]}).encode())
    fields = {"content_type": "application/json", "content_encoding": "gzip"}
    answered = await client.ask("POST", "/products/_search", body, **fields)
    assert ("bypassed;reason=too_large", body) == (answered.header("x-rerank"), engine.requests[-1].content)


@pytest.mark.parametrize("target", ["/products/_search", "/products/_msearch", "/products/_async_search", "/_search"])
async def test_a_url_above_the_limit_is_passed_through(client: Client, engine: EndpointEngine, target: str) -> None:
    target = f"{target}?preference={'x' * PARAMETERS_BYTES}"
    answered = await client.search(target, QUERY)
    assert ("bypassed;reason=too_complex", [target]) == (
        answered.header("x-rerank"),
        [sent.target for sent in engine.requests],
    )


MISREAD = ("_=%", "_=%2", "_=%zz", "_=a;b=c", "_=a#b", "#", "pretty=%u00e4", "filter_path=took;pretty")
"""Engines reject a malformed escape, take `;` for `&`, and end the URL at `#`.

Seen on Elasticsearch 8.19.13, 9.4.3 and OpenSearch 2.19.1.
"""


@pytest.mark.parametrize("query_string", MISREAD)
@pytest.mark.parametrize("name", ["_search", "_search/template", "_msearch", "_msearch/template", "_async_search"])
async def test_an_ambiguous_url_is_passed_through(
    client: Client, engine: EndpointEngine, name: str, query_string: str
) -> None:
    target = f"/products/{name}?{query_string}"
    body = lines({}, QUERY) if "_msearch" in name else json.dumps(QUERY).encode()
    media = "application/x-ndjson" if "_msearch" in name else "application/json"
    answered = await client.ask("POST", target, body, content_type=media)
    assert ("bypassed;reason=unknown_parameter", [(target, body)]) == (
        answered.header("x-rerank"),
        [(sent.target, sent.content) for sent in engine.requests],
    )


@pytest.mark.parametrize("query_string", [*MISREAD, f"preference={'x' * PARAMETERS_BYTES}"])
async def test_an_msearch_with_an_ambiguous_url_has_no_reason_if_only_its_lines_name_indices(
    client: Client, engine: EndpointEngine, query_string: str
) -> None:
    body = lines({"index": "logs"}, {**QUERY, "ext": {"rerank_proxy": {"window": 10}}})
    answered = await client.ask("POST", f"/_msearch?{query_string}", body, content_type="application/x-ndjson")
    assert ("", lines({"index": "logs"}, QUERY)) == (answered.header("x-rerank"), engine.requests[-1].content)


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
async def test_a_too_large_content_length_is_rejected_by_the_engine_at_once(
    client: Client, engine: EndpointEngine, expect: str
) -> None:
    """Elasticsearch refuses a length of more than 100 MB with 413 when it has read the head."""
    await client.search("/products/_search", QUERY)  # the names are known then

    async def script(stream: Stream) -> None:
        head = await stream.head()
        assert b"content-length: 200000000" in head.lower()
        await stream.send(answer(413, b"", reason="Request Entity Too Large"))

    engine.script = script
    head = f"POST /products/_search HTTP/1.1\r\nHost: p\r\nContent-Type: application/json\r\n{expect}"
    await client.send(f"{head}Content-Length: 200000000\r\n\r\n".encode())
    answered = await client.answer()
    assert (413, "bypassed;reason=too_large") == (answered.status, answered.header("x-rerank"))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_reranked_response_has_the_http_version_of_the_request(client: Client, version: str) -> None:
    """Elasticsearch and OpenSearch answer HTTP/1.0 with HTTP/1.0."""
    body = json.dumps(QUERY)
    head = f"POST /products/_search HTTP/{version}\r\nHost: p\r\nContent-Type: application/json\r\n"
    await client.send(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    answered = await client.answer()
    assert (f"HTTP/{version} 200 OK", "reranked") == (answered.start.decode(), answered.header("x-rerank"))


STEERED = QUERY | {"ext": {"rerank_proxy": {"window": 10}}}
ONE_ITEM = lines({}, STEERED)
TOO_LONG = f"preference={'x' * PARAMETERS_BYTES}"


@pytest.mark.parametrize(
    ("target", "body", "fields", "reason"),
    [
        (f"/products/_search?{TOO_LONG}", b"", {}, "too_complex"),
        (f"/products/_search/template?{TOO_LONG}", b"", {}, "too_complex"),
        (f"/products/_async_search?{TOO_LONG}", b"", {}, "too_complex"),
        (f"/products/_msearch?{TOO_LONG}", ONE_ITEM, {}, "too_complex"),
        ("/products/_search", b"", {"authorization": "Negotiate YII="}, "credentials"),
        ("/products/_search/template", b"", {"authorization": "Negotiate YII="}, "credentials"),
        ("/products/_async_search", b"", {"authorization": "Negotiate YII="}, "credentials"),
        ("/products/_msearch", ONE_ITEM, {"authorization": "Negotiate YII="}, "credentials"),
        ("/_msearch", lines({"index": "products"}, STEERED), {"authorization": "Negotiate YII="}, "credentials"),
        ("/products/_search", b"", {"x_note": "\u00e4"}, "headers"),
        ("/products/_msearch?unheard=of", ONE_ITEM, {}, "unknown_parameter"),
        ("/_msearch?unheard=of", lines({"index": "products"}, STEERED), {}, ""),
        ("/products/_msearch", lines({"unheard": "of"}, STEERED), {}, "unknown_parameter"),
        ("/products/_msearch", ONE_ITEM * (MSEARCH_ITEMS + 1), {}, "too_many"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
async def test_options_are_removed_from_a_search_bypassed_before_routing(
    client: Client,
    engine: EndpointEngine,
    target: str,
    body: bytes,
    fields: dict[str, str],
    reason: str,
    zipped: bool,  # noqa: FBT001
) -> None:
    async def swallows(stream: Stream, asked: Message) -> bytes:
        return answer(200, b"{}")

    engine.faults["lexical"] = swallows
    body = body or json.dumps(STEERED).encode()
    media = "application/x-ndjson" if b"\n" in body else "application/json"
    fields = fields | {"content_type": media} | ({"content_encoding": "gzip"} if zipped else {})
    answered = await client.ask("POST", target, gzip.compress(body) if zipped else body, **fields)
    assert reason in answered.header("x-rerank")
    (sent,) = engine.requests
    content = gzip.decompress(sent.content) if sent.header("content-encoding") else sent.content
    assert b"rerank_proxy" not in content
    assert body.count(b"\n") == content.count(b"\n")


@pytest.mark.parametrize("target", ["/products/_search", "/products/_async_search", "/products/_msearch"])
@pytest.mark.parametrize("fault", [refuses(500), refuses(404), hangs], ids=["500", "404", "hangs"])
async def test_options_are_removed_from_a_search_with_unresolved_names(
    start_proxy: StartProxy, settings: Config, engine: EndpointEngine, fault: Fault, target: str
) -> None:
    seconds = 0.1 if fault is hangs else 30
    patience = msgspec.structs.replace(settings.engine, resolve_timeout_seconds=seconds)
    client = await start_proxy(msgspec.structs.replace(settings, engine=patience))
    engine.faults["resolve"] = fault
    body = lines({}, STEERED) if "_msearch" in target else json.dumps(STEERED).encode()
    answered = await client.ask("POST", target, body, content_type="application/json")
    assert "bypassed;reason=unresolved" in answered.header("x-rerank")
    assert b"rerank_proxy" not in engine.requests[-1].content


async def test_an_engine_that_stopped_after_name_resolution_is_a_502_and_a_warning(
    client: Client, engine: EndpointEngine, log: Log
) -> None:
    await client.search("/products/_search", QUERY)
    await engine.__aexit__()
    answered = await client.search("/products/_search", QUERY)
    assert (502, "bypassed;reason=engine_refused", "warning") == (
        answered.status,
        answered.header("x-rerank"),
        [line["log_level"] for line in log if line["event"] == "search"][-1],
    )


@pytest.mark.parametrize("credentials", ["Negotiate YII=", "NTLM TlRM", "AWS4-HMAC-SHA256 Credential=a/b"])
async def test_one_time_credentials_are_sent_with_the_clients_request_only(
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


class Defective:
    """Stands for a part of the proxy that fails in a way that nobody thought of."""

    @classmethod
    def of(cls, part: Any, *broken: str) -> Any:
        return cls(part, *broken)

    def __init__(self, part: Any, *broken: str) -> None:
        self._part = part
        self._broken = broken

    def __getattr__(self, name: str) -> Any:
        if name in self._broken:
            raise ArithmeticError(name)
        return getattr(self._part, name)


StartDefective = Callable[[Callable[[Front], Front]], Awaitable[Client]]


@pytest.fixture
async def start_defective(settings: Config, log: Log) -> AsyncIterator[StartDefective]:
    """Start a proxy of which some part is replaced by a defective one."""
    async with AsyncExitStack() as stack:

        async def start(spoil: Callable[[Front], Front]) -> Client:
            engine = msgspec.structs.replace(settings.engine, published_address="proxy:9201")
            proxy = await open_proxy(msgspec.structs.replace(settings, engine=engine), TOKEN, {}, stack)
            whole = proxy.generation
            front = spoil(whole.front)
            async_searches = AsyncSearches(front)
            proxy.replace(Generation(whole.config, whole.models, front, async_searches, whole.hand_over()))
            conclude = proxy.telemetry.conclude
            listener = await serve(proxy.handle, proxy.upstream, "127.0.0.1", 0, conclude=conclude)
            stack.push_async_callback(listener.close, 5)
            client = await Client.to(listener.port)
            stack.callback(client.close)
            return client

        yield start


BODIES = {
    "/products/_search": json.dumps(QUERY).encode(),
    "/products/_search/template": json.dumps({"source": json.dumps(QUERY)}).encode(),
    "/products/_msearch": lines({}, QUERY),
    "/products/_async_search": json.dumps(QUERY).encode(),
}


def without(part: str, step: str) -> Callable[[Front], Front]:
    """Let a step of every search fail."""

    def fails(*_: object, **__: object) -> NoReturn:
        raise ArithmeticError(step)

    def spoil(front: Front) -> Front:
        setattr(getattr(front.searching, part), step, fails)
        return front

    return spoil


DEFECTS: dict[str, Callable[[Front], Front]] = {
    "names": without("router", "cover"),
    "options": without("router", "options"),
    "planning": without("planner", "plan"),
    "answering": lambda front: dataclasses.replace(front, searching=Defective.of(front.searching, "route")),
    "caller": lambda front: dataclasses.replace(front, engine=Defective.of(front.engine, "for_caller")),
}


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("target", BODIES)
async def test_an_internal_error_in_any_step_returns_the_engines_order(
    start_defective: StartDefective, engine: EndpointEngine, log: Log, target: str, defect: str
) -> None:
    client = await start_defective(DEFECTS[defect])
    kind = "application/x-ndjson" if "_msearch" in target else "application/json"
    answered = await client.ask("POST", target, BODIES[target], content_type=kind)
    assert (200, "bypassed;reason=internal_error") == (answered.status, answered.header("x-rerank"))
    assert (target, BODIES[target]) == (engine.requests[-1].target, engine.requests[-1].content)
    causes = [line for line in log if line["event"] == "internal_error"]
    ended = [line for line in log if line["event"] == "search"]
    assert (1, 1, "warning", "ArithmeticError") == (
        len(causes),
        len(ended),
        ended[0]["log_level"],
        ended[0]["detail"],
    )


async def test_an_internal_error_in_the_nodes_endpoint_passes_the_request_on(
    start_defective: StartDefective, engine: EndpointEngine
) -> None:
    client = await start_defective(DEFECTS["caller"])
    assert (200, True) == (
        (answered := await client.ask("GET", "/_nodes/_all/http")).status,
        "nodes" in answered.json(),
    )


def without_notes(front: Front) -> Front:
    """Fail between the engine's answer to the client's own search and what is made of it."""
    front.engine.accepted = Defective.of(front.engine.accepted, "note")
    return front


def without_kind(front: Front) -> Front:
    """Fail where a response is written in the form that was asked for."""
    return dataclasses.replace(front, engine=Defective.of(front.engine, "kind_in_headers"))


def _own_searches(engine: EndpointEngine) -> list[str]:
    """Name the requests by which a client's search may have run."""
    added = {"semantic", "render", "passages", "_render/template"}
    kinds = [engine.kind(sent) for sent in engine.requests if sent.path.endswith(("search", "/template"))]
    return [kind for kind in kinds if kind not in added]


@pytest.mark.parametrize("target", ["/products/_search", "/products/_search/template"])
async def test_an_internal_error_after_the_search_was_sent_is_a_500(
    start_defective: StartDefective, engine: EndpointEngine, log: Log, target: str
) -> None:
    client = await start_defective(without_notes)
    answered = await client.ask("POST", target, BODIES[target], content_type="application/json")
    assert (500, "proxy_internal_error", "bypassed;reason=internal_error", ["lexical"]) == (
        answered.status,
        answered.json()["error"]["type"],
        answered.header("x-rerank"),
        _own_searches(engine),
    )
    ended = [line for line in log if line["event"] == "search"]
    assert [("warning", "ArithmeticError", "internal_error")] == [
        (line["log_level"], line["detail"], line["reason"]) for line in ended
    ]
    assert 1 == len([line for line in log if line["event"] == "internal_error"])


async def test_an_internal_error_after_an_items_search_was_sent_fails_that_item(
    start_defective: StartDefective, engine: EndpointEngine
) -> None:
    client = await start_defective(without_notes)
    body = lines({}, QUERY, {"index": "logs"}, QUERY)
    answered = await client.ask("POST", "/products/_msearch", body, content_type="application/x-ndjson")
    failed, unrouted = answered.json()["responses"]
    assert (500, "proxy_internal_error", 200) == (failed["status"], failed["error"]["type"], unrouted["status"])
    assert "bypassed;reason=internal_error, unrouted" == answered.header("x-rerank")
    assert ["_msearch", "lexical"] == sorted(_own_searches(engine))
    assert 2 == engine.of("_msearch")[0].content.count(b"\n")


async def test_an_internal_error_before_an_items_search_bypasses_that_item(
    start_defective: StartDefective, engine: EndpointEngine
) -> None:
    """Even if the search of another item was sent already."""

    def spoil(front: Front) -> Front:
        prepare = front.searching.prepare

        async def broken(routed: Any, own: Any, number: int = 0) -> Any:
            prepared = await prepare(routed, own, number)
            of_seven = b'"size": 7' in routed.call.content
            return dataclasses.replace(prepared, planned=None) if of_seven else prepared  # type: ignore[arg-type]

        front.searching.prepare = broken  # type: ignore[method-assign]
        return front

    client = await start_defective(spoil)
    body = lines({}, QUERY, {}, {**QUERY, "size": 7})
    answered = await client.ask("POST", "/products/_msearch", body, content_type="application/x-ndjson")
    assert ([200, 200], "reranked, bypassed;reason=internal_error") == (
        [item["status"] for item in answered.json()["responses"]],
        answered.header("x-rerank"),
    )


async def test_an_internal_error_while_an_msearch_is_assembled_is_a_500(
    start_defective: StartDefective, engine: EndpointEngine
) -> None:
    client = await start_defective(without_kind)
    target = "/products/_msearch"
    answered = await client.ask("POST", target, BODIES[target], content_type="application/x-ndjson")
    assert (500, "proxy_internal_error", ["lexical"]) == (
        answered.status,
        answered.json()["error"]["type"],
        _own_searches(engine),
    )


async def test_an_async_search_is_not_submitted_again_after_an_internal_error(
    start_defective: StartDefective, engine: EndpointEngine
) -> None:
    engine.faults["_async_search"] = refuses(503)
    client = await start_defective(without_kind)
    answered = await client.search("/products/_async_search", QUERY)
    assert (500, "proxy_internal_error", ["_async_search"]) == (
        answered.status,
        answered.json()["error"]["type"],
        _own_searches(engine),
    )


async def test_an_async_search_gets_the_engines_response_after_an_internal_error(
    start_defective: StartDefective, engine: EndpointEngine
) -> None:
    client = await start_defective(without_notes)
    answered = await client.search("/products/_async_search", QUERY)
    assert (200, "bypassed;reason=internal_error", ["_async_search", "lexical"]) == (
        answered.status,
        answered.header("x-rerank"),
        _own_searches(engine),
    )


class DefectiveScores:
    """Does not even raise what a reranker may raise."""

    async def warm_up(self) -> None: ...

    async def unavailable(self, query: str, *, instruction: str, model: str) -> None: ...

    def not_called(self, model: str, why: UpstreamError) -> None: ...

    async def score(
        self, query: str, passages: Sequence[str], *, instruction: str, model: str, budget: Budget
    ) -> NoReturn:
        raise ArithmeticError(query)


def without_scores(front: Front) -> Front:
    called = front.searching._called  # noqa: SLF001
    front.searching._called = CalledModels(called.embedder, DefectiveScores())  # noqa: SLF001
    return front


async def test_an_internal_error_after_the_engines_response_returns_that_response(
    start_defective: StartDefective, engine: EndpointEngine, log: Log
) -> None:
    client = await start_defective(without_scores)
    answered = await client.search("/products/_search", {**QUERY, "size": 2})
    straight = await Client.to(engine.port)
    own = await straight.search("/products/_search", {**QUERY, "size": 2})
    assert ('degraded;stages="rerank";reason=internal_error', own.content) == (
        answered.header("x-rerank"),
        answered.content,
    )
    assert (2, True) == (len(engine.of("lexical")), "ArithmeticError" in log[-1]["detail"])
    straight.close()


async def test_a_response_is_sent_even_if_logging_fails(settings: Config, log: Log) -> None:
    class NoText:
        def __bool__(self) -> bool:
            raise ArithmeticError

    async with AsyncExitStack() as stack:
        proxy = await open_proxy(settings, TOKEN, {}, stack)
        conclude = Telemetry(query_text=NoText()).conclude  # type: ignore[arg-type]
        listener = await serve(proxy.handle, proxy.upstream, "127.0.0.1", 0, conclude=conclude)
        stack.push_async_callback(listener.close, 5)
        client = await Client.to(listener.port)
        stack.callback(client.close)
        for _ in range(2):
            answered = await client.search("/products/_search", QUERY)
            assert ("reranked", ["d", "b", "c", "a"]) == (answered.header("x-rerank"), ids(answered))
    assert {"internal_error"} == {line["event"] for line in log}


async def test_every_request_is_counted_even_if_its_client_disconnects(
    settings: Config, engine: EndpointEngine, log: Log
) -> None:
    """A search whose client leaves is logged and counted like every other one."""
    arrived, left, forever = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def waits(stream: Stream, asked: Message) -> bytes | None:
        arrived.set()
        await forever.wait()
        return None

    async with AsyncExitStack() as stack:
        proxy = await open_proxy(settings, TOKEN, {}, stack)
        counters = proxy.telemetry.counters

        def conclude(record: RequestRecord | None, ended: Ended) -> None:
            proxy.telemetry.conclude(record, ended)
            if ended is Ended.CLIENT_LEFT:
                left.set()

        listener = await serve(proxy.handle, proxy.upstream, "127.0.0.1", 0, conclude=conclude)
        stack.push_async_callback(listener.close, 5)
        client = await Client.to(listener.port)
        await client.search("/products/_search", QUERY)
        await client.ask("GET", "/_cat/indices")
        await client.search("/logs/_search", QUERY)
        await client.ask("POST", "/products/_msearch", lines({}, QUERY, {}, QUERY), content_type="application/x-ndjson")
        engine.faults["lexical"] = waits
        client.writer.write(
            request("POST", "/products/_search", json.dumps(QUERY).encode(), content_type="application/json")
        )
        await arrived.wait()
        client.close()
        await left.wait()
        bad = await Client.to(listener.port)
        bad.writer.write(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
        assert 400 == (await bad.answer()).status
        bad.close()
        forever.set()
    assert {
        ("search", "answered"): 2,
        ("search", "client_left"): 1,
        ("pass_through", "answered"): 2,
        ("pass_through", "refused"): 1,
    } == counters.requests
    assert {("products*", "reranked", ""): 3, ("products*", "cancelled", "client_left"): 1} == counters.searches
    assert ["reranked"] * 3 + ["cancelled"] == [line["outcome"] for line in log if line["event"] == "search"]


async def test_a_bypassed_search_of_a_disconnected_client_is_not_counted_as_answered(
    settings: Config, engine: EndpointEngine, log: Log
) -> None:
    engine.faults["lexical"] = hangs
    ended = asyncio.Queue[Ended]()
    async with AsyncExitStack() as stack:
        proxy = await open_proxy(settings, TOKEN, {}, stack)
        conclude = lambda _, how: ended.put_nowait(how)  # noqa: E731
        listener = await serve(proxy.handle, proxy.upstream, "127.0.0.1", 0, conclude=conclude)
        stack.push_async_callback(listener.close, 5)
        client = await Client.to(listener.port)
        body = json.dumps({**QUERY, "size": 0}).encode()
        await client.send(request("POST", "/products/_search", body, content_type="application/json"))
        await engine.until_asked("lexical")
        client.break_off()
        assert Ended.CLIENT_LEFT == await ended.get()


CIRCUIT = b'{"error":{"type":"circuit_breaking_exception","reason":"too much"},"status":429}'


@pytest.mark.parametrize(
    "target", ["/products/_search", "/products/_search/template", "/products/_async_search?keep_alive=1m"]
)
@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 502, 503])
async def test_an_engine_error_is_relayed_without_a_second_request(
    client: Client, engine: EndpointEngine, log: Log, target: str, status: int
) -> None:
    """A second one would double the work of an overloaded engine."""
    said = b'{"error":{"type":"busy","reason":"told to"},"status":%d}' % status

    async def refuses_with_headers(stream: Stream, request: Message) -> bytes:
        return answer(status, said, ("WWW-Authenticate", "Basic a"), ("WWW-Authenticate", "ApiKey"), ("Warning", "w"))

    engine.faults["lexical" if "_async" not in target else "_async_search"] = refuses_with_headers
    body = {"source": json.dumps(QUERY)} if "template" in target else QUERY
    answered = await client.search(target, body)
    assert (status, said, ["Basic a", "ApiKey"], "w") == (
        answered.status,
        answered.content,
        answered.all("www-authenticate"),
        answered.header("warning"),
    )
    assert "bypassed;reason=engine_refused" == answered.header("x-rerank")
    searches = [sent for sent in engine.requests if sent.path.endswith(("_search", "_search/template"))]
    assert (1, f"engine: status {status}") == (
        len([sent for sent in searches if engine.kind(sent) != "semantic"]),
        log[-1]["detail"],
    )
    assert ("warning" if status >= 500 else "info") == log[-1]["log_level"]


@pytest.mark.parametrize(("status", "said"), [(400, b'{"error":"too wide","status":400}'), (429, CIRCUIT)])
async def test_after_an_error_the_window_may_have_caused_the_clients_request_is_sent(
    client: Client, engine: EndpointEngine, status: int, said: bytes
) -> None:
    async def refuses_the_wide(stream: Stream, request: Message) -> bytes | None:
        return await refuses(status, said)(stream, request) if request.json().get("size") != 1 else None

    engine.faults["lexical"] = refuses_the_wide
    answered = await client.search("/products/_search", {**QUERY, "size": 1})
    assert (200, "bypassed;reason=engine_refused", ["a"], 2) == (
        answered.status,
        answered.header("x-rerank"),
        ids(answered),
        len(engine.of("lexical")),
    )


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("filter_path=took", b'{"error":{"type":"busy"},"status":503}'),
        ("filter_path=took&pretty", b'{\n  "error" : {\n    "type" : "busy"\n  },\n  "status" : 503\n}\n'),
    ],
)
@pytest.mark.parametrize("target", ["/products/_search", "/products/_async_search"])
async def test_a_relayed_error_has_the_requested_format(
    client: Client, engine: EndpointEngine, target: str, form: str, content: bytes
) -> None:
    refused = refuses(503, b'{"error":{"type":"busy"},"status":503}')
    engine.faults = dict.fromkeys(("lexical", "_async_search"), refused)
    answered = await client.search(f"{target}?{form}", QUERY)
    assert (503, content) == (answered.status, answered.content)


@pytest.mark.parametrize("said", [b"", b"Unauthorized", b"<html>"])
async def test_a_relayed_error_need_not_be_json(client: Client, engine: EndpointEngine, said: bytes) -> None:
    """OpenSearch's security plugin answers with a single word."""
    engine.faults["lexical"] = refuses(401, said)
    answered = await client.search("/products/_search?pretty", QUERY)
    assert (401, said) == (answered.status, answered.content)


@pytest.mark.parametrize(
    "fault",
    [breaks_off(), breaks_off(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")],
    ids=["before a byte", "in the middle"],
)
@pytest.mark.parametrize("target", ["/products/_search", "/products/_async_search?keep_alive=1m"])
async def test_a_search_lost_with_its_connection_is_a_502_and_not_repeated(
    client: Client, engine: EndpointEngine, log: Log, fault: Fault, target: str
) -> None:
    kind = "lexical" if "_async" not in target else "_async_search"
    engine.faults[kind] = fault
    answered = await client.search(target, QUERY)
    assert (502, "engine_unreachable", 1) == (
        answered.status,
        answered.json()["error"]["type"],
        len(engine.of(kind)),
    )
    told = [(line["event"], line["log_level"]) for line in log]
    assert "bypassed;reason=engine_refused" == answered.header("x-rerank")
    assert {("search", "warning"), ("engine_unreachable", "error")} == set(told)


async def test_an_unreachable_engine_is_logged_as_a_warning(
    start_proxy: StartProxy, settings: Config, log: Log
) -> None:
    nowhere = msgspec.structs.replace(settings.engine, url=f"http://127.0.0.1:{closed_port()}")
    client = await start_proxy(msgspec.structs.replace(settings, engine=nowhere))
    for target in ("/products/_search", "/products/_msearch", "/products/_async_search"):
        kind = "application/x-ndjson" if "_msearch" in target else "application/json"
        assert 502 == (await client.ask("POST", target, BODIES[target], content_type=kind)).status
    assert ["warning"] * 3 == [line["log_level"] for line in log if line["event"] == "search"]


async def test_removing_options_from_a_large_body_does_not_block() -> None:
    turns, item = 0, b'{"ext":{"rerank_proxy":{}},"size":1}'

    async def turning() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.ensure_future(turning())
    without = await options_removed(b"\n".join([item] * 20_000), is_lines=True)
    other.cancel()
    assert (b"\n".join([b'{"size":1}'] * 20_000), True) == (without, turns > 2)
