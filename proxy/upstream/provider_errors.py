"""Extracts a provider's message from an error response, as one short line for the log."""

from collections.abc import Iterator
from typing import Any

import msgspec

from proxy.bounds import MODEL_MESSAGE

_OVERLOADED = "engine_overloaded"


def message_of(body: bytes, secret: str | None = None) -> str:
    """Return the provider's message from any of the known formats; a secret in it is masked.

    Only members with messages are read: validation errors of FastAPI also repeat the input, which is the user's.
    """
    try:
        decoded = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return ""
    message = "; ".join(_messages(decoded))
    if secret:
        message = message.replace(secret, "***")
    return "".join(letter if letter.isprintable() else " " for letter in message[:MODEL_MESSAGE])


def _messages(said: Any) -> Iterator[str]:
    """Yield the messages in `{"error": ...}`, `{"detail": ...}` and `{"message": ...}`, nested or in a list."""
    match said:
        case str():
            yield said
        case {"error": inner, "error_type": str(kind)}:  # Hugging Face TEI
            yield from _messages(inner)
            yield kind
        case {"error": inner} | {"detail": inner} | {"message": inner}:
            yield from _messages(inner)
        case {"msg": str(message)}:
            yield message
        case [*entries]:
            for entry in entries[:3]:
                yield from _messages(entry)
        case _:
            pass


def inner_status(body: bytes) -> int | None:
    """Return the status of an error in a 200 response, as aggregators send it; None if it is not an error."""
    try:
        decoded = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
    match decoded:
        case {"error": {"code": int(code)}} | {"error": _, "status": int(code)} if 400 <= code <= 599:
            return code
        case {"error": {"code": str(code)}} if code == _OVERLOADED:
            return 429
        case {"error": inner} | {"detail": inner} if inner:
            return 500
        case _:
            return None
