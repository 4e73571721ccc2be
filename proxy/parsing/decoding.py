"""Decodes the URL and the body of a search as strictly as an engine does, and checks that all their names are known.

What an engine would reject or read differently is not decoded: the response must be the engine's own.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn
from urllib.parse import parse_qsl

import msgspec

from proxy.bounds import BODY_CLAUSES, BODY_DEPTH, PARAMETERS_BYTES
from proxy.outcomes import Bypass
from proxy.parsing.json_text import is_deeper
from proxy.parsing.search_keys import BODY_KEYS, PARAMETERS, Use

Members = Mapping[str, msgspec.Raw]
Parameters = tuple[tuple[str, str], ...]


class NotUnderstood(Exception):
    """The search is bypassed, for the reason `why`."""

    def __init__(self, reason: str, key: str = "", detail: str = "") -> None:
        self.why = Bypass(reason, key, detail)


class Decoded(NamedTuple):
    """The URL and the body of a search, decoded."""

    parameters: Parameters
    content: bytes
    """The body, from the request or from its URL."""
    members: Members
    """The members of the body, with their bytes."""
    body: Mapping[str, Any]

    def read_as(self, content: bytes) -> "Decoded":
        """Return the same search, with the members of another body; raises NotUnderstood."""
        return Decoded(self.parameters, self.content, *_body(content))


def decode(query_string: str, body: bytes) -> Decoded:
    """Decode a search from its URL's query string and decompressed body; raises NotUnderstood."""
    parameters = _parameters(query_string)
    content = _content(parameters, body)
    return Decoded(parameters, content, *_body(content))


_READ_OTHERWISE = re.compile(r"[;#]|%(?![0-9A-Fa-f]{2})")
"""Characters that engines read differently: they accept `;` for `&`, end the URL at `#`, and reject bad escapes."""


def unreadable(query_string: str) -> Bypass | None:
    """Return the bypass reason of a query string that is not read here as the engine would read it."""
    if len(query_string) > PARAMETERS_BYTES:
        return Bypass("too_complex", detail="the URL is too long")
    if found := _READ_OTHERWISE.search(query_string):
        return Bypass("unknown_parameter", detail=f"`{found[0]}` in the URL")
    return None


def _parameters(query_string: str) -> Parameters:
    if why := unreadable(query_string):
        raise NotUnderstood(why.reason, why.key, why.detail)
    try:
        pairs = parse_qsl(query_string, keep_blank_values=True, errors="strict")
    except ValueError:
        raise NotUnderstood("unknown_parameter", detail="the URL is not UTF-8") from None
    if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise NotUnderstood("unknown_parameter", twice[0], "it occurs twice")
    _refuse([name for name, _ in pairs], PARAMETERS, "unknown_parameter")
    if dict(pairs).get("format", "json") != "json":
        raise NotUnderstood("format")
    return tuple(pairs)


def _refuse(names: Sequence[str], table: Mapping[str, Use | str], unknown: str) -> None:
    for name in names:
        use = table.get(name, unknown)
        if isinstance(use, str):
            raise NotUnderstood(use, "" if name in table else name, name)


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _body(body: bytes) -> tuple[Members, Mapping[str, Any]]:
    """Decode a body strictly, since the engine rejects duplicate keys and trailing content."""
    if not body:
        return {}, {}
    if is_too_complex(body):
        raise NotUnderstood("too_complex")
    try:
        decoded = json.loads(
            body.decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constants, parse_float=_finite
        )
        members = _members.decode(body)
    except RecursionError:
        raise NotUnderstood("too_complex") from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise NotUnderstood("not_json", detail=str(error)) from None
    _refuse(list(members), BODY_KEYS, "unknown_key")
    return members, decoded


def is_too_complex(body: bytes) -> bool:
    """Whether a body has more objects and arrays than are read, or more nested ones."""
    count = body.count(b"{") + body.count(b"[")
    return count > BODY_CLAUSES or (count > BODY_DEPTH and is_deeper(body, BODY_DEPTH))


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key occurs twice")
    return members


def _no_constants(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(number: str) -> float:
    """Parse a number; the engine decides about one that is too large to be serialised again."""
    if math.isinf(value := float(number)):
        raise ValueError(f"{number} is out of range")
    return value


def _content(parameters: Parameters, body: bytes) -> bytes:
    """Return the body, or the URL's `source` if there is no body: with a body, the engine rejects that parameter."""
    url = dict(parameters)
    if body or "source" not in url:
        if {"source", "source_content_type"} & url.keys():
            raise NotUnderstood("unknown_parameter", "source")
        return body
    if not url.get("source_content_type", "").startswith("application/json"):
        raise NotUnderstood("format")
    return url["source"].encode()
