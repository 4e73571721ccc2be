"""Each search goes to both addresses with the rights of each; what fails is told apart and said with what to do."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from proxy.commands.evaluation.client import Address, EvaluationStopped, OutOfReach, Sending, ask_both, documents_of
from proxy.commands.evaluation.errors import CannotEvaluate
from proxy.commands.evaluation.outcomes import FailedSearch, Found, Pair, ReportedOutcome
from proxy.errors import Malformed
from tests.fakes import FakeServer, Message, Stream, answer, breaks_off, closed_port, hangs, refuses

TARGET = "/products/_search?routing=a"
KIND = "/products/_search"
SENDING = Sending(TARGET, patience_seconds=0.001)


def hits(*names: str, **more: Any) -> bytes:
    return json.dumps({"hits": {"hits": [{"_id": name, "_source": {}} for name in names]}, **more}).encode()


class FakeSearch(FakeServer):
    """Answers every search with the same hits, as an engine or as a proxy."""

    def __init__(self, content: bytes, outcome: str | None = None) -> None:
        super().__init__()
        self.content = content
        self.outcome = outcome

    def usual(self, request: Message) -> bytes:
        return answer(200, self.content, *([("X-Rerank", self.outcome)] if self.outcome else []))


def searches(count: int) -> Iterator[tuple[str, bytes]]:
    for number in range(count):
        yield f"q{number}", json.dumps({"query": {"match": {"title": f"shoes {number}"}}}).encode()


def addresses(engine: str, proxy: str, *authorization: str) -> tuple[Address, Address]:
    baseline, through = authorization or (None, None)
    return Address("baseline", engine, baseline), Address("proxy", proxy, through)


async def asked(engine: FakeServer, proxy: FakeServer, count: int, sending: Sending = SENDING) -> Mapping[str, Pair]:
    pairs: dict[str, Pair] = {}
    await ask_both(addresses(engine.url, proxy.url), sending, searches(count), count, pairs.__setitem__)
    return pairs


def ignored(query: str, pair: Pair) -> None:
    """Keep nothing."""


async def test_each_search_is_sent_to_both_addresses_unchanged() -> None:
    async with FakeSearch(hits("a", "b", "a")) as engine, FakeSearch(hits("b"), "reranked") as proxy:
        pairs = await asked(engine, proxy, 9)
    assert {f"q{number}" for number in range(9)} == pairs.keys()
    assert set(pairs.values()) == {Pair(Found(("a", "b")), Found(("b",), ReportedOutcome("reranked")))}
    for server in (engine, proxy):
        assert {TARGET} == {request.target for request in server.requests}
        assert sorted(body for _, body in searches(9)) == sorted(request.content for request in server.requests)
        assert {"POST"} == {request.method for request in server.requests}


async def test_each_address_gets_only_its_own_credentials() -> None:
    async with FakeSearch(hits("a")) as engine, FakeSearch(hits("a"), "reranked") as proxy:
        both = addresses(engine.url, proxy.url, "ApiKey one", "Basic two")
        assert "ApiKey one" not in repr(both)
        await ask_both(both, SENDING, searches(2), 2, ignored)
    assert {"ApiKey one"} == {request.header("authorization") for request in engine.requests}
    assert {"Basic two"} == {request.header("authorization") for request in proxy.requests}


async def test_a_redirect_is_not_followed() -> None:
    async with FakeSearch(hits("a")) as elsewhere, FakeSearch(hits("a")) as engine, FakeSearch(hits("a")) as proxy:

        async def moved(stream: Stream, request: Message) -> bytes:
            return answer(307, b"", ("location", elsewhere.url + KIND))

        proxy.faults[KIND] = moved
        with pytest.raises(CannotEvaluate, match="status 307"):
            await asked(engine, proxy, 1)
    assert [] == elsewhere.requests


async def test_concurrency_is_limited_after_a_first_single_search() -> None:
    async with FakeSearch(hits("a")) as engine, FakeSearch(hits("a"), "reranked") as proxy:
        gates = [asyncio.Event(), asyncio.Event()]
        at_once: list[int] = []

        async def hold(stream: Stream, request: Message) -> None:
            at_once.append(at_once[-1] + 1 if at_once else 1)
            await gates[len(engine.requests) > 1].wait()
            at_once.append(at_once[-1] - 1)

        engine.faults[KIND] = hold
        run = asyncio.ensure_future(asked(engine, proxy, 20, Sending(TARGET, concurrency=3)))
        await engine.until_asked(KIND)
        gates[0].set()
        await engine.until_asked(KIND, 4)
        gates[1].set()
        await run
    assert at_once[:2] == [1, 0]
    assert 3 == max(at_once)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (
            400,
            b'{"error":{"root_cause":[{"type":"parsing_exception"}]},"status":400}',
            "status 400, parsing_exception. Correct the template",
        ),
        (
            401,
            b'{"error":{"type":"security_exception"}}',
            "status 401, security_exception. Name the variable .* --authorization-env",
        ),
        (403, b"", "status 403. Use credentials that may search the index"),
        (404, b'{"error":"no handler"}', "status 404. Correct --index"),
        (500, b"[]", "status 500. Send the same search with curl"),
        (400, b'{"error":{"type":"a\\u001b[2J"}}', "status 400. Correct the template"),
        (400, b'{"error":{"type":["a"]}}', "status 400. Correct the template"),
    ],
)
async def test_an_error_of_the_first_search_ends_the_run_with_advice(status: int, body: bytes, said: str) -> None:
    async with FakeSearch(hits("a")) as engine, FakeSearch(hits("a"), "reranked") as proxy:
        engine.faults[KIND] = refuses(status, body)
        with pytest.raises(CannotEvaluate, match=f"{engine.url} failed on the first search: {said}"):
            await asked(engine, proxy, 5)
    assert 1 == len(engine.requests)


async def test_an_unreachable_address_is_named() -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    async with FakeSearch(hits("a")) as engine:
        with pytest.raises(OutOfReach, match=f"{url} cannot be reached: .*Start it, or correct --proxy"):
            await ask_both(addresses(engine.url, url), SENDING, searches(1), 1, ignored)


async def test_results_are_kept_when_a_server_stops_during_the_run() -> None:
    async with FakeSearch(hits("a")) as engine, FakeSearch(hits("a"), "reranked") as proxy:
        pairs: dict[str, Pair] = {}

        async def leave(stream: Stream, request: Message) -> None:
            if len(proxy.requests) > 3:
                await breaks_off()(stream, request)

        proxy.faults[KIND] = leave
        with pytest.raises(OutOfReach):
            await ask_both(
                addresses(engine.url, proxy.url),
                Sending(TARGET, concurrency=1, patience_seconds=0.001),
                searches(9),
                9,
                pairs.__setitem__,
            )
    assert ["q0", "q1", "q2"] == list(pairs)


async def test_a_search_is_retried_when_the_server_is_busy() -> None:
    async with FakeSearch(hits("a")) as engine, FakeSearch(hits("a"), "reranked") as proxy:

        async def busy_once(stream: Stream, request: Message) -> bytes | None:
            return await refuses(429)(stream, request) if len(engine.requests) == 1 else None

        engine.faults[KIND] = busy_once
        pairs = await asked(engine, proxy, 1, Sending(TARGET))
    assert Found(("a",)) == pairs["q0"].baseline
    assert (2, 1) == (len(engine.requests), len(proxy.requests))


async def test_a_later_failure_is_counted_as_failed() -> None:
    async with FakeSearch(hits("a")) as engine, FakeSearch(hits("a"), "reranked") as proxy:

        async def refuse_second(stream: Stream, request: Message) -> bytes | None:
            return (
                await refuses(400, b"{}")(stream, request)
                if request.json() == {"query": {"match": {"title": "shoes 1"}}}
                else None
            )

        engine.faults[KIND] = refuse_second
        pairs = await asked(engine, proxy, 3)
    assert Pair(FailedSearch("status 400"), Found(("a",), ReportedOutcome("reranked"))) == pairs["q1"]
    assert Found(("a",)) == pairs["q2"].baseline


async def test_too_many_failures_end_the_run() -> None:
    async with FakeSearch(hits("a")) as engine, FakeSearch(hits("a"), "reranked") as proxy:

        async def refuse_all_but_the_first(stream: Stream, request: Message) -> bytes | None:
            return await refuses(500)(stream, request) if len(engine.requests) > 1 else None

        engine.faults[KIND] = refuse_all_but_the_first
        with pytest.raises(
            EvaluationStopped, match=r"11 searches failed, the last one by: status 500, busy\. Send the same"
        ) as caught:
            await asked(engine, proxy, 100)
    assert not isinstance(caught.value, OutOfReach)
    assert len(engine.requests) < 20


async def test_a_search_without_response_times_out() -> None:
    async with FakeSearch(hits("a")) as engine, FakeSearch(hits("a"), "reranked") as proxy:
        proxy.faults[KIND] = hangs
        with pytest.raises(CannotEvaluate, match=r"no answer in 0.05 s\. Give it more time with --timeout"):
            await asked(engine, proxy, 1, Sending(TARGET, timeout_seconds=0.05))


def hit(**members: Any) -> bytes:
    return json.dumps({"hits": {"hits": [members]}}).encode()


@pytest.mark.parametrize(
    ("content", "field", "found"),
    [
        (hit(_id="a"), None, "a"),
        (hit(_id="a", _source={"sku": "s-1"}), "sku", "s-1"),
        (hit(_id="a", _source={"sku": 17}), "sku", "17"),
        (hit(_id="a", _source={"product": {"sku": "s-1"}}), "product.sku", "s-1"),
        (hit(_id="a", _source={"product.sku": "s-1"}), "product.sku", "s-1"),
        (hit(_id="a", fields={"product.sku": ["s-1"]}), "product.sku", "s-1"),
    ],
)
def test_a_document_is_identified_by_its_id_or_a_field(content: bytes, field: str | None, found: str) -> None:
    assert (found,) == documents_of(content, field)


@pytest.mark.parametrize(
    ("content", "field", "said"),
    [
        (b"<html>", None, "not a response of _search"),
        (b"{}", None, "not a response of _search"),
        (b'{"hits": {"hits": [1]}}', None, "not a response of _search"),
        (b'{"hits": {"hits": [{"_id": "\xff"}]}}', None, "not a response of _search"),
        (hits("a", timed_out=True), None, "an incomplete response"),
        (hits("a", _shards={"failed": 1}), None, "an incomplete response"),
        (hit(_source={}), None, "a hit has no _id"),
        (hit(_id="a", _source={"sku": None}), "sku", "a hit has no sku"),
        (hit(_id="a", _source={"sku": ["a"]}), "sku", "a hit has no sku"),
        (hit(_id="a"), "sku", "a hit has no sku"),
        (hit(_id="a", fields={"sku": []}), "sku", "a hit has no sku"),
    ],
)
def test_an_unusable_response_is_an_error(content: bytes, field: str | None, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        documents_of(content, field)
