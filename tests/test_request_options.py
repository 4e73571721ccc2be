"""What a request may say of its reranking: each option, by header and by body, right and wrong."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.bounds import BUDGET_MS_MAX
from proxy.settings.config import Config
from proxy.settings.request_options import ALLOWED, OPTIONS, Option, Steering, Wrong, read_steering
from tests import strategies

HEADERS: list[tuple[bytes, bytes, dict[str, Any]]] = [
    (b"X-Rerank-Enabled", b"on", {"enabled": True}),
    (b"X-Rerank-Enabled", b"off", {"enabled": False}),
    (b"x-rerank-enabled", b"TRUE", {"enabled": True}),
    (b"X-RERANK-ENABLED", b"false", {"enabled": False}),
    (b"X-Rerank-Query", b" garden hose ", {"query": "garden hose"}),
    (b"X-Rerank-Query", "Gartenschläuche".encode(), {"query": "Gartenschläuche"}),
    (b"X-Rerank-Query", b"12", {"query": "12"}),
    (b"X-Rerank-Query", b"true", {"query": "true"}),
    (b"X-Rerank-Budget-Ms", b"200", {"budget_ms": 200}),
    (b"X-Rerank-Budget-Ms", b"60000", {"budget_ms": 60_000}),
    (b"X-Rerank-Window", b"1", {"window": 1}),
    (b"X-Rerank-Window", b"1000", {"window": 1000}),
    (b"X-Rerank-Profile", b"legal", {"profile": "legal"}),
    (b"X-Rerank-Instruction", b"Prefer what is new.", {"instruction": "Prefer what is new."}),
    (b"X-Rerank-Explain", b"on", {"explain": True}),
    (b"X-Rerank-Cost", b"on", {"cost": True}),
    (b"X-Rerank-Background", b"on", {"background": True}),
]


@pytest.mark.parametrize(("name", "value", "said"), HEADERS)
def test_each_option_can_be_set_by_a_header(name: bytes, value: bytes, said: Any) -> None:
    assert Steering(**said) == read_steering([(b"Host", b"x"), (name, value)], None, OPTIONS)


@pytest.mark.parametrize("said", [said for *_, said in HEADERS])
def test_options_in_the_body_override_the_headers(said: Any) -> None:
    headers = [(b"X-Rerank-Query", b"x"), (b"X-Rerank-Window", b"7"), (b"X-Rerank-Enabled", b"on")]
    expected = {"query": "x", "window": 7, "enabled": True} | said
    assert Steering(**expected) == read_steering(headers, said, OPTIONS)


def test_a_request_without_options_has_none() -> None:
    assert Steering() == read_steering([(b"Accept", b"*/*"), (b"X-Rerank", b"off")], None, OPTIONS)
    assert Steering() == read_steering([], {}, OPTIONS)


@pytest.mark.parametrize(
    "fields",
    [
        [(b"X-Rerank-Enabled", b"yes")],
        [(b"X-Rerank-Enabled", b"")],
        [(b"X-Rerank-Explain", b"1")],
        [(b"X-Rerank-Query", b"")],
        [(b"X-Rerank-Query", b"  ")],
        [(b"X-Rerank-Query", b"x" * 2001)],
        [(b"X-Rerank-Query", b"\xff")],
        [(b"X-Rerank-Budget-Ms", b"0")],
        [(b"X-Rerank-Budget-Ms", b"-1")],
        [(b"X-Rerank-Budget-Ms", b"1.5")],
        [(b"X-Rerank-Budget-Ms", b"1" * 19)],
        [(b"X-Rerank-Window", "\u0661".encode())],
        [(b"X-Rerank-Window", b"many")],
        [(b"X-Rerank-Profile", b"shop")],
        [(b"X-Rerank-Instruction", b"")],
        [(b"X-Rerank-Instruction", b"x" * 2049)],
        [(b"X-Rerank-Model", b"x")],
        [(b"X-Rerank-Host", b"x")],
        [(b"X-Rerank-", b"x")],
        [(b"X-Rerank-Window", b"5"), (b"x-rerank-window", b"5")],
    ],
)
def test_an_invalid_header_is_rejected(fields: list[tuple[bytes, bytes]]) -> None:
    assert isinstance(read_steering(fields, None, OPTIONS), Wrong)


@pytest.mark.parametrize(
    "member",
    [
        [],
        "off",
        0,
        False,
        {"enabled": "off"},
        {"enabled": 1},
        {"query": 7},
        {"query": ""},
        {"query": ["a"]},
        {"budget_ms": "200"},
        {"budget_ms": 0.5},
        {"budget_ms": True},
        {"window": -1},
        {"window": 0},
        {"profile": "LEGAL"},
        {"profile": 1},
        {"instruction": {}},
        {"explain": "on"},
        {"url": "http://evil.example"},
        {"model": "x"},
        {"field": "secret"},
    ],
)
def test_an_invalid_member_is_rejected(member: Any) -> None:
    assert isinstance(read_steering([], member, OPTIONS), Wrong)


REFUSALS: list[tuple[list[tuple[bytes, bytes]], Any, str]] = [
    (
        [(b"x-rerank-Window", b"many")],
        None,
        "[x-rerank-Window] takes a whole number of 1 or more, not the text [many]: correct or remove it",
    ),
    (
        [],
        {"window": "5"},
        "[ext.rerank_proxy.window] takes a whole number of 1 or more, not the text [5]: correct or remove it",
    ),
    (
        [(b"X-Rerank-Budget-Ms", b"0")],
        None,
        "[X-Rerank-Budget-Ms] takes a whole number of 1 or more, not 0: correct or remove it",
    ),
    (
        [],
        {"budget_ms": 0.5},
        "[ext.rerank_proxy.budget_ms] takes a whole number of 1 or more, not 0.5: correct or remove it",
    ),
    (
        [],
        {"query": "x" * 2001},
        (
            "[ext.rerank_proxy.query] takes a text of 1 to 2000 characters, not a text of 2001 characters: "
            "correct or remove it"
        ),
    ),
    (
        [],
        {"instruction": ["x"]},
        "[ext.rerank_proxy.instruction] takes a text of 1 to 2048 characters, not a list: correct or remove it",
    ),
    (
        [(b"X-Rerank-Explain", b"1")],
        None,
        (
            "[X-Rerank-Explain] takes `on` or `off`, in the body `true` or `false`, not the text [1]: "
            "correct or remove it"
        ),
    ),
    (
        [],
        {"profile": {}},
        "[ext.rerank_proxy.profile] takes the name of a profile, not an object: correct or remove it",
    ),
    (
        [],
        {"profile": "leagl"},
        "[ext.rerank_proxy.profile] expects the name of a profile, not the text [leagl], did you mean `legal`?",
    ),
    (
        [(b"X-Rerank-Windw", b"1")],
        None,
        "[X-Rerank-Windw] is not a per-request option, did you mean `window`?",
    ),
    ([], True, "[ext.rerank_proxy] takes an object, not true"),
    (
        [(b"X-Rerank-Query", b"\xff")],
        None,
        "[X-Rerank-Query] is not UTF-8: encode it as UTF-8, or send it in the body as [ext.rerank_proxy.query]",
    ),
    (
        [(b"X-Rerank-Window", b"5"), (b"x-rerank-window", b"5")],
        None,
        "[x-rerank-window] is sent more than once: send it once",
    ),
]


@pytest.mark.parametrize(("fields", "member", "reason"), REFUSALS)
def test_an_error_names_place_problem_and_remedy(fields: list[tuple[bytes, bytes]], member: Any, reason: str) -> None:
    assert Wrong(reason) == read_steering(fields, member, OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_only_disallowed_options_are_rejected(option: Option) -> None:
    allowed = [other for other in OPTIONS if other != option]
    right: dict[str, Any] = {key: value for *_, said in HEADERS for key, value in said.items()}
    assert isinstance(read_steering([], {option: right[option]}, allowed), Wrong)
    others = {other: right[other] for other in allowed}
    assert Steering(**others) == read_steering([], others, allowed)


def test_options_that_reach_a_model_are_not_allowed_by_default() -> None:
    assert set(OPTIONS) == set(Steering.__struct_fields__)
    assert ALLOWED == Config().steering == tuple(option for option in OPTIONS if option in Config().steering)
    assert {"query", "profile", "instruction", "cost", "background"} == set(OPTIONS) - set(ALLOWED)


def test_a_larger_budget_is_reduced_and_not_rejected() -> None:
    assert Steering(budget_ms=BUDGET_MS_MAX) == read_steering([(b"X-Rerank-Budget-Ms", b"999999999")], None, OPTIONS)
    assert Steering(budget_ms=BUDGET_MS_MAX) == read_steering([], {"budget_ms": 2**60}, OPTIONS)
    assert Steering(window=10**9) == read_steering([], {"window": 10**9}, OPTIONS)


@pytest.mark.parametrize("name", ["x" * 2**20, "windo" * 2**18])
def test_a_long_name_is_truncated_in_the_error(name: str) -> None:
    in_body = read_steering([], {name: 1}, OPTIONS)
    in_header = read_steering([(b"X-Rerank-" + name.encode(), b"1")], None, OPTIONS)
    for wrong in (in_body, in_header):
        assert isinstance(wrong, Wrong)
        assert len(wrong.reason) < 200


def test_a_million_unknown_members_are_rejected_quickly() -> None:
    assert isinstance(read_steering([], dict.fromkeys(map(str, range(10**6)), 1), OPTIONS), Wrong)


@given(
    st.lists(st.tuples(st.sampled_from([b"X-Rerank-Query", b"x-rerank-window", b"a"]), st.binary())),
    strategies.json_values,
)
def test_any_options_are_accepted_or_rejected_without_an_exception(
    fields: list[tuple[bytes, bytes]], member: Any
) -> None:
    assert isinstance(read_steering(fields, member, OPTIONS), Steering | Wrong)
