"""The template of a search body, with filters, boosts and so on, and `{{query}}` in place of the query text."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy.bounds import TEMPLATE_DEPTH
from proxy.commands.evaluation.errors import CannotEvaluate

PLACEHOLDER = "{{query}}"
HITS_COMPARED = 100
"""The `size` if the template has none: large enough for recall, and for the former rank of a document."""


@dataclass(frozen=True, slots=True)
class Template:
    """A search body without its query text."""

    body: Mapping[str, Any]
    depth: int
    """The number of hits per search."""

    def fill(self, text: str) -> bytes:
        """Return the body of one query's search; the text is escaped as JSON."""
        return msgspec.json.encode(_filled(self.body, text))


def read_template(content: bytes, name: str) -> Template:
    """Parse a search body as JSON; raises CannotEvaluate."""
    try:
        body = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CannotEvaluate(
            f'{name}: no search body: {error}. Write it as for _search, with "{PLACEHOLDER}" inside a string'
        ) from None
    if _levels(body) > TEMPLATE_DEPTH:
        raise CannotEvaluate(f"{name}: nested too deep: write at most {TEMPLATE_DEPTH} levels")
    if not any(PLACEHOLDER in text for text in _texts(body)):
        raise CannotEvaluate(f'{name}: write "{PLACEHOLDER}" where the query text goes, inside a string')
    body.setdefault("size", HITS_COMPARED)
    if not isinstance(body["size"], int) or isinstance(body["size"], bool) or body["size"] < 1:
        raise CannotEvaluate(f"{name}: size: expected a whole number from 1 on, or none for {HITS_COMPARED}")
    return Template(body, body["size"])


def _levels(body: Any) -> int:
    """Return the nesting depth of a body, up to the limit."""
    level, levels = [body], 0
    while level and levels <= TEMPLATE_DEPTH:
        level = [inner for each in level for inner in _members(each)]
        levels += 1
    return levels


def _members(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for member in _members(value):
        yield from _texts(member)


def _filled(value: Any, text: str) -> Any:
    match value:
        case str():
            return value.replace(PLACEHOLDER, text)
        case dict():
            return {name: _filled(member, text) for name, member in value.items()}
        case list():
            return [_filled(element, text) for element in value]
        case _:
            return value
