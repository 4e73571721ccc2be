"""Which searches of a route are reranked while reranking is turned on by steps: by its mode, and by its share."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.app import open_proxy
from proxy.http1.callers import Field
from proxy.http1.listener import serve
from proxy.outcomes import BYPASS_REASONS, Bypass
from proxy.settings.config import Config, Mode, RouteSettings, ShareBy
from proxy.settings.request_options import Steering
from proxy.settings.rollout import Rollout, Switches, rollout_of
from tests.conftest import OTHER, QUERY, TOKEN, Log, StartProxy
from tests.endpoint_engine import DOCUMENTS, EndpointEngine, lines
from tests.fakes import Client, FakeEngine, FakeModels, ids

RERANKED, LEXICAL = ["d", "b", "c", "a"], ["a", "b", "c"]
SENDERS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=',;="'), min_size=1)
ASKS = Steering(enabled=True)
SHARES = st.floats(0, 1)


@pytest.fixture
async def engine() -> AsyncIterator[EndpointEngine]:
    async with EndpointEngine(DOCUMENTS) as server:
        yield server


def with_route(settings: Config, **changes: Any) -> Config:
    return msgspec.structs.replace(settings, routes=(msgspec.structs.replace(settings.routes[0], **changes),))


# The decision


@pytest.mark.parametrize(
    ("mode", "options", "expected"),
    [
        ("on", Steering(), None),
        ("shadow", Steering(), None),
        ("opt_in", Steering(), "opt_in"),
        ("opt_in", ASKS, None),
        ("off", Steering(), "route_off"),
        ("off", ASKS, "route_off"),
    ],
)
def test_a_mode_selects_the_searches_left_to_the_engine(mode: Mode, options: Steering, expected: str | None) -> None:
    assert (Bypass(expected) if expected else None) == Rollout(mode).bypass(options, ())


@pytest.mark.parametrize("reason", ["opt_in", "route_off", "share", "shadow", "switched_off"])
def test_every_reason_is_in_the_table(reason: str) -> None:
    assert reason in BYPASS_REASONS


def by_sender(share: float, fields: list[Field], **place: bytes) -> Bypass | None:
    return Rollout("on", share, **place).bypass(Steering(), fields)


@given(SENDERS, SHARES, SHARES)
def test_a_growing_share_keeps_its_senders(sender: str, one: float, other: float) -> None:
    fields = [(b"X-User", sender.encode())]
    smaller, larger = (by_sender(share, fields, header=b"x-user") for share in sorted((one, other)))
    assert larger is None or smaller == Bypass("share")


@given(SENDERS)
def test_a_share_of_0_has_no_sender_and_one_of_1_has_all(sender: str) -> None:
    fields = [(b"cookie", f"a=b; sid={sender}; c=d".encode())]
    assert [Bypass("share"), None] == [by_sender(share, fields, cookie=b"sid") for share in (0.0, 1.0)]


def test_a_share_has_about_the_configured_size() -> None:
    inside = sum(by_sender(0.05, [(b"x-user", b"%d" % number)], header=b"x-user") is None for number in range(10_000))
    assert 400 < inside < 600


@given(SENDERS, st.text(), st.text(), SHARES)
def test_a_sender_stays_on_one_side_whatever_the_query(sender: str, one: str, other: str, share: float) -> None:
    rollout = Rollout("on", share, header=b"x-user")
    fields = [(b"x-user", sender.encode())]
    assert rollout.bypass_by_text(Steering(), fields, "r", one) == rollout.bypass_by_text(
        Steering(), fields, "r", other
    )


@given(st.text(), SHARES)
def test_without_a_sender_the_normalised_text_decides(text: str, share: float) -> None:
    rollout = Rollout("on", share, header=b"x-user", cookie=b"sid")
    fields = [(b"x-other", b"1"), (b"cookie", b"side=1")]
    assert rollout.bypass(Steering(), fields) is None
    spelled = [rollout.bypass_by_text(Steering(), fields, "r", each) for each in (text, f"  {text.casefold()} ")]
    assert spelled[0] == spelled[1]


def test_the_texts_of_a_share_differ_by_route() -> None:
    sides = [
        [Rollout("on", 0.5).bypass_by_text(Steering(), (), route, f"text {number}") is None for number in range(1000)]
        for route in ("one", "other")
    ]
    assert all(400 < sum(side) < 600 for side in sides)
    assert sides[0] != sides[1]


@given(SENDERS, st.text())
def test_a_request_with_enabled_true_is_in_every_share(sender: str, text: str) -> None:
    rollout, fields = Rollout("on", 0.0, header=b"x-user"), [(b"x-user", sender.encode())]
    assert rollout.bypass(ASKS, fields) is rollout.bypass_by_text(ASKS, (), "r", text) is None


@pytest.mark.parametrize(
    ("header", "sender"),
    [
        (b"sid=5", b"5"),
        (b"a=1;sid=5 ; b", b"5"),
        (b'sid="5"', b'"5"'),
        (b"sid=a=b", b"a=b"),
        (b"SID=5", b""),
        (b"sid=", b""),
        (b"xsid=5", b""),
        (b"sid", b""),
    ],
)
def test_a_cookie_is_found_by_its_name(header: bytes, sender: bytes) -> None:
    assert sender == Rollout(cookie=b"sid").sender([(b"Cookie", header)])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Rollout()),
        ({"mode": True}, Rollout("on")),
        ({"mode": False}, Rollout("off")),
        ({"mode": "shadow", "share": "2.5%"}, Rollout("shadow", 0.025)),
        (
            {"share": "0%", "share_by": ShareBy(header="X-User", cookie="sid")},
            Rollout(share=0.0, header=b"x-user", cookie=b"sid"),
        ),
    ],
)
def test_a_route_sets_its_rollout(settings: Any, expected: Rollout) -> None:
    """YAML 1.1 takes the words `on` and `off` for booleans."""
    assert expected == rollout_of(RouteSettings(index="a", **settings))


# The same through a proxy


@pytest.mark.parametrize(
    ("changes", "fields", "outcome"),
    [
        ({"mode": "off"}, {}, "bypassed;reason=route_off"),
        ({"mode": "off"}, {"x_rerank_enabled": "on"}, "bypassed;reason=route_off"),
        ({"mode": "off"}, {"x_rerank_enabled": "off"}, "bypassed;reason=steered_off"),
        ({"mode": "opt_in"}, {}, "bypassed;reason=opt_in"),
        ({"mode": "opt_in"}, {"x_rerank_enabled": "on"}, "reranked"),
        ({"mode": "opt_in"}, {"x_rerank_enabled": "off"}, "bypassed;reason=steered_off"),
        ({"share": "0%"}, {}, "bypassed;reason=share"),
        ({"share": "0%"}, {"x_rerank_enabled": "on"}, "reranked"),
        ({"share": "100%"}, {}, "reranked"),
        ({"share": "0%", "share_by": ShareBy(header="X-User")}, {"x_user": "5"}, "bypassed;reason=share"),
    ],
)
async def test_searches_outside_the_share_are_passed_through(
    start_proxy: StartProxy,
    settings: Config,
    engine: EndpointEngine,
    models: FakeModels,
    changes: Any,
    fields: dict[str, str],
    outcome: str,
) -> None:
    client = await start_proxy(with_route(settings, **changes))
    answered = await client.search("/products/_search", QUERY, **fields)
    assert (outcome, RERANKED if outcome == "reranked" else LEXICAL) == (answered.header("x-rerank"), ids(answered))
    if outcome != "reranked":
        assert (QUERY, []) == (engine.requests[-1].json(), models.requests)
        assert engine.usual(engine.requests[-1]).endswith(answered.content)


async def outcomes_of(client: Client, *searches: dict[str, Any]) -> list[str]:
    return [(await client.search("/products/_search", each)).header("x-rerank") for each in searches]


async def test_all_pages_of_a_text_stay_on_one_side(start_proxy: StartProxy, settings: Config) -> None:
    client = await start_proxy(with_route(settings, share="50%"))
    sides = set()
    for number in range(12):
        text = {"query": {"match": {"title": f"laptop {'x' * number}"}}}
        pages = await outcomes_of(client, text, {**text, "from": 1}, {**text, "size": 1})
        assert 1 == len(set(pages)), pages
        sides |= set(pages)
    assert {"reranked", "bypassed;reason=share"} == sides


async def test_the_sender_reaches_neither_models_nor_the_log(
    start_proxy: StartProxy, settings: Config, models: FakeModels, log: Log
) -> None:
    client = await start_proxy(with_route(settings, share="99.999%", share_by=ShareBy(header="X-User")))
    answered = await client.search("/products/_search", QUERY, x_user="alice-7331")
    assert "reranked" == answered.header("x-rerank")
    seen = str(log) + "".join(f"{sent.head!r}{sent.content!r}" for sent in models.requests)
    assert "alice" not in seen


async def test_items_of_a_multi_search_are_rolled_out_separately(start_proxy: StartProxy, settings: Config) -> None:
    route = settings.routes[0]
    off = RouteSettings(index="logs", passage=["title"], mode="off")
    client = await start_proxy(msgspec.structs.replace(settings, routes=(route, off)))
    body = lines({"index": "products"}, QUERY, {"index": "logs"}, QUERY)
    answered = await client.ask("POST", "/_msearch", body, content_type="application/x-ndjson")
    assert "reranked, bypassed;reason=route_off" == answered.header("x-rerank")


@pytest.fixture
async def switched(settings: Config, log: Log) -> AsyncIterator[tuple[Switches, Client]]:
    """The switches of a proxy, and a client of it."""
    async with AsyncExitStack() as stack:
        proxy = await open_proxy(settings, TOKEN, {}, stack)
        listener = await serve(proxy.handle, proxy.upstream, "127.0.0.1", 0, conclude=proxy.telemetry.conclude)
        stack.push_async_callback(listener.close, 5)
        client = await Client.to(listener.port)
        stack.callback(client.close)
        yield proxy.fixed.switches, client


@pytest.mark.parametrize("target", ["/products/_search", "/products/_msearch", "/products/_async_search"])
async def test_with_reranking_switched_off_options_are_still_removed(
    switched: tuple[Switches, Client], engine: FakeEngine, target: str
) -> None:
    """The engine rejects `ext.rerank_proxy` with 400, so every client that sets an option would fail."""
    switches, client = switched
    switches.reranking = False
    body = json.dumps({**QUERY, "ext": {"rerank_proxy": {"window": 5}}}).encode()
    multi = target.endswith("_msearch")
    content_type = "application/x-ndjson" if multi else "application/json"
    answered = await client.ask("POST", target, b"{}\n" + body + b"\n" if multi else body, content_type=content_type)
    assert "bypassed;reason=switched_off" == answered.header("x-rerank")
    (own,) = [asked for asked in engine.requests if asked.path == target]
    assert b"rerank_proxy" not in own.content


@pytest.mark.parametrize("target", ["/_async_search/somebodys", "/_msearch"])
async def test_with_reranking_switched_off_only_searches_of_routes_are_reported(
    switched: tuple[Switches, Client], target: str
) -> None:
    switches, client = switched
    switches.reranking = False
    content = b'{"index":"logs"}\n' + json.dumps(QUERY).encode() + b"\n"
    if target == "/_msearch":
        answered = await client.ask("POST", target, content, content_type="application/x-ndjson")
    else:
        answered = await client.ask("GET", target)
    assert "" == answered.header("x-rerank")


@pytest.mark.parametrize("fields", [{}, {"x_rerank_enabled": "on"}])
async def test_the_kill_switch_turns_reranking_off_at_once_and_on_again(
    switched: tuple[Switches, Client], models: FakeModels, fields: dict[str, str]
) -> None:
    switches, client = switched
    found = []
    for reranking, query in ((True, QUERY), (False, QUERY), (True, OTHER)):
        switches.reranking = reranking
        answered = await client.search("/products/_search", query, **fields)
        found.append((answered.header("x-rerank"), len(models.of("rerank"))))
    assert [("reranked", 1), ("bypassed;reason=switched_off", 1), ("reranked", 2)] == found
