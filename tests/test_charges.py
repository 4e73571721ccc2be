"""What a model call took, read from whatever a server reports."""

import json
from typing import Any

import pytest

from proxy.context import Charge
from proxy.upstream.charges import charge_of


@pytest.mark.parametrize(
    ("said", "charge"),
    [
        ({"scores": [1], "input_tokens": 42, "inference_status": {"cost": 0.00001}}, Charge(42, 0.00001)),
        ({"usage": {"prompt_tokens": 3, "total_tokens": 5}}, Charge(5)),
        ({"input_tokens": None, "usage": {"total_tokens": 5}}, Charge(5)),
        ({"inference_status": {"cost": 1}}, Charge(0, 1.0)),
    ],
)
def test_tokens_and_cost_are_read_in_the_forms_of_the_providers(said: Any, charge: Charge) -> None:
    assert charge == charge_of(said)


@pytest.mark.parametrize("value", [None, True, -1, "5", [5], {}, float("nan"), float("inf"), 10**400, 2**54])
def test_what_is_no_sensible_number_counts_as_nothing(value: Any) -> None:
    assert Charge() == charge_of({"input_tokens": value, "usage": value, "inference_status": {"cost": value}})


@pytest.mark.parametrize("said", [b"null", b"[]", b"{}", b'"x"', b'{"usage":[],"inference_status":7}'])
def test_a_response_that_reports_nothing_was_free(said: bytes) -> None:
    assert Charge() == charge_of(json.loads(said))


def test_charges_add_up() -> None:
    assert Charge(3, 0.75) == Charge(1, 0.25) + Charge(2, 0.5)
