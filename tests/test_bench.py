"""The bench counts what it says: ratios, what had to be waited for, and a picture with a bar for each case."""

import json
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Mapping

import pytest

from tests.bench.__main__ import main, written
from tests.bench.drawing import svg
from tests.bench.measuring import Asked, Figure, Side, by_turns, critical_paths
from tests.fakes import FakeServer, Stream, answer

FIGURES = (Figure("a <document>", "one", "ms", 2.0, 3.0, 5), Figure("b", "two", "requests/s", 100.0, 50.0, 1))


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    async with FakeServer() as fake:
        yield fake


def test_a_ratio_is_through_against_straight() -> None:
    assert [1.5, 0.5] == [figure.ratio for figure in FIGURES]
    assert [1.5, 0.5] == [case["ratio"] for case in json.loads(written(FIGURES, "engine", 5))["cases"]]


def test_the_picture_has_a_bar_for_each_case_as_long_as_its_ratio() -> None:
    picture = ET.fromstring(svg(FIGURES))  # noqa: S314  made here
    bars = [bar for bar in picture.iter("{http://www.w3.org/2000/svg}rect") if bar.get("class") == "bar"]
    lengths = [float(bar.get("width", "")) for bar in bars]
    assert pytest.approx(3.0, rel=0.01) == lengths[0] / lengths[1]


async def test_both_sides_are_asked_each_question(server: FakeServer) -> None:
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
async def test_what_had_to_be_waited_for_is_the_longest_way_through_the_stages(
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


async def test_an_answer_that_is_no_answer_ends_the_bench(server: FakeServer) -> None:
    async def script(stream: Stream) -> None:
        await stream.request()
        await stream.send(answer(503, b"busy", reason="Busy"))

    server.script = script
    side = await Side.of(server.url)
    with pytest.raises(ValueError, match="GET /a: 503 b'busy'"):
        await side.ask(Asked("GET", "/a"))
    side.close()


def test_without_an_engine_the_way_to_one_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("REAL_ENGINE_URL", raising=False)
    assert 2 == main([])
    assert "run `make bench`" in capsys.readouterr().err
