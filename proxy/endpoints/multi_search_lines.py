"""A multi-search's lines and its answer: items taken apart, and put together again in their order.

Source: Elasticsearch, "Multi search API" (`MultiSearchRequest.readMultiLineFormat`): a line of metadata, a line of
body, for each item, the last one ended by a newline, too.
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
"""Parameters of the URL that hold for each of its searches."""
OF_THE_WHOLE = frozenset({"filter_path", "max_concurrent_searches", "pretty"})
"""Parameters of the URL that are about the answer as a whole."""

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
    """One search of several: its two lines as they came, and what the first one says."""

    head: bytes
    body: bytes
    indices: str | None
    """Names as a path segment; None leaves it to the URL."""
    parameters: tuple[tuple[str, str], ...]

    def of(self, indices_of_url: str) -> str:
        """Return the names that are searched."""
        return indices_of_url if self.indices is None else self.indices


@dataclass(frozen=True, slots=True)
class Unread:
    """An item that is not understood, and so for the engine to judge: its two lines."""

    head: bytes
    body: bytes
    key: str
    """What is not understood in the first one."""


def split(content: bytes) -> tuple[Item | Unread, ...] | None:
    """Take the lines apart; None where it is not certain which belong together.

    An empty line before all others is an item's first one for Elasticsearch 8, and for OpenSearch none at all.
    """
    if not content.endswith(b"\n") or content.startswith(b"\n"):
        return None
    lines = content.split(b"\n")[:-1]
    if len(lines) % 2 or not lines:
        return None
    items = [_item(head, body) for head, body in zip(lines[::2], lines[1::2], strict=True)]
    read = tuple(item for item in items if item is not None)
    return read if len(read) == len(items) else None


_metadata = msgspec.json.Decoder(dict[str, Any])


def _item(head: bytes, body: bytes) -> Item | Unread | None:
    """Read an item; None where its lines are none of a multi-search, which the engine refuses as a whole."""
    try:
        said = _metadata.decode(head) if head.strip() else {}
    except (ValueError, RecursionError):
        return None
    if not body.strip():
        return None
    named = [said.pop(key) for key in _INDICES if key in said]
    indices = _names(named[0]) if named else None
    if len(named) > 1 or (named and indices is None):
        return Unread(head, body, _INDICES[0])
    parameters = [(name, _parameter(value)) for name, value in said.items()]
    if unread := [name for name, value in parameters if value is None or name not in _OF_ONE_SEARCH]:
        return Unread(head, body, unread[0])
    return Item(head, body, indices, tuple((name, value) for name, value in parameters if value is not None))


def _names(value: Any) -> str | None:
    """Write names as a path segment; a comma within one name of a list is read by one engine and not by another."""
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
    """Say as a search's own parameters what item and URL say; the item stands above the URL."""
    own = {name for name, _ in item.parameters}
    shared = [pair for pair in of_the_url if pair[0] in OF_THE_ITEMS and pair[0] not in own]
    return urlencode(read_form(of_the_url).asked([*item.parameters, *shared]))


def joined(items: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Write items as lines."""
    return b"".join(head + b"\n" + body + b"\n" for head, body in items)


_took = msgspec.json.Decoder(int)


def responses(answer: bytes) -> tuple[int, list[bytes]]:
    """Read an engine's answer: how long it took, and each item's part; raises ValueError, and RecursionError."""
    return took(answer), [bytes(raw) for raw in items_of(members_of(answer).get("responses", b"[]"))]


class _Status(msgspec.Struct):
    status: int = 0


_status = msgspec.json.Decoder(_Status)


def status_of(part: bytes) -> int:
    """Read the status of one item's part; 0 where it has none."""
    try:
        return _status.decode(part).status
    except (ValueError, RecursionError):
        return 0


def took(answer: bytes) -> int:
    return _took.decode(members_of(answer).get("took", b"0"))


def render(parts: Sequence[bytes], took_ms: int, form: Form, *, keeps_empty: bool) -> bytes:
    """Put the items' answers together as the engine does."""
    members: Mapping[str, Any] = {"took": took_ms, "responses": [msgspec.Raw(part) for part in parts]}
    return form.write(msgspec.json.encode(members), keeps_empty=keeps_empty)
