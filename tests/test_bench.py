"""The bench counts what it says: ratios, what had to be waited for, and a picture with a bar for each case."""

import asyncio
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from demo.asking import ask
from tests.bench.__main__ import main, written
from tests.bench.baselines.servers import AIOHTTP, NGINX, OURS, Missing, program
from tests.bench.by_hand import ByHand
from tests.bench.drawing import svg
from tests.bench.measuring import Asked, Figure, Side, by_turns, critical_paths
from tests.bench.passthrough import Cost, Measured, Row, read_wrk
from tests.bench.processes import used_by
from tests.bench.reranked import Site, percentile, proxy_before, stand_ins
from tests.bench.scores import load
from tests.bench.searchers import query_of
from tests.bench.stand_ins import CONTROL, DELAYS_MS, Models
from tests.fakes import FakeServer, Message, Stream, answer

FIGURES = (Figure("a <document>", "one", "ms", 2.0, 3.0, 5), Figure("b", "two", "requests/s", 100.0, 50.0, 1))


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as fake:
        yield fake


def test_a_ratio_compares_the_proxy_with_the_engine() -> None:
    assert [1.5, 0.5] == [figure.ratio for figure in FIGURES]
    assert [1.5, 0.5] == [case["ratio"] for case in written(FIGURES, "engine", 5)["cases"]]


def test_the_picture_has_a_bar_for_each_case_as_long_as_its_ratio() -> None:
    picture = ET.fromstring(svg(FIGURES))  # noqa: S314  made here
    bars = [bar for bar in picture.iter("{http://www.w3.org/2000/svg}rect") if bar.get("class") == "bar"]
    lengths = [float(bar.get("width", "")) for bar in bars]
    assert pytest.approx(3.0, rel=0.01) == lengths[0] / lengths[1]


async def test_each_request_is_sent_to_both_sides(server: FakeServer) -> None:
    sides = [await Side.of(server.url) for _ in range(2)]
    own, made = await by_turns(sides[0], sides[1], [Asked("GET", "/a"), Asked("GET", "/b"), Asked("GET", "/c")])
    assert (3, 3) == (len(own), len(made))
    assert [(2, "/a"), (1, "/a"), (1, "/b"), (2, "/b"), (2, "/c"), (1, "/c")] == [
        (each.connection, each.path) for each in server.requests
    ]
    for side in sides:
        side.close()


@pytest.mark.parametrize(
    ("stages", "waited"),
    [
        ({"lexical": 5, "embed": 3, "semantic": 4, "rerank": 10, "render": 2, "total": 20}, 17),
        ({"lexical": 9, "embed": 3, "semantic": 4, "rerank": 1, "render": 2, "total": 12}, 11),
        ({"lexical": 9, "total": 10}, 9),
    ],
)
async def test_the_unavoidable_time_is_the_longest_path_through_the_stages(
    stages: Mapping[str, float], waited: float, server: FakeServer
) -> None:
    async def script(stream: Stream) -> None:
        while await stream.request():
            timing = ", ".join(f"{name};dur={spent}" for name, spent in stages.items())
            await stream.send(answer(200, b"{}", ("Server-Timing", timing)))

    server.script = script
    side = await Side.of(server.url)
    assert ([waited], [stages["total"]]) == await critical_paths(side, [Asked("POST", "/_search", b"{}")])
    side.close()


async def test_an_unexpected_response_stops_the_benchmark(server: FakeServer) -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        await stream.send(answer(503, b"busy", reason="Busy"))

    server.script = script
    side = await Side.of(server.url)
    with pytest.raises(ValueError, match="GET /a: 503 b'busy'"):
        await side.ask(Asked("GET", "/a"))
    side.close()


def test_without_an_engine_the_benchmark_says_how_to_start_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("REAL_ENGINE_URL", raising=False)
    assert 2 == main([])
    assert "run `make bench`" in capsys.readouterr().err


# a reranked search


def test_the_hand_made_search_finds_what_the_proxy_finds(tmp_path: Path) -> None:
    """Their costs can be compared only if hits, engine searches and model calls are the same."""
    with stand_ins(tmp_path) as (site, _), proxy_before(site, tmp_path, 50) as proxy:
        calls = [_calls(site)]
        reply = ask(f"{proxy.url}/{site.index}/_search", {"query": query_of("camera")})
        calls.append(_calls(site))
        by_hand = asyncio.run(_by_hand(site))
        calls.append(_calls(site))
    assert "reranked" == reply.headers["X-Rerank"]
    assert [hit["_id"] for hit in by_hand] == [hit["_id"] for hit in reply.body["hits"]["hits"]]
    assert [hit["_source"] for hit in by_hand] == [hit["_source"] for hit in reply.body["hits"]["hits"]]
    expected = dict.fromkeys(DELAYS_MS, 1)
    assert [expected, expected] == [dict(after - before) for before, after in pairwise(calls)]


async def _by_hand(site: Site) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as session:
        return await ByHand(session, site.shop(50)).search("camera", query_of("camera"))


def _calls(site: Site) -> Counter[str]:
    counted = Counter[str]()
    for url in (site.engine, site.models):
        counted.update(ask(f"{url}{CONTROL}").body)
    return Counter({kind: counted[kind] for kind in (*DELAYS_MS, "stalled")})


def test_stalling_calls_are_spread_evenly() -> None:
    models = Models()
    models.stalled = 0.05
    asked = Message(b"POST /v1/openai/embeddings HTTP/1.1", b'{"dimensions":8}')
    assert [20, 40, 60] == [number for number in range(1, 61) if models.respond(asked) is None]


def test_a_percentile_is_a_measured_value() -> None:
    assert [95, 99, 7] == [percentile(range(100), 95), percentile(range(100), 99), percentile([7], 99)]


# passing through

WRK = """Running 2s test @ http://127.0.0.1:9201/products/_doc/1
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.55ms  369.71us   7.43ms   88.34%
    Req/Sec    10.28k   817.29    11.50k    80.00%
  Latency Distribution
     50%    1.45ms
     75%    1.61ms
     90%    1.87ms
     99%    3.02ms
  20000 requests in 2.00s, 26.41MB read
Requests/sec:  10000.50
Transfer/sec:     13.20MB
"""


def test_cpu_is_counted_over_the_requests_that_wrk_counts() -> None:
    assert Cost(cpu_us=50.0, rate=10000.5, p99_ms=3.02) == read_wrk(WRK, 1.0)
    assert 0.85 == read_wrk(WRK.replace("3.02ms", "850.00us"), 1.0).p99_ms


@pytest.mark.parametrize(
    "failed",
    ["Non-2xx or 3xx responses: 3", "Socket errors: connect 0, read 7, write 0, timeout 0"],
)
def test_failed_requests_are_not_measured(failed: str) -> None:
    with pytest.raises(ValueError, match=failed[:12]):
        read_wrk(f"{WRK}  {failed}\n", 1.0)


def test_a_row_is_compared_by_cpu() -> None:
    costs = {OURS: Cost(30.0, 1.0, 1.0), NGINX: Cost(15.0, 1.0, 1.0), AIOHTTP: Cost(120.0, 1.0, 1.0)}
    (row,) = Measured([Row("1 KB", costs)], {}).plain()["rows"]
    assert {NGINX: 2.0, AIOHTTP: 0.25} == row["ratios"]
    assert 0.25 == Row("1 KB", costs).figure().ratio


async def test_cpu_use_includes_all_processes_of_a_server() -> None:
    """nginx does its work in a child process."""
    child = "import sys; held = bytearray(64 << 20); sum(range(10**7)); print('done', flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", parent, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert b"done" == await process.stdout.readexactly(4)
    used = used_by(process.pid)
    process.stdin.close()
    assert 0 == await process.wait()
    assert used.resident_bytes > 64 << 20
    assert used.cpu_seconds > 0


def test_a_missing_program_is_an_error_with_its_installation() -> None:
    with pytest.raises(Missing, match="apt install no-such-program"):
        program("no-such-program")


async def test_repeated_queries_of_a_shop_send_no_pair_twice() -> None:
    found = await load(400)
    assert (0, 0, 0) == (found.repeated_pairs, found.wrong, found.evictions)
    assert (200, 200) == (found.head.searches, found.tail.searches)
    assert found.head.share > found.tail.share > 0
