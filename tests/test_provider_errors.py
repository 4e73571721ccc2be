"""A provider's own words reach the log: its message, and nothing of what the user typed or of the token."""

import json
from typing import Any

import pytest

from proxy.bounds import MODEL_MESSAGE
from proxy.upstream.provider_errors import inner_status, message_of


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"detail": "Not authenticated"}, "Not authenticated"),
        ({"detail": {"error": "model is gone"}}, "model is gone"),
        ({"detail": [{"loc": ["body"], "msg": "too long", "input": "what the user typed"}]}, "too long"),
        ({"error": "no credit"}, "no credit"),
        ({"error": {"message": "Model busy, retry later", "code": "engine_overloaded"}}, "Model busy, retry later"),
        ({"error": "overloaded", "error_type": "Overloaded"}, "overloaded; Overloaded"),
        ({"message": "invalid api token"}, "invalid api token"),
        ({"error": None}, ""),
        ({"scores": [0.5]}, ""),
        ([], ""),
        (7, ""),
    ],
)
def test_messages_are_read_in_known_formats(said: Any, message: str) -> None:
    assert message == message_of(json.dumps(said).encode())


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 100_000])
def test_invalid_json_has_no_message(body: bytes) -> None:
    assert ("", None) == (message_of(body), inner_status(body))


def test_a_message_is_one_short_line_without_the_token() -> None:
    said = json.dumps({"detail": "no\nsuch token \x1b[1mSECRET" + "x" * 1000}).encode()
    message = message_of(said, "SECRET")
    assert message.startswith("no such token  [1m***xxx")
    assert MODEL_MESSAGE == len(message)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"error": {"code": 429, "message": "slow down"}}, 429),
        ({"error": {"code": "engine_overloaded"}}, 429),
        ({"error": "x", "status": 503}, 503),
        ({"error": {"code": 7}}, 500),
        ({"error": "out of memory"}, 500),
        ({"detail": "out of memory"}, 500),
        ({"error": None, "scores": []}, None),
        ({"error": ""}, None),
        ({"scores": []}, None),
        ([], None),
    ],
)
def test_an_error_in_a_response_with_status_200_has_a_status(said: Any, status: int | None) -> None:
    assert status == inner_status(json.dumps(said).encode())
