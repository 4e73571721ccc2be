"""What a model call took, read from whatever a server reports."""

import json
from typing import Any

import pytest

from proxy.context import Charge
from proxy.upstream.charges import reported_in
from proxy.upstream.spending.prices import Reported


@pytest.mark.parametrize(
    ("said", "reported"),
    [
        ({"scores": [1], "input_tokens": 42, "inference_status": {"cost": 0.00001}}, Reported(42, 0.00001)),
        ({"usage": {"prompt_tokens": 3, "total_tokens": 5}}, Reported(5)),
        ({"input_tokens": None, "usage": {"total_tokens": 5}}, Reported(5)),
        ({"inference_status": {"cost": 1}}, Reported(None, 1.0)),
        ({"input_tokens": 0, "inference_status": {"cost": 0}}, Reported(0, 0.0)),
    ],
)
def test_tokens_and_cost_are_read_in_each_providers_format(said: Any, reported: Reported) -> None:
    assert reported == reported_in(json.dumps(said).encode())


@pytest.mark.parametrize("value", [None, True, -1, "5", [5], {}, float("nan"), float("inf"), 10**400, 2**54])
def test_implausible_numbers_are_ignored(value: Any) -> None:
    said = {"input_tokens": value, "usage": value, "inference_status": {"cost": value}}
    assert Reported() == reported_in(json.dumps(said).encode())


@pytest.mark.parametrize("said", [b"null", b"[]", b"{}", b'"x"', b'{"usage":[],"inference_status":7}', b"[" * 9999])
def test_a_response_may_report_nothing(said: bytes) -> None:
    assert Reported() == reported_in(said)


def test_charges_add_up() -> None:
    assert Charge(3, 0.75, 0.5) == Charge(1, 0.25) + Charge(2, 0.5, 0.5)
