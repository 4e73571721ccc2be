"""Whatever is asked: the engine's own answer, or its documents in another order, each once; never a 5xx made here.

Minutes of it in every run of the tests, which asks the same each time, so that what fails is the change; an hour of
something else each time with `HYPOTHESIS_PROFILE=deep`.
"""

import asyncio
import http.client
import io
import json
import logging
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import HealthCheck, Phase, assume, event, example, given, settings
from hypothesis import strategies as st

from proxy.settings.request_options import MEMBER
from tests.conftest import Log
from tests.integration import wild
from tests.integration.comparing import but_score, comparable, without_outcome
from tests.integration.conftest import Open, Shop, Sides
from tests.integration.engines import WITH_KNN
from tests.integration.sending import Reply, Request, send
from tests.integration.wild import Raw, fill, search_request

pytestmark = [pytest.mark.engine, WITH_KNN, pytest.mark.timeout(2 * 3600)]
# A request costs milliseconds: more of them than of other properties' examples, an hour's in all of the deep ones.
# A failing example is shrunk for five minutes at most; to explain it on top of that would cost more than it tells.
shared = settings(
    max_examples=4 * settings().max_examples,
    suppress_health_check=list(HealthCheck),
    phases=[phase for phase in Phase if phase is not Phase.explain],
    print_blob=True,
)

WINDOW = 8
ALL = 200
_OWN = {"embedding", "embedding_hash"}
"""What the proxy keeps in the index and shows nobody."""


@pytest.fixture
async def sides(open_sides: Open) -> Sides:
    return await open_sides(rank_window_size=WINDOW)


@pytest.fixture
def no_defect(log: Log, caplog: pytest.LogCaptureFixture) -> "Defects":
    return Defects(log, caplog)


class Defects:
    """What the proxy and asyncio have logged that must never happen."""

    def __init__(self, log: Log, caplog: pytest.LogCaptureFixture) -> None:
        self._log, self._caplog = log, caplog

    def check(self) -> None:
        """Demand that nothing of it happened since the last time."""
        defects = [event for event in self._log if event["event"] == "internal_error"]
        defects += [record.getMessage() for record in self._caplog.records if record.levelno >= logging.ERROR]
        self._log.clear()
        self._caplog.clear()
        assert [] == defects


# what changes from one answer of the engine to the next
_VARYING = [
    (re.compile(rb'"_scroll_id"\s*:\s*"[^"]*"'), b""),
    (re.compile(rb'"stack_trace"\s*:\s*"(\\.|[^"\\])*"'), b""),
    (re.compile(rb'("profile"\s*:\s*\{|^profile: ?\n).*', re.DOTALL | re.MULTILINE), b""),
    (re.compile(rb'"phase_took"\s*:\s*\{[^}]*\}'), b""),
    (re.compile(rb'"?(took|took_in_millis)"?\s*:\s*\d+'), b"took"),
    (re.compile(rb"\[?_?scroll_id[^\n]*"), b""),
]

# A body is compared out of its compression; OpenSearch warns of what is deprecated the first time alone.
_SAID_ONCE = frozenset({"content-encoding", "warning"})


def _what_failed(body: bytes) -> bytes:
    """What failed of a search, without where, how often, and whether everywhere.

    Elasticsearch breaks a search off that must be whole, and tells of the shards that happen to have failed by then.
    """
    try:
        error = json.loads(body)["error"]
        failures = [*error["root_cause"], *(shard["reason"] for shard in error["failed_shards"])]
    except (ValueError, KeyError, TypeError):
        return body
    for failure in failures:
        failure.pop("index", None)
        failure.pop("index_uuid", None)
    return "\n".join([error["type"], *sorted({json.dumps(failure, sort_keys=True) for failure in failures})]).encode()


def steady(reply: Reply) -> tuple[object, ...]:
    """Everything of an answer that is the same each time."""
    body = _what_failed(reply.content)
    for pattern, instead in _VARYING:
        body = pattern.sub(instead, body)
    fields = [(name, value) for name, value in reply.fields if name.lower() not in _SAID_ONCE]
    return comparable(replace(reply, fields=fields, body=body))


def assert_same(straight: Reply, through: Reply) -> None:
    assert steady(straight) == steady(without_outcome(through))


async def both(sides: Sides, request: Request) -> tuple[Reply, Reply]:
    straight, through = await asyncio.gather(send(sides.straight.url, request), send(sides.through.url, request))
    return straight, through


# one search


def _key(hit: Any) -> tuple[str, str, str]:
    return hit["_index"], hit["_id"], hit.get("_routing", "")


def _own(hit: Any) -> Any:
    """A hit as the engine gives it, but for its score and what the proxy keeps in the index for itself."""
    kept = but_score(hit)
    if isinstance(kept.get("_source"), dict):
        kept["_source"] = {name: value for name, value in kept["_source"].items() if name not in _OWN}
    return kept


def _without_pages(request: Request, size: int, first: int = 0) -> Request:
    """Ask for another page of the same search, and for all there is to see of its hits."""
    path, _, query = request.target.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    kept = [pair for pair in pairs if pair[0] not in {"from", "size", "filter_path", "source", "source_content_type"}]
    body = json.loads(request.body or dict(pairs).get("source") or "{}") | {"from": first, "size": size}
    return replace(request, target=f"{path}?{urlencode(kept)}", body=json.dumps(body).encode())


async def assert_search(sides: Sides, request: Request, plain: Request | None = None) -> None:
    """Hold an answer against the engine's own; `plain` is the same search without steering."""
    plain = plain or request
    straight, through = await send(sides.straight.url, plain), await send(sides.through.url, request)
    event(f"{through.status} {through.outcome}")
    if not through.outcome.startswith(("reranked", "degraded")):
        assert "internal_error" not in through.outcome
        assert_same(straight, through)
        return
    assert (200, 200) == (straight.status, through.status), straight.content
    await assert_reranked(sides, request, plain, through)


async def assert_reranked(sides: Sides, request: Request, plain: Request, through: Reply) -> None:
    """Each document once, as the engine shows it, under a falling score; nothing lost, and the total says so."""
    own = await send(sides.straight.url, _without_pages(plain, ALL))
    whole = await send(sides.through.url, _without_pages(request, ALL))
    if own.status != 200 or own.json["_shards"]["failed"]:  # a page that shows nothing hides that hits cannot be shown
        assert whole.outcome.startswith("bypassed")
        assert_same(own, whole)
        return
    assert whole.outcome.startswith(("reranked", "degraded")), (whole.outcome, whole.content)
    by_key = {_key(hit): _own(hit) for hit in own.hits}
    shown = {_key(hit): _own(hit) for hit in whole.hits}
    for hit in (*by_key.values(), *shown.values()):
        hit.pop("_rerank", None)
        hit.pop("sort", None)  # its score's place is the ranking's, as test_walks.py has it
    scores = [hit["_score"] for hit in whole.hits]
    assert len(shown) == len(whole.hits)
    assert by_key == {key: hit for key, hit in shown.items() if key in by_key}
    assert sorted(scores, reverse=True) == scores or "price:asc,_score" in request.target  # groups have their own
    assert all(score >= 0 for score in scores)
    assert_total(own, whole, len(shown.keys() - by_key.keys()))
    # A synthetic source is made of what is indexed, in another shape than what was sent.
    if not re.search("force_synthetic_source(?!=false)", request.target):
        await assert_sources(sides, [hit for key, hit in shown.items() if key not in by_key])
    assert_page(request, whole, through)


def assert_total(own: Reply, whole: Reply, extras: int) -> None:
    straight, through = own.total, whole.total
    if isinstance(straight, dict):
        straight, through = (straight["value"], straight["relation"]), (through["value"], through["relation"])
        assert (straight[0] + extras, straight[1]) == through
    elif straight in {None, -1}:
        assert straight == through
    else:
        assert straight + extras == through


async def assert_sources(sides: Sides, extras: Sequence[Any]) -> None:
    """What kNN alone found shows of `_source` what the document holds."""
    for hit in extras:
        if not isinstance(hit.get("_source"), dict):
            continue
        stored = await send(sides.straight.url, Request("GET", f"/{hit['_index']}/_source/{hit['_id']}", headers={}))
        assert hit["_source"].items() <= stored.json.items()


def assert_page(request: Request, whole: Reply, through: Reply) -> None:
    """The page that was asked for is that cut of the whole."""
    url = dict(parse_qsl(request.target.partition("?")[2], keep_blank_values=True))
    if "filter_path" in url or {"reranked"} != {whole.outcome, through.outcome}:  # what is left out is a matter of time
        return
    body = json.loads(request.body or url.get("source") or "{}")
    first, size = (int(url.get(name, body.get(name, default))) for name, default in (("from", 0), ("size", 10)))
    assert list(map(_unexplained, whole.hits[first : first + size])) == list(map(_unexplained, through.hits))
    assert whole.total == through.total


def _unexplained(hit: Any) -> Any:
    """A hit without the explanation, which names the documents that are rendered along with it."""
    return {name: value for name, value in hit.items() if name != "_explanation"}


_BEHIND_WHAT_CANNOT_BE_SHOWN = b'{"from": 12, "docvalue_fields": ["title"], "query": {"match": {"title": "laptop"}}}'


@given(names=wild.names, content=wild.contents, query_string=wild.query_strings)
@example(names="{0.index},{0.second}", content=_BEHIND_WHAT_CANNOT_BE_SHOWN, query_string="")
@example(names="{0.index}", content=b'{"query": {"match": {"title": "laptop"}}}', query_string="pretty=yes")
@shared
async def test_any_search_gets_the_engines_response_or_its_documents_reordered(
    *, names: str, content: bytes, query_string: str, sides: Sides, shop: Shop, no_defect: Defects
) -> None:
    """Byte for byte, or the same documents in another order."""
    target = f"/{names.format(shop)}/_search"
    await assert_search(sides, search_request(target, query_string, content))
    no_defect.check()


_understood = st.builds(
    lambda query, more: {"query": query, **more},
    wild.queries,
    st.fixed_dictionaries({}, optional={"post_filter": wild.FILTERS, "track_total_hits": st.sampled_from([True, 5])}),
)


_NAMED_TWICE = {
    "query": {
        "bool": {
            "must": {"match": {"title": "-acme camera"}},
            "should": {"bool": {"must": {"match": {"title": "laptop"}}, "_name": "named"}},
            "_name": "named",
        }
    }
}


@given(body=_understood, sizes=st.lists(st.integers(1, 12), min_size=1, max_size=20), names=wild.names)
@example(body=_NAMED_TWICE, sizes=[1, 2], names="{0.index}")
@shared
async def test_pages_of_any_size_add_up_to_the_whole(
    *, body: Mapping[str, Any], sizes: Sequence[int], names: str, sides: Sides, shop: Shop, no_defect: Defects
) -> None:
    """Each document is on one page."""
    target = f"/{names.format(shop)}/_search"
    whole = await send(sides.through.url, search_request(target, "", wild.written({**body, "size": ALL})))
    assume(whole.outcome.startswith("reranked"))
    found: list[Any] = []
    for size in sizes:
        page = {**body, "from": len(found), "size": size}
        through = await send(sides.through.url, search_request(target, "", wild.written(page)))
        assert (whole.total, whole.hits[len(found) : len(found) + size]) == (through.total, through.hits)
        found += through.hits
    no_defect.check()


# steering


@given(body=wild.steered_bodies, headers=wild.steering_headers, names=wild.names)
@shared
async def test_any_per_request_option_is_applied_or_rejected(
    *,
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    names: str,
    sides: Sides,
    shop: Shop,
    no_defect: Defects,
) -> None:
    """None reaches the engine."""
    target = f"/{names.format(shop)}/_search"
    request = search_request(target, "", wild.written(body), headers)
    through = await send(sides.through.url, request)
    no_defect.check()
    if through.outcome == "bypassed;reason=steering":
        assert (400, "illegal_argument_exception") == (through.status, through.json["error"]["type"])
        return
    covered = through.outcome != ""  # if no route is meant, what it says of its reranking is not looked at
    left = {key: value for key, value in body["ext"].items() if key != MEMBER}
    unsteered = {key: value for key, value in body.items() if key != "ext"} if not left else {**body, "ext": left}
    plain = search_request(target, "", wild.written(unsteered if covered else body))
    await assert_search(sides, request, plain)


# multi-searches


def _responses(reply: Reply) -> list[Any]:
    answers: list[Any] = reply.json["responses"]
    return [{key: value for key, value in each.items() if key not in {"took", "profile"}} for each in answers]


@given(content=wild.multi_contents, names=wild.names, query_string=wild.multi_query_strings)
@shared
async def test_any_multi_search_item_is_the_engines_or_reordered(
    *, content: bytes, names: str, query_string: str, sides: Sides, shop: Shop, no_defect: Defects
) -> None:
    """However its lines are written."""
    filled = fill(content, shop)
    request = search_request(
        f"/{names.format(shop)}/_msearch", query_string, filled, {"Content-Type": "application/x-ndjson"}
    )
    straight, through = await both(sides, request)
    no_defect.check()
    outcomes = through.outcome.split(", ")
    event(f"{through.status} {sorted(set(outcomes))}")
    if MEMBER.encode() in filled and through.outcome:
        assert b"engine_unreachable" not in through.content  # the one 5xx that is made here; engines have others
    elif not any(outcome.startswith(("reranked", "degraded", "bypassed;reason=steering")) for outcome in outcomes):
        assert_same(straight, through)
    else:
        assert (200, 200) == (straight.status, through.status)
        if "filter_path" not in query_string:
            assert_items(straight, through, outcomes)


def assert_items(straight: Reply, through: Reply, outcomes: Iterable[str]) -> None:
    for own, made, outcome in zip(_responses(straight), _responses(through), outcomes, strict=True):
        if not outcome.startswith(("reranked", "degraded")):
            assert own == made
            continue
        assert 200 == own["status"] == made["status"]
        assert len(made["hits"]["hits"]) == len({_key(hit) for hit in made["hits"]["hits"]})
        assert len(own["hits"]["hits"]) <= len(made["hits"]["hits"])


# raw requests

_OUT_OF_STEP = frozenset({400, 408, 413, 414, 417, 431, 501})
"""After an answer like this a server may read no more."""


class _Stream(io.BytesIO):
    """What came by a connection, for `http.client` to read answers from, one after the other."""

    def makefile(self, _: str) -> "_Stream":
        return self

    def close(self) -> None:
        """Stay open for the next answer."""


class _Unfinished(Exception):
    """The answer is not whole yet."""


def _read_answers(received: bytes, methods: Sequence[str]) -> list[Reply]:
    """Read the whole answers among what came."""
    stream, replies = _Stream(received), []
    for method in methods:
        if stream.tell() == len(received):
            break
        response = http.client.HTTPResponse(stream, method=method)  # type: ignore[arg-type]  # it needs makefile alone
        try:
            response.begin()
            replies.append(Reply(response.status, response.reason, response.getheaders(), response.read()))
        except (http.client.HTTPException, ValueError):
            break
        if response.status in _OUT_OF_STEP:
            break
    return replies


def _exchange(url: str, sent: bytes, methods: Sequence[str]) -> list[Reply]:
    """Send bytes on a connection of their own, and read until all is answered or the server ends it."""
    parts = urlsplit(url)
    received = b""
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=120) as connection:
        with suppress(ConnectionError):  # a server that refuses a head may close before it has all of a body
            connection.sendall(sent)
        while piece := _received(connection):
            received += piece
            replies = _read_answers(received, methods)
            if len(replies) == len(methods) or (replies and replies[-1].status in _OUT_OF_STEP):
                break
    return _read_answers(received, methods)


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(2**16)
    except ConnectionError:
        return b""


def _leave(url: str, sent: bytes) -> bytes:
    """Send bytes, say that no more will come, and return what is said until the other end closes."""
    parts = urlsplit(url)
    received = b""
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=120) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            return received
        while piece := _received(connection):
            received += piece
    return received


def _is_own_refusal(reply: Reply) -> bool:
    return b"bad_http_message" in reply.body and reply.header("Connection") == "close"


async def assert_serves(sides: Sides, shop: Shop) -> None:
    """The next request, on a connection of its own, is answered."""
    straight, through = await both(sides, Request("GET", f"/{shop.index}/_count", headers={}))
    assert comparable(straight) == comparable(through)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"})
"""Those that engines know; on another one OpenSearch breaks the connection off."""


def assert_all_answered(methods: Sequence[str], straight: Sequence[Reply], through: Sequence[Reply]) -> None:
    """As many answers on both sides, as far as anybody reads on.

    An engine that refuses a head reads no more, and what it said of that may be lost with the connection, as answers
    before that may be.
    """
    if len(straight) == len(through) or (through and through[-1].status in _OUT_OF_STEP):
        return
    if len(straight) > len(through):
        assert straight[len(through)].status in _OUT_OF_STEP
    else:
        broken_off = not _METHODS.issuperset(methods[len(straight) :])
        assert broken_off or any(b"engine_unreachable" in reply.body for reply in through[len(straight) :])


@given(requests=wild.pipelines)
@shared
async def test_any_raw_request_gets_the_engines_response_or_is_rejected(
    *, requests: Sequence[Raw], sides: Sides, shop: Shop, no_defect: Defects
) -> None:
    """Requests of any method, head and framing, one after the other on a connection."""
    methods = [request.method for request in requests]
    sent = b"".join(request.wire(last=request is requests[-1]) for request in requests)
    urls = sides.straight.url, sides.through.url
    straight, through = await asyncio.gather(
        *(asyncio.to_thread(_exchange, url, fill(sent, shop), methods) for url in urls)
    )
    no_defect.check()
    for request, own, made in zip(requests, straight, through, strict=False):
        if _is_own_refusal(made):
            break
        if "steering" in made.outcome:  # each item of a multi-search has a status of its own
            assert ("_msearch" in request.target and 200 == own.status == made.status) or 400 == made.status
        elif re.search("reranked|degraded", made.outcome) or request.target.startswith("*"):
            assert own.status == made.status  # `*` are all indices there are, also those that come and go meanwhile
        else:
            assert_same(own, made)
    event(f"{[reply.status for reply in through]}")
    assert_all_answered(methods, straight, through)
    await assert_serves(sides, shop)


@given(noise=wild.noise)
@shared
async def test_malformed_bytes_do_not_affect_other_requests(
    *, noise: bytes, sides: Sides, shop: Shop, no_defect: Defects
) -> None:
    """No 5xx, no exception, and the next request is served."""
    received = await asyncio.to_thread(_leave, sides.through.url, fill(noise, shop))
    assert not re.search(rb"^HTTP/1\.1 50[0234]", received, re.MULTILINE)
    no_defect.check()
    await assert_serves(sides, shop)
