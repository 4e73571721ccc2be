"""The lines of a multi-search and its response: split into items, and joined again in the same order.

Source: Elasticsearch, "Multi search API" (`MultiSearchRequest.readMultiLineFormat`): a header line and a body line for
each item; the last line also ends with a newline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from proxy.parsing.filter_path import Form, read_form
from proxy.parsing.json_text import items_of, members_of

OF_THE_ITEMS = frozenset(
    {
        "ccs_minimize_roundtrips",
        "error_trace",
        "human",
        "max_concurrent_shard_requests",
        "pre_filter_shard_size",
        "rest_total_hits_as_int",
        "typed_keys",
    }
)
"""URL parameters that apply to each search."""
OF_THE_WHOLE = frozenset({"filter_path", "max_concurrent_searches", "pretty"})
"""URL parameters that apply to the whole response."""

_INDICES = ("index", "indices")
_OF_ONE_SEARCH = frozenset(
    {
        "allow_no_indices",
        "allow_partial_search_results",
        "ccs_minimize_roundtrips",
        "expand_wildcards",
        "ignore_throttled",
        "ignore_unavailable",
        "preference",
        "request_cache",
        "routing",
        "search_type",
    }
)


@dataclass(frozen=True, slots=True)
class Item:
    """One search of a multi-search: its two lines as received, and the contents of the header line."""

    header: bytes
    body: bytes
    indices: str | None
    """Index names as a path segment; None means those of the URL."""
    parameters: tuple[tuple[str, str], ...]

    def of(self, indices_of_url: str) -> str:
        """Return the names of the searched indices."""
        return indices_of_url if self.indices is None else self.indices


@dataclass(frozen=True, slots=True)
class Unread:
    """An item whose header line is not understood, so that it is left to the engine."""

    header: bytes
    body: bytes
    key: str
    """The key of the header line that is not understood."""


def split(content: bytes) -> tuple[Item | Unread, ...] | None:
    """Split the lines into items; None if the pairs are ambiguous.

    An empty first line is a header line for Elasticsearch 8; OpenSearch ignores it.
    """
    if not content.endswith(b"\n") or content.startswith(b"\n"):
        return None
    lines = content.split(b"\n")[:-1]
    if len(lines) % 2 or not lines:
        return None
    items = [_item(header, body) for header, body in zip(lines[::2], lines[1::2], strict=True)]
    read = tuple(item for item in items if item is not None)
    return read if len(read) == len(items) else None


_metadata = msgspec.json.Decoder(dict[str, Any])


def _item(header: bytes, body: bytes) -> Item | Unread | None:
    """Parse an item; None if its lines are invalid, because the engine then rejects the whole request."""
    try:
        metadata = _metadata.decode(header) if header.strip() else {}
    except (ValueError, RecursionError):
        return None
    if not body.strip():
        return None
    named = [metadata.pop(key) for key in _INDICES if key in metadata]
    indices = _names(named[0]) if named else None
    if len(named) > 1 or (named and indices is None):
        return Unread(header, body, _INDICES[0])
    parameters = [(name, _parameter(value)) for name, value in metadata.items()]
    if unread := [name for name, value in parameters if value is None or name not in _OF_ONE_SEARCH]:
        return Unread(header, body, unread[0])
    return Item(header, body, indices, tuple((name, value) for name, value in parameters if value is not None))


def _names(value: Any) -> str | None:
    """Return index names as a path segment; None for a name with a comma in a list, which engines read differently."""
    if isinstance(value, list) and all(isinstance(name, str) and "," not in name for name in value):
        value = ",".join(value)
    return quote(value, safe=",*-_.+") if isinstance(value, str) else None


def _parameter(value: Any) -> str | None:
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int():
            return str(value)
        case list() if all(isinstance(each, str) for each in value):
            return ",".join(value)
        case _:
            return None


def query_string(item: Item, of_the_url: Sequence[tuple[str, str]]) -> str:
    """Return the parameters of an item as a query string; those of the item override those of the URL."""
    own = {name for name, _ in item.parameters}
    shared = [pair for pair in of_the_url if pair[0] in OF_THE_ITEMS and pair[0] not in own]
    return urlencode(read_form(of_the_url).asked([*item.parameters, *shared]))


def join_lines(items: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Join items to lines."""
    return b"".join(header + b"\n" + body + b"\n" for header, body in items)


def responses(answer: bytes) -> list[bytes]:
    """Split an engine's response into its items; raises ValueError and RecursionError."""
    return [bytes(raw) for raw in items_of(members_of(answer).get("responses", b"[]"))]


class _Status(msgspec.Struct):
    status: int = 0


_status = msgspec.json.Decoder(_Status)


def status_of(part: bytes) -> int:
    """Return the status of an item of the response; 0 if it has none."""
    try:
        return _status.decode(part).status
    except (ValueError, RecursionError):
        return 0


class _Took(msgspec.Struct):
    took: int = 0


_took = msgspec.json.Decoder(_Took)


def took(answer: bytes) -> int:
    """Return the milliseconds that a response or one of its items took; 0 if it does not say so."""
    try:
        return _took.decode(answer).took
    except (ValueError, RecursionError):
        return 0


def join_responses(parts: Sequence[bytes], took_ms: int, form: Form, *, keeps_empty: bool) -> bytes:
    """Join the items to a response as the engine does."""
    members: Mapping[str, Any] = {"took": took_ms, "responses": [msgspec.Raw(part) for part in parts]}
    return form.write(msgspec.json.encode(members), keeps_empty=keeps_empty)
